/* The ranked list and the list of what left. One row per event, kept and moved rather than made again, so that scroll, focus
 * and selection survive every batch. A listbox: one stop for Tab, arrows move, Enter explains. */

import { element, eventTime, exactTime, icon, number, score, setText, signed } from "./format.js";

const CHANGE_SHOWN_MS = 1400;
const DEPARTED_SHOWN = 4;
// Live figures change at most twice a second.
const GAP_MS = 500;

export const REASONS = { left_view: "outside the view", outranked: "outranked", filtered: "filtered out", ended: "ended", removed: "removed", hidden: "no longer visible to you" };

export class RankedList {
  constructor({ chosen, pointed }) {
    this.list = document.getElementById("ranking");
    this.badge = document.getElementById("events-count");
    this.chosen = chosen;
    this.rows = new Map();
    this.ranking = [];
    /** How many there are in view, when far more than are listed; else 0. */
    this.total = 0;
    this.changes = new Map();
    this.active = null;
    this.selected = null;
    this.drawnAt = -Infinity;
    this.timer = null;
    this.list.addEventListener("keydown", (happening) => this.key(happening));
    // Only for the keyboard: scrolling on the way from press to release would take the row from under the finger.
    this.list.addEventListener("focus", () => this.list.matches(":focus-visible") && this.activate(this.active ?? this.ranking[0]?.id));
    this.list.addEventListener("pointerdown", ({ target }) => (this.pressed = target.closest("li")?.dataset.id));
    // A batch may move rows between press and release; what was pressed is what was meant.
    this.list.addEventListener("click", ({ target }) => {
      this.choose(this.pressed ?? target.closest("li")?.dataset.id);
      this.pressed = undefined;
    });
    this.list.addEventListener("pointerover", ({ target }) => pointed(target.closest("li")?.dataset.id ?? null));
    this.list.addEventListener("pointerleave", () => pointed(null));
  }

  /** Show this ranking soon; `now` for what the person just did, else at most twice a second. */
  show(ranking, changes, { now = false } = {}) {
    this.ranking = ranking;
    for (const [id, change] of changes) this.changes.set(id, change);
    const wait = now ? 0 : Math.max(0, this.drawnAt + GAP_MS - performance.now());
    if (wait === 0) return this.draw();
    this.timer ??= setTimeout(() => this.draw(), wait);
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = null;
    this.drawnAt = performance.now();
    const present = new Set(this.ranking.map(({ id }) => id));
    for (const [id, row] of this.rows) if (!present.has(id)) this.remove(id, row);
    let place = this.list.firstElementChild;
    this.ranking.forEach((event, rank) => {
      const row = this.row(event, rank);
      if (row.node === place) place = place.nextElementSibling;
      else this.list.insertBefore(row.node, place);
    });
    this.changes.clear();
    setText(this.badge, number(this.ranking.length) + (this.total > 0 ? ` of ${number(this.total)}` : ""));
    if (this.active !== null && !present.has(this.active)) this.activate(null);
  }

  row(event, rank) {
    const row = this.rows.get(event.id) ?? this.make(event);
    setText(row.rank, String(rank + 1));
    setText(row.emoji, event.emoji || "📍");
    setText(row.title, event.title ?? event.id);
    setText(row.about, [eventTime(event), ...(event.categories ?? []).slice(0, 2)].join(" · "));
    setText(row.score, score(event.relevanceScore));
    row.about.title = event.start ? exactTime(event.start) : "";
    row.bar.style.width = `${Math.round((event.relevanceScore ?? 0) * 100)}%`;
    row.node.classList.toggle("pending", event.status === "PENDING");
    const change = this.changes.get(event.id);
    if (change) this.flash(row, change);
    return row;
  }

  make(event) {
    const part = (name, tag = "span") => element(tag, { class: name });
    const row = { rank: part("rank"), emoji: part("emoji"), title: part("title"), about: part("about"), score: part("score"), bar: part("score-fill"), change: part("change") };
    row.emoji.setAttribute("aria-hidden", "true");
    row.node = element("li", { role: "option", id: `row-${this.rows.size}-${Math.random().toString(36).slice(2, 8)}`, "data-id": event.id, "aria-selected": String(event.id === this.selected) },
      row.rank, row.emoji, element("span", { class: "words" }, row.title, row.about),
      element("span", { class: "figures-cell" }, row.change, row.score, element("span", { class: "score-bar", "aria-hidden": "true" }, row.bar)));
    this.rows.set(event.id, row);
    return row;
  }

  flash(row, change) {
    setText(row.change, signed(change));
    row.change.dataset.tone = change > 0 ? "up" : "down";
    clearTimeout(row.timer);
    row.timer = setTimeout(() => setText(row.change, ""), CHANGE_SHOWN_MS);
  }

  remove(id, row) {
    clearTimeout(row.timer);
    row.node.remove();
    this.rows.delete(id);
  }

  key(happening) {
    const index = this.ranking.findIndex(({ id }) => id === this.active);
    const page = Math.max(1, Math.floor(this.list.clientHeight / 48) - 1);
    const moves = { ArrowDown: index + 1, ArrowUp: index - 1, PageDown: index + page, PageUp: index - page, Home: 0, End: this.ranking.length - 1 };
    if (happening.key in moves && this.ranking.length > 0) {
      this.activate(this.ranking[Math.max(0, Math.min(this.ranking.length - 1, moves[happening.key]))].id);
    } else if (["Enter", " "].includes(happening.key) && this.active !== null) this.choose(this.active);
    else return;
    happening.preventDefault();
  }

  activate(id) {
    this.rows.get(this.active)?.node.classList.remove("active");
    this.active = id ?? null;
    const row = this.rows.get(this.active);
    if (row === undefined) return this.list.removeAttribute("aria-activedescendant");
    row.node.classList.add("active");
    row.node.scrollIntoView({ block: "nearest" });
    this.list.setAttribute("aria-activedescendant", row.node.id);
  }

  choose(id) {
    if (id === undefined) return;
    this.activate(id);
    this.chosen(id);
  }

  select(id) {
    this.rows.get(this.selected)?.node.setAttribute("aria-selected", "false");
    this.selected = id;
    this.rows.get(id)?.node.setAttribute("aria-selected", "true");
  }
}

/** The last few events that left without the person's doing, with the reason; a click explains them too. */
export class Departed {
  constructor({ chosen }) {
    this.section = document.getElementById("departed");
    this.list = this.section.querySelector("ul");
    this.chosen = chosen;
    this.all = [];
  }

  add(events, reasons) {
    const gone = events.map((event) => ({ event, reason: REASONS[reasons[event.id]] ?? "left" }));
    this.all = [...gone, ...this.all.filter(({ event }) => !gone.some((other) => other.event.id === event.id))].slice(0, DEPARTED_SHOWN);
    this.draw();
  }

  /** What came back is no longer gone. */
  returned(held) {
    const before = this.all.length;
    this.all = this.all.filter(({ event }) => !held.has(event.id));
    if (this.all.length !== before) this.draw();
  }

  clear() {
    this.all = [];
    this.draw();
  }

  draw() {
    this.section.hidden = this.all.length === 0;
    this.list.replaceChildren(...this.all.map(({ event, reason }) => element("li", {},
      element("button", { class: "departed-row", type: "button", onclick: () => this.chosen(event.id, event) },
        element("span", { class: "emoji", "aria-hidden": "true" }, event.emoji || "📍"), element("span", { class: "title" }, event.title ?? event.id), element("span", { class: "faint" }, reason)))));
  }
}

/** What stands in place of rows: loading, nothing here, nothing matches, no connection. */
export class ListState {
  constructor({ clearFilters, showWorld }) {
    this.node = document.getElementById("events-state");
    this.actions = { clearFilters, showWorld };
    this.shown = null;
  }

  show(kind) {
    if (kind === this.shown) return;
    this.shown = kind;
    this.node.hidden = kind === null;
    if (kind !== null) this.node.replaceChildren(...this[kind]());
  }

  loading() {
    return [element("p", {}, "Asking the server for this view…")];
  }

  lost() {
    return [icon("offline"), element("p", {}, "No connection yet."), element("p", { class: "faint" }, "This page keeps trying by itself. Is the server running? ", element("code", {}, "batchcast serve"))];
  }

  filtered() {
    return [icon("filter"), element("p", {}, "Nothing in this view matches the filters."), element("button", { type: "button", onclick: this.actions.clearFilters }, "Clear the filters")];
  }

  empty() {
    return [icon("globe"), element("p", {}, "No events in this view."), element("button", { type: "button", onclick: this.actions.showWorld }, "Show the whole world"),
      element("p", { class: "faint" }, "To fill the map: ", element("code", {}, "batchcast demo"), " brings a town to life, and ", element("code", {}, "POST /events"), " takes your own.")];
  }
}
