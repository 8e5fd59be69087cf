/* What campaigns, posts, observations, runs and payouts look like in words and small pieces of page: the same in tables, tiles and the drawer. */

import { stackedBar } from "./charts.js";
import { badge, badgeOf, count, element, link, money, number } from "./format.js";

/** Health, by the share of checks that brought a count, in per cent. */
export const HEALTHY_ABOVE = 90;
export const DEGRADED_ABOVE = 70;

export const PLATFORMS = { tiktok: "TikTok", instagram: "Instagram", youtube: "YouTube", x: "X" };

export const CAMPAIGNS = {
  ACTIVE: { icon: "live", tone: "completed", words: "active", about: "Takes posts, and pays for views while there is money left" },
  PAUSED: { icon: "pause", tone: "scheduled", words: "paused", about: "By an administrator: no posts, no earnings, no checks" },
  COMPLETED: { icon: "check", tone: "cancelled", words: "completed", about: "The money is granted or it was ended by hand; views are still noted once a day" },
};

export const SUBMISSIONS = {
  PENDING: { icon: "wait", tone: "scheduled", words: "to decide", about: "Waits for an administrator; it earns nothing until it is approved" },
  APPROVED: { icon: "check", tone: "completed", words: "approved", about: "Earns for views above its baseline while the campaign is active" },
  REJECTED: { icon: "stop", tone: "cancelled", words: "rejected", about: "By an administrator: it earns nothing more" },
};

export const PAYOUTS = {
  PENDING: { icon: "wait", tone: "scheduled", words: "to decide", about: "Waits for an administrator" },
  APPROVED: { icon: "clock", tone: "processing", words: "to pay", about: "Approved: the money is to be sent, then completed with its transaction id" },
  COMPLETED: { icon: "check", tone: "completed", words: "paid", about: "The money was sent" },
  REJECTED: { icon: "stop", tone: "cancelled", words: "rejected", about: "By an administrator; the money is payable again" },
  REVERTED: { icon: "warn", tone: "failed", words: "reverted", about: "It was paid and came back; the money is payable again" },
};

/** What became of one count of a post. */
export const OBSERVATIONS = {
  counted: { icon: "check", tone: "completed", words: "counted", about: "The best count so far" },
  lower: { icon: "down", tone: "scheduled", words: "lower", about: "Below the count before; the best one is kept" },
  late: { icon: "clock", tone: "cancelled", words: "late", about: "Older than one that was counted already" },
  held: { icon: "wait", tone: "scheduled", words: "held", about: "More than 20 times and 100,000 views at once: an administrator looks at it" },
  accepted: { icon: "check", tone: "completed", words: "accepted", about: "A jump that an administrator let pass" },
  rejected: { icon: "stop", tone: "failed", words: "rejected", about: "A jump that an administrator did not believe" },
};

/** Why a run ended; `running` has none yet. */
export const RUNS = {
  running: { icon: "work", tone: "processing", words: "running", about: "Posts are being looked at" },
  done: { icon: "check", tone: "completed", words: "done", about: "Every post that was due was looked at" },
  time_limit: { icon: "clock", tone: "scheduled", words: "out of time", about: "The time of a run was over; what is left stays due" },
  quota: { icon: "critical", tone: "failed", words: "out of quota", about: "The month’s calls are used up; what is left stays due" },
  provider_auth: { icon: "key", tone: "failed", words: "not let in", about: "The provider refused the token: see APIFY_TOKEN" },
  stopped: { icon: "stop", tone: "cancelled", words: "stopped", about: "By an administrator; what is left stays due" },
  lost: { icon: "offline", tone: "failed", words: "lost", about: "Its server went away in the middle; what was left stays due" },
};

export const HEALTH = {
  HEALTHY: { icon: "check", tone: "completed", words: "healthy", about: "More than 90 % of the checks of the last 24 hours brought a count" },
  DEGRADED: { icon: "warn", tone: "scheduled", words: "degraded", about: "Between 70 % and 90 % of the checks of the last 24 hours brought a count" },
  UNHEALTHY: { icon: "critical", tone: "failed", words: "unhealthy", about: "At most 70 % of the checks of the last 24 hours brought a count" },
  STALE: { icon: "clock", tone: "failed", words: "stale", about: "The last run is longer ago than two intervals" },
  NO_DATA: { icon: "minus", tone: "cancelled", words: "no data", about: "No run in the last 24 hours" },
};

/** Whether a post can be looked at. */
export const CLIPS = {
  ok: { icon: "check", tone: "completed", words: "tracked", about: "Looked at when it is due" },
  unavailable: { icon: "warn", tone: "failed", words: "not found", about: "The platform said three times that there is no such post" },
  unsupported: { icon: "minus", tone: "cancelled", words: "not supported", about: "No actor is set for its platform; no number is invented" },
};

export const BASELINES = {
  submission: "views since it was submitted",
  approval: "views since it was approved",
  zero: "all views",
};

export const optionsOf = (all, any) => [["", any], ...Object.entries(all).map(([value, words]) => [value, words.words ?? words])];

// ---- names --------------------------------------------------------------------------------------------------------

export const platformWords = (platform) => PLATFORMS[platform] ?? platform;

const POST_ID_MOST = 12;

/** "TikTok …90123456": a post, short enough for a table. */
export const shortPost = ({ platform, postId }) => `${platformWords(platform)} ${postId.length > POST_ID_MOST ? `…${postId.slice(-8)}` : postId}`;

/** "TikTok 7301234567890123456". */
export const postWords = ({ platform, postId }) => `${platformWords(platform)} ${postId}`;

export const campaignLink = (id, name) => link("campaign", id, name, { label: `Campaign ${name}: details` });
export const submissionLink = (id, words, whole = words) => link("submission", id, words, { label: `Post ${id}, ${whole}: details` });
export const runLink = (id) => link("run", id, `#${id}`, { label: `Run ${id}: details` });
export const payoutLink = (id) => link("payout", id, `#${id}`, { label: `Payout request ${id}: details` });

/** Leads to the post where its platform shows it; an address that is no https one is not followed. */
export const openPost = (url, words) => (url?.startsWith("https://") ? element("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, words) : element("span", {}, words));

export const views = (value) => (value === null || value === undefined ? "–" : number(value));
export const viewWords = (value) => (value === null || value === undefined ? "not counted yet" : count(value, "view"));

/** Cents for 1,000 views: "$1.50 per 1,000 views". */
export const rateWords = (cents) => `${money(cents)} per 1,000 views`;

/** Millionths of a dollar, in dollars and cents. */
export const microsWords = (micros) => money(Math.round(micros / 10_000));

/** Hundredths of a per cent: 250 is "2.5 %". */
export const basisWords = (basis) => (basis === null || basis === undefined ? "–" : `${number(basis / 100)} %`);

export const campaignBadge = (status) => badgeOf(CAMPAIGNS, status);
export const submissionBadge = (status) => badgeOf(SUBMISSIONS, status);
export const payoutBadge = (status) => badgeOf(PAYOUTS, status);
export const observationBadge = (state) => badgeOf(OBSERVATIONS, state);
export const clipBadge = (state) => badgeOf(CLIPS, state);
export const runBadge = ({ stopReason }) => badgeOf(RUNS, stopReason ?? "running");

/** A success rate in per cent: green, amber and red where health is; the number is the word. */
export function rateBadge(rate) {
  if (rate === null) return "–";
  const [tone, picture] = rate > HEALTHY_ABOVE ? ["completed", "check"] : rate > DEGRADED_ABOVE ? ["scheduled", "warn"] : ["failed", "critical"];
  return badge(tone, picture, `${number(rate)} %`);
}

export const healthBadge = (status, words = HEALTH[status]?.words) => (status in HEALTH ? badgeOf(HEALTH, status, words) : badge("cancelled", "minus", status));

// ---- budgets ------------------------------------------------------------------------------------------------------

/** "$1,200 granted, $300 held back, $500 left of $2,000". */
export function budgetWords({ budgetCents, reservedCents, spentCents, leftCents }) {
  const held = reservedCents > 0 ? `, ${money(reservedCents)} held back` : "";
  return `${money(spentCents)} granted${held}, ${money(leftCents)} left of ${money(budgetCents)}`;
}

export function budgetBar(campaign) {
  const { name, budgetCents, reservedCents, spentCents } = campaign;
  const parts = [{ name: "spent", value: spentCents }, { name: "left", value: budgetCents - reservedCents - spentCents }, { name: "reserved", value: reservedCents }];
  return element("span", { class: "budget" }, stackedBar(parts, Math.max(1, budgetCents), `Budget of ${name}: ${budgetWords(campaign)}`));
}

/** The bar with what is left in words beside it. */
export const budgetCell = (campaign) => element("div", { class: "budget-cell" }, budgetBar(campaign), element("span", {}, `${money(campaign.leftCents)} left`));
