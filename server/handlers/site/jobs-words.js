/* What imports, lists and credentials look like in words and small pieces of page: the same in tables, tiles and the drawer. */

import { count, countdown, element, icon, number, percent } from "./format.js";

/** The six states of a job in the order of its life; colour never without icon and word. */
export const STATUSES = {
  scheduled: { icon: "clock", words: "to retry", about: "Failed, and will be tried again by itself" },
  pending: { icon: "wait", words: "waiting", about: "In the queue" },
  processing: { icon: "work", words: "working", about: "A worker is at it" },
  completed: { icon: "check", words: "completed", about: "All pages are in the list" },
  failed: { icon: "warn", words: "failed", about: "Given up; it can be requeued" },
  cancelled: { icon: "stop", words: "cancelled", about: "Stopped by a person" },
};

export const ACTIVE = new Set(["scheduled", "pending", "processing"]);
export const WAITS = new Set(["scheduled", "pending"]);
export const REQUEUED = new Set(["scheduled", "failed", "cancelled"]);

export const statusBadge = (status) => element("span", { class: "status", "data-status": status, title: STATUSES[status].about }, icon(STATUSES[status].icon), STATUSES[status].words);

/** Where members come from: "whop · biz_demo", "CSV file"; a spooled file has a number of the server's in place of its name. */
export const sourceOf = ({ source, provider, account, file }) => (source === "file" ? `${file?.match(/\.(\w+)$/)?.[1].toUpperCase() ?? "a"} file` : `${provider} · ${account}`);

export const rateOf = ({ rate }) => (rate ? `${number(rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate))} members/s` : null);

/** "42 %", "210 members/s", "1:04 left": what is known, in that order. */
export function progressWords(job) {
  const share = job.percent === null || job.percent === undefined ? null : percent(job.percent / 100);
  if (job.status === "completed") return [share, rateOf(job)].filter(Boolean);
  if (job.status !== "processing") return [job.seen > 0 ? share ?? `${count(job.seen, "member")} read` : null].filter(Boolean);
  const left = job.etaMs === null || job.etaMs === undefined ? null : `${countdown(job.etaMs)} left`;
  return [share ?? `${count(job.seen, "member")} read`, rateOf(job), left].filter(Boolean);
}

/** The bar and its words. Without a total nobody knows the share: the bar is then left out where nothing moves. */
export function progressCell(job) {
  const words = progressWords(job);
  const known = job.percent !== null && job.percent !== undefined;
  const shown = known || job.status === "processing";
  const bar = shown ? element("progress", { max: "100", value: known ? String(job.percent) : null, "data-status": job.status, "aria-label": `Progress of import ${job.id}` }) : null;
  return element("div", { class: "progress-cell" }, bar, element("span", { class: "progress-words" }, words.join(" · ") || "–"));
}

/** What went wrong, in a line: the job's own error first, else rows that were left out. */
export function errorLine({ error, rejected, withoutEmail }) {
  if (error) return error;
  const parts = [rejected > 0 ? `${count(rejected, "row")} rejected` : null, withoutEmail > 0 ? `${number(withoutEmail)} without e-mail` : null];
  return parts.filter(Boolean).join(", ");
}

export function errorCell(job) {
  const line = errorLine(job);
  if (!line) return "–";
  return element("span", { class: job.error ? "error-line bad" : "error-line", title: line }, job.error ? icon("warn") : null, element("span", {}, line));
}
