/* The drawer's content: one import (how far, what it brought, what it left out, what may be done with it), or one list (its contacts
 * with search, its export). Figures change in place; tables in here keep their place while they do. */

import { element, exactTime, facts, icon, number, relativeTime, setText } from "./format.js";
import { cancelJob, deleteList, requeueJob, setPriority } from "./jobs-forms.js";
import { ACTIVE, REQUEUED, WAITS, progressCell, sourceOf, statusBadge } from "./jobs-words.js";
import { act, api, queryOf, save } from "./shell.js";
import { Table } from "./table.js";

const PAGE = 100;
const CONTACTS_MOST = 5_000;

const REJECTED = [
  { key: "row", name: "Row", type: "number", format: number },
  { key: "field", name: "Field", type: "text" },
  { key: "reason", name: "Reason", type: "words" },
];

const CONTACTS = [
  { key: "email", name: "E-mail", type: "text" },
  { key: "name", name: "Name", type: "text" },
  { key: "status", name: "Status", type: "text" },
  { key: "username", name: "User name", type: "text" },
  { key: "phone", name: "Phone", type: "text" },
  { key: "joinedMs", name: "Joined", type: "time" },
];

const time = (when) => [when ? relativeTime(when) : "–", when ? exactTime(when) : ""];
const fact = (name, when) => [name, ...time(when)];

/** One import. `page` names lists, knows the rights and is told of changes. */
export class JobDetail {
  constructor(page) {
    this.page = page;
    this.id = null;
    this.job = null;
  }

  /** The nodes to show for this job. */
  open(job) {
    this.id = job.id;
    this.rejectedOf = null;
    this.progress = element("div", { class: "job-progress" });
    this.problem = element("p", { class: "job-error", hidden: true });
    this.actions = element("div", { class: "drawer-actions" });
    this.counts = element("dl", { class: "fact-list" });
    this.about = element("dl", { class: "fact-list" });
    this.rejected = element("div");
    this.draw(job);
    return [this.progress, this.problem, this.actions, element("h3", {}, "Members"), this.counts, element("h3", {}, "About"), this.about, this.rejected];
  }

  draw(job) {
    this.job = job;
    const fresh = [statusBadge(job.status), progressCell(job)];
    if (fresh.map((node) => node.outerHTML).join("") !== this.progress.innerHTML) this.progress.replaceChildren(...fresh);
    this.problem.hidden = !job.error;
    if (job.error && this.problem.dataset.words !== job.error) {
      this.problem.dataset.words = job.error;
      this.problem.replaceChildren(icon("warn"), element("span", {}, job.error));
    }
    facts(this.counts, [["New in the list", number(job.imported)], ["Read", job.total === null ? number(job.seen) : `${number(job.seen)} of ${number(job.total)}`], ["There before", number(job.duplicates)],
      ["Without e-mail", number(job.withoutEmail)], ["Rows rejected", number(job.rejected)], ["Pages", number(job.pages)]]);
    facts(this.about, this.aboutFacts(job));
    this.drawActions(job);
    this.drawRejected(job);
  }

  aboutFacts(job) {
    const list = element("button", { type: "button", class: "link", "data-list": String(job.listId) }, this.page.listName(job.listId));
    const next = job.nextAttemptAtMs ? [fact("Next try", job.nextAttemptAtMs)] : [];
    return [["List", list], ["From", sourceOf(job)], ["Owner", job.owner], ["Priority", `${job.priority} of 9`], ["Retries", `${job.retryCount} of ${job.maxRetries}`],
      fact("Made", job.createdAtMs), fact("Started", job.startedAtMs), ...next, fact("Ended", job.finishedAtMs)];
  }

  /** Buttons change only when what may be done changes: one under a finger stays. */
  drawActions(job) {
    const may = [ACTIVE.has(job.status) && "cancel", WAITS.has(job.status) && "priority", REQUEUED.has(job.status) && "requeue"].filter(Boolean);
    if (this.actions.dataset.may === may.join(" ")) return;
    this.actions.dataset.may = may.join(" ");
    const done = (changed) => this.page.jobChanged(changed);
    const options = () => ({ listName: this.page.listName(this.job.listId), admin: this.page.admin, done });
    const all = { cancel: ["Cancel…", cancelJob, "stop"], priority: ["Priority…", setPriority, "list"], requeue: ["Requeue…", requeueJob, "work"] };
    this.actions.replaceChildren(...may.map((name) => {
      const [words, ask, picture] = all[name];
      return element("button", { type: "button", onclick: () => ask(this.job, options()) }, icon(picture), words);
    }));
  }

  drawRejected(job) {
    if (!job.rejected || this.rejectedOf === job.rejected) return;
    // More rows come while a file is read; they are fetched when it has ended, or by the table's own button.
    if (this.rejectedOf !== null && ACTIVE.has(job.status)) return;
    this.rejectedOf = job.rejected;
    const place = element("div");
    this.rejected.replaceChildren(element("h3", {}, "Rejected rows"), place);
    const load = async ({ cursor }) => {
      const { rows, next } = await api(`/imports/${job.id}/rejected${queryOf({ after: cursor, limit: PAGE })}`);
      return { rows, next };
    };
    new Table(place, { caption: `rejected rows of import ${job.id}`, columns: REJECTED, load, sorts: false, searches: false, empty: "No row is kept." });
  }
}

/** One list. */
export class ListDetail {
  constructor(page) {
    this.page = page;
    this.id = null;
  }

  open(list) {
    this.id = list.id;
    const place = element("div", { class: "contacts" });
    const load = async ({ cursor, filter }) => {
      const { contacts, next } = await api(`/audiences/${list.id}/contacts${queryOf({ after: cursor, search: filter.trim(), limit: PAGE })}`);
      return { rows: contacts, next };
    };
    const nodes = [this.buttons(list), element("h3", {}, "Contacts"), place];
    this.table = new Table(place, {
      caption: `contacts of ${list.name}`, name: "contacts", columns: CONTACTS, load, sorts: false, searches: true, id: ({ email }) => email, max: CONTACTS_MOST,
      empty: "No contacts yet: they come while an import into this list runs.",
    });
    return nodes;
  }

  buttons(list) {
    const button = (words, picture, clicked) => element("button", { type: "button", onclick: ({ currentTarget }) => clicked(currentTarget) }, icon(picture), words);
    const exported = (format) => (target) => act(target, async () => {
      await save(`/audiences/${list.id}/export?format=${format}`, `list-${list.id}.${format}`);
      return `Saved the contacts of “${list.name}” as ${format.toUpperCase()}.`;
    });
    const more = () => this.page.newList(list);
    return element("div", { class: "drawer-actions" }, button("Export CSV", "down", exported("csv")), button("Export NDJSON", "down", exported("ndjson")),
      list.owner === this.page.client.sub ? button("Import more…", "plus", more) : null,
      button("Delete…", "close", () => deleteList(list, { done: () => this.page.listDeleted(list.id) })));
  }
}
