// The list of tasks: filters in the address, pages by cursor, live without moving what is being read.

import { h } from "./dom.js";
import { between, count, duration } from "./format.js";
import { STATUSES, address, badge, bar, empty, none, pageHead, table, taskLink, when } from "./parts.js";
import * as service from "./service.js";
import { announce } from "./view.js";

const LOOK_SECONDS = 2;
/** A search in texts reads them. */
const SEARCH_SECONDS = 15;
const PAGE = 50;
const AHEAD = 100;
const TEXTS = [
  { name: "task_type", label: "Task type", list: "known-types" },
  { name: "queue", label: "Queue", list: "known-queues" },
  { name: "tag", label: "Tag" },
  { name: "parent_id", label: "Parent", kind: "number" },
  { name: "q", label: "Text in it", longest: 200 },
];
const MOMENTS = [{ name: "created_after", label: "Created after" }, { name: "created_before", label: "Created before" }];

export function tasksPage(view) {
  view.title("Tasks");
  const filters = filtersIn(view.query);
  const cursor = view.query.get("cursor");
  const pages = new Pages("/tasks", filters, cursor);
  const state = { rows: null, fresh: [], next: null, gone: new Set() };
  const form = filterForm(filters);
  const show = () => view.show(
    pageHead("Tasks", h("a", { class: "button primary", href: "#/new" }, "New task")), form,
    h("div", { "data-key": "list" }, newcomers(state, show), state.rows === null ? null : taskTable(state), howFar(state.searched), pages.links(state.next)));
  show();
  suggest(form);
  view.every(filters.q ? SEARCH_SECONDS : LOOK_SECONDS, async () => {
    const limit = cursor || filters.q || state.rows === null ? PAGE : PAGE + AHEAD;
    const page = await service.tasks({ ...filters, cursor, limit, include: "waiting_reason" }, view.signal);
    if (filters.q) Object.assign(state, { rows: page.items, next: page.next_cursor, searched: page.searched });
    else merge(state, page, limit);
    show();
  });
}

function filtersIn(query) {
  const filters = { status: query.getAll("status").filter((status) => STATUSES.includes(status)) };
  for (const { name } of [...TEXTS, ...MOMENTS]) filters[name] = query.get(name) ?? "";
  return filters;
}

/** Take in what a look has found: known rows are renewed in place, new ones wait until they are asked for. */
function merge(state, page, limit) {
  if (state.rows === null || state.rows.length === 0) {
    state.rows = page.items.slice(0, PAGE);
    state.next = page.next_cursor;
    return;
  }
  const found = new Map(page.items.map((task) => [task.id, task]));
  const newest = state.rows[0].id;
  const last = page.items.length === limit ? page.items.at(-1).id : 0;
  state.rows = state.rows.map((task) => found.get(task.id) ?? task);
  state.gone = new Set(state.rows.filter((task) => !found.has(task.id) && task.id > last).map((task) => task.id));
  const before = state.fresh.length;
  state.fresh = page.items.filter((task) => task.id > newest);
  if (state.fresh.length && !before) announce("There are new tasks.");
}

/** How far a search in texts has looked. */
function howFar(searched) {
  if (!searched?.back_to_id) return null;
  return h("p", { class: "small" }, `Searched ${count(searched.tasks, "task")}, back to #${searched.back_to_id}. The next page goes on there.`);
}

function newcomers(state, show) {
  const many = state.fresh.length;
  const take = () => {
    state.rows = [...state.fresh, ...state.rows];
    state.fresh = [];
    show();
    document.querySelector("tbody a")?.focus();
  };
  return h("div", { class: "newcomers", "data-key": "newcomers" },
    many ? h("button", { type: "button", class: "quiet", onclick: take }, `Show ${many >= AHEAD ? `${AHEAD} or more` : many} new ${many === 1 ? "task" : "tasks"}`) : null);
}

function taskTable({ rows, gone }) {
  if (!rows.length) return empty("No task fits these filters.");
  return table("Tasks", [
    { name: "Task", class: "tight", cell: (task) => taskLink(task.id) },
    { name: "Type", cell: (task) => h("b", {}, task.task_type) },
    { name: "Status", class: "tight", cell: (task) => (gone.has(task.id) ? badge("fits no more", "blocked", "It was deleted, or the filters do not fit it now.") : status(task)) },
    { name: "Queue", cell: (task) => task.queue },
    { name: "Priority", class: "number", cell: (task) => (task.priority ? String(task.priority) : none()) },
    { name: "Attempts", class: "number", cell: (task) => `${task.attempts} of ${task.max_attempts}` },
    { name: "Created", class: "number", cell: (task) => when(task.created_at) },
    { name: "Run time", class: "number", cell: runTime },
    { name: "Details", class: "wide", cell: what },
  ], rows, (task) => task.id, (task) => (gone.has(task.id) ? "gone" : null));
}

/** The status of a task, and how far it is while it runs. */
export function status(task) {
  const asked = task.status === "running" && task.cancel_requested_at;
  const percent = task.status === "running" ? task.progress?.percent : null;
  return h("span", { class: "status" }, badge(asked ? "stopping" : task.status, asked ? "retrying" : task.status),
    typeof percent === "number" ? [bar(percent / 100, "running"), h("small", {}, `${Math.round(percent)} %`)] : null);
}

/** How long the last attempt has taken. */
function runTime(task) {
  if (!task.started_at || !["running", "completed", "failed", "cancelled"].includes(task.status)) return none();
  return duration(between(task.started_at, task.finished_at));
}

/** One line about a task: what it says of itself, why it waits, or why it failed; then its tags. */
function what(task) {
  const line = task.status === "running" ? task.progress?.message
    : task.waiting_reason ? waits(task.waiting_reason)
    : task.error && task.status !== "completed" ? `${task.error.type}: ${task.error.message}` : null;
  return h("span", { class: "what" }, line ? h("span", { class: "free clip" }, line) : null,
    task.tags.map((tag) => h("a", { class: "tag", href: address("/tasks", { tag }) }, tag)));
}

function waits({ reason, message, until }) {
  return reason === "not_due" ? ["due ", when(until)] : message;
}

/** Links to the pages before and behind; the way back is remembered in this tab, since a cursor only leads forwards. */
export class Pages {
  constructor(path, filters, cursor) {
    this._path = path;
    this._filters = filters;
    this._cursor = cursor;
  }

  links(next) {
    if (!next && !this._cursor) return null;
    if (next) sessionStorage.setItem(this._slot(next), this._cursor ?? "");
    const before = this._cursor ? sessionStorage.getItem(this._slot(this._cursor)) : null;
    const to = (cursor) => address(this._path, { ...this._filters, cursor });
    return h("nav", { class: "pages", "aria-label": "Pages of the list", "data-key": "pages" },
      this._cursor ? h("a", { class: "button quiet", href: to(null) }, "First page") : null,
      before !== null ? h("a", { class: "button quiet", href: to(before), rel: "prev" }, "Previous") : null,
      next ? h("a", { class: "button quiet", href: to(next), rel: "next" }, "Next") : null);
  }

  _slot(cursor) {
    return `before ${address(this._path, this._filters)} ${cursor}`;
  }
}

function filterForm(filters) {
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filter tasks", "data-own": "filters", "data-key": "filters" },
    h("fieldset", { class: "chips" }, h("legend", { class: "unseen" }, "Status"), STATUSES.map((word) => chip(word, filters.status.includes(word)))),
    h("div", { class: "row" },
      TEXTS.map(({ name, label, kind, list, longest }) => labelled(label, h("input", {
        name, value: filters[name], list, type: kind ?? "text", min: kind ? 1 : null, maxlength: longest, autocomplete: "off", spellcheck: "false" }))),
      MOMENTS.map(({ name, label }) => labelled(label, h("input", { name, type: "datetime-local", step: 1, value: localMoment(filters[name]) }))),
      h("a", { class: "button quiet", href: "#/tasks" }, "Clear")),
    h("datalist", { id: "known-types" }), h("datalist", { id: "known-queues" }), h("button", { class: "unseen", tabindex: -1 }, "Filter"));
  form.onchange = () => apply(form);
  form.onsubmit = (event) => {
    event.preventDefault();
    apply(form);
  };
  return form;
}

function chip(word, checked) {
  return h("label", { class: `chip is-${word}` }, h("input", { type: "checkbox", name: "status", value: word, checked }), h("span", { class: "dot", "aria-hidden": "true" }), word);
}

export function labelled(label, input) {
  return h("label", { class: "labelled" }, h("span", {}, label), input);
}

function apply(form) {
  const given = new FormData(form);
  const filters = { status: given.getAll("status") };
  for (const { name } of TEXTS) filters[name] = given.get(name).trim();
  for (const { name } of MOMENTS) filters[name] = given.get(name) ? new Date(given.get(name)).toISOString() : "";
  const focused = document.activeElement;
  const place = focused?.name && { name: focused.name, value: focused.type === "checkbox" ? focused.value : null };
  location.hash = address("/tasks", filters);
  if (place) addEventListener("hashchange", () => refocus(place), { once: true });
}

/** The page is made anew for its new address; the focus goes back to the filter it was in. */
function refocus({ name, value }) {
  const twins = [...document.querySelectorAll(`.filters [name="${CSS.escape(name)}"]`)];
  (twins.find((twin) => value === null || twin.value === value) ?? twins[0])?.focus();
}

function localMoment(text) {
  const time = Date.parse(text);
  if (Number.isNaN(time)) return "";
  return new Date(time - new Date(time).getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

async function suggest(form) {
  const options = (names) => names.map((name) => h("option", { value: name }));
  const [types, queues] = await Promise.all([service.taskTypes(), service.queues()]).catch(() => [[], []]);
  form.querySelector("#known-types").replaceChildren(...options(types.map((one) => one.task_type)));
  form.querySelector("#known-queues").replaceChildren(...options((queues ?? []).map((one) => one.queue)));
}

