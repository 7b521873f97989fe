// Alerts: what fires now, what has, silences, and a test of the channels.

import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { count } from "./format.js";
import { badge, button, empty, link, none, pageHead, section, table, when } from "./parts.js";
import * as service from "./service.js";
import { Pages } from "./tasks.js";
import { perform, toast } from "./view.js";

const LOOK_SECONDS = 4;
const PAGE = 50;
const KINDS = { holding: "retrying", firing: "failed", cleared: "completed" };

export function alertsPage(view) {
  view.title("Alerts");
  const cursor = view.query.get("cursor");
  view.every(LOOK_SECONDS, async () => {
    const [alerts, silences, history] = await Promise.all([
      service.alerts(view.signal), service.silences(view.signal), service.alertHistory({ cursor, limit: PAGE }, view.signal),
    ]);
    if (!alerts) {
      view.show(pageHead("Alerts"), empty("This API key may not see the alerts."));
      return;
    }
    view.show(
      pageHead("Alerts", button("Silence…", () => silence(alerts.rules, view)), button("Test channels", () => test(view), "", { disabled: !alerts.channels.length })),
      h("p", { class: "lead", "data-key": "lead" }, alerts.channels.length
        ? `Told over ${alerts.channels.join(", ")}.` : "Nobody is told: no channel is set. ALERT_WEBHOOK_URL, ALERT_SLACK_URL and ALERT_MAIL_TO set one."),
      section("Now", alerts.items.length ? alertTable("Alerts now", alerts.items) : empty("Nothing is wrong by the rules of alerts.")),
      silences?.length ? section("Silences", silenceTable(silences, view)) : null,
      section("History", history?.items.length ? alertTable("Past alerts", history.items) : empty("No alert has fired."),
        history ? new Pages("/alerts", {}, cursor).links(history.next_cursor) : null),
      section("Rules", ruleTable(alerts.rules)));
  });
}

/** What fires now, null where nothing does. What diagnosis says about the same, in `findings`, is told along with it, once. */
export function firing(alerts, findings) {
  const items = alerts?.items.filter((alert) => alert.state === "firing") ?? [];
  if (!items.length) return null;
  return h("section", { class: "findings", "aria-label": "Alerts", "data-key": "alerts" },
    items.map((alert) => firingLine(alert, findings.find((finding) => isAbout(finding, alert)))),
    h("p", { class: "more" }, link("#/alerts", `All about ${count(items.length, "alert")}`)));
}

/** Whether an alert and a finding tell of one trouble: they are named alike, and the text names the subject, which may have
 * colons and full stops inside. */
function isAbout(finding, { rule, subject }) {
  const words = finding.what.split(/\s+/).map((word) => word.replace(/[.,:]+$/, ""));
  return finding.code === rule && (!subject || words.includes(subject));
}

/** The findings that no firing alert tells of. */
export function untold(findings, alerts) {
  const items = alerts?.items.filter((alert) => alert.state === "firing") ?? [];
  return findings.filter((finding) => !items.some((alert) => isAbout(finding, alert)));
}

function firingLine(alert, finding) {
  const told = [
    badge(alert.silenced ? "silenced" : "firing", alert.silenced ? "scheduled" : "failed"),
    h("span", { class: "free" }, alert.what), " ", h("small", {}, when(alert.fired_at)),
  ];
  const given = { class: `finding alert ${alert.severity}`, "data-key": String(alert.id) };
  return finding ? h("details", given, h("summary", {}, told), advice(finding)) : h("div", given, told);
}

/** Why a finding matters, and what to do. */
export function advice({ why, what_to_do: whatToDo }) {
  return [h("p", { class: "free" }, why), h("p", { class: "free" }, h("b", {}, "What to do: "), whatToDo)];
}

function alertTable(label, items) {
  return table(label, [
    { name: "State", class: "tight", cell: (alert) => h("span", { class: "status" }, badge(alert.state, KINDS[alert.state]), alert.silenced ? badge("silenced", "scheduled") : null) },
    { name: "Rule", cell: (alert) => h("span", { class: "two" }, h("b", {}, alert.rule), h("small", { class: "free" }, alert.subject)) },
    { name: "What", class: "wide", cell: (alert) => h("span", { class: "free" }, alert.what) },
    { name: "Since", class: "number", cell: (alert) => when(alert.fired_at ?? alert.began_at) },
    { name: "Cleared", class: "number", cell: (alert) => when(alert.cleared_at) },
    { name: "Told", cell: (alert) => told(alert.deliveries) },
  ], items, (alert) => alert.id);
}

function told(deliveries) {
  if (!deliveries.length) return none();
  return h("ul", { class: "plain" }, deliveries.map((one, place) =>
    h("li", { "data-key": String(place), title: one.error }, `${one.channel}: ${one.kind}`,
      one.state === "sent" ? null : h("small", { class: "free" }, ` ${one.state.replace("_", " ")}${one.error ? `, ${one.error}` : ""}`))));
}

function silenceTable(silences, view) {
  return table("Silences", [
    { name: "Rule", cell: (one) => one.rule ?? "any" },
    { name: "Queue", cell: (one) => one.queue ?? "any" },
    { name: "Note", class: "wide", cell: (one) => h("span", { class: "free" }, one.note) },
    { name: "By", cell: (one) => one.created_by || none() },
    { name: "Ends", class: "number", cell: (one) => when(one.ends_at) },
    { name: "Action", class: "number", cell: (one) => button("End", () => end(one, view), "small", { "aria-label": `End silence ${one.id}` }) },
  ], silences, (one) => one.id);
}

function ruleTable(rules) {
  return table("Rules", [
    { name: "Rule", cell: (rule) => h("b", {}, rule.name) },
    { name: "Fires when", class: "wide", cell: (rule) => rule.about },
    { name: "Severity", cell: (rule) => (rule.off ? badge("off", "cancelled") : badge(rule.severity, rule.severity === "critical" ? "failed" : "retrying")) },
  ], rules, (rule) => rule.name);
}

async function silence(rules, view) {
  const answer = await ask({
    title: "Silence alerts?",
    body: h("p", {}, `Nobody is told that such an alert fires; it is still shown here. Rules: ${rules.map((rule) => rule.name).join(", ")}.`),
    confirm: "Silence them",
    inputs: [
      { name: "rule", label: "Rule", hint: "Left empty: any." },
      { name: "queue", label: "Queue", hint: "Left empty: any." },
      { name: "minutes", label: "Minutes", kind: "number", required: true, value: "60" },
      { name: "note", label: "Note", required: true, longest: 500, hint: "For whoever wonders why nothing was told." },
    ],
  });
  if (answer === null) return;
  const chosen = Object.fromEntries(["rule", "queue"].map((name) => [name, answer[name].trim()]).filter(([, value]) => value));
  const wanted = Object.keys(chosen).length ? chosen : { all: true };
  await perform(() => service.silence({ ...wanted, seconds: Number(answer.minutes) * 60, note: answer.note }), "They are silent.");
  view.refresh();
}

async function end(one, view) {
  await perform(() => service.endSilence(one.id), "The silence is over.");
  view.refresh();
}

async function test(view) {
  try {
    for (const { channel, error } of (await service.testAlerts()).items) {
      toast(error ? `${channel}: ${error}` : `${channel} took the test.`, Boolean(error));
    }
  } catch (error) {
    toast(error.message, true);
  }
  view.refresh();
}
