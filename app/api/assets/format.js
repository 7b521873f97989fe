// Numbers, times and sizes as people read them.

const NUMBER = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const MOMENT = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
  timeZoneName: "short",
});

let ahead = 0;

/** Note the service's clock (milliseconds): ages are told by it, not by this machine's. */
export function noteClock(milliseconds) {
  const difference = milliseconds - Date.now();
  ahead = Math.abs(difference) < 2000 ? 0 : difference;
}

/** Now, by the service's clock, in milliseconds. */
export function now() {
  return Date.now() + ahead;
}

export function number(value) {
  return NUMBER.format(value);
}

/** A count in little room: exact below 10,000. */
export function short(value) {
  return value < 10_000 ? NUMBER.format(value) : SHORT.format(value);
}

export function rate(value) {
  return value >= 100 ? NUMBER.format(Math.round(value)) : NUMBER.format(Math.round(value * 10) / 10);
}

export function count(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

export function bytes(value) {
  if (value < 1024) return count(value, "byte");
  const power = Math.min(4, Math.floor(Math.log2(value) / 10));
  const scaled = value / 2 ** (10 * power);
  return `${scaled >= 100 ? Math.round(scaled) : scaled.toFixed(1)} ${["", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

/** Seconds as the two largest units: 350 ms, 1.4 s, 3 min 20 s, 2 h 5 min, 4 d 3 h. */
export function duration(seconds) {
  if (seconds < 0) return "0 s";
  if (seconds < 0.001) return "< 1 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${(Math.floor(seconds * 10) / 10).toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(whole, 60, "min", 1, "s");
  if (whole < 86_400) return two(whole, 3600, "h", 60, "min");
  return two(whole, 86_400, "d", 3600, "h");
}

function two(seconds, large, largeUnit, small, smallUnit) {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${largeUnit}${rest ? ` ${rest} ${smallUnit}` : ""}`;
}

/** Seconds between two RFC 3339 moments; the second is now if it is missing. */
export function between(from, to) {
  return ((to ? Date.parse(to) : now()) - Date.parse(from)) / 1000;
}

/** How long ago, or in how long, in one unit: what changes all the time cannot be read. */
export function ago(moment) {
  const seconds = Math.round(between(moment));
  if (Math.abs(seconds) < 1) return "now";
  return seconds > 0 ? `${age(seconds)} ago` : `in ${age(-seconds)}`;
}

export function age(seconds) {
  const [size, unit] = [[86_400, "d"], [3600, "h"], [60, "min"]].find(([size]) => seconds >= 1.5 * size) ?? [1, "s"];
  return `${Math.round(seconds / size)} ${unit}`;
}

export function moment(text) {
  return Number.isNaN(Date.parse(text)) ? text : MOMENT.format(new Date(text));
}
