// What happened over the last hour, day or week: how much, how well, how fast; by queue and by task type.

import { chart } from "./charts.js";
import { h } from "./dom.js";
import { duration, now, number, rate } from "./format.js";
import { address, empty, link, none, section, table } from "./parts.js";
import * as service from "./service.js";

const RANGES = {
  hour: { seconds: 3600, step: 60 },
  day: { seconds: 86_400, step: 900 },
  week: { seconds: 7 * 86_400, step: 3600 },
};
const SHARES = ["p50", "p95", "p99"];
const pointers = { ended: { share: null }, run: { share: null }, wait: { share: null } };

/** The range that the address names. */
export function rangeIn(query) {
  return query.get("range") in RANGES ? query.get("range") : "hour";
}

/** What happened in the range: of all, by queue and by task type; null where the service keeps no such numbers. */
export async function lookBack(range, signal) {
  const { seconds, step } = RANGES[range];
  const from = new Date(now() - seconds * 1000).toISOString();
  const found = [];
  for (const by of [null, "queue", "task_type"]) {
    const stats = await service.statsBetween({ from, step, by }, signal);
    if (!stats?.range) return null;
    found.push(stats.range.series);
  }
  const [whole, queues, types] = found;
  return { range, whole: whole[0] ?? null, queues, types };
}

/** What ended in each whole minute of the last `seconds`: `{time, completed, failed}`; none where the service does not say. */
export async function minutes(seconds, signal) {
  const end = now();
  const stats = await service.statsBetween({ from: new Date(end - seconds * 1000).toISOString(), step: 60 }, signal);
  if (!stats?.range) return [];
  return stepped(stats.range.series[0]?.points ?? [], end, seconds, 60)
    .map(([time, point]) => ({ time, completed: point?.completed ?? 0, failed: point?.failed ?? 0 }));
}

export function historySection({ range, whole, queues, types }, redraw) {
  const choices = h("nav", { class: "chips", "aria-label": "Time that is looked back on" }, Object.keys(RANGES).map((name) =>
    h("a", { class: "chip", href: address("/", { range: name }), "aria-current": name === range ? "true" : null }, name)));
  return section("Looking back", choices,
    whole ? [h("div", { class: "charts three" }, charts(range, whole, redraw)), tally("By queue", queues, "queue"), tally("By task type", types, "task_type")]
      : empty(`Nothing has happened within the last ${range}.`));
}

function charts(range, { points }, redraw) {
  const { seconds, step } = RANGES[range];
  const options = { seconds, now: now(), redraw, gap: step * 2500 };
  const rates = (name) => stepped(points, options.now, seconds, step).map(([time, point]) => [time, ((point?.[name] ?? 0) / step) * 60]);
  const shares = (name, share) => points.filter((point) => point[name][share] !== null).map((point) => [Date.parse(point.at), point[name][share]]);
  const kinds = { p50: "completed", p95: "running", p99: "failed" };
  const times = (name) => SHARES.map((share) => ({ name: share, kind: kinds[share], points: shares(name, share) }));
  return [
    chart("Ended", ["completed", "failed"].map((name) => ({ name, kind: name, points: rates(name) })), { ...options, write: (value) => `${rate(value)}/min`, pointer: pointers.ended }),
    chart("Run time", times("run_seconds"), { ...options, write: duration, pointer: pointers.run }),
    chart("Wait", times("wait_seconds"), { ...options, write: duration, pointer: pointers.wait }),
  ];
}

/** A point for each step; the service leaves out those in which nothing happened. */
function stepped(points, end, seconds, step) {
  const known = new Map(points.map((point) => [Date.parse(point.at), point]));
  const length = step * 1000;
  const times = [];
  for (let time = Math.ceil((end - seconds * 1000) / length) * length; time + length <= end; time += length) times.push(time);
  return times.map((time) => [time, known.get(time)]);
}

function tally(label, series, name) {
  if (!series.length) return null;
  const share = ({ completed, failed }) => (completed + failed ? `${((100 * completed) / (completed + failed)).toFixed(failed ? 1 : 0)} %` : none());
  const time = (kind, part) => ({ total }) => (total[kind][part] === null ? none() : duration(total[kind][part]));
  return table(label, [
    { name: label, cell: (one) => link(address("/tasks", { [name]: one[name] }), h("b", {}, one[name])) },
    ...["submitted", "completed", "failed", "retried"].map((word) => ({
      name: `${word[0].toUpperCase()}${word.slice(1)}`, class: "number",
      cell: ({ total }) => (total[word] ? number(total[word]) : h("span", { class: "none" }, "0")),
    })),
    { name: "Success", class: "number", cell: ({ total }) => share(total) },
    { name: "Wait p50", class: "number", cell: time("wait_seconds", "p50") },
    { name: "Wait p95", class: "number", cell: time("wait_seconds", "p95") },
    ...SHARES.map((part) => ({ name: `Run ${part}`, class: "number", cell: time("run_seconds", part) })),
  ], series, (one) => one[name]);
}
