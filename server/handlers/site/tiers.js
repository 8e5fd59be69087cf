/* The tiers page. For admins: how far a month is and what comes next, how things stand tier by tier, what verification found, people with
 * why they have their tier, runs. For everybody else: what a frontend sees of the people. Tables hold what the API answers; the progress
 * of runs comes over the WebSocket (topic `tiers`) and is drawn at most twice a second. */

import { Drawer } from "./drawer.js";
import { count, element, number, setText, timeOfDay } from "./format.js";
import { api, askToken, drawPages, keepInAddress, loadIcons, notify, pageClient, queryOf, token, watchAccount, watchConnection } from "./shell.js";
import { Table } from "./table.js";
import { classify, decide, generate, importPeople, verify } from "./tiers-forms.js";
import { MonthState } from "./tiers-month.js";
import { PersonDetail } from "./tiers-person.js";
import { PublicDetail, PublicTable } from "./tiers-public.js";
import { TierReport } from "./tiers-report.js";
import { RunDetail, verificationDetail, verificationTitle } from "./tiers-run.js";
import {
  FLAGS, TIERS, brokenRules, countries, countryName, flagsCell, isMonth, link, monthAfter, monthWords, outcomeWords, personLink, runProgress, runState, runTitle, runWords,
  smallButton, thisMonth, tierBadge, verdict, verifiedTitle,
} from "./tiers-words.js";

const DRAW_MS = 500;
const STATE_MS = 10_000;
const REPORT_MS = 60_000;
const PAGE = 50;
const PEOPLE_PAGE = 25;
const RUNS_MOST = 200;
const MONTHS_BACK = 6;
const MONTHS_AHEAD = 12;

const KINDS = [["", "Any kind"], ["classify", "classification"], ["generate", "planning"]];
const SHOWN = [["", "Everybody"], ["review", "For review"], ["excluded", "Left out"]];
const tierOptions = [["", "Any tier"], ...TIERS.map((tier) => [tier, `Tier ${tier}`])];
const iso = (ms) => (ms ? new Date(ms).toISOString() : "");

/** Of runs that were told of, the newest are remembered. */
const forgetOldest = (runs) => runs.size > RUNS_MOST && runs.delete(runs.keys().next().value);

class Page {
  constructor() {
    this.client = pageClient();
    this.drawer = new Drawer(() => this.closed());
    this.person = new PersonDetail(this);
    this.run = new RunDetail(this);
    this.celebrity = new PublicDetail(this);
    const asked = new URLSearchParams(location.search).get("month");
    this.month = isMonth(asked) ? asked : thisMonth();
    this.who = undefined;
    this.changes = new Map();
    this.statuses = new Map();
    this.awaited = new Map();
    this.pending = new Set();
  }

  start() {
    drawPages();
    loadIcons();
    watchConnection(this.client);
    watchAccount(this.client, () => this.account());
    this.wire();
    this.drawMonths();
    this.client.start();
  }

  wire() {
    const { client } = this;
    const on = (id, clicked) => document.getElementById(id).addEventListener("click", clicked);
    client.on("topic", (message) => message.type === "progress" && message.topic === "tiers" && this.progressed(message));
    client.on("state", ({ name }) => name === "live" && this.readAll());
    client.on("problem", ({ code, message }) => code !== "not_found" && client.sub !== null && notify(message, { error: true }));
    on("hint-sign-in", () => askToken(client));
    on("import", () => this.importPeople());
    on("classify", () => this.classify("all"));
    on("verify", () => this.verify(null));
    on("month-before", () => this.turn(monthAfter(this.month, -1)));
    on("month-after", () => this.turn(monthAfter(this.month, 1)));
    document.getElementById("month").addEventListener("change", ({ target }) => this.turn(target.value));
    document.addEventListener("visibilitychange", () => this.readAll());
    document.addEventListener("click", ({ target }) => this.followed(target.closest?.("[data-person], [data-run-link], [data-verification-link], [data-celebrity]")?.dataset));
    setInterval(() => this.pending.has("stateAt") || this.readState(), STATE_MS);
    setInterval(() => this.pending.has("reportAt") || this.readReport(), REPORT_MS);
  }

  get admin() {
    return this.client.roles.includes("admin");
  }

  /** Whether to ask the server now: an admin, connected, and somebody looks. */
  reading() {
    return this.people !== undefined && this.client.live && this.admin && !document.hidden;
  }

  // ---- who looks ----------------------------------------------------------------------------------------------------

  account() {
    const { sub, roles } = this.client;
    const unsure = sub === null && token.read() !== null;
    document.getElementById("checking").hidden = !unsure;
    document.getElementById("admin").hidden = document.getElementById("page-actions").hidden = !this.admin;
    document.getElementById("public").hidden = unsure || this.admin;
    const words = sub === null ? "Without a token you see what a frontend sees: people, prices, free slots. An admin’s token shows the rest: evidence, batches, verification."
      : `${sub} has the role ${roles.join(", ") || "viewer"}: people, prices, free slots and your own bookings. Evidence, batches and verification need the role admin.`;
    setText(document.getElementById("hint-words"), words);
    document.getElementById("hint-sign-in").hidden = sub !== null;
    const who = unsure ? "unsure" : `${sub} ${this.admin}`;
    if (this.who === who) return;
    this.who = who;
    this.forget();
    if (!unsure) this.build();
  }

  /** Nothing of the one who was here before stays. */
  forget() {
    for (const topic of this.client.topics) this.client.unsubscribe(topic).catch(() => undefined);
    this.drawer.hide();
    this.person.id = this.run.id = this.celebrity.id = this.verification = null;
    this.changes.clear();
    this.statuses.clear();
    this.awaited.clear();
    this.people = this.publicTable = this.state = this.report = undefined;
    const filled = ["next", "running", "steps", "findings", "findings-count", "verifications", "distribution", "warnings", "prices", "availability", "people-counts", "people", "runs", "celebrities"];
    for (const id of filled) document.getElementById(id).replaceChildren();
  }

  build() {
    if (this.admin) this.buildAdmin();
    else this.publicTable = new PublicTable(document.getElementById("celebrities")).table;
    this.openAddress();
  }

  buildAdmin() {
    this.state = new MonthState(this);
    this.report = new TierReport({ filter: (change) => this.showPeople(change) });
    this.people = this.buildPeople();
    this.verifications = this.buildVerifications();
    this.runs = this.buildRuns();
    this.client.subscribe("tiers").catch((refusal) => notify(refusal.message, { error: true }));
    this.readState();
    this.readReport();
  }

  // ---- tables -------------------------------------------------------------------------------------------------------

  buildPeople() {
    const review = (_, row) => (row.needsReview ? smallButton("Decide…", () => this.decide(row), { "aria-label": `Decide about ${row.name}…` }) : "–");
    const flags = (all, { needsReview }) => (all.length > 0 ? `${needsReview ? "" : "accepted: "}${all.join(" ")}` : "");
    const columns = [
      { key: "name", name: "Name", type: "text", format: (name, { id }) => personLink(name, id), exact: (_, { key }) => key, csv: (name) => name },
      { key: "tier", name: "Tier", type: "text", format: tierBadge, csv: (tier) => tier },
      { key: "reason", name: "Why", type: "words", sortable: false, format: (reason, { excluded }) => (excluded ? `left out: ${excluded}` : reason ?? "not classified yet") },
      { key: "flags", name: "Review", type: "text", sortable: false, format: (_, row) => flagsCell(row), csv: flags },
      { key: "needsReview", name: "Do", type: "text", sortable: false, format: review, csv: () => "" },
      { key: "country", name: "Country", type: "text", sortable: false, format: (code) => countryName(code) ?? "–", csv: (code) => code, phone: false },
      { key: "maxMonthlySlots", name: "Slots a month", type: "number", sortable: false, format: number, phone: false },
      { key: "decidedAtMs", name: "Decided", type: "time", sortable: false, csv: iso, phone: false },
    ];
    const load = async ({ cursor, sort, filter, show, tier, flag, country }) => {
      const shown = { review: { review: true, excluded: false }, excluded: { excluded: true } }[show] ?? {};
      const { people, next } = await api(`/tiers/people${queryOf({ ...shown, tier, flag, country, search: filter.trim(), sort, after: cursor, limit: PEOPLE_PAGE })}`);
      return { rows: people, next };
    };
    return new Table(document.getElementById("people"), {
      caption: "people", name: "people", columns, load, id: ({ id }) => id, sorts: true, ascends: true, descending: false, stacks: true,
      choices: [
        { key: "show", name: "Who", options: SHOWN },
        { key: "tier", name: "Tier", options: tierOptions },
        { key: "flag", name: "Flag", options: [["", "Any flag"], ...Object.entries(FLAGS)] },
        { key: "country", name: "Country", options: [["", "Any country"], ...countries()] },
      ],
      empty: () => ["Nobody is here yet. ", smallButton("Import people…", () => this.importPeople()), " or ", element("code", {}, "batchcast tiers import people.csv"),
        ", from a script ", element("code", {}, "POST /tiers/people"), "."],
    });
  }

  buildVerifications() {
    const title = (id, found) => link(verifiedTitle(found), { "data-verification-link": String(id), "aria-label": `Verification ${id}: details` });
    const columns = [
      { key: "id", name: "What", type: "text", format: title, csv: (_, found) => verifiedTitle(found) },
      { key: "passed", name: "Result", type: "text", format: (_, found) => verdict(found), csv: (passed, { stale }) => (passed ? (stale ? "passed, stale" : "passed") : "failed") },
      { key: "violations", name: "Violations", type: "number", format: number },
      { key: "rules", name: "Rules broken", type: "words", sortable: false, format: (_, found) => brokenRules(found) || "–", csv: (_, found) => brokenRules(found) },
      { key: "people", name: "People", type: "number", format: number, phone: false },
      { key: "who", name: "By", type: "text", format: (who) => who ?? "the server", phone: false },
      { key: "atMs", name: "When", type: "time", csv: iso },
    ];
    const load = async ({ cursor, tier, of }) => {
      const { verifications, next } = await api(`/tiers/verifications${queryOf({ tier, month: of === "month" ? this.month : null, before: cursor, limit: PAGE })}`);
      return { rows: verifications, next };
    };
    return new Table(document.getElementById("verifications"), {
      caption: "verifications", name: "verifications", columns, load, sorts: false, searches: false, id: ({ id }) => id, stacks: true,
      choices: [{ key: "tier", name: "Tier", options: tierOptions }, { key: "of", name: "Month", options: [["", "Any month"], ["month", "The month above"]] }],
      empty: () => ["Nothing was verified yet: ", element("code", {}, "batchcast tiers verify"), ", from a script ", element("code", {}, "POST /tiers/verify"), "."],
    });
  }

  buildRuns() {
    const title = (id, run) => link(runTitle(run), { "data-run-link": String(id), "aria-label": `Run ${id}: details` });
    const columns = [
      { key: "id", name: "Run", type: "text", format: title, csv: (id, run) => `${id} ${runTitle(run)}` },
      { key: "status", name: "State", type: "text", format: (_, run) => runState(run), csv: (status) => status },
      { key: "percent", name: "Progress", type: "text", format: (_, run) => runProgress(run), csv: (_, run) => runWords(run).join(" · ") },
      { key: "done", name: "People", type: "text", format: (_, run) => outcomeWords(run), csv: (_, run) => outcomeWords(run) },
      { key: "slots", name: "Slots", type: "number", format: (slots, { kind }) => (kind === "generate" ? number(slots) : "–") },
      { key: "startedBy", name: "By", type: "text", format: (who) => who ?? "the server", phone: false },
      { key: "startedAtMs", name: "Started", type: "time", csv: iso },
    ];
    const load = async ({ cursor, kind }) => {
      const { runs, next } = await api(`/tiers/runs${queryOf({ kind, before: cursor, limit: PAGE })}`);
      const open = runs.find(({ id }) => id === this.run.id);
      if (open) this.run.draw(open);
      runs.forEach((run) => this.noted(run));
      return { rows: runs, next };
    };
    return new Table(document.getElementById("runs"), {
      caption: "runs", name: "runs", columns, load, sorts: false, searches: false, id: ({ id }) => id, stacks: true, choices: [{ key: "kind", name: "Kind", options: KINDS }],
      empty: () => ["No run yet: ", element("code", {}, "batchcast tiers classify"), ", from a script ", element("code", {}, "POST /tiers/classify"), "."],
    });
  }

  showPeople(change) {
    this.people.search.value = "";
    this.people.change({ filter: "", ...change });
    document.getElementById("people-title").scrollIntoView({ block: "start" });
  }

  // ---- the month ----------------------------------------------------------------------------------------------------

  drawMonths() {
    const now = thisMonth();
    const months = new Set(Array.from({ length: MONTHS_BACK + MONTHS_AHEAD + 1 }, (_, at) => monthAfter(now, at - MONTHS_BACK)).concat(this.month));
    const option = (month) => element("option", { value: month, selected: month === this.month }, monthWords(month));
    document.getElementById("month").replaceChildren(...Array.from(months).sort().map(option));
  }

  turn(month) {
    this.month = month;
    keepInAddress({ month: month === thisMonth() ? null : month });
    this.drawMonths();
    if (this.people === undefined) return;
    for (const id of ["steps", "availability"]) document.getElementById(id).setAttribute("aria-busy", "true");
    this.readState();
    this.readReport();
    if (this.verifications.state.of) this.verifications.fetch(null);
  }

  // ---- reading ------------------------------------------------------------------------------------------------------

  readAll() {
    if (this.publicTable !== undefined && this.client.live && !document.hidden) this.publicTable.refresh();
    if (!this.reading()) return;
    for (const table of [this.people, this.verifications, this.runs]) table.refresh();
    this.readState();
    this.readReport();
    this.person.refresh();
  }

  readState() {
    return this.read("/tiers/state", "as-of", "stateAt", (state) => {
      this.state.draw(state);
      document.getElementById("steps").removeAttribute("aria-busy");
    });
  }

  readReport() {
    return this.read("/tiers/report", "report-as-of", "reportAt", (report) => {
      this.report.draw(report);
      document.getElementById("availability").removeAttribute("aria-busy");
    });
  }

  /** One answer about the month; what comes for another month, or after a newer question, is dropped. */
  async read(path, place, at, draw) {
    if (this.people === undefined || document.hidden) return;
    const { who, month } = this;
    const question = (this[`${at}Asked`] = Symbol(path));
    const current = () => this.who === who && this.month === month && this[`${at}Asked`] === question;
    this.pending.add(at);
    try {
      const answer = await api(`${path}?month=${month}`);
      if (!current()) return;
      draw(answer);
      this[at] = Date.now();
      setText(document.getElementById(place), "");
    } catch (refusal) {
      if (!current()) return;
      const since = this[at] ? `The figures are of ${timeOfDay(this[at])}` : "No figures";
      setText(document.getElementById(place), `${since}: ${refusal.message}`);
    } finally {
      if (this[`${at}Asked`] === question) this.pending.delete(at);
    }
  }

  // ---- progress -----------------------------------------------------------------------------------------------------

  progressed({ type, topic, ref, run, ...change }) {
    this.changes.set(run, { ...this.changes.get(run), ...change });
    this.drawing ??= setTimeout(() => this.drawProgress(), DRAW_MS);
  }

  drawProgress() {
    this.drawing = null;
    const changes = Array.from(this.changes);
    this.changes.clear();
    if (this.people === undefined) return;
    let turned = false;
    for (const [id, change] of changes) {
      const before = this.runs.rows.find((row) => row.id === id);
      this.state.progressed(id, change);
      turned = this.turned(id, change.status) || turned;
      this.noted({ ...before, ...change, id });
      this.runs.patch(id, change);
      if (this.run.id === id) this.run.draw({ ...this.run.run, ...change });
    }
    if (turned) this.readAll();
  }

  /** Whether a run is new here, has ended, or goes on: only then is everything read again. */
  turned(id, status) {
    const before = this.statuses.get(id);
    this.statuses.delete(id);
    this.statuses.set(id, status);
    forgetOldest(this.statuses);
    return before !== status;
  }

  /** One's own run has come to its end while one looks on, whoever tells of it first: say so, once. */
  noted(run) {
    if (run.status === "running" && run.startedBy === this.client.sub) this.awaited.set(run.id, run);
    forgetOldest(this.awaited);
    const awaited = this.awaited.get(run.id);
    if (awaited === undefined || run.status === "running") return;
    this.awaited.delete(run.id);
    if (run.status !== "done") return;
    const words = `Run ${run.id} is through, ${runTitle(awaited)}: ${outcomeWords(run)}${run.kind === "generate" ? `, ${count(run.slots, "slot")}` : ""}.`;
    notify(words, { error: run.failed > 0 });
  }

  // ---- what the person does -----------------------------------------------------------------------------------------

  importPeople() {
    importPeople({ done: () => this.changed() });
  }

  classify(mode) {
    const counts = this.state.state?.people ?? { active: 0, missingTier: 0 };
    classify({ mode: mode === "new-only" && counts.missingTier === 0 ? "all" : mode, counts, done: (run) => this.runChanged(run) });
  }

  generate(tier) {
    const row = this.state.state.tiers.find((one) => one.tier === tier);
    generate({ tier, month: this.month, size: row.people, why: row.why, done: (run) => this.runChanged(run) });
  }

  verify(tier) {
    verify({ tier, month: this.month, done: () => this.changed() });
  }

  decide(row) {
    decide(row, { done: (now) => this.personChanged(now) });
  }

  /** Why a tier must wait in that month, as far as it is known here; the server is asked in any case. */
  gateOf(tier, month) {
    return month === this.month ? this.state.state?.tiers.find((row) => row.tier === tier)?.why ?? null : null;
  }

  changed() {
    this.readAll();
  }

  personChanged(person) {
    this.people.patch(person.id, person);
    this.readAll();
  }

  runChanged(run) {
    this.noted(run);
    if (this.run.id === run.id) this.run.draw(run);
    this.runs.patch(run.id, run);
    this.readAll();
  }

  // ---- the drawer ---------------------------------------------------------------------------------------------------

  followed(link) {
    if (!link) return;
    if (link.person) this.openPerson(Number(link.person));
    else if (link.runLink) this.openRun(Number(link.runLink));
    else if (link.verificationLink) this.openVerification(Number(link.verificationLink));
    else this.openCelebrity(Number(link.celebrity));
  }

  openAddress() {
    const query = new URLSearchParams(location.search);
    const id = (name) => (/^[1-9]\d{0,15}$/.test(query.get(name) ?? "") ? Number(query.get(name)) : null);
    const [person, run, verification] = ["person", "run", "verification"].map(id);
    if (person !== null) return this.admin ? this.openPerson(person, query.get("calendar")) : this.openCelebrity(person);
    if (this.admin && run !== null) return this.openRun(run);
    if (this.admin && verification !== null) return this.openVerification(verification);
  }

  openPerson(id, month = null) {
    this.mark({ person: id });
    const name = this.people.rows.find((row) => row.id === id)?.name ?? `Person ${id}`;
    this.drawer.open(name, "", ...this.person.open(id, isMonth(month) ? month : this.month));
  }

  openCelebrity(id) {
    this.mark({ celebrity: id });
    this.drawer.open(this.publicTable.rows.find((row) => row.id === id)?.name ?? `Person ${id}`, "", ...this.celebrity.open(id));
  }

  async openRun(id) {
    const run = this.runs.rows.find((row) => row.id === id) ?? await this.fetched(`/tiers/runs/${id}`);
    if (run === null) return;
    this.mark({ run: id });
    this.drawer.open(runTitle(run), `Run ${id}`, ...this.run.open(run));
  }

  showVerification(found) {
    if (found) this.openVerification(found.id);
  }

  async openVerification(id) {
    const known = [...this.verifications.rows, ...(this.state.state === null ? [] : this.state.newest())].find((row) => row.id === id);
    const found = known ?? (await this.fetched(`/tiers/verifications?before=${id + 1}&limit=1`))?.verifications.find((row) => row.id === id) ?? null;
    if (found === null) return notify(`There is no verification ${id}.`, { error: true });
    this.mark({ verification: id });
    const [title, about] = verificationTitle(found);
    this.drawer.open(title, about, ...verificationDetail(found));
  }

  async fetched(path) {
    try {
      return await api(path);
    } catch (refusal) {
      notify(refusal.message, { error: true });
      return null;
    }
  }

  /** One thing is shown: note it in the address, and in the table that it stands in. */
  mark({ person = null, run = null, verification = null, celebrity = null }) {
    this.person.id = person;
    this.run.id = run;
    this.celebrity.id = celebrity;
    const text = (id) => (id === null ? null : String(id));
    keepInAddress({ person: text(person ?? celebrity), run: text(run), verification: text(verification), calendar: null });
    this.people?.select(person);
    this.runs?.select(run);
    this.verifications?.select(verification);
    this.publicTable?.select(celebrity);
  }

  /** The drawer's content knows its title only now. */
  titled(title, about) {
    setText(this.drawer.title, title);
    setText(this.drawer.about, about);
  }

  calendarTurned(month) {
    keepInAddress({ calendar: month === this.month ? null : month });
  }

  gone(words) {
    notify(words, { error: true });
    this.drawer.leave();
  }

  closed() {
    this.mark({});
  }
}

new Page().start();
