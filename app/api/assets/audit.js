// The audit log: what operators did, newest first, with what was before and is after.

import { h } from "./dom.js";
import { address, data, empty, none, pageHead, table, when } from "./parts.js";
import * as service from "./service.js";
import { Pages, labelled } from "./tasks.js";

const LOOK_SECONDS = 10;
const PAGE = 50;
const FILTERS = [{ name: "action", label: "Action" }, { name: "key", label: "Key id" }, { name: "target", label: "Target" }];

export function auditPage(view) {
  view.title("Audit log");
  const filters = Object.fromEntries(FILTERS.map(({ name }) => [name, view.query.get(name) ?? ""]));
  const cursor = view.query.get("cursor");
  const form = filterForm(filters);
  view.every(LOOK_SECONDS, async () => {
    const log = await service.auditLog({ ...filters, cursor, limit: PAGE }, view.signal);
    view.show(pageHead("Audit log"), log && form,
      log ? (log.items.length ? entries(log.items) : empty("Nothing was done that fits.")) : empty("This API key may not see the audit log."),
      log && new Pages("/audit", filters, cursor).links(log.next_cursor));
  });
}

function entries(items) {
  return table("Audit log", [
    { name: "When", cell: (entry) => when(entry.at) },
    { name: "Who", cell: (entry) => h("span", { class: "two" }, h("b", { class: "free" }, entry.key_name), h("small", { class: "free" }, [entry.tenant, entry.address].filter(Boolean).join(", "))) },
    { name: "Action", cell: (entry) => entry.action },
    { name: "Target", cell: (entry) => h("span", { class: "free" }, entry.target) },
    { name: "Before and after", class: "wide", cell: (entry) => change(entry) },
  ], items, (entry) => entry.id);
}

function change({ before, after }) {
  if (before === null && after === null) return none();
  return h("details", {}, h("summary", { class: "free" }, Object.keys(after ?? before).join(", ") || "nothing changed"),
    before === null ? null : data("Before", before), after === null ? null : data("After", after));
}

function filterForm(filters) {
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filter the audit log", "data-own": "filters", "data-key": "filters" },
    h("div", { class: "row" },
      FILTERS.map(({ name, label }) => labelled(label, h("input", { name, value: filters[name], autocomplete: "off", spellcheck: "false" }))),
      h("a", { class: "button quiet", href: "#/audit" }, "Clear")),
    h("button", { class: "unseen", tabindex: -1 }, "Filter"));
  const apply = () => {
    location.hash = address("/audit", Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()])));
  };
  form.onchange = apply;
  form.onsubmit = (event) => {
    event.preventDefault();
    apply();
  };
  return form;
}
