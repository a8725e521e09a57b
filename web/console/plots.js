// Throughput and latency over time, drawn by uPlot from what the nodes counted while the page is open.

import { history, rates } from "./cluster.js";
import { compact, milliseconds } from "./format.js";
import { html, useCell, useEffect, useRef, useSize, useState } from "./view.js";

const HEIGHT = 132;
/** Seconds that are shown. */
const SHOWN = 180;

export function Plots() {
  const now = useCell(rates);
  const figures = [
    ["published", now && compact(now.published), "events/s in"],
    ["read", now && compact(now.read), "events/s out"],
    ["median", now && milliseconds(now.median ?? NaN), "p50 to ack"],
    ["slow", now && milliseconds(now.slow ?? NaN), "p99 to ack"],
  ];
  const figure = ([name, value, label]) => html`<div class=${`figure ${name}`}><dd>${value ?? "–"}</dd><dt>${label}</dt></div>`;
  return html`<div class="plots">
    <div class="plot"><dl class="figures">${figures.slice(0, 2).map(figure)}</dl><${Plot} columns=${["published", "read"]} tones=${["--accent", "--second"]} show=${compact} label="Events published and read a second, over time" /></div>
    <div class="plot"><dl class="figures">${figures.slice(2).map(figure)}</dl><${Plot} columns=${["median", "slow"]} tones=${["--accent", "--second"]} show=${milliseconds} label="Time from publish to acknowledgement, median and 99th percentile, over time" /></div>
  </div>`;
}

/** uPlot, fetched when there is something to draw: the page is there before it. */
let library = null;

function load() {
  library ??= new Promise((there, fail) => {
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/console/uplot.css" }));
    document.head.append(Object.assign(document.createElement("script"), { src: "/console/uplot.js", onload: there, onerror: fail }));
  });
  return library;
}

function Plot({ columns, tones, show, label }) {
  const box = useRef();
  const plot = useRef();
  const { width } = useSize(box);
  const [theme, setTheme] = useState(0);
  useEffect(() => {
    const changed = () => setTheme((count) => count + 1);
    window.addEventListener("themechange", changed);
    return () => window.removeEventListener("themechange", changed);
  }, []);
  const [ready, setReady] = useState(Boolean(window.uPlot));
  useEffect(() => {
    load().then(() => setReady(true), () => (library = null));
  }, []);
  useEffect(() => {
    if (width === 0 || !ready) return undefined;
    plot.current = new window.uPlot(options(width, columns, tones, show), data(columns), box.current);
    return () => plot.current.destroy();
  }, [width, theme, ready]);
  useEffect(() => rates.watch(() => document.hidden || plot.current?.setData(data(columns))), []);
  return html`<div class="canvas" ref=${box} role="img" aria-label=${label}></div>`;
}

/** The newest of the history; where it is short, time before it that is empty, so that the plot always spans the same time. */
function data(columns) {
  const from = history.at.length > 0 ? history.at.at(-1) - SHOWN : Date.now() / 1000 - SHOWN;
  const first = history.at.findIndex((at) => at >= from);
  const cut = (values) => (first < 0 ? [] : values.slice(first));
  return [[from, ...cut(history.at)], ...columns.map((column) => [null, ...cut(history[column])])];
}

function options(width, columns, tones, show) {
  const font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const axis = { stroke: colour("--quiet"), font, ticks: { show: false }, grid: { stroke: colour("--line"), width: 1 }, border: { show: false } };
  const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB").slice(0, 8);
  return {
    width,
    height: HEIGHT,
    padding: [8, 4, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1) * 1.12] } },
    axes: [
      { ...axis, grid: { show: false }, space: 90, size: 22, gap: 4, values: (_, ticks) => ticks.map(time) },
      { ...axis, size: 56, gap: 6, space: 34, values: (_, ticks) => ticks.map((value) => (value === 0 ? "0" : show(value))) },
    ],
    series: [
      {},
      ...columns.map((_, at) => ({
        stroke: colour(tones[at]),
        width: 1.6,
        fill: at === 0 ? colour(tones[at], 0.13) : undefined,
        points: { show: false },
        spanGaps: false,
      })),
    ],
    hooks: { setCursor: [(plot) => tip(plot, show)] },
  };
}

/** A colour of the style sheet as a canvas takes it: computed, for light or dark, and with an opacity. */
function colour(name, strength = 1) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `color-mix(in srgb, var(${name}) ${strength * 100}%, transparent)`;
  const computed = getComputedStyle(probe).color;
  probe.remove();
  return computed;
}

/** What the lines say under the pointer. */
function tip(plot, show) {
  let note = plot.over.querySelector(".tip");
  if (!note) plot.over.append((note = Object.assign(document.createElement("div"), { className: "tip" })));
  const at = plot.cursor.idx;
  const values = plot.data.slice(1).map((column) => column[at ?? -1]);
  note.hidden = at === null || at === undefined || values.every((value) => value === null || value === undefined);
  if (note.hidden) return;
  note.textContent = values.map((value) => (value === null ? "–" : show(value))).join("  ·  ");
  note.style.left = `${Math.min(Math.max(plot.cursor.left, 50), plot.over.clientWidth - 50)}px`;
}
