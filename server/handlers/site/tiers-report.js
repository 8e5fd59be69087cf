/* How things stand, tier by tier, S to D: who is in which, what it costs, how much of the month is on offer. One answer
 * (GET /tiers/report), drawn as three tables with small pictures; every picture's figures stand beside it. */

import { shareBar, spread, stackedBar } from "./charts.js";
import { count, element, icon, money, number, roundMoney, shortMoney } from "./format.js";
import { Table } from "./table.js";
import { SLOTS, TIERS, flagWords, monthWords, tierBadge } from "./tiers-words.js";

const order = (_, row) => TIERS.indexOf(row.tier);
const tierColumn = { key: "order", name: "Tier", type: "text", format: (_, { tier }) => tierBadge(tier), csv: (_, { tier }) => tier };
const share = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const spreadWords = ({ minCents, maxCents }) => (minCents ? `${number(Math.round(maxCents / minCents))}×` : "–");
const averaged = (value) => (value === null ? "–" : number(value));

const DISTRIBUTION = [
  tierColumn,
  { key: "people", name: "People", type: "number", format: number },
  { key: "share", name: "Share", type: "text", format: (_, row) => shareCell(row), csv: (value) => share.format(value) },
  { key: "minSlots", name: "Slots a month", type: "number", format: (_, row) => slotsWords(row), csv: (_, row) => slotsWords(row), exact: () => "The most slots a month: least to most, and on average" },
];

const PRICES = [
  tierColumn,
  { key: "minCents", name: "Cheapest", type: "number", format: roundMoney, exact: money, csv: money },
  { key: "maxCents", name: "Dearest", type: "number", format: roundMoney, exact: money, csv: money },
  { key: "spread", name: "Spread", type: "text", format: (_, row) => priceCell(row), csv: (_, row) => spreadWords(row) },
  { key: "pricedPeople", name: "Priced", type: "number", format: (_, row) => pricedWords(row), csv: (_, row) => pricedWords(row), exact: (_, row) => packagesWords(row) },
];

const AVAILABILITY = [
  tierColumn,
  { key: "withSlots", name: "With slots", type: "number", format: (_, row) => `${number(row.withSlots)} of ${number(row.people)}`, csv: (_, row) => `${row.withSlots} of ${row.people}` },
  { key: "slots", name: "Slots", type: "text", format: (_, row) => slotsCell(row) },
  { key: "avgSlotsPerPerson", name: "A person", type: "number", format: averaged, exact: () => "Slots on average, over all people of the tier" },
  { key: "avgRotationDays", name: "Rotation", type: "number", format: (days) => (days === null ? "–" : `${number(Math.round(days))} days`), exact: () => "Length of a rotation on average" },
];

const pricedWords = ({ pricedPeople, people }) => `${number(pricedPeople)} of ${number(people)}`;
const packagesWords = ({ packages, activePackages }) => `People with all six packages; ${number(activePackages)} of ${count(packages, "package")} are offered`;
const slotsWords = ({ minSlots, maxSlots, avgSlots }) => (minSlots === null ? "–" : `${minSlots}–${maxSlots}, avg ${number(avgSlots)}`);

/** The whole that the expected numbers are a part of lies between the sums of the least and of the most. */
function shareCell({ tier, share: part, warning, expectedShare }) {
  const label = `${share.format(part)} of all people are in tier ${tier}; expected are ${expectedShare.map((value) => share.format(value)).join(" to ")}`;
  const words = element("span", { class: warning ? "warned" : null }, warning ? icon("warn") : null, share.format(part));
  return element("div", { class: "share-cell", title: label }, shareBar(part, expectedShare, label), words);
}

function priceCell({ tier, range, minCents, maxCents, medianCents, scale }) {
  const allowed = `Tier ${tier}: allowed ${money(range[0])} to ${money(range[1])}`;
  const label = minCents === null ? `${allowed}; no prices yet` : `${allowed}; there are ${money(minCents)} to ${money(maxCents)}, half of the people begin below ${money(medianCents)}`;
  const picture = spread({ scale, allowed: range, there: minCents === null ? null : [minCents, maxCents], middle: medianCents }, label);
  return element("div", { class: "spread-cell", title: label }, picture, element("span", {}, spreadWords({ minCents, maxCents })));
}

function slotsCell(row) {
  const parts = Object.keys(SLOTS).filter((status) => status !== "cancelled").map((status) => ({ name: status, value: row[status] }));
  const words = [...parts, { name: "cancelled", value: row.cancelled }].filter(({ value }) => value > 0).map(({ name, value }) => `${number(value)} ${SLOTS[name].words}`).join(", ") || "no slots";
  const bar = stackedBar(parts, Math.max(1, row.slots), `Tier ${row.tier}: ${words}`);
  return element("div", { class: "slots-cell", title: words }, element("b", {}, number(row.slots)), element("div", {}, bar, element("span", { class: "faint" }, words)));
}

export class TierReport {
  /** `filter(change)` narrows the table of people. */
  constructor({ filter }) {
    this.filter = filter;
    const options = { id: ({ tier }) => tier, filterable: false, sort: "order", descending: false, stacks: true, empty: "Loading…" };
    const made = (place, caption, columns) => new Table(document.getElementById(place), { caption, columns, ...options });
    this.distribution = made("distribution", "distribution by tier", DISTRIBUTION);
    this.prices = made("prices", "prices by tier", PRICES);
    this.availability = made("availability", "availability by tier", AVAILABILITY);
    this.warnings = document.getElementById("warnings");
    this.scale = document.getElementById("price-scale");
    this.counts = document.getElementById("people-counts");
    this.coverageTitle = document.getElementById("availability-title");
  }

  draw(report) {
    const [least, most] = [0, 1].map((end) => report.distribution.reduce((sum, { expected }) => sum + expected[end], 0));
    const ordered = (rows, more = () => ({})) => rows.map((row) => ({ ...row, order: order(null, row), ...more(row) }));
    const scale = [Math.min(...report.pricing.map(({ range }) => range[0])), Math.max(...report.pricing.map(({ range }) => range[1]))];
    this.distribution.setRows(ordered(report.distribution, ({ expected }) => ({ expectedShare: [expected[0] / most, expected[1] / least] })));
    this.prices.setRows(ordered(report.pricing, ({ minCents, maxCents }) => ({ scale, spread: minCents ? maxCents / minCents : null })));
    this.availability.setRows(ordered(report.availability));
    this.coverageTitle.textContent = `Availability in ${monthWords(report.month)}`;
    this.scale.textContent = `Logarithmic, ${shortMoney(scale[0])} to ${shortMoney(scale[1])}: pale what the tier allows, strong what there is, the tick where half of the people begin.`;
    this.drawWarnings(report.distribution);
    this.drawCounts(report);
  }

  drawWarnings(distribution) {
    const warned = distribution.filter(({ warning }) => warning !== null);
    this.warnings.replaceChildren(...warned.map(({ warning }) => element("li", {}, icon("warn"), `${warning}.`)));
  }

  /** Who should be looked at, as buttons that show them in the table of people. */
  drawCounts({ flagged, missingTier, excluded }) {
    const button = (words, value, change) => element("button", { type: "button", class: "count-chip", onclick: () => this.filter(change) }, words, element("b", {}, number(value)));
    const flags = Object.entries(flagged.byFlag).map(([flag, value]) => button(flagWords(flag), value, { show: "review", flag, tier: "", country: "" }));
    const one = (change) => ({ flag: "", tier: "", country: "", ...change });
    this.counts.replaceChildren(button("for review", flagged.total, one({ show: "review" })), ...flags, button("left out", excluded, one({ show: "excluded" })),
      ...(missingTier > 0 ? [element("span", { class: "warned" }, icon("warn"), `${count(missingTier, "person", "people")} without a tier`)] : []));
  }
}
