// A stream's page: its figures, its events, its replicas, and a form to publish.

import { Refusal, ask, streamPath } from "./api.js";
import { moveLeader } from "./actions.js";
import { bytes, compact, count } from "./format.js";
import { isUnknown, measure } from "./listing.js";
import { Publish } from "./publish.js";
import { Spark } from "./spark.js";
import { replicaSays } from "./streams.js";
import { Tail, connectionState, curlOf, full, gapSays, moment, preview } from "./tail.js";
import { Command, Copy, html, useCell, useEffect, useEvery, useLayoutEffect, useMemo, useRef, useState } from "./view.js";

const REFRESH_MS = 1000;
const ROW = 30;

export function StreamPage({ name }) {
  const [info, setInfo] = useState(null);
  const [failed, setFailed] = useState(null);
  const known = useRef(null);
  const heading = useRef();
  // Whoever came by keyboard goes on from here.
  useEffect(() => heading.current.focus({ preventScroll: true }), []);
  useEvery(
    REFRESH_MS,
    async (ended) => {
      try {
        const answer = await ask(streamPath(name));
        if (ended()) return;
        known.current = measure(known.current, answer);
        setInfo({ ...answer, ...known.current.state });
        setFailed(null);
      } catch (error) {
        if (!ended()) setFailed(error);
      }
    },
    [name],
  );
  const missing = failed instanceof Refusal && failed.status === 404;
  return html`<main class="stream-page">
    <div class="title">
      <a class="back" href="#/" aria-label="Back to the mesh">← Mesh</a>
      <h1 title=${name} tabindex="-1" ref=${heading}>${name}</h1>
      ${info?.settings.description && html`<p class="hush">${info.settings.description}</p>`}
      ${failed && !missing && html`<p class="bad" role="status">No answer: ${failed.message}. Trying again…</p>`}
    </div>
    ${
      missing
        ? html`<section class="sheet"><div class="pad"><p role="status">There is no stream ${name}. Publishing makes it, where streams may be made that way.</p><${Publish} stream=${name} /></div></section>`
        : html`<${Figures} info=${info} known=${known.current} />
            <div class="columns">
              <${Events} key=${name} name=${name} info=${info} />
              <div class="column">
                <section class="sheet" aria-labelledby="replicas-title"><div class="head"><h2 id="replicas-title">Replicas</h2><span class="tally">term ${info ? info.term : "–"}</span></div><${Replicas} name=${name} info=${info} /></section>
                <section class="sheet" aria-labelledby="publish-title"><div class="head"><h2 id="publish-title">Publish</h2></div><div class="pad"><${Publish} stream=${name} /></div></section>
                <section class="sheet" aria-labelledby="settings-title"><div class="head"><h2 id="settings-title">Settings</h2></div><${Settings} info=${info} /></section>
              </div>
            </div>`
    }
  </main>`;
}

function Figures({ info, known }) {
  const figure = (value, label) => html`<div class="figure"><dd>${value}</dd><dt>${label}</dt></div>`;
  const counts = info && !isUnknown(info);
  return html`<dl class="figures sheet pad">
    ${figure(counts ? count(info.events) : "–", "events")} ${figure(counts ? bytes(info.bytes) : "–", "size")}
    ${figure(counts ? (info.events > 0 ? `${count(info.first_seq)} – ${count(info.last_seq)}` : "none") : "–", "seqs")}
    ${figure(info ? (info.leader ?? html`<span class="bad">none</span>`) : "–", "leader")}
    <div class="figure grow"><dd>${known && known.rate !== null ? compact(known.rate) : "–"}<${Spark} wide values=${known?.history} /></dd><dt>events/s, last minute</dt></div>
  </dl>`;
}

function Replicas({ name, info }) {
  if (!info) return html`<p class="hush pad">Asking…</p>`;
  const most = Math.max(1, ...info.replicas.map((each) => each.lag ?? 0));
  return html`<ul class="replica-list">
    ${info.replicas.map((each) => {
      const tone = each.state === "ok" ? "good" : ["unreachable", "damaged"].includes(each.state) ? "bad" : "warn";
      return html`<li key=${each.node}>
        <i class=${`dot ${tone} ${each.leader ? "leads" : ""}`}></i>
        <span class="who" title=${each.node}>${each.node}</span>
        <span class=${`says ${tone}`}>${replicaSays(each)}</span>
        <i class="lag" aria-hidden="true"><b style=${{ width: each.state !== "ok" && each.lag ? `${Math.max(3, (100 * each.lag) / most)}%` : "0" }}></b></i>
        ${!each.leader && html`<button type="button" class="quiet-button" disabled=${!each.reachable} onClick=${() => moveLeader(name, info.leader, each.node)}>Let it lead…</button>`}
      </li>`;
    })}
  </ul>`;
}

function Settings({ info }) {
  if (!info) return html`<p class="hush pad">Asking…</p>`;
  const { replicas, max_age: age, max_bytes: most, max_events: events, discard, dedup_window: dedup, max_event_bytes: event } = info.settings;
  const rows = [
    ["Replicas", replicas],
    ["Kept", age ?? "for ever"],
    ["Size at most", most === null ? "unbounded" : bytes(most)],
    ["Events at most", events === null ? "unbounded" : count(events)],
    ["When full", discard === "old" ? "the oldest go" : "new ones are refused"],
    ["Ids remembered", dedup],
    ["Event at most", bytes(event)],
    ["Created", new Date(info.created).toLocaleString("en-GB")],
  ];
  return html`<dl class="settings">${rows.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

// The events: the window of tail.js, drawn row by row.

function Events({ name, info }) {
  const tail = useMemo(() => new Tail(name), [name]);
  const [chosen, setChosen] = useState(null);
  const [from, setFrom] = useState("live");
  const [point, setPoint] = useState("");
  const [subject, setSubject] = useState("");
  useCell(tail.changes);
  useEffect(() => {
    tail.goLive();
    return () => tail.end();
  }, [tail]);
  const go = (where = from, at = point) => {
    setChosen(null);
    if (where === "live") tail.goLive();
    else if (where === "start") tail.goTo("earliest");
    else if (where === "seq" && /^[1-9]\d*$/.test(at)) tail.goTo(Math.min(Number(at), (info?.last_seq ?? 0) + 1));
    else if (where === "time" && !Number.isNaN(Date.parse(at))) tail.goTo(new Date(at).toISOString());
  };
  const choose = (input) => {
    const where = input.target.value;
    const at = where === "time" ? localTime(Date.now() - 3600e3) : where === "seq" ? String(Math.max(1, info?.first_seq ?? 1)) : "";
    setFrom(where);
    setPoint(at);
    go(where, at);
  };
  const filter = (submit) => {
    submit.preventDefault();
    tail.subject = subject.trim();
    go();
  };
  return html`<section class="sheet events" aria-labelledby="events-title">
    <div class="head wrap">
      <h2 id="events-title">Events</h2>
      <${Flow} tail=${tail} info=${info} onLive=${() => (setFrom("live"), setPoint(""))} />
    </div>
    <form class="tools" onSubmit=${filter} aria-label="Which events">
      <select aria-label="From where" value=${from} onChange=${choose}>
        <option value="live">Live</option><option value="start">From the start</option><option value="seq">From seq</option><option value="time">From time</option>
      </select>
      ${from === "seq" && html`<input class="point" inputmode="numeric" pattern="[1-9][0-9]*" aria-label="Seq" value=${point} onInput=${(input) => setPoint(input.target.value)} />`}
      ${from === "time" && html`<input class="point" type="datetime-local" step="1" aria-label="Time" value=${point} onInput=${(input) => setPoint(input.target.value)} />`}
      <input class="subject" aria-label="Subject filter" placeholder="Subject: orders.*.created or orders.>" value=${subject} onInput=${(input) => setSubject(input.target.value)} spellcheck="false" />
      <button class="button">Show</button>
    </form>
    <${Rows} tail=${tail} first=${info?.first_seq ?? 1} chosen=${chosen} onChoose=${setChosen} />
    ${chosen && html`<${Detail} stream=${name} event=${chosen} onClose=${() => setChosen(null)} />`}
  </section>`;
}

/** `datetime-local` takes the reader's own time, without a zone. */
function localTime(at) {
  const date = new Date(at);
  return new Date(at - date.getTimezoneOffset() * 60e3).toISOString().slice(0, 19);
}

/** Whether events flow, and the switch for it. */
function Flow({ tail, info, onLive }) {
  const { state, at } = useCell(connectionState);
  const resume = () => {
    onLive();
    tail.resume();
  };
  const newer = info ? Math.max(0, info.last_seq + 1 - (tail.next ?? 1)) : 0;
  if (tail.mode === "live") {
    const open = state === "open";
    return html`<span class=${`flow ${open ? "good" : "warn"}`} role="status"><i class=${`dot ${open ? "good pulse" : "warn"}`}></i>${open ? `live from ${at.replace(/^https?:\/\//, "")}` : state}</span>
      <button type="button" class="button" onClick=${() => tail.pause()}>Pause</button>`;
  }
  return html`<span class="flow hush" role="status">${tail.mode === "busy" ? "asking…" : newer > 0 ? `standing still, ${count(newer)} newer` : "standing still"}</span>
    <button type="button" class="main-button" onClick=${resume}>Go live</button>`;
}

function Rows({ tail, first: begins, chosen, onChoose }) {
  const box = useRef();
  const [view, setView] = useState({ top: 0, height: 400 });
  const steered = useRef(false);
  const shift = useRef(tail.shift);
  const rows = tail.events.length;
  const follows = tail.mode === "live";
  // While live, the window's end stays in sight; the rows are computed from there, so that no scroll position has to be read back.
  const top = follows ? Math.max(0, rows * ROW - view.height) : view.top;
  useLayoutEffect(() => {
    const shifted = tail.shift - shift.current;
    shift.current = tail.shift;
    if (!follows && shifted === 0) return;
    steered.current = true;
    if (follows) box.current.scrollTop = rows * ROW;
    else box.current.scrollTop += shifted * ROW;
  }, [tail.changes.value, follows, view.height]);
  useEffect(() => {
    const observer = new ResizeObserver(() => setView((old) => ({ ...old, height: box.current?.clientHeight ?? old.height })));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  const scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    const end = scrollTop + clientHeight >= scrollHeight - ROW * 2;
    if (steered.current) {
      steered.current = false;
      if (end) return;
    }
    if (tail.mode === "live" && !end) tail.pause();
    if (tail.mode === "past" && end) tail.more();
    if (tail.mode === "past" && scrollTop < ROW * 8) tail.older(begins);
    setView({ top: scrollTop, height: clientHeight });
  };
  const first = Math.max(0, Math.floor(top / ROW) - 2);
  const last = Math.min(rows - 1, Math.ceil((top + view.height) / ROW) + 2);
  const visible = Array.from({ length: Math.max(0, last - first + 1) }, (_, at) => first + at);
  const walk = (key) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[key.key];
    if (!step) return;
    key.preventDefault();
    const at = tail.events.findIndex((event) => event === chosen);
    const to = at < 0 ? last - 2 : at + step;
    if (tail.mode === "live") tail.pause();
    const event = tail.events[to];
    if (!event || event.gap) return;
    onChoose(event);
    if (to * ROW < box.current.scrollTop) box.current.scrollTop = to * ROW;
    if ((to + 1) * ROW > box.current.scrollTop + box.current.clientHeight) box.current.scrollTop = (to + 1) * ROW - box.current.clientHeight;
  };
  const choose = (event) => {
    if (event.gap) return;
    if (tail.mode === "live") tail.pause();
    onChoose(event === chosen ? null : event);
  };
  return html`<div class="log" ref=${box} onScroll=${scrolled} onKeyDown=${walk} tabindex="0" role="listbox" aria-label="Events, the newest last; arrow keys choose one">
    ${rows === 0 && html`<p class="hush pad">${tail.error ? tail.error.message : tail.mode === "busy" ? "Asking…" : follows ? "Waiting for the next event." : "No event here."}</p>`}
    <div class="all" style=${{ height: `${rows * ROW}px` }}>
      ${visible.map((at) => html`<${Line} key=${at % 64} at=${at} event=${tail.events[at]} chosen=${tail.events[at] === chosen} onChoose=${choose} />`)}
    </div>
    ${rows > 0 && tail.error && html`<p class="bad pad">${tail.error.message}</p>`}
  </div>`;
}

function Line({ at, event, chosen, onChoose }) {
  const place = { transform: `translateY(${at * ROW}px)` };
  if (event.gap) return html`<div class="line gap" style=${place}><span></span><span class="warn">${gapSays(event.gap)}</span></div>`;
  return html`<div class=${`line ${chosen ? "chosen" : ""}`} style=${place} role="option" aria-selected=${String(chosen)} onClick=${() => onChoose(event)}>
    <span class="seq">${event.seq}</span><span class="time">${moment(event.time)}</span><span class="subject">${event.subject ?? ""}</span><span class="data">${preview(event)}</span>
  </div>`;
}

function Detail({ stream, event, onClose }) {
  const rows = [
    ["Time", event.time],
    ["Subject", event.subject],
    ["Id", event.id],
    ["Content type", event.content_type],
    ...Object.entries(event.headers ?? {}).map(([name, value]) => [name, value]),
  ].filter(([, value]) => value !== undefined && value !== "");
  return html`<div class="detail" role="region" aria-label=${`Event ${event.seq}`} onKeyDown=${(key) => key.key === "Escape" && (key.stopPropagation(), onClose())}>
    <div class="card-head"><h3>Event ${count(event.seq)}</h3><${Copy} text=${full(event)} label="Copy data" /><button type="button" class="quiet-button" onClick=${onClose} aria-label="Close">✕</button></div>
    <dl class="settings">${rows.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
    <pre class="data" tabindex="0">${full(event).slice(0, 20000)}</pre>
    <${Command} text=${curlOf(stream, event.seq)} label="The event as a command" />
  </div>`;
}

