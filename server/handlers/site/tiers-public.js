/* What a frontend sees without a token: people with a tier, what they cost, when they can be booked. Also shown to those whose token is
 * not an administrator's; their own bookings are then among the slots. */

import { count, element, exactTime, icon, money } from "./format.js";
import { api, queryOf } from "./shell.js";
import { Table } from "./table.js";
import { slotColumns } from "./tiers-calendar.js";
import { KINDS, TIERS, countries, countryName, link, tierBadge, tryAgain } from "./tiers-words.js";

const PAGE = 50;
/** Bounds in cents, by what the choice is called in the address. */
const BOUNDS = { "to-1k": [null, 100_000], "1k-10k": [100_000, 1_000_000], "10k-100k": [1_000_000, 10_000_000], "from-100k": [10_000_000, null] };
const BOUND_WORDS = [["", "Any price"], ["to-1k", "up to $1,000"], ["1k-10k", "$1,000 to $10,000"], ["10k-100k", "$10,000 to $100,000"], ["from-100k", "$100,000 and more"]];

const kinds = (_, { allowPhysical, allowVirtual }) => [allowPhysical && KINDS.physical.words, allowVirtual && KINDS.virtual.words].filter(Boolean).join(", ") || "nothing";

const COLUMNS = [
  { key: "name", name: "Name", type: "text", format: (name, { id }) => link(name, { "data-celebrity": String(id) }), csv: (name) => name },
  { key: "tier", name: "Tier", type: "text", format: tierBadge, csv: (tier) => tier },
  { key: "country", name: "Country", type: "text", format: (code) => countryName(code) ?? "–", csv: (code) => code },
  { key: "allowPhysical", name: "Offered", type: "text", format: kinds, csv: kinds },
  { key: "fromCents", name: "From", type: "number", format: money, csv: money },
  { key: "toCents", name: "To", type: "number", format: money, csv: money },
];

export class PublicTable {
  constructor(place) {
    const load = async ({ cursor, filter, tier, country, price }) => {
      const [minCents, maxCents] = BOUNDS[price] ?? [null, null];
      const { celebrities, next } = await api(`/celebrities${queryOf({ tier, country, minCents, maxCents, search: filter.trim(), after: cursor, limit: PAGE })}`);
      return { rows: celebrities, next };
    };
    this.table = new Table(place, {
      caption: "people who can be booked", name: "celebrities", columns: COLUMNS, load, sorts: false, searches: true, id: ({ id }) => id, stacks: true,
      choices: [
        { key: "tier", name: "Tier", options: [["", "Any tier"], ...TIERS.map((tier) => [tier, `Tier ${tier}`])] },
        { key: "price", name: "Price", options: BOUND_WORDS },
        { key: "country", name: "Country", options: [["", "Any country"], ...countries()] },
      ],
      empty: "Nobody can be booked yet: an administrator brings people in and classifies them.",
    });
  }
}

/** One of them in the drawer: the packages that are offered, and the slots of the next month. */
export class PublicDetail {
  constructor(page) {
    this.page = page;
    this.id = null;
  }

  open(id) {
    this.id = id;
    this.node = element("div", { class: "drawer-rest" }, element("p", { class: "faint" }, "Loading…"));
    this.read();
    return [this.node];
  }

  async read() {
    const { id } = this;
    try {
      const [person, { packages }] = await Promise.all([api(`/celebrities/${id}`), api(`/celebrities/${id}/pricing`)]);
      if (this.id === id) this.draw(person, packages);
    } catch (refusal) {
      if (this.id !== id) return;
      if (refusal.status === 404) return this.page.gone(`There is no person ${id} who can be booked.`);
      this.node.replaceChildren(tryAgain(refusal, () => this.read()));
    }
  }

  draw(person, packages) {
    this.page.titled(person.name, `Tier ${person.tier} · ${countryName(person.country) ?? "country unknown"} · ${person.timezone}`);
    const list = element("div");
    const row = ({ meetingType: kind, duration, priceCents }) => element("li", {}, element("span", {}, icon(KINDS[kind].icon), ` ${KINDS[kind].words}, ${duration} min`), element("b", {}, money(priceCents)));
    this.node.replaceChildren(element("h3", {}, "Packages"), packages.length > 0 ? element("ul", { class: "offers" }, ...packages.map(row)) : element("p", { class: "faint" }, "Nothing is offered."),
      element("h3", {}, "Slots that can be booked"), list,
      element("p", { class: "faint" }, "To book: ", element("code", {}, "POST /availability/ID/book"), " with any token and an ", element("code", {}, "Idempotency-Key"), "."));
    const { id } = this;
    new Table(list, {
      caption: `slots of ${person.name}`, columns: slotColumns(), id: (slot) => slot.id, sorts: false, searches: false, filterable: false, stacks: true,
      load: async ({ cursor }) => {
        const from = cursor ?? Date.now();
        const { slots, next } = await api(`/celebrities/${id}/availability${queryOf({ from: Math.round(from), to: Math.round(from + 92 * 86_400_000) })}`);
        return { rows: slots, next };
      },
      empty: `No slot in the next three months (looked at ${exactTime(Date.now())}). ${count(person.maxMonthlySlots, "slot")} a month at most.`,
    });
  }
}
