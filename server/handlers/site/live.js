/* BatchcastClient: one WebSocket that keeps a live map true. No framework, no DOM, no dependency.
 *
 *   import { BatchcastClient } from "/site/live.js";
 *   const client = new BatchcastClient({ url: "ws://localhost:8081/ws" });
 *   client.on("change", ({ creates, updates, deletes }) => draw(client.events));
 *   client.start({ west: -123, south: 37, east: -122, north: 38 });
 *   client.start();                                          without a viewport: topics only, no events
 *
 * What it promises
 * - `client.events` (Map id -> event) is what the server believes this connection holds: messages are applied in order
 *   (deletes, creates, updates), every `seq` is checked for gaps and every `digest` is checked when the browser offers
 *   SHA-256; on a difference it asks for a `resync` with what it holds, then without (a full snapshot).
 * - A lost connection comes back by itself, with exponential backoff and jitter, and tells the server what it still holds,
 *   so that it is answered by one difference. Nothing is thrown away meanwhile.
 * - A request has one answer: `request()` resolves with it or rejects with a `Refusal` that carries the server's words.
 *
 * What it leaves to others: drawing, storing tokens, deciding when a viewport has come to rest.
 *
 * Events it emits: state {name, since, attempt, retryAt, reason}, registered {…}, change {type, creates, updates, deletes, reasons,
 * before, message}, digest {checked, matches}, authenticated {sub, roles, expiresAt}, signed-out {reason}, topic {…},
 * problem {…}.
 */

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30_000;
const ANSWER_TIMEOUT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;
// Silence longer than this is answered by a ping, and silence after the ping by a new connection.
const QUIET_MS = 25_000;
const RESYNC_GAP_MS = 5_000;
const MAX_HELD = 500;
const CLOSED_TOKEN_EXPIRED = 4001;
const CLOSED_RESTARTING = 1012;
// After these the same client would be closed again for the same reason.
const CLOSED_FOR_GOOD = new Set([1002, 1003, 1007, 1009]);
const TOPIC_MESSAGES = new Set(["progress", "status", "alert"]);
const MASK_64 = (1n << 64n) - 1n;

/** The wait that a restarting server names in its close reason, {"retryAfterMs": n}; 0 when it names none. */
function retryAfterMs(reason) {
  try {
    const named = Number(JSON.parse(reason).retryAfterMs);
    return Number.isFinite(named) && named > 0 ? named : 0;
  } catch {
    return 0;
  }
}

/** An answer of the server that says no; `message` is a sentence for a person, `code` one of the documented codes. */
export class Refusal extends Error {
  constructor({ code = "unavailable", message = "The server gave no reason.", field, limit, retry = false } = {}) {
    super(message);
    Object.assign(this, { name: "Refusal", code, field, limit, retry });
  }
}

/** The running digest of a set of (id, version): what the server calls `digest`. Changes are applied in call order. */
class Digest {
  #sum = 0n;
  #work = Promise.resolve();

  static get available() {
    return globalThis.crypto?.subtle !== undefined;
  }

  /** Take `gone` out and `come` in, (or start anew), then resolve with whether the sum equals `expected`. */
  change({ anew = false, gone = [], come = [] }, expected) {
    const parts = Promise.all([sumOf(gone), sumOf(come)]);
    const result = this.#work.then(async () => {
      const [minus, plus] = await parts;
      this.#sum = ((anew ? 0n : this.#sum) - minus + plus) & MASK_64;
      return expected === undefined || this.#sum.toString(16).padStart(16, "0") === expected;
    });
    this.#work = result.catch(() => undefined);
    return result;
  }
}

async function sumOf(pairs) {
  const words = await Promise.all(pairs.map(([id, version]) => firstWord(`${id}\n${version}`)));
  return words.reduce((sum, word) => sum + word, 0n);
}

async function firstWord(text) {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new DataView(hash).getBigUint64(0);
}

export class BatchcastClient {
  /** Latest known events by id; replaced in place, never handed out as a copy. */
  events = new Map();
  state = { name: "idle", since: Date.now(), attempt: 0, retryAt: null, reason: null };
  session = null;
  roles = [];
  sub = null;
  /** Milliseconds to add to Date.now() to get the server's clock. */
  clockOffset = 0;
  nextBatchAt = null;
  config = {};

  #options;
  #listeners = new Map();
  #socket = null;
  #answers = new Map();
  #refs = 0;
  #seq = 0;
  #handedOver = null;
  #handedOverIn = null;
  #digest = new Digest();
  #timer = null;
  #quiet = null;
  #wanted = false;
  #resyncs = 0;
  #resyncAt = -Infinity;
  #viewport = null;
  #filters = [];
  #topics = new Set();

  /** options: url, token?, maxEvents?, location?, fields?, reasons?, clusters?, minIntervalMs?, maxBytesPerBatch? */
  constructor(options) {
    this.#options = { reasons: true, ...options };
    this.#filters = options.filters ?? [];
  }

  get viewport() {
    return this.#viewport;
  }

  get filters() {
    return this.#filters;
  }

  get live() {
    return this.state.name === "live";
  }

  on(name, listener) {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    return () => all.delete(listener);
  }

  #emit(name, detail) {
    for (const listener of this.#listeners.get(name) ?? []) listener(detail);
  }

  // ---- what a caller does ---------------------------------------------------------------------------------------

  /** Connect and stay connected. Without a viewport nothing of the map is asked for: only topics and requests. */
  start(viewport = this.#viewport) {
    this.#viewport = viewport;
    this.#wanted = true;
    this.#connect();
  }

  close() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
    this.#drop("closed by this page");
    this.#become("idle");
  }

  /** Don't wait for the backoff: try at once. */
  retryNow() {
    if (this.#wanted && this.#socket === null) this.#connect();
  }

  async setViewport(viewport) {
    this.#viewport = viewport;
    if (this.live) return this.request({ type: "viewport-update", viewport });
  }

  async setFilters(filters) {
    this.#filters = filters;
    if (this.live) return this.request({ type: "filters-update", filters });
  }

  async setMaxEvents(maxEvents) {
    this.#options.maxEvents = maxEvents;
    if (this.live) return this.#register();
  }

  explain(eventId) {
    return this.request({ type: "explain", eventId });
  }

  forceBatch() {
    return this.request({ type: "force-batch" });
  }

  get topics() {
    return new Set(this.#topics);
  }

  subscribe(topic) {
    this.#topics.add(topic);
    return this.live ? this.request({ type: "subscribe", topic }) : Promise.resolve();
  }

  unsubscribe(topic) {
    this.#topics.delete(topic);
    return this.live ? this.request({ type: "unsubscribe", topic }) : Promise.resolve();
  }

  /** Take on a token, for this connection and every later one. Rejects when the server does not accept it. What the new
   * identity may see and the old one could not (or the reverse) arrives as a change by itself. */
  async signIn(token) {
    await this.#authenticate(token);
    this.#options.token = token;
  }

  signOut(reason = "asked") {
    this.#options.token = undefined;
    this.roles = [];
    this.sub = null;
    this.#emit("signed-out", { reason });
    if (this.#socket !== null) this.#restart();
  }

  /** Send one message and wait for its answer (the message that carries the same `ref`). */
  request(message) {
    if (this.#socket?.readyState !== 1) return Promise.reject(new Refusal({ message: "Not connected.", retry: true }));
    const ref = `r${++this.#refs}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#answers.delete(ref);
        reject(new Refusal({ message: `No answer to ${message.type} in ${ANSWER_TIMEOUT_MS / 1000} s.`, retry: true }));
      }, ANSWER_TIMEOUT_MS);
      this.#answers.set(ref, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ ...message, ref }));
    });
  }

  // ---- the connection -------------------------------------------------------------------------------------------

  #connect() {
    clearTimeout(this.#timer);
    const socket = new WebSocket(this.#options.url);
    this.#socket = socket;
    const current = () => this.#socket === socket;
    this.#become(this.state.name === "lost" ? "lost" : "connecting", { retryAt: null });
    this.#timer = setTimeout(() => current() && socket.readyState === 0 && socket.close(), CONNECT_TIMEOUT_MS);
    socket.onopen = () => current() && this.#opened();
    socket.onmessage = ({ data }) => current() && this.#received(data);
    socket.onclose = ({ code, reason }) => current() && this.#closed(code, reason);
  }

  async #opened() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#seq = 0;
    this.#heard();
    try {
      if (this.#options.token) await this.#authenticate(this.#options.token);
    } catch (refusal) {
      if (this.#socket !== socket || refusal.retry) return this.#socket === socket && socket.close();
      this.#options.token = undefined;
      this.#emit("signed-out", { reason: refusal.message });
    }
    try {
      await (this.#viewport === null ? this.#greet() : this.#register());
      for (const topic of this.#topics) await this.#follow(topic);
    } catch (refusal) {
      this.#emit("problem", refusal);
      if (this.#socket === socket && !this.live) socket.close();
    }
  }

  /** Nothing to register: an answered ping says that the server works. */
  async #greet() {
    await this.request({ type: "ping" });
    this.#become("live", { attempt: 0 });
  }

  /** Subscribe again after a loss; a topic that is refused for good is given up, without costing the others. */
  async #follow(topic) {
    try {
      await this.request({ type: "subscribe", topic });
    } catch (refusal) {
      if (refusal.retry) throw refusal;
      this.#topics.delete(topic);
      this.#emit("problem", refusal);
    }
  }

  async #authenticate(token) {
    const answer = await this.request({ type: "authenticate", token });
    this.roles = answer.roles ?? [];
    this.sub = answer.sub ?? null;
    this.#emit("authenticated", answer);
  }

  async #register() {
    const { maxEvents, location, fields, reasons, clusters, minIntervalMs, maxBytesPerBatch } = this.#options;
    const resume = this.session ? { session: this.#handedOverIn ?? this.session, held: this.#held() } : undefined;
    if (resume && this.#handedOver !== null) resume.seq = this.#handedOver;
    const message = { type: "register", viewport: this.#viewport, filters: this.#filters, maxEvents, location, fields, reasons, clusters };
    const answer = await this.request({ ...message, minIntervalMs, maxBytesPerBatch, resume });
    this.session = answer.session ?? null;
    this.#become("live");
    this.#emit("registered", answer);
  }

  /** What is held, as the server wants it; more than it accepts is answered by a full snapshot instead. */
  #held() {
    if (this.events.size > MAX_HELD) return undefined;
    return Array.from(this.events.values(), ({ id, version }) => [id, version]);
  }

  #closed(code, reason) {
    this.#drop(reason || `connection closed (${code})`);
    if (code === CLOSED_TOKEN_EXPIRED) {
      this.#options.token = undefined;
      this.roles = [];
      this.sub = null;
      this.#emit("signed-out", { reason: "The token has expired." });
    }
    if (!this.#wanted) return;
    if (CLOSED_FOR_GOOD.has(code)) return this.#become("failed", { reason: reason || `closed with code ${code}` });
    this.#comeBack(code, reason);
  }

  #comeBack(code, reason) {
    const attempt = this.state.attempt + 1;
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt - 1, 10));
    // A restarting server names the wait in its close reason, so that not everybody comes back in the same moment.
    const named = code === CLOSED_RESTARTING ? Math.min(BACKOFF_MAX_MS, retryAfterMs(reason)) : 0;
    const wait = named + ceiling * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#become("lost", { attempt, retryAt: Date.now() + wait, reason: reason || null });
  }

  #drop(why) {
    clearTimeout(this.#timer);
    clearTimeout(this.#quiet);
    this.#socket = null;
    for (const { reject, timer } of this.#answers.values()) {
      clearTimeout(timer);
      reject(new Refusal({ message: `Connection lost: ${why}`, retry: true }));
    }
    this.#answers.clear();
  }

  #restart() {
    this.#socket.onclose = null;
    this.#socket.close(1000);
    this.#drop("signing out");
    this.#connect();
  }

  #become(name, more = {}) {
    const since = name === this.state.name ? this.state.since : Date.now();
    this.state = { ...this.state, reason: null, retryAt: null, ...more, name, since };
    this.#emit("state", this.state);
  }

  /** Something came in; ask for a sign of life when nothing does for a while. */
  #heard() {
    clearTimeout(this.#quiet);
    const socket = this.#socket;
    this.#quiet = setTimeout(async () => {
      const answered = this.request({ type: "ping" }).then(() => true, () => false);
      const late = new Promise((resolve) => setTimeout(resolve, CONNECT_TIMEOUT_MS, false));
      if (await Promise.race([answered, late])) return;
      if (this.#socket !== socket) return;
      this.#closed(1006, "no sign of life from the server");
      socket.close();
    }, QUIET_MS);
  }

  // ---- messages -------------------------------------------------------------------------------------------------

  #received(data) {
    this.#heard();
    const message = JSON.parse(data);
    this.#noteClock(message);
    if (message.type === "error") return this.#refused(message);
    if (message.seq !== undefined) this.#changed(message);
    else if (TOPIC_MESSAGES.has(message.type)) this.#emit("topic", message);
    this.#answered(message);
  }

  #noteClock({ serverTime, nextBatchAt, config }) {
    if (serverTime !== undefined) this.clockOffset = serverTime - Date.now();
    if (nextBatchAt !== undefined) this.nextBatchAt = nextBatchAt;
    if (config !== undefined) this.config = { ...this.config, ...config };
  }

  #refused(message) {
    const waiting = this.#answers.get(message.ref);
    if (waiting === undefined) return this.#emit("problem", new Refusal(message));
    clearTimeout(waiting.timer);
    this.#answers.delete(message.ref);
    waiting.reject(new Refusal(message));
  }

  #answered(message) {
    const waiting = this.#answers.get(message.ref);
    if (waiting === undefined) return;
    clearTimeout(waiting.timer);
    this.#answers.delete(message.ref);
    waiting.resolve(message);
  }

  #changed(message) {
    const gap = message.seq !== this.#seq + 1;
    this.#seq = message.seq;
    // Only now it works: a server that accepts and then fails must not be asked again without backoff.
    this.state.attempt = 0;
    this.#handedOver = message.seq;
    this.#handedOverIn = this.session;
    const { creates, updates, deletes, reasons, anew } = readChange(message, this.events);
    const before = this.#apply(creates, updates, deletes);
    this.#check(message, { anew, creates, updates, deletes, before });
    this.#emit("change", { type: message.type, creates, updates, deletes, reasons, before, message });
    if (gap) this.#resync("a gap in seq");
  }

  /** Change `events`; answers what was held before under the ids that the message touched. */
  #apply(creates, updates, deletes) {
    const before = new Map();
    const note = (id) => this.events.has(id) && before.set(id, this.events.get(id));
    for (const id of deletes) {
      note(id);
      this.events.delete(id);
    }
    for (const event of [...creates, ...updates]) {
      note(event.id);
      const known = this.#options.fields === "delta" ? this.events.get(event.id) : undefined;
      this.events.set(event.id, { ...known, ...event });
    }
    return before;
  }

  async #check(message, { anew, creates, updates, before }) {
    if (!Digest.available || message.digest === undefined) return this.#emit("digest", { checked: false, matches: true });
    const come = [...creates, ...updates].map(({ id }) => this.events.get(id)).map(({ id, version }) => [id, version]);
    const gone = anew ? [] : Array.from(before.values(), ({ id, version }) => [id, version]);
    const matches = await this.#digest.change({ anew, gone, come }, message.digest);
    this.#emit("digest", { checked: true, matches });
    if (matches) this.#resyncs = 0;
    else this.#resync("the digest differs");
  }

  /** First ask for the difference to what is held; when that did not help, for everything. */
  async #resync(why) {
    const now = Date.now();
    if (!this.live || now - this.#resyncAt < RESYNC_GAP_MS) return;
    this.#resyncAt = now;
    const held = this.#resyncs++ === 0 ? this.#held() : undefined;
    this.#emit("problem", new Refusal({ code: "resync", message: `Asked for a resync: ${why}.`, retry: true }));
    await this.request({ type: "resync", held }).catch((refusal) => this.#emit("problem", refusal));
  }
}

/** Every change message in one form. A snapshot deletes what it does not name. */
function readChange(message, held) {
  const { type, updates = {} } = message;
  if (type === "replace-all") {
    const named = new Set(message.events.map(({ id }) => id));
    const deletes = Array.from(held.keys()).filter((id) => !named.has(id));
    return { anew: true, creates: message.events, updates: [], deletes, reasons: {} };
  }
  if (type === "add-event") return { creates: [message.event], updates: [], deletes: [], reasons: {} };
  if (type === "update-event") return { creates: [], updates: [message.event], deletes: [], reasons: {} };
  if (type === "delete-event") {
    return { creates: [], updates: [], deletes: [message.id], reasons: message.reason ? { [message.id]: message.reason } : {} };
  }
  return { creates: updates.creates ?? [], updates: updates.updates ?? [], deletes: updates.deletes ?? [], reasons: updates.reasons ?? {} };
}
