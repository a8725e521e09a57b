// Prometheus text: its samples, and quantiles of what a histogram counted between two looks at it.

/** Samples by name; of a histogram its cumulative buckets, ascending: [[bound, count], …]. */
export function parse(text) {
  const samples = new Map();
  const buckets = new Map();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const [, name, labels, value] = /^(\w+)(\{.*\})? (\S+)/.exec(line) ?? [];
    if (name === undefined) continue;
    const bound = labels && /\ble="([^"]+)"/.exec(labels)?.[1];
    if (bound === undefined || bound === null) {
      samples.set(name, (samples.get(name) ?? 0) + Number(value));
      continue;
    }
    const of = buckets.get(name) ?? [];
    of.push([bound === "+Inf" ? Infinity : Number(bound), Number(value)]);
    buckets.set(name, of);
  }
  return { samples, buckets };
}

/** What the buckets counted since `before`; without it, or after a restart, nothing can be said. */
export function since(now, before) {
  if (!now || !before || now.length !== before.length) return null;
  const grown = now.map(([bound, value], at) => [bound, value - before[at][1]]);
  return grown.every(([, value]) => value >= 0) ? grown : null;
}

/** Sums buckets of several nodes, which have the same bounds. */
export function sum(all) {
  const known = all.filter(Boolean);
  if (known.length === 0) return null;
  return known[0].map(([bound], at) => [bound, known.reduce((total, each) => total + (each[at]?.[1] ?? 0), 0)]);
}

/** A quantile of cumulative buckets, even within a bucket; null of nothing. */
export function quantile(buckets, share) {
  const all = buckets?.at(-1)?.[1] ?? 0;
  if (all === 0) return null;
  const wanted = share * all;
  let [low, below] = [0, 0];
  for (const [bound, value] of buckets) {
    if (value >= wanted) {
      if (bound === Infinity) return low;
      return low + ((bound - low) * (wanted - below)) / Math.max(value - below, 1e-9);
    }
    [low, below] = [bound, value];
  }
  return low;
}
