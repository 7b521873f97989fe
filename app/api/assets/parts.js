// What several pages are made of: statuses, times, links, tables, data.

import { h, svg } from "./dom.js";
import { ago, moment } from "./format.js";
import { toast } from "./view.js";

export const STATUSES = [
  "pending", "scheduled", "retrying", "blocked", "running", "completed", "failed", "cancelled",
];
export const WAITING = STATUSES.slice(0, 4);
export const ENDED = STATUSES.slice(5);
const MOST_COLOURED = 60_000;

/** A status as a dot and its word. */
export function badge(word, kind = word, title = null) {
  return h("span", { class: `badge is-${kind}`, title }, h("span", { class: "dot", "aria-hidden": "true" }), word);
}

/** A moment as how long ago it was, with the exact one to be read on it. */
export function when(text) {
  return text ? h("time", { datetime: text, title: moment(text) }, ago(text)) : none();
}

export function none() {
  return h("span", { class: "none" }, "–");
}

/** The address of a page with its filters: `address("/tasks", {status: "failed"})`. */
export function address(path, query = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const given = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return `#${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

export function link(to, ...children) {
  return h("a", { href: to }, ...children);
}

export function taskLink(id) {
  return h("a", { href: address(`/tasks/${id}`), class: "id" }, `#${id}`);
}

export function button(text, onclick, kind = "", more = {}) {
  return h("button", { type: "button", class: kind, onclick, ...more }, text);
}

export function section(title, ...children) {
  const id = `section-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return h("section", { "aria-labelledby": id, "data-key": id }, h("h2", { id }, title), ...children);
}

export function pageHead(title, ...actions) {
  return h("div", { class: "head", "data-key": "head" }, h("h1", { tabindex: -1 }, title), h("div", { class: "actions" }, ...actions));
}

export function empty(text) {
  return h("p", { class: "empty" }, text);
}

/** A table. A column is `{name, cell, class?}`; `keyOf` tells rows apart. On a phone each row becomes a card. */
export function table(label, columns, rows, keyOf, rowClass = () => null) {
  const head = columns.map(({ name, class: kind }) => h("th", { scope: "col", role: "columnheader", class: kind }, name));
  const body = rows.map((row) =>
    h("tr", { role: "row", "data-key": String(keyOf(row)), class: rowClass(row) },
      columns.map(({ name, class: kind, cell }) =>
        h("td", { role: "cell", class: kind, "data-label": name }, cell(row)))));
  return h("div", { class: "scroll" },
    h("table", { role: "table", "aria-label": label },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
      h("tbody", { role: "rowgroup" }, body)));
}

/** A share from 0 to 1 as a thin bar, for the eye alone: the number stands beside it. */
export function bar(share, kind = "") {
  const width = Math.max(0, Math.min(1, share)) * 100;
  return svg("svg", { class: `bar ${kind}`, viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "ground", width: 100, height: 4 }), svg("rect", { class: "share", width: width.toFixed(1), height: 4 }));
}

/** JSON, indented, coloured, scrollable, with a button that copies it. */
export function data(label, value) {
  const text = JSON.stringify(value, null, 2) ?? "null";
  return h("div", { class: "data" },
    button("Copy", () => copy(text, label), "quiet copy", { "aria-label": `Copy ${label}` }),
    h("pre", { tabindex: 0, role: "group", "aria-label": `${label} as JSON` }, text.length > MOST_COLOURED ? text : coloured(text)));
}

async function copy(text, label) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied: ${label}`);
  } catch {
    toast("This browser lets nobody copy here.", true);
  }
}

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

function coloured(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(TOKEN)) {
    parts.push(text.slice(end, found.index));
    const [whole, string, colon] = found;
    const kind = colon ? "name" : string ? "string" : /[a-z]/.test(whole[0]) ? "word" : "number";
    parts.push(h("span", { class: `json-${kind}` }, colon ? string : whole), colon ?? "");
    end = found.index + whole.length;
  }
  return [...parts, text.slice(end)].filter((part) => part !== "");
}

/** Names and values. Pairs whose value is null are left out. */
export function facts(pairs) {
  const given = pairs.filter(([, value]) => value !== null && value !== undefined && value !== false);
  return h("dl", { class: "facts" },
    given.map(([name, value]) => h("div", { "data-key": name }, h("dt", {}, name), h("dd", {}, value))));
}
