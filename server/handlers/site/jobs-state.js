/* The state of the whole queue, for admins: by status, today and the week, the pace, the workers, what each credential has left.
 * One answer (GET /imports/status), read every two seconds while somebody looks. */

import { columns, sparkline } from "./charts.js";
import { count, duration, element, facts, icon, number, setText, tile } from "./format.js";
import { STATUSES } from "./jobs-words.js";
import { Table } from "./table.js";

const SPARK_MOST = 60;
const HEARTBEAT_LATE_MS = 30_000;

const WORKERS = {
  caption: "workers",
  name: "workers",
  id: ({ id }) => id,
  stacks: true,
  sort: "status",
  descending: false,
  columns: [
    { key: "name", name: "Worker", type: "text", exact: (_, { host, pid, version }) => `Host ${host}, process ${pid}, version ${version}` },
    { key: "status", name: "State", type: "text", format: (status, row) => workerState(status, row) },
    { key: "heartbeatAgeMs", name: "Last heard of", type: "number", format: (age) => `${duration(Math.max(0, Math.round(age / 100) * 100))} ago` },
    { key: "currentJob", name: "Works on", type: "text", format: (job, { status }) => (job === null || status !== "active" ? "–" : `import ${job}`) },
    { key: "lanes", name: "Lanes", type: "number", format: number, phone: false },
    { key: "jobsProcessed", name: "Imports", type: "number", format: number },
    { key: "totalMembersProcessed", name: "Members", type: "number", format: number },
  ],
  empty: () => ["No worker has ever run here. ", element("code", {}, "batchcast worker"), " starts one; ", element("code", {}, "IMPORTS_LANES"), " gives lanes to the server itself."],
};

function workerState(status, { heartbeatAgeMs }) {
  const late = status === "active" && heartbeatAgeMs > HEARTBEAT_LATE_MS;
  const words = late ? "silent" : status;
  const picture = { active: "live", stopped: "minus", dead: "warn", silent: "warn" }[words];
  return element("span", { class: "status", "data-status": { active: "completed", dead: "failed", silent: "failed" }[words] ?? "cancelled" }, icon(picture), words);
}

/** `filter(status)` shows the imports of that status. */
export class QueueState {
  constructor({ filter }) {
    this.tiles = document.getElementById("tiles");
    this.panel = document.getElementById("workers-panel");
    this.filter = filter;
    this.rates = [];
    this.build();
    this.table = new Table(document.getElementById("workers"), WORKERS);
  }

  show(on) {
    this.tiles.hidden = this.panel.hidden = !on;
  }

  build() {
    this.counts = Object.fromEntries(Object.keys(STATUSES).map((status) => [status, element("b", {}, "–")]));
    const queue = Object.entries(STATUSES).map(([status, { icon: name, words, about }]) => element("button", {
      type: "button", class: "count", "data-status": status, title: `${about}. Show these imports`, onclick: () => this.filter(status),
    }, icon(name), element("span", {}, words), this.counts[status]));
    this.today = element("dl", { class: "tile-facts" });
    this.week = element("div", { class: "week" });
    this.weekWords = element("p", { class: "faint" });
    this.pace = element("div", { class: "pace" });
    this.paceWords = element("p", { class: "faint" });
    this.tiles.replaceChildren(
      tile("Queue", element("div", { class: "counts" }, ...queue)), tile("Today (UTC)", this.today),
      tile("Last 7 days", this.week, this.weekWords), tile("Pace", this.pace, this.paceWords));
  }

  draw(state) {
    for (const [status, node] of Object.entries(this.counts)) setText(node, number(state.queue[status] ?? 0));
    this.drawDays(state);
    this.drawPace(state);
    this.table.setRows(state.workers);
    const alive = state.workers.filter(({ status }) => status === "active").length;
    setText(document.getElementById("workers-count"), `${alive} active`);
  }

  drawDays({ today, week, days, serverTime }) {
    facts(this.today, [["Completed", number(today.completedJobs)], ["Failed", number(today.failedJobs)], ["Members", number(today.totalMembersProcessed)],
      ["Seconds an import", number(today.avgProcessingSeconds)]]);
    const drawn = JSON.stringify([days, new Date(serverTime).getUTCDate()]);
    if (this.drawnDays === drawn) return;
    this.drawnDays = drawn;
    const known = new Map(days.map((day) => [day.date, day]));
    const last = Array.from({ length: 7 }, (_, back) => new Date(serverTime - (6 - back) * 86_400_000).toISOString().slice(0, 10));
    const bars = last.map((date) => dayBar(date, known.get(date)));
    const words = `${count(week.completedJobs, "import")} completed, ${number(week.failedJobs)} failed, ${count(week.totalMembersProcessed, "member")}`;
    this.week.replaceChildren(columns(bars, `Imports ended in each of the last 7 days: ${bars.map(({ label }) => label).join("; ")}`));
    setText(this.weekWords, words);
  }

  drawPace({ throughput, workersSuggested, workers }) {
    this.rates = [...this.rates, throughput.membersPerS ?? 0].slice(-SPARK_MOST);
    const rate = `${number(Math.round(throughput.membersPerS ?? 0))} members/s`;
    this.pace.replaceChildren(element("b", { class: "pace-figure" }, rate), sparkline(this.rates, `Members a second while this page is open, now ${rate}`, { width: 120, height: 32 }));
    const active = workers.filter(({ status }) => status === "active").length;
    setText(this.paceWords, `${number(throughput.jobsPerMin ?? 0)} imports/min in the last minute. ${suggestion(workersSuggested, active)}`);
  }
}

function suggestion(wanted, active) {
  if (wanted === 0) return `No backlog; ${count(active, "worker")} at hand.`;
  return `The backlog suggests ${count(wanted, "worker")}; ${number(active)} at hand${wanted > active ? ": start more with batchcast worker." : "."}`;
}

function dayBar(date, day = { completedJobs: 0, failedJobs: 0 }) {
  return { label: `${date}: ${number(day.completedJobs)} completed, ${number(day.failedJobs)} failed`, parts: [{ name: "good", value: day.completedJobs }, { name: "bad", value: day.failedJobs }] };
}

/** What the processes that use a credential tell of it, together. */
export function usageOf(credentials, id) {
  const all = credentials.filter(({ credentialId }) => credentialId === id);
  if (all.length === 0) return { calls: null, limited: null, failed: null, tokens: null, shutMs: 0, secondsPerPage: null };
  const sum = (key) => all.reduce((total, usage) => total + (usage[key] ?? 0), 0);
  const paced = all.filter(({ secondsPerPage }) => secondsPerPage !== null);
  const pages = paced.reduce((total, { pages: n }) => total + n, 0);
  const seconds = paced.reduce((total, usage) => total + usage.secondsPerPage * usage.pages, 0);
  const shutMs = Math.max(...all.map((usage) => usage.shutMs ?? 0));
  return { calls: sum("calls"), limited: sum("limited"), failed: sum("failed"), tokens: sum("tokens"), shutMs, secondsPerPage: pages > 0 ? seconds / pages : null };
}
