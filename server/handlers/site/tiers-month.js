/* How far a month is: what comes next and what blocks it, the steps from the foundation to D, and what verification found. One answer
 * (GET /tiers/state); runs under way move in place as the topic tells of them. */

import { count, element, exactTime, icon, number, relativeTime, setText } from "./format.js";
import { Table } from "./table.js";
import {
  TIERS, link, monthWords, outcomeWords, personLink, ruleWords, runProgress, runState, runTitle, smallButton, tierBadge, verdict, verifiedTitle,
} from "./tiers-words.js";

const NEXT_ICONS = { classify: "list", generate: "clock", verify: "target", look: "warn", done: "check" };

/** `page` does what the buttons say: classify, generate, verify, importPeople, showRun, showVerification. */
export class MonthState {
  constructor(page) {
    this.page = page;
    this.state = null;
    this.runs = new Map();
    this.next = document.getElementById("next");
    this.running = document.getElementById("running");
    this.steps = new Table(document.getElementById("steps"), {
      caption: "steps of the month", columns: this.stepColumns(), id: ({ order }) => order, filterable: false, sort: "order", descending: false, stacks: true, empty: "Loading…",
    });
    this.findings = new Table(document.getElementById("findings"), {
      caption: "findings", name: "findings", columns: FINDINGS, id: ({ at }) => at, sort: "at", descending: false, stacks: true, empty: () => this.noFindings(),
    });
  }

  stepColumns() {
    return [
      { key: "order", name: "Step", type: "text", format: (_, row) => this.stepCell(row), csv: (_, { tier }) => tier ?? "foundation", sortable: false },
      { key: "gate", name: "Gate", type: "words", format: (_, row) => gateCell(row), csv: (_, row) => gateWords(row), sortable: false },
      { key: "people", name: "People", type: "number", format: number, sortable: false },
      { key: "run", name: "Planned", type: "text", format: (_, row) => this.plannedCell(row), csv: (_, row) => plannedWords(row), sortable: false },
      { key: "verification", name: "Verified", type: "text", format: (_, row) => this.verifiedCell(row), csv: verifiedCsv, sortable: false },
      { key: "tier", name: "Do", type: "text", format: (_, row) => this.actions(row), csv: () => "", sortable: false, once: true },
    ];
  }

  // ---- drawing ------------------------------------------------------------------------------------------------------

  draw(state) {
    this.state = state;
    this.runs = new Map(state.running.map((run) => [run.id, run]));
    const { foundation, people } = state;
    const first = { order: 0, tier: null, people: people.active, run: null, verification: foundation.verification, open: true, why: foundation.why, missing: foundation.missingTier };
    this.steps.setRows([first, ...state.tiers.map((row) => ({ ...row, order: TIERS.indexOf(row.tier) + 1 }))]);
    this.drawNext();
    this.drawRunning();
    this.drawFindings();
  }

  drawNext() {
    const { next, people, monthly, month } = this.state;
    const nobody = people.all === 0;
    const under = this.underWay(next);
    const words = nobody ? "Nobody is here yet: bring people in" : `${next.text.replaceAll(month, monthWords(month))}${under ? " (under way)" : ""}`;
    const drawn = JSON.stringify([next, people.all, monthly, month, under]);
    if (this.drawnNext === drawn) return;
    this.drawnNext = drawn;
    const file = ["A CSV or NDJSON file; on this machine ", element("code", {}, "batchcast tiers import people.csv"), ", from a script ", element("code", {}, "POST /tiers/people"), "."];
    const loop = monthly ? "The server plans the month that comes next by itself, and stops at the first tier that fails." : "Months are planned only when told: TIERS_MONTHLY is off.";
    const lead = element("b", {}, next.action === "done" && !nobody ? "Done. " : "Next: ");
    const picture = element("span", { class: "next-icon", "data-action": nobody ? "classify" : next.action }, icon(nobody ? "up" : NEXT_ICONS[next.action]));
    const told = element("div", { class: "next-words" }, element("p", {}, lead, words), element("p", { class: "faint" }, ...(nobody ? file : [loop])));
    this.next.replaceChildren(picture, told, ...(under ? [] : this.nextButton(nobody, next)));
  }

  /** Whether a run does already what comes next. */
  underWay({ action, tier }) {
    const does = (run) => run.status === "running" && run.kind === action && (action === "classify" || (run.tier === tier && run.month === this.state.month));
    return Array.from(this.runs.values()).some(does);
  }

  nextButton(nobody, { action, tier }) {
    const { page } = this;
    const all = {
      people: ["Import people…", () => page.importPeople()],
      classify: ["Classify…", () => page.classify("new-only")],
      generate: [`Generate ${tier}…`, () => page.generate(tier)],
      verify: [`Verify ${tier}…`, () => page.verify(tier)],
      look: ["Show what was found", () => page.showVerification(this.state.tiers.find((row) => row.tier === tier)?.verification)],
    };
    const chosen = all[nobody ? "people" : action];
    return chosen ? [element("button", { type: "button", class: "primary", onclick: chosen[1] }, chosen[0])] : [];
  }

  drawRunning() {
    const rows = Array.from(this.runs.values()).filter(({ status }) => status === "running");
    const drawn = new Map(Array.from(this.running.children, (node) => [Number(node.dataset.run), node]));
    for (const [id, node] of drawn) if (!rows.some((run) => run.id === id)) node.remove();
    for (const run of rows) {
      const fresh = [link(runTitle(run), { "data-run-link": String(run.id) }), runProgress(run), element("span", { class: "faint" }, outcomeWords(run))];
      const node = drawn.get(run.id) ?? element("li", { "data-run": String(run.id) });
      if (!node.isConnected) this.running.append(node);
      if (node.childElementCount === 0) node.append(...fresh);
      else [1, 2].forEach((at) => node.children[at].outerHTML !== fresh[at].outerHTML && node.children[at].replaceWith(fresh[at]));
    }
    this.running.hidden = rows.length === 0;
  }

  /** A run has moved. */
  progressed(id, change) {
    if (this.state === null) return;
    const known = this.runs.get(id);
    if (known !== undefined) this.runs.set(id, { ...known, ...change });
    const row = this.state.tiers.find(({ run }) => run?.id === id);
    if (row !== undefined) this.steps.patch(TIERS.indexOf(row.tier) + 1, { run: (row.run = { ...row.run, ...change }) });
    this.drawRunning();
  }

  // ---- the steps ----------------------------------------------------------------------------------------------------

  stepCell({ tier }) {
    const { next } = this.state;
    const here = next.tier === tier && next.action !== "done" && (tier !== null || next.action === "classify");
    return element("span", { class: "step" }, tier === null ? element("b", {}, "Foundation") : tierBadge(tier), here ? element("span", { class: "badge next-badge" }, "next") : null);
  }

  plannedCell(row) {
    const { run, tier, people, missing } = row;
    if (tier === null) return element("span", {}, `${number(people - missing)} of ${number(people)} classified`);
    if (run === null) return element("span", { class: "faint" }, "not planned");
    // How fast it goes stands in the list above.
    const words = run.status === "running" ? `${Math.round(run.percent)} % of ${count(run.total, "person", "people")}` : plannedWords(row);
    return element("div", { class: "planned" }, link(words, { "data-run-link": String(run.id) }), runState(run));
  }

  verifiedCell({ verification }) {
    if (!verification) return verdict(null);
    const { id, atMs } = verification;
    return element("span", { class: "verified" }, verdict(verification), link(relativeTime(atMs), { "data-verification-link": String(id), title: exactTime(atMs) }));
  }

  actions({ tier }) {
    const { page } = this;
    const who = tier === null ? "the foundation" : `tier ${tier}`;
    const first = tier === null ? smallButton("Classify…", () => page.classify("all")) : smallButton("Generate…", () => page.generate(tier), { "aria-label": `Generate ${who}…` });
    return element("div", { class: "row-actions" }, first, smallButton("Verify…", () => page.verify(tier), { "aria-label": `Verify ${who}…` }));
  }

  // ---- findings -----------------------------------------------------------------------------------------------------

  newest() {
    const { foundation, tiers } = this.state;
    return [foundation.verification, ...tiers.map(({ verification }) => verification)].filter(Boolean);
  }

  drawFindings() {
    const failed = this.newest().filter(({ passed }) => !passed);
    const rows = failed.flatMap((found) => found.examples.map((example) => ({ ...example, of: verifiedTitle(found), tier: found.tier })));
    this.findings.setRows(rows.map((row, at) => ({ ...row, at })));
    const all = failed.reduce((sum, { violations }) => sum + violations, 0);
    const more = all > rows.length ? `, ${number(rows.length)} of them named here` : "";
    setText(document.getElementById("findings-count"), all > 0 ? `${count(all, "violation")}${more}` : "");
  }

  noFindings() {
    if (this.state === null) return ["Loading…"];
    const passed = this.newest().filter((found) => found.passed);
    const none = `Nothing was verified for ${monthWords(this.state.month)} yet. `;
    if (passed.length === 0) return [none, smallButton("Verify…", () => this.page.verify(null)), " or ", element("code", {}, "batchcast tiers verify"), "."];
    const names = passed.map(({ tier }) => tier ?? "the foundation").join(", ");
    return [icon("check"), ` Nothing to mend: the last verification of ${names} passed.`];
  }
}

const verifiedCsv = (found) => (!found ? "" : !found.passed ? "failed" : found.stale ? "stale" : "passed");
const gateWords = ({ tier, open, why, people }) => (tier === null ? why ?? (people === 0 ? "nobody yet" : "everybody has a tier") : open ? "open" : why);
/** The month stands above the table already. */
const withoutMonth = (words) => words.replace(/ for \d{4}-\d\d\b/, "");

function gateCell(row) {
  const shut = row.tier === null ? row.why !== null : !row.open;
  const [first, ...rest] = withoutMonth(gateWords(row)).split(";");
  return element("span", { class: "gate-cell", "data-status": shut ? "scheduled" : "completed", title: rest.join(";").trim() || null },
    icon(shut ? "stop" : "check"), element("span", {}, shut && row.tier !== null ? `waits: ${first}` : first));
}

function plannedWords({ run, tier, people, missing }) {
  if (tier === null) return `${people - missing} of ${people}`;
  return run === null ? "not planned" : `${number(run.done + run.unchanged)} of ${number(run.total)}, ${count(run.slots, "slot")}`;
}

/** The columns of what was found, also of one verification in the drawer. */
export const FINDINGS = [
  { key: "at", name: "Rule", type: "text", format: (_, { rule }) => element("code", { title: ruleWords(rule) }, rule), csv: (_, { rule }) => rule },
  { key: "name", name: "Person", type: "text", format: (name, { person }) => personLink(name, person), csv: (name, { key }) => `${name} (${key})` },
  { key: "of", name: "In", type: "text" },
  { key: "detail", name: "What", type: "words", format: (detail, { rule }) => `${ruleWords(rule)}: ${detail}` },
];
