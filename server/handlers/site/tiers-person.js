/* The drawer's content for one person: why this tier (evidence, reason, source), what may be done, the six packages, the calendar, the
 * history. Two answers: the person's file and the month; each comes, fails and is tried again by itself. */

import { element, exactTime, facts, icon, money, number, relativeTime } from "./format.js";
import { Calendar } from "./tiers-calendar.js";
import { cancelBooking, classifyPerson, decide, generate } from "./tiers-forms.js";
import { KINDS, badge, countryName, flagWords, sourceWords, stay, tierBadge, tryAgain } from "./tiers-words.js";
import { api } from "./shell.js";

const RATINGS = { globalRecognition: "Global recognition", careerLegacy: "Career legacy", currentRelevance: "Current relevance", demand: "Demand", affluence: "Affluence" };
const DURATIONS = [15, 30, 60];
const COUNTRY_SOURCES = { given: "as given", alias: "from another name of it", default: "nothing given: the default", unknown: "unknown" };

/** `page` knows the month, keeps the address and is told of changes. */
export class PersonDetail {
  constructor(page) {
    this.page = page;
    this.id = null;
  }

  /** The nodes to show for this person; the content comes a moment later. */
  open(id, month) {
    this.id = id;
    this.person = null;
    this.why = element("div", { class: "why" }, element("p", { class: "faint" }, "Loading…"));
    this.rest = element("div", { class: "drawer-rest" });
    this.calendar = new Calendar({ name: "this person", turn: (to) => this.turn(to), cancel: (slot, words) => this.cancel(slot, words) });
    this.read();
    this.turn(month);
    return [this.why, this.rest];
  }

  async read() {
    const { id } = this;
    try {
      const person = await api(`/tiers/people/${id}`);
      if (this.id === id) this.draw(person);
    } catch (refusal) {
      if (this.id !== id) return;
      if (refusal.status === 404) return this.page.gone(`There is no person ${id}.`);
      if (this.person === null) this.why.replaceChildren(tryAgain(refusal, () => this.read()));
    }
  }

  async turn(month) {
    const { id, calendar } = this;
    calendar.loading(month);
    this.page.calendarTurned(month);
    await this.readMonth(month).catch((refusal) => this.id === id && calendar.month === month && calendar.failed(refusal, () => this.turn(month)));
  }

  async readMonth(month) {
    const { id, calendar } = this;
    const seen = await api(`/tiers/people/${id}/calendar?month=${month}`);
    if (this.id === id && calendar.month === month) calendar.draw(seen);
  }

  /** Something may have changed: read both again, keeping what is shown until they come. */
  refresh() {
    if (this.id === null) return;
    this.read();
    if (this.calendar.month !== null) this.readMonth(this.calendar.month).catch(() => undefined);
  }

  cancel(slot, words) {
    cancelBooking(slot, { words, name: this.person?.name ?? "this person", done: () => this.page.changed() });
  }

  // ---- drawing ------------------------------------------------------------------------------------------------------

  draw(person) {
    const drawn = JSON.stringify(person);
    if (this.drawn === drawn && this.person !== null) return;
    this.drawn = drawn;
    this.person = person;
    this.calendar.name = person.name;
    this.page.titled(person.name, `${person.key}${person.aliases.length > 0 ? ` · also ${person.aliases.join(", ")}` : ""}`);
    const about = element("div", {}, element("p", {}, person.reason ?? "Not classified yet."), element("p", { class: "faint" }, `By ${sourceWords(person.source)}${decided(person)}`));
    const flags = person.needsReview ? [badge("scheduled", "warn", person.flags.map(flagWords).join(", "))] : [];
    this.why.replaceChildren(element("div", { class: "why-tier" }, tierBadge(person.tier), about), ...flags);
    const focus = document.activeElement?.closest(".drawer-actions") ? document.activeElement.textContent : null;
    const head = (words) => element("h3", {}, words);
    this.rest.replaceChildren(this.actions(person), head("Evidence"), evidence(person), head("Packages"), packages(person), this.calendar.node,
      head("Pool of cities"), pool(person), head("History"), history(person));
    if (focus) Array.from(this.rest.querySelectorAll(".drawer-actions button")).find(({ textContent }) => textContent === focus)?.focus();
  }

  actions(person) {
    const button = (words, picture, clicked) => element("button", { type: "button", onclick: clicked }, icon(picture), words);
    const done = () => this.page.changed();
    const plan = () => generate({ person, month: this.calendar.month, why: this.page.gateOf(person.tier, this.calendar.month), done: (run) => this.page.runChanged(run) });
    return element("div", { class: "drawer-actions" }, button("Decide…", "check", () => decide(person, { done })),
      button("Classify again…", "list", () => classifyPerson(person, { done: (run) => this.page.runChanged(run) })),
      person.tier === null || person.excluded ? null : button("Plan the month…", "clock", plan));
  }
}

const decided = ({ decidedAtMs, ruleVersion }) => (decidedAtMs ? `, ${relativeTime(decidedAtMs)}, rules version ${ruleVersion}` : "");

function evidence(person) {
  const known = Object.entries(RATINGS).map(([key, words]) => [words, person.ratings[key] ?? element("span", { class: "faint" }, "unknown")]);
  const list = element("dl", { class: "fact-list" });
  const { override, comparables } = person;
  const marks = [person.legacy && "legacy (at least B)", person.globalAward && "global award (at least C)"].filter(Boolean);
  const spelled = person.countryGiven && person.countryGiven !== person.country ? `, given as “${person.countryGiven}”` : "";
  const offered = Object.entries({ physical: person.allowPhysical, virtual: person.allowVirtual }).filter(([, on]) => !on).map(([kind]) => `not ${KINDS[kind].words}`);
  facts(list, [
    ...(override ? [[override.reviewed ? "Decision" : "Override", `${override.tier}${override.reason ? `: ${override.reason}` : ""}${override.reviewed ? " (a reviewer)" : ""}`]] : []),
    ...known,
    ["Comparables", comparables.map(({ name, tier }) => (tier ? `${name} (${tier})` : name)).join(", ") || "none"],
    ["Marks", marks.join(", ") || "none"],
    ["Net worth", person.netWorthCents === null ? "unknown" : money(person.netWorthCents)],
    ["Country", `${countryName(person.country) ?? "unknown"}${spelled}`, COUNTRY_SOURCES[person.countrySource] ?? ""],
    ["Time zone", person.timezone ?? "unknown", person.timezoneGiven ? `Given: ${person.timezoneGiven}` : "Nothing given: the country’s"],
    ["Slots a month", person.maxMonthlySlots === null ? "–" : `at most ${number(person.maxMonthlySlots)}${offered.length > 0 ? `; ${offered.join(", ")}` : ""}`],
    ...(person.accepted.length > 0 ? [["Accepted", person.accepted.map(flagWords).join(", ")]] : []),
    ...(person.excluded ? [["Left out", person.excluded]] : []),
    ["Imported", relativeTime(person.importedAtMs), exactTime(person.importedAtMs)],
  ]);
  return list;
}

/** Two rows of three prices; what is not offered is said. */
function packages({ packages: all }) {
  if (all.length === 0) return element("p", { class: "faint" }, "No packages yet: classification makes them.");
  const price = (kind, duration) => {
    const found = all.find((one) => one.meetingType === kind && one.duration === duration);
    if (found === undefined) return element("td", { class: "number warned" }, "missing");
    return element("td", { class: found.active ? "number" : "number faint" }, money(found.priceCents), found.active ? null : element("small", {}, "not offered"));
  };
  const row = ([kind, { icon: picture, words }]) => element("tr", {}, element("th", { scope: "row" }, icon(picture), words), ...DURATIONS.map((duration) => price(kind, duration)));
  const columns = DURATIONS.map((minutes) => element("th", { scope: "col", class: "number" }, `${minutes} min`));
  return element("table", { class: "table packages" }, element("caption", { class: "hidden-words" }, "Packages"),
    element("thead", {}, element("tr", {}, element("td"), ...columns)), element("tbody", {}, ...Object.entries(KINDS).map(row)));
}

/** Countries and their cities. */
function pool({ pool: cities }) {
  if (cities.length === 0) return element("p", { class: "faint" }, "Drawn when a month is planned.");
  const by = new Map();
  for (const { name, country } of cities) by.set(country, [...(by.get(country) ?? []), name]);
  return element("ul", { class: "stays" }, ...Array.from(by, ([country, names]) => stay(countryName(country), names.join(", "))));
}

function history({ history: changes }) {
  if (changes.length === 0) return element("p", { class: "faint" }, "No change yet.");
  const change = ({ atMs, from, to, source, reason, who }) => element("li", {},
    element("span", { class: "history-tiers" }, from === null ? null : tierBadge(from), from === null ? null : "→", tierBadge(to)),
    element("div", {}, element("p", {}, reason), element("p", { class: "faint", title: exactTime(atMs) }, `${sourceWords(source)}, by ${who ?? "the server"}, ${relativeTime(atMs)}`)));
  return element("ol", { class: "history" }, ...changes.map(change));
}
