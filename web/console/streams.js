// The list of streams: as many rows as are visible, however many streams there are.

import { Listing, isUnknown } from "./listing.js";
import { spotlight } from "./mesh.js";
import { bytes, compact, count, plural } from "./format.js";
import { Spark } from "./spark.js";
import { FirstEvent } from "./publish.js";
import { html, useCell, useEffect, useEvery, useMemo, useRef, useState } from "./view.js";

const ROW = 44;
const BEYOND = 4;
const REFRESH_MS = 1000;
const DRAWN_MAX = 500;

export function Streams() {
  const listing = useMemo(() => new Listing(), []);
  const box = useRef();
  const shown = useRef([0, 30]);
  const drawn = useRef(new Map());
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  useCell(listing.changes);
  const rows = listing.total ?? 0;
  const first = Math.max(0, Math.min(Math.floor(top / ROW) - BEYOND, rows - 1));
  const last = Math.min(rows - 1, Math.ceil((top + height) / ROW) + BEYOND);
  shown.current = [first, Math.max(first + 10, last)];
  useEvery(REFRESH_MS, () => listing.refresh(...shown.current), [listing]);
  useEffect(() => {
    if (last >= listing.summaries.length && rows > 0) listing.need(last).then(() => listing.refresh(...shown.current));
  }, [last, listing.summaries.length]);
  useEffect(() => {
    if (!box.current) return undefined;
    const observer = new ResizeObserver(() => box.current && setHeight(box.current.clientHeight));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [rows === 0]);
  useEffect(() => () => (spotlight.value = null), []);
  const scrolled = () => setTop(box.current.scrollTop);
  const find = (input) => {
    if (box.current) box.current.scrollTop = 0;
    setTop(0);
    listing.find(input.target.value.trim());
  };
  return html`<section class="sheet streams" aria-labelledby="streams-title">
    <div class="head">
      <h2 id="streams-title">Streams</h2>
      <span class="tally">${listing.total === null ? "" : count(listing.total)}</span>
      <label class="find"><span class="unseen">Only streams whose names begin with</span><input id="find" type="search" placeholder="Name begins with…  /" maxlength="128" onInput=${find} /></label>
    </div>
    ${body()}
  </section>`;

  /** A row as it was drawn last, where nothing of it has changed: scrolling then costs only the rows that come. */
  function row(at) {
    const stream = listing.summaries[at];
    const known = listing.states.get(stream?.name);
    const before = drawn.current.get(at);
    if (before && before.stream === stream && before.known === known) return before.row;
    const now = { stream, known, row: html`<${Row} key=${at} at=${at} stream=${stream} known=${known} />` };
    if (drawn.current.size > DRAWN_MAX) drawn.current.clear();
    drawn.current.set(at, now);
    return now.row;
  }

  function body() {
    if (listing.total === null) return html`<p class="hush pad" role="status">${listing.error ? `No answer: ${listing.error.message}. Trying again…` : "Asking…"}</p>`;
    if (rows === 0 && listing.prefix) return html`<p class="hush pad" role="status">No stream's name begins with “${listing.prefix}”.</p>`;
    if (rows === 0) return html`<${FirstEvent} />`;
    const visible = Array.from({ length: Math.max(0, last - first + 1) }, (_, at) => first + at);
    return html`<div role="table" aria-label="Streams" aria-rowcount=${rows + 1} aria-busy=${String(listing.error !== null)}>
      <div class="row titles" role="row">
        <span role="columnheader">Name</span><span role="columnheader" class="number">Events</span><span role="columnheader" class="number">Size</span>
        <span role="columnheader" class="number">Per second</span><span role="columnheader" class="trend">Last minute</span><span role="columnheader">Leader</span>
        <span role="columnheader">Replicas</span>
      </div>
      <div class="rows" style=${{ height: `min(62vh, ${Math.min(15, rows) * ROW}px)` }} ref=${box} onScroll=${scrolled} onKeyDown=${(key) => walk(key, box.current)} role="rowgroup" tabindex="-1">
        <div class="all" style=${{ height: `${rows * ROW}px` }}>
          ${visible.map(row)}
        </div>
      </div>
    </div>`;
  }
}

function Row({ at, stream, known }) {
  const place = { transform: `translateY(${at * ROW}px)` };
  if (!stream) return html`<div class="row" role="row" aria-rowindex=${at + 2} style=${place}><span role="cell" class="hush">…</span></div>`;
  const state = known?.state;
  const counts = state && !isUnknown(state);
  const leader = state ? state.leader : stream.leader;
  // A replica that is alone goes on believing in its leader.
  const lost = !leader ? state && "none" : state?.replicas.some((each) => each.node === leader && !each.reachable) && `${leader} is unreachable`;
  const look = () => (spotlight.value = { name: stream.name, leader, replicas: state?.replicas ?? stream.replicas.map((node) => ({ node })) });
  const leave = () => spotlight.value?.name === stream.name && (spotlight.value = null);
  return html`<div class="row" role="row" aria-rowindex=${at + 2} style=${place} onMouseEnter=${look} onMouseLeave=${leave} onFocusIn=${look} onFocusOut=${leave}>
    <span role="cell" class="name"><a data-row=${at} href=${`#/streams/${encodeURIComponent(stream.name)}`} title=${stream.name}>${stream.name}</a></span>
    <span role="cell" class="number events">${counts ? count(state.events) : "–"}</span>
    <span role="cell" class="number size">${counts ? bytes(state.bytes) : "–"}</span>
    <span role="cell" class="number rate">${known?.rate === null || !known ? "–" : compact(known.rate)}</span>
    <span role="cell" class="trend"><${Spark} values=${known?.history} /></span>
    <span role="cell" class=${`leader ${lost ? "bad" : ""}`} title=${lost || leader}>${leader ?? lost ?? "–"}</span>
    <span role="cell" class="replicas"><${Replicas} replicas=${state?.replicas} held=${stream.replicas} /></span>
  </div>`;
}

const TONES = { ok: "good", behind: "warn", rebuilding: "warn", unreachable: "bad", damaged: "bad" };

function Replicas({ replicas, held }) {
  if (!replicas) return html`<span class="hush">${held.length}</span>`;
  const far = replicas.filter((each) => each.state !== "ok");
  const most = Math.max(0, ...replicas.map((each) => each.lag ?? 0));
  const note = far.length > 0 ? (far[0].state === "behind" && most > 0 ? `−${compact(most)}` : far[0].state) : "";
  const title = replicas.map((each) => `${each.node}: ${replicaSays(each)}`).join("\n");
  return html`<span class="dots" title=${title}>
    ${replicas.map((each) => html`<i key=${each.node} class=${`dot ${TONES[each.state]} ${each.leader ? "leads" : ""}`}></i>`)}
    <span class=${far.length > 0 ? TONES[far[0].state] : "unseen"}>${note || `${plural(replicas.length, "replica")}, all well`}</span>
  </span>`;
}

/** A replica's state as words. */
export function replicaSays({ leader, lag, state, why }) {
  if (leader) return "leads";
  if (state === "ok") return lag === 0 ? "up to date" : lag === null || lag === undefined ? "follows" : `follows, ${count(lag)} behind`;
  if (state === "behind") return lag === null ? "behind" : `${count(lag)} behind`;
  return [state, why].filter(Boolean).join(": ");
}

/** Arrow keys go from row to row, also to rows that are not drawn yet. */
function walk(key, box) {
  const at = Number(document.activeElement?.dataset?.row ?? NaN);
  const page = Math.max(1, Math.floor(box.clientHeight / ROW) - 1);
  const rows = Math.round(box.scrollHeight / ROW);
  const step = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows - 1 }[key.key];
  if (step === undefined || Number.isNaN(step)) return;
  key.preventDefault();
  const to = Math.max(0, Math.min(rows - 1, step));
  const [from, until] = [box.scrollTop, box.scrollTop + box.clientHeight];
  if (to * ROW < from) box.scrollTop = to * ROW;
  else if ((to + 1) * ROW > until) box.scrollTop = (to + 1) * ROW - box.clientHeight;
  focusRow(box, to, 40);
}

/** A row that was just scrolled to is there after the next frames. */
function focusRow(box, at, tries) {
  const row = box.querySelector(`[data-row="${at}"]`);
  if (row) row.focus({ preventScroll: true });
  else if (tries > 0) requestAnimationFrame(() => focusRow(box, at, tries - 1));
}
