// Numbers, times and names as people read them.

const whole = new Intl.NumberFormat("en");

export const count = (number) => whole.format(Math.round(number));

/** `1 stream`, `2 streams`. */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

const SCALES = [
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

/** Three digits that matter: 8.2, 431, 12.4k. */
export function compact(number) {
  if (!Number.isFinite(number)) return "–";
  for (const [scale, unit] of SCALES) {
    if (number >= scale * 0.99995) return digits(number / scale) + unit;
  }
  return number > 0 && number < 1 ? number.toFixed(1) : digits(number);
}

const digits = (number) => (number >= 99.95 || Number.isInteger(number) ? String(Math.round(number)) : number.toFixed(1));

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(number) {
  let unit = 0;
  let value = number;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** Milliseconds: 0.84 ms, 12 ms, 1.4 s. */
export function milliseconds(number) {
  if (!Number.isFinite(number)) return "–";
  if (number >= 1000) return `${(number / 1000).toFixed(1)} s`;
  return `${number >= 10 ? Math.round(number) : number >= 1 ? number.toFixed(1) : number.toFixed(2)} ms`;
}

/** How long something lasts: 8 s, 3 min, 2 h. */
export function lasting(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

/** A long name without its middle. */
export function shorten(name, most) {
  if (name.length <= most) return name;
  const tail = Math.floor((most - 1) / 3);
  return `${name.slice(0, most - 1 - tail)}…${name.slice(-tail)}`;
}

export const host = (url) => url.replace(/^https?:\/\//, "");

const WORDS = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"];

/** A small number as a word, for the beginning of a sentence. */
export const word = (number) => WORDS[number] ?? count(number);

/** A word of a shell command line. */
export const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
