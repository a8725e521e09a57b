// A line of a few dozen values in the space of a word.

import { html } from "./view.js";

export const SPARK_VALUES = 60;

export function Spark({ values, wide = false }) {
  if (!values || values.length < 2) return html`<svg class="spark" aria-hidden="true"></svg>`;
  const top = Math.max(...values, 1);
  const y = (value) => (22.5 - (20 * value) / top).toFixed(1);
  const from = SPARK_VALUES - values.length;
  const line = values.map((value, at) => `${from + at},${y(value)}`).join(" ");
  return html`<svg class=${`spark ${wide ? "wide" : ""}`} viewBox=${`0 0 ${SPARK_VALUES - 1} 24`} preserveAspectRatio="none" aria-hidden="true">
    <polygon points=${`${from},24 ${line} ${SPARK_VALUES - 1},24`} />
    <polyline points=${line} />
  </svg>`;
}
