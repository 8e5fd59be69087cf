/* The jobs page: imports, lists, credentials, and for admins the whole queue. The tables hold what the API answers; progress comes over
 * the WebSocket (topic `imports` for an admin, `job:ID` for everybody's own) and is drawn at most twice a second. */

import { Drawer } from "./drawer.js";
import { count, duration, element, number, setText, timeOfDay } from "./format.js";
import { JobDetail, ListDetail } from "./jobs-detail.js";
import { addCredential, checkCredential, newImport, removeCredential, rotateCredential, tokensWords } from "./jobs-forms.js";
import { QueueState, usageOf } from "./jobs-state.js";
import { ACTIVE, STATUSES, errorCell, errorLine, progressCell, progressWords, sourceOf, statusBadge } from "./jobs-words.js";
import { act, api, askToken, drawPages, keepInAddress, loadIcons, notify, pageClient, queryOf, token, watchAccount, watchConnection } from "./shell.js";
import { Table } from "./table.js";

const DRAW_MS = 500;
const STATE_MS = 2_000;
const JOBS_MS = 5_000;
const LISTS_MS = 15_000;
const PAGE = 50;
const FOLLOWED_MOST = 20;
const NAMED_MOST = 20;
const CREDENTIALS_MOST = 1_000;

const button = (words, clicked, more = {}) => element("button", { type: "button", class: "small", onclick: ({ currentTarget }) => clicked(currentTarget), ...more }, words);

class Page {
  constructor() {
    this.client = pageClient();
    this.drawer = new Drawer(() => this.closed());
    this.jobDetail = new JobDetail(this);
    this.listDetail = new ListDetail(this);
    this.sub = undefined;
    this.lists = new Map();
    this.asked = new Set();
    this.gone = new Set();
    this.usage = [];
    this.credentials = [];
    this.changes = new Map();
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
    client.on("topic", (message) => message.type === "progress" && this.progressed(message));
    client.on("state", ({ name }) => name === "live" && this.readAll());
    client.on("problem", ({ code, message }) => code !== "not_found" && client.sub !== null && notify(message, { error: true }));
    document.getElementById("gate-sign-in").addEventListener("click", () => askToken(client));
    document.getElementById("new-list").addEventListener("click", ({ currentTarget }) => act(currentTarget, () => this.newList()));
    document.getElementById("new-credential").addEventListener("click", () => this.newCredential());
    document.addEventListener("visibilitychange", () => this.readAll());
    document.addEventListener("click", ({ target }) => this.followed(target.closest?.("[data-job], [data-list]")));
    setInterval(() => this.readState(), STATE_MS);
    setInterval(() => this.reading() && this.jobs.refresh(), JOBS_MS);
    setInterval(() => this.reading() && this.listTable.refresh(), LISTS_MS);
  }

  get admin() {
    return this.client.roles.includes("admin");
  }

  /** Whether to ask the server now: signed in, connected, and somebody looks. */
  reading() {
    return this.jobs !== undefined && this.client.live && this.client.sub !== null && !document.hidden;
  }

  // ---- who looks ----------------------------------------------------------------------------------------------------

  account() {
    const { sub } = this.client;
    const unsure = sub === null && token.read() !== null;
    document.getElementById("gate").hidden = sub !== null || unsure;
    document.getElementById("checking").hidden = !unsure;
    document.getElementById("signed-in").hidden = document.getElementById("page-actions").hidden = sub === null;
    const who = `${sub} ${this.admin}`;
    if (this.sub === who) return;
    this.sub = who;
    this.forget();
    if (sub !== null) this.build();
  }

  /** Nothing of the one who was here before stays. */
  forget() {
    for (const topic of this.client.topics) this.client.unsubscribe(topic).catch(() => undefined);
    this.drawer.hide();
    this.lists.clear();
    this.asked.clear();
    this.gone.clear();
    this.changes.clear();
    this.usage = [];
    this.credentials = [];
    this.jobs = undefined;
    for (const id of ["jobs", "lists", "credentials", "tiles", "workers"]) document.getElementById(id).replaceChildren();
  }

  build() {
    const owner = this.admin ? [{ key: "owner", name: "Owner", type: "text", phone: false }] : [];
    this.state = this.admin ? new QueueState({ filter: (status) => this.jobs.change({ status }) }) : null;
    for (const id of ["tiles", "workers-panel"]) document.getElementById(id).hidden = !this.admin;
    this.listTable = this.buildLists(owner);
    this.credentialTable = this.buildCredentials(owner);
    this.jobs = this.buildJobs(owner);
    if (this.admin) this.client.subscribe("imports").catch((refusal) => notify(refusal.message, { error: true }));
    this.readState();
    this.openAddress();
  }

  buildJobs(owner) {
    const link = (id) => element("button", { type: "button", class: "link", "data-job": String(id), "aria-label": `Import ${id}: details` }, `#${id}`);
    const columns = [
      { key: "id", name: "Import", type: "text", format: link, csv: (id) => id },
      { key: "status", name: "Status", type: "text", format: statusBadge, csv: (status) => STATUSES[status].words },
      { key: "listId", name: "List", type: "text", format: (id, job) => this.listName(id, job.listName), csv: (id, job) => this.listName(id, job.listName) },
      { key: "percent", name: "Progress", type: "text", format: (_, job) => progressCell(job), csv: (_, job) => progressWords(job).join(" · ") },
      { key: "imported", name: "Contacts", type: "number", format: number, exact: (_, job) => `${number(job.imported)} new in the list, of ${count(job.seen, "member")} read` },
      { key: "error", name: "Errors", type: "text", format: (_, job) => errorCell(job), csv: (_, job) => errorLine(job) },
      { key: "account", name: "From", type: "text", format: (_, job) => sourceOf(job), csv: (_, job) => sourceOf(job), phone: false },
      { key: "priority", name: "Priority", type: "number", phone: false }, ...owner,
      { key: "createdAtMs", name: "Made", type: "time", csv: (ms) => new Date(ms).toISOString() },
    ];
    const choices = [{ key: "status", name: "Status", options: [["", "Any status"], ...Object.entries(STATUSES).map(([value, { words }]) => [value, words])] }];
    return new Table(document.getElementById("jobs"), {
      caption: "imports", name: "jobs", columns, choices, id: ({ id }) => id, sorts: false, load: (question) => this.loadJobs(question), stacks: true,
      empty: () => ["No imports yet. ", button("Make a list", () => this.newList()), " or ", element("code", {}, "batchcast imports create"), ", from a script ", element("code", {}, "POST /imports"), "."],
    });
  }

  async loadJobs({ cursor, status }) {
    const { jobs, next } = await api(`/imports${queryOf({ status, before: cursor, limit: PAGE })}`);
    setTimeout(() => this.follow());
    const open = jobs.find(({ id }) => id === this.jobDetail.id);
    if (open) this.jobDetail.draw(open);
    this.nameLists(jobs);
    return { rows: jobs, next };
  }

  /** Names of lists that are older than what the table of lists has loaded. */
  async nameLists(jobs) {
    await this.listTable.pending;
    const missing = [...new Set(jobs.map(({ listId }) => listId))].filter((id) => id !== null && !this.lists.has(id) && !this.asked.has(id)).slice(0, NAMED_MOST);
    if (missing.length === 0) return;
    for (const id of missing) this.asked.add(id);
    await Promise.all(missing.map((id) => this.fetchedList(id)));
    this.jobs?.draw();
  }

  buildLists(owner) {
    const link = (name, { id }) => element("button", { type: "button", class: "link", "data-list": String(id) }, name);
    const columns = [{ key: "name", name: "List", type: "text", format: link, csv: (name) => name }, ...owner, { key: "createdAtMs", name: "Made", type: "time", csv: (ms) => new Date(ms).toISOString() }];
    const load = async ({ cursor }) => {
      const { audiences, next } = await api(`/audiences${queryOf({ before: cursor, limit: PAGE })}`);
      for (const list of audiences) this.lists.set(list.id, list);
      this.jobs?.draw();
      return { rows: audiences, next };
    };
    return new Table(document.getElementById("lists"), {
      caption: "lists", name: "lists", columns, id: ({ id }) => id, load, sorts: false, searches: false,
      empty: () => ["No lists yet: an import makes one. ", button("Make a list", () => this.newList())],
    });
  }

  buildCredentials(owner) {
    const done = () => this.credentialTable.fetch(null);
    const about = (words, { account }) => ({ "aria-label": `${words} the credential of ${account}` });
    const actions = (_, row) => element("div", { class: "row-actions" }, button("Check", (target) => act(target, () => checkCredential(row, { done })), about("Check", row)),
      button("Rotate", () => rotateCredential(row, { done }), about("Rotate", row)), button("Remove", () => removeCredential(row, { done }), about("Remove", row)));
    const used = this.admin ? [
      { key: "tokens", name: "Tokens", type: "number", format: tokensWords, exact: () => "Calls that may be made at once now" },
      { key: "limited", name: "429s", type: "number", format: number, exact: () => "Times the provider said: too many" },
      { key: "calls", name: "Calls", type: "number", format: number, phone: false },
      { key: "secondsPerPage", name: "A page takes", type: "number", format: (seconds) => (seconds === null ? "–" : duration(Math.round(seconds * 1000))) },
    ] : [];
    const columns = [
      { key: "account", name: "Account", type: "text" }, { key: "provider", name: "Provider", type: "text" }, ...owner,
      { key: "checkResult", name: "Last check", type: "text", format: (result) => result ?? "not checked yet", exact: (_, { checkedMs }) => (checkedMs ? timeOfDay(checkedMs) : "") },
      ...used, { key: "createdMs", name: "Added", type: "time", phone: false }, { key: "id", name: "Change", type: "text", format: actions, once: true, sortable: false, csv: (id) => id },
    ];
    const load = async ({ cursor }) => {
      const { credentials, next } = await api(`/credentials${queryOf({ after: cursor })}`);
      const rows = credentials.map((credential) => ({ ...credential, ...usageOf(this.usage, credential.id) }));
      this.credentials = [...(cursor === null ? [] : this.credentials), ...credentials].slice(-CREDENTIALS_MOST);
      return { rows, next };
    };
    return new Table(document.getElementById("credentials"), {
      caption: "credentials", name: "credentials", columns, id: ({ id }) => id, load, sorts: false, searches: false, stacks: true,
      empty: () => ["No credential yet. ", button("Add one", () => this.newCredential()), " or ", element("code", {}, "batchcast credentials add"), ": imports from a provider need its key."],
    });
  }

  // ---- reading ------------------------------------------------------------------------------------------------------

  readAll() {
    if (!this.reading()) return;
    this.jobs.refresh();
    this.listTable.refresh();
    this.readState();
  }

  async readState() {
    if (this.state === null || !this.reading() || this.stateAsked) return;
    this.stateAsked = true;
    try {
      const state = await api("/imports/status");
      if (this.state === null || !this.reading()) return;
      this.state.draw(state);
      this.usage = state.credentials;
      for (const { id } of this.credentials) this.credentialTable.patch(id, usageOf(state.credentials, id));
      this.stateAt = Date.now();
      setText(document.getElementById("as-of"), "");
    } catch (refusal) {
      const since = this.stateAt ? `The figures are of ${timeOfDay(this.stateAt)}` : "No figures";
      setText(document.getElementById("as-of"), `${since}: ${refusal.message}`);
    } finally {
      this.stateAsked = false;
    }
  }

  /** An admin's topic tells of all jobs; others follow their own that are not at their end. */
  follow() {
    if (this.admin || this.jobs === undefined) return;
    const wanted = new Set(this.jobs.rows.filter(({ status }) => ACTIVE.has(status)).slice(0, FOLLOWED_MOST).map(({ id }) => `job:${id}`));
    const { topics } = this.client;
    for (const topic of topics) if (!wanted.has(topic)) this.client.unsubscribe(topic).catch(() => undefined);
    for (const topic of wanted) if (!topics.has(topic)) this.client.subscribe(topic).catch(() => undefined);
  }

  progressed({ type, topic, seq, job, ...change }) {
    this.changes.set(job, { ...this.changes.get(job), ...change });
    this.drawing ??= setTimeout(() => this.drawProgress(), DRAW_MS);
  }

  drawProgress() {
    this.drawing = null;
    const changes = Array.from(this.changes);
    this.changes.clear();
    if (this.jobs === undefined) return;
    let unknown = false;
    for (const [id, change] of changes) {
      const before = this.jobs.rows.find((row) => row.id === id);
      unknown ||= before === undefined || before.status !== change.status;
      if (before !== undefined) this.ended(before, change);
      this.jobs.patch(id, change);
      if (this.jobDetail.id === id) this.jobDetail.draw({ ...this.jobDetail.job, ...change });
    }
    if (unknown) this.readAll();
  }

  /** One's own import has come to its end while one looks on: say so. */
  ended(before, { status, imported, error }) {
    if (before.owner !== this.client.sub || !ACTIVE.has(before.status) || before.status === status) return;
    if (status === "completed") notify(`Import ${before.id} is complete: ${count(imported, "new contact")} in “${this.listName(before.listId, before.listName)}”.`);
    if (status === "failed") notify(`Import ${before.id} has failed: ${error}`, { error: true });
  }

  // ---- what the person does -----------------------------------------------------------------------------------------

  /** `known`: what the job says; a list may be older than those on this page. */
  listName(id, known = null) {
    return this.gone.has(id) ? `deleted list ${id}` : this.lists.get(id)?.name ?? known ?? (id === null ? "–" : `list ${id}`);
  }

  ownCredentials() {
    return this.credentials.filter(({ owner }) => owner === this.client.sub);
  }

  async newList(into = null) {
    // The table of credentials may still be on its way, or end before one's own.
    await this.credentialTable.refresh();
    newImport({ admin: this.admin, credentials: this.ownCredentials(), into, done: (job) => this.jobChanged(job) });
  }

  newCredential() {
    addCredential({ done: () => this.credentialTable.fetch(null) });
  }

  jobChanged(job) {
    if (this.jobDetail.id === job.id) this.jobDetail.draw(job);
    this.jobs.patch(job.id, job);
    this.readAll();
  }

  listDeleted(id) {
    this.lists.delete(id);
    this.gone.add(id);
    this.drawer.leave();
    this.readAll();
  }

  // ---- the drawer ---------------------------------------------------------------------------------------------------

  followed(link) {
    if (!link) return;
    // Another list begins with all its contacts; only a link (openAddress) brings a search along.
    keepInAddress({ "contacts.filter": null });
    if (link.dataset.job) this.openJob(Number(link.dataset.job));
    else this.openList(Number(link.dataset.list));
  }

  openAddress() {
    const query = new URLSearchParams(location.search);
    if (query.has("job")) this.openJob(Number(query.get("job")));
    else if (query.has("list")) this.openList(Number(query.get("list")));
  }

  async openJob(id) {
    const job = this.jobs.rows.find((row) => row.id === id) ?? await this.fetched(`/imports/${id}`);
    if (job === null) return;
    this.listDetail.id = null;
    this.mark({ job: String(id), list: null });
    this.drawer.open(`Import ${id}`, `${this.listName(job.listId, job.listName)} · ${sourceOf(job)}`, ...this.jobDetail.open(job));
  }

  async openList(id) {
    const list = this.lists.get(id) ?? await this.fetchedList(id);
    if (list === null) return notify(`There is no list ${id}, or none that you may see.`, { error: true });
    this.jobDetail.id = null;
    this.mark({ job: null, list: String(id) });
    this.drawer.open(list.name, `List ${id} of ${list.owner}`, ...this.listDetail.open(list));
  }

  /** A list that is not in the table: the first of the page that begins with it. */
  async fetchedList(id) {
    const answer = await this.fetched(`/audiences${queryOf({ before: id + 1, limit: 1 })}`);
    const list = answer?.audiences.find((found) => found.id === id) ?? null;
    if (list !== null) this.lists.set(id, list);
    else if (answer !== null) this.gone.add(id);
    return list;
  }

  async fetched(path) {
    try {
      return await api(path);
    } catch (refusal) {
      notify(refusal.message, { error: true });
      return null;
    }
  }

  mark(address) {
    keepInAddress(address);
    this.jobs.select(address.job === null ? null : Number(address.job));
    this.listTable.select(address.list === null ? null : Number(address.list));
  }

  closed() {
    this.jobDetail.id = this.listDetail.id = null;
    this.mark({ job: null, list: null, "contacts.filter": null });
  }
}

new Page().start();
