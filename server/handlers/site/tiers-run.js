/* The drawer's content for one run (how far, why people failed or were skipped, each of them) and for one verification (every rule, how
 * often it was broken, who is named). */

import { count, element, exactTime, facts, icon, number, relativeTime } from "./format.js";
import { api, queryOf } from "./shell.js";
import { Table } from "./table.js";
import { resumeRun, stopRun } from "./tiers-forms.js";
import { FINDINGS } from "./tiers-month.js";
import { ITEMS, badge, outcomeWords, personLink, ruleWords, runProgress, runState, shortWords, verdict, verifiedTitle } from "./tiers-words.js";

const PAGE = 100;
const TONES = { done: "completed", failed: "failed", skipped: "cancelled", replaced: "cancelled" };
const PICTURES = { done: "check", failed: "warn", skipped: "minus", replaced: "clock" };

const slotsWords = (physical, { virtual }) => `${number(physical)} in person, ${number(virtual)} virtual`;

const ITEM_COLUMNS = [
  { key: "name", name: "Person", type: "text", format: (name, { person }) => personLink(name, person), csv: (name, { key }) => `${name} (${key})` },
  { key: "status", name: "Outcome", type: "text", format: (status) => badge(TONES[status], PICTURES[status], ITEMS[status]), csv: (status) => status },
  { key: "reason", name: "Why", type: "words", format: (reason, { short }) => whyWords(reason, short), csv: (reason, { short }) => whyWords(reason, short) },
  { key: "physical", name: "Slots", type: "number", format: (physical, { virtual }) => number(physical + virtual), exact: slotsWords, csv: slotsWords },
];

const whyWords = (reason, short) => [reason, ...Object.entries(short ?? {}).map(([kind, why]) => `${kind}: ${shortWords(why)}`)].filter(Boolean).join("; ") || "–";
const time = (name, when) => [name, when ? relativeTime(when) : "–", when ? exactTime(when) : ""];

export class RunDetail {
  constructor(page) {
    this.page = page;
    this.id = null;
  }

  open(run) {
    this.id = run.id;
    this.progress = element("div", { class: "job-progress" });
    this.actions = element("div", { class: "drawer-actions" });
    this.about = element("dl", { class: "fact-list" });
    this.reasons = element("ul", { class: "reasons" });
    const place = element("div");
    this.draw(run);
    const load = async ({ cursor, status }) => {
      const { items, next } = await api(`/tiers/runs/${run.id}/items${queryOf({ status, after: cursor, limit: PAGE })}`);
      return { rows: items, next };
    };
    this.items = new Table(place, {
      caption: `people of run ${run.id}`, columns: ITEM_COLUMNS, load, sorts: false, searches: false, id: ({ person }) => person,
      choices: [{ key: "status", name: "Outcome", options: [["", "any outcome"], ...Object.entries(ITEMS)] }],
      empty: run.kind === "classify" ? "A run of classification lists only those that failed or were skipped: nobody." : "Nobody yet.",
    });
    this.readReasons();
    return [this.progress, this.actions, this.about, this.reasons, element("h3", {}, "People"), place];
  }

  draw(run) {
    const before = this.run;
    this.run = run;
    const fresh = [runState(run), runProgress(run), element("span", { class: "faint" }, outcomeWords(run))];
    if (fresh.map((node) => node.outerHTML).join("") !== this.progress.innerHTML) this.progress.replaceChildren(...fresh);
    facts(this.about, [["People", `${number(run.taken)} of ${number(run.total)}`], ...(run.kind === "generate" ? [["Slots made", number(run.slots)]] : []),
      ["Begun by", run.startedBy ?? "the server"], time("Started", run.startedAtMs), time("Ended", run.finishedAtMs),
      ...(run.replace ? [["Plans anew", "who was planned already too"]] : []), ...(run.override ? [["Gate", "passed over with a reason (audit trail)"]] : [])]);
    this.drawActions(run);
    if (before?.id === run.id && before.status !== run.status) {
      this.items?.refresh();
      this.readReasons();
    }
  }

  drawActions(run) {
    if (this.actions.dataset.may === `${run.id} ${run.status}`) return;
    this.actions.dataset.may = `${run.id} ${run.status}`;
    const done = (now) => this.page.runChanged(now);
    const button = (words, picture, ask) => element("button", { type: "button", onclick: () => ask(this.run, { done }) }, icon(picture), words);
    this.actions.replaceChildren(...{ running: [button("Stop…", "stop", stopRun)], stopped: [button("Resume…", "work", resumeRun)] }[run.status] ?? []);
  }

  async readReasons() {
    const { id } = this;
    const answer = await api(`/tiers/runs/${id}`).catch(() => null);
    if (answer === null || this.id !== id) return;
    const line = ({ status, reason, people }) => element("li", {}, badge(TONES[status], PICTURES[status], `${count(people, "person", "people")} ${ITEMS[status]}`), element("span", {}, reason));
    this.reasons.replaceChildren(...answer.reasons.map(line));
  }
}

/** The nodes for one verification. */
export function verificationDetail(found) {
  const about = element("dl", { class: "fact-list" });
  const took = `${number(Math.round(found.seconds * 100) / 100)} s`;
  facts(about, [["People", number(found.people)], ["Violations", number(found.violations)], ["By", found.who ?? "the server"], time("When", found.atMs), ["Took", took]]);
  const place = element("div");
  new Table(place, {
    caption: `people named by verification ${found.id}`, columns: FINDINGS.filter(({ key }) => key !== "of"), sort: "at", descending: false, id: ({ at }) => at,
    empty: found.passed ? "Nobody: every rule was kept." : "Nobody is named.",
  }).setRows(found.examples.map((example, at) => ({ ...example, at })));
  const rules = element("ul", { class: "rules" }, ...Object.entries(found.rules).map(ruleLine));
  return [element("div", { class: "job-progress" }, verdict(found)), about, element("h3", {}, "Rules"), rules, element("h3", {}, "Who is named"), place];
}

function ruleLine([name, broken]) {
  const [tone, picture, words] = broken > 0 ? ["failed", "warn", `${number(broken)}: ${ruleWords(name)}`] : ["completed", "check", "kept"];
  return element("li", { "data-status": tone }, icon(picture), element("code", {}, name), element("span", { class: broken > 0 ? null : "faint" }, words));
}

export const verificationTitle = (found) => [verifiedTitle(found), `Verification ${found.id}`];
