/* Numbers, times and small pieces of DOM, the same on every page. Pure but for reading the clock when no `now` is given. */

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const dollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumFractionDigits: 0 });
const dollarsAndCents = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
const shortDollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", notation: "compact", maximumFractionDigits: 1, minimumFractionDigits: 0 });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const clockTime = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const STEPS = [["day", 86_400_000], ["hour", 3_600_000], ["minute", 60_000], ["second", 1000]];

export const number = (value) => (value === null || value === undefined ? "–" : grouped.format(value));

/** "1 event", "12 events". */
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** Whole cents as dollars: "$510,905", with cents only where there are any. */
export const money = (cents) => (cents === null || cents === undefined ? "–" : (cents % 100 === 0 ? dollars : dollarsAndCents).format(cents / 100));

/** In whole dollars, for a table in which the cents stand on hover. */
export const roundMoney = (cents) => (cents === null || cents === undefined ? "–" : dollars.format(cents / 100));

/** "$2M", "$144": for a scale, where the exact amount stands beside it. */
export const shortMoney = (cents) => shortDollars.format(cents / 100);

export const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

/** "+0.03", "−0.10": with a sign that is a minus, not a hyphen. */
export const signed = (value, digits = 2) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;

export const percent = (value) => `${Math.round(value * 100)} %`;

export const exactTime = (when) => exact.format(new Date(when));

export const timeOfDay = (when) => clockTime.format(new Date(when));

/** "in 3 hr.", "2 days ago", in the largest unit that fits. */
export function relativeTime(when, now = Date.now()) {
  const distance = new Date(when).getTime() - now;
  const [unit, size] = STEPS.find(([, step]) => Math.abs(distance) >= step) ?? STEPS.at(-1);
  return relative.format(Math.round(distance / size), unit);
}

/** A countdown: "7 s", "4:05", "1:02:09". */
export function countdown(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const shown = parts[0] > 0 ? parts : parts.slice(1);
  return shown.map((part, index) => (index === 0 ? String(part) : String(part).padStart(2, "0"))).join(":");
}

/** A length of time in words: "250 ms", "15 min", "2 h". */
export function duration(milliseconds) {
  if (milliseconds < 1000) return `${number(milliseconds)} ms`;
  if (milliseconds < 120_000) return `${number(milliseconds / 1000)} s`;
  return milliseconds < 7_200_000 ? `${number(milliseconds / 60_000)} min` : `${number(milliseconds / 3_600_000)} h`;
}

export const metres = (value) => (value < 1000 ? `${number(Math.round(value))} m` : `${number(value / 1000)} km`);

/** When an event is, for a person: "now, for 2 hr. more", "in 3 hr.", "2 hr. ago". */
export function eventTime({ start, end }, now = Date.now()) {
  const [from, to] = [Date.parse(start), end ? Date.parse(end) : NaN];
  if (from <= now && now < to) return "now";
  return Number.isNaN(from) ? "no date" : relativeTime(from, now);
}

/** <tag class="…">children</tag>; attributes that start with "on" are listeners, null and false are left out. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const icon = (name) => svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#icon-${name}` }));

/** A state: an icon in its colour (`tone`, a data-status of the style sheet) and its word. */
export const badge = (tone, picture, words, title = null) => element("span", { class: "status", "data-status": tone, title }, icon(picture), words);

/** One of a table of states {name: {icon, tone, words?, about}} as a badge, its meaning on hover. */
export const badgeOf = (all, name, words = all[name].words ?? name) => badge(all[name].tone, all[name].icon, words, all[name].about);

export const smallButton = (words, clicked, more = {}) => element("button", { type: "button", class: "small", onclick: clicked, ...more }, words);

/** A button of a drawer, with a picture. */
export const actionButton = (words, picture, clicked) => element("button", { type: "button", onclick: ({ currentTarget }) => clicked(currentTarget) }, icon(picture), words);

/** A button that looks like a link and opens the drawer: the page listens for data-`kind`; `more` are further data attributes. */
export function link(kind, id, words, { label = null, ...more } = {}) {
  const data = Object.fromEntries(Object.entries({ [kind]: id, ...more }).map(([name, value]) => [`data-${name}`, String(value)]));
  return element("button", { type: "button", class: "link", "aria-label": label, ...data }, words);
}

/** A panel among the figures at the head of a page. */
export const tile = (name, ...content) => element("section", { class: "panel tile" }, element("h2", {}, name), ...content);

/** What a dialog says that it will do. */
export const says = (...words) => element("p", { class: "says" }, ...words);

export const radio = (name, value, words, checked = false) => element("label", { class: "check" }, element("input", { type: "radio", name, value, checked }), element("span", {}, words));

/** Put these nodes there unless they are there; a button that is focused stays so. */
export function put(place, ...nodes) {
  if (nodes.map((node) => node.outerHTML).join("") === place.innerHTML) return;
  const at = Array.from(place.querySelectorAll("button")).indexOf(document.activeElement);
  place.replaceChildren(...nodes);
  if (at >= 0) place.querySelectorAll("button")[at]?.focus({ preventScroll: true });
}

export const iso = (ms) => (ms ? new Date(ms).toISOString() : "");
export const exactly = (ms) => (ms ? exactTime(ms) : "");

/** A fact of a list: a moment, relative, the exact one on hover. */
export const moment = (name, ms) => [name, ms ? relativeTime(ms) : "–", exactly(ms)];

/** Set the text only when it differs, so that nothing is laid out or announced twice. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A list of facts, changed in place: [[name, value as text or Node, hover?]]. */
export function facts(list, all) {
  const names = all.map(([name]) => name);
  for (const row of [...list.children]) if (!names.includes(row.dataset.name)) row.remove();
  all.forEach(([name, value, hover = ""], index) => {
    let row = list.querySelector(`[data-name="${name}"]`);
    if (row === null) {
      row = element("div", { "data-name": name }, element("dt", {}, name), element("dd"));
      list.insertBefore(row, list.children[index] ?? null);
    }
    const place = row.lastElementChild;
    if (place.title !== hover) place.title = hover;
    if (!(value instanceof Node)) setText(place, value);
    else if (place.firstElementChild?.outerHTML !== value.outerHTML) place.replaceChildren(value);
  });
}
