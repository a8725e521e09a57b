// Publishing one event, and the same as a command.

import { Refusal, ask, node, streamPath } from "./api.js";
import { count, quoted } from "./format.js";
import { Command, html, useState } from "./view.js";

const NAME = "[A-Za-z0-9_\\-][A-Za-z0-9_.\\-]{0,127}";

/** Longer than a node holds a publish while nobody leads the stream. */
const PATIENCE_MS = 12_000;

export function Publish({ stream }) {
  const [draft, setDraft] = useState({ subject: "", id: "", data: '{"hello": "mesh"}' });
  const [outcome, setOutcome] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name) => (input) => setDraft({ ...draft, [name]: input.target.value });
  const send = async (submit) => {
    submit.preventDefault();
    setBusy(true);
    setOutcome(await publish(stream, draft));
    setBusy(false);
  };
  return html`<form class="publish" onSubmit=${send} aria-label="Publish an event">
    <div class="pair">
      <label>Subject<input name="subject" maxlength="256" placeholder="optional: orders.eu.created" value=${draft.subject} onInput=${set("subject")} spellcheck="false" /></label>
      <label>Event id<input name="id" maxlength="256" placeholder="optional: stored once" value=${draft.id} onInput=${set("id")} spellcheck="false" /></label>
    </div>
    <label>Data<textarea name="data" required rows="3" value=${draft.data} onInput=${set("data")} spellcheck="false"></textarea></label>
    <div class="acts">
      <button class="main-button" disabled=${busy}>Publish</button>
      <span role="status" class=${outcome?.tone ?? "hush"}>${outcome?.text ?? `as ${isJson(draft.data) ? "application/json" : "text/plain"}`}</span>
    </div>
    <${Command} text=${curl(stream, draft)} label="The same as a command" />
  </form>`;
}

/** What an empty cluster shows in place of its streams. */
export function FirstEvent() {
  const [stream, setStream] = useState("hello");
  const draft = { subject: "", id: "", data: '{"hello": "mesh"}' };
  const [outcome, setOutcome] = useState(null);
  const go = async (submit) => {
    submit.preventDefault();
    const said = await publish(stream, draft);
    setOutcome(said);
    if (said.tone === "good") location.hash = `#/streams/${encodeURIComponent(stream)}`;
  };
  return html`<div class="first">
    <h3>No stream yet</h3>
    <p class="hush">The first publish makes one, where streams may be made that way; <code>PUT /v1/streams/NAME</code> always does.</p>
    <form class="acts" onSubmit=${go} aria-label="Publish the first event">
      <input name="stream" aria-label="Name of the stream" value=${stream} pattern=${NAME} required onInput=${(input) => setStream(input.target.value)} spellcheck="false" />
      <button class="main-button">Publish the first event</button>
      <span role="status" class=${outcome?.tone ?? ""}>${outcome?.text ?? ""}</span>
    </form>
    <${Command} text=${curl(stream || "hello", draft)} label="The same as a command" />
  </div>`;
}

async function publish(stream, draft) {
  const { headers, body } = request(draft);
  // With an id the event may be sent again, to another node, when the first one falls silent; it is stored once all the same.
  headers["Event-Id"] ??= randomId();
  const began = performance.now();
  try {
    const said = await ask(`${streamPath(stream)}/events`, { method: "POST", headers, body, patienceMs: PATIENCE_MS });
    const took = Math.max(1, Math.round(performance.now() - began));
    return { tone: "good", text: said.duplicate ? `already there as ${count(said.seq)}` : `stored as ${count(said.seq)} in ${took} ms` };
  } catch (error) {
    return { tone: "bad", text: error instanceof Refusal ? `${error.status}: ${error.message}` : "no node answered in time" };
  }
}

function request({ subject, id, data }) {
  const headers = { "Content-Type": isJson(data) ? "application/json" : "text/plain; charset=utf-8" };
  if (subject) headers["Event-Subject"] = subject;
  if (id) headers["Event-Id"] = id;
  return { headers, body: data };
}

/** The request as a command for a shell. */
function curl(stream, draft) {
  const { headers, body } = request(draft);
  const options = Object.entries(headers).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`);
  return [`curl ${quoted(`${node()}${streamPath(stream)}/events`)}`, ...options, `--data-binary ${quoted(body)}`].join(" \\\n  ");
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** `randomUUID` is only there where the page is served securely or from this machine. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
