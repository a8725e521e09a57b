// The end of a run: a few lines for a person, and all figures as JSON where RESULTS names a folder.

const TIMES = ["publish_latency", "delivery_latency"];
const RATES = ["events_acknowledged", "events_delivered"];
const ZEROS = ["gaps", "duplicates", "lost", "missing_at_end", "dropped_iterations"];

export function summary(script) {
  return (data) => {
    const outputs = { stdout: text(script, data) };
    if (__ENV.RESULTS) outputs[`${__ENV.RESULTS}/${script}.json`] = JSON.stringify({ script, settings: settings(), metrics: figures(data) }, null, 2) + "\n";
    return outputs;
  };
}

function text(script, data) {
  const metrics = data.metrics;
  const lines = [`${script}: ${failed(data).length ? "FAILED" : "ok"}`];
  for (const name of RATES) if (metrics[name]) lines.push(row(name, `${metrics[name].values.count} (${metrics[name].values.rate.toFixed(0)}/s over the whole run)`));
  for (const name of TIMES) if (metrics[name]) lines.push(row(name, percentiles(metrics[name].values)));
  lines.push(row("must be zero", ZEROS.filter((name) => metrics[name]).map((name) => `${name} ${metrics[name].values.count}`).join(", ")));
  if (metrics.errors) lines.push(row("errors", `${metrics.errors.values.passes} of ${metrics.errors.values.passes + metrics.errors.values.fails}`));
  for (const what of failed(data)) lines.push(row("crossed", what));
  return lines.join("\n") + "\n";
}

function row(name, value) {
  return `  ${name.padEnd(20)} ${value}`;
}

function percentiles(values) {
  return ["p(50)", "p(90)", "p(99)", "max"].map((name) => `${name} ${values[name].toFixed(1)} ms`).join("  ");
}

function failed(data) {
  const crossed = [];
  for (const [name, metric] of Object.entries(data.metrics)) {
    for (const [expression, outcome] of Object.entries(metric.thresholds || {})) if (!outcome.ok) crossed.push(`${name} ${expression}`);
  }
  return crossed;
}

function figures(data) {
  const found = {};
  for (const name of [...RATES, ...TIMES, ...ZEROS, "errors", "iterations"]) if (data.metrics[name]) found[name] = data.metrics[name].values;
  return found;
}

function settings() {
  const set = {};
  for (const name of ["NODES", "RATE", "DURATION", "SIZE", "BATCH", "SUBSCRIBERS", "CONNECTIONS", "LIMIT"]) if (__ENV[name]) set[name] = __ENV[name];
  return set;
}

/** What every script's options have in common. */
export const TREND_STATS = ["avg", "min", "med", "max", "p(50)", "p(90)", "p(99)", "p(99.9)"];
