/* The tables of the schedules page: batches, teams, own intervals that run out, the retry queue, runs, the audit trail, and a team's
 * businesses. Each pages by cursor; read again quietly, it asks for as many rows as it holds, so that all of them stay true. */

import { badgeOf, element, exactTime, exactly, iso, link, number, relativeTime } from "./format.js";
import { pauseSchedule, resumeSchedule, retryBusiness, triggerSchedule } from "./schedules-forms.js";
import { ACTIONS, HEALTH, HOURS, KINDS, PLATFORMS, RETRIES, RUNS, STATES, TYPES, batchWords, businessLink, changeWords, every, healthBadge, kindWords, loadCell, nextWords, runLink, stateBadge,
  stateWords, teamLink } from "./schedules-words.js";
import { api, queryOf } from "./shell.js";
import { REFRESHED_MOST, Table, paged } from "./table.js";

const PAGE = 50;
// On a phone each row is a card: more of them are a press away.
const BATCH_PAGE = matchMedia("(max-width: 760px)").matches ? 12 : 100;
const SOON_DAYS = 30;
const HOURS_TEXT = /^[1-9]\d{0,2}$/;

const optionsOf = (all, any) => [["", any], ...Object.entries(all).map(([value, words]) => [value, words.words ?? (typeof words === "string" ? words : value)])];
const changeButton = (words, label, clicked) => element("button", { type: "button", class: "small", "aria-label": label, onclick: clicked }, words);
const code = (words) => element("code", {}, words);

// ---- batches ------------------------------------------------------------------------------------------------------

const batchKey = ({ platform, type, hours, index }) => `${platform}:${type}:${hours}:${index}`;
export const batchRow = (batch) => ({ ...batch, key: batchKey(batch), name: batchWords(batch), state: stateWords(batch) });

export function batchTable(place, { done }) {
  const name = (words, { id }) => (id === null ? element("span", { class: "faint" }, words) : link("schedule", id, words));
  const columns = [
    { key: "name", name: "Batch", type: "text", format: name, csv: (words) => words },
    { key: "businesses", name: "Businesses", type: "number", format: (value, { capacity }) => `${number(value)} of ${number(capacity)}` },
    { key: "load", name: "Load", type: "number", format: (_, batch) => (batch.id === null ? "–" : loadCell(batch)), csv: (load) => load },
    { key: "health", name: "Health", type: "text", format: (health, { id }) => (id === null ? "–" : healthBadge(health)), csv: (health) => health },
    { key: "state", name: "State", type: "text", format: (_, batch) => stateBadge(batch) },
    { key: "nextRunAtMs", name: "Next run", type: "time", format: (_, batch) => nextWords(batch), exact: exactly, csv: iso },
    { key: "lastRunAtMs", name: "Last run", type: "time", csv: iso },
    { key: "id", name: "Do", type: "text", sortable: false, format: (_, batch) => batchActions(batch, done), csv: (id) => id },
  ];
  const choices = [
    { key: "platform", name: "Platform", options: optionsOf(PLATFORMS, "Any platform") },
    { key: "type", name: "Type", options: optionsOf(TYPES, "Any type") },
    { key: "hours", name: "Interval", options: hourOptions(HOURS), accepts: (value) => HOURS_TEXT.test(value) },
    { key: "health", name: "Health", options: optionsOf(HEALTH, "Any health") },
    { key: "state", name: "State", options: optionsOf(STATES, "Any state") },
  ];
  const query = ({ platform, type, hours, health, state }) => ({ platform, type, hours, health, state });
  return new Table(place, {
    caption: "batches", name: "batches", columns, choices, id: ({ key }) => key, sorts: false, searches: false, stacks: true, max: REFRESHED_MOST,
    load: paged("/admin/schedules", "schedules", { mark: "after", size: BATCH_PAGE, query, row: batchRow }), empty: "No batch.",
  });
}

export const hourOptions = (hours) => [["", "Any interval"], ...hours.map((value) => [String(value), every(value)])];

function batchActions(batch, done) {
  if (batch.id === null) return "–";
  const turn = batch.paused ? ["Resume…", "Resume", resumeSchedule] : ["Pause…", "Pause", pauseSchedule];
  return element("div", { class: "row-actions" }, batch.empty ? null : changeButton("Run…", `Run ${batch.name} now`, () => triggerSchedule(batch, { done })),
    changeButton(turn[0], `${turn[1]} ${batch.name}`, () => turn[2](batch, { done })));
}

// ---- teams --------------------------------------------------------------------------------------------------------

export function teamTable(place, { importing }) {
  const columns = [
    { key: "team", name: "Team", type: "text", format: teamLink, csv: (team) => team },
    { key: "tier", name: "Tier", type: "text" },
    { key: "businesses", name: "Businesses", type: "number", format: number },
  ];
  return new Table(place, {
    caption: "teams", name: "teams", columns, id: ({ team }) => team, sorts: false, searches: true, max: REFRESHED_MOST,
    load: paged("/admin/teams", "teams", { mark: "after", query: ({ filter }) => ({ search: filter.trim() }) }),
    empty: () => ["No team yet: it begins with its first business. ", changeButton("Import businesses…", null, importing), " or ", code("batchcast schedules import FILE"), ", from a script ", code("POST /api/google/profile"), "."],
  });
}

export function expiringTable(place) {
  const columns = [
    { key: "expiresAtMs", name: "Runs out", type: "time", csv: iso },
    { key: "team", name: "Team", type: "text", format: teamLink, csv: (team) => team },
    { key: "platform", name: "For", type: "text", format: (_, own) => kindWords(own), csv: (_, own) => kindWords(own) },
    { key: "hours", name: "Interval", type: "number", format: every, csv: (hours) => hours },
    { key: "reason", name: "Reason", type: "words" },
    { key: "setBy", name: "Set by", type: "text", phone: false },
  ];
  const row = (own) => ({ ...own, key: `${own.team} ${own.platform} ${own.type}` });
  return new Table(place, {
    caption: "own intervals that run out soon", name: "expiring", columns, id: ({ key }) => key, sorts: false, searches: false, stacks: true,
    load: paged("/admin/custom-intervals", "expiring", { query: () => ({ withinDays: SOON_DAYS }), size: REFRESHED_MOST, row }), empty: "None. Only enterprise teams may have intervals of their own; they are set in the team’s details.",
  });
}

// ---- retries ------------------------------------------------------------------------------------------------------

export function retryTable(place, { done }) {
  const columns = [
    { key: "businessId", name: "Business", type: "text", format: (id, { team, platform }) => businessLink({ id, team, platform }, `#${id}`), csv: (id) => id },
    { key: "team", name: "Team", type: "text", format: teamLink, csv: (team) => team },
    { key: "platform", name: "For", type: "text", format: (_, retry) => kindWords(retry), csv: (_, retry) => kindWords(retry) },
    { key: "state", name: "State", type: "text", format: (state) => badgeOf(RETRIES, state), csv: (state) => RETRIES[state].words },
    { key: "attempts", name: "Retries", type: "number", format: number, exact: () => "Retries that were started" },
    { key: "nextRetryAtMs", name: "Next", type: "time", format: (ms) => nextWords({ nextRunAtMs: ms }), exact: exactly, csv: iso },
    { key: "lastError", name: "Why", type: "words" },
    { key: "createdAtMs", name: "First failed", type: "time", csv: iso, phone: false },
    { key: "id", name: "Do", type: "text", sortable: false, format: (_, retry) => (retry.state === "running" ? "–" : changeButton("Retry…", `Retry business ${retry.businessId}, ${kindWords(retry)}`, () => retryBusiness(retry, { done }))), csv: (id) => id },
  ];
  return new Table(place, {
    caption: "retries", name: "retries", columns, choices: [{ key: "state", name: "State", options: optionsOf(RETRIES, "Any state") }], id: ({ id }) => id, sorts: false, searches: false, stacks: true, max: REFRESHED_MOST,
    load: paged("/admin/retries", "retries", { mark: "after", query: ({ state }) => ({ state }) }), empty: "Nothing to retry: every business was found when it was asked for.",
  });
}

// ---- runs ---------------------------------------------------------------------------------------------------------

export const RUN_COLUMNS = [
  { key: "id", name: "Run", type: "text", format: runLink, csv: (id) => id },
  { key: "state", name: "State", type: "text", format: (_, run) => runBadge(run), csv: (state) => RUNS[state].words },
  { key: "platform", name: "For", type: "text", format: (_, run) => runFor(run), csv: (_, run) => `${kindWords(run)}${run.businessId === null ? "" : `, business ${run.businessId}`}` },
  { key: "kind", name: "Begun", type: "text", format: (kind) => KINDS[kind], phone: false },
  { key: "asked", name: "Asked", type: "number", format: number, exact: () => "Businesses that were asked for" },
  { key: "items", name: "Items", type: "number", format: number, exact: (_, { attributed, unasked }) => `${number(attributed)} attributed, ${number(unasked)} that nobody asked for` },
  { key: "missing", name: "Not found", type: "number", format: number, exact: () => "Businesses of which nothing came" },
  { key: "error", name: "Error", type: "words", phone: false },
  { key: "createdAtMs", name: "Made", type: "time", csv: iso },
];

/** Finished at the provider is not yet read here. */
export function runBadge({ state, processedAtMs }) {
  const read = state !== "succeeded" || processedAtMs !== null;
  return badgeOf(RUNS, state, read ? RUNS[state].words : "succeeded, to be read");
}

function runFor(run) {
  if (run.scheduleId !== null) return link("schedule", run.scheduleId, kindWords(run), { label: `${kindWords(run)}: the batch of run ${run.id}` });
  return element("span", {}, kindWords(run), run.businessId === null ? "" : `, business #${run.businessId}`);
}

export function runTable(place, { path = "/admin/runs", name = "runs", caption = "runs", columns = RUN_COLUMNS, stacks = true } = {}) {
  return new Table(place, {
    caption, name, columns, choices: [{ key: "state", name: "State", options: optionsOf(RUNS, "Any state") }], id: ({ id }) => id, sorts: false, searches: false, stacks, max: REFRESHED_MOST,
    load: paged(path, "runs", { query: ({ state }) => ({ state }) }), empty: "No run yet: batches run when they are due, or by hand.",
  });
}

// ---- the trail ----------------------------------------------------------------------------------------------------

const AUDIT_COLUMNS = [
  { key: "id", name: "Entry", type: "text" },
  { key: "atMs", name: "When", type: "time", csv: iso },
  { key: "who", name: "Who", type: "text", format: (who) => who ?? "the server" },
  { key: "action", name: "Action", type: "text" },
  { key: "target", name: "To what", type: "words", format: (target) => target ?? "–" },
  { key: "after", name: "Change", type: "words", format: (_, entry) => changeWords(entry) || "–", exact: (_, { before, after }) => JSON.stringify({ before, after }), csv: (_, entry) => changeWords(entry) },
];

/** The trail, or with a `target` what was done to that one. */
export function auditTable(place, { target = null } = {}) {
  const whole = target === null;
  return new Table(place, {
    caption: whole ? "audit trail" : `changes of ${target}`, name: whole ? "audit" : null, columns: whole ? AUDIT_COLUMNS : AUDIT_COLUMNS.filter(({ key }) => key !== "target"), id: ({ id }) => id, sorts: false, searches: false, stacks: true,
    max: REFRESHED_MOST, choices: whole ? [{ key: "action", name: "Action", options: [["", "Every action of every system"], ...ACTIONS.map((action) => [action, action])] }] : [],
    load: paged("/admin/audit", "entries", { query: ({ action }) => ({ action, target }), size: whole ? PAGE : 10 }), empty: "Nothing was changed yet.",
  });
}

// ---- a team's businesses ------------------------------------------------------------------------------------------

const placed = (type) => (_, { placements }) => {
  const found = placements.find((placement) => placement.type === type);
  return found === undefined ? "–" : `${every(found.hours)}${found.paused ? ", paused" : found.nextRunAtMs <= Date.now() ? ", due" : `, ${relativeTime(found.nextRunAtMs)}`}`;
};
const placedExact = (type) => (_, { placements }) => {
  const found = placements.find((placement) => placement.type === type);
  return found === undefined ? "" : `Next run ${exactTime(found.nextRunAtMs)}${found.lastRunAtMs ? `, last ${exactTime(found.lastRunAtMs)}` : ""}`;
};

const BUSINESS_COLUMNS = [
  { key: "name", name: "Business", type: "text", format: (name, profile) => businessLink(profile, name || `#${profile.id}`), csv: (name) => name },
  { key: "platform", name: "Platform", type: "text", format: (platform) => PLATFORMS[platform] },
  { key: "reviews", name: "Reviews", type: "text", format: placed("reviews"), exact: placedExact("reviews"), csv: placed("reviews"), sortable: false },
  { key: "overview", name: "Overview", type: "text", format: placed("overview"), exact: placedExact("overview"), csv: placed("overview"), sortable: false },
  { key: "identifier", name: "Known as", type: "words" },
];

/** The businesses of a team on all its platforms; `narrow` for the drawer. */
export function businessTable(place, { team, follow, name = null, narrow = false }) {
  const columns = narrow ? BUSINESS_COLUMNS.filter(({ key }) => !(key in TYPES)) : BUSINESS_COLUMNS;
  return new Table(place, {
    caption: `businesses of ${team}`, name, columns, id: ({ key }) => key, sorts: false, searches: false, stacks: true, max: REFRESHED_MOST,
    choices: [{ key: "platform", name: "Platform", options: optionsOf(PLATFORMS, "Any platform") }],
    async load({ cursor, platform }) {
      return loadBusinesses(team, { cursor, platform, wanted: cursor === null ? Math.max(PAGE, this.rows.length) : PAGE });
    },
    empty: () => ["No business yet. ", changeButton("Follow one…", null, follow), " or, from a script, ", code("POST /api/google/profile"), "."],
  });
}

/** One platform after the other, until there is a page of rows; the cursor names the platform too. */
async function loadBusinesses(team, { cursor, platform, wanted }) {
  const platforms = platform ? [platform] : Object.keys(PLATFORMS);
  const rows = [];
  let { at, after } = cursor ?? { at: 0, after: null };
  while (at < platforms.length && rows.length < wanted) {
    const { profiles, next } = await api(`/api/${platforms[at]}/profile/${encodeURIComponent(team)}${queryOf({ after, limit: wanted - rows.length })}`);
    rows.push(...profiles.map((profile) => ({ ...profile, key: `${profile.platform} ${profile.id}` })));
    if (next === null) at += 1;
    after = next;
  }
  return { rows, next: at < platforms.length ? { at, after } : null };
}
