/* The drawer's content for a batch (how full, who is in it, its runs, what was changed about it) and a run.
 * Figures change in place; tables in here keep their place while they do. */

import { actionButton, element, exactly, facts, icon, link, moment, number, put } from "./format.js";
import { balance, pauseSchedule, resumeSchedule, triggerSchedule } from "./schedules-forms.js";
import { RUN_COLUMNS, auditTable, batchRow, runBadge, runTable } from "./schedules-tables.js";
import { RUNS, businessLink, businesses, every, healthBadge, loadBar, nextWords, stateBadge, teamLink } from "./schedules-words.js";
import { act, api } from "./shell.js";
import { Table, paged } from "./table.js";

const PAGE = 50;
const NARROW = new Set(["id", "state", "items", "createdAtMs"]);

// ---- a batch ------------------------------------------------------------------------------------------------------

export class ScheduleDetail {
  constructor(page) {
    this.page = page;
    this.id = null;
  }

  open(batch) {
    this.id = batch.id;
    this.head = element("div", { class: "job-progress" });
    this.actions = element("div", { class: "drawer-actions" });
    this.about = element("dl", { class: "fact-list" });
    const [members, runs, trail] = [element("div"), element("div"), element("div")];
    this.draw(batch);
    this.members = memberTable(members, batch);
    this.runs = runTable(runs, { path: `/admin/schedules/${batch.id}/runs`, name: null, caption: `runs of batch ${batch.id}`, columns: RUN_COLUMNS.filter(({ key }) => NARROW.has(key)), stacks: false });
    this.trail = auditTable(trail, { target: `schedule ${batch.id}` });
    return [this.head, this.actions, this.about, element("h3", {}, "Businesses"), members, element("h3", {}, "Runs"), runs, element("h3", {}, "Changes by people"), trail];
  }

  draw(batch) {
    this.batch = batch;
    const states = element("div", { class: "badges" }, healthBadge(batch.health), stateBadge(batch));
    put(this.head, states, loadBar(batch, batch.name), element("span", { class: "progress-words" }, `${number(batch.businesses)} of ${businesses(batch.capacity)}`));
    facts(this.about, [["Next run", nextWords(batch), exactly(batch.nextRunAtMs)], moment("Last run", batch.lastRunAtMs), ["Interval", `${every(batch.hours)}${batch.base ? "" : ", none of the four"}`], ["Input", `version ${batch.inputVersion}`, "Counts changes of who is in it"],
      ...(batch.providerScheduleId ? [["At the provider", batch.providerScheduleId]] : [])]);
    this.drawActions(batch);
  }

  /** Buttons change only when what may be done changes: one under a finger stays. */
  drawActions(batch) {
    const may = `${batch.id} ${batch.paused} ${batch.empty}`;
    if (this.actions.dataset.may === may) return;
    this.actions.dataset.may = may;
    const done = (now) => this.page.changed(now);
    const even = (action) => (target) => act(target, () => balance(action, { line: this.batch, done }));
    const turn = batch.paused ? actionButton("Resume…", "play", () => resumeSchedule(this.batch, { done })) : actionButton("Pause…", "pause", () => pauseSchedule(this.batch, { done }));
    this.actions.replaceChildren(...[batch.empty ? null : actionButton("Run now…", "bolt", () => triggerSchedule(this.batch, { done })), turn, actionButton("Rebalance…", "list", even("rebalance")), actionButton("Consolidate…", "down", even("consolidate"))].filter(Boolean));
  }

  async refresh() {
    const { id } = this;
    if (id === null) return;
    const answer = await api(`/admin/schedules/${id}/businesses?limit=1`).catch(() => null);
    if (answer === null || this.id !== id) return;
    this.draw(batchRow(answer.schedule));
    for (const table of [this.members, this.runs, this.trail]) table.refresh();
  }
}

function memberTable(place, batch) {
  const columns = [
    { key: "name", name: "Business", type: "words", format: (name, { businessId, team }) => businessLink({ id: businessId, team, platform: batch.platform }, name || `#${businessId}`), csv: (name) => name, exact: (_, { identifier }) => identifier },
    { key: "team", name: "Team", type: "text", format: teamLink, csv: (team) => team },
    { key: "status", name: "Status", type: "text" },
  ];
  return new Table(place, {
    caption: `businesses of batch ${batch.id}`, columns, id: ({ businessId }) => businessId, sorts: false, searches: false, max: 1_000,
    load: paged(`/admin/schedules/${batch.id}/businesses`, "businesses", { mark: "after", size: PAGE }), empty: "No business is in it.",
  });
}

// ---- a run --------------------------------------------------------------------------------------------------------

export class RunDetail {
  constructor() {
    this.id = null;
  }

  open(run) {
    this.id = run.id;
    this.head = element("div", { class: "job-progress" });
    this.problem = element("p", { class: "job-error", hidden: true });
    this.about = element("dl", { class: "fact-list" });
    this.found = element("dl", { class: "fact-list" });
    this.draw(run);
    return [this.head, this.problem, element("h3", {}, "What it brought"), this.found, element("h3", {}, "About"), this.about];
  }

  draw(run) {
    put(this.head, runBadge(run), element("span", { class: "faint" }, RUNS[run.state].about));
    this.problem.hidden = run.error === null;
    if (run.error !== null) put(this.problem, icon("warn"), element("span", {}, run.error));
    facts(this.found, [["Asked for", businesses(run.asked)], ["Items", number(run.items)], ["Attributed", number(run.attributed), "An item that several teams asked for counts for each"],
      ["Nobody asked for", number(run.unasked)], ["Not found", businesses(run.missing), "They go to the retry queue"]]);
    const batch = run.scheduleId === null ? [] : [["Batch", link("schedule", run.scheduleId, `#${run.scheduleId}`, { label: `Batch ${run.scheduleId}: details` })]];
    const business = run.businessId === null ? [] : [["Business", `#${run.businessId}`]];
    facts(this.about, [...batch, ...business, ["At the provider", run.providerRunId ?? "–"], ["Attempts to start", number(run.attempts)], moment("Made", run.createdAtMs), moment("Started", run.startedAtMs), moment("Finished", run.finishedAtMs), moment("Read", run.processedAtMs)]);
  }

  async refresh() {
    const { id } = this;
    if (id === null) return;
    const run = await runOf(id).catch(() => null);
    if (run !== null && this.id === id) this.draw(run);
  }
}

/** One run: the first of the page that begins with it. */
export async function runOf(id) {
  const { runs } = await api(`/admin/runs?before=${id + 1}&limit=1`);
  return runs.find((run) => run.id === id) ?? null;
}
