// The mesh as all of its nodes see it, the rates that they count, and what happened since the page was opened.
//
// The node that serves the page is asked most often. The others are asked for their own view as well: what only some can reach shows
// itself that way, and when the first one dies, the next has answered already.

import { ask, askNode, learn, node as asked } from "./api.js";
import { plural } from "./format.js";
import { parse, quantile, since, sum } from "./metrics.js";
import { Cell } from "./view.js";

const POLL_MS = 700;
const VIEWS_MS = 1400;
const METRICS_MS = 1000;
const HIDDEN_MS = 8000;
/** A view older than this says nothing any more. */
const VIEW_MS_MAX = 5000;
const VIEW_PATIENCE_MS = 2500;
/** Nodes are not asked at the same moment: only when they disagree for so long, something is wrong between them. */
const DISAGREE_MS = 3500;
/** Other nodes asked in one round, so that a large mesh costs no more than a small one. */
const VIEWS_MAX = 6;
const HAPPENINGS_MAX = 60;
/** Seconds of the plots. */
const HISTORY_MAX = 600;

/** The picture: `null` until the first answer. */
export const mesh = new Cell(null);
/** The newest rates, by node and of all, or `null`. */
export const rates = new Cell(null);
/** Their history: columns of equal length, for the plots. */
export const history = { at: [], published: [], read: [], median: [], slow: [] };
/** What happened, the newest first: { at, kind, text }. */
export const happenings = new Cell([]);

const views = new Map(); // name -> { at, cluster } of the nodes' own answers, or { at, error }
let current = null; // the newest answer of the node that is asked
let silentSince = null;

export function begin() {
  every(POLL_MS, pollCurrent);
  every(VIEWS_MS, pollViews);
  every(METRICS_MS, pollMetrics);
}

function every(ms, act) {
  const again = async () => {
    await act();
    setTimeout(again, document.hidden ? HIDDEN_MS : ms);
  };
  again();
}

async function pollCurrent() {
  try {
    const cluster = await ask("/v1/cluster");
    current = { at: Date.now(), cluster };
    views.set(cluster.node, current);
    silentSince = null;
    learn(cluster.nodes.filter((each) => each.state !== "removed").map((each) => each.url));
    // What a node said of itself a moment ago is old news when it cannot be reached any more.
    await Promise.all(cluster.nodes.filter((each) => !each.reachable && views.get(each.name)?.cluster).map(pollView));
  } catch {
    silentSince ??= Date.now();
  }
  draw();
}

let nextView = 0;

async function pollViews() {
  const others = (mesh.value?.nodes ?? []).filter((each) => each.url !== asked());
  const round = others.length <= VIEWS_MAX ? others : Array.from({ length: VIEWS_MAX }, () => others[nextView++ % others.length]);
  await Promise.all(round.map(pollView));
  if (round.length > 0) draw();
}

async function pollView({ name, url }) {
  try {
    const cluster = await askNode(url, "/v1/cluster", { patienceMs: VIEW_PATIENCE_MS });
    if (cluster.cluster !== current?.cluster.cluster) throw new Error("another cluster answers there");
    views.set(name, { at: Date.now(), cluster });
  } catch (error) {
    views.set(name, { at: Date.now(), error });
  }
}

/** The view of the largest part of the mesh: after a cut, the node that is asked may be in the smaller one. */
function widest() {
  const reached = (view) => view.cluster.nodes.filter((each) => each.reachable).length;
  const fresh = [...views.values()].filter((view) => view.cluster && Date.now() - view.at < VIEW_MS_MAX);
  const order = [current, ...fresh].filter((view) => view && Date.now() - view.at < VIEW_MS_MAX);
  return order.reduce((best, view) => (best && reached(best) >= reached(view) ? best : view), null) ?? current;
}

function draw() {
  const best = widest();
  if (!best) {
    if (silentSince !== null) mesh.value = { silentSince, nodes: [], links: [], known: false };
    return;
  }
  const before = mesh.value;
  mesh.value = picture(best.cluster, before);
  if (before?.known) tell(before, mesh.value);
}

const disagreed = new Map(); // what about -> since when

function lasts(about, disagree) {
  if (!disagree) disagreed.delete(about);
  else if (!disagreed.has(about)) disagreed.set(about, Date.now());
  return disagree && Date.now() - disagreed.get(about) >= DISAGREE_MS;
}

function picture(cluster, before) {
  const members = cluster.nodes.filter((each) => each.state !== "removed").sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const view = (name) => {
    const found = views.get(name);
    return found && Date.now() - found.at < VIEW_MS_MAX ? found : null;
  };
  const sees = (from, to) => view(from)?.cluster?.nodes.find((each) => each.name === to)?.reachable;
  const nodes = members.map((each) => {
    const known = before?.nodes.find((other) => other.name === each.name);
    const seers = members.filter((other) => other.name !== each.name && view(other.name)?.cluster);
    const missing = seers.filter((other) => sees(other.name, each.name) === false).map((other) => other.name);
    const up = each.reachable || sees(each.name, each.name) === true;
    const status = !up ? "down" : each.state === "draining" ? "draining" : lasts(each.name, up && missing.length > 0) ? "partly" : "up";
    const behind = members.reduce((total, from) => total + (view(from.name)?.cluster?.nodes.find((other) => other.name === each.name)?.replicas_behind ?? 0), 0);
    // What a node leads and holds, it knows best itself.
    const own = view(each.name)?.cluster?.nodes.find((other) => other.name === each.name) ?? each;
    return { ...own, reachable: each.reachable, state: each.state, status, missing, behind: up ? behind : 0, since: known && known.status === status ? known.since : Date.now() };
  });
  const up = (name) => nodes.find((each) => each.name === name).status !== "down";
  const links = [];
  for (const [at, a] of nodes.entries()) {
    for (const b of nodes.slice(at + 1)) {
      const told = [sees(a.name, b.name), sees(b.name, a.name)].filter((each) => each !== undefined);
      const whole = up(a.name) && up(b.name);
      const apart = lasts(`${a.name} ${b.name}`, whole && !told.every(Boolean));
      links.push({ a: a.name, b: b.name, status: !whole ? "down" : !apart ? "up" : told.some(Boolean) ? "half" : "cut" });
    }
  }
  const alive = nodes.filter((each) => each.status !== "down").length;
  return {
    known: true,
    id: cluster.cluster,
    asked: cluster.node,
    catalogLeader: alive > nodes.length / 2 ? cluster.catalog_leader : null,
    quorum: alive > nodes.length / 2,
    silentSince,
    alive,
    streams: nodes.reduce((total, each) => total + each.streams_led, 0),
    nodes,
    links,
  };
}

// What happened between two pictures.

/** Leaderships that move within this time are one line … */
const MOVES_MS = 6000;
/** … and are told when no stream was made or deleted, or a node came or went so shortly before. */
const UNREST_MS = 15_000;
let unrest = 0;

function tell(before, now) {
  const told = [];
  const add = (kind, text) => told.push({ at: Date.now(), kind, text });
  if (before.silentSince === null && now.silentSince !== null) add("bad", "No node answers this page");
  if (before.silentSince !== null && now.silentSince === null) add("good", "The mesh answers again");
  if (before.quorum && !now.quorum) add("bad", "The quorum is lost: publishes wait for nodes to come back");
  if (!before.quorum && now.quorum) add("good", "There is a quorum again");
  const moved = [];
  for (const node of now.nodes) {
    const was = before.nodes.find((each) => each.name === node.name);
    if (!was) {
      add("good", `${node.name} joined`);
      continue;
    }
    if (was.status !== node.status) tellStatus(was, node, add);
    else if (node.status !== "down" && was.streams_led !== node.streams_led) moved.push([node, was.streams_led]);
  }
  if (before.streams === now.streams || Date.now() - unrest < UNREST_MS) moved.forEach(([node, from]) => told.push(tellMoves(node, from)));
  for (const was of before.nodes) {
    if (!now.nodes.some((node) => node.name === was.name)) add("warn", `${was.name} was removed`);
  }
  if (before.catalogLeader !== now.catalogLeader && now.catalogLeader) add("", `${now.catalogLeader} leads the catalog`);
  if (told.length > 0) happenings.value = [...told.reverse(), ...happenings.value].slice(0, HAPPENINGS_MAX);
}

/** In the place of the line about the node that was told a moment ago, if there is one. */
function tellMoves(node, from) {
  const earlier = happenings.value.find((each) => each.moves === node.name && Date.now() - each.at < MOVES_MS);
  if (earlier) happenings.value = happenings.value.filter((each) => each !== earlier);
  const since = earlier?.from ?? from;
  const more = node.streams_led - since;
  const change = more === 0 ? "as before" : more > 0 ? `+${more}` : `−${-more}`;
  return { at: earlier?.at ?? Date.now(), kind: "", moves: node.name, from: since, text: `${node.name} leads ${plural(node.streams_led, "stream")} (${change})` };
}

function tellStatus(was, node, add) {
  unrest = Date.now();
  if (node.status === "down") add("bad", `${node.name} is gone`);
  else if (node.status === "partly") add("warn", `${node.name} cannot be reached by ${node.missing.join(", ")}`);
  else if (node.status === "draining") add("warn", `${node.name} drains`);
  else if (was.status === "down") add("good", `${node.name} is back`);
  else add("good", `${node.name} is whole again`);
}

// Rates: each node's counters, once a second.

const counted = new Map(); // name -> { at, samples, buckets }

async function pollMetrics() {
  const nodes = (mesh.value?.nodes ?? []).filter((each) => each.status !== "down");
  const grown = await Promise.all(nodes.map(pollNodeMetrics));
  const known = grown.filter(Boolean);
  if (known.length === 0) return;
  const total = (key) => known.reduce((all, each) => all + each[key], 0);
  const latency = sum(known.map((each) => each.latency));
  const [median, slow] = [0.5, 0.99].map((share) => quantile(latency, share)).map((seconds) => (seconds === null ? null : seconds * 1000));
  const most = (key) => Math.max(...known.map((each) => each[key]));
  const all = { streams: most("streams"), leaderless: most("leaderless"), published: total("published"), bytes: total("bytes"), read: total("read"), requests: total("requests"), median, slow };
  const columns = { at: Date.now() / 1000, published: all.published, read: all.read, median, slow };
  for (const [name, value] of Object.entries(columns)) {
    history[name].push(value);
    if (history[name].length > HISTORY_MAX) history[name].shift();
  }
  rates.value = { ...all, nodes: new Map(known.map((each) => [each.name, each])) };
}

async function pollNodeMetrics({ name, url }) {
  const before = counted.get(name);
  let now;
  try {
    now = { at: performance.now(), ...parse(await askNode(url, "/metrics", { patienceMs: VIEW_PATIENCE_MS })) };
  } catch {
    counted.delete(name);
    return null;
  }
  counted.set(name, now);
  if (!before) return null;
  const seconds = (now.at - before.at) / 1000;
  // A node that was started again counts from zero: then nothing is known of this second.
  const rate = (key) => Math.max(0, (now.samples.get(key) ?? 0) - (before.samples.get(key) ?? 0)) / seconds;
  return {
    name,
    published: rate("evermesh_publish_events_total"),
    bytes: rate("evermesh_publish_bytes_total"),
    requests: rate("evermesh_publish_requests_total"),
    read: rate("evermesh_read_events_total"),
    streams: now.samples.get("evermesh_streams") ?? 0,
    leaderless: now.samples.get("evermesh_streams_without_leader") ?? 0,
    latency: since(now.buckets.get("evermesh_publish_seconds_bucket"), before.buckets.get("evermesh_publish_seconds_bucket")),
  };
}
