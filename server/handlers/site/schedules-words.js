/* What schedules, batches, businesses, runs, retries and the audit trail look like in words and small pieces of page: the same in
 * tables, tiles and the drawer. */

import { stackedBar } from "./charts.js";
import { badgeOf, count, element, link, number, percent, relativeTime } from "./format.js";

export const PLATFORMS = { google: "Google", facebook: "Facebook", tripadvisor: "TripAdvisor", booking: "Booking" };
export const TYPES = { reviews: "reviews", overview: "overview" };
export const HOURS = [6, 12, 24, 72];

/** How often a tier's businesses are asked for, in hours. */
export const TIERS = { starter: { reviews: 24, overview: 48 }, professional: { reviews: 12, overview: 24 }, enterprise: { reviews: 6, overview: 12 } };
export const OWN_TIER = "enterprise";
export const HOURS_MOST = 168;

/** How full a batch is. */
export const HEALTH = {
  healthy: { icon: "check", tone: "completed", about: "Below 80 % of what it holds" },
  warning: { icon: "warn", tone: "scheduled", about: "80 % or more of what it holds" },
  critical: { icon: "critical", tone: "failed", about: "95 % or more of what it holds" },
};

/** Facts about a batch; more than one may hold. */
export const STATES = {
  active: { icon: "live", tone: "completed", words: "active", about: "Runs when it is due" },
  paused: { icon: "pause", tone: "scheduled", words: "paused", about: "By an administrator: no runs, no further businesses" },
  empty: { icon: "minus", tone: "cancelled", words: "empty", about: "No business is in it" },
  aside: { icon: "stop", tone: "cancelled", words: "set aside", about: "Emptied by consolidation; used again when it is needed" },
};

export const RUNS = {
  intended: { icon: "wait", tone: "cancelled", words: "to start", about: "Noted, not asked for yet" },
  starting: { icon: "work", tone: "processing", words: "starting", about: "The provider is being asked" },
  unknown: { icon: "clock", tone: "scheduled", words: "unsure", about: "Nobody knows whether it was started; the provider’s list is looked through" },
  running: { icon: "work", tone: "processing", words: "running", about: "The provider is at it" },
  succeeded: { icon: "check", tone: "completed", words: "succeeded", about: "The provider has finished" },
  failed: { icon: "warn", tone: "failed", words: "failed", about: "The provider gave up" },
  aborted: { icon: "stop", tone: "failed", words: "aborted", about: "Stopped at the provider" },
  timed_out: { icon: "clock", tone: "failed", words: "timed out", about: "It took the provider too long" },
  refused: { icon: "critical", tone: "failed", words: "refused", about: "The provider did not want to start it" },
  skipped: { icon: "minus", tone: "cancelled", words: "skipped", about: "There was nothing to ask for" },
};

export const RETRIES = {
  waiting: { icon: "clock", tone: "scheduled", words: "waiting", about: "Tried again by itself when it is due" },
  running: { icon: "work", tone: "processing", words: "trying", about: "A run of its own is under way" },
  resolved: { icon: "check", tone: "completed", words: "resolved", about: "Something was found" },
  failed: { icon: "warn", tone: "failed", words: "failed", about: "Given up after the last retry; it can be tried again" },
};

export const KINDS = { scheduled: "on time", triggered: "by hand", retry: "retry" };

/** What the trail calls the changes of schedules. */
export const ACTIONS = ["schedules.profile.created", "schedules.profile.deleted", "schedules.tier", "schedules.custom_interval.set", "schedules.custom_interval.removed", "schedules.pause", "schedules.resume",
  "schedules.trigger", "schedules.retry", "schedules.import", "schedules.rebalance", "schedules.consolidate"];

// ---- names --------------------------------------------------------------------------------------------------------

export const every = (hours) => `every ${number(hours)} h`;

/** "Google reviews". */
export const kindWords = ({ platform, type }) => `${PLATFORMS[platform] ?? platform} ${TYPES[type] ?? type}`;

/** "Google reviews, every 6 h". */
export const lineWords = (line) => `${kindWords(line)}, ${every(line.hours)}`;

/** "Google reviews, every 6 h, batch 0". */
export const batchWords = (batch) => `${lineWords(batch)}, batch ${batch.index}`;

export const businesses = (value) => count(value, "business", "businesses");
export const batches = (value) => count(value, "batch", "batches");

export const teamLink = (team) => link("team", team, team, { label: `Team ${team}: details` });
export const runLink = (id) => link("run", id, `#${id}`, { label: `Run ${id}: details` });
export const businessLink = ({ id, team, platform }, words) => link("business", id, words, { of: team, platform, label: `${words}: details` });

// ---- batches ------------------------------------------------------------------------------------------------------

/** What holds of a batch, the weightiest first. */
export function statesOf({ id, active, paused, empty }) {
  if (id === null) return ["empty"];
  const found = [paused && "paused", !active && "aside", empty && "empty"].filter(Boolean);
  return found.length > 0 ? found : ["active"];
}

export const stateWords = (batch) => (batch.id === null ? "not made yet" : statesOf(batch).map((name) => STATES[name].words).join(", "));
export const stateBadge = (batch) => badgeOf(STATES, statesOf(batch)[0], stateWords(batch));
export const healthBadge = (health) => badgeOf(HEALTH, health, health);

/** How much of what it holds, as a bar and a number. */
export function loadBar({ businesses: value, capacity, health }, about) {
  const bar = stackedBar([{ name: "load", value: Math.min(value, capacity) }], Math.max(1, capacity), `Load of ${about}: ${number(value)} of ${number(capacity)}`);
  return element("span", { class: "load", "data-status": HEALTH[health].tone }, bar);
}

export function loadCell(batch) {
  return element("div", { class: "load-cell" }, loadBar(batch, batchWords(batch)), element("span", {}, percent(batch.load)));
}

/** When a batch runs next: nothing where none is to come, "due" when it should have begun. */
export function nextWords({ nextRunAtMs, paused = false, empty = false }) {
  if (nextRunAtMs === null || paused === true || empty) return "–";
  return nextRunAtMs <= Date.now() ? "due" : relativeTime(nextRunAtMs);
}

// ---- the trail ----------------------------------------------------------------------------------------------------

const valueWords = (value) => (value === null ? "none" : Array.isArray(value) ? value.map(valueWords).join(" ") : typeof value === "object" ? JSON.stringify(value) : String(value));

const BLANK = new Set(["", null]);

/** "tier: starter → enterprise, moved: 4": what a change was about, without what was blank and still is. */
export function changeWords({ before, after }) {
  const plain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  if (!plain(before) && !plain(after)) return [before, after].filter((value) => value !== null && value !== undefined).map(valueWords).join(" → ");
  const [old, now] = [plain(before) ? before : {}, plain(after) ? after : {}];
  const line = (key) => [key in old ? valueWords(old[key]) : null, key in now ? valueWords(now[key]) : null].filter((words) => words !== null).join(" → ");
  return [...new Set([...Object.keys(old), ...Object.keys(now)])].filter((key) => !BLANK.has(old[key] ?? null) || !BLANK.has(now[key] ?? null)).map((key) => `${key}: ${line(key)}`).join(", ");
}
