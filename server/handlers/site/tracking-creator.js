/* What a creator sees: the money as tiles, the own posts, campaigns that take posts, payouts, notifications and earnings; nobody else's.
 * Creators have no topic to follow: the page asks again every so often. */

import { element, money, setText, tile } from "./format.js";
import { ledgerTable, notificationTable, openCampaignTable, payoutTable, submissionTable } from "./tracking-tables.js";
import { requestPayout } from "./tracking-payouts.js";

/** The tables of a creator, by the names they have on the page. */
export function creatorTables(page) {
  const place = (id) => document.getElementById(id);
  return {
    submissions: submissionTable(place("posts"), { page, own: true }), campaigns: openCampaignTable(place("open-campaigns"), { page }), payouts: payoutTable(place("own-payouts"), { page, own: true }),
    notifications: notificationTable(place("notifications")), ledger: ledgerTable(place("ledger")),
  };
}

export class Balance {
  constructor(page) {
    this.page = page;
    const figure = () => element("b", { class: "pace-figure" }, "–");
    const about = (words) => element("p", { class: "faint" }, words);
    Object.assign(this, { payable: figure(), active: figure(), requested: figure(), paid: figure(), why: about("") });
    this.ask = element("button", { type: "button", class: "primary", disabled: true, onclick: () => this.request() }, "Request a payout…");
    document.getElementById("balance").replaceChildren(tile("Payable now", this.payable, this.why, this.ask), tile("In active campaigns", this.active, about("Earned already; payable once the campaign is completed.")),
      tile("Asked for", this.requested, about("In a request that is not paid yet.")), tile("Paid out", this.paid, about("So far, after fees.")));
  }

  draw(balance) {
    this.balance = balance;
    for (const [name, cents] of [["payable", balance.payableCents], ["active", balance.activeCents], ["requested", balance.requestedCents], ["paid", balance.paidCents]]) setText(this[name], money(cents));
    const open = balance.requestedCents > 0;
    const short = balance.payableCents < balance.minimumCents;
    this.ask.disabled = open || short;
    setText(this.why, open ? "One request at a time: yours is still open." : short ? `A payout is ${money(balance.minimumCents)} at least.` : "Earned in campaigns that are completed.");
  }

  request() {
    requestPayout(this.balance, { done: () => this.page.changed() });
  }
}
