// Failed tasks that nobody has dealt with, by cause; a whole group is requeued, resolved or deleted after a dry run.

import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { count, number } from "./format.js";
import { address, badge, button, empty, none, pageHead, section, table, taskLink, when } from "./parts.js";
import * as service from "./service.js";
import { Pages, labelled } from "./tasks.js";
import { perform, toast } from "./view.js";

const LOOK_SECONDS = 4;
const PAGE = 50;
const REASONS = ["error", "exhausted", "timeout", "lost", "poisoned", "expired", "rejected"];
const ACTIONS = {
  requeue: { word: "Requeue", will: "would run again, now, with all their attempts", done: "requeued" },
  resolve: { word: "Resolve", will: "would be taken as dealt with: they stay failed, and are no dead letters any more", done: "resolved", note: true },
  purge: { word: "Delete", will: "would be deleted, with their history and files; this cannot be undone", done: "deleted", danger: true },
};

export function deadLettersPage(view) {
  view.title("Dead letters");
  const filters = Object.fromEntries(["task_type", "queue", "failure_reason"].map((name) => [name, view.query.get(name) ?? ""]));
  const fingerprint = view.query.get("fingerprint");
  const cursor = view.query.get("cursor");
  const chosen = fingerprint || Object.keys(given(filters)).length;
  const form = filterForm(filters);
  view.every(LOOK_SECONDS, async () => {
    const wanted = { ...filters, fingerprint };
    const [groups, list] = await Promise.all([
      service.deadLetterGroups({ ...filters, limit: 100 }, view.signal),
      service.deadLetters({ ...wanted, cursor, limit: PAGE }, view.signal),
    ]);
    const shown = fingerprint ? groups.items.filter((group) => group.fingerprint === fingerprint) : groups.items;
    view.show(
      pageHead("Dead letters", groups.total && !fingerprint ? everything(groups.total, filters, view) : null), form,
      h("p", { class: "lead", "data-key": "lead" }, sentence(groups, shown, fingerprint)),
      shown.length ? h("div", { class: "groups", "data-key": "groups" }, shown.map((group) => groupCard(group, filters, view)))
        : empty(fingerprint ? "Nothing of this cause is left." : "No failed task waits for anybody."),
      chosen && list.items.length ? section("Tasks", letters(list.items), new Pages("/dead-letters", wanted, cursor).links(list.next_cursor)) : null);
  });
}

function sentence({ total, items }, shown, fingerprint) {
  if (fingerprint) return ["One cause. ", h("a", { href: "#/dead-letters" }, "Show all causes")];
  if (!total) return null;
  const rest = items.length === 100 ? ", the 100 largest groups are shown" : "";
  return `${count(total, "failed task")} of ${count(shown.length, "cause")}${rest}.`;
}

function groupCard(group, filters, view) {
  const selection = { ...given(filters), fingerprint: group.fingerprint, task_type: group.task_type };
  const what = `${group.error?.type ?? "tasks"} in ${group.task_type}`;
  return h("article", { class: "group", "data-key": `${group.fingerprint} ${group.task_type}`, "aria-label": what },
    h("div", { class: "cause" },
      h("h2", { class: "free" }, group.error?.type ?? "The error was not kept", h("small", {}, group.task_type)),
      h("p", { class: "free message" }, group.error?.message ?? ""),
      h("p", { class: "small" }, "first ", when(group.first_failed_at), ", last ", when(group.last_failed_at), ". Newest: ",
        group.task_ids.slice(0, 5).map((id) => [taskLink(id), " "]),
        group.count > 5 ? h("a", { href: address("/dead-letters", { ...filters, fingerprint: group.fingerprint, task_type: group.task_type }) }, "all") : null),
      group.error?.traceback ? h("details", {}, h("summary", {}, "Traceback of the newest"),
        h("pre", { tabindex: 0, role: "group", "aria-label": "Traceback" }, group.error.traceback)) : null),
    h("div", { class: "amount" }, h("b", {}, number(group.count)), h("small", {}, group.count === 1 ? "task" : "tasks")),
    h("div", { class: "buttons" }, Object.keys(ACTIONS).map((action) => actionButton(action, selection, what, view))));
}

function everything(total, filters, view) {
  const chosen = given(filters);
  const selection = Object.keys(chosen).length ? chosen : { all: true };
  return Object.keys(ACTIONS).map((action) => actionButton(action, selection, "all that are shown", view, " all"));
}

function given(filters) {
  return Object.fromEntries(Object.entries(filters).filter(([, value]) => value));
}

function actionButton(action, selection, what, view, more = "") {
  const { word, danger } = ACTIONS[action];
  return button(`${word}${more}…`, () => act(action, selection, what, view), danger ? "danger" : "", { "aria-label": `${word} ${what}` });
}

async function act(action, selection, what, view) {
  const { word, will, done, note, danger } = ACTIONS[action];
  let report;
  try {
    report = await service.actOnDeadLetters(action, { ...selection, dry_run: true });
  } catch (error) {
    toast(error.message, true);
    return;
  }
  const answer = await ask({
    title: `${word} ${count(report.changed, "task")}?`,
    body: dryRun(report, what, will),
    confirm: `${word} ${count(report.changed, "task")}`,
    danger,
    inputs: note ? [{ name: "note", label: "Note", kind: "textarea", longest: 1000, hint: "For whoever looks at these tasks later. May be empty." }] : [],
  });
  if (answer === null) return;
  const request = answer.note?.trim() ? { ...selection, note: answer.note.trim() } : selection;
  await perform(() => service.actOnDeadLetters(action, request), (result) => said(result, done));
  view.refresh();
}

function dryRun({ matched, changed, task_ids: ids, skipped }, what, will) {
  return [
    h("p", {}, `Dry run for ${what}: ${count(changed, "task")} of ${number(matched)} ${will}.`),
    ids.length ? h("p", { class: "small" }, "Among them: ", ids.map((id) => [`#${id}`, " "])) : null,
    skipped.length ? h("details", {}, h("summary", {}, `${count(skipped.length, "task")} would be left alone`),
      h("ul", { class: "small" }, skipped.slice(0, 20).map((one) => h("li", { class: "free" }, skippedText(one))))) : null,
  ];
}

function skippedText(one) {
  const id = one.task_id ?? one.id;
  const reason = one.reason ?? one.why ?? one.detail ?? JSON.stringify(one);
  return id === undefined ? String(reason) : `#${id}: ${reason}`;
}

function said({ changed, skipped }, done) {
  const left = skipped.length ? `, ${number(skipped.length)} left alone` : "";
  return `${count(changed, "task")} ${done}${left}.`;
}

function letters(items) {
  return table("Dead letters", [
    { name: "Task", class: "tight", cell: (task) => taskLink(task.id) },
    { name: "Type", cell: (task) => h("b", {}, task.task_type) },
    { name: "Queue", cell: (task) => task.queue },
    { name: "Reason", cell: (task) => badge(task.failure_reason ?? "failed", "failed") },
    { name: "Attempts", class: "number", cell: (task) => `${task.attempts} of ${task.max_attempts}` },
    { name: "Failed", class: "number", cell: (task) => when(task.finished_at) },
    { name: "Error", class: "wide", cell: (task) => (task.error ? h("span", { class: "free clip" }, `${task.error.type}: ${task.error.message}`) : none()) },
  ], items, (task) => task.id);
}

function filterForm(filters) {
  const reasons = h("select", { name: "failure_reason" }, h("option", { value: "" }, "any"), REASONS.map((reason) => h("option", { value: reason, selected: reason === filters.failure_reason }, reason)));
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filter dead letters", "data-own": "filters", "data-key": "filters" },
    h("div", { class: "row" },
      labelled("Task type", h("input", { name: "task_type", value: filters.task_type, autocomplete: "off", spellcheck: "false" })),
      labelled("Queue", h("input", { name: "queue", value: filters.queue, autocomplete: "off", spellcheck: "false" })),
      labelled("Reason", reasons),
      h("a", { class: "button quiet", href: "#/dead-letters" }, "Clear")),
    h("button", { class: "unseen", tabindex: -1 }, "Filter"));
  const apply = () => {
    location.hash = address("/dead-letters", Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()])));
  };
  form.onchange = apply;
  form.onsubmit = (event) => {
    event.preventDefault();
    apply();
  };
  return form;
}

