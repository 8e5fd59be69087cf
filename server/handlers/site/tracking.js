/* The tracking page. For admins: how all stands, runs as they go, campaigns, posts to decide, counts that jumped, payouts, failed scrapes, the
 * planner. For a creator's token: the own posts, what they earn, payouts, and nothing of anybody else's. Tables hold what the API answers.
 * The topic `tracking` brings the run that is under way, and otherwise only hints at what has changed: what is shown of it is asked for
 * again, at most once in two seconds. Creators have no topic; their tables are read again every so often. */

import { Drawer, checksDetail } from "./drawer.js";
import { count, money, number, setText, timeOfDay } from "./format.js";
import { act, api, askToken, drawPages, keepInAddress, loadIcons, notify, pageClient, token, watchAccount, watchConnection } from "./shell.js";
import { Balance, creatorTables } from "./tracking-creator.js";
import { CampaignDetail, PayoutDetail, RunDetail, SubmissionDetail } from "./tracking-detail.js";
import { newCampaign, runNow, submitPost } from "./tracking-forms.js";
import { Planner } from "./tracking-planner.js";
import { TrackingState } from "./tracking-state.js";
import { actorTable, campaignTable, failedTable, heldTable, payoutTable, runTable, submissionTable } from "./tracking-tables.js";
import { RUNS } from "./tracking-words.js";

const LOOK_MS = 250;
const LOOK_GAP_MS = 2_000;
const READ_MS = 30_000;
const CREATOR_MS = 10_000;
const DRAW_MS = 5_000;
const ID = /^[1-9]\d{0,15}$/;
/** What the drawer shows, and what it is called until that is known. */
const TITLES = { campaign: "Campaign", submission: "Post", run: "Run", payout: "Payout request" };
const DETAILS = Object.keys(TITLES);

/** What each hint is about: tables, figures and details, by the names they have here. */
const TOUCHES = {
  runs: ["runs", "health", "stats", "run"],
  campaigns: ["campaigns", "stats", "campaign"],
  submissions: ["submissions", "campaigns", "stats", "submission"],
  held: ["held", "stats"],
  payouts: ["payouts", "stats", "payout"],
  failed: ["failed", "stats"],
};
const EVERYTHING = [...new Set(Object.values(TOUCHES).flat()), "balance", "notifications", "ledger"];
/** How each of the figures is read, and where it is said that it could not be. */
const FIGURES = { health: ["/tracking/health", "as-of"], stats: ["/tracking/stats", "as-of"], balance: ["/tracking/balance", "balance-as-of"] };
const FILLED = ["tiles", "rates", "running-now", "runs", "campaigns", "submissions", "held", "payouts", "failed", "actors", "clips", "plan", "balance", "posts", "open-campaigns", "own-payouts", "notifications", "ledger"];

class Page {
  constructor() {
    this.client = pageClient();
    this.drawer = new Drawer(() => this.closed());
    this.details = { campaign: new CampaignDetail(this), submission: new SubmissionDetail(this), run: new RunDetail(this), payout: new PayoutDetail(this) };
    this.who = undefined;
    this.awaited = new Set();
    this.forget();
  }

  start() {
    drawPages();
    loadIcons();
    watchConnection(this.client);
    watchAccount(this.client, () => this.account());
    this.wire();
    this.client.start();
  }

  wire() {
    const { client } = this;
    const on = (id, work) => document.getElementById(id).addEventListener("click", ({ currentTarget }) => act(currentTarget, work));
    client.on("topic", (message) => message.topic === "tracking" && message.detail && this.hinted(message.detail));
    client.on("state", ({ name }) => name === "live" && this.back());
    client.on("problem", ({ code, message }) => code !== "not_found" && client.sub !== null && notify(message, { error: true }));
    document.getElementById("gate-sign-in").addEventListener("click", () => askToken(client));
    document.getElementById("new-campaign").addEventListener("click", () => this.newCampaign());
    document.getElementById("run-now").addEventListener("click", () => runNow({ done: (run) => this.began(run) }));
    on("add-post", () => this.submit());
    on("submit-post", () => this.submit());
    on("check", () => this.openChecks());
    document.addEventListener("visibilitychange", () => this.look(EVERYTHING));
    document.addEventListener("click", ({ target }) => this.followed(target.closest?.(DETAILS.map((name) => `button[data-${name}]`).join(", "))?.dataset));
    setInterval(() => this.admin && this.look(EVERYTHING), READ_MS);
    setInterval(() => this.admin || this.look(EVERYTHING), CREATOR_MS);
    setInterval(() => this.reading() && this.redraw(), DRAW_MS);
  }

  get admin() {
    return this.client.roles.includes("admin");
  }

  /** Whether to ask the server now: it is known who looks, it is connected, and somebody looks. */
  reading() {
    return this.built && this.client.live && this.client.sub !== null && !document.hidden;
  }

  // ---- who looks ----------------------------------------------------------------------------------------------------

  account() {
    const { sub } = this.client;
    const who = `${sub} ${this.admin}`;
    this.showParts();
    if (this.who === who) return;
    this.who = who;
    this.forget();
    if (sub === null) return;
    if (this.admin) this.buildAdmin();
    else this.buildCreator();
    this.built = true;
    this.openAddress();
  }

  showParts() {
    const { sub } = this.client;
    const show = (id, on) => (document.getElementById(id).hidden = !on);
    const unsure = sub === null && token.read() !== null;
    show("gate", sub === null && !unsure);
    show("checking", unsure);
    for (const id of ["admin", "admin-actions"]) show(id, sub !== null && this.admin);
    for (const id of ["creator", "creator-actions"]) show(id, sub !== null && !this.admin);
    setText(document.getElementById("about"), sub !== null && !this.admin ? "Your posts, how often they are seen, and what they earn." : "How often creators’ posts are seen, and what that earns.");
  }

  /** Nothing of the one who was here before stays. */
  forget() {
    for (const topic of this.client.topics) this.client.unsubscribe(topic).catch(() => undefined);
    this.drawer.hide();
    for (const detail of Object.values(this.details)) detail.id = null;
    this.tables = {};
    this.state = this.balance = null;
    this.built = false;
    this.touched = new Set();
    this.readAt = {};
    this.asked = {};
    this.awaited.clear();
    for (const id of FILLED) document.getElementById(id).replaceChildren();
    document.getElementById("running-now").hidden = true;
    for (const id of ["as-of", "balance-as-of"]) setText(document.getElementById(id), "");
  }

  back() {
    // What is there at the first connection was read a moment ago.
    if (this.connected) this.look(EVERYTHING);
    this.connected = true;
  }

  buildCreator() {
    this.balance = new Balance(this);
    this.tables = creatorTables(this);
    this.readFigures("balance");
  }

  buildAdmin() {
    const place = (id) => document.getElementById(id);
    const page = this;
    this.state = new TrackingState(this);
    this.tables = {
      runs: runTable(place("runs"), { read: (runs) => this.runsRead(runs) }), campaigns: campaignTable(place("campaigns"), { page }), submissions: submissionTable(place("submissions"), { page }), held: heldTable(place("held"), { page }),
      payouts: payoutTable(place("payouts"), { page }), failed: failedTable(place("failed"), { page }), actors: actorTable(place("actors")),
    };
    this.planner = new Planner(place("plan"));
    this.client.subscribe("tracking").catch((refusal) => notify(refusal.message, { error: true }));
    this.readFigures("health");
    this.readFigures("stats");
    this.readFee();
  }

  /** The usual fee of a payout stands in everybody's own balance. */
  async readFee() {
    this.feeBasis = (await api("/tracking/balance").catch(() => null))?.feeBasis ?? null;
  }

  // ---- reading ------------------------------------------------------------------------------------------------------

  /** The run comes along and is drawn as it is; what else has changed is asked for. */
  hinted({ changed, run }) {
    if (!this.built || this.state === null) return;
    const areas = changed.filter((area) => area !== "runs" || !run || this.runTold(run));
    this.look(areas.flatMap((area) => TOUCHES[area] ?? []));
  }

  /** Draw what is told of a run; whether it is new here, or has ended. */
  runTold(run) {
    const before = this.tables.runs.rows.find(({ id }) => id === run.id)?.status;
    this.runChanged(run);
    return before !== run.status;
  }

  runChanged(run) {
    this.tables.runs.patch(run.id, run);
    this.state.drawRun(run);
    if (this.details.run.id === run.id) this.details.run.draw(run);
    this.ended(run);
  }

  runsRead(runs) {
    if (this.state === null) return;
    this.state.drawRun(runs.find(({ status }) => status === "running") ?? null);
    this.state.drawRates(runs);
    runs.forEach((run) => this.ended(run));
  }

  /** One's own run has come to its end while one looks on: say so, once. */
  ended(run) {
    if (run.status === "running" || !this.awaited.delete(run.id)) return;
    const rate = run.successRate === null ? "" : `, ${number(run.successRate)} % brought a count`;
    notify(`Run ${run.id} has ended (${RUNS[run.stopReason]?.words ?? run.stopReason}): ${count(run.processed, "post")} looked at${rate}, ${money(run.earnedCents)} granted.`, { error: run.stopReason === "provider_auth" });
  }

  /** Ask for these again, soon; hints that come close together are one question. */
  look(names) {
    for (const name of names) this.touched.add(name);
    if (this.looking || !this.reading() || this.touched.size === 0) return;
    const wait = Math.max(LOOK_MS, LOOK_GAP_MS - (Date.now() - (this.lookedAt ?? 0)));
    this.looking = setTimeout(() => this.lookNow(), wait);
  }

  lookNow() {
    clearTimeout(this.looking);
    this.looking = null;
    if (!this.reading()) return;
    this.lookedAt = Date.now();
    const names = Array.from(this.touched);
    this.touched.clear();
    for (const name of names) this.readAgain(name);
  }

  readAgain(name) {
    if (name in this.tables) this.tables[name].refresh();
    else if (name in this.details) this.details[name].refresh();
    else if (name in FIGURES) this.readFigures(name);
  }

  /** An answer that comes after a newer question, or for somebody else, is dropped. */
  async readFigures(name) {
    const drawn = { health: this.state, stats: this.state, balance: this.balance }[name];
    if (drawn === null) return;
    const [path, place] = FIGURES[name];
    const question = (this.asked[name] = Symbol(name));
    const current = () => this.asked[name] === question;
    try {
      const answer = await api(path);
      if (!current()) return;
      if (name === "balance") drawn.draw(answer);
      else if (name === "health") drawn.drawHealth(answer);
      else drawn.drawStats(answer);
      this.readAt[name] = Date.now();
      setText(document.getElementById(place), "");
    } catch (refusal) {
      const since = this.readAt[name] ? `The figures are of ${timeOfDay(this.readAt[name])}` : "No figures";
      if (current()) setText(document.getElementById(place), `${since}: ${refusal.message}`);
    }
  }

  /** Times are relative: they go on while nothing is asked. What could not be read goes on saying so. */
  redraw() {
    for (const table of Object.values(this.tables)) if (table.read && table.status.querySelector(".table-refusal") === null) table.draw();
  }

  // ---- what the person does -----------------------------------------------------------------------------------------

  /** Show those rows of a table. */
  show(name, choices) {
    const table = this.tables[name];
    table.search.value = "";
    table.change({ filter: "", ...choices });
    document.getElementById(`${name}-title`).scrollIntoView({ block: "start" });
  }

  newCampaign() {
    newCampaign({ done: () => this.changed() });
  }

  /** Asks for the campaigns first, so a second click must not ask again. */
  async submit(chosen = null) {
    if (this.submitting) return;
    this.submitting = true;
    try {
      const words = await submitPost({ admin: this.admin, chosen, done: () => this.changed() });
      if (words) notify(words);
    } catch (refusal) {
      notify(refusal.message, { error: true });
    } finally {
      this.submitting = false;
    }
  }

  /** A run that was begun here is told of when it ends. */
  began(run) {
    this.awaited.add(run.id);
    this.runChanged(run);
    this.changed();
  }

  /** Something was changed here: read at once. */
  changed() {
    for (const name of EVERYTHING) this.touched.add(name);
    this.lookNow();
  }

  campaignChanged(campaign) {
    this.nowIs("campaigns", "campaign", campaign);
  }

  submissionChanged(submission) {
    this.nowIs("submissions", "submission", submission);
  }

  payoutChanged(payout) {
    this.nowIs("payouts", "payout", payout);
  }

  /** What the server answered is put where it is shown without waiting. */
  nowIs(table, detail, row) {
    this.tables[table].patch(row.id, row);
    if (this.details[detail].id === row.id) this.details[detail].draw(row);
    this.changed();
  }

  // ---- the drawer ---------------------------------------------------------------------------------------------------

  followed(link) {
    const name = link && DETAILS.find((kind) => kind in link);
    if (name) this.open(name, Number(link[name]));
  }

  openAddress() {
    const query = new URLSearchParams(location.search);
    const name = DETAILS.find((kind) => ID.test(query.get(kind) ?? "") && (this.admin || ["submission", "payout"].includes(kind)));
    if (name) this.open(name, Number(query.get(name)));
  }

  open(name, id) {
    const table = this.tables[`${name}s`];
    const known = table?.rows.find((row) => row.id === id) ?? null;
    this.mark(name, id);
    this.title = [`${TITLES[name]} ${id}`, ""];
    const nodes = this.details[name].open(id, known);
    this.drawer.open(...this.title, ...nodes);
    table?.select(id);
  }

  async openChecks() {
    const answer = await api("/tracking/verification");
    this.mark(null);
    this.drawer.open("Check everything", `At ${timeOfDay(Date.now())}`, ...checksDetail(answer, "batchcast tracking verify"));
  }

  /** One thing is shown: note it in the address; details of another kind are no longer followed. */
  mark(shown, id = null) {
    for (const [name, detail] of Object.entries(this.details)) if (name !== shown) detail.id = null;
    keepInAddress(Object.fromEntries(DETAILS.map((name) => [name, name === shown ? String(id) : null])));
    for (const table of Object.values(this.tables)) table.select(null);
  }

  /** The drawer's content knows its title only now. */
  titled(title, about) {
    this.title = [title, about];
    setText(this.drawer.title, title);
    setText(this.drawer.about, about);
  }

  closed() {
    this.mark(null);
  }
}

new Page().start();
