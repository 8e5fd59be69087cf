/* batchcast.js: one WebSocket, one true view. An ES module for browsers and Node; no framework, no DOM, no dependency. Copy it.
 *
 *   import { BatchcastClient } from "./batchcast.js";
 *   const client = new BatchcastClient({ url: "ws://127.0.0.1:8081/ws", viewport: { west: 5, south: 45, east: 20, north: 55 } });
 *   client.on("change", ({ creates, updates, deletes }) => draw(client.ranked()));
 *   client.start();
 *   await client.ready();                                    the snapshot is there
 *
 * Where there is no global WebSocket (Node 20) hand one over: `WebSocket: (await import("ws")).WebSocket`.
 *
 * What it promises
 * - `client.events` (Map id -> event) is what the server believes this connection holds. Each message is applied in one step
 *   (deletes, creates, updates); its `seq` must follow the last one and its `digest` must equal ours. When either is wrong
 *   `divergences` counts it and a `resync` with what we hold is sent; when that did not help, one without.
 * - A lost connection comes back by itself: exponential backoff with full jitter, as the close code asks (COME_BACK), after the
 *   milliseconds that a restarting server names. It resumes with what is held; the answer is one difference, and until it comes
 *   nothing is thrown away. A silent connection is asked for a sign of life, then made anew.
 * - A request has one answer: `request()` resolves with it, or rejects with a `Refusal` (the server's words) or, when the
 *   connection broke meanwhile, with a `Lost`. At most UNDER_WAY_MOST are under way and QUEUED_MOST wait; when the server says
 *   that there are too many, they go on at the rate that it names and what it did not read is sent again. Of several viewports
 *   or filters only the newest waits.
 * - `token` may be a function: it is asked at every connection and again (`{ fresh: true }`) before a token expires, after it
 *   has, and when the server does not take it. Null means: go on as nobody. A token is never part of an address.
 *
 * What it leaves to others: drawing, keeping tokens, deciding when a viewport has come to rest.
 *
 * It emits: state {name, since, attempt, retryAt, reason}, registered {...}, change {type, creates, updates, deletes, reasons,
 * before, matches, message}, digest {checked, matches}, authenticated {sub, roles, expiresAt}, signed-out {reason}, topic {...},
 * problem (an Error). States: idle, connecting, live, lost (it comes back), failed (it does not).
 */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const LONGEST_NAMED_MS = 600_000;
// After being closed for flooding the backoff starts as if so many attempts had failed.
const SLOWER_ATTEMPTS = 5;
const ANSWER_MS = 30_000;
const CONNECT_MS = 10_000;
// Silence longer than this is answered by a ping, and silence after the ping by a new connection.
const QUIET_MS = 25_000;
const PULSE_MS = 10_000;
// Some implementations tell of a failed connection by `error` alone; `close` follows at once or never.
const CLOSE_FOLLOWS_MS = 1_000;
// The server holds back reading at 32 answers; fewer than that are asked for at once.
const UNDER_WAY_MOST = 16;
const QUEUED_MOST = 1_000;
const BUFFERED_MOST = 1 << 20;
const BUFFERED_LOOK_MS = 50;
const RESENT_MOST = 10;
const TOO_MANY_WAIT_MS = 1_000;
// What the server takes as `held`: so many ids, in a message of 128 KiB with everything else in it.
const HELD_MOST = 500;
const HELD_BYTES = 96 << 10;
const RENEW_BEFORE_MS = 30_000;
const LONGEST_TIMER_MS = 86_400_000;
const OPEN = 1;
const TOPIC_MESSAGES = new Set(["progress", "status", "alert"]);
const TURNS = { viewport: "viewport-update", filters: "filters-update" };
const MASK_64 = (1n << 64n) - 1n;

/** What to do after a close code; every other one means: come back with backoff. */
export const COME_BACK = Object.freeze({ 1002: "no", 1003: "no", 1007: "no", 1009: "no", 1012: "named", 4001: "token", 4002: "slower" });

/** An answer of the server that says no; `message` is a sentence for a person, `code` one of the documented codes. */
export class Refusal extends Error {
  constructor({ code = "unavailable", message = "The server gave no reason.", field, limit, retry = false, retryAfterMs } = {}) {
    super(message);
    Object.assign(this, { name: "Refusal", code, field, limit, retry, retryAfterMs });
  }
}

/** No answer will come: the connection is gone, or it took too long. If `sent`, nobody knows whether it was carried out. */
export class Lost extends Refusal {
  constructor(message, sent) {
    super({ message, retry: true });
    Object.assign(this, { name: "Lost", sent });
  }
}

// ---- the digest -------------------------------------------------------------------------------------------------------
// SHA-256 of our own (FIPS 180-4), because the one of WebCrypto answers later, when the next message may have been applied, and
// is missing in pages that came over plain HTTP from another host than this one. Texts are short: one or two blocks each.

/** The first 32 bits of the fractional part of the n-th root of each of the first primes, exactly. */
function rootConstants(count, n) {
  const primes = [];
  for (let i = 2; primes.length < count; i++) if (primes.every((p) => i % p)) primes.push(i);
  return Int32Array.from(primes, (p) => Number(BigInt.asIntN(32, integerRoot(BigInt(p) << (32n * n), n))));
}

/** The largest x with x^n <= value, by Newton's method from above. */
function integerRoot(value, n) {
  for (let x = 1n << 40n; ; ) {
    const next = ((n - 1n) * x + value / x ** (n - 1n)) / n;
    if (next >= x) return x;
    x = next;
  }
}

const ROUND = rootConstants(64, 3n);
const START = rootConstants(8, 2n);
const utf8 = new TextEncoder();
const schedule = new Int32Array(64);

function compress(state, view, offset) {
  for (let i = 0; i < 16; i++) schedule[i] = view.getInt32(offset + 4 * i);
  for (let i = 16; i < 64; i++) {
    const [p, q] = [schedule[i - 15], schedule[i - 2]];
    const s0 = ((p >>> 7) | (p << 25)) ^ ((p >>> 18) | (p << 14)) ^ (p >>> 3);
    const s1 = ((q >>> 17) | (q << 15)) ^ ((q >>> 19) | (q << 13)) ^ (q >>> 10);
    schedule[i] = schedule[i - 16] + s0 + schedule[i - 7] + s1;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUND[i] + schedule[i]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
  }
  const words = [a, b, c, d, e, f, g, h];
  for (let i = 0; i < 8; i++) state[i] += words[i];
}

/** SHA-256 of a text, as eight 32-bit words. */
export function sha256(text) {
  const bytes = utf8.encode(text);
  const padded = new Uint8Array((((bytes.length + 8) >> 6) + 1) << 6);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 0x20000000));
  view.setUint32(padded.length - 4, bytes.length << 3);
  const state = START.slice();
  for (let offset = 0; offset < padded.length; offset += 64) compress(state, view, offset);
  return state;
}

/** What one held event adds to the digest: the first 8 bytes, big-endian, of SHA-256(id + "\n" + version). */
export function termOf({ id, version }) {
  const [high, low] = sha256(`${id}\n${version}`);
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

// ---- the view ---------------------------------------------------------------------------------------------------------

/** The events held, their digest, and the number of the last change. Messages in, changes out; nothing else. */
export class View {
  events = new Map();
  seq = 0;
  #sum = 0n;

  /** Over what is held, as the server computes it. */
  get digest() {
    return this.#sum.toString(16).padStart(16, "0");
  }

  /** The best first: by score, then start, then id. */
  ranked() {
    const [score, start] = [(e) => e.relevanceScore ?? 0, (e) => String(e.start)];
    return Array.from(this.events.values()).sort((a, b) => score(b) - score(a) || order(start(a), start(b)) || order(a.id, b.id));
  }

  /** Ids and versions, as `resume` and `resync` want them; undefined when there is more than a message can say. */
  held() {
    if (this.events.size > HELD_MOST) return undefined;
    const held = Array.from(this.events.values(), ({ id, version }) => [id, version]);
    return utf8.encode(JSON.stringify(held)).length <= HELD_BYTES ? held : undefined;
  }

  /** One change message: deletes, then creates, then updates. `before`: what was held under the ids that it touched. */
  apply(message) {
    const { creates, updates, deletes, reasons } = partsOf(message, this.events);
    const anew = message.type === "replace-all";
    const before = new Map();
    for (const id of deletes) this.#put(id, undefined, before);
    // Changed fields are laid over what is held; of a snapshot nothing old may shine through.
    for (const event of [...creates, ...updates]) this.#put(event.id, anew ? event : { ...this.events.get(event.id), ...event }, before);
    const follows = message.seq === this.seq + 1;
    this.seq = message.seq;
    const matches = follows && (message.digest === undefined || message.digest === this.digest);
    return { type: message.type, creates, updates, deletes, reasons, before, matches, message };
  }

  #put(id, event, before) {
    const known = this.events.get(id);
    if (known !== undefined) {
      before.set(id, known);
      this.#sum -= termOf(known);
    }
    if (event === undefined) this.events.delete(id);
    else {
      this.events.set(id, event);
      this.#sum += termOf(event);
    }
    this.#sum &= MASK_64;
  }
}

const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** Every change message in one form. A snapshot is told as a difference; of a kind we don't know only seq and digest count. */
function partsOf({ type, id, reason, event, events, updates = {} }, held) {
  const parts = { creates: [], updates: [], deletes: [], reasons: {} };
  if (type === "replace-all") return { ...parts, ...asDifference(events, held) };
  if (type === "add-event") return { ...parts, creates: [event] };
  if (type === "update-event") return { ...parts, updates: [event] };
  if (type === "delete-event") return { ...parts, deletes: [id], reasons: reason ? { [id]: reason } : {} };
  return { ...parts, ...updates };
}

function asDifference(events, held) {
  const named = new Set(events.map(({ id }) => id));
  return {
    creates: events.filter(({ id }) => !held.has(id)),
    updates: events.filter(({ id }) => held.has(id)),
    deletes: Array.from(held.keys()).filter((id) => !named.has(id)),
  };
}

// ---- the client -------------------------------------------------------------------------------------------------------

export class BatchcastClient {
  state = { name: "idle", since: Date.now(), attempt: 0, retryAt: null, reason: null };
  /** The last `registered`. */
  registered = {};
  session = null;
  roles = [];
  sub = null;
  /** Milliseconds to add to Date.now() to get the server's clock. */
  clockOffset = 0;
  nextBatchAt = null;
  config = {};
  /** Connections that were opened, and messages after which the view was not what the server said. */
  connections = 0;
  divergences = 0;

  #options;
  #listeners = new Map();
  #view = new View();
  #socket = null;
  #wanted = false;
  #wishes;
  #accepted = {};
  #turns = { viewport: { busy: null, next: null }, filters: { busy: null, next: null } };
  #topics = new Set();
  #entered = false;
  #handedOver = null;
  #resyncs = 0;
  #resyncing = null;
  #stale = false;
  #expiresAt = null;
  #timers = {};
  #heardAt = 0;

  #asked = 0;
  #refs = 0;
  #queue = [];
  #underWay = new Map();
  #notBefore = 0;
  #gapMs = 0;

  /** See batchcast.d.ts for the options; only `url` is needed. */
  constructor(options) {
    this.#options = { reasons: true, jitter: Math.random, quietMs: QUIET_MS, pulseMs: PULSE_MS, reconnect: true, ...options };
    this.#wishes = { viewport: options.viewport ?? null, filters: options.filters ?? [] };
  }

  /** What is held, by id; the client's own, don't change it. */
  get events() {
    return this.#view.events;
  }

  get digest() {
    return this.#view.digest;
  }

  get seq() {
    return this.#view.seq;
  }

  get viewport() {
    return this.#wishes.viewport;
  }

  get filters() {
    return this.#wishes.filters;
  }

  get live() {
    return this.state.name === "live";
  }

  get topics() {
    return new Set(this.#topics);
  }

  /** What is held, the best first. */
  ranked() {
    return this.#view.ranked();
  }

  /** Returns a function that ends it. */
  on(name, listener) {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    return () => all.delete(listener);
  }

  #emit(name, detail) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        // A listener's bug is shown where bugs are shown; it does not stop the view from being true.
        if (globalThis.reportError) globalThis.reportError(error);
        else queueMicrotask(() => { throw error; });
      }
    }
  }

  // ---- what a program does ----------------------------------------------------------------------------------------------

  /** Connect and stay connected. Without a viewport nothing of the map is asked for: only topics and requests. */
  start(viewport = this.#wishes.viewport) {
    this.#wishes.viewport = viewport;
    if (!this.#wanted) this.state.attempt = 0;
    this.#wanted = true;
    if (this.#socket === null) this.#connect();
  }

  /** Resolves with this client when the view (without a viewport: the connection) is there; rejects when it never will be. */
  ready() {
    if (this.live && (this.#view.seq > 0 || this.#wishes.viewport === null)) return Promise.resolve(this);
    if (this.state.name === "failed") return Promise.reject(new Lost(this.state.reason, false));
    return new Promise((resolve, reject) => {
      const look = () => {
        if (this.state.name === "failed") reject(new Lost(this.state.reason, false));
        else if (this.live && (this.#view.seq > 0 || this.#wishes.viewport === null)) resolve(this);
        else return;
        ends.forEach((end) => end());
      };
      const ends = [this.on("state", look), this.on("change", look)];
    });
  }

  /** Leave, and stay away until `start`. */
  close() {
    this.#wanted = false;
    const socket = this.#socket;
    this.#drop("closed by this program");
    socket?.close(1000);
    this.#become("idle");
  }

  /** Don't wait for the backoff: try at once. */
  retryNow() {
    if (this.#wanted && this.#socket === null) this.#connect();
  }

  /** Look elsewhere. Resolves with the answer; while there is no connection at once, and the next one asks for it. */
  setViewport(viewport) {
    return this.#turn("viewport", viewport);
  }

  setFilters(filters) {
    return this.#turn("filters", filters);
  }

  async setMaxEvents(maxEvents) {
    const before = this.#options.maxEvents;
    this.#options.maxEvents = maxEvents;
    if (!this.live || this.#wishes.viewport === null) return undefined;
    try {
      return await this.#register();
    } catch (refusal) {
      if (!refusal.retry) this.#options.maxEvents = before;
      throw refusal;
    }
  }

  explain(eventId) {
    return this.request({ type: "explain", eventId });
  }

  forceBatch() {
    return this.request({ type: "force-batch" });
  }

  /** Ask for the difference to what is held, or for everything. */
  resync({ held = true } = {}) {
    return this.request({ type: "resync", held: held ? this.#view.held() : undefined });
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
    this.#planRenewal();
  }

  signOut(reason = "asked") {
    this.#forgetToken(reason);
    if (this.#socket === null) return;
    const socket = this.#socket;
    this.#drop("signing out");
    socket.close(1000);
    this.#connect();
  }

  /** Send one message and wait for its answer (the message that carries the same `ref`). */
  request(message, { timeoutMs = ANSWER_MS } = {}) {
    if (this.#socket?.readyState !== OPEN) return Promise.reject(new Lost("Not connected.", false));
    if (this.#queue.length >= QUEUED_MOST) return Promise.reject(new Refusal(tooManyWait()));
    return this.#promise(message, timeoutMs, (request) => {
      this.#queue.push(request);
      this.#pump();
    });
  }

  // ---- requests ---------------------------------------------------------------------------------------------------------

  /** A request of the client's own: it does not stand in the queue. */
  #ask(message, timeoutMs = ANSWER_MS) {
    if (this.#socket?.readyState !== OPEN) return Promise.reject(new Lost("Not connected.", false));
    return this.#promise(message, timeoutMs, (request) => this.#send(Object.assign(request, { own: true })));
  }

  #promise(message, timeoutMs, begin) {
    return new Promise((resolve, reject) => {
      const request = { message, resolve, reject, number: ++this.#asked, ref: null, sends: 0, own: false };
      request.timer = setTimeout(() => this.#late(request, timeoutMs), timeoutMs);
      begin(request);
    });
  }

  #late(request, timeoutMs) {
    this.#underWay.delete(request.ref);
    this.#queue = this.#queue.filter((other) => other !== request);
    request.reject(new Lost(`No answer to ${request.message.type} in ${timeoutMs / 1000} s.`, request.sends > 0));
    // Not at once: what was asked together is late together, and must not go out first.
    clearTimeout(this.#timers.pump);
    this.#timers.pump = setTimeout(() => this.#pump(), BUFFERED_LOOK_MS);
  }

  /** Send what waits, as far as it may go now; come back to the rest when it may. */
  #pump() {
    clearTimeout(this.#timers.pump);
    while (this.#queue.length > 0 && this.#underWay.size < UNDER_WAY_MOST && this.#socket !== null) {
      const wait = Math.max(this.#notBefore - performance.now(), this.#socket.bufferedAmount > BUFFERED_MOST ? BUFFERED_LOOK_MS : 0);
      if (wait > 0) {
        this.#timers.pump = setTimeout(() => this.#pump(), Math.ceil(wait));
        return;
      }
      this.#notBefore = performance.now() + this.#gapMs;
      this.#send(this.#queue.shift());
    }
    if (this.#queue.length === 0) this.#gapMs = 0;
  }

  #send(request) {
    request.ref = `r${++this.#refs}`;
    request.sends += 1;
    this.#underWay.set(request.ref, request);
    this.#socket.send(JSON.stringify({ ...request.message, ref: request.ref }));
  }

  /** Settle the request that this message answers. */
  #answered(message) {
    const request = this.#underWay.get(message.ref);
    if (request === undefined) return message.type === "error" && this.#emit("problem", new Refusal(message));
    this.#underWay.delete(message.ref);
    if (unread(message) && !request.own && request.sends < RESENT_MOST) return this.#slowDown(message, request);
    clearTimeout(request.timer);
    if (message.type === "error") request.reject(new Refusal(message));
    else request.resolve(message);
    this.#pump();
  }

  /** The server has not read this one: again, in its old place, and all from now on at the rate that it names. */
  #slowDown({ limit, retryAfterMs = TOO_MANY_WAIT_MS }, request) {
    const later = this.#queue.findIndex(({ number }) => number > request.number);
    this.#queue.splice(later < 0 ? this.#queue.length : later, 0, request);
    this.#gapMs = limit > 0 ? Math.min(1_100 / limit, TOO_MANY_WAIT_MS) : TOO_MANY_WAIT_MS;
    this.#notBefore = Math.max(this.#notBefore, performance.now() + Math.min(retryAfterMs, LONGEST_WAIT_MS));
    this.#pump();
  }

  /** Of several wishes while one is under way only the newest is sent; all who wished get its answer. */
  #turn(what, value) {
    this.#wishes[what] = value;
    const turn = this.#turns[what];
    if (!this.live || this.#wishes.viewport === null) return Promise.resolve();
    if (!this.#entered) return this.#enter();
    if (turn.busy === null) return this.#turnNow(what);
    turn.next ??= turn.busy.then(() => {
      turn.next = null;
      return this.#turnNow(what);
    });
    return turn.next;
  }

  /** The first viewport of a connection that was there for topics alone. */
  async #enter() {
    try {
      return await this.#register();
    } catch (refusal) {
      if (!refusal.retry) this.#wishes.viewport = null;
      throw refusal;
    }
  }

  async #turnNow(what) {
    const [turn, wanted] = [this.#turns[what], this.#wishes[what]];
    const answer = this.request({ type: TURNS[what], [what]: wanted });
    const busy = answer.then(() => undefined, () => undefined);
    turn.busy = busy;
    try {
      const result = await answer;
      this.#accepted[what] = wanted;
      return result;
    } catch (refusal) {
      // What is refused for good must not be said again at the next connection.
      if (!refusal.retry && this.#wishes[what] === wanted) this.#wishes[what] = this.#accepted[what];
      throw refusal;
    } finally {
      if (turn.busy === busy) turn.busy = null;
    }
  }

  // ---- the connection ---------------------------------------------------------------------------------------------------

  #connect() {
    clearTimeout(this.#timers.retry);
    const WebSocket = this.#options.WebSocket ?? globalThis.WebSocket;
    if (WebSocket === undefined) throw new TypeError("There is no WebSocket here: hand one over as the option WebSocket.");
    const socket = new WebSocket(this.#options.url);
    this.#socket = socket;
    const current = () => this.#socket === socket;
    const gone = (code, reason) => current() && this.#gone(code, reason);
    const late = () => {
      gone(1006, "no connection in time");
      socket.close();
    };
    this.#become(this.state.name === "lost" ? "lost" : "connecting", { retryAt: null });
    this.#timers.connect = setTimeout(late, CONNECT_MS);
    socket.onopen = () => current() && this.#introduce(socket);
    socket.onmessage = ({ data }) => current() && this.#received(data);
    socket.onclose = ({ code, reason }) => gone(code, reason);
    socket.onerror = () => setTimeout(() => gone(1006, "connection failed"), CLOSE_FOLLOWS_MS);
  }

  /** Say who we are and what we want to see. */
  async #introduce(socket) {
    clearTimeout(this.#timers.connect);
    this.#view.seq = 0;
    this.#entered = false;
    [this.#resyncs, this.#resyncing] = [0, null];
    this.connections += 1;
    this.#heardAt = performance.now();
    this.#listen(socket);
    try {
      await this.#identify();
      await (this.#wishes.viewport === null ? this.#greet() : this.#register());
      this.#planRenewal();
      for (const topic of this.#topics) await this.#follow(topic);
    } catch (error) {
      if (this.#socket === socket) this.#unwelcome(socket, error);
    }
  }

  /** A refusal that may pass is a reason to come back later, one that may not is the end. */
  #unwelcome(socket, error) {
    this.#emit("problem", error);
    const final = error instanceof Refusal && !error.retry;
    this.#gone(1006, error.message, { final, wait: error.retryAfterMs });
    socket.close(1000);
  }

  async #identify() {
    const token = await this.#tokenNow();
    if (!token) return;
    try {
      await this.#authenticate(token);
    } catch (refusal) {
      if (refusal.code !== "unauthorized") throw refusal;
      await this.#identifyAnew(refusal);
    }
  }

  /** The token was not taken: ask for a fresh one, or go on as nobody, or give up. */
  async #identifyAnew(refusal) {
    const { token, anonymous } = this.#options;
    if (typeof token === "function" && !this.#stale) {
      this.#stale = true;
      const fresh = await this.#tokenNow();
      if (fresh) await this.#authenticate(fresh);
    } else if (anonymous) this.#forgetToken(refusal.message);
    else throw refusal;
  }

  async #tokenNow() {
    const { token } = this.#options;
    return typeof token === "function" ? token({ fresh: this.#stale }) : token;
  }

  async #authenticate(token) {
    const answer = await this.#ask({ type: "authenticate", token });
    this.roles = answer.roles ?? [];
    this.sub = answer.sub ?? null;
    this.#stale = false;
    this.#expiresAt = answer.expiresAt ? Date.parse(answer.expiresAt) : null;
    this.#emit("authenticated", answer);
  }

  /** Before the token expires ask for another and say it on the same connection. */
  #planRenewal() {
    clearTimeout(this.#timers.renew);
    if (this.#expiresAt === null || typeof this.#options.token !== "function") return;
    const left = this.#expiresAt - (Date.now() + this.clockOffset);
    const wait = Math.min(Math.max(left - RENEW_BEFORE_MS, left / 2), LONGEST_TIMER_MS);
    this.#timers.renew = setTimeout(() => (wait < LONGEST_TIMER_MS ? this.#renew() : this.#planRenewal()), Math.max(wait, 0));
  }

  async #renew() {
    this.#stale = true;
    const socket = this.#socket;
    try {
      const token = await this.#tokenNow();
      if (!token || this.#socket !== socket) return;
      await this.#authenticate(token);
      this.#planRenewal();
    } catch (error) {
      // The connection goes on with the token it has; when that expires the server closes it and we ask again.
      this.#emit("problem", error);
    }
  }

  #forgetToken(reason) {
    this.#options.token = undefined;
    this.roles = [];
    this.sub = null;
    this.#expiresAt = null;
    this.#emit("signed-out", { reason });
  }

  /** Nothing to register: an answered ping says that the server works. */
  async #greet() {
    await this.#ask({ type: "ping" });
    this.#become("live", { attempt: 0 });
  }

  async #register() {
    const { maxEvents, location, fields, reasons, clusters, minIntervalMs, maxBytesPerBatch } = this.#options;
    const said = { ...this.#wishes };
    const more = { maxEvents, location, fields, reasons, clusters, minIntervalMs, maxBytesPerBatch, resume: this.#resume() };
    try {
      this.registered = await this.#ask({ type: "register", ...said, ...more });
    } catch (refusal) {
      if (!this.#takeBack(refusal, said)) throw refusal;
      return this.#register();
    }
    this.#accepted = said;
    this.#entered = true;
    this.session = this.registered.session ?? null;
    this.#become("live");
    this.#emit("registered", this.registered);
    // Wishes that came while the answer was under way.
    for (const what of Object.keys(TURNS)) {
      if (this.#wishes[what] !== said[what]) this.#turn(what, this.#wishes[what]).catch((refusal) => this.#emit("problem", refusal));
    }
    return this.registered;
  }

  /** What was wished without a connection and is refused for good gives way to what was accepted before. */
  #takeBack(refusal, said) {
    const what = { bad_viewport: "viewport", bad_filter: "filters" }[refusal.code];
    if (what === undefined || this.#accepted[what] === undefined || this.#accepted[what] === said[what]) return false;
    if (this.#wishes[what] === said[what]) this.#wishes[what] = this.#accepted[what];
    this.#emit("problem", refusal);
    return true;
  }

  #resume() {
    if (this.session === null) return undefined;
    return { session: this.session, held: this.#view.held(), seq: this.#handedOver ?? undefined };
  }

  /** Subscribe again after a loss; a topic that is refused for good is given up, without costing the others. */
  async #follow(topic) {
    try {
      await this.#ask({ type: "subscribe", topic });
    } catch (refusal) {
      if (refusal.retry) throw refusal;
      this.#topics.delete(topic);
      this.#emit("problem", refusal);
    }
  }

  #gone(code, reason, { final = false, wait = 0 } = {}) {
    const why = reason || `connection closed (${code})`;
    this.#drop(why);
    const what = COME_BACK[code] ?? "backoff";
    const expired = what === "token";
    if (expired) this.#stale = true;
    const renewable = typeof this.#options.token === "function" || this.#options.anonymous === true;
    if (expired && typeof this.#options.token !== "function") this.#forgetToken("The token has expired.");
    if (!this.#wanted) return;
    if (final) return this.#fail(why);
    if (what === "no" || (expired && !renewable) || !this.#options.reconnect) return this.#fail(`closed by the server: ${code} ${reason}`.trim());
    this.#comeBack(what, why, what === "named" ? namedWaitMs(reason) : boundedMs(wait));
  }

  #fail(reason) {
    this.#wanted = false;
    this.#become("failed", { reason });
  }

  /** Full jitter: anything up to a bound that doubles with each attempt, after the wait that somebody named. */
  #comeBack(what, reason, named) {
    const before = what === "slower" ? Math.max(this.state.attempt, SLOWER_ATTEMPTS) : this.state.attempt;
    const bound = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(before, 20));
    const wait = named + bound * this.#options.jitter();
    this.#timers.retry = setTimeout(() => this.#connect(), wait);
    this.#become("lost", { attempt: before + 1, retryAt: Date.now() + wait, reason });
  }

  #drop(why) {
    Object.values(this.#timers).forEach(clearTimeout);
    this.#socket = null;
    const left = [...this.#underWay.values(), ...this.#queue];
    this.#underWay.clear();
    this.#queue = [];
    [this.#notBefore, this.#gapMs] = [0, 0];
    for (const { timer, reject, sends } of left) {
      clearTimeout(timer);
      reject(new Lost(`Connection lost: ${why}`, sends > 0));
    }
  }

  #become(name, more = {}) {
    const since = name === this.state.name ? this.state.since : Date.now();
    this.state = { ...this.state, reason: null, retryAt: null, ...more, name, since };
    this.#emit("state", this.state);
  }

  /** Ask for a sign of life when nothing has come for a while. */
  #listen(socket) {
    const left = this.#heardAt + this.#options.quietMs - performance.now();
    clearTimeout(this.#timers.quiet);
    this.#timers.quiet = setTimeout(() => (left > 0 ? this.#listen(socket) : this.#checkPulse(socket)), Math.max(left, 0));
  }

  async #checkPulse(socket) {
    try {
      await this.#ask({ type: "ping" }, this.#options.pulseMs);
      if (this.#socket === socket) this.#listen(socket);
    } catch (error) {
      if (this.#socket !== socket) return;
      // A refusal is a sign of life, too.
      if (!(error instanceof Lost)) return this.#listen(socket);
      this.#gone(1006, "no sign of life from the server");
      socket.close();
    }
  }

  // ---- messages ---------------------------------------------------------------------------------------------------------

  #received(data) {
    this.#heardAt = performance.now();
    const message = parsed(data);
    if (message === null) return this.#emit("problem", new Refusal({ code: "bad_json", message: "What came is not a message." }));
    this.#noteClock(message);
    if (typeof message.seq === "number") this.#changed(message);
    else if (TOPIC_MESSAGES.has(message.type)) this.#emit("topic", message);
    if (message.ref !== undefined || message.type === "error") this.#answered(message);
  }

  #noteClock({ serverTime, nextBatchAt, config }) {
    if (serverTime !== undefined) this.clockOffset = serverTime - Date.now();
    if (nextBatchAt !== undefined) this.nextBatchAt = nextBatchAt;
    if (config !== undefined) this.config = { ...this.config, ...config };
  }

  #changed(message) {
    const change = this.#view.apply(message);
    // Only now it works: a server that accepts and then fails must not be asked again without backoff.
    this.state.attempt = 0;
    this.#handedOver = message.seq;
    if (message.ref !== undefined && message.ref === this.#resyncing) this.#resyncing = null;
    if (change.matches) this.#resyncs = 0;
    else if (this.#resyncing === null) this.#diverged();
    this.#emit("change", change);
    this.#emit("digest", { checked: message.digest !== undefined, matches: change.matches });
  }

  /** First for the difference to what is held, then for everything; when even that differs, not again before the next change. */
  #diverged() {
    this.divergences += 1;
    const step = this.#resyncs;
    this.#resyncs = (step + 1) % 3;
    if (step === 2 || this.#socket?.readyState !== OPEN) return;
    const held = step === 0 ? this.#view.held() : undefined;
    const answer = this.#ask({ type: "resync", held });
    const ref = `r${this.#refs}`;
    this.#resyncing = ref;
    this.#emit("problem", new Refusal({ code: "resync", message: "The view is not what the server says; asked for a resync.", retry: true }));
    answer.catch((refusal) => {
      if (this.#resyncing === ref) this.#resyncing = null;
      this.#emit("problem", refusal);
    });
  }
}

/** Was it refused unread, for being one of too many? What has a `field` is about something else than the rate. */
function unread({ type, code, field, retry }) {
  return type === "error" && code === "too_many" && field === undefined && retry;
}

function tooManyWait() {
  return { code: "too_many", message: `${QUEUED_MOST} requests wait already; ask for less at once.`, limit: QUEUED_MOST, retry: true };
}

function parsed(data) {
  try {
    const message = JSON.parse(data);
    return message !== null && typeof message === "object" && !Array.isArray(message) ? message : null;
  } catch {
    return null;
  }
}

/** The wait that a restarting server names in its close reason, {"retryAfterMs": n}; 0 when it names none. */
function namedWaitMs(reason) {
  return boundedMs(parsed(reason)?.retryAfterMs);
}

/** A wait as somebody else wrote it: never negative, never longer than LONGEST_NAMED_MS. */
function boundedMs(value) {
  const ms = Number(value);
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), LONGEST_NAMED_MS) : 0;
}
//x
