/* A table that sorts, filters, pages by cursor, keeps its state in the address, and copies as CSV. Rows are given at once
 * (`setRows`), fetched a page at a time (`load`), or changed one by one while they are looked at (`patch`). Every action works from
 * the keyboard; an empty table says how to fill it, one that could not be read says why and offers to try again.
 *
 * columns: [{key, name, type?: "number" | "text" | "words" (long, wraps) | "time", format?(value, row) -> text or Node, exact?(value, row) -> text for hover, csv?(value, row)}]
 * load({cursor, sort, descending, filter, ...choices}) -> {rows, next}: sorting and filtering are then the server's. With `sorts: false`
 *   the server only pages: what is loaded is sorted here, and the table says so while there is more. `searches`: the server filters.
 * ascends: the server knows rising order only.
 * choices: [{key, name, options: [[value, words]]}]: a select beside the filter, kept in the address like it.
 * stacks: on a phone each row is a card, its cells named, without the columns that say `phone: false`. A column with `once` is drawn when its row comes and never again.
 * id(row): rows keep their place, focus and selection while their content changes in place; without it they are drawn anew.
 * A choice with `accepts(value)` may also be what is not among its options, by the address or by `change`; `offer` gives it other ones.
 */

import { count, element, exactTime, icon, relativeTime, setText } from "./format.js";
import { api, notify, queryOf } from "./shell.js";

const TYPING_MS = 200;
const LOADED_MOST = 500;
const PAGE = 50;
/** Of what is loaded, so much is read again at once. */
export const REFRESHED_MOST = 500;
const FEW = 5;
const DEFAULTS = { name: null, filterable: true, empty: "Nothing here yet.", max: LOADED_MOST, id: null, stacks: false, ascends: false };

/** What a Table loads: `path`, a page at a time. `mark` is what the API calls the cursor, `name` the rows in its answer. */
export const paged = (path, name, { mark = "before", size = PAGE, query = () => ({}), row = (one) => one } = {}) => async function load(question) {
  const limit = question.cursor === null ? Math.min(REFRESHED_MOST, Math.max(size, this.rows.length)) : size;
  const answer = await api(`${path}${queryOf({ ...query(question), [mark]: question.cursor, limit })}`);
  return { rows: answer[name].map(row), next: answer.next ?? null };
};

export class Table {
  constructor(place, options) {
    const { load = null, columns, sort = null, descending = true, choices = [] } = options;
    const sorts = options.sorts ?? load !== null;
    Object.assign(this, { ...DEFAULTS, ...options, place, load, choices, sorts, searches: options.searches ?? sorts });
    this.rows = [];
    this.next = null;
    this.drawn = new Map();
    this.state = { sort, descending, filter: "", ...Object.fromEntries(choices.map(({ key }) => [key, ""])) };
    if (sort === null && load === null) this.state.sort = columns[0].key;
    this.initial = { ...this.state };
    Object.assign(this.state, this.readAddress());
    this.build();
  }

  build() {
    this.head = element("tr");
    this.body = element("tbody");
    this.status = element("div", { class: "faint table-status", role: "status" });
    this.more = element("button", { type: "button", class: "small table-more", hidden: true, onclick: () => this.fetch(this.next) }, "More");
    const verb = this.searches ? "Search" : "Filter";
    this.search = element("input", { type: "search", "aria-label": `${verb} ${this.caption}`, placeholder: verb, value: this.state.filter, oninput: ({ target }) => this.typed(target.value) });
    const copy = element("button", { type: "button", class: "small", onclick: () => this.copy() }, icon("copy"), "Copy as CSV");
    this.place.replaceChildren(element("div", { class: "table-tools" }, this.filterable ? this.search : null, ...this.choices.map((choice) => this.choice(choice)), copy),
      element("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": this.caption },
        element("table", { class: this.stacks ? "table stacks" : "table" }, element("caption", { class: "hidden-words" }, this.caption), element("thead", {}, this.head), this.body)),
      this.status, this.more);
    this.drawHead();
    if (this.load) this.fetch(null);
    else this.draw();
  }

  choice(choice) {
    const { key, name } = choice;
    return element("select", { "aria-label": `${name} of ${this.caption}`, "data-choice": key, onchange: ({ target }) => this.change({ [key]: target.value }) }, ...this.optionsOf(choice));
  }

  optionsOf({ key, options }) {
    const chosen = this.state[key];
    const all = options.some(([value]) => value === chosen) ? options : [...options, [chosen, chosen]];
    return all.map(([value, words]) => element("option", { value, selected: value === chosen }, words));
  }

  /** Other options for a choice; what is chosen stays. */
  offer(key, options) {
    const choice = this.choices.find((one) => one.key === key);
    if (JSON.stringify(choice.options) === JSON.stringify(options)) return;
    choice.options = options;
    this.place.querySelector(`[data-choice="${key}"]`).replaceChildren(...this.optionsOf(choice));
  }

  setRows(rows) {
    this.rows = rows;
    this.draw();
  }

  /** Change what is known of one row, in place; whether it is here. */
  patch(id, change) {
    const row = this.rows.find((known) => this.id(known) === id);
    if (row === undefined) return false;
    Object.assign(row, change);
    this.draw();
    return true;
  }

  /** Mark the row that the page shows more of. */
  select(id) {
    this.selected = id;
    for (const [key, { node }] of this.drawn) markSelected(node, key === id);
  }

  typed(filter) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.change({ filter }), TYPING_MS);
  }

  /** Show something else: `{sort, descending, filter}` or a choice by its key. */
  change(state) {
    const asks = Object.keys(state).some((key) => (key === "filter" ? this.searches : ["sort", "descending"].includes(key) ? this.sorts : true));
    Object.assign(this.state, state);
    this.writeAddress();
    this.drawHead();
    for (const choice of this.choices) this.showChosen(choice, this.place.querySelector(`[data-choice="${choice.key}"]`));
    if (this.load && asks) this.fetch(null);
    else this.draw();
  }

  showChosen(choice, select) {
    const value = this.state[choice.key];
    if (!Array.from(select.options).some((option) => option.value === value)) select.replaceChildren(...this.optionsOf(choice));
    select.value = value;
  }

  // ---- fetching -----------------------------------------------------------------------------------------------------

  /** Get a page; `null` starts anew. An answer that comes after a newer question is dropped. */
  fetch(cursor) {
    this.pending = this.fetchPage(cursor);
    return this.pending;
  }

  async fetchPage(cursor) {
    const question = (this.question = Symbol("question"));
    this.loading = true;
    if (cursor !== null || this.rows.length === 0) this.status.textContent = "Loading…";
    this.more.setAttribute("aria-busy", "true");
    try {
      const { rows, next } = await this.load({ ...this.state, cursor });
      if (this.question !== question) return;
      this.rows = cursor === null ? rows : [...this.rows, ...rows];
      this.next = next ?? null;
      this.read = true;
      this.draw();
    } catch (refusal) {
      if (this.question === question) this.failed(refusal, cursor);
    } finally {
      if (this.question === question) this.loading = false;
      this.more.removeAttribute("aria-busy");
    }
  }

  failed(refusal, cursor) {
    const again = element("button", { type: "button", class: "small", onclick: () => this.fetch(cursor) }, "Try again");
    const kept = this.rows.length > 0 ? " Shown is what was read before." : "";
    this.status.replaceChildren(element("p", { class: "table-refusal" }, icon("warn"), `${refusal.message}${kept}`, again));
  }

  /** Read the first page again and put it over what is loaded, quietly; what only later pages hold stays as it was. */
  async refresh() {
    if (this.loading) return this.pending;
    if (!this.read || this.id === null) return this.fetch(null);
    const question = this.question;
    const answer = await this.load({ ...this.state, cursor: null }).catch(() => null);
    if (answer === null || question !== this.question) return;
    const fresh = new Set(answer.rows.map(this.id));
    const paged = answer.next !== null && answer.next !== undefined && this.rows.length > answer.rows.length;
    const later = paged ? this.rows.slice(this.rows.findLastIndex((row) => fresh.has(this.id(row))) + 1) : [];
    if (!paged) this.next = answer.next ?? null;
    this.rows = [...answer.rows, ...later.filter((row) => !fresh.has(this.id(row)))];
    this.draw();
  }

  // ---- drawing ------------------------------------------------------------------------------------------------------

  /** The rows as shown: filtered and sorted here unless the server does it. */
  visible() {
    let rows = this.rows;
    const words = this.searches ? [] : this.state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (row) => this.columns.map((column) => csvValue(column, row)).join(" ").toLowerCase();
    if (words.length > 0) rows = rows.filter((row) => words.every((word) => text(row).includes(word)));
    if (this.sorts || this.state.sort === null) return rows;
    const { sort, descending } = this.state;
    return [...rows].sort((a, b) => compare(a[sort], b[sort]) * (descending ? -1 : 1));
  }

  drawHead() {
    const { sort, descending } = this.state;
    const had = this.head.contains(document.activeElement);
    this.head.replaceChildren(...this.columns.map(({ key, name, type, phone, sortable = this.load === null || !this.searches || this.sorts }) => {
      const order = key !== sort ? null : descending ? "descending" : "ascending";
      const flip = () => this.change({ sort: key, descending: !this.ascends && (key === sort ? !descending : ["number", "time"].includes(type)) });
      const arrow = order === null ? "" : descending ? " ↓" : " ↑";
      const words = [name, element("span", { "aria-hidden": "true" }, arrow)];
      const content = sortable ? element("button", { type: "button", onclick: flip }, ...words) : element("span", { class: "th-words" }, name);
      return element("th", { scope: "col", class: classOf({ type, phone }), "aria-sort": order }, content);
    }));
    // Drawing the head again must not lose the place of someone who sorts by keyboard.
    if (had) this.head.querySelector("[aria-sort] button")?.focus();
  }

  draw() {
    const rows = this.visible();
    const shown = rows.slice(0, this.max);
    if (this.id === null) this.body.replaceChildren(...shown.map((row) => this.make(row).node));
    else this.drawKept(shown);
    this.place.classList.toggle("table-empty", rows.length === 0);
    // A handful of rows needs no filter.
    this.place.classList.toggle("table-few", this.rows.length <= FEW && this.next === null && this.state.filter === "");
    this.drawStatus(rows.length, shown.length);
    this.more.hidden = this.next === null || this.rows.length >= this.max;
  }

  drawStatus(all, shown) {
    if (all === 0) return this.status.replaceChildren(...this.emptyWords());
    const loaded = this.next !== null && (this.state.filter && !this.searches || this.state.sort !== null && !this.sorts);
    const words = shown < all || (this.next !== null && this.rows.length >= this.max) ? `The first ${shown}${shown < all ? ` of ${all}` : ""}; filter to see others.`
      : loaded ? `Of the ${count(this.rows.length, "row")} loaded so far.` : "";
    setText(this.status, words);
  }

  emptyWords() {
    const narrowed = this.state.filter || this.choices.some(({ key }) => this.state[key]);
    if (!narrowed) return typeof this.empty === "function" ? this.empty() : [this.empty];
    const clear = () => {
      this.search.value = "";
      this.change({ filter: "", ...Object.fromEntries(this.choices.map(({ key }) => [key, ""])) });
    };
    return ["Nothing matches. ", element("button", { type: "button", class: "small", onclick: clear }, "Clear the filter")];
  }

  /** Rows that are known stay the same nodes, so that scroll, focus and selection survive. */
  drawKept(rows) {
    const ids = new Set(rows.map(this.id));
    for (const [id, { node }] of this.drawn) {
      if (ids.has(id)) continue;
      node.remove();
      this.drawn.delete(id);
    }
    let place = this.body.firstElementChild;
    for (const row of rows) {
      const { node } = this.kept(row);
      if (node === place) place = place.nextElementSibling;
      else this.body.insertBefore(node, place);
    }
  }

  kept(row) {
    const known = this.drawn.get(this.id(row));
    if (known === undefined) {
      const made = this.make(row);
      this.drawn.set(this.id(row), made);
      return made;
    }
    this.columns.forEach((column, index) => column.once || fill(known.cells[index], column, row));
    return known;
  }

  make(row) {
    const cells = this.columns.map((column) => fill(element("td", { class: classOf(column), "data-name": column.name }), column, row));
    const node = element("tr", {}, ...cells);
    if (this.id !== null) markSelected(node, this.id(row) === this.selected);
    return { node, cells };
  }

  async copy() {
    const rows = this.visible();
    const lines = [this.columns.map(({ name }) => name), ...rows.map((row) => this.columns.map((column) => csvValue(column, row)))];
    await navigator.clipboard.writeText(lines.map((line) => line.map(quoted).join(",")).join("\r\n"));
    notify(`Copied ${count(rows.length, "row")} of ${this.caption}${this.next === null ? "" : ", as far as they are loaded"}.`);
  }

  // ---- the address: ?name.sort=key&name.filter=words&name.choice=value ----------------------------------------------

  readAddress() {
    if (this.name === null) return {};
    const query = new URLSearchParams(location.search);
    const [sort, filter] = [query.get(`${this.name}.sort`), query.get(`${this.name}.filter`)];
    const known = sort !== null && this.columns.some(({ key }) => key === sort.replace(/^-/, ""));
    const chosen = this.choices.map((choice) => [choice, query.get(`${this.name}.${choice.key}`)])
      .filter(([{ options, accepts = () => false }, value]) => value !== null && (options.some(([option]) => option === value) || accepts(value)));
    return { ...(known && { sort: sort.replace(/^-/, ""), descending: sort.startsWith("-") }), ...(filter !== null && { filter }), ...Object.fromEntries(chosen.map(([{ key }, value]) => [key, value])) };
  }

  writeAddress() {
    if (this.name === null) return;
    const query = new URLSearchParams(location.search);
    const put = (key, value, initial) => (value === initial ? query.delete(`${this.name}.${key}`) : query.set(`${this.name}.${key}`, value));
    const sort = ({ sort: key, descending }) => (key === null ? "" : `${descending ? "-" : ""}${key}`);
    put("sort", sort(this.state), sort(this.initial));
    for (const key of ["filter", ...this.choices.map((choice) => choice.key)]) put(key, this.state[key], "");
    history.replaceState(null, "", `${location.pathname}${query.size > 0 ? `?${query}` : ""}${location.hash}`);
  }
}

const classOf = ({ type = "text", phone = true }) => (phone ? type : `${type} not-phone`);

function markSelected(node, on) {
  if (on) node.setAttribute("aria-current", "true");
  else node.removeAttribute("aria-current");
}

/** Put a row's content into its cell where it differs from what is there. */
function fill(node, { key, type, format, exact }, row) {
  const value = row[key];
  const content = format ? format(value, row) : type === "time" ? (value ? relativeTime(value) : "–") : String(value ?? "–");
  const hover = exact ? exact(value, row) : type === "time" && value ? exactTime(value) : "";
  if (node.title !== (hover ?? "")) node.title = hover ?? "";
  node.classList.toggle("none", content === "–");
  if (!(content instanceof Node)) setText(node, content);
  else if (node.firstChild?.outerHTML !== content.outerHTML || node.childNodes.length !== 1) node.replaceChildren(content);
  return node;
}

const csvValue = ({ key, csv }, row) => (csv ? csv(row[key], row) : row[key]);

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
