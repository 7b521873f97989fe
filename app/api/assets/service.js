// Every call of the public API that the dashboard makes; nothing else here speaks HTTP.

import { noteClock } from "./format.js";

const LONGEST_MS = 20_000;
const SAFE = ["GET", "HEAD"];

/** The service refused: `status`, and `errors` with a location for each fault. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `The service answered ${status}.`);
    this.status = status;
    this.errors = body?.errors ?? [];
  }
}

/** The service did not answer. */
export class Unreachable extends Error {}

/** Who is signed in: `{needed, key: {name, scopes, tenant} | null, ends_at}`. The browser keeps the session as a cookie that no
 *  script can read; a key is sent once and kept nowhere. */
export const session = (signal) => read("/session", { signal });

export async function signIn(key) {
  forget();
  return send("POST", "/session", { body: { key } });
}

export async function signOut() {
  forget();
  await send("DELETE", "/session");
}

function forget() {
  refused.clear();
}

/** Integers that a double cannot hold keep their digits. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    const lossy = typeof value === "number" && Math.abs(value) > Number.MAX_SAFE_INTEGER;
    return lossy && /^-?\d+$/.test(context?.source ?? "") && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
  });
}

async function ask(method, path, { query, body, form, headers = {}, signal, patient } = {}) {
  const sent = new Headers(headers);
  // Says that a page of this service asks: no other may send it.
  if (!SAFE.includes(method)) sent.set("X-Same-Origin", "1");
  if (body !== undefined) sent.set("Content-Type", "application/json");
  const signals = [signal, patient ? null : AbortSignal.timeout(LONGEST_MS)].filter(Boolean);
  let response;
  try {
    response = await fetch(path + asked(query), {
      method,
      headers: sent,
      body: form ?? (body === undefined ? undefined : JSON.stringify(body)),
      signal: signals.length ? AbortSignal.any(signals) : undefined,
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable("The service does not answer.");
  }
  const date = Date.parse(response.headers.get("Date"));
  if (date) noteClock(date);
  if (response.ok) return response;
  if (response.status === 401 && path !== "/session") document.dispatchEvent(new Event("sign-in-needed"));
  throw new Problem(response.status, await response.json().catch(() => null));
}

function asked(query) {
  const pairs = Object.entries(query ?? {}).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const given = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

async function read(path, options) {
  return parse(await (await ask("GET", path, options)).text());
}

async function send(method, path, options) {
  const text = await (await ask(method, path, options)).text();
  return text ? parse(text) : null;
}

const refused = new Set();

/** What the call gives; null where this key may not see it, which is asked once only. */
async function allowed(path, signal, query) {
  const call = query ? `${path}?` : path;
  if (refused.has(call)) return null;
  try {
    return await read(path, { query, signal });
  } catch (error) {
    if (error.status !== 403) throw error;
    refused.add(call);
    return null;
  }
}

export const stats = (signal) => allowed("/stats", signal);
/** The numbers of a time that is over. */
export const statsBetween = (query, signal) => allowed("/stats", signal, query);
export const queues = async (signal) => (await allowed("/queues", signal))?.items ?? null;
export const workers = async (signal) => (await allowed("/workers", signal))?.items ?? null;
export const breakers = async (signal) => (await allowed("/breakers", signal))?.items ?? null;
export const diagnosis = (signal) => allowed("/diagnosis", signal);
export const taskTypes = async (signal) => (await read("/task-types", { signal })).items;

export const alerts = (signal) => allowed("/alerts", signal);
export const alertHistory = (query, signal) => allowed("/alerts/history", signal, query);
export const silences = async (signal) => (await allowed("/alerts/silences", signal))?.items ?? null;
export const silence = (asked) => send("POST", "/alerts/silences", { body: asked });
export const endSilence = (id) => send("DELETE", `/alerts/silences/${id}`);
/** Each channel may take its time. */
export const testAlerts = () => send("POST", "/alerts/test", { patient: true });

export const auditLog = (query, signal) => allowed("/audit", signal, query);

export const editQueue = (name, changes) => send("PATCH", `/queues/${encodeURIComponent(name)}`, { body: changes });
export const tripBreaker = (name, reason, seconds) =>
  send("POST", `/breakers/${encodeURIComponent(name)}/trip`, { body: seconds ? { reason, seconds } : { reason } });
export const resetBreaker = (name) => send("POST", `/breakers/${encodeURIComponent(name)}/reset`);

export const webhooks = async (signal) => (await allowed("/webhooks", signal))?.items ?? null;
export const webhook = (id, signal) => read(`/webhooks/${encodeURIComponent(id)}`, { signal });
export const deliveries = (id, query, signal) => read(`/webhooks/${encodeURIComponent(id)}/deliveries`, { query, signal });
export const createWebhook = (asked) => send("POST", "/webhooks", { body: asked });
export const editWebhook = (id, changes) => send("PATCH", `/webhooks/${encodeURIComponent(id)}`, { body: changes });
export const deleteWebhook = (id) => send("DELETE", `/webhooks/${encodeURIComponent(id)}`);
export const testWebhook = (id) => send("POST", `/webhooks/${encodeURIComponent(id)}/test`);
export const redeliver = (id, delivery) =>
  send("POST", `/webhooks/${encodeURIComponent(id)}/deliveries/${delivery}/redeliver`);

export const tasks = (query, signal) => read("/tasks", { query, signal });
export const task = (id, signal) => read(`/tasks/${id}`, { signal });
export const attempts = async (id, signal) => (await read(`/tasks/${id}/attempts`, { signal })).items;
export const logs = async (id, signal) => (await read(`/tasks/${id}/logs`, { signal })).items;
export const taskFiles = async (id, signal) => (await read(`/tasks/${id}/files`, { signal })).items;
export const explain = (id, signal) => read(`/tasks/${id}/explain`, { signal });
export const submit = (submission, key) =>
  send("POST", "/tasks", { body: submission, headers: { "Idempotency-Key": key } });
export const cancel = (id) => send("POST", `/tasks/${id}/cancel`);
export const retry = (id) => send("POST", `/tasks/${id}/retry`);
export const remove = (id) => send("DELETE", `/tasks/${id}`);

export const deadLetters = (query, signal) => read("/dead-letters", { query, signal });
export const deadLetterGroups = (query, signal) => read("/dead-letters/groups", { query, signal });
/** The largest groups, for a glance. */
export const causes = (many, signal) => allowed("/dead-letters/groups", signal, { limit: many });
/** `action` is requeue, resolve or purge; the answer says what was done, or with `dry_run` what would be. */
export const actOnDeadLetters = (action, selection) => send("POST", `/dead-letters/${action}`, { body: selection });

/** A file's bytes, as a Blob of the given type: never of one that its sender chose. */
export async function fileContent(id, type, signal) {
  const response = await ask("GET", `/files/${encodeURIComponent(id)}`, { signal, patient: true });
  return new Blob([await response.arrayBuffer()], { type });
}

export function upload(file) {
  const form = new FormData();
  form.append("file", file);
  return send("POST", "/files", { form, patient: true });
}

/** Tell each version of a task, without payload and result, until it has ended or was deleted (null); and lines of its
 *  attempts behind `readTo` ("lease.number"). */
export function watchTask(id, readTo, tell, tellLog, signal) {
  const heard = { task: tell, deleted: () => tell(null), log: tellLog };
  return follow(`/tasks/${id}/events`, { query: { logs: true }, headers: { "Last-Event-ID": readTo }, signal }, heard);
}

/** Tell the numbers of the overview, with their id, whenever they change; `seen` is the id of what was told last, null if
 *  nothing was. `opened` is called when the stream is there. */
export function watchOverview(seen, opened, tell, signal) {
  const headers = seen === null ? {} : { "Last-Event-ID": seen };
  return follow("/events", { headers, signal }, { opened, overview: tell });
}

/** A stream over fetch, because an EventSource does not tell why it was refused. `heard` has what to call with the data of
 *  each kind of event, and its id; `opened` is called first. Returns true when the stream ends. */
async function follow(path, options, heard) {
  const response = await ask("GET", path, { ...options, patient: true });
  heard.opened?.();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return true;
    const events = (rest + value).split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const event of events) tellEvent(event, heard);
  }
}

function tellEvent(event, heard) {
  const lines = event.split(/\r?\n/);
  const kind = lines.find((line) => line.startsWith("event:"))?.slice(6).trim();
  const text = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
  const id = lines.find((line) => line.startsWith("id:"))?.slice(3).trim();
  if (text) heard[kind]?.(parse(text), id);
}
