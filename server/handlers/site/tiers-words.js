/* What tiers, people, runs, verifications and slots look like in words and small pieces of page: the same in tables and the drawer. */

import { count, countdown, element, icon, number, percent } from "./format.js";

export const TIERS = ["S", "A", "B", "C", "D"];

/** Why somebody should look at a person. */
export const FLAGS = {
  unclear: "evidence unclear",
  no_evidence: "no evidence",
  net_worth: "dear for the net worth",
  country: "country unknown",
  timezone: "time zone guessed",
};

const SOURCES = {
  override: "a curated override",
  comparables: "comparable people",
  ratings: "ratings",
  unclear: "unclear ratings",
  no_evidence: "no evidence",
  guard: "a guard: legacy or award",
  review: "a reviewer’s decision",
};

/** The rules of verification, as what is wrong where they are broken. */
const RULES = {
  missing_tier: "without a tier",
  packages_six: "not exactly six packages",
  price_range: "a price outside of the tier’s range",
  max_slots: "the most slots a month not as the tier has it",
  verified: "not marked as verified",
  country: "no valid country",
  slots_present: "slots are missing",
  no_overlap: "slots overlap",
  cooldown: "a city visited again too soon",
  home_country: "a city in the home country",
  monthly_counts: "too few or too many slots",
  rotation_lengths: "a rotation too short or too long",
  slot_price: "a slot’s price is not the package’s",
};

const SHORT = {
  not_allowed: "this type is not offered",
  pool_exhausted: "no city of the pool is free",
  lead_time: "the month had begun: lead time",
  no_room: "no room left in the month",
};

const RUN_STATES = {
  running: { icon: "work", words: "running", tone: "processing" },
  done: { icon: "check", words: "done", tone: "completed" },
  stopped: { icon: "stop", words: "stopped", tone: "cancelled" },
  some: { icon: "warn", words: "done, some failed", tone: "scheduled" },
};

export const ITEMS = { done: "done", failed: "failed", skipped: "skipped", replaced: "planned anew later" };

export const SLOTS = {
  available: { icon: "clock", words: "available", tone: "processing" },
  booked: { icon: "check", words: "booked", tone: "completed" },
  cancelled: { icon: "stop", words: "cancelled", tone: "scheduled" },
  expired: { icon: "minus", words: "expired", tone: "cancelled" },
};

export const KINDS = { physical: { icon: "pin", words: "in person" }, virtual: { icon: "screen", words: "virtual" } };

export const badge = (tone, picture, words, title = null) => element("span", { class: "status", "data-status": tone, title }, icon(picture), words);

export const smallButton = (words, clicked, more = {}) => element("button", { type: "button", class: "small", onclick: clicked, ...more }, words);

/** A button that looks like a link and names what the page shows when it is clicked: {"data-person": 17}. */
export const link = (words, target) => element("button", { type: "button", class: "link", ...target }, words);

export const personLink = (name, person) => link(name, { "data-person": String(person) });

/** What could not be read, and a button that tries again. */
export const tryAgain = (refusal, again) => element("p", { class: "table-refusal" }, icon("warn"), refusal.message, smallButton("Try again", again));

/** A name and what is said of it, in a list of class "stays". */
export const stay = (name, words, faint = true) => element("li", {}, element("span", {}, name), element("span", { class: faint ? "faint" : null }, words));

/** A tier as a letter in a box; without one in words. */
export const tierBadge = (tier) => (tier === null || tier === undefined ? element("span", { class: "faint" }, "none") : element("b", { class: "tier" }, tier));

export const sourceWords = (source) => SOURCES[source] ?? source ?? "not classified yet";
export const flagWords = (flag) => FLAGS[flag] ?? flag;
export const ruleWords = (rule) => RULES[rule] ?? rule.replaceAll("_", " ");
export const shortWords = (reason) => SHORT[reason] ?? reason.replaceAll("_", " ");

// ---- months and places --------------------------------------------------------------------------------------------

const inWords = new Intl.DateTimeFormat("en", { month: "long", year: "numeric", timeZone: "UTC" });
const regions = new Intl.DisplayNames("en", { type: "region", fallback: "none" });
const NO_PLACES = new Set(["EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"]);

/** "2027-01" -> "January 2027". */
export const monthWords = (month) => inWords.format(new Date(`${month}-01T00:00:00Z`));

/** The month that lies so many months after this one. */
export function monthAfter(month, steps) {
  const [year, number_] = month.split("-").map(Number);
  return new Date(Date.UTC(year, number_ - 1 + steps, 1)).toISOString().slice(0, 7);
}

export const thisMonth = () => new Date().toISOString().slice(0, 7);

export const isMonth = (text) => /^\d{4}-(0[1-9]|1[0-2])$/.test(text ?? "") && text >= "2000";

export const countryName = (code) => (code ? regions.of(code) ?? code : null);

/** Every country that has a code of its own, by name: [code, name]. */
export function countries() {
  const letters = Array.from("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
  const codes = letters.flatMap((first) => letters.map((second) => first + second));
  const named = codes.filter((code) => regions.of(code) && !NO_PLACES.has(code) && new Intl.Locale(`und-${code}`).region === code);
  return named.map((code) => [code, regions.of(code)]).sort(([, a], [, b]) => a.localeCompare(b, "en"));
}

// ---- runs ---------------------------------------------------------------------------------------------------------

/** What a run does: "Classify tier S", "Plan S for January 2027". */
export function runTitle({ kind, scope, tier, month, person }) {
  const who = { all: "everybody", "new-only": "people without a tier", tier: `tier ${tier}`, person: `person ${person}` }[scope ?? (person ? "person" : "tier")];
  return kind === "classify" ? `Classify ${who}` : `Plan ${who} for ${monthWords(month)}`;
}

export function runState({ status, failed }) {
  const { icon: picture, words, tone } = RUN_STATES[status === "done" && failed > 0 ? "some" : status];
  return badge(tone, picture, words);
}

/** "42 %", "1,200 people/s", "0:12 left": what is known, in that order. */
export function runWords({ status, percent: share, total, taken, rate, etaMs }) {
  const done = share === null || share === undefined ? `${number(taken)} of ${number(total)}` : percent(share / 100);
  if (status !== "running") return [done, rate > 0 && status === "done" ? rateWords(rate) : null].filter(Boolean);
  const left = etaMs === null || etaMs === undefined ? null : `${countdown(etaMs)} left`;
  return [done, rate > 0 ? rateWords(rate) : null, left].filter(Boolean);
}

const rateWords = (rate) => `${number(rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate))} people/s`;

export function runProgress(run) {
  const tone = RUN_STATES[run.status].tone;
  const bar = element("progress", { max: "100", value: String(run.percent ?? 0), "data-status": tone, "aria-label": `Progress of run ${run.id}` });
  return element("div", { class: "progress-cell" }, bar, element("span", { class: "progress-words" }, runWords(run).join(" · ")));
}

/** "398 done, 2 skipped": what became of the people so far, without what is nobody. */
export function outcomeWords({ done, unchanged, failed, skipped }) {
  const parts = [[done, "done"], [unchanged, "unchanged"], [failed, "failed"], [skipped, "skipped"]];
  return parts.filter(([value], index) => value > 0 || index === 0).map(([value, words]) => `${number(value)} ${words}`).join(", ");
}

// ---- verifications ------------------------------------------------------------------------------------------------

export const verifiedTitle = ({ tier, month }) => (tier === null ? "The foundation" : `Tier ${tier} for ${monthWords(month)}`);

/** Passed, failed, passed but changed since, or not yet. */
export function verdict(found) {
  if (found === null || found === undefined) return badge("cancelled", "minus", "not verified yet");
  if (!found.passed) return badge("failed", "warn", `failed: ${count(found.violations, "violation")}`);
  return found.stale ? badge("scheduled", "clock", "changed since", "It passed, but something was changed since: verify again") : badge("completed", "check", "passed");
}

/** "cooldown 3, no_overlap 1": the rules that were broken. */
export const brokenRules = ({ rules }) => Object.entries(rules).filter(([, broken]) => broken > 0).map(([rule, broken]) => `${rule} ${number(broken)}`).join(", ");

// ---- people -------------------------------------------------------------------------------------------------------

/** The flags of a person: what somebody should look at, or has let pass. */
export function flagsCell({ flags, needsReview }) {
  if (flags.length === 0) return "–";
  const words = flags.map(flagWords).join(", ");
  return needsReview ? badge("scheduled", "warn", words) : element("span", { class: "faint" }, `accepted: ${words}`);
}
