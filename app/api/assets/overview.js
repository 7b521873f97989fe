// Everything at a glance: what is wrong, how much waits and runs, who works, what is held back, what failed and why.

import { advice, firing, untold } from "./alerts.js";
import { chart } from "./charts.js";
import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { age, ago, between, bytes, count, duration, now, number, rate, short } from "./format.js";
import { address, badge, bar, button, empty, link, none, pageHead, section, table, taskLink, when } from "./parts.js";
import { historySection, lookBack, minutes, rangeIn } from "./history.js";
import { queueTable } from "./queues.js";
import * as service from "./service.js";
import { perform } from "./view.js";

const LOOK_SECONDS = 2;
const LOOK_SLOWLY_SECONDS = 10;
/** While the stream tells the numbers: for what workers run and how they are. */
const LOOK_BESIDE_SECONDS = 5;
const LOOK_BACK_SECONDS = 30;
const SHOWN_SECONDS = 300;
const LEAST_MS = 1000;
/** By then a line can be seen. */
const DRAWN_MS = 15_000;
const SMOOTH = 3;
const MOST_CAUSES = 6;

// What was seen since the page was opened: kept while other pages are shown.
const seen = [];
// What the service has counted in the minutes before: how much ended a second.
let past = [];
const pointers = { throughput: { share: null }, waiting: { share: null } };

export function overviewPage(view) {
  view.title("Overview");
  const state = { looked: false, heard: 0, stats: null, queues: null, workers: null, breakers: null, causes: null, diagnosis: null, alerts: null, history: null };
  const show = () => state.looked && view.show(...content(state, view, show));
  const stream = { on: false, seen: null };
  view.every(() => (stream.on ? LOOK_BESIDE_SECONDS : LOOK_SECONDS), async () => {
    const { signal } = view;
    const before = state.heard;
    const [stats, queues, workers, breakers] = await Promise.all([
      service.stats(signal), service.queues(signal), service.workers(signal), service.breakers(signal),
    ]);
    // What the stream told meanwhile may be newer.
    Object.assign(state, { workers }, state.heard === before && { stats, queues, breakers });
    state.looked = true;
    if (state.stats) note(state.stats);
    show();
  }).then(() => listen(state, stream, view, show));
  view.every(LOOK_BACK_SECONDS, async () => {
    [state.history, past] = await Promise.all([lookBack(rangeIn(view.query), view.signal), lookBefore(view.signal)]);
    show();
  });
  view.every(LOOK_SLOWLY_SECONDS, async () => {
    const { signal } = view;
    [state.causes, state.diagnosis, state.alerts] = await Promise.all([
      service.causes(MOST_CAUSES, signal), service.diagnosis(signal), service.alerts(signal),
    ]);
    show();
  });
}

/** Show what the stream tells while there is one; without it the numbers are looked up. */
function listen(state, stream, view, show) {
  const opened = () => (stream.on = true);
  const tell = (told, id) => {
    stream.seen = id;
    hear(state, told, view, show);
  };
  return view.follow((signal) => service.watchOverview(stream.seen, opened, tell, signal), () => {
    if (stream.on && !view.signal.aborted) view.refresh();
    stream.on = false;
  });
}

function hear(state, { stats, queues, breakers, workers, alerts }, view, show) {
  const shown = running(state.workers);
  state.heard += 1;
  state.stats = stats;
  state.queues = queues.map((queue) => ({ ...queue, oldest_age_seconds: queue.oldest_ready_at === null ? null : between(queue.oldest_ready_at) }));
  if (breakers) state.breakers = breakers;
  note(stats);
  show();
  if (workers && running(workers) !== shown) reread(state, "workers", service.workers, view, show);
  const fires = (items) => items.filter((one) => one.state !== "holding").map((one) => `${one.id} ${one.silenced}`).join();
  if (alerts && fires(alerts) !== fires(state.alerts?.items ?? [])) reread(state, "alerts", service.alerts, view, show);
}

/** Who works, and how many tasks each one runs, as a text to compare. */
function running(workers) {
  return (workers ?? []).map((one) => `${one.id} ${one.state} ${one.running.length ?? one.running}`).join();
}

/** What the stream tells in numbers alone, in full. */
async function reread(state, name, read, view, show) {
  try {
    state[name] = await read(view.signal);
    show();
  } catch {
    // The next look shows it, or says what is wrong.
  }
}

/** The minutes before the first look, as points close enough to be joined. */
async function lookBefore(signal) {
  if (seen.length && seen[0].time < now() - SHOWN_SECONDS * 1000) return [];
  const counted = await minutes(SHOWN_SECONDS, signal);
  return counted.flatMap(({ time, completed, failed }) =>
    [0, 10, 20, 30, 40, 50].map((second) => ({ time: time + second * 1000, completed: completed / 60, failed: failed / 60 })));
}

function note(stats) {
  const time = now();
  if (seen.length && time - seen.at(-1).time < LEAST_MS) return;
  seen.push({ time, ready: stats.ready, running: stats.running, completed: stats.completed, failed: stats.failed });
  while (seen[0].time < time - (SHOWN_SECONDS + 10) * 1000) seen.shift();
}

function content(state, view, show) {
  const { stats, queues, workers, breakers, causes, diagnosis } = state;
  const found = untold(diagnosis?.items ?? [], state.alerts);
  return [
    pageHead("Overview"),
    firing(state.alerts, diagnosis?.items ?? []),
    found.length ? findings(found) : null,
    stats ? tiles(stats, causes, workers ?? []) : empty("This API key may not see the numbers of the whole service."),
    stats ? h("div", { class: "charts", "data-key": "charts" }, charts(show)) : null,
    queues && section("Queues", queues.length ? queueTable(queues, view) : empty("No unfinished task is in any queue.")),
    workers && section("Workers", workers.length ? workerTable(workers) : empty("No worker is alive. Start one: taskworker, or python run_worker.py.")),
    state.history && historySection(state.history, show),
    h("div", { class: "columns", "data-key": "columns" },
      causes ? section("Dead letters by cause", causeList(causes)) : null,
      breakers ? section("Breakers", breakerTable(breakers, view)) : null),
  ];
}

function findings(items) {
  return h("section", { class: "findings", "aria-label": "What is wrong", "data-key": "findings" },
    items.map((item) =>
      h("details", { class: `finding ${item.severity}`, "data-key": item.code + item.what },
        h("summary", {}, badge(item.severity), h("span", { class: "free" }, item.what)),
        advice(item))));
}

function tiles(stats, causes, workers) {
  const ended = stats.completed_last_hour + stats.failed_last_hour;
  const slots = workers.reduce((sum, worker) => sum + worker.slots, 0);
  const full = workers.length > 0 && workers.every(({ room }) => room && !room.plain && !room.shared);
  const silent = workers.filter((worker) => worker.state === "silent").length;
  return h("ul", { class: "tiles", "data-key": "tiles" },
    tile("Ready", stats.ready, stats.oldest_ready_at ? `oldest ${age(between(stats.oldest_ready_at))}` : "nothing waits",
      address("/tasks", { status: ["pending"] })),
    tile("Running", stats.running, full ? "no room for more" : `of ${count(slots, "slot")}`, address("/tasks", { status: "running" }), "running"),
    tile("Scheduled", stats.scheduled, "for later", address("/tasks", { status: "scheduled" })),
    tile("Retrying", stats.retrying, "failed before", address("/tasks", { status: "retrying" }), stats.retrying ? "retrying" : ""),
    tile("Completed", stats.completed_last_hour, "in the last hour", address("/tasks", { status: "completed" }), "completed"),
    tile("Failed", stats.failed_last_hour, ended ? `${share(stats.failed_last_hour / ended)} of the last hour` : "in the last hour",
      address("/tasks", { status: "failed" }), stats.failed_last_hour ? "failed" : ""),
    causes ? tile("Dead letters", causes.total, causes.total ? "wait for somebody" : "none", "#/dead-letters", causes.total ? "failed" : "") : null,
    tile("Workers", stats.live_workers, silent ? `${number(silent)} silent` : count(slots, "slot"), null, stats.live_workers > silent ? "" : "failed"));
}

function tile(name, value, note, to, kind = "") {
  const inside = [h("span", { class: "name" }, name), h("span", { class: "value", title: number(value) }, short(value)), h("span", { class: "note" }, note)];
  return h("li", { class: `tile ${kind}`, "data-key": name }, to ? h("a", { href: to }, inside) : h("div", {}, inside));
}

function share(value) {
  if (value === 0) return "0 %";
  return value < 0.001 ? "< 0.1 %" : `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %`;
}

function charts(show) {
  const before = past.filter(({ time }) => time >= now() - SHOWN_SECONDS * 1000 && time < (seen[0]?.time ?? Infinity));
  const rates = (name) => [...before.map((point) => [point.time, point[name]]), ...seen.slice(SMOOTH).map((sample, place) => {
    const earlier = seen[place];
    return [sample.time, Math.max(0, sample[name] - earlier[name]) / ((sample.time - earlier.time) / 1000)];
  })];
  const opened = !seen.length || now() - seen[0].time < DRAWN_MS;
  const depths = (name) => seen.map((sample) => [sample.time, sample[name]]);
  const options = { seconds: SHOWN_SECONDS, now: now(), redraw: show };
  return [
    chart("Throughput", [
      { name: "completed", kind: "completed", points: rates("completed") }, { name: "failed", kind: "failed", points: rates("failed") },
    ], { ...options, write: (value) => `${rate(value)}/s`, pointer: pointers.throughput }),
    chart("Waiting", [
      { name: "ready", kind: "accent", points: depths("ready") }, { name: "running", kind: "running", points: depths("running") },
    ], { ...options, write: short, pointer: pointers.waiting, nothing: opened ? "Drawn from now on: how many wait is not kept." : null }),
  ];
}

function workerTable(workers) {
  const remembers = workers.some((worker) => worker.memory_bytes !== undefined);
  return table("Workers", [
    { name: "Worker", cell: (worker) => h("span", { class: "two" }, h("b", {}, worker.name), h("small", {}, `${worker.host}, pid ${worker.pid}`)) },
    { name: "State", cell: workerState },
    { name: "Serves", cell: (worker) => h("span", {}, worker.queues.length ? worker.queues.join(", ") : "every queue") },
    { name: "Slots", class: "number", cell: (worker) => [bar(worker.running.length / (worker.slots || 1), "running"), `${worker.running.length} of ${worker.slots}`] },
    { name: "Room for", cell: roomText },
    ...(remembers ? [{ name: "Memory", class: "number", cell: (worker) => (worker.memory_bytes ? bytes(worker.memory_bytes) : none()) }] : []),
    { name: "Runs now", class: "wide", cell: runsNow },
    { name: "Last beat", class: "number", cell: (worker) => when(worker.beat_at) },
    { name: "Up", class: "number", cell: (worker) => h("span", { title: worker.started_at }, duration(Math.floor(between(worker.started_at)))) },
  ], workers, (worker) => worker.id);
}

/** What it could still take: a plain executor has a whole runner, so slots say little. */
function roomText({ room }) {
  if (!room) return none();
  const kinds = ["plain", "shared"].filter((kind) => room[kind]);
  return h("small", {}, kinds.length ? kinds.map((kind) => `${number(room[kind])} ${kind}`).join(" or ") : "nothing more");
}

const WORKER_KINDS = { running: "completed", silent: "failed" };

function workerState({ state, beat_at: beatAt }) {
  const shown = badge(state, WORKER_KINDS[state] ?? "retrying");
  return state === "silent" ? h("span", { class: "two" }, shown, h("small", {}, `for ${age(between(beatAt))}`)) : shown;
}

function runsNow({ running }) {
  if (!running.length) return none();
  const shown = running.slice(0, 4).map((one) =>
    h("li", { "data-key": String(one.task_id) }, taskLink(one.task_id), " ", h("span", {}, one.task_type), " ", h("small", {}, duration(one.seconds))));
  const more = running.length - shown.length;
  return h("ul", { class: "plain" }, shown, more > 0 ? h("li", { class: "none" }, `and ${more} more`) : null);
}

function causeList({ total, items }) {
  if (!items.length) return empty("No failed task waits for anybody.");
  const most = Math.max(...items.map((group) => group.count));
  return [
    h("ol", { class: "causes" }, items.map((group) =>
      h("li", { "data-key": group.fingerprint + group.task_type },
        h("a", { href: address("/dead-letters", { fingerprint: group.fingerprint, task_type: group.task_type }) },
          h("span", { class: "two" }, h("b", { class: "free" }, group.error?.type ?? "No error"),
            h("small", { class: "free clip" }, group.error?.message ?? "It was not kept."))),
        h("span", { class: "type" }, group.task_type),
        h("span", { class: "amount" }, bar(group.count / most, "failed"), h("b", {}, short(group.count)), h("small", {}, ago(group.last_failed_at)))))),
    h("p", { class: "more" }, link("#/dead-letters", `All ${count(total, "dead letter")}`)),
  ];
}

function breakerTable(breakers, view) {
  if (!breakers.length) return empty("No executor declares a breaker.");
  const word = { closed: "completed", open: "failed", half_open: "retrying" };
  return table("Breakers", [
    { name: "Breaker", cell: (breaker) => h("span", { class: "two" }, h("b", {}, breaker.name), h("small", {}, breaker.task_types.join(", "))) },
    { name: "State", cell: (breaker) => h("span", { class: "two" }, badge(breaker.state.replace("_", " "), word[breaker.state]),
      breaker.reason && breaker.state !== "closed" ? h("small", { class: "free clip", title: breaker.reason }, breaker.reason) : null) },
    { name: "Waiting", class: "number", cell: (breaker) => number(breaker.waiting) },
    { name: "Open until", class: "number", cell: (breaker) => (breaker.open_until ? when(breaker.open_until) : none()) },
    { name: "Action", class: "number", cell: (breaker) => (breaker.state === "closed"
      ? button("Trip…", () => trip(breaker, view), "small", { "aria-label": `Trip breaker ${breaker.name}` })
      : button("Reset", () => reset(breaker, view), "small", { "aria-label": `Reset breaker ${breaker.name}` })) },
  ], breakers, (breaker) => breaker.name);
}

async function trip(breaker, view) {
  const answer = await ask({
    title: `Trip breaker ${breaker.name}?`,
    body: h("p", {}, `Tasks of ${breaker.task_types.join(", ") || "this dependency"} wait until it is reset or the time is over.`),
    confirm: "Trip it",
    danger: true,
    inputs: [
      { name: "reason", label: "Reason", required: true, longest: 500, hint: "For whoever wonders why tasks wait." },
      { name: "seconds", label: "Seconds", kind: "number", hint: "Left empty: until somebody resets it." },
    ],
  });
  if (answer === null) return;
  const done = `Breaker ${breaker.name} is open.`;
  await perform(() => service.tripBreaker(breaker.name, answer.reason, Number(answer.seconds)), done);
  view.refresh();
}

async function reset(breaker, view) {
  await perform(() => service.resetBreaker(breaker.name), `Breaker ${breaker.name} is closed.`);
  view.refresh();
}
