// Webhooks: who is told of which ends, how each receiver is, what was delivered; create, switch on, try out, repeat.

import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { duration } from "./format.js";
import { address, badge, button, empty, link, none, pageHead, section, table, taskLink, when } from "./parts.js";
import * as service from "./service.js";
import { Pages } from "./tasks.js";
import { perform } from "./view.js";

const LOOK_SECONDS = 4;
const PAGE = 50;
const LISTS = [
  { name: "events", label: "Ends", hint: "completed, failed, cancelled. Empty for all." },
  { name: "task_types", label: "Task types", hint: "Empty for all." },
  { name: "queues", label: "Queues", hint: "Empty for all." },
  { name: "tags", label: "Tags", hint: "A task with one of them fits. Empty for all." },
  { name: "secrets", label: "Secrets", hint: "One or two names of secrets of the workers. Empty for WEBHOOK_SECRETS." },
];
const EVENTS = ["completed", "failed", "cancelled"];

export function webhooksPage(view) {
  view.title("Webhooks");
  view.every(LOOK_SECONDS, async () => {
    const webhooks = await service.webhooks(view.signal);
    if (webhooks === null) {
      view.show(pageHead("Webhooks"), empty("This service has no webhooks, or this API key may not see them."));
      return;
    }
    view.show(pageHead("Webhooks", button("New webhook…", () => askForNew(view), "primary")),
      webhooks.length ? webhookTable(webhooks, view) : empty("Nobody is told of what ends."));
  });
}

export function webhookPage(view, id) {
  view.title("Webhook");
  const cursor = view.query.get("cursor");
  view.every(LOOK_SECONDS, async () => {
    const [webhook, page] = await Promise.all([
      service.webhook(id, view.signal), service.deliveries(id, { cursor, limit: PAGE }, view.signal),
    ]);
    view.show(pageHead("Webhook"), webhookTable([webhook], view),
      section("Deliveries", page.items.length ? deliveryTable(webhook, page.items, view) : empty("Nothing was sent to it yet."),
        new Pages(`/webhooks/${id}`, {}, cursor).links(page.next_cursor)));
  });
}

function webhookTable(webhooks, view) {
  return table("Webhooks", [
    { name: "Receiver", class: "wide", cell: (webhook) => [link(address(`/webhooks/${webhook.id}`), h("b", { class: "free clip" }, webhook.url)), webhook.description ? h("small", { class: "free" }, webhook.description) : null] },
    { name: "State", cell: state },
    { name: "Told of", class: "words", cell: (webhook) => h("small", { class: "free" }, filterText(webhook)) },
    { name: "Signed with", class: "words", cell: (webhook) => (webhook.secrets.length ? h("small", { class: "free" }, webhook.secrets.join(", ")) : none()) },
    { name: "Tenant", cell: (webhook) => webhook.tenant ?? none() },
    { name: "Last trouble", class: "wide", cell: (webhook) => trouble(webhook) },
    { name: "Action", class: "number", cell: (webhook) => actions(webhook, view) },
  ], webhooks, (webhook) => webhook.id);
}

function state(webhook) {
  if (webhook.enabled) return webhook.failures ? badge(`${webhook.failures} failed`, "retrying") : badge("on", "completed");
  return webhook.switched_off_reason ? badge("dead", "failed") : badge("off", "cancelled");
}

function trouble(webhook) {
  const text = webhook.switched_off_reason ?? webhook.last_error;
  return text ? [h("span", { class: "free clip" }, text), h("small", {}, when(webhook.switched_off_at ?? webhook.failing_since))] : none();
}

function filterText(webhook) {
  const events = webhook.events.length === EVENTS.length ? "all ends" : webhook.events.join(", ");
  const filters = LISTS.slice(1, 4).filter(({ name }) => webhook[name].length).map(({ name, label }) => `${label.toLowerCase()}: ${webhook[name].join(", ")}`);
  return [events, ...filters].join("; ");
}

function actions(webhook, view) {
  const named = (what) => ({ "aria-label": `${what} webhook ${webhook.url}` });
  return h("span", { class: "buttons" },
    button("Test", () => act(() => service.testWebhook(webhook.id), "A test was sent; its delivery says what came of it.", view), "small", named("Test")),
    webhook.enabled
      ? button("Switch off", () => act(() => service.editWebhook(webhook.id, { enabled: false }), "It is switched off.", view), "small", named("Switch off"))
      : button("Switch on", () => act(() => service.editWebhook(webhook.id, { enabled: true }), "It is switched on.", view), "small", named("Switch on")),
    button("Delete…", () => askToDelete(webhook, view), "small danger", named("Delete")));
}

async function act(work, done, view) {
  await perform(work, done);
  view.refresh();
}

async function askForNew(view) {
  const answer = await ask({
    title: "New webhook",
    body: h("p", {}, "It is told of every task that ends from now on and fits, by a signed POST."),
    confirm: "Create it",
    inputs: [
      { name: "url", label: "URL", required: true, longest: 2048 },
      { name: "description", label: "Description", longest: 200 },
      ...LISTS.map((one) => ({ ...one, hint: `${one.hint} Commas between.` })),
    ],
  });
  if (answer === null) return;
  const given = Object.fromEntries(LISTS.map(({ name }) => [name, words(answer[name])]).filter(([, list]) => list.length));
  const description = answer.description.trim();
  const asked = { url: answer.url.trim(), ...given, ...(description ? { description } : {}) };
  await act(() => service.createWebhook(asked), "It is told from now on.", view);
}

function words(text) {
  return text.split(/[,\s]+/).filter(Boolean);
}

async function askToDelete(webhook, view) {
  const answer = await ask({
    title: "Delete this webhook?",
    body: [h("p", { class: "free" }, webhook.url), h("p", {}, "Nothing new is told to it. What ended before is delivered still.")],
    confirm: "Delete it",
    danger: true,
  });
  if (answer === null) return;
  if (await perform(() => service.deleteWebhook(webhook.id), "It is deleted.")) location.hash = address("/webhooks");
  view.refresh();
}

function deliveryTable(webhook, deliveries, view) {
  return table("Deliveries", [
    { name: "Delivery", class: "tight", cell: (one) => taskLink(one.task_id) },
    { name: "Event", cell: (one) => one.event },
    { name: "Task", class: "tight", cell: (one) => (one.subject_id ? taskLink(one.subject_id) : none()) },
    { name: "Status", cell: (one) => badge(one.status) },
    { name: "Attempts", class: "number", cell: (one) => `${one.attempts} of ${one.max_attempts}` },
    { name: "Answer", class: "number", cell: (one) => one.status_code ?? none() },
    { name: "Took", class: "number", cell: (one) => (one.duration_seconds === null ? none() : duration(one.duration_seconds)) },
    { name: "Sent", class: "number", cell: (one) => when(one.attempted_at) },
    { name: "Next", class: "number", cell: (one) => when(one.next_attempt_at) },
    { name: "Error", class: "wide", cell: (one) => (one.error ? h("span", { class: "free clip" }, one.error) : none()) },
    { name: "Action", class: "number", cell: (one) => (one.finished_at
      ? button("Redeliver", () => act(() => service.redeliver(webhook.id, one.task_id), "It is sent once more.", view), "small", { "aria-label": `Redeliver ${one.task_id}` })
      : none()) },
  ], deliveries, (one) => one.task_id);
}
