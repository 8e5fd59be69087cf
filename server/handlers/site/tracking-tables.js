/* The tables of the tracking page and of its drawer: what they load, their columns, their buttons. Each is read again on a hint, so none
 * of them stays true by itself. A creator's tables are the same without what is an administrator's. */

import { badge, element, exactly, iso, money, number, relativeTime, smallButton } from "./format.js";
import { acceptHeld, approveSubmission, rejectHeld, pauseCampaign, reactivateCampaign, rejectSubmission, retryScrape } from "./tracking-forms.js";
import { approvePayout, completePayout, rejectPayout, revertPayout } from "./tracking-payouts.js";
import {
  BASELINES, CAMPAIGNS, OBSERVATIONS, PAYOUTS, SUBMISSIONS, basisWords, budgetCell, budgetWords, campaignBadge, campaignLink, clipBadge, microsWords, observationBadge, openPost, optionsOf, payoutBadge, payoutLink, platformWords, postWords,
  rateBadge, rateWords, runBadge, runLink, shortPost, submissionBadge, submissionLink, views,
} from "./tracking-words.js";
import { REFRESHED_MOST, Table, paged } from "./table.js";

// On a phone each row is a card: more of them are a press away.
const SIZE = matchMedia("(max-width: 760px)").matches ? 8 : 50;

const code = (words) => element("code", {}, words);
const actions = (...buttons) => element("div", { class: "row-actions" }, ...buttons);
const tableOf = (place, options) => new Table(place, { sorts: false, searches: false, stacks: true, max: REFRESHED_MOST, id: ({ id }) => id, ...options });

/** Loads like `load`, and tells of what is newest. */
const telling = (read, load) => async function loadAndTell(question) {
  const answer = await load.call(this, question);
  if (question.cursor === null) read(answer.rows);
  return answer;
};

// ---- runs ---------------------------------------------------------------------------------------------------------

/** `read` is told the newest rows whenever they are read. */
export function runTable(place, { read }) {
  const columns = [
    { key: "id", name: "Run", type: "text", format: runLink, csv: (id) => id },
    { key: "stopReason", name: "Ended", type: "text", format: (_, run) => runBadge(run), csv: (reason) => reason ?? "running" },
    { key: "successRate", name: "Success", type: "number", format: rateBadge, exact: (_, { successful, processed }) => `${number(successful)} of ${number(processed)}`, csv: (rate) => rate },
    { key: "processed", name: "Posts", type: "number", format: (value, { claimed }) => (value === claimed ? number(value) : `${number(value)} of ${number(claimed)}`), csv: (value) => value },
    { key: "failed", name: "Failed", type: "number", format: number },
    { key: "calls", name: "Calls", type: "number", format: number, exact: () => "Calls of the provider, retries too", phone: false },
    { key: "averageSeconds", name: "Seconds a post", type: "number", format: number, phone: false },
    { key: "earnedCents", name: "Granted", type: "number", format: money, csv: money },
    { key: "occasion", name: "Begun", type: "text", format: (occasion) => ({ interval: "on time", forced: "by hand" })[occasion] ?? occasion, phone: false },
    { key: "startedAtMs", name: "Started", type: "time", csv: iso },
  ];
  return tableOf(place, {
    caption: "runs", name: "runs", columns, load: telling(read, paged("/tracking/runs", "runs", { size: SIZE })), filterable: false,
    empty: () => ["No run yet: they begin by themselves when posts are due, or by ", code("batchcast tracking run"), ", from a script ", code("POST /tracking/runs"), "."],
  });
}

// ---- campaigns ----------------------------------------------------------------------------------------------------

export function campaignTable(place, { page }) {
  const columns = [
    { key: "name", name: "Campaign", type: "words", format: (name, { id }) => campaignLink(id, name), csv: (name) => name },
    { key: "status", name: "State", type: "text", format: campaignBadge, csv: (status) => CAMPAIGNS[status].words },
    { key: "spentPercent", name: "Budget", type: "text", format: (_, campaign) => budgetCell(campaign), exact: (_, campaign) => budgetWords(campaign), csv: (_, campaign) => budgetWords(campaign) },
    { key: "spentCents", name: "Granted", type: "number", format: money, csv: money },
    { key: "rateCents", name: "Rate", type: "number", format: money, exact: rateWords, csv: money },
    { key: "submissions", name: "Posts", type: "number", format: number },
    { key: "createdAtMs", name: "Made", type: "time", csv: iso, phone: false },
    { key: "id", name: "Do", type: "text", sortable: false, format: (_, campaign) => campaignActions(campaign, page), csv: (id) => id },
  ];
  return tableOf(place, {
    caption: "campaigns", name: "campaigns", columns, choices: [{ key: "status", name: "State", options: optionsOf(CAMPAIGNS, "Any state") }],
    load: paged("/tracking/campaigns", "campaigns", { size: SIZE, query: ({ status }) => ({ status }) }),
    empty: () => ["No campaign yet. ", smallButton("New campaign…", () => page.newCampaign()), " or ", code("batchcast tracking campaigns create"), ", from a script ", code("POST /tracking/campaigns"), "."],
  });
}

function campaignActions(campaign, page) {
  const turn = campaign.status === "ACTIVE" ? ["Pause…", "Pause", pauseCampaign] : ["Reactivate…", "Reactivate", reactivateCampaign];
  return actions(smallButton(turn[0], () => turn[2](campaign, { done: (now) => page.campaignChanged(now) }), { "aria-label": `${turn[1]} ${campaign.name}` }));
}

/** What a creator may know of campaigns: no money of others. */
export function openCampaignTable(place, { page }) {
  const submit = (id, { name, status }) => (status === "ACTIVE" ? smallButton("Submit a post…", () => page.submit(id), { "aria-label": `Submit a post to ${name}` }) : "–");
  const columns = [
    { key: "name", name: "Campaign", type: "words" },
    { key: "status", name: "State", type: "text", format: campaignBadge, csv: (status) => CAMPAIGNS[status].words },
    { key: "rateCents", name: "Pays", type: "text", format: rateWords, csv: rateWords },
    { key: "baseline", name: "Counts", type: "text", format: (baseline) => BASELINES[baseline] ?? baseline, phone: false },
    { key: "createdAtMs", name: "Since", type: "time", csv: iso, phone: false },
    { key: "id", name: "Do", type: "text", sortable: false, format: submit, csv: (id) => id },
  ];
  return tableOf(place, {
    caption: "campaigns", name: "campaigns", columns, choices: [{ key: "status", name: "State", options: optionsOf(CAMPAIGNS, "Any state") }],
    load: paged("/tracking/campaigns", "campaigns", { size: SIZE, query: ({ status }) => ({ status }) }), empty: "No campaign takes posts just now; ask an administrator when the next one begins.",
  });
}

// ---- submitted posts ----------------------------------------------------------------------------------------------

const post = (_, submission) => submissionLink(submission.id, shortPost(submission), postWords(submission));
const checked = (ms, { state }) => (state === "ok" ? (ms ? relativeTime(ms) : "not yet") : clipBadge(state));

const POST_COLUMNS = [
  { key: "id", name: "Post", type: "text", format: post, exact: (_, { url }) => url, csv: (_, { url }) => url },
  { key: "status", name: "State", type: "text", format: (_, submission) => submissionBadge(submission.status), csv: (status) => SUBMISSIONS[status].words },
  { key: "campaign", name: "Campaign", type: "words", format: (name, { campaignId }) => campaignLink(campaignId, name), csv: (name) => name },
  { key: "bestViews", name: "Views", type: "number", format: views, exact: (_, { baselineViews }) => (baselineViews === null ? "Its baseline is not counted yet" : `Earns above ${number(baselineViews)} views`), csv: (value) => value },
  { key: "earnedCents", name: "Earned", type: "number", format: money, csv: money },
  { key: "creator", name: "Creator", type: "text" },
  { key: "lastCheckedAtMs", name: "Counted", type: "text", format: checked, exact: exactly, csv: iso },
  { key: "submittedAtMs", name: "Submitted", type: "time", csv: iso, phone: false },
];

/** `creator`: that one's own page; `campaign`: the posts of one, in the drawer. */
export function submissionTable(place, { page, own = false, campaign = null }) {
  const dropped = own ? ["creator"] : campaign === null ? [] : ["campaign", "lastCheckedAtMs", "submittedAtMs"];
  const plain = own ? { campaign: { format: (name) => name } } : {};
  const columns = POST_COLUMNS.filter(({ key }) => !dropped.includes(key)).map((column) => ({ ...column, ...plain[column.key] }));
  const decide = { key: "note", name: "Do", type: "text", sortable: false, format: (_, submission) => submissionActions(submission, page), csv: (note) => note };
  return tableOf(place, {
    caption: own ? "your posts" : campaign === null ? "submitted posts" : `posts of campaign ${campaign}`, name: campaign === null ? "posts" : null, columns: own || campaign !== null ? columns : [...columns, decide],
    choices: [{ key: "status", name: "State", options: optionsOf(SUBMISSIONS, "Any state") }], filterable: campaign === null,
    load: paged("/tracking/submissions", "submissions", { query: ({ status }) => ({ status, campaign }), size: campaign === null ? SIZE : 20 }),
    empty: () => (own ? ["You have not submitted a post yet. ", smallButton("Submit a post…", () => page.submit()), " or, from a script, ", code("POST /tracking/submissions"), "."] : "Nobody has submitted a post yet."),
  });
}

function submissionActions(submission, page) {
  if (submission.status !== "PENDING") return "–";
  const done = (now) => page.submissionChanged(now);
  const words = postWords(submission);
  return actions(smallButton("Approve…", () => approveSubmission(submission, { done }), { "aria-label": `Approve ${words}` }), smallButton("Reject…", () => rejectSubmission(submission, { done }), { "aria-label": `Reject ${words}` }));
}

/** What was counted of a post, newest first. */
export function viewTable(place, submission, { read }) {
  const columns = [
    { key: "atMs", name: "When", type: "time", csv: iso },
    { key: "views", name: "Views", type: "number", format: number },
    { key: "state", name: "Became", type: "text", format: observationBadge, csv: (state) => OBSERVATIONS[state].words },
  ];
  return new Table(place, {
    caption: `counts of post ${submission}`, columns, id: ({ observationId }) => observationId, sorts: false, searches: false, filterable: false, max: REFRESHED_MOST,
    load: telling(read, paged(`/tracking/submissions/${submission}/views`, "views", { size: 60 })), empty: "Not counted yet: that comes with the next run.",
  });
}

// ---- counts that jumped -------------------------------------------------------------------------------------------

export function heldTable(place, { page }) {
  const done = () => page.changed();
  const decide = (_, held) => actions(smallButton("Accept…", () => acceptHeld(held, { done }), { "aria-label": `Accept ${number(held.views)} views of ${postWords(held)}` }),
    smallButton("Reject…", () => rejectHeld(held, { done }), { "aria-label": `Reject ${number(held.views)} views of ${postWords(held)}` }));
  const columns = [
    { key: "postId", name: "Post", type: "text", format: (_, held) => openPost(held.url, shortPost(held)), csv: (_, { url }) => url },
    { key: "observationId", name: "Do", type: "text", sortable: false, format: decide, csv: (id) => id },
    { key: "views", name: "Now", type: "number", format: number },
    { key: "before", name: "Best before", type: "number", format: number },
    { key: "times", name: "Times", type: "number", format: (times) => (times === null ? "–" : `× ${number(times)}`) },
    { key: "atMs", name: "Counted", type: "time", csv: iso },
  ];
  const row = (held) => ({ ...held, times: held.before ? Math.round(held.views / held.before) : null });
  return tableOf(place, {
    caption: "counts that jumped", name: "held", columns, id: ({ observationId }) => observationId, filterable: false, load: paged("/tracking/held", "held", { size: SIZE, mark: "after", row }),
    empty: "No count waits. One that is more than 20 times the last and 100,000 above it pays nothing until somebody has looked at it.",
  });
}

// ---- payouts ------------------------------------------------------------------------------------------------------

export function payoutTable(place, { page, own = false }) {
  const columns = [
    { key: "id", name: "Request", type: "text", format: payoutLink, csv: (id) => id },
    { key: "status", name: "State", type: "text", format: payoutBadge, csv: (status) => PAYOUTS[status].words },
    { key: "creator", name: "Creator", type: "text" },
    { key: "amountCents", name: "Amount", type: "number", format: money, csv: money },
    { key: "feeCents", name: "Fee", type: "number", format: money, exact: (_, { feeBasis }) => (feeBasis === null ? "Set when it is approved" : basisWords(feeBasis)), csv: money },
    { key: "netCents", name: "After fee", type: "number", format: money, csv: money },
    { key: "transactionId", name: "Transaction", type: "words", format: (id) => id ?? "–" },
    { key: "note", name: "Note", type: "words", format: (note) => note || "–", phone: false },
    { key: "createdAtMs", name: "Asked", type: "time", csv: iso },
  ];
  const decide = { key: "payoutId", name: "Do", type: "text", sortable: false, format: (_, payout) => payoutActions(payout, page), csv: (id) => id };
  return tableOf(place, {
    caption: own ? "your payouts" : "payout requests", name: "payouts", columns: own ? columns.filter(({ key }) => key !== "creator") : [...columns, decide],
    choices: [{ key: "status", name: "State", options: optionsOf(PAYOUTS, "Any state") }], load: paged("/tracking/payouts", "payouts", { size: SIZE, query: ({ status }) => ({ status }) }),
    empty: own ? "You have not asked for a payout yet." : "Nobody has asked for a payout yet.",
  });
}

/** What can be done about a request, by its state: [words, what it is called, dialog]. */
export const PAYOUT_ACTIONS = {
  PENDING: [["Approve…", "Approve", approvePayout], ["Reject…", "Reject", rejectPayout]],
  APPROVED: [["Paid…", "Mark as paid:", completePayout], ["Reject…", "Reject", rejectPayout], ["Back…", "Take back the approval of", revertPayout]],
  COMPLETED: [["Revert…", "Revert", revertPayout]],
};

function payoutActions(payout, page) {
  const done = (now) => page.payoutChanged(now);
  const all = PAYOUT_ACTIONS[payout.status] ?? [];
  return all.length === 0 ? "–" : actions(...all.map(([words, verb, ask]) => smallButton(words, () => ask(payout, { done, feeBasis: page.feeBasis }), { "aria-label": `${verb} payout request ${payout.id}` })));
}

// ---- earnings, notifications --------------------------------------------------------------------------------------

export function ledgerTable(place, { name = null, query = {}, caption = "earnings", size = 20 } = {}) {
  const columns = [
    { key: "atMs", name: "When", type: "time", csv: iso },
    { key: "amountCents", name: "Earned", type: "number", format: money, csv: money },
    { key: "views", name: "At views", type: "number", format: number },
    { key: "submissionId", name: "Post", type: "text", format: (id) => submissionLink(id, `#${id}`), csv: (id) => id },
  ];
  return new Table(place, {
    caption, name, columns: query.submission ? columns.slice(0, 3) : columns, id: ({ id }) => id, sorts: false, searches: false, filterable: false, max: REFRESHED_MOST,
    load: paged("/tracking/ledger", "lines", { query: () => query, size }), empty: "Nothing yet: approved posts earn with the views above their baseline.",
  });
}

export function notificationTable(place) {
  const columns = [{ key: "atMs", name: "When", type: "time", csv: iso }, { key: "message", name: "What", type: "words" }];
  return new Table(place, {
    caption: "notifications", columns, id: ({ id }) => id, sorts: false, searches: false, filterable: false, max: REFRESHED_MOST,
    load: paged("/tracking/notifications", "notifications", { size: 20 }), empty: "Nothing yet: you are told when a campaign is complete and when a payout moves on.",
  });
}

// ---- actors -------------------------------------------------------------------------------------------------------

/** What each actor of the provider did this month; filled from the statistics. */
export function actorTable(place) {
  const used = (holds) => (holds ? badge("completed", "check", "used", "Its success rate holds") : badge("scheduled", "warn", "set aside", "Its success rate does not hold: the next one of the platform is used"));
  const columns = [
    { key: "platform", name: "Platform", type: "text", format: platformWords },
    { key: "holds", name: "State", type: "text", format: used, csv: (holds) => (holds ? "used" : "set aside") },
    { key: "actor", name: "Actor", type: "words" },
    { key: "successRate", name: "Success", type: "number", format: rateBadge, csv: (rate) => rate },
    { key: "calls", name: "Calls", type: "number", format: number },
    { key: "posts", name: "Posts", type: "number", format: number },
    { key: "averageSeconds", name: "Seconds a call", type: "number", format: number },
    { key: "costMicros", name: "Cost", type: "number", format: microsWords, csv: microsWords },
    { key: "costPerSuccessMicros", name: "Per 1,000 counts", type: "number", format: (micros) => (micros === null ? "–" : microsWords(micros * 1_000)), csv: (micros) => micros, exact: () => "What 1,000 posts that brought a count cost" },
  ];
  return new Table(place, { caption: "actors", name: "actors", columns, id: ({ key }) => key, sort: "platform", descending: false, stacks: true, filterable: false, empty: "No call this month (UTC)." });
}

// ---- failed scrapes -----------------------------------------------------------------------------------------------

export function failedTable(place, { page }) {
  const retry = (id, failed) => smallButton("Try again…", () => retryScrape(failed, { done: () => page.changed() }), { "aria-label": `Try ${postWords(failed)} again` });
  const columns = [
    { key: "postId", name: "Post", type: "text", format: (_, failed) => openPost(failed.url, shortPost(failed)), csv: (_, { url }) => url },
    { key: "id", name: "Do", type: "text", sortable: false, format: retry, csv: (id) => id },
    { key: "reason", name: "Why", type: "text", format: (reason) => reason.replaceAll("_", " ") },
    { key: "error", name: "Said", type: "words" },
    { key: "attempts", name: "Tries", type: "number", format: number },
    { key: "nextAttemptAtMs", name: "Next", type: "text", format: (ms, { retryable }) => (ms === null ? (retryable ? "with the next run" : "not by itself") : ms <= Date.now() ? "due" : relativeTime(ms)), exact: exactly, csv: iso },
    { key: "lastAtMs", name: "Failed", type: "time", csv: iso },
    { key: "runId", name: "Run", type: "text", format: (id) => (id === null ? "–" : runLink(id)), csv: (id) => id, phone: false },
  ];
  return tableOf(place, {
    caption: "failed scrapes", name: "failed", columns, load: paged("/tracking/failed", "failed", { size: SIZE }),
    empty: "None open: every post that was looked at had a count.",
  });
}
