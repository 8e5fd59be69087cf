/* A person's month: the weeks at a glance, every slot in the local time of its place (the reader's own on hover), where the person is
 * when, and which cities rest. The words of the list say all that the small marks of the weeks say. */

import { element, icon, money, number, roundMoney } from "./format.js";
import { Table } from "./table.js";
import { KINDS, SLOTS, badge, countryName, monthAfter, monthWords, shortWords, smallButton, stay, tryAgain } from "./tiers-words.js";

const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MS = 86_400_000;
/** Cents of a price that is long anyway stand on hover. */
const ROUNDED_FROM = 1_000_00;
const zones = new Map();

/** Day and hours in a zone; a zone that this browser does not know is read as UTC, and said so. */
function formats(zone) {
  if (!zones.has(zone)) {
    const make = (timeZone) => ({
      day: new Intl.DateTimeFormat("en-GB", { timeZone, weekday: "short", day: "numeric", month: "short" }),
      hour: new Intl.DateTimeFormat("en-GB", { timeZone, hour: "2-digit", minute: "2-digit" }),
      name: zone === undefined ? Intl.DateTimeFormat().resolvedOptions().timeZone : timeZone,
    });
    let made;
    try {
      made = make(zone);
    } catch {
      made = make("UTC");
    }
    zones.set(zone, made);
  }
  return zones.get(zone);
}

/** "Fri, 15 Jan 14:00–14:30" in that zone; without one in the reader's. */
function slotTime({ startsAtMs, endsAtMs }, zone) {
  const { day, hour } = formats(zone);
  return `${day.format(startsAtMs)} ${hour.format(startsAtMs)}–${hour.format(endsAtMs)}`;
}

const zoneWords = (zone) => zone.replaceAll("_", " ").split("/").at(-1);
const readersTime = (slot) => `For you (${formats(undefined).name}): ${slotTime(slot, undefined)}`;
const placeWords = ({ name, country }) => (country ? `${name}, ${countryName(country)}` : name);

/** What kind, how long, and below it the city, or whose time it is. */
function kindCell(kind, { duration, city, timezone }) {
  const where = city === null ? `in ${zoneWords(timezone)} time` : city.name;
  return element("div", { class: "kind" }, element("span", {}, icon(KINDS[kind].icon), `${duration} min`), element("small", { class: "faint" }, where));
}

const kindWords = (kind, { duration, city, timezone }) => `${KINDS[kind].words}, ${duration} min, ${city === null ? timezone : placeWords(city)}`;

/** The columns of slots. `cancel(slot, words)` gives a booking back; without it there is no button. */
export function slotColumns(cancel = null) {
  const local = (_, slot) => slotTime(slot, slot.timezone);
  const told = (status, slot) => [status, bookedWords(slot)].filter(Boolean).join(": ");
  return [
    { key: "startsAtMs", name: "Local time", type: "text", format: local, exact: (_, slot) => `${slot.timezone}. ${readersTime(slot)}`, csv: (ms) => new Date(ms).toISOString() },
    { key: "meetingType", name: "Kind", type: "text", format: kindCell, exact: kindWords, csv: kindWords },
    { key: "priceCents", name: "Price", type: "number", format: (cents) => (cents < ROUNDED_FROM ? money : roundMoney)(cents), exact: money, csv: money },
    { key: "status", name: "State", type: "text", format: (status, slot) => stateCell(slot, cancel), exact: (_, slot) => bookedWords(slot), csv: told },
  ];
}

function stateCell(slot, cancel) {
  const { icon: picture, words, tone } = SLOTS[slot.status];
  const state = badge(tone, picture, words);
  if (cancel === null || slot.status !== "booked" || slot.startsAtMs <= Date.now()) return state;
  const said = `${slotTime(slot, slot.timezone)} (${zoneWords(slot.timezone)})`;
  return element("div", { class: "slot-state" }, state, smallButton("Cancel…", () => cancel(slot, said), { "aria-label": `Cancel the booking of ${said}…` }));
}

function bookedWords({ bookedBy, bookedAtMs, cancelledAtMs }) {
  if (!bookedBy) return "";
  const at = (ms) => formats(undefined).day.format(ms);
  return `Booked by ${bookedBy}${bookedAtMs ? ` on ${at(bookedAtMs)}` : ""}${cancelledAtMs ? `, cancelled on ${at(cancelledAtMs)}` : ""}`;
}

/** A head with two buttons, the weeks, and the list. `turn(month)` asks for another month; `cancel(slot)` gives a booking back. */
export class Calendar {
  constructor({ name, turn, cancel }) {
    this.name = name;
    this.cancel = cancel;
    this.month = null;
    this.title = element("h3", { "aria-live": "polite" });
    const go = (steps) => this.month !== null && turn(monthAfter(this.month, steps));
    const step = (words, steps) => element("button", { type: "button", class: "quiet only-icon", "aria-label": words, onclick: () => go(steps) }, icon("chevron"));
    this.body = element("div", { class: "calendar-body" });
    const head = element("div", { class: "calendar-head" }, this.title, step("The month before", -1), step("The month after", 1));
    this.node = element("section", { class: "calendar", "aria-label": `Calendar of ${name}` }, head, this.body);
  }

  /** Another month is on its way: its name at once, what was shown faded until it comes. */
  loading(month) {
    this.month = month;
    this.title.textContent = monthWords(month);
    this.node.setAttribute("aria-busy", "true");
    if (this.body.childElementCount === 0) this.body.replaceChildren(element("p", { class: "faint" }, "Loading…"));
  }

  failed(refusal, again) {
    this.node.removeAttribute("aria-busy");
    this.body.replaceChildren(tryAgain(refusal, again));
  }

  draw(calendar) {
    this.node.removeAttribute("aria-busy");
    const list = element("div");
    this.body.replaceChildren(this.lead(calendar), weeks(calendar), list, ...this.stays(calendar), ...rests(calendar));
    const table = new Table(list, {
      caption: `slots of ${this.name} in ${monthWords(calendar.month)}`, columns: slotColumns(this.cancel), id: ({ id }) => id, sort: "startsAtMs", descending: false, filterable: false, stacks: true,
      empty: () => ["No slots. ", ...noSlots(calendar)],
    });
    table.setRows(calendar.slots);
  }

  /** How many there are, whose time it is, and why there are fewer than usual. */
  lead({ slots, item, timezone }) {
    const counts = Object.keys(SLOTS).map((status) => [status, slots.filter((slot) => slot.status === status).length]).filter(([, value]) => value > 0);
    const words = counts.map(([status, value]) => `${number(value)} ${SLOTS[status].words}`).join(", ") || "nothing planned";
    const why = Object.entries(item?.short ?? {}).map(([kind, reason]) => element("p", { class: "warned" }, icon("warn"), `${KINDS[kind]?.words ?? kind}: ${shortWords(reason)}`));
    const failed = item !== null && item.status !== "done" && item.reason ? [element("p", { class: "warned" }, icon("warn"), `run ${item.run}, ${item.status}: ${item.reason}`)] : [];
    return element("div", { class: "calendar-lead" }, element("p", { class: "faint" }, `${words}. Virtual in ${timezone}, in person in the city’s own time; yours on hover.`), ...failed, ...why);
  }

  stays({ rotations }) {
    if (rotations.length === 0) return [];
    const last = (day) => dayWords(new Date(Date.parse(`${day}T00:00:00Z`) - DAY_MS).toISOString().slice(0, 10));
    const line = ({ startsOn, endsOn, cities }) => stay(`${dayWords(startsOn)} – ${last(endsOn)}`, cities.map(placeWords).join(" · ") || "no city", false);
    return [element("h3", {}, "Rotations"), element("ul", { class: "stays" }, ...rotations.map(line))];
  }
}

function rests({ cooldowns }) {
  if (cooldowns.length === 0) return [];
  const rest = ({ lastVisit, until, ...city }) => stay(placeWords(city), `visited ${dayWords(lastVisit)}, again from ${dayWords(until)}`);
  return [element("h3", {}, "Cities that rest"), element("ul", { class: "stays" }, ...cooldowns.map(rest))];
}

function noSlots({ month, item }) {
  return item === null ? [`${monthWords(month)} is not planned for this person.`] : ["The month is planned; why there are none stands above."];
}

const written = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const dayWords = (day) => written.format(new Date(`${day}T00:00:00Z`));

/** The month as weeks: each day with a mark for each of its slots. */
function weeks({ month, slots }) {
  const first = Date.parse(`${month}-01T00:00:00Z`);
  const days = Math.round((Date.parse(`${monthAfter(month, 1)}-01T00:00:00Z`) - first) / DAY_MS);
  const lead = (new Date(first).getUTCDay() + 6) % 7;
  const of = new Map();
  for (const slot of slots) of.set(slot.localDate, [...(of.get(slot.localDate) ?? []), slot]);
  const cells = Array.from({ length: Math.ceil((lead + days) / 7) * 7 }, (_, at) => day(at - lead + 1, days, month, of));
  const rows = Array.from({ length: cells.length / 7 }, (_, row) => element("tr", {}, ...cells.slice(row * 7, row * 7 + 7)));
  return element("table", { class: "weeks" }, element("caption", { class: "hidden-words" }, `Slots by day, ${monthWords(month)}`),
    element("thead", {}, element("tr", {}, ...WEEKDAYS.map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, ...rows));
}

function day(number_, days, month, slots) {
  if (number_ < 1 || number_ > days) return element("td", { class: "outside" });
  const here = slots.get(`${month}-${String(number_).padStart(2, "0")}`) ?? [];
  return element("td", { class: here.length > 0 ? "busy" : null }, element("span", { class: "day" }, String(number_)), element("div", { class: "marks" }, ...here.map(mark)));
}

function mark(slot) {
  const words = `${slotTime(slot, slot.timezone)}, ${KINDS[slot.meetingType].words}, ${SLOTS[slot.status].words}`;
  return element("span", { class: "mark", "data-status": SLOTS[slot.status].tone, "data-slot": slot.status, title: `${words}. ${readersTime(slot)}` },
    icon(KINDS[slot.meetingType].icon), element("span", { class: "hidden-words" }, words));
}
