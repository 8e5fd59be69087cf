/* The filters form: what the person chose, as the protocol's filters list, as a badge, and in the page's address, so that a
 * link shows the same view. All fields of the form are one filter (AND). */

import { element, icon, metres, setText } from "./format.js";

const TYPING_MS = 250;
const MAX_CHIPS = 16;
const RADIUS_MIN = 200;
const RADIUS_MAX = 2_000_000;
const STEP_WORDS = { any: "any", only: "only these", not: "not these" };
const NEXT = { any: "only", only: "not", not: "any" };

/** The slider is logarithmic: 0 is 200 m, 100 is 2,000 km; two digits are enough. */
const radiusOf = (position) => {
  const exact = RADIUS_MIN * (RADIUS_MAX / RADIUS_MIN) ** (position / 100);
  const digits = 10 ** (Math.floor(Math.log10(exact)) - 1);
  return Math.round(exact / digits) * digits;
};

const positionOf = (radius) => Math.round((100 * Math.log(radius / RADIUS_MIN)) / Math.log(RADIUS_MAX / RADIUS_MIN));

export class Filters {
  constructor({ changed, centre }) {
    this.form = document.getElementById("filters-body");
    this.fields = this.form.elements;
    this.changed = changed;
    this.centre = centre;
    this.categories = new Map();
    this.place = null;
    this.read();
    this.form.addEventListener("submit", (happening) => happening.preventDefault());
    this.form.addEventListener("input", ({ target }) => this.edited(target));
    document.getElementById("near-here").addEventListener("click", () => this.moveHere());
    document.getElementById("filters-clear").addEventListener("click", () => this.clear());
    this.drawWords();
    this.drawCategories();
  }

  get max() {
    return Number(this.fields.max.value);
  }

  /** The circle to draw on the map, or null. */
  get circle() {
    return this.fields.near.checked ? { ...this.place, radius: radiusOf(Number(this.fields.radius.value)) } : null;
  }

  /** The list that the server wants: empty when nothing is chosen. */
  get value() {
    const filter = {};
    const { text, start, end } = this.fields;
    if (text.value.trim()) filter.text = text.value.trim();
    if (start.value || end.value) filter.dateRange = { ...(start.value && { start: start.value }), ...(end.value && { end: end.value }) };
    const [include, exclude] = [this.chosen("only"), this.chosen("not")];
    if (include.length + exclude.length > 0) filter.categories = { ...(include.length && { include }), ...(exclude.length && { exclude }) };
    if (this.statuses.length > 0) filter.status = this.statuses;
    if (this.circle) filter.location = this.circle;
    return Object.keys(filter).length > 0 ? [filter] : [];
  }

  get statuses() {
    return Array.from(this.form.querySelectorAll("[name=status]:checked"), ({ value }) => value);
  }

  chosen(state) {
    return Array.from(this.categories).filter(([, chosen]) => chosen === state).map(([name]) => name);
  }

  edited(target) {
    if (target === this.fields.near && target.checked) this.place = this.centre();
    this.drawWords();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tell(), ["search", "range", "date"].includes(target.type) ? TYPING_MS : 0);
  }

  moveHere() {
    this.place = this.centre();
    this.tell();
  }

  tell() {
    this.drawWords();
    this.write();
    this.changed();
  }

  clear() {
    const max = this.fields.max.value;
    this.form.reset();
    this.fields.max.value = max;
    for (const name of this.categories.keys()) this.categories.set(name, "any");
    this.drawCategories();
    this.tell();
  }

  /** Offer the categories of these events, keeping what was offered and chosen before. */
  offer(events) {
    const seen = new Map();
    for (const { categories = [] } of events) for (const name of categories ?? []) seen.set(name, (seen.get(name) ?? 0) + 1);
    const fresh = Array.from(seen).sort(([a, n], [b, m]) => m - n || a.localeCompare(b)).map(([name]) => name).filter((name) => !this.categories.has(name));
    const room = Math.max(0, MAX_CHIPS - this.categories.size);
    if (fresh.length === 0 || room === 0) return;
    for (const name of fresh.slice(0, room)) this.categories.set(name, "any");
    this.drawCategories();
  }

  drawCategories() {
    const box = document.getElementById("categories");
    if (this.categories.size === 0) return;
    box.replaceChildren(...Array.from(this.categories, ([name, state]) => this.chip(name, state)));
  }

  chip(name, state) {
    const words = element("span", {}, name);
    const picture = { any: null, only: icon("check"), not: icon("minus") }[state];
    const chip = element("button", { class: "chip", type: "button", "data-state": state, "aria-label": `${name}: ${STEP_WORDS[state]}`, title: "Click: only these, then not these, then any" }, picture, words);
    chip.addEventListener("click", () => {
      const next = NEXT[this.categories.get(name)];
      this.categories.set(name, next);
      const fresh = this.chip(name, next);
      chip.replaceWith(fresh);
      fresh.focus();
      this.tell();
    });
    return chip;
  }

  drawWords() {
    const { near, radius } = this.fields;
    document.getElementById("near").hidden = !near.checked;
    setText(document.getElementById("radius-words"), metres(radiusOf(Number(radius.value))));
    const [filter = {}] = this.value;
    const active = Object.keys(filter).length;
    const badge = document.getElementById("filters-count");
    badge.hidden = active === 0;
    setText(badge, `${active} on`);
    document.getElementById("filters-clear").hidden = active === 0;
  }

  // ---- the address ------------------------------------------------------------------------------------------------

  write() {
    const query = new URLSearchParams();
    const { text, start, end } = this.fields;
    for (const [name, value] of [["text", text.value.trim()], ["from", start.value], ["to", end.value]]) if (value) query.set(name, value);
    for (const [name, values] of [["only", this.chosen("only")], ["not", this.chosen("not")], ["status", this.statuses]]) for (const value of values) query.append(name, value);
    if (this.circle) query.set("near", [this.circle.latitude, this.circle.longitude, this.circle.radius].join(","));
    if (this.max !== 50) query.set("max", String(this.max));
    history.replaceState(null, "", `${location.pathname}${query.size > 0 ? `?${query}` : ""}${location.hash}`);
  }

  read() {
    const query = new URLSearchParams(location.search);
    const { text, start, end, near, radius, max } = this.fields;
    [text.value, start.value, end.value] = [query.get("text") ?? "", query.get("from") ?? "", query.get("to") ?? ""];
    for (const box of this.form.querySelectorAll("[name=status]")) box.checked = query.getAll("status").includes(box.value);
    for (const name of query.getAll("only")) this.categories.set(name, "only");
    for (const name of query.getAll("not")) this.categories.set(name, "not");
    if (Array.from(max.options).some(({ value }) => value === query.get("max"))) max.value = query.get("max");
    const [latitude, longitude, metresAway] = (query.get("near") ?? "").split(",").map(Number);
    if (!(metresAway >= RADIUS_MIN)) return;
    this.place = { latitude, longitude };
    [near.checked, radius.value] = [true, positionOf(metresAway)];
  }
}
