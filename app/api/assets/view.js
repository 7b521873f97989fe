// One page on the screen: what it shows, how often it looks again, and that it stops when another takes its place.

import { h, morph, morphChildren } from "./dom.js";
import { Unreachable } from "./service.js";

const SLOWEST_MS = 30_000;
const AGAIN_MS = 10_000;
/** What may mean that the page is not to be live any more, or is again. */
const AWAY = ["visibilitychange", "live-changed"];

/** Whether live updates go on. `document` hears "live-changed", and "connection" with whether the service answers. */
export const live = { on: true };

export class View {
  constructor(main, query) {
    this.query = query;
    this._main = main;
    this._ended = new AbortController();
    this._pokes = [];
  }

  /** Aborted when another page takes this one's place. */
  get signal() {
    return this._ended.signal;
  }

  end() {
    this._ended.abort();
  }

  /** Name the page. The caller shows a heading of its own. */
  title(text) {
    document.title = `${text} · Task service`;
  }

  /** Show these nodes, in place of those before: what is alike stays where it is. */
  show(...nodes) {
    if (this.signal.aborted) return;
    morphChildren(this._main, nodes.flat(Infinity).filter(Boolean));
  }

  /** Call `look` now and every so many seconds while the page is seen and live; more rarely while the service is away.
   *  `seconds` may be a function that says how many it is now. */
  every(seconds, look) {
    const usual = () => (typeof seconds === "function" ? seconds() : seconds) * 1000;
    let timer = null;
    let wait = usual();
    let turns = 0;
    const turn = async () => {
      clearTimeout(timer);
      const own = ++turns;
      wait = (await this._tried(look)) ? usual() : Math.min(SLOWEST_MS, wait * 2);
      if (own === turns && !this.signal.aborted) timer = setTimeout(rest, wait);
    };
    const rest = () => {
      if (live.on && !document.hidden) turn();
      else timer = setTimeout(rest, 500);
    };
    const seen = () => live.on && !document.hidden && turn();
    this._pokes.push(turn);
    for (const event of AWAY) document.addEventListener(event, seen, { signal: this.signal });
    this.signal.addEventListener("abort", () => clearTimeout(timer));
    return turn();
  }

  /** Call `listen(signal)`, which returns when there is nothing more to hear or throws, again and again while the page is seen
   *  and live; not any more once it returns null. `ended` is called after each time. */
  async follow(listen, ended) {
    while (!this.signal.aborted) {
      if (!live.on || document.hidden) {
        await new Promise((done) => setTimeout(done, 500));
        continue;
      }
      const away = new AbortController();
      const leave = () => (!live.on || document.hidden) && away.abort();
      for (const event of AWAY) document.addEventListener(event, leave);
      const heard = await listen(AbortSignal.any([this.signal, away.signal])).catch((error) => (error.status === 403 ? null : true));
      for (const event of AWAY) document.removeEventListener(event, leave);
      ended();
      if (heard === null) return;
      if (!away.signal.aborted) await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }

  /** Look again now, for what an action has changed. */
  async refresh() {
    await Promise.all(this._pokes.map((poke) => poke()));
  }

  async _tried(look) {
    try {
      await look();
      tellConnection(true);
      return true;
    } catch (error) {
      if (this.signal.aborted) return true;
      tellConnection(!(error instanceof Unreachable), error.message);
      if (!this._main.firstElementChild) this.show(failure(error));
      if (!(error instanceof Unreachable) && error.status === undefined) console.error(error);
      return false;
    }
  }
}

function tellConnection(answers, message) {
  document.dispatchEvent(new CustomEvent("connection", { detail: { answers, message } }));
}

/** What is shown in place of a page that cannot be. */
export function failure(error) {
  return h("section", { class: "notice bad" }, h("h1", { tabindex: -1 }, "This cannot be shown"), h("p", {}, error.message));
}

/** Say something to those who cannot see it change. */
export function announce(text) {
  const place = document.getElementById("announce");
  place.append(h("p", {}, text));
  while (place.childElementCount > 5) place.firstElementChild.remove();
}

/** Say for a few seconds how an action ended. */
export function toast(text, bad = false) {
  const node = h("p", { class: bad ? "toast bad" : "toast" }, text);
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => node.remove() }, "×");
  node.append(close);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), bad ? 12_000 : 6000);
}

/** Do what somebody asked for, and say how it ended: `done` is said, or what went wrong. Returns whether it worked. */
export async function perform(work, done) {
  try {
    const result = await work();
    toast(typeof done === "function" ? done(result) : done);
    return true;
  } catch (error) {
    toast(error.message, true);
    return false;
  }
}

/** Replace the content of one node. */
export function fill(node, ...nodes) {
  morphChildren(node, nodes.flat(Infinity).filter(Boolean));
}

export { morph };
