// One task: what went in, what came out, how it went, live; and what can be done with it.

import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { between, bytes, count, duration, number } from "./format.js";
import { ENDED, WAITING, address, badge, bar, button, data, facts, link, pageHead, section, taskLink, when } from "./parts.js";
import * as service from "./service.js";
import { announce, failure, perform } from "./view.js";

const LOOK_SECONDS = 10;
const AGAIN_MS = 2000;
/** What the service keeps by default; a page that stays open keeps no more. */
const MOST_LINES = 500;
const MOST_IMAGE_BYTES = 20 * 2 ** 20;
/** Pictures that cannot run anything; a browser shows no other type here. */
const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp"];
const OUTCOMES = { completed: "completed", error: "failed", timeout: "failed", lost: "failed", cancelled: "cancelled", released: "scheduled", snoozed: "scheduled" };

export function taskPage(view, id) {
  view.title(`Task ${id}`);
  const state = { task: null, attempts: [], files: [], logs: [], reasons: null, pictures: new Map() };
  const show = () => view.show(...content(state, view));
  const look = async () => {
    await load(state, id, view);
    show();
    await loadPictures(state, view);
    show();
  };
  view.signal.addEventListener("abort", () => state.pictures.forEach((address) => URL.revokeObjectURL(address)));
  view.every(LOOK_SECONDS, async () => {
    try {
      await look();
    } catch (error) {
      if (error.status !== 404) throw error;
      view.show(failure(new Error(`There is no task ${id}. It may have been deleted.`)));
      view.end();
    }
  }).then(() => follow(state, id, view, look, show));
}

async function load(state, id, view) {
  const { signal } = view;
  [state.task, state.attempts, state.files, state.logs] = await Promise.all([
    service.task(id, signal), service.attempts(id, signal), service.taskFiles(id, signal), service.logs(id, signal),
  ]);
  state.reasons = WAITING.includes(state.task.status) ? await service.explain(id, signal) : null;
}

/** Follow the task's stream while the page is seen, until the task has ended. */
async function follow(state, id, view, look, show) {
  while (state.task && !view.signal.aborted) {
    if (ENDED.includes(state.task.status) || document.hidden) {
      await pause(AGAIN_MS / 4);
      continue;
    }
    const hidden = new AbortController();
    const hide = () => document.hidden && hidden.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      await service.watchTask(id, readTo(state.logs), (task) => told(state, task, view, look, show),
        (log) => said(state, log, show), AbortSignal.any([view.signal, hidden.signal]));
    } catch {
      await pause(AGAIN_MS);
    }
    document.removeEventListener("visibilitychange", hide);
  }
}

function told(state, task, view, look, show) {
  if (task === null) {
    view.refresh();
    return;
  }
  const changed = task.status !== state.task.status || task.attempts !== state.task.attempts;
  Object.assign(state.task, task);
  show();
  if (!changed) return;
  announce(`Task ${task.id} is now ${task.status}.`);
  look().catch(() => {});
}

function readTo(logs) {
  const last = logs.at(-1);
  return last ? `${last.lease}.${last.lines.at(-1).number}` : "0.0";
}

/** Put new lines behind those that are shown. */
function said(state, log, show) {
  const known = state.logs.find(({ lease }) => lease === log.lease);
  if (!known) {
    state.logs.push(log);
  } else {
    const last = known.lines.at(-1).number;
    known.lines = [...known.lines, ...log.lines.filter(({ number }) => number > last)].slice(-MOST_LINES);
    known.dropped = known.lines[0].number - 1;
  }
  show();
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function loadPictures(state, view) {
  for (const file of state.files) {
    if (state.pictures.has(file.id) || !PICTURES.includes(file.content_type) || file.size > MOST_IMAGE_BYTES) continue;
    const content = await service.fileContent(file.id, file.content_type, view.signal).catch(() => null);
    if (content && !view.signal.aborted) state.pictures.set(file.id, URL.createObjectURL(content));
  }
}

function content(state, view) {
  const { task } = state;
  const stopping = task.status === "running" && task.cancel_requested_at;
  return [
    pageHead(`Task ${task.id}`, actions(task, view)),
    h("div", { class: "summary", "data-key": "summary" }, badge(stopping ? "stopping" : task.status, stopping ? "retrying" : task.status), h("b", {}, task.task_type),
      h("span", {}, "in ", link(address("/tasks", { queue: task.queue }), task.queue)), story(task)),
    state.reasons ? reasons(state.reasons) : null,
    progress(task),
    task.error ? failureOf(task) : null,
    h("div", { class: "columns uneven", "data-key": "data" },
      h("div", { "data-key": "left" },
        ENDED.includes(task.status) && task.status === "completed" ? section("Result", pictures(state, "output"), data("Result", task.result)) : null,
        section("Payload", pictures(state, "input"), data("Payload", task.payload)),
        state.logs.length ? section("Log", state.logs.toReversed().map((log, place) => logOf(log, place === 0))) : null),
      h("div", { "data-key": "right" },
        section("Facts", facts(pairs(task))),
        section("Attempts", timeline(state.attempts)),
        state.files.length ? section("Files", fileList(state.files)) : null,
        task.metadata ? section("Metadata", data("Metadata", task.metadata)) : null)),
  ];
}

/** How long it waited and ran, in a sentence. */
function story(task) {
  const { status: word, created_at: created, started_at: started, finished_at: finished } = task;
  if (word === "running") return h("span", { class: "story" }, `for ${duration(between(started))}`);
  if (WAITING.includes(word)) return h("span", { class: "story" }, task.scheduled_at ? ["due ", when(task.scheduled_at)] : `for ${duration(Math.floor(between(created)))}`);
  const ran = started && finished ? `, ran ${duration(between(started, finished))}` : "";
  return h("span", { class: "story" }, when(finished), ran);
}

/** Why it waits, first the reason that counts; its place, and when it should start. */
function reasons({ reasons: listed, position, position_is_at_least: more, estimated_start_at: start }) {
  if (!listed.length) return null;
  const place = position === null ? null : h("li", {}, `Place ${number(position)}${more ? " or later" : ""} in its queue`, start ? [", should start ", when(start)] : null, ".");
  return section("Why it waits", h("ol", { class: "reasons" }, listed.map(({ message, until, held_by: holders }) =>
    h("li", { class: "free" }, message, until ? [" (", when(until), ")"] : null,
      holders.length ? [" Held by ", holders.map((id) => [taskLink(id), " "])] : null)), place));
}

function progress(task) {
  if (task.status !== "running" || !task.progress) return null;
  const { percent, message, data: more, updated_at: at } = task.progress;
  const known = typeof percent === "number";
  return section("Progress",
    h("div", { class: "progress" },
      h("progress", { max: 100, value: known ? percent : null, "aria-label": "Progress of the task" }),
      h("b", {}, known ? `${Math.round(percent * 10) / 10} %` : ""),
      h("span", { class: "free" }, message ?? ""), h("small", {}, when(at))),
    more === null || more === undefined ? null : data("Progress data", more));
}

function failureOf(task) {
  const { error } = task;
  const title = task.status === "completed" ? "Error of an earlier attempt" : "Error";
  return section(title,
    h("div", { class: "error" },
      h("p", { class: "free" }, h("b", {}, error.type), ": ", error.message),
      h("p", { class: "small" }, task.failure_reason ? [badge(task.failure_reason, "failed"), " "] : null, `attempt ${error.attempt}, `, when(error.at),
        task.resolved_at ? [", dealt with ", when(task.resolved_at)] : null),
      task.resolution ? h("p", { class: "free" }, h("b", {}, "Note: "), task.resolution) : null,
      error.traceback ? traceback(error.traceback) : null));
}

function traceback(text) {
  return h("details", { open: true }, h("summary", {}, "Traceback"), h("pre", { tabindex: 0, role: "group", "aria-label": "Traceback" }, text));
}

function pairs(task) {
  const tags = task.tags.map((tag) => h("a", { class: "tag", href: address("/tasks", { tag }) }, tag));
  return [
    ["Priority", String(task.priority)],
    ["Attempts", `${task.attempts} of ${task.max_attempts}`],
    ["Time limit", duration(task.timeout_seconds)],
    ["Created", when(task.created_at)],
    ["Due", WAITING.includes(task.status) && task.scheduled_at && when(task.scheduled_at)],
    ["Started", task.started_at && when(task.started_at)],
    ["Finished", task.finished_at && when(task.finished_at)],
    ["Expires", task.expires_at && when(task.expires_at)],
    ["Cancel asked", task.cancel_requested_at && when(task.cancel_requested_at)],
    ["Worker", task.worker_id],
    ["Retries", task.retry && `${task.retry.policy}, from ${duration(task.retry.base_seconds)} to ${duration(task.retry.ceiling_seconds)}`],
    ["Retries for", task.retry_for_seconds && duration(task.retry_for_seconds)],
    ["Unique key", task.unique_key && h("span", { class: "free" }, task.unique_key)],
    ["Parent", task.parent_id && link(address(`/tasks/${task.parent_id}`), `#${task.parent_id}`)],
    ["Children", link(address("/tasks", { parent_id: task.id }), "Show")],
    ["Tags", tags.length ? tags : null],
  ];
}

function timeline(attempts) {
  if (!attempts.length) return h("p", { class: "empty" }, "It has not run yet.");
  const longest = Math.max(0.001, ...attempts.map((one) => between(one.started_at, one.finished_at)));
  return h("ol", { class: "timeline" }, attempts.map((one) => attempt(one, longest)));
}

function attempt(one, longest) {
  const kind = one.outcome === null ? "running" : OUTCOMES[one.outcome] ?? "retrying";
  const seconds = between(one.started_at, one.finished_at);
  return h("li", { class: `is-${kind}`, "data-key": String(one.lease) },
    h("p", {}, badge(one.outcome?.replaceAll("_", " ") ?? "running", kind), h("span", { class: "small" }, `attempt ${one.attempt}`),
      bar(seconds / longest, kind), h("span", { class: "small" }, duration(seconds))),
    h("p", { class: "small" }, when(one.started_at), one.worker_id ? [" on ", h("span", { class: "mono" }, one.worker_id)] : null,
      one.delay_seconds ? `, then waited ${duration(one.delay_seconds)}` : null),
    one.error ? h("details", {}, h("summary", {}, h("span", { class: "free" }, `${one.error.type}: ${one.error.message}`)),
      h("pre", { tabindex: 0 }, one.error.traceback ?? one.error.message)) : null);
}

/** What an attempt printed and logged; of earlier attempts it is folded. */
function logOf({ lease, attempt: number, dropped, lines }, newest) {
  const names = `Lines of attempt ${number}`;
  return h("details", { open: newest, class: "log", "data-key": String(lease) }, h("summary", {}, names),
    dropped ? h("p", { class: "small" }, `${count(dropped, "older line")} not kept`) : null,
    h("ol", { tabindex: 0, role: "group", "aria-label": names }, lines.map((line) =>
      h("li", { class: line.source, "data-key": String(line.number) }, h("time", { datetime: line.at, title: line.at }, line.at.slice(11, 23)), " ",
        h("span", { class: "free" }, line.text, line.fields ? h("small", {}, ` ${JSON.stringify(line.fields)}`) : null)))));
}

function pictures(state, role) {
  const wanted = state.files.filter((file) => state.pictures.has(file.id) && (role === "input") === (file.role === "input"));
  if (!wanted.length) return null;
  return h("div", { class: `pictures ${role}` }, wanted.map((file) =>
    h("figure", { "data-key": file.id }, h("img", { src: state.pictures.get(file.id), alt: `${role === "input" ? "Given" : "Produced"} picture ${file.name}` }),
      h("figcaption", { class: "free" }, `${file.name}, ${bytes(file.size)}`))));
}

function fileList(files) {
  return h("ul", { class: "files" }, files.map((file) =>
    h("li", { "data-key": `${file.id} ${file.role}` },
      h("span", { class: "two" }, h("b", { class: "free clip" }, file.name), h("small", {}, `${file.role}, ${bytes(file.size)}, ${file.content_type}`)),
      button("Download", () => download(file), "small", { "aria-label": `Download ${file.name}` }))));
}

/** Hand a file to whoever reads this: as bytes of no type, so that no browser opens it here. */
function download(file) {
  return perform(async () => {
    const address = URL.createObjectURL(await service.fileContent(file.id, "application/octet-stream"));
    h("a", { href: address, download: file.name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }, `${file.name}: ${bytes(file.size)}`);
}

function actions(task, view) {
  const stoppable = WAITING.includes(task.status) || (task.status === "running" && !task.cancel_requested_at);
  const repeatable = ["failed", "cancelled"].includes(task.status);
  return [
    stoppable ? button("Cancel…", () => cancel(task, view), "", { "data-key": "cancel" }) : null,
    repeatable ? button("Retry", () => retry(task, view), "primary", { "data-key": "retry" }) : null,
    h("a", { class: "button", href: address("/new", { from: task.id }), "data-key": "replay" }, "Replay with changes…"),
    task.status === "running" ? null : button("Delete…", () => remove(task, view), "danger", { "data-key": "delete" }),
  ];
}

async function cancel(task, view) {
  const running = task.status === "running";
  const answer = await ask({
    title: `Cancel task ${task.id}?`,
    body: h("p", {}, running ? "It is asked to stop, and stopped if it does not. What it has done so far stays done." : "It will not run, unless somebody retries it."),
    confirm: "Cancel the task",
    danger: true,
  });
  if (answer === null) return;
  await perform(() => service.cancel(task.id), running ? `Task ${task.id} is asked to stop.` : `Task ${task.id} is cancelled.`);
  view.refresh();
}

async function retry(task, view) {
  await perform(() => service.retry(task.id), `Task ${task.id} is ready to run again.`);
  view.refresh();
}

async function remove(task) {
  const answer = await ask({
    title: `Delete task ${task.id}?`,
    body: h("p", {}, `Its payload, result, ${count(task.attempts, "attempt")} and files are deleted with it. This cannot be undone.`),
    confirm: "Delete the task",
    danger: true,
  });
  if (answer === null) return;
  if (await perform(() => service.remove(task.id), `Task ${task.id} is deleted.`)) location.hash = "#/tasks";
}

