/* What a person can change about campaigns, posts, counts and runs, as dialogs: each says what it will do, sends it once, and says what it
 * did with the audit id, or why the server refused. Nothing here draws the page; `done` is called after a change so that the page reads
 * again, with what the server answered where it answered it. */

import { count, element, money, number, says } from "./format.js";
import { BASELINES, budgetWords, postWords, rateWords, viewWords } from "./tracking-words.js";
import { api, audited, busyWhile, changeDialog, field, newKey, queryOf } from "./shell.js";

const NAME_MOST = 200;
const NOTE_MOST = 500;
const URL_MOST = 2_000;
const CREATOR_MOST = 200;
const RATE_MOST = 1_000;
const BUDGET_MOST = 1_000_000_000;
const RUN_MOST = 10_000;
const OFFERED_MOST = 200;
const EXAMPLES = "TikTok, Instagram, YouTube or X: the address of one post, such as https://youtu.be/dQw4w9WgXcQ; not a profile, not a short link.";

/** An amount of dollars and cents, to be read as whole cents. */
export const dollars = (name, { cents = null, most = BUDGET_MOST, least = 0, ...more } = {}) => element("input", {
  name, type: "number", min: String(least), max: String(most), step: "0.01", inputmode: "decimal", value: cents === null ? null : String(cents / 100), ...more,
});
export const centsOf = (input) => Math.round(Number(input.value) * 100);
export const noteField = (help) => field("Note", element("input", { name: "note", maxlength: String(NOTE_MOST), autocomplete: "off" }), help);
export const post = (path, body) => api(path, { method: "POST", ...(body && { body }) });

const granted = (cents) => (cents > 0 ? ` ${money(cents)} granted.` : "");
const completedWords = (completed) => (completed?.length > 0 ? ` ${count(completed.length, "campaign")} completed by it.` : "");

// ---- campaigns ----------------------------------------------------------------------------------------------------

export function newCampaign({ done }) {
  const name = element("input", { name: "name", required: true, maxlength: String(NAME_MOST), autocomplete: "off", placeholder: "Spring launch" });
  const rate = dollars("rateCents", { least: 0.01, most: RATE_MOST, required: true, placeholder: "1.50" });
  const budget = dollars("budgetCents", { least: 0.01, required: true, placeholder: "2000" });
  const reserved = dollars("reservedCents", { cents: 0 });
  const baseline = element("select", { name: "baseline" }, ...Object.entries(BASELINES).map(([value, words]) => element("option", { value }, words)));
  const words = says();
  const say = () => {
    const [each, all] = [centsOf(rate), centsOf(budget) - centsOf(reserved)];
    words.textContent = each > 0 && all > 0 ? `Takes posts at once, and pays ${rateWords(each)} until ${money(all)} are granted: ${count(Math.floor((all / each) * 1000), "view")} in all.` : "Say what a thousand views are worth, and how much there is to grant.";
  };
  const content = [field("Name", name), element("div", { class: "pair fields" }, field("Dollars per 1,000 views", rate), field("Budget in dollars", budget)),
    field("Held back, in dollars", reserved, "Of the budget; never granted."), field("Earns for", baseline), words];
  say();
  const dialog = changeDialog("New campaign", content, "Create it", async () => {
    const { campaign, auditId } = await post("/tracking/campaigns", { name: name.value.trim(), rateCents: centsOf(rate), budgetCents: centsOf(budget), reservedCents: centsOf(reserved), baseline: baseline.value });
    done(campaign);
    return `Campaign “${campaign.name}” takes posts, with ${money(campaign.leftCents)} to grant.${audited(auditId)}`;
  });
  dialog.addEventListener("input", say);
  return dialog;
}

export function changeBudget(campaign, { done }) {
  const budget = dollars("budgetCents", { cents: campaign.budgetCents, least: 0.01, required: true });
  const reserved = dollars("reservedCents", { cents: campaign.reservedCents, required: true });
  const words = says();
  const say = () => {
    const left = centsOf(budget) - centsOf(reserved) - campaign.spentCents;
    const again = campaign.status === "COMPLETED" ? " It stays completed: reactivate it to grant what is left." : "";
    words.textContent = left < 0 ? `That is ${money(-left)} too little for what is granted and held back.` : `Of ${money(campaign.spentCents)} granted so far nothing changes; ${money(left)} can be granted from now on, now ${money(campaign.leftCents)}.${again}`;
  };
  say();
  const dialog = changeDialog(`Budget of “${campaign.name}”`, [field("Budget in dollars", budget), field("Held back, in dollars", reserved, "Of the budget; never granted."), words], "Change the budget", async () => {
    const answer = await api(`/tracking/campaigns/${campaign.id}`, { method: "PATCH", body: { budgetCents: centsOf(budget), reservedCents: centsOf(reserved) } });
    done(answer.campaign);
    return `“${campaign.name}”: ${budgetWords(answer.campaign)}.${audited(answer.auditId)}`;
  });
  dialog.addEventListener("input", say);
  return dialog;
}

const TURNS = {
  pause: {
    title: "Pause this campaign?", action: "Pause it", did: "Paused", dismiss: "Cancel",
    words: ({ name, submissions }) => `“${name}” takes no posts and grants nothing until it is reactivated; its ${count(submissions, "post")} are not looked at unless another campaign needs them. What they have earned stays.`,
  },
  complete: {
    title: "Complete this campaign?", action: "Complete it", did: "Completed", dismiss: "Keep it open",
    words: ({ name, leftCents }) => `Ends “${name}”: earnings are final, the creators are told and may ask for a payout. ${money(leftCents)} of the budget are not granted. Views are still noted once a day.`,
  },
  reactivate: {
    title: "Reactivate this campaign?", action: "Reactivate it", did: "Reactivated", dismiss: "Cancel",
    words: ({ name, leftCents }) => `“${name}” takes posts again. For views that came meanwhile the gap is paid at once, from the ${money(leftCents)} that are left.`,
  },
};

function turnCampaign(campaign, turn, { done }) {
  const { title, action, did, words, dismiss } = TURNS[turn];
  return changeDialog(title, [says(words(campaign))], action, async () => {
    const answer = await post(`/tracking/campaigns/${campaign.id}/${turn}`);
    done(answer.campaign);
    return `${did} “${campaign.name}”.${granted(answer.grantedCents)}${audited(answer.auditId)}`;
  }, { dismiss });
}

export const pauseCampaign = (campaign, more) => turnCampaign(campaign, "pause", more);
export const completeCampaign = (campaign, more) => turnCampaign(campaign, "complete", more);
export const reactivateCampaign = (campaign, more) => turnCampaign(campaign, "reactivate", more);

// ---- posts --------------------------------------------------------------------------------------------------------

/** Submit a post; `admin` may do so for a creator. `chosen`: the campaign to begin with. Answers with words where none takes posts. */
export async function submitPost({ admin, chosen = null, done }) {
  const { campaigns } = await api(`/tracking/campaigns${queryOf({ status: "ACTIVE", limit: OFFERED_MOST })}`);
  if (campaigns.length === 0) return "No campaign takes posts just now.";
  const campaign = element("select", { name: "campaignId" }, ...campaigns.map(({ id, name, rateCents }) => element("option", { value: String(id), selected: id === chosen }, `${name}: ${rateWords(rateCents)}`)));
  const url = element("input", { name: "url", type: "url", required: true, maxlength: String(URL_MOST), autocomplete: "off", spellcheck: "false", placeholder: "https://" });
  const creator = element("input", { name: "creator", maxlength: String(CREATOR_MOST), autocomplete: "off" });
  const words = says();
  const say = () => {
    const { baseline } = campaigns.find(({ id }) => id === Number(campaign.value));
    words.textContent = `Submits the post. Once an administrator has approved it, it earns for ${BASELINES[baseline] ?? "its views"}, as long as the campaign has money.`;
  };
  campaign.addEventListener("change", say);
  say();
  const content = [field("Campaign", campaign), field("Address of the post", url, EXAMPLES), admin ? field("Creator", creator, "Whose post it is; left empty, yours.") : null, words].filter(Boolean);
  changeDialog(admin ? "Add a post" : "Submit a post", content, "Submit it", async () => {
    const body = { campaignId: Number(campaign.value), url: url.value.trim(), ...(creator.value.trim() && { creator: creator.value.trim() }) };
    const { submission, auditId } = await post("/tracking/submissions", body);
    done(submission);
    return `Submitted ${postWords(submission)} to “${submission.campaign}”.${audited(auditId)}`;
  });
  return null;
}

const ofCreator = (submission) => `${postWords(submission)} of ${submission.creator}`;

export function approveSubmission(submission, { done }) {
  const words = `Approves ${ofCreator(submission)} for “${submission.campaign}”: it earns for its views from now on (${viewWords(submission.bestViews)} so far).`;
  return changeDialog("Approve this post?", [says(words)], "Approve it", async () => {
    const answer = await post(`/tracking/submissions/${submission.id}/approve`);
    done(answer.submission);
    return `Approved ${ofCreator(submission)}.${granted(answer.grantedCents)}${completedWords(answer.completed)}${audited(answer.auditId)}`;
  });
}

export function rejectSubmission(submission, { done }) {
  const kept = submission.earnedCents > 0 ? ` What it has earned, ${money(submission.earnedCents)}, stays.` : "";
  return changeDialog("Reject this post?", [says(`${ofCreator(submission)} earns nothing more in “${submission.campaign}”.${kept}`), noteField("The creator sees it.")], "Reject it", async (form) => {
    const answer = await post(`/tracking/submissions/${submission.id}/reject`, { note: form.elements.note.value.trim() });
    done(answer.submission);
    return `Rejected ${ofCreator(submission)}.${audited(answer.auditId)}`;
  }, { dismiss: "Cancel" });
}

// ---- counts that jumped -------------------------------------------------------------------------------------------

const jump = (held) => `${number(held.views)} views of ${postWords(held)}${held.before === null ? "" : `, ${number(held.before)} before`}`;

function judge(held, verdict, { title, words, action, did }, { done }) {
  return changeDialog(title, [says(words), noteField("Why; kept in the audit trail.")], action, async (form) => {
    const answer = await post(`/tracking/held/${held.observationId}/${verdict}`, { note: form.elements.note.value.trim() });
    done();
    const also = answer.also.length > 0 ? ` ${count(answer.also.length, "earlier count")} of it went the same way.` : "";
    return `${did} ${jump(held)}.${also}${granted(answer.grantedCents)}${completedWords(answer.completed)}${audited(answer.auditId)}`;
  });
}

export const acceptHeld = (held, more) => judge(held, "accept", { title: "Was it so?", words: `Accepts ${jump(held)}: it counts, and what it earns is granted once.`, action: "Accept it", did: "Accepted" }, more);
export const rejectHeld = (held, more) => judge(held, "reject", { title: "Was it not so?", words: `Rejects ${jump(held)}: it never counts and earns nothing. Later counts of the post are looked at as before.`, action: "Reject it", did: "Rejected" }, more);

// ---- runs ---------------------------------------------------------------------------------------------------------

export function runNow({ done }) {
  const key = newKey();
  const limit = element("input", { name: "limit", type: "number", min: "1", max: String(RUN_MOST), step: "1", inputmode: "numeric", placeholder: "as set" });
  const words = "Looks at the posts that are due, the most urgent first. Each call of the provider counts against the month’s quota; where a run is under way, it goes on and no second one begins.";
  return changeDialog("Run now?", [says(words), field("At most so many posts", limit, "Left empty, as many as a run takes by itself.")], "Run it", (form) => busyWhile(form, async () => {
    const body = limit.value ? { limit: Number(limit.value) } : {};
    const { run, new: fresh, auditId } = await api("/tracking/runs", { method: "POST", body, headers: { "Idempotency-Key": key } });
    done(run);
    return `${fresh ? `Run ${run.id} is on its way` : `Run ${run.id} is under way already`}.${audited(auditId)}`;
  }));
}

export function stopRun(run, { done }) {
  const words = `Ends run ${run.id} after what is being looked at now: ${number(run.processed)} of ${count(run.claimed, "post")} so far. What was counted stays; what is left stays due.`;
  return changeDialog("Stop this run?", [says(words)], "Stop it", async () => {
    const { run: now, auditId } = await post(`/tracking/runs/${run.id}/stop`);
    done(now);
    return `Stopping run ${run.id}.${audited(auditId)}`;
  }, { dismiss: "Let it go on" });
}

export function retryScrape(failed, { done }) {
  const words = `Makes ${postWords(failed)} due at once: the next run looks at it. So far ${count(failed.attempts, "try", "tries")}, the last: ${failed.error}`;
  return changeDialog("Try again?", [says(words)], "Try again", async () => {
    const { auditId } = await post(`/tracking/failed/${failed.id}/retry`);
    done();
    return `${postWords(failed)} is due.${audited(auditId)}`;
  });
}
