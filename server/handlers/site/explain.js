/* The explanation card: why an event has the score it has, and what it would take to be shown. The server says the components
 * and where the cut is; this file only puts them into words and a bar. */

import { stackedBar } from "./charts.js";
import { count, element, eventTime, exactTime, icon, metres, number, percent, score } from "./format.js";
import { REASONS } from "./panels.js";

const WEIGHTS = { time: 0.25, distance: 0.2, popularity: 0.3, recency: 0.15, confidence: 0.1 };
const TERMS = {
  time: { name: "Time", about: "how soon it starts" },
  distance: { name: "Distance", about: "how near the middle of the view" },
  popularity: { name: "Popularity", about: "scans, saves, RSVPs" },
  recency: { name: "Recency", about: "how new the entry is" },
  confidence: { name: "Confidence", about: "how sure its source is" },
};
// What one more of each adds to the raw score, and how many count (the score's own definition of popularity).
const COUNTERS = [
  { field: "rsvpCount", name: "RSVP", weight: 5, full: 3 },
  { field: "saveCount", name: "save", weight: 3, full: 5 },
  { field: "scanCount", name: "scan", weight: 1, full: 10 },
];
const GATES = { access: REASONS.hidden, status: "its status keeps it off the map", window: "it is outside the time window (24 h back, 30 days ahead)", viewport: "it is outside the view", filters: "the filters leave it out" };

export class Card {
  constructor({ client, closed }) {
    this.node = document.getElementById("card");
    this.client = client;
    this.closed = closed;
    this.event = null;
    this.explanation = null;
    this.node.addEventListener("keydown", ({ key }) => key === "Escape" && this.close());
  }

  get id() {
    return this.event?.id ?? null;
  }

  async open(event, { focus = true } = {}) {
    this.event = event;
    this.explanation = null;
    this.refusal = null;
    this.draw();
    this.node.hidden = false;
    if (focus) this.node.querySelector("h2").focus({ preventScroll: true });
    await this.refresh();
  }

  close() {
    if (this.node.hidden) return;
    this.node.hidden = true;
    this.event = null;
    this.closed();
  }

  /** Ask again; an answer for an event that is no longer shown is dropped. */
  async refresh(event = this.event) {
    if (event === null) return;
    this.event = event;
    const [explanation, refusal] = await this.client.explain(event.id).then((answer) => [answer, null], (error) => [this.explanation, error]);
    if (this.event?.id !== event.id) return;
    [this.explanation, this.refusal] = [explanation, refusal];
    this.draw();
  }

  draw() {
    const { event, explanation } = this;
    const focused = this.node.contains(document.activeElement) ? document.activeElement.dataset.keep : null;
    this.node.replaceChildren(head(event, () => this.close()), element("div", { class: "panel-body" },
      facts(event), this.refusal ? refusalWords(this.refusal) : null,
      ...(explanation ? explained(explanation, event) : [this.refusal ? null : element("p", { class: "faint" }, "Asking why…")])));
    if (focused) this.node.querySelector(`[data-keep="${focused}"]`)?.focus({ preventScroll: true });
  }
}

function head(event, close) {
  return element("div", { class: "panel-head card-head" },
    element("span", { class: "emoji big", "aria-hidden": "true" }, event.emoji || "📍"),
    element("div", { class: "card-title" }, element("h2", { id: "card-title", tabindex: "-1", "data-keep": "title" }, event.title ?? event.id),
      element("p", { class: "faint" }, [...(event.categories ?? [])].join(" · ") || "no category")),
    element("button", { class: "quiet only-icon", type: "button", "aria-label": "Close the explanation", "data-keep": "close", onclick: close }, icon("close")));
}

function facts(event) {
  const when = event.start ? element("time", { datetime: event.start, title: event.timezone ? `event’s own zone: ${event.timezone}` : null }, `${eventTime(event)} – ${exactTime(event.start)}`) : "no date";
  const state = [event.status === "PENDING" ? "pending" : null, event.isPrivate ? "private" : null, event.recurrence ? "recurring" : null].filter(Boolean).join(", ");
  return element("div", { class: "facts" }, element("p", {}, when), state ? element("p", { class: "faint" }, state) : null,
    element("p", {}, `${count(event.scanCount ?? 0, "scan")} · ${count(event.saveCount ?? 0, "save")} · ${count(event.rsvpCount ?? 0, "RSVP")}`));
}

function refusalWords(refusal) {
  const words = refusal.code === "not_found" ? "The server does not know this event any more, or you may not see it." : refusal.message;
  return element("p", { class: "form-error" }, icon("warn"), words);
}

function explained(explanation, event) {
  const components = explanation.components ?? {};
  const weights = { ...WEIGHTS, ...explanation.weights };
  const about = { distance: explanation.distanceKm === undefined ? null : metres(Math.round(explanation.distanceKm * 10) * 100) };
  const parts = Object.keys(TERMS).filter((name) => components[name] !== undefined && components[name] !== null)
    .map((name) => ({ name, component: components[name], weight: weights[name], value: components[name] * weights[name], about: about[name] }));
  return [verdict(explanation, event), stackedBar(parts, 1, `Raw score ${number3(explanation.raw)} of 1, made of five terms`), termTable(parts, explanation.raw)];
}

const number3 = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

function termTable(parts, raw) {
  const row = ({ name, component, weight, value, about }) => element("tr", {},
    element("th", { scope: "row", title: TERMS[name].about }, element("span", { class: `swatch term-${name}`, "aria-hidden": "true" }), TERMS[name].name, about ? element("span", { class: "faint" }, ` ${about}`) : null),
    element("td", {}, component.toFixed(2)), element("td", { class: "faint" }, `× ${percent(weight)}`), element("td", {}, number3(value)));
  return element("table", { class: "terms" }, element("caption", { class: "hidden-words" }, "The five terms of the score"),
    element("thead", { class: "hidden-words" }, element("tr", {}, ...["Term", "Value", "Weight", "Adds"].map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...parts.map(row)),
    element("tfoot", {}, element("tr", {}, element("th", { scope: "row" }, "Raw score"), element("td"), element("td"), element("td", {}, number3(raw)))));
}

function verdict(explanation, event) {
  const { inView, relativeScore, candidates } = explanation;
  const rank = explanation.rank ?? explanation.place;
  const place = `${explanation.rank ? "Rank" : "Place"} ${number(rank)}${candidates ? ` of ${number(candidates)}` : ""}`;
  const figure = element("span", { class: "verdict-score" }, inView && relativeScore !== undefined ? score(relativeScore) : "out");
  const words = inView ? [element("strong", {}, place), element("span", {}, "relative to what else is in view")] : [element("strong", {}, rank ? `${place}, not shown` : "Not shown"), element("span", {}, whyOut(explanation, event))];
  return element("div", { class: `verdict ${inView ? "in" : "out"}` }, figure, element("p", {}, ...words));
}

/** What keeps it out and what would let it in. */
function whyOut(explanation, event) {
  const gate = Object.keys(GATES).find((name) => explanation[name] === false);
  if (gate) return `Because ${GATES[gate]}.`;
  if (explanation.spacingNeighbour) return "A better event stands closer than the map’s spacing allows.";
  const { cut, raw } = explanation;
  if (!cut || raw === undefined || raw === null) return "It is below the last one shown.";
  const missing = cut.raw - raw;
  if (missing <= 0) return "It scores enough; the next batch lets it in.";
  const help = popularityFor(missing, event);
  return `It needs ${missing.toFixed(3)} more raw score to pass the last one shown (${number3(cut.raw)})${help ? `: ${help}` : ""}.`;
}

/** "for example 2 more RSVPs", when that alone is enough. */
function popularityFor(missing, event) {
  for (const { field, name, weight, full } of COUNTERS) {
    const room = full - Math.min(full, event[field] ?? 0);
    const needed = Math.floor(missing / ((WEIGHTS.popularity * weight) / 9 / full) + 1e-9) + 1;
    if (needed <= room) return `for example ${needed} more ${name}${needed === 1 ? "" : "s"}`;
  }
  return "more than popularity alone could bring";
}
