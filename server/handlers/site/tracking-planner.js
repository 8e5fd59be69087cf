/* The capacity planner: what so many posts a week cost in calls, whether runs can make them, and which plan of the provider is enough.
 * The numbers are the server's (GET /tracking/plan); what is asked stays in the address. */

import { badge, count, duration, element, facts, icon, money, number } from "./format.js";
import { api, field, keepInAddress, queryOf } from "./shell.js";
import { Table } from "./table.js";

const TYPING_MS = 300;

/** What one may ask: [name, words, least, most]. */
const ASKED = [
  ["clipsPerWeek", "Posts a week", 1, 1_000_000],
  ["lifeDays", "Days each stays", 1, 3_650],
  ["checksPerDay", "Checks a day", 1, 48],
  ["postsPerCall", "Posts a call", 1, 1_000],
];

const OFFERS = [
  { key: "name", name: "Plan", type: "text" },
  { key: "calls", name: "Calls a month", type: "number", format: number },
  { key: "monthlyCents", name: "Price a month", type: "number", format: money, csv: money },
  { key: "percent", name: "Used", type: "number", format: (percent) => `${number(percent)} %` },
  { key: "enough", name: "Enough", type: "text", format: (_, offer) => offerBadge(offer), csv: (enough) => (enough ? "yes" : "no") },
];

function offerBadge({ enough, cheapest, ours }) {
  const words = [enough ? "enough" : "too small", cheapest ? "the cheapest" : null, ours ? "yours" : null].filter(Boolean).join(", ");
  return badge(enough ? (cheapest ? "completed" : "cancelled") : "failed", enough ? "check" : "close", words);
}

export class Planner {
  constructor(place) {
    const query = new URLSearchParams(location.search);
    const input = ([name, words, min, max]) => field(words, element("input", { name, type: "number", min: String(min), max: String(max), step: "1", inputmode: "numeric", value: query.get(`plan.${name}`) ?? "" }));
    this.form = element("form", { class: "plan-form", "aria-label": "What to plan for", novalidate: true }, ...ASKED.map(input));
    this.figures = element("dl", { class: "plan-figures" });
    this.verdict = element("p", { class: "plan-verdict", role: "status" });
    const offers = element("div");
    place.replaceChildren(this.form, this.verdict, element("div", { class: "duo" }, this.figures, offers));
    this.offers = new Table(offers, { caption: "plans of the provider", columns: OFFERS, sort: "calls", descending: false, filterable: false, id: ({ name }) => name, empty: "No plan is set: see TRACKING_PLANS." });
    this.form.addEventListener("submit", (happening) => happening.preventDefault());
    this.form.addEventListener("input", () => this.typed());
    this.read();
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.read(), TYPING_MS);
  }

  async read() {
    const asked = Object.fromEntries(ASKED.map(([name]) => [name, this.form.elements[name].value || null]));
    const question = (this.question = Symbol("plan"));
    try {
      const plan = await api(`/tracking/plan${queryOf(asked)}`);
      if (this.question !== question) return;
      keepInAddress(Object.fromEntries(Object.entries(asked).map(([name, value]) => [`plan.${name}`, value])));
      this.draw(plan);
    } catch (refusal) {
      if (this.question === question) this.verdict.replaceChildren(element("span", { class: "table-refusal" }, icon("warn"), refusal.message));
    }
  }

  draw(plan) {
    const { given, capacity } = plan;
    // What was not asked for is what the server reckons with.
    for (const [name] of ASKED) this.form.elements[name].placeholder = number(given[name]);
    this.verdict.replaceChildren(verdictBadge(plan));
    const runs = `${count(given.runClips, "post")} a run, a run every ${duration(given.runEveryMs)}: ${number(capacity.perWeek)} a week`;
    facts(this.figures, [["Live posts", number(plan.liveClips)], ["Live now", number(plan.actual.liveClips)], ["Checks a day", number(plan.checksPerDay)], ["Calls a day", number(plan.callsPerDay)], ["Calls a month", number(plan.callsPerMonth)],
      ["Runs can check", `${number(capacity.perDay)} posts a day`, runs]]);
    this.offers.setRows(plan.plans.map((offer) => ({ ...offer, cheapest: offer.name === plan.cheapest })));
  }
}

function verdictBadge({ capacity, cheapest, checksPerDay }) {
  if (cheapest === null) return badge("failed", "critical", "No plan has so many calls: more posts a call, or fewer checks.");
  const plan = `${cheapest} is the cheapest plan that is enough`;
  return capacity.enough ? badge("completed", "check", `${plan}.`) : badge("scheduled", "warn", `${plan}; but runs as they are set check ${number(capacity.perDay)} of ${number(checksPerDay)} a day: ${count(capacity.clipsPerRun, "post")} a run, or shorter intervals.`);
}
