/* The drawer's content for a team (its tier, its intervals, its businesses; for admins) and for a business (where it is placed, its rating,
 * its reviews; for admins and for its team). */

import { sparkline } from "./charts.js";
import { actionButton, count, element, exactTime, exactly, facts, icon, iso, link, moment, number, put, relativeTime } from "./format.js";
import { changeTier, customInterval, followBusiness, removeInterval, retryBusiness, unfollow } from "./schedules-forms.js";
import { auditTable, businessTable } from "./schedules-tables.js";
import { OWN_TIER, PLATFORMS, businesses, every, kindWords, nextWords, teamLink } from "./schedules-words.js";
import { api, queryOf } from "./shell.js";
import { Table, paged } from "./table.js";

const RATINGS_MOST = 60;
const REVIEWS_MOST = 1_000;
const CHANGES = { set: "set", removed: "removed", expired: "ran out", tier: "ended with the tier" };

// ---- a team -------------------------------------------------------------------------------------------------------

const HISTORY_COLUMNS = [
  { key: "atMs", name: "When", type: "time", csv: iso },
  { key: "platform", name: "For", type: "words", format: (_, change) => kindWords(change), csv: (_, change) => kindWords(change) },
  { key: "change", name: "Change", type: "words", format: (change, { hours, reason }) => `${CHANGES[change]}${hours === null ? "" : `: ${every(hours)}`}${reason ? `, ${reason}` : ""}`, exact: (_, { expiresAtMs }) => (expiresAtMs ? `until ${exactTime(expiresAtMs)}` : "") },
  { key: "who", name: "Who", type: "text", format: (who) => who ?? "the server" },
];

export class TeamDetail {
  constructor(page) {
    this.page = page;
    this.id = null;
  }

  open(team) {
    this.id = team;
    this.view = null;
    this.head = element("div", { class: "job-progress team-head" }, element("p", { class: "faint" }, "Loading…"));
    this.actions = element("div", { class: "drawer-actions" });
    this.why = element("p", { class: "faint" });
    this.lines = element("ul", { class: "team-lines" });
    const [members, history, trail] = [element("div"), element("div"), element("div")];
    const path = `/admin/teams/${encodeURIComponent(team)}/custom-interval`;
    this.members = businessTable(members, { team, narrow: true, follow: () => this.follow() });
    this.history = new Table(history, { caption: `own intervals of ${team} over time`, columns: HISTORY_COLUMNS, id: ({ id }) => id, sorts: false, searches: false, load: paged(path, "history", { size: 10 }), empty: "It never had an interval of its own." });
    this.trail = auditTable(trail, { target: `team ${team}` });
    this.read();
    return [this.head, this.actions, this.why, element("h3", {}, "Intervals"), this.lines, element("h3", {}, "Businesses"), members, element("h3", {}, "Own intervals over time"), history, element("h3", {}, "Changes by people"), trail];
  }

  async read() {
    const { id } = this;
    try {
      const view = await api(`/admin/teams/${encodeURIComponent(id)}/schedules`);
      if (this.id === id) this.draw(view);
    } catch (refusal) {
      if (this.id === id && this.view === null) put(this.head, element("p", { class: "table-refusal" }, icon("warn"), refusal.message));
    }
  }

  draw(view) {
    this.view = view;
    put(this.head, element("b", {}, view.tier), element("span", { class: "faint" }, businesses(view.businesses)));
    this.drawActions(view);
    put(this.lines, ...view.lines.map((line) => this.line(line, view)));
    for (const button of this.lines.querySelectorAll("[data-own]")) button.onclick = () => removeInterval(view.own.find((own) => `${own.platform} ${own.type}` === button.dataset.own), { view: this.view, done: () => this.page.changed() });
  }

  drawActions(view) {
    if (this.actions.dataset.may === `${view.team} ${view.tier}`) return;
    this.actions.dataset.may = `${view.team} ${view.tier}`;
    const done = () => this.page.changed();
    const own = actionButton("Own interval…", "clock", () => customInterval(this.view, { done }));
    own.disabled = view.tier !== OWN_TIER;
    this.why.textContent = own.disabled ? `Only ${OWN_TIER} teams may have intervals of their own: change the tier first.` : "";
    this.actions.replaceChildren(actionButton("Change the tier…", "work", () => changeTier(this.view, { done })), own, actionButton("Follow a business…", "plus", () => this.follow()));
  }

  /** What the team has on a platform for a type, and the batches that its businesses are in. */
  line(line, { own }) {
    const mine = own.find(({ platform, type }) => platform === line.platform && type === line.type);
    const until = line.expiresAtMs ? element("span", { title: exactTime(line.expiresAtMs) }, `, runs out ${relativeTime(line.expiresAtMs)}`) : null;
    const words = element("p", {}, element("b", {}, kindWords(line)), ` ${every(line.hours)}`, line.own ? element("span", { class: "own" }, " own interval") : "", until);
    const places = line.placements.map((place) => element("span", { class: "place" }, link("schedule", place.scheduleId, `batch ${place.index}`, { label: `${kindWords(line)}, ${every(place.hours)}, batch ${place.index}: details` }), element("span", { class: "faint", title: exactly(place.nextRunAtMs) }, place.paused ? "paused" : nextWords(place))));
    const remove = mine ? element("button", { type: "button", class: "small", "data-own": `${line.platform} ${line.type}`, "aria-label": `Take away the own interval for ${kindWords(line)}` }, "Take away…") : null;
    return element("li", {}, words, element("div", { class: "places" }, element("span", { class: "faint" }, businesses(line.businesses)), ...places), remove);
  }

  follow() {
    followBusiness({ team: this.id, done: () => this.page.changed() });
  }

  refresh() {
    if (this.id === null) return;
    this.read();
    for (const table of [this.members, this.history, this.trail]) table.refresh();
  }
}

// ---- a business ---------------------------------------------------------------------------------------------------

const REVIEW_COLUMNS = [
  { key: "author", name: "By", type: "words", format: (author) => author ?? "nobody named", csv: (author) => author ?? "" },
  { key: "rating", name: "Rating", type: "number", format: number },
  { key: "text", name: "Review", type: "words", format: (text, { title }) => reviewText(title, text), csv: (text, { title }) => [title, text].filter(Boolean).join(": ") },
  { key: "publishedAtMs", name: "Published", type: "time", format: (ms, review) => published(ms, review), exact: (ms, { edits }) => `${exactly(ms)}${edits > 0 ? `; found changed ${number(edits)} times` : ""}`, csv: iso },
];

function reviewText(title, text) {
  const repeated = title && text?.startsWith(title);
  return element("span", {}, title && !repeated ? element("b", {}, `${title} `) : "", text ?? (title ? "" : "no words"));
}

/** Leads to the review where its platform shows it; an address that is no https one is not followed. */
export function published(ms, { url }) {
  const words = ms ? relativeTime(ms) : "no date";
  return url?.startsWith("https://") ? element("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, words) : words;
}

export class BusinessDetail {
  constructor(page) {
    this.page = page;
    this.id = null;
  }

  /** `where`: {id, platform, team}. */
  open(where) {
    this.id = where.id;
    this.where = where;
    this.profile = null;
    this.path = `/api/${where.platform}/profile/${encodeURIComponent(where.team)}`;
    this.head = element("div", { class: "job-progress rating" }, element("p", { class: "faint" }, "Loading…"));
    this.actions = element("div", { class: "drawer-actions" });
    this.about = element("dl", { class: "fact-list" });
    const reviews = element("div");
    this.reviews = new Table(reviews, {
      caption: `reviews of business ${where.id}`, name: "reviews", columns: REVIEW_COLUMNS, id: ({ id }) => id, sorts: false, searches: false, stacks: true, max: REVIEWS_MOST,
      load: paged(`${this.path}/${where.id}/reviews`, "reviews", { mark: "after" }), empty: "No review yet: they come with the next run of its batch.",
    });
    this.read();
    return [this.head, this.actions, this.about, element("h3", {}, "Reviews"), reviews];
  }

  async read() {
    const { id, path, where } = this;
    try {
      const [{ profiles }, overview] = await Promise.all([api(`${path}${queryOf({ after: id > 1 ? id - 1 : null, limit: 1 })}`), api(`${path}/${id}/overview?limit=${RATINGS_MOST}`)]);
      if (this.id !== id || this.path !== path) return;
      const profile = profiles.find((found) => found.id === id);
      if (profile === undefined) throw new Error(`${where.team} has no business ${id} on ${PLATFORMS[where.platform]}.`);
      this.draw(profile, overview);
    } catch (refusal) {
      if (this.id === id && this.path === path && this.profile === null) put(this.head, element("p", { class: "table-refusal" }, icon("warn"), refusal.message));
    }
  }

  draw(profile, { latest, history }) {
    this.profile = profile;
    this.page.titled(profile.name || `Business ${profile.id}`, `Business ${profile.id} · ${PLATFORMS[profile.platform]}`);
    put(this.head, ...ratingNodes(latest, history));
    const team = this.page.admin ? teamLink(profile.team) : profile.team;
    facts(this.about, [["Team", team], ["Known as", profile.identifier], ...(profile.status === "active" ? [] : [["Status", profile.status]]), ...profile.placements.toReversed().flatMap((place) => this.placement(place))]);
    this.drawActions(profile);
  }

  placement(place) {
    const name = { reviews: "Reviews", overview: "Overview" }[place.type];
    const words = `${every(place.hours)}, ${place.paused ? "paused" : `next ${nextWords(place)}`}`;
    const batch = this.page.admin ? [[`${name} in`, link("schedule", place.scheduleId, `batch ${place.index}`, { label: `${name}: batch ${place.index}, details` })]] : [];
    return [[name, words, exactly(place.nextRunAtMs)], ...batch, moment(`${name} last`, place.lastRunAtMs)];
  }

  drawActions(profile) {
    if (this.actions.dataset.may === `${profile.id} ${profile.platform}`) return;
    this.actions.dataset.may = `${profile.id} ${profile.platform}`;
    const done = () => this.page.changed();
    const gone = () => this.page.businessGone();
    const retry = () => retryBusiness({ businessId: this.profile.id, team: this.profile.team, platform: this.profile.platform }, { done });
    this.actions.replaceChildren(...[this.page.admin ? actionButton("Fetch again…", "work", retry) : null, actionButton("Add a platform…", "plus", () => followBusiness({ team: this.profile.team, business: this.profile, done })),
      actionButton("Stop following…", "close", () => unfollow(this.profile, { done: gone }))].filter(Boolean));
  }

  refresh() {
    if (this.id === null) return;
    this.read();
    this.reviews.refresh();
  }
}

/** The newest rating with its time, and the course of what is known of it, from its lowest to its highest. */
export function ratingNodes(latest, history) {
  if (latest === null) return [element("p", { class: "faint" }, "No rating yet: it comes with the next run for overviews.")];
  const ratings = history.map(({ rating }) => rating).filter((rating) => rating !== null).reverse();
  const [low, high] = [Math.min(...ratings), Math.max(...ratings)];
  const steady = ratings.length > 1 && low === high ? `, the same the last ${number(ratings.length)} times` : "";
  const words = `${latest.reviewCount === null ? "" : `${count(latest.reviewCount, "review")}, `}${relativeTime(latest.fetchedAtMs)}${steady}`;
  const nodes = [element("b", { class: "pace-figure" }, latest.rating === null ? "no rating" : number(latest.rating)), element("span", { class: "faint", title: exactTime(latest.fetchedAtMs) }, words)];
  if (low >= high) return nodes;
  const label = `Rating the last ${number(ratings.length)} times, between ${number(low)} and ${number(high)}: ${ratings.map(number).join(", ")}`;
  return [...nodes, sparkline(ratings.map((rating) => (rating - low) / (high - low)), label, { width: 120, height: 28 })];
}
