/* The drawer's content for a campaign (its money, its posts, what it granted), a post (its counts over time, what it earned), a run, a
 * payout request. Figures change in place; tables in here keep their place while they do. */

import { sparkline } from "./charts.js";
import { actionButton, element, facts, icon, moment, money, number, put, relativeTime } from "./format.js";
import { approveSubmission, changeBudget, completeCampaign, pauseCampaign, reactivateCampaign, rejectSubmission, stopRun } from "./tracking-forms.js";
import { runProgress } from "./tracking-state.js";
import { PAYOUT_ACTIONS, ledgerTable, submissionTable, viewTable } from "./tracking-tables.js";
import { BASELINES, RUNS, basisWords, budgetBar, budgetWords, campaignBadge, campaignLink, clipBadge, openPost, payoutBadge, platformWords, postWords, rateBadge, rateWords, runBadge, submissionBadge, viewWords } from "./tracking-words.js";
import { api } from "./shell.js";

const CHARTED_MOST = 60;
const PAYOUT_PICTURES = { "Approve…": "check", "Paid…": "check", "Reject…": "stop", "Back…": "chevron", "Revert…": "warn" };

/** What the four have in common: one thing, read again while it is shown. `path` and `draw` are theirs. */
class Detail {
  constructor(page) {
    this.page = page;
    this.id = null;
    this.tables = [];
  }

  /** The nodes of this thing; `known` is drawn until the answer is there. */
  show(id, known, ...rest) {
    this.id = id;
    this.view = null;
    this.head = element("div", { class: "job-progress" }, element("p", { class: "faint" }, "Loading…"));
    this.actions = element("div", { class: "drawer-actions" });
    this.about = element("dl", { class: "fact-list" });
    if (known) this.draw(known);
    else this.read();
    return [this.head, this.actions, this.about, ...rest];
  }

  async read() {
    const { id } = this;
    try {
      const view = await api(`${this.path}/${id}`);
      if (this.id === id) this.draw(view);
    } catch (refusal) {
      if (this.id === id && this.view === null) put(this.head, element("p", { class: "table-refusal" }, icon("warn"), refusal.message));
    }
  }

  /** Buttons change only when what may be done does: focus stays. */
  offer(may, buttons) {
    if (this.actions.dataset.may === may) return;
    this.actions.dataset.may = may;
    this.actions.replaceChildren(...buttons());
  }

  refresh() {
    if (this.id === null) return;
    this.read();
    for (const table of this.tables) table.refresh();
  }
}

// ---- a campaign ---------------------------------------------------------------------------------------------------

export class CampaignDetail extends Detail {
  path = "/tracking/campaigns";

  open(id, known = null) {
    const [posts, grants] = [element("div"), element("div")];
    const nodes = this.show(id, known, element("h3", {}, "Posts"), posts, element("h3", {}, "Granted"), grants);
    this.tables = [submissionTable(posts, { page: this.page, campaign: id }), ledgerTable(grants, { query: { campaign: id }, caption: `granted by campaign ${id}` })];
    return nodes;
  }

  draw(campaign) {
    this.view = campaign;
    this.page.titled(campaign.name, `Campaign ${campaign.id}`);
    put(this.head, campaignBadge(campaign.status), budgetBar(campaign), element("span", {}, budgetWords(campaign)), budgetKey());
    facts(this.about, [["Pays", rateWords(campaign.rateCents)], ["Counts", BASELINES[campaign.baseline] ?? campaign.baseline], ["Spent", `${number(campaign.spentPercent)} %`, "Of the budget without what is held back"], ["Posts", number(campaign.submissions)],
      moment("Made", campaign.createdAtMs), moment("Active since", campaign.activatedAtMs), ...(campaign.completedAtMs ? [moment("Completed", campaign.completedAtMs)] : [])]);
    this.offer(`${campaign.id} ${campaign.status}`, () => this.buttons(campaign));
  }

  buttons({ id, status }) {
    const done = (now) => this.page.campaignChanged(now);
    const ask = (dialog) => () => dialog(this.view, { done });
    const active = status === "ACTIVE";
    return [active ? actionButton("Add a post…", "plus", () => this.page.submit(id)) : null, actionButton("Budget…", "list", ask(changeBudget)), active ? actionButton("Pause…", "pause", ask(pauseCampaign)) : actionButton("Reactivate…", "play", ask(reactivateCampaign)),
      status === "COMPLETED" ? null : actionButton("Complete…", "check", ask(completeCampaign))].filter(Boolean);
  }
}

/** What the parts of the bar are. */
const budgetKey = () => element("p", { class: "budget-key faint" }, ...[["spent", "granted"], ["left", "left"], ["reserved", "held back"]].map(([name, words]) => element("span", {}, element("span", { class: `swatch term-${name}` }), words)));

// ---- a post -------------------------------------------------------------------------------------------------------

export class SubmissionDetail extends Detail {
  path = "/tracking/submissions";

  open(id, known = null) {
    this.course = element("div", { class: "course" });
    const [counts, grants] = [element("div"), element("div")];
    const nodes = this.show(id, known, this.course, element("h3", {}, "Counts"), counts, element("h3", {}, "Earned"), grants);
    this.tables = [viewTable(counts, id, { read: (rows) => this.id === id && this.drawCourse(rows) }), ledgerTable(grants, { query: { submission: id }, caption: `earnings of post ${id}` })];
    return nodes;
  }

  draw(submission) {
    this.view = submission;
    const { id, status, state, bestViews, earnedCents, creator, campaign, campaignId, url } = submission;
    this.page.titled(postWords(submission), `Post ${id} · ${campaign}`);
    put(this.head, element("div", { class: "badges" }, submissionBadge(status), ...(state === "ok" ? [] : [clipBadge(state)])), element("p", {}, element("b", { class: "pace-figure" }, viewWords(bestViews)), element("span", { class: "faint" }, ` ${money(earnedCents)} earned`)));
    const baseline = submission.baselineViews === null ? "not counted yet" : `${number(submission.baselineViews)} views`;
    const last = submission.views !== null && submission.views !== bestViews ? [["Last count", number(submission.views), "Lower than the best: the best one is kept"]] : [];
    facts(this.about, [["On", openPost(url, `${platformWords(submission.platform)}: open the post`)], ["Campaign", this.page.admin ? campaignLink(campaignId, campaign) : campaign], ...(this.page.admin ? [["Creator", creator]] : []),
      ["Earns above", baseline, submission.baselineAtMs ? `Counted ${relativeTime(submission.baselineAtMs)}` : ""], ...last, ...(submission.finalCents === null ? [] : [["Final", money(submission.finalCents), "What it had earned when the campaign was completed"]]),
      moment("Counted", submission.lastCheckedAtMs), moment("Submitted", submission.submittedAtMs), ...(submission.judgedAtMs ? [moment("Decided", submission.judgedAtMs)] : []), ...(submission.note ? [["Note", submission.note]] : [])]);
    this.offer(`${id} ${status}`, () => this.buttons(status));
  }

  buttons(status) {
    if (!this.page.admin) return [];
    const ask = (dialog) => () => dialog(this.view, { done: (now) => this.page.submissionChanged(now) });
    return [status === "PENDING" ? actionButton("Approve…", "check", ask(approveSubmission)) : null, status === "REJECTED" ? null : actionButton("Reject…", "stop", ask(rejectSubmission))].filter(Boolean);
  }

  drawCourse(rows) {
    const known = rows.filter(({ state }) => state !== "rejected" && state !== "held").slice(0, CHARTED_MOST).reverse();
    if (known.length < 2) return this.course.replaceChildren();
    const label = `Views at the last ${number(known.length)} counts: ${known.map(({ views }) => number(views)).join(", ")}`;
    put(this.course, sparkline(known.map(({ views }) => views), label, { width: 400, height: 56 }));
  }
}

// ---- a run --------------------------------------------------------------------------------------------------------

export class RunDetail extends Detail {
  path = "/tracking/runs";

  open(id, known = null) {
    this.error = element("p", { class: "job-error", hidden: true });
    return this.show(id, known, this.error);
  }

  draw(run) {
    this.view = run;
    const reason = run.stopReason ?? "running";
    this.page.titled(`Run ${run.id}`, run.occasion === "forced" ? "Begun by hand" : "Begun on time");
    put(this.head, runBadge(run), runProgress(run), element("span", { class: "faint" }, RUNS[reason]?.about ?? reason));
    facts(this.about, [["Success", rateBadge(run.successRate)], ["Counted", number(run.successful)], ["Failed", number(run.failed)], ["Looked at", `${number(run.processed)} of ${number(run.claimed)}`], ["At most", number(run.limit)],
      ["Calls", number(run.calls), "Of the provider, retries too"], ["Seconds a post", number(run.averageSeconds)], ["Granted", money(run.earnedCents)], moment("Started", run.startedAtMs), moment("Ended", run.finishedAtMs), ["Begun at", run.node]]);
    this.error.hidden = !run.error;
    put(this.error, ...(run.error ? [icon("warn"), element("span", {}, run.error)] : []));
    this.offer(`${run.id} ${run.status}`, () => (run.status === "running" ? [actionButton("Stop…", "stop", () => stopRun(this.view, { done: (now) => this.page.runChanged(now) }))] : []));
  }
}

// ---- a payout request ---------------------------------------------------------------------------------------------

export class PayoutDetail extends Detail {
  path = "/tracking/payouts";

  open(id, known = null) {
    this.account = element("dl", { class: "fact-list" });
    return this.show(id, known, this.account);
  }

  draw(payout) {
    this.view = payout;
    this.page.titled(`Payout request ${payout.id}`, payout.creator);
    put(this.head, payoutBadge(payout.status), element("b", { class: "pace-figure" }, money(payout.amountCents)));
    const fee = payout.feeBasis === null ? "set when it is approved" : `${money(payout.feeCents)} (${basisWords(payout.feeBasis)})`;
    facts(this.about, [["Fee", fee], ["To pay out", money(payout.netCents)], ["Transaction", payout.transactionId ?? "–"], moment("Asked", payout.createdAtMs), moment("Last changed", payout.changedAtMs),
      ...(payout.paidAtMs ? [moment("Paid", payout.paidAtMs)] : []), ...(payout.revertedAtMs ? [moment("Reverted", payout.revertedAtMs)] : []), ...(payout.note ? [["Note", payout.note]] : [])]);
    this.offer(`${payout.id} ${payout.status}`, () => this.buttons(payout));
    if (this.page.admin) this.readAccount(payout);
  }

  buttons({ status }) {
    if (!this.page.admin) return [];
    return (PAYOUT_ACTIONS[status] ?? []).map(([words, , ask]) => actionButton(words, PAYOUT_PICTURES[words], () => ask(this.view, { done: (now) => this.page.payoutChanged(now), feeBasis: this.page.feeBasis })));
  }

  /** What else the creator has earned; without it the request stands all the same. */
  async readAccount({ id, creator }) {
    const balance = await api(`/tracking/balance?${new URLSearchParams({ creator })}`).catch(() => null);
    if (balance === null || this.id !== id) return;
    facts(this.account, [["Earned in all", money(balance.earnedCents)], ["Still active", money(balance.activeCents), "In campaigns that are not completed"], ["Payable", money(balance.payableCents)], ["Asked for", money(balance.requestedCents)], ["Paid before", money(balance.paidCents)]]);
  }
}
