// A new task: its payload from a form made of the executor's schema, or as JSON; empty, from the example, or from a task.

import { h } from "./dom.js";
import { duration } from "./format.js";
import { fieldFor, Misfit } from "./form.js";
import { button, pageHead } from "./parts.js";
import * as service from "./service.js";
import { failure, toast } from "./view.js";

const NAME = "^[A-Za-z0-9._:-]{1,64}$";
/** What a submission may have beside its payload. */
const OPTIONS = {
  type: "object",
  properties: {
    queue: { type: "string", pattern: NAME, description: "Where it waits. Workers may serve only some queues." },
    priority: { type: "integer", minimum: -100, maximum: 100, description: "Higher runs first. Default: 0" },
    delay_seconds: { type: "number", minimum: 0, description: "Not before this long from now." },
    max_attempts: { type: "integer", minimum: 1, maximum: 1000, description: "Runs it may have, the first included." },
    timeout_seconds: { type: "number", exclusiveMinimum: 0, description: "Time limit of one attempt." },
    unique_key: { type: "string", pattern: "key", description: "At most one unfinished task has it." },
    tags: { type: "array", items: { type: "string", pattern: NAME }, description: "Names to filter by." },
    metadata: { type: "object", description: "Anything of yours; handed back as it is." },
  },
};

export async function submitPage(view) {
  const from = /^\d{1,19}$/.test(view.query.get("from") ?? "") ? view.query.get("from") : null;
  const title = from ? `Replay task ${from}` : "New task";
  view.title(title);
  try {
    const [types, task] = await Promise.all([service.taskTypes(view.signal), from ? service.task(from, view.signal) : null]);
    if (types.length) showForm(view, title, types, task);
    else view.show(failure(new Error("The service has no task type.")));
  } catch (error) {
    if (!view.signal.aborted) view.show(failure(error));
  }
}

function showForm(view, title, types, task) {
  const wanted = task?.task_type ?? view.query.get("type");
  const first = types.find((type) => type.task_type === wanted) ?? types[0];
  const chooser = h("select", { id: "task-type" }, types.map((type) => h("option", { value: type.task_type, selected: type === first }, type.task_type)));
  const options = fieldFor(OPTIONS, "options");
  const extra = h("details", { class: "options" }, h("summary", {}, "Queue, priority, delay, tags…"), options.node);
  const place = h("div");
  const known = task && first.task_type === task.task_type;
  let payload = null;
  const choose = (type) => {
    payload = payloadField(type);
    place.replaceChildren(payload.node);
  };
  chooser.onchange = () => choose(types.find((type) => type.task_type === chooser.value));
  choose(first);
  if (known) {
    payload.write(task.payload);
    options.write(asOptions(task));
  }
  const submitter = h("button", { type: "submit", class: "primary" }, task ? "Submit as a new task" : "Submit");
  const form = h("form", { class: "submission", "data-own": "submission", novalidate: true },
    h("div", { class: "field" }, h("label", { for: "task-type" }, "Task type"), chooser), place, extra, h("div", { class: "buttons" }, submitter));
  const sender = new Sender(submitter);
  form.onsubmit = (event) => {
    event.preventDefault();
    sender.send(() => ({ task_type: chooser.value, payload: payload.read(), ...options.read() }), { payload, options, extra });
  };
  const lead = task ? `Task ${task.id} stays as it is; a new task is made.${known ? "" : ` Its type ${task.task_type} is not known here.`}` : null;
  view.show(pageHead(title), lead ? h("p", { class: "lead" }, lead) : null, form);
}

function asOptions(task) {
  const { queue, priority, max_attempts, timeout_seconds, tags, metadata } = task;
  return { queue, priority: priority || undefined, max_attempts, timeout_seconds, tags, metadata: metadata ?? undefined };
}

/** The payload as a form or as JSON; the two are kept alike when one changes to the other. */
function payloadField(type) {
  const form = fieldFor(type.payload_schema, "payload");
  const area = h("textarea", { rows: 14, class: "mono", spellcheck: "false", "aria-label": "Payload as JSON" });
  const fault = h("p", { class: "fault", role: "alert" });
  const place = h("div", { class: "payload" });
  let asJson = false;
  const show = () => {
    place.replaceChildren(...(asJson ? [h("div", { class: "field" }, area)] : [form.node]), fault);
    toggle.textContent = asJson ? "Edit in a form" : "Edit as JSON";
  };
  const read = () => {
    fault.textContent = "";
    if (!asJson) return form.read();
    try {
      return service.parse(area.value.trim() || "{}");
    } catch (error) {
      throw new Misfit(`This is not JSON: ${error.message}`, { fault: (_, message) => (fault.textContent = message), focus: () => area.focus() });
    }
  };
  const write = (value) => {
    area.value = JSON.stringify(value, null, 2);
    form.write(value);
    asJson = !same(value, tried(form));
    show();
    if (asJson) fault.textContent = "";
  };
  const toggle = button("", () => {
    try {
      const value = read();
      if (asJson) {
        form.write(value);
        if (!same(value, tried(form))) return void (fault.textContent = "The form cannot show all of this payload, so it stays JSON.");
      } else area.value = JSON.stringify(value, null, 2);
      asJson = !asJson;
      show();
    } catch (error) {
      told(error);
    }
  }, "small");
  show();
  const example = type.example ? button("Fill in the example", () => write(type.example), "small") : null;
  return {
    node: h("section", { class: "box", "aria-labelledby": "payload-title" },
      h("div", { class: "head" }, h("h2", { id: "payload-title" }, "Payload"), h("div", { class: "actions" }, example, toggle)),
      h("p", { class: "hint free" }, type.description.split("\n\n")[0].replaceAll("\n", " ")),
      h("p", { class: "hint" }, `At most ${type.max_attempts} attempts of ${duration(type.timeout_seconds)} unless you say otherwise.`), place),
    read,
    write,
    fault: (path, message) => {
      if (asJson || form.fault(path, message) === false) fault.textContent = [path.join("."), message].filter(Boolean).join(": ");
    },
    focus: () => (asJson ? area : form).focus(),
  };
}

function tried(field) {
  try {
    return field.read();
  } catch {
    return undefined;
  }
}

function same(one, other) {
  const sorted = (value) => (value && typeof value === "object" && !Array.isArray(value) && !JSON.isRawJSON?.(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, inner]) => [name, sorted(inner)]))
    : Array.isArray(value) ? value.map(sorted) : value);
  return JSON.stringify(sorted(one)) === JSON.stringify(sorted(other));
}

function told(error) {
  if (!(error instanceof Misfit)) throw error;
  error.field.fault([], error.message);
  error.field.focus();
}

/** Sends once: a repeated press has the same key, so that it makes no second task. A new one where the request changed. */
class Sender {
  constructor(submitter) {
    this._submitter = submitter;
    this._sent = null;
  }

  async send(read, parts) {
    this._submitter.disabled = true;
    try {
      const submission = read();
      const task = await service.submit(submission, this._key(submission));
      toast(`Task ${task.id} is submitted.`);
      location.hash = `#/tasks/${task.id}`;
    } catch (error) {
      if (error instanceof service.Problem) refused(error, parts);
      else if (error instanceof Misfit) told(error);
      else toast(error.message, true);
    }
    this._submitter.disabled = false;
  }

  _key(submission) {
    const text = JSON.stringify(submission);
    if (this._sent?.text !== text) {
      const random = crypto.getRandomValues(new Uint8Array(16));
      this._sent = { text, key: `dashboard-${[...random].map((byte) => byte.toString(16).padStart(2, "0")).join("")}` };
    }
    return this._sent.key;
  }
}

/** Put each fault beside its field, and the whole in words. */
function refused(problem, { payload, options, extra }) {
  toast(problem.message, true);
  for (const { location: place, message } of problem.errors) {
    const [where, ...path] = place.slice(1);
    if (where === "payload") payload.fault(path, message);
    else if (where !== undefined && options.fault([where, ...path], message)) extra.open = true;
  }
  document.querySelector("[aria-invalid=true]")?.focus();
}
