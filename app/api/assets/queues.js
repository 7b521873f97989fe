// Queues: how much waits in each and for how long; pause, resume and limits where the service offers them.

import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { age, count, number, rate } from "./format.js";
import { address, badge, bar, button, empty, link, none, pageHead, table } from "./parts.js";
import * as service from "./service.js";
import { perform } from "./view.js";

const LOOK_SECONDS = 2;
const LIMITS = [
  { name: "max_running", label: "Most tasks that run at once" },
  { name: "rate_limit", label: "Most tasks that start in a time" },
  { name: "rate_period_seconds", label: "That time, in seconds" },
  { name: "max_depth", label: "Most tasks that wait; more are refused" },
];

export function queuesPage(view) {
  view.title("Queues");
  view.every(LOOK_SECONDS, async () => {
    const queues = await service.queues(view.signal);
    view.show(pageHead("Queues"),
      queues?.length ? queueTable(queues, view) : empty(queues ? "No unfinished task is in any queue." : "This API key may not see the queues."));
  });
}

/** The queues as a table; what steers them is there where the service names it. */
export function queueTable(queues, view) {
  const most = Math.max(1, ...queues.map((queue) => queue.ready));
  const steered = queues.some((queue) => queue.paused !== undefined);
  const limits = LIMITS.filter(({ name }) => queues.some((queue) => queue[name] !== undefined));
  const of = (status) => (queue) => (queue[status] ? link(address("/tasks", { queue: queue.queue, status }), number(queue[status])) : h("span", { class: "none" }, "0"));
  return table("Queues", [
    { name: "Queue", class: "whole", cell: (queue) => h("span", { class: "status" }, link(address("/tasks", { queue: queue.queue }), h("b", {}, queue.queue)), queue.paused ? badge("paused", "retrying") : null) },
    { name: "Ready", class: "number grow", cell: (queue) => [bar(queue.ready / most), h("span", { class: "digits" }, queue.ready ? link(address("/tasks", { queue: queue.queue, status: "pending" }), number(queue.ready)) : h("span", { class: "none" }, "0"))] },
    { name: "Oldest", class: "number", cell: (queue) => (queue.oldest_age_seconds === null ? none() : age(queue.oldest_age_seconds)) },
    { name: "Running", class: "number", cell: of("running") },
    ...(queues.some((queue) => queue.blocked !== undefined) ? [{ name: "Blocked", class: "number", cell: of("blocked") }] : []),
    { name: "Scheduled", class: "number", cell: of("scheduled") },
    { name: "Retrying", class: "number", cell: of("retrying") },
    ...(queues.some((queue) => queue.drained_per_second !== undefined) ? [{ name: "Worked off", class: "number", cell: (queue) => `${rate(queue.drained_per_second)}/s` }] : []),
    ...(limits.length ? [{ name: "Limits", class: "whole", cell: limitText }] : []),
    ...(steered ? [{ name: "Action", class: "number whole", cell: (queue) => actions(queue, limits, view) }] : []),
  ], queues, (queue) => queue.queue);
}

function limitText({ max_running: running, rate_limit: starts, rate_period_seconds: seconds, max_depth: depth }) {
  const isSet = (value) => value !== null && value !== undefined;
  const told = [
    isSet(running) ? `${number(running)} at once` : null,
    isSet(starts) && isSet(seconds) ? `${count(starts, "start")} in ${number(seconds)} s` : null,
    isSet(depth) ? `${number(depth)} may wait` : null,
  ].filter(Boolean);
  return told.length ? h("small", {}, told.join(", ")) : none();
}

function actions(queue, limits, view) {
  const pause = queue.paused
    ? button("Resume", () => edit(queue, { paused: false }, `Queue ${queue.queue} goes on.`, view), "small", { "aria-label": `Resume queue ${queue.queue}` })
    : button("Pause…", () => askToPause(queue, view), "small", { "aria-label": `Pause queue ${queue.queue}` });
  return h("span", { class: "buttons" }, pause,
    limits.length ? button("Limits…", () => askForLimits(queue, limits, view), "small", { "aria-label": `Limits of queue ${queue.queue}` }) : null);
}

async function askToPause(queue, view) {
  const answer = await ask({
    title: `Pause queue ${queue.queue}?`,
    body: h("p", {}, "What runs goes on; nothing else starts until it is resumed. Tasks can still be submitted."),
    confirm: "Pause it",
  });
  if (answer !== null) await edit(queue, { paused: true }, `Queue ${queue.queue} is paused.`, view);
}

async function askForLimits(queue, limits, view) {
  const answer = await ask({
    title: `Limits of queue ${queue.queue}`,
    body: h("p", {}, "They hold over all workers together. Empty means no limit."),
    confirm: "Set them",
    inputs: limits.map(({ name, label }) => ({ name, label, kind: "number", value: queue[name] ?? "" })),
  });
  if (answer === null) return;
  const changes = Object.fromEntries(limits.map(({ name }) => [name, answer[name] === "" ? null : Number(answer[name])]));
  await edit(queue, changes, `The limits of queue ${queue.queue} are set.`, view);
}

async function edit(queue, changes, done, view) {
  await perform(() => service.editQueue(queue.queue, changes), done);
  view.refresh();
}
