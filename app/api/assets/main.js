// Which page is shown, and what stands around it: navigation, live or paused, signing in and out, the dialog about keys.

import { alertsPage } from "./alerts.js";
import { auditPage } from "./audit.js";
import { ask } from "./dialog.js";
import { deadLettersPage } from "./dead_letters.js";
import { h } from "./dom.js";
import { overviewPage } from "./overview.js";
import { queuesPage } from "./queues.js";
import { session, signIn, signOut } from "./service.js";
import { submitPage } from "./submit.js";
import { taskPage } from "./task.js";
import { tasksPage } from "./tasks.js";
import { webhookPage, webhooksPage } from "./webhooks.js";
import { View, failure, fill, live, perform, toast } from "./view.js";

const ROUTES = [
  [/^\/?$/, overviewPage, "/"],
  [/^\/tasks$/, tasksPage, "/tasks"],
  [/^\/tasks\/(\d{1,19})$/, taskPage, "/tasks"],
  [/^\/new$/, submitPage, "/new"],
  [/^\/dead-letters$/, deadLettersPage, "/dead-letters"],
  [/^\/queues$/, queuesPage, "/queues"],
  [/^\/webhooks$/, webhooksPage, "/webhooks"],
  [/^\/webhooks\/(\w{1,16})$/, webhookPage, "/webhooks"],
  [/^\/alerts$/, alertsPage, "/alerts"],
  [/^\/audit$/, auditPage, "/audit"],
];
const PAGES = [
  ["/", "Overview"], ["/tasks", "Tasks"], ["/dead-letters", "Dead letters"], ["/queues", "Queues"], ["/webhooks", "Webhooks"],
  ["/alerts", "Alerts"], ["/audit", "Audit"], ["/new", "New task"],
];
const SHORTCUTS = [
  ["g then o", "Overview"], ["g then t", "Tasks"], ["g then d", "Dead letters"], ["g then q", "Queues"], ["g then w", "Webhooks"],
  ["g then a", "Alerts"], ["g then l", "Audit log"], ["n", "New task"],
  ["/", "To the filters"], ["j and k", "Next and previous row"], ["p", "Pause or resume live updates"], ["?", "This list"],
];
const GO = { o: "#/", t: "#/tasks", d: "#/dead-letters", q: "#/queues", w: "#/webhooks", a: "#/alerts", l: "#/audit" };
const NO_SHORTCUTS = "no-shortcuts";

const main = document.getElementById("main");
let view = null;

function route() {
  const [path, query] = location.hash.slice(1).split(/\?(.*)/s);
  const [pattern, page, place] = ROUTES.find(([pattern]) => pattern.test(path)) ?? [/^/, missingPage, null];
  const first = view === null;
  view?.end();
  view = new View(main, new URLSearchParams(query ?? ""));
  main.replaceChildren();
  navigation(place);
  page(view, ...path.match(pattern).slice(1));
  if (!first) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

/** Ask first who is there: a page that asks in vain would put an error into the browser's console. */
async function start() {
  const { needed, key } = await session().catch(() => ({}));
  if (!(needed && !key && (await needSignIn()))) route();
}

function missingPage(view) {
  view.title("Not found");
  view.show(failure(new Error("There is no such page. The names of pages begin with #/ and stand in the navigation.")));
}

function navigation(place) {
  const links = PAGES.map(([path, name]) =>
    h("a", { href: `#${path}`, "aria-current": path === place ? "page" : null, class: path === "/new" ? "new" : null }, name));
  document.getElementById("pages").replaceChildren(...links);
}

function setLive(on) {
  live.on = on;
  showLive(true);
  document.dispatchEvent(new Event("live-changed"));
}

function showLive(answers, message = "") {
  const node = document.getElementById("live");
  node.setAttribute("aria-pressed", String(live.on));
  node.className = !answers ? "live away" : live.on ? "live" : "live paused";
  node.title = message || (live.on ? "Numbers are looked up all the time. Press to pause." : "Press to go on.");
  const word = !answers ? "No answer" : live.on ? "Live" : "Paused";
  if (node.querySelector(".word").textContent !== word) node.querySelector(".word").textContent = word;
}

/** Ask for a key until one is taken or nobody wants to; resolves to whether somebody signed in. */
async function askToSignIn(body) {
  const answer = await ask({
    title: "Sign in",
    body: h("p", {}, body),
    confirm: "Sign in",
    inputs: [{ name: "key", label: "API key", kind: "password", required: true, hint: "Sent once. The browser keeps a session in its place." }],
  });
  if (answer === null) return false;
  try {
    await signIn(answer.key.trim());
  } catch (error) {
    return askToSignIn(error.message);
  }
  route();
  return true;
}

async function leave() {
  if (!(await perform(signOut, "You are signed out."))) return;
  view?.end();
  main.replaceChildren();
  start();
}

let asked = false;

/** Whether somebody signed in now. Whoever says no is left alone: the dialog about keys leads there, too. */
async function needSignIn() {
  if (asked) return false;
  asked = true;
  asked = !(await askToSignIn("This service wants to know who you are."));
  return !asked;
}

document.addEventListener("sign-in-needed", needSignIn);
document.addEventListener("connection", ({ detail }) => showLive(detail.answers, detail.message));

function help() {
  const off = localStorage.getItem(NO_SHORTCUTS) !== null;
  const box = h("input", { type: "checkbox", id: "shortcuts-on", checked: !off });
  box.onchange = () => (box.checked ? localStorage.removeItem(NO_SHORTCUTS) : localStorage.setItem(NO_SHORTCUTS, "1"));
  const who = h("span");
  const dialog = h("dialog", { "aria-labelledby": "help-title" },
    h("h2", { id: "help-title" }, "Keyboard"),
    h("dl", { class: "keys" }, SHORTCUTS.map(([keys, what]) => h("div", {}, h("dt", {}, h("kbd", {}, keys)), h("dd", {}, what)))),
    h("p", { class: "check" }, box, h("label", { for: "shortcuts-on" }, "Single keys do this")),
    h("div", { class: "buttons" },
      h("a", { class: "button quiet", href: "/docs" }, "API documentation"),
      who,
      h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  session().then(({ needed, key }) => fill(who, needed ? whoButton(key, dialog) : null), () => {});
}

function whoButton(key, dialog) {
  const [word, then] = key ? [`Sign out ${key.name}`, leave] : ["Sign in…", () => askToSignIn("Nobody is signed in.")];
  return h("button", { type: "button", class: "quiet", onclick: () => { dialog.close(); then(); } }, word);
}

let before = "";

function pressed(event) {
  const typing = event.target.closest("input, textarea, select, dialog, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || localStorage.getItem(NO_SHORTCUTS) !== null) return;
  const key = event.key;
  const going = before === "g" && GO[key];
  before = key;
  if (going) location.hash = going;
  else if (key === "n") location.hash = "#/new";
  else if (key === "?") help();
  else if (key === "p") setLive(!live.on);
  else if (key === "/") main.querySelector(".filters input, .filters select")?.focus();
  else if (key === "j" || key === "k") toRow(key === "j" ? 1 : -1);
  else return;
  event.preventDefault();
}

function toRow(step) {
  const rows = [...main.querySelectorAll("tbody tr")];
  const present = rows.indexOf(document.activeElement?.closest("tr"));
  const wanted = rows[present === -1 ? (step > 0 ? 0 : rows.length - 1) : present + step];
  wanted?.querySelector("a, button")?.focus();
}

document.getElementById("live").onclick = () => {
  setLive(!live.on);
  toast(live.on ? "Live updates go on." : "Live updates are paused.");
};
document.getElementById("help").onclick = help;
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  main.focus();
};
addEventListener("keydown", pressed);
addEventListener("hashchange", route);
start();
