/* The schedules page. For admins: how all stands, the 32 schedules and their batches, teams, the retry queue, runs, the trail. For a
 * team's token: its businesses, their reviews and ratings, and nothing of anybody else's. Tables hold what the API answers. The topic
 * `schedules` only hints at what has changed: what is shown of it is asked for again, at most once in two seconds. */

import { Drawer, checksDetail } from "./drawer.js";
import { setText, timeOfDay } from "./format.js";
import { RunDetail, ScheduleDetail, runOf } from "./schedules-detail.js";
import { balance, followBusiness, importBusinesses } from "./schedules-forms.js";
import { ScheduleState, hoursOf } from "./schedules-state.js";
import { auditTable, batchRow, batchTable, businessTable, expiringTable, hourOptions, retryTable, runTable, teamTable } from "./schedules-tables.js";
import { BusinessDetail, TeamDetail } from "./schedules-team.js";
import { KINDS, PLATFORMS, kindWords } from "./schedules-words.js";
import { act, api, askToken, drawPages, keepInAddress, loadIcons, notify, pageClient, token, watchAccount, watchConnection } from "./shell.js";

const LOOK_MS = 250;
const LOOK_GAP_MS = 2_000;
const READ_MS = 30_000;
const DRAW_MS = 5_000;
const ID = /^[1-9]\d{0,15}$/;

/** What each hint is about: tables, figures and details, by the names they have here. */
const TOUCHES = {
  schedules: ["batches", "lines", "health", "schedule", "team"],
  runs: ["runs", "health", "schedule", "run", "business"],
  retries: ["retries", "health"],
  teams: ["teams", "expiring", "team"],
  businesses: ["teams", "businesses", "team", "business", "lines", "health"],
};
const EVERYTHING = [...new Set(Object.values(TOUCHES).flat()), "audit"];

class Page {
  constructor() {
    this.client = pageClient();
    this.drawer = new Drawer(() => this.closed());
    this.details = { schedule: new ScheduleDetail(this), team: new TeamDetail(this), business: new BusinessDetail(this), run: new RunDetail() };
    this.who = undefined;
    this.team = null;
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
    client.on("topic", (message) => message.topic === "schedules" && this.hinted(message.detail));
    client.on("state", ({ name }) => name === "live" && this.back());
    client.on("problem", ({ code, message }) => code !== "not_found" && client.sub !== null && notify(message, { error: true }));
    document.getElementById("gate-sign-in").addEventListener("click", () => askToken(client));
    document.getElementById("import").addEventListener("click", () => this.import());
    on("rebalance", () => balance("rebalance", { done: () => this.changed() }));
    on("consolidate", () => balance("consolidate", { done: () => this.changed() }));
    on("check", () => this.openChecks());
    document.getElementById("follow").addEventListener("click", () => this.follow());
    document.addEventListener("visibilitychange", () => this.look(EVERYTHING));
    document.addEventListener("click", ({ target }) => this.followed(target.closest?.("[data-schedule], [data-team], [data-business], [data-run]")?.dataset));
    setInterval(() => this.look(EVERYTHING), READ_MS);
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
    if (this.who !== who) {
      this.who = who;
      this.forget();
      if (sub !== null) this.admin ? this.buildAdmin() : this.askTeam();
    }
    this.showParts();
  }

  showParts() {
    const { sub } = this.client;
    const show = (id, on) => (document.getElementById(id).hidden = !on);
    const known = sub !== null && (this.admin || this.team !== undefined);
    const unsure = !known && (sub !== null || token.read() !== null);
    show("gate", sub === null && !unsure);
    show("checking", unsure);
    show("admin", known && this.admin);
    show("admin-actions", known && this.admin);
    show("team", known && !this.admin && this.team !== null);
    show("team-actions", known && !this.admin && this.team !== null);
    show("no-team", known && !this.admin && this.team === null);
    setText(document.getElementById("about"), this.team ? "Your businesses, their reviews and ratings." : "Reviews of many teams’ businesses, fetched in shared batches.");
    setText(document.getElementById("businesses-title"), this.team ? `Businesses of ${this.team}` : "Businesses");
  }

  /** Nothing of the one who was here before stays. `team` undefined: not known yet. */
  forget() {
    for (const topic of this.client.topics) this.client.unsubscribe(topic).catch(() => undefined);
    this.drawer.hide();
    for (const detail of Object.values(this.details)) detail.id = null;
    this.tables = {};
    this.state = null;
    this.team = undefined;
    this.built = false;
    this.lines = undefined;
    this.touched = new Set();
    this.readAt = {};
    for (const id of ["tiles", "lines", "batches", "teams", "expiring", "retries", "runs", "audit", "businesses"]) document.getElementById(id).replaceChildren();
    setText(document.getElementById("as-of"), "");
  }

  async askTeam() {
    const { who } = this;
    try {
      const { team } = await api("/api/me");
      if (this.who !== who || this.built) return;
      this.team = team;
      if (team !== null) this.buildTeam();
    } catch (refusal) {
      if (this.who === who) notify(refusal.message, { error: true });
    }
    this.showParts();
  }

  back() {
    if (this.client.sub !== null && !this.admin && this.team === undefined) this.askTeam();
    // What is there at the first connection was read a moment ago.
    if (this.connected) this.look(EVERYTHING);
    this.connected = true;
  }

  buildTeam() {
    this.tables = { businesses: businessTable(document.getElementById("businesses"), { team: this.team, name: "businesses", follow: () => this.follow() }) };
    this.built = true;
    this.openAddress();
  }

  buildAdmin() {
    const place = (id) => document.getElementById(id);
    const done = (schedule) => this.changed(schedule);
    this.state = new ScheduleState({ show: (table, choices) => this.show(table, choices) });
    this.tables = {
      batches: batchTable(place("batches"), { done }), teams: teamTable(place("teams"), { importing: () => this.import() }), expiring: expiringTable(place("expiring")),
      retries: retryTable(place("retries"), { done }), runs: runTable(place("runs")), audit: auditTable(place("audit")),
    };
    this.built = true;
    this.client.subscribe("schedules").catch((refusal) => notify(refusal.message, { error: true }));
    this.readState("lines");
    this.readState("health");
    this.openAddress();
  }

  // ---- reading ------------------------------------------------------------------------------------------------------

  hinted({ changed }) {
    this.look([...changed.flatMap((area) => TOUCHES[area] ?? []), "audit"]);
  }

  /** Ask for these again, soon; hints that come close together are one question. */
  look(names) {
    for (const name of names) this.touched.add(name);
    if (this.looking || !this.reading()) return;
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
    else if (this.state !== null) this.readState(name);
  }

  /** `lines` or `health`; an answer that comes after a newer question is dropped. */
  async readState(name) {
    const { state } = this;
    const question = (state[`${name}Asked`] = Symbol(name));
    const current = () => this.state === state && state[`${name}Asked`] === question;
    try {
      const answer = await api(name === "lines" ? "/admin/schedules/lines" : "/admin/health");
      if (!current()) return;
      if (name === "lines") this.drawLines(answer);
      else state.drawHealth(answer);
      this.readAt[name] = Date.now();
      setText(document.getElementById("as-of"), "");
    } catch (refusal) {
      const since = this.readAt[name] ? `The figures are of ${timeOfDay(this.readAt[name])}` : "No figures";
      if (current()) setText(document.getElementById("as-of"), `${since}: ${refusal.message}`);
    }
  }

  drawLines(answer) {
    this.lines = answer;
    this.state.drawLines(answer);
    this.tables.batches.offer("hours", hourOptions(hoursOf(answer.lines)));
  }

  /** Times are relative: they go on while nothing is asked. What could not be read goes on saying so. */
  redraw() {
    for (const table of Object.values(this.tables)) if (table.read && table.status.querySelector(".table-refusal") === null) table.draw();
    if (this.state !== null && this.lines !== undefined) this.state.drawLines(this.lines);
  }

  // ---- what the person does -----------------------------------------------------------------------------------------

  /** Show those rows of a table. */
  show(name, choices) {
    const table = this.tables[name];
    table.search.value = "";
    table.change({ filter: "", ...choices });
    document.getElementById(`${name}-title`).scrollIntoView({ block: "start" });
  }

  import() {
    importBusinesses({ done: () => this.changed() });
  }

  follow() {
    followBusiness({ team: this.team, done: () => this.changed() });
  }

  /** Something was changed here: read at once. With a batch, it is put where it is shown without waiting. */
  changed(schedule = null) {
    if (schedule !== null && schedule !== undefined) this.patch(batchRow(schedule));
    for (const name of EVERYTHING) this.touched.add(name);
    this.lookNow();
  }

  patch(batch) {
    this.tables.batches?.patch(batch.key, batch);
    if (this.details.schedule.id === batch.id) this.details.schedule.draw(batch);
  }

  businessGone() {
    this.drawer.leave();
    this.changed();
  }

  // ---- the drawer ---------------------------------------------------------------------------------------------------

  followed(link) {
    if (!link) return;
    // Another business begins with its newest reviews; only an address (openAddress) brings an order along.
    keepInAddress({ "reviews.filter": null, "reviews.sort": null });
    if (link.schedule) this.openSchedule(Number(link.schedule));
    else if (link.team) this.openTeam(link.team);
    else if (link.run) this.openRun(Number(link.run));
    else this.openBusiness({ id: Number(link.business), team: link.of, platform: link.platform });
  }

  openAddress() {
    const query = new URLSearchParams(location.search);
    const id = (name) => (ID.test(query.get(name) ?? "") ? Number(query.get(name)) : null);
    const [business, schedule, run] = ["business", "schedule", "run"].map(id);
    const [platform, team] = [query.get("platform"), this.admin ? query.get("team") : this.team];
    if (business !== null && team && platform in PLATFORMS) return this.openBusiness({ id: business, team, platform });
    if (!this.admin) return;
    if (schedule !== null) return this.openSchedule(schedule);
    if (run !== null) return this.openRun(run);
    if (team) this.openTeam(team);
  }

  async openSchedule(id) {
    const batch = this.tables.batches.rows.find((row) => row.id === id) ?? await this.fetched(async () => batchRow((await api(`/admin/schedules/${id}/businesses?limit=1`)).schedule));
    if (batch === null) return;
    this.mark("schedule", { schedule: id });
    this.drawer.open(batch.name, `Batch ${id}`, ...this.details.schedule.open(batch));
    this.tables.batches.select(batch.key);
  }

  openTeam(team) {
    this.mark("team", { team });
    this.drawer.open(team, "Team", ...this.details.team.open(team));
    this.tables.teams.select(team);
  }

  openBusiness(where) {
    this.mark("business", { business: where.id, platform: where.platform, team: this.admin ? where.team : null });
    this.drawer.open(`Business ${where.id}`, `${PLATFORMS[where.platform]}, ${where.team}`, ...this.details.business.open(where));
    this.tables.businesses?.select(`${where.platform} ${where.id}`);
  }

  async openRun(id) {
    const run = this.tables.runs.rows.find((row) => row.id === id) ?? await this.fetched(() => runOf(id));
    if (run === null) return notify(`There is no run ${id}.`, { error: true });
    this.mark("run", { run: id });
    this.drawer.open(`Run ${id}`, `${kindWords(run)}, begun ${KINDS[run.kind]}`, ...this.details.run.open(run));
    this.tables.runs.select(id);
  }

  async openChecks() {
    const answer = await api("/admin/schedules/validation");
    this.mark(null, {});
    this.drawer.open("Check everything", `At ${timeOfDay(Date.now())}`, ...checksDetail(answer, "batchcast schedules validate"));
  }

  async fetched(ask) {
    try {
      return await ask();
    } catch (refusal) {
      notify(refusal.message, { error: true });
      return null;
    }
  }

  /** One thing is shown: note it in the address; details of another kind are no longer followed. */
  mark(shown, { schedule = null, team = null, business = null, platform = null, run = null }) {
    for (const [name, detail] of Object.entries(this.details)) if (name !== shown) detail.id = null;
    const text = (value) => (value === null ? null : String(value));
    keepInAddress({ schedule: text(schedule), team, business: text(business), platform, run: text(run) });
    for (const table of Object.values(this.tables)) table.select(null);
  }

  /** The drawer's content knows its title only now. */
  titled(title, about) {
    setText(this.drawer.title, title);
    setText(this.drawer.about, about);
  }

  closed() {
    this.mark(null, {});
    keepInAddress({ "reviews.filter": null, "reviews.sort": null });
  }
}

new Page().start();
