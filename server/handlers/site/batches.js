/* The batch panel: the ring that counts down, one line about the batch that just landed, the table of those seen, the button
 * that flushes now, and the server's figures in the bar. */

import { ring } from "./charts.js";
import { count, countdown, duration, element, number, relativeTime, setText, timeOfDay } from "./format.js";
import { act, api } from "./shell.js";
import { Table } from "./table.js";

const TICK_MS = 250;
const STATS_MS = 2000;
const MAX_HISTORY = 200;
const COUNTERS = ["scanCount", "saveCount", "rsvpCount"];

const HISTORY = {
  caption: "batches seen by this page",
  columns: [
    { key: "at", name: "Landed", type: "time", format: timeOfDay },
    { key: "created", name: "New", type: "number", format: number },
    { key: "moved", name: "Moved", type: "number", format: number },
    { key: "left", name: "Left", type: "number", format: number },
    { key: "saved", name: "Updates", type: "number", format: number },
  ],
  sort: "at",
  filterable: false,
  empty: "None yet. A batch lands when the ring is empty and something in this view has changed.",
  max: 50,
};

/** What a batch brought, from the change as applied: counts, and the counter updates that it carried in one message. */
export function summarise({ creates, updates, deletes, before }, events) {
  const moved = updates.length + creates.filter(({ id }) => before.has(id)).length;
  let saved = 0;
  for (const { id } of [...creates, ...updates]) {
    const [old, fresh] = [before.get(id), events.get(id)];
    if (old && fresh) for (const field of COUNTERS) saved += Math.max(0, (fresh[field] ?? 0) - (old[field] ?? 0));
  }
  return { at: Date.now(), created: creates.length + updates.length - moved, moved, left: deletes.length, saved };
}

/** "5 new, 12 moved, 2 left — 37 scans, saves and RSVPs in one message". */
export function batchLine({ created, moved, left, saved }) {
  const parts = [[created, "new"], [moved, "moved"], [left, "left"]].filter(([n]) => n > 0).map(([n, word]) => `${number(n)} ${word}`);
  const changes = created + moved + left;
  const what = saved > changes ? `${number(saved)} updates` : count(changes, "change");
  return `${parts.join(", ") || "Nothing changed"} — ${what} in one message`;
}

export class Batches {
  constructor(client) {
    this.client = client;
    this.history = [];
    this.stats = null;
    this.ring = ring(40);
    document.getElementById("ring").append(this.ring.node);
    this.words = document.getElementById("countdown");
    this.line = document.getElementById("batch-line");
    this.flushButton = document.getElementById("flush");
    this.flushWords = document.getElementById("flush-words");
    this.table = new Table(document.getElementById("history"), HISTORY);
    this.flushButton.addEventListener("click", () => act(this.flushButton, () => this.flush()));
    this.roles([]);
    setInterval(() => this.tick(), TICK_MS);
    setInterval(() => this.readStats(), STATS_MS);
    document.addEventListener("visibilitychange", () => this.readStats());
    this.readStats();
  }

  landed(change, events) {
    const summary = summarise(change, events);
    setText(this.line, batchLine(summary));
    this.line.title = `Landed at ${timeOfDay(summary.at)}`;
    this.history = [summary, ...this.history].slice(0, MAX_HISTORY);
    this.table.setRows([...this.history]);
  }

  // ---- countdown --------------------------------------------------------------------------------------------------

  tick() {
    if (document.hidden) return;
    const { nextBatchAt, config } = this.client;
    const interval = config.batchIntervalMs ?? 0;
    if (config.enableBatching === false) return this.count(null, "Updates go out at once");
    if (!nextBatchAt || !this.client.live) return this.count(null, this.client.live ? "No batch planned" : "Waiting for the connection");
    const left = nextBatchAt - (Date.now() + this.client.clockOffset);
    this.count(interval > 0 ? left / interval : null, left > 0 ? `Next batch in ${countdown(left)}` : "Batch under way…");
    // The interval's length is the best guess until the server says more.
    if (left < -400 && interval > 0 && !this.stats?.isProcessingBatch) this.client.nextBatchAt = nextBatchAt + interval * Math.ceil(-left / interval);
  }

  count(fraction, words) {
    this.ring.set(fraction);
    setText(this.words, words);
  }

  // ---- figures ----------------------------------------------------------------------------------------------------

  async readStats() {
    if (document.hidden || !this.client.live || this.refused === this.client.roles) return;
    try {
      this.stats = await api("/stats");
    } catch (refusal) {
      // Not allowed: silent until the roles change. Anything else: the connection's state already says it.
      if ([401, 403].includes(refusal.status)) this.refused = this.client.roles;
      return;
    }
    const { serverTime, nextBatchAt, config } = this.stats;
    if (serverTime !== undefined) this.client.clockOffset = serverTime - Date.now();
    if (nextBatchAt !== undefined) this.client.nextBatchAt = nextBatchAt;
    if (config) this.client.config = config;
    this.drawFigures();
  }

  drawFigures() {
    const { pendingUpdates, registeredUsers, batchesProcessed, totalEventsProcessed, totalUsersUpdated, lastBatchTime, config } = this.stats;
    const last = lastBatchTime ? `; the last ${relativeTime(lastBatchTime)}` : "";
    this.figure(["waiting", "waiting"], pendingUpdates, "Events whose popularity waits for the next batch");
    this.figure(["viewer", "viewers"], registeredUsers, "Connections that look at the map");
    this.figure(["batch", "batches"], batchesProcessed, `Flushes since the server started, every ${duration(config?.batchIntervalMs ?? 0)}${last}`);
    this.figure(["event", "events"], totalEventsProcessed, "Events published by these batches");
    this.figure(["message", "messages"], totalUsersUpdated, "Messages that carried them to viewers");
    this.drawFlush();
  }

  figure([one, many], value, about) {
    const list = document.getElementById("figures");
    const known = list.querySelector(`[data-name="${many}"]`);
    const node = known ?? element("div", { "data-name": many }, element("dt"), element("dd"));
    if (!known) list.append(node);
    node.title = about;
    setText(node.querySelector("dt"), value === 1 ? one : many);
    setText(node.querySelector("dd"), number(value));
  }

  inStep({ checked, matches }) {
    this.checked = (this.checked ?? 0) + (checked ? 1 : 0);
    const words = !checked ? "Messages are not checked: this browser offers SHA-256 on secure addresses and localhost only."
      : matches ? `In step with the server: ${count(this.checked, "digest")} checked.` : "Out of step with the server: asking for what is missing.";
    setText(document.getElementById("in-step"), words);
  }

  // ---- flush now --------------------------------------------------------------------------------------------------

  roles(roles) {
    this.admin = roles.includes("admin");
    this.drawFlush();
    this.readStats();
  }

  drawFlush() {
    this.flushButton.setAttribute("aria-disabled", String(!this.admin || !this.client.live));
    const waiting = this.stats ? `${count(this.stats.pendingUpdates, "waiting event")} to ${count(this.stats.registeredUsers, "viewer")}` : "what is waiting";
    setText(this.flushWords, this.admin ? `Publishes ${waiting}, without waiting for the ring.` : "Needs an admin token: sign in first.");
  }

  async flush() {
    const { turn = {}, auditId } = await this.client.forceBatch();
    const took = turn.seconds === undefined ? "" : ` in ${duration(turn.seconds * 1000)}`;
    const audit = auditId === undefined ? "" : ` Audit ${auditId}.`;
    const put = turn.deferred ? ` ${number(turn.deferred)} put off.` : "";
    this.readStats();
    return `Flushed ${count(turn.done ?? 0, "event")}${took}.${put}${audit}`;
  }
}
