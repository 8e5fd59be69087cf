/* How tracking stands, for administrators: health, the month's calls, the money and what waits for a decision as tiles; the run that is
 * under way; the success rate run by run. Drawn in place from GET /tracking/health, GET /tracking/stats and the runs that the page loads. */

import { rateBars, stackedBar } from "./charts.js";
import { badge, count, countdown, duration, element, exactTime, exactly, facts, icon, money, number, put, relativeTime, setText, tile } from "./format.js";
import { stopRun } from "./tracking-forms.js";
import { DEGRADED_ABOVE, HEALTH, HEALTHY_ABOVE, healthBadge, runBadge, runLink } from "./tracking-words.js";

const CHARTED_MOST = 60;
const SICK = new Set(["failing", "late"]);
const QUOTA_WARNS = 80;

/** What waits for somebody: [name, words, icon, tone, the table it leads to, the choices there]. */
const WAITING = [
  ["submissions", "posts to decide", "wait", "scheduled", "submissions", { status: "PENDING" }],
  ["held", "counts that jumped", "up", "scheduled", "held", {}],
  ["payoutsPending", "payouts to decide", "wait", "scheduled", "payouts", { status: "PENDING" }],
  ["payoutsApproved", "payouts to pay", "clock", "processing", "payouts", { status: "APPROVED" }],
  ["failed", "failed scrapes", "warn", "failed", "failed", {}],
];

export class TrackingState {
  constructor(page) {
    this.page = page;
    this.buildTiles();
    this.running = document.getElementById("running-now");
    this.rates = document.getElementById("rates");
    this.clips = document.getElementById("clips");
  }

  buildTiles() {
    this.status = element("p", { class: "tile-status" });
    this.why = element("p", { class: "faint" });
    this.checks = element("dl", { class: "tile-facts" });
    this.quotaBar = element("div", { class: "quota" });
    this.quota = element("dl", { class: "tile-facts" });
    this.money = element("dl", { class: "tile-facts" });
    this.waiting = Object.fromEntries(WAITING.map(([name]) => [name, element("b", {}, "–")]));
    const button = ([name, words, picture, , table, choices]) => element("button", {
      type: "button", class: "count", "data-count": name, title: "Show them", onclick: () => this.page.show(table, choices),
    }, icon(picture), element("span", {}, words), this.waiting[name]);
    document.getElementById("tiles").replaceChildren(tile("Health, the last 24 hours", this.status, this.why, this.checks), tile("Calls this month", this.quotaBar, this.quota), tile("Money", this.money),
      tile("Waits for you", element("div", { class: "counts one" }, ...WAITING.map(button))));
  }

  // ---- tiles --------------------------------------------------------------------------------------------------------

  drawHealth(health) {
    const { status, successRate, processed, runs, lastRunAtMs, intervalMs, quota, provider, loops } = health;
    put(this.status, healthBadge(status));
    const rate = successRate === null ? "No post was looked at." : `${number(successRate)} % of ${count(processed, "check")} brought a count.`;
    setText(this.why, provider.configured ? rate : `${rate} No run can begin without a token of the provider: APIFY_TOKEN.`);
    this.status.title = HEALTH[status]?.about ?? "";
    const sick = loops.filter((loop) => SICK.has(loop.health));
    facts(this.checks, [["Runs", number(runs)],
      ["Last run", lastRunAtMs ? relativeTime(lastRunAtMs) : "none yet", exactly(lastRunAtMs)], ["Every", duration(intervalMs)],
      ["Loops", sick.length === 0 ? badge("completed", "check", `${number(loops.length)} work`) : badge("failed", "warn", `${number(sick.length)} of ${number(loops.length)} don’t`), sick.map(({ name, health: how }) => `${name}: ${how}`).join(", ")]]);
    this.drawQuota(quota);
  }

  /** Calls used, and those that the month will bring at this pace, of what the plan allows. */
  drawQuota({ month, used, limit, percent, projected, projectedPercent }) {
    const tone = projectedPercent > 100 ? "failed" : percent > QUOTA_WARNS || projectedPercent > QUOTA_WARNS ? "scheduled" : "completed";
    const parts = [{ name: "used", value: Math.min(used, limit) }, { name: "projected", value: Math.max(0, Math.min(projected, limit) - used) }];
    const label = `${number(used)} of ${count(limit, "call")} used, ${number(projected)} projected for the month`;
    put(this.quotaBar, element("span", { class: "load", "data-status": tone }, stackedBar(parts, Math.max(1, limit), label)));
    const over = projectedPercent > 100 ? badge("failed", "critical", `${number(projected)}, too many`) : element("span", {}, `${number(projected)} (${number(projectedPercent)} %)`);
    facts(this.quota, [["Month (UTC)", month], ["Used", `${number(used)} (${number(percent)} %)`], ["Projected", over, "At the pace of the month so far"], ["Allowed", number(limit)]]);
  }

  drawStats(stats) {
    const { money: sums, campaigns, waiting, failed, clips, actors } = stats;
    facts(this.money, [["Granted", money(sums.spentCents), "To creators, by all campaigns so far"], ["Left to grant", money(sums.leftCents), "In active campaigns, without what is held back"], ["Asked for", money(sums.payoutsCents), "Payout requests that are open"],
      ["Paid out", money(sums.paidCents), "After fees"], ["Campaigns", campaignsWords(campaigns), "Nearly spent: 80 % or more"]]);
    const counts = { ...waiting, failed: failed.open };
    for (const [name, , , tone] of WAITING) {
      setText(this.waiting[name], number(counts[name]));
      // Where nothing waits nothing has a colour.
      this.waiting[name].parentElement.dataset.status = counts[name] > 0 ? tone : "";
    }
    setText(this.clips, `${count(clips.live, "live post")}, ${number(clips.due)} due now${clips.unavailable > 0 ? `, ${number(clips.unavailable)} not found` : ""}${clips.unsupported > 0 ? `, ${number(clips.unsupported)} not supported` : ""}.`);
    this.page.tables.actors.setRows(actors.map((actor) => ({ ...actor, key: `${actor.platform} ${actor.actor}` })));
  }

  // ---- runs ---------------------------------------------------------------------------------------------------------

  /** The run that is under way; nothing when none is. */
  drawRun(run) {
    const on = run !== null && run.status === "running";
    this.running.hidden = !on;
    if (!on) return this.running.replaceChildren();
    const stop = element("button", { type: "button", class: "small", "aria-label": `Stop run ${run.id}`, onclick: () => stopRun(run, { done: (now) => this.page.runChanged(now) }) }, "Stop…");
    if (this.shown !== run.id || this.running.childElementCount === 0) {
      this.shown = run.id;
      this.runProgress = element("div");
      this.running.replaceChildren(runBadge(run), runLink(run.id), this.runProgress, stop);
    }
    put(this.runProgress, runProgress(run));
  }

  drawRates(runs) {
    const ended = runs.filter(({ successRate, status }) => status !== "running" && successRate !== null).slice(0, CHARTED_MOST).reverse();
    if (ended.length < 2) return this.rates.replaceChildren();
    const values = ended.map((run) => ({ value: run.successRate, label: `Run ${run.id}, ${exactTime(run.startedAtMs)}: ${number(run.successRate)} % of ${number(run.processed)}` }));
    const lowest = Math.min(...ended.map(({ successRate }) => successRate));
    const label = `Success rate of the last ${number(ended.length)} runs, in per cent: ${ended.map(({ successRate }) => number(successRate)).join(", ")}`;
    put(this.rates, element("figure", { class: "rates" }, element("figcaption", { class: "faint" }, `Success rate, run by run: ${number(ended.at(-1).successRate)} % the last, ${number(lowest)} % the lowest of ${number(ended.length)}`),
      element("div", { class: "rates-chart" }, element("span", { class: "rates-scale faint", "aria-hidden": "true" }, element("span", {}, "100 %"), element("span", {}, "0 %")), rateBars(values, [HEALTHY_ABOVE, DEGRADED_ABOVE], label))));
  }
}

const campaignsWords = ({ active, pressing }) => `${number(active)} active${pressing > 0 ? `, ${number(pressing)} nearly spent` : ""}`;

/** "42 % · 3.2 posts/s · 0:12 left": what is known, in that order. */
export function progressWords({ percent, processed, claimed, averageSeconds, status }) {
  const rate = averageSeconds > 0 ? 1 / averageSeconds : null;
  const left = status === "running" && rate !== null && claimed > processed ? `${countdown(((claimed - processed) / rate) * 1000)} left` : null;
  return [`${number(percent)} %`, `${number(processed)} of ${count(claimed, "post")}`, rate === null ? null : `${number(rate)} posts/s`, left].filter(Boolean);
}

export function runProgress(run) {
  const bar = element("progress", { max: "100", value: String(run.percent), "data-status": run.status === "running" ? "processing" : "completed", "aria-label": `Progress of run ${run.id}` });
  const failed = run.failed > 0 ? ` · ${number(run.failed)} failed` : "";
  return element("div", { class: "progress-cell" }, bar, element("span", { class: "progress-words" }, `${progressWords(run).join(" · ")}${failed}`));
}
