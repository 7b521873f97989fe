// Small line charts over time, as SVG of our own. The numbers are in the legend and in the description, too.

import { h, svg } from "./dom.js";
import { duration } from "./format.js";

const WIDTH = 600;
const HEIGHT = 120;
const GAP_MS = 15_000;

/** A chart of `series` (`{name, kind, points: [[ms, value]]}`) over the last `seconds`; `write` makes a value a text.
 *  `pointer` remembers where the pointer is between two drawings; `redraw` is called when it moves. Points more than `gap`
 *  milliseconds apart are not joined; `nothing` is said over a chart with little in it. */
export function chart(title, series, { seconds, now, write, pointer, redraw, gap = GAP_MS, nothing = null }) {
  const most = ceiling(Math.max(0, ...series.flatMap(({ points }) => points.map(([, value]) => value))));
  const start = now - seconds * 1000;
  const across = (time) => ((time - start) / (seconds * 1000)) * WIDTH;
  const down = (value) => HEIGHT - (value / most) * (HEIGHT - 4) - 1;
  const isNow = ([time]) => now - time <= gap;
  const chosen = pointer.share === null ? null : nearest(series, start + pointer.share * seconds * 1000);
  const lines = series.flatMap(({ kind, points }) =>
    runs(points, gap).flatMap((run) => {
      const path = run.map(([time, value], place) => `${place ? "L" : "M"}${across(time).toFixed(1)} ${down(value).toFixed(1)}`).join("") + (run.length === 1 ? "h1" : "");
      const area = `${path}L${across(run.at(-1)[0]).toFixed(1)} ${HEIGHT}L${across(run[0][0]).toFixed(1)} ${HEIGHT}Z`;
      return [svg("path", { class: `area ${kind}`, d: area }), svg("path", { class: `line ${kind}`, d: path })];
    }));
  const grid = [0.25, 0.5, 0.75].map((share) => svg("path", { class: "grid", d: `M0 ${HEIGHT * share}H${WIDTH}` }));
  const hair = chosen === null ? null : svg("path", { class: "hair", d: `M${across(chosen).toFixed(1)} 0V${HEIGHT}` });
  const move = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    pointer.share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    redraw();
  };
  const leave = () => {
    pointer.share = null;
    redraw();
  };
  return h("figure", { class: "chart", "data-key": title },
    h("figcaption", {},
      h("span", { class: "name" }, title),
      h("span", { class: "legend" }, series.map((one) => legend(one, chosen, write, isNow))),
      h("span", { class: "at" }, chosen === null ? "" : `${duration(Math.round((now - chosen) / 1000))} ago`)),
    h("div", { class: "plot" },
      h("span", { class: "most", "aria-hidden": "true" }, write(most)),
      svg("svg", {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
        "aria-label": `${title}. ${series.map((one) => described(one, write, isNow)).join(" ")}`,
        onpointermove: move, onpointerleave: leave,
      }, grid, lines, hair),
      series.some(({ points }) => points.length) && !nothing ? null : h("p", { class: "nothing" }, nothing ?? "Nothing happened.")),
    h("div", { class: "times", "aria-hidden": "true" }, h("span", {}, `${duration(seconds)} ago`), h("span", {}, "now")));
}

function legend({ name, kind, points }, chosen, write, isNow) {
  const point = chosen === null ? points.slice(-1).find(isNow) : points.find(([time]) => time === chosen);
  return h("span", { class: `mark ${kind}` }, h("span", { class: "dot", "aria-hidden": "true" }), `${name} `, h("b", {}, point ? write(point[1]) : "–"));
}

function described({ name, points }, write, isNow) {
  if (!points.length) return `${name}: nothing yet.`;
  const values = points.map(([, value]) => value);
  const current = points.slice(-1).some(isNow) ? `now ${write(values.at(-1))}, ` : "";
  return `${name}: ${current}highest ${write(Math.max(...values))}.`;
}

function nearest(series, moment) {
  const times = series.flatMap(({ points }) => points.map(([time]) => time));
  if (!times.length) return null;
  return times.reduce((best, time) => (Math.abs(time - moment) < Math.abs(best - moment) ? time : best));
}

/** Points in a row, parted where nobody looked for a while. */
function runs(points, gap) {
  const found = [];
  for (const point of points) {
    const last = found.at(-1);
    if (last && point[0] - last.at(-1)[0] < gap) last.push(point);
    else found.push([point]);
  }
  return found;
}

/** The next of 1, 2, 5, 10, 20, 50… */
function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}
