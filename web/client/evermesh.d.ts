// The types of evermesh.js. A test compiles their use, and another that no name is missing on either side.

/** An address as text, or a `URL`. */
export type Address = string | { readonly href: string };

/** Where a client connects, and how long it waits for what. */
export interface Options {
  /** Addresses of nodes, `http://host:port`. One is enough, the others are learnt from it; the first is tried first. */
  nodes: Address | readonly Address[];
  /** Whether to use the nodes that the cluster names, too. `false` where only the given addresses can be reached, as behind a proxy. Default: true. */
  discover?: boolean;
  /** The WebSocket to use. Default: the global one, which browsers and Node 22 or newer have. */
  WebSocket?: new (url: string, protocol: string) => unknown;
  /** Told every state, the first one too. */
  onState?: (state: State, node: string) => void;
  /** Events that a subscription holds at most before they are taken, unless it says another number. Default: 1000. */
  credit?: number;
  /** Publishes without an answer; one more is rejected with `too-many-pending`. Default: 1000. */
  maxPending?: number;
  /** How long a publish is tried. Stay below the stream's `dedup_window` (default 2 minutes). Default: 30,000. */
  timeoutMs?: number;
  /** How long a node may take to accept the connection. Default: 5,000. */
  connectMs?: number;
  /** The next attempt comes after a random part of this time, which doubles with every failure. Default: 100. */
  backoffMs?: number;
  /** The most that the back-off grows to. Default: 5,000. */
  backoffMaxMs?: number;
  /** After so much silence the node is asked whether it is there. Default: 15,000; with a publish under way, 2,000. */
  pingMs?: number;
  /** How long it may take to answer that. Default: 5,000. */
  probeMs?: number;
}

/**
 * - `connecting`: no node has taken the connection yet.
 * - `open`: commands go out and events come in.
 * - `resuming`: the connection was lost, or the page is put aside; another is made, and everything goes on where it was.
 * - `closed`: it is over, by `close()` or because a node said so.
 */
export type State = "connecting" | "open" | "resuming" | "closed";

export interface StateChange {
  state: State;
  /** `undefined` for the first. The same as `state` when only another node is tried. */
  previous: State | undefined;
  /** The address in use, or the one that is tried. */
  node: string;
  /** The code of the close that led here; 0 where there was none. */
  code?: number;
  reason?: string;
  /** Why a node ended the connection for good, with `closed`. */
  error?: EvermeshError;
}

export interface Node {
  name: string;
  url: string;
}

/** What is told when. */
export interface MeshEvents {
  state: StateChange;
  /** The nodes of the cluster, at the start and at every change. */
  nodes: Node[];
}

/** An event to publish. */
export interface NewEvent {
  /** Any JSON value. Bytes are kept as they are, and come back as `data_base64` where they are not text. */
  data?: unknown;
  /** Instead of `data`: bytes in base64. */
  data_base64?: string;
  /** Dot-separated tokens. */
  subject?: string;
  /** For deduplication. Default: a random one, so that sending again is safe. */
  id?: string;
  /** Default: `application/json`, and none for bytes. With another than JSON, a string stands for its text. */
  contentType?: string;
  headers?: Record<string, string>;
}

export interface PublishOptions extends Omit<NewEvent, "data" | "data_base64"> {
  /** Takes the event only if this is the stream's last seq; 0 for an empty one. */
  expectedLastSeq?: number;
}

export interface Published {
  seq: number;
  /** Whether the id was known already; then `seq` is the first one's. */
  duplicate: boolean;
}

export interface BatchPublished {
  first_seq: number;
  last_seq: number;
  count: number;
  duplicates: number;
}

/** An event of a stream. */
export interface Event<Data = unknown> {
  seq: number;
  /** RFC 3339, set by the stream's leader. */
  time: string;
  subject?: string;
  /** The publisher's. */
  id?: string;
  content_type?: string;
  headers?: Record<string, string>;
  /** The JSON value, or a string where the event is text. */
  data: Data;
  /** Instead of `data`, where the event is neither. */
  data_base64?: string;
}

/** Events that are missing between two others. */
export interface Gap {
  from: number;
  to: number;
  /** `true`: retention or a purge removed them. `false`: they never came and nobody said why, which should not happen. */
  announced: boolean;
}

/** Where a subscription begins: a seq, a word, or a time (RFC 3339). */
export type From = number | Date | "earliest" | "latest" | "new" | (string & {});

export interface SubscribeOptions {
  /** Default: "new". */
  from?: From;
  /** A subject filter: `*` stands for one token, `>` for the rest. */
  subject?: string;
  /** Events held here at most before they are taken. Default: the connection's. */
  credit?: number;
  onGap?: (gap: Gap) => void;
}

export interface SubscriptionEvents {
  gap: Gap;
  /** A node has taken the subscription: the first one, or (`resumed`) another that goes on at `from`. */
  subscribed: { from: number; node: string; resumed: boolean };
}

/** Called for one event after the other; a promise is waited for before the next. If it fails, the subscription ends with its error. */
export type Handler<Data = unknown> = (event: Event<Data>) => unknown;

/** The events of one stream, in order, each once. */
export interface Subscription<Data = unknown> extends AsyncIterableIterator<Event<Data>> {
  readonly stream: string;
  /** The seq of the last event given out; `undefined` before the first. Go on another day `from: lastSeq + 1`. */
  readonly lastSeq: number | undefined;
  /** Events received that were not taken yet. */
  readonly held: number;
  /** Resolves when the subscription is closed; rejects when it fails, also by its handler. */
  readonly ended: Promise<void>;
  /** Adds a listener; call what it returns to take it away. */
  on<Type extends keyof SubscriptionEvents>(type: Type, listener: (detail: SubscriptionEvents[Type]) => void): () => void;
  /** Calls `act` as a handler, from here on; for a subscription without one. */
  each(act: Handler<Data>): Promise<void>;
  /** Ends the subscription; no event is given out any more. */
  close(): void;
  next(): Promise<IteratorResult<Event<Data>, undefined>>;
  return(): Promise<IteratorResult<Event<Data>, undefined>>;
}

/** A connection to whichever node answers. */
export interface Mesh {
  readonly state: State;
  /** The address of the node in use, or of the one that is tried. */
  readonly node: string;
  /** Publishes that have no answer yet. */
  readonly pending: number;
  /** Adds a listener; call what it returns to take it away. */
  on<Type extends keyof MeshEvents>(type: Type, listener: (detail: MeshEvents[Type]) => void): () => void;
  /**
   * Publishes one event; resolves when it is durable on a majority of the stream's replicas.
   *
   * Events of one connection to one stream are stored in the order of the calls, whatever becomes of nodes; only an event that was
   * refused for now and sent again may come after later ones. Await each to rule that out.
   */
  publish(stream: string, data: unknown, options?: PublishOptions): Promise<Published>;
  /** Publishes up to 1,000 events, all or none, next to each other. */
  publishBatch(stream: string, events: readonly NewEvent[], options?: { expectedLastSeq?: number }): Promise<BatchPublished>;
  /** Follows a stream with a handler, or, without one, as an async iterable. */
  subscribe<Data = unknown>(stream: string, handler: Handler<Data>): Subscription<Data>;
  subscribe<Data = unknown>(stream: string, options?: SubscribeOptions, handler?: Handler<Data>): Subscription<Data>;
  /** Ends the connection, its subscriptions, and (with the code `closed`) the publishes without an answer. */
  close(): void;
}

/** Problem details (RFC 9457), as the service answers; those that come from here have only a code and a title. */
export interface Problem {
  code: string;
  title?: string;
  detail?: string;
  type?: string;
  status?: number;
  retryable?: boolean;
  retry_after_ms?: number;
  first_seq?: number;
  last_seq?: number;
  limit?: number;
  request_id?: string;
}

/**
 * An answer that says no, or a connection that is over. Codes that come from here: `closed`, `refused`, `too-many-pending`,
 * `body-too-large`, `not-sent` (nothing was stored), `outcome-unknown` (publish again under `eventId` to be sure).
 */
export class EvermeshError extends Error {
  constructor(problem: Problem);
  readonly code: string;
  readonly problem: Problem;
  /** The id of the event that was not published, or of a batch's first. */
  readonly eventId?: string;
}

export function connect(options: Options): Mesh;
export function connect(nodes: Options["nodes"], options?: Omit<Options, "nodes">): Mesh;
