// What the views are made with: preact with htm for the markup, and cells for what several of them watch.

import { h, render, Fragment } from "preact";
import { useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "./hooks.mjs";
import htm from "./htm.mjs";

export const html = htm.bind(h);
export { Fragment, render, useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState };

/** A value that can be watched. */
export class Cell {
  #value;
  #watchers = new Set();

  constructor(value) {
    this.#value = value;
  }

  get value() {
    return this.#value;
  }

  set value(value) {
    this.#value = value;
    for (const watcher of this.#watchers) watcher(value);
  }

  /** Calls `watcher` after every change; gives what ends it. */
  watch(watcher) {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}

/** The cell's value; the view is drawn again when it changes. */
export function useCell(cell) {
  const [, again] = useReducer((count) => count + 1, 0);
  useEffect(() => cell.watch(again), [cell]);
  return cell.value;
}

/** Calls `act` every `ms` while the view is there, the first time at once; not while the page is hidden. Never twice at a time. */
export function useEvery(ms, act, inputs = []) {
  useEffect(() => {
    let ended = false;
    let timer = 0;
    const again = async () => {
      if (!document.hidden) await act(() => ended);
      if (!ended) timer = setTimeout(again, ms);
    };
    again();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, inputs);
}

/** The width and height of an element, in CSS pixels, as they change. */
export function useSize(ref) {
  const [size, setSize] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const measure = () => setSize({ width: ref.current.clientWidth, height: ref.current.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(ref.current);
    measure();
    return () => observer.disconnect();
  }, []);
  return size;
}

/** A button that puts text on the clipboard and says so. */
export function Copy({ text, label = "Copy" }) {
  const [said, setSaid] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setSaid(""), 1600);
    return () => clearTimeout(timer);
  }, [said]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied");
    } catch {
      setSaid("Select it by hand");
    }
  };
  return html`<button type="button" class="quiet-button" onClick=${copy} aria-live="polite">${said || label}</button>`;
}

/** A command, with a button that copies it. */
export function Command({ text, label }) {
  return html`<div class="command"><pre tabindex="0" aria-label=${label ?? "Command"}>${text}</pre><${Copy} text=${text} /></div>`;
}
