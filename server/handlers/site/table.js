/* A table that sorts, filters, pages by cursor, keeps its state in the address, and copies as CSV. Rows are given at once
 * (`setRows`) or fetched a page at a time (`load`). Every action works from the keyboard; an empty table says how to fill it.
 *
 * columns: [{key, name, type?: "number" | "text" | "time", format?(value, row) -> text or Node, exact?(value) -> text for hover}]
 * load({cursor, sort, descending, filter}) -> {rows, next}: sorting and filtering are then the server's.
 */

import { element, exactTime, icon, relativeTime } from "./format.js";
import { notify } from "./shell.js";

const TYPING_MS = 200;

export class Table {
  constructor(place, { caption, columns, load = null, name = null, sort = null, descending = true, filterable = true, empty = "Nothing here yet.", max = 500 }) {
    Object.assign(this, { place, caption, columns, load, name, filterable, empty, max });
    this.rows = [];
    this.next = null;
    this.state = { sort: sort ?? columns[0].key, descending, filter: "", ...this.readAddress() };
    this.build();
  }

  build() {
    this.head = element("tr");
    this.body = element("tbody");
    this.status = element("p", { class: "faint table-status", role: "status" });
    this.more = element("button", { type: "button", class: "small", hidden: true, onclick: () => this.fetch(this.next) }, "More");
    const search = element("input", { type: "search", "aria-label": `Filter ${this.caption}`, placeholder: "Filter", value: this.state.filter, oninput: ({ target }) => this.typed(target.value) });
    const copy = element("button", { type: "button", class: "small", onclick: () => this.copy() }, icon("copy"), "Copy as CSV");
    this.place.replaceChildren(element("div", { class: "table-tools" }, this.filterable ? search : null, copy),
      element("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": this.caption }, element("table", { class: "table" }, element("caption", { class: "hidden-words" }, this.caption), element("thead", {}, this.head), this.body)),
      this.status, this.more);
    this.drawHead();
    if (this.load) this.fetch(null);
    else this.draw();
  }

  setRows(rows) {
    this.rows = rows;
    this.draw();
  }

  typed(filter) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.change({ filter }), TYPING_MS);
  }

  change(state) {
    Object.assign(this.state, state);
    this.writeAddress();
    this.drawHead();
    if (this.load) this.fetch(null);
    else this.draw();
  }

  /** Get a page; `null` starts anew. An answer that comes after a newer question is dropped. */
  async fetch(cursor) {
    const question = (this.question = Symbol("question"));
    this.status.textContent = "Loading…";
    try {
      const { rows, next } = await this.load({ ...this.state, cursor });
      if (this.question !== question) return;
      this.rows = cursor === null ? rows : [...this.rows, ...rows];
      this.next = next ?? null;
      this.draw();
    } catch (refusal) {
      if (this.question === question) this.status.textContent = `${refusal.message} Nothing was changed; try again.`;
    }
  }

  /** The rows as shown: filtered and sorted here unless the server does it. */
  visible() {
    if (this.load) return this.rows;
    const words = this.state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (row) => this.columns.map(({ key }) => row[key]).join(" ").toLowerCase();
    const kept = this.rows.filter((row) => words.every((word) => text(row).includes(word)));
    return kept.sort((a, b) => compare(a[this.state.sort], b[this.state.sort]) * (this.state.descending ? -1 : 1));
  }

  drawHead() {
    const { sort, descending } = this.state;
    this.head.replaceChildren(...this.columns.map(({ key, name, type }) => {
      const order = key !== sort ? null : descending ? "descending" : "ascending";
      const flip = () => this.change({ sort: key, descending: key === sort ? !descending : type !== "text" });
      const arrow = order === null ? "" : descending ? " ↓" : " ↑";
      const cell = element("th", { scope: "col", class: type, "aria-sort": order }, element("button", { type: "button", onclick: flip }, name, element("span", { "aria-hidden": "true" }, arrow)));
      return cell;
    }));
    // Drawing the head again must not lose the place of someone who sorts by keyboard.
    if (document.activeElement === document.body && this.sorted) this.head.querySelector("[aria-sort] button")?.focus();
    this.sorted = true;
  }

  draw() {
    const rows = this.visible();
    this.body.replaceChildren(...rows.slice(0, this.max).map((row) => element("tr", {}, ...this.columns.map((column) => cell(column, row)))));
    const shown = Math.min(rows.length, this.max);
    this.status.textContent = rows.length === 0 ? this.empty : shown < rows.length ? `The first ${shown} of ${rows.length}; filter to see others.` : "";
    this.more.hidden = this.next === null;
  }

  async copy() {
    const lines = [this.columns.map(({ name }) => name), ...this.visible().map((row) => this.columns.map(({ key }) => row[key]))];
    await navigator.clipboard.writeText(lines.map((line) => line.map(quoted).join(",")).join("\r\n"));
    notify(`Copied ${lines.length - 1} rows of ${this.caption}.`);
  }

  // ---- the address: ?name.sort=key&name.filter=words ---------------------------------------------------------------

  readAddress() {
    if (this.name === null) return {};
    const query = new URLSearchParams(location.search);
    const [sort, filter] = [query.get(`${this.name}.sort`), query.get(`${this.name}.filter`)];
    const known = sort !== null && this.columns.some(({ key }) => key === sort.replace(/^-/, ""));
    return { ...(known && { sort: sort.replace(/^-/, ""), descending: sort.startsWith("-") }), ...(filter !== null && { filter }) };
  }

  writeAddress() {
    if (this.name === null) return;
    const query = new URLSearchParams(location.search);
    query.set(`${this.name}.sort`, `${this.state.descending ? "-" : ""}${this.state.sort}`);
    if (this.state.filter) query.set(`${this.name}.filter`, this.state.filter);
    else query.delete(`${this.name}.filter`);
    history.replaceState(null, "", `${location.pathname}?${query}${location.hash}`);
  }
}

function cell({ key, type, format, exact }, row) {
  const value = row[key];
  const content = format ? format(value, row) : type === "time" ? relativeTime(value) : String(value ?? "–");
  const hover = exact ? exact(value) : type === "time" && value ? exactTime(value) : null;
  return element("td", { class: type, title: hover }, content);
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

/** One field of RFC 4180; a text that a spreadsheet would run as a formula is defused. */
function quoted(value) {
  const text = String(value ?? "");
  const safe = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
