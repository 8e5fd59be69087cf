/* How all schedules stand, for administrators: health, batches, the retry queue and the provider as tiles, and the 32 schedules at a
 * glance, each with its load. Drawn in place from GET /admin/health and GET /admin/schedules/lines. */

import { badge, badgeOf, count, element, exactTime, facts, icon, number, relativeTime, setText, tile } from "./format.js";
import { HEALTH, PLATFORMS, RETRIES, STATES, TYPES, batches, businesses, healthBadge, kindWords, lineWords, loadBar, nextWords } from "./schedules-words.js";

const OTHERS_MOST = 40;
const STATUS = {
  ok: { icon: "check", tone: "completed", words: "all is well" },
  warning: { icon: "warn", tone: "scheduled", words: "look at it soon" },
  critical: { icon: "critical", tone: "failed", words: "look at it now" },
};
const SICK = new Set(["failing", "late"]);
const BATCHES = { ...HEALTH, paused: STATES.paused, empty: STATES.empty };

/** `show(table, choices)` shows those rows of a table. */
export class ScheduleState {
  constructor({ show }) {
    this.show = show;
    this.cells = new Map();
    this.buildTiles();
    this.buildLines();
  }

  buildTiles() {
    this.status = element("p", { class: "tile-status" });
    this.reasons = element("p", { class: "faint" });
    this.sizes = element("dl", { class: "tile-facts" });
    this.provider = element("dl", { class: "tile-facts" });
    this.batchCounts = this.counts("batches", BATCHES, (name) => (name in HEALTH ? { health: name, state: "" } : { health: "", state: name }));
    this.retryCounts = this.counts("retries", RETRIES, (name) => ({ state: name }));
    document.getElementById("tiles").replaceChildren(tile("Health", this.status, this.reasons, this.sizes), tile("Batches", this.batchCounts.node), tile("Retry queue", this.retryCounts.node), tile("Provider", this.provider));
  }

  /** A tile of buttons, each with a number: those rows of the table are shown. */
  counts(table, all, choices) {
    const figures = Object.fromEntries(Object.keys(all).map((name) => [name, element("b", {}, "–")]));
    const button = ([name, { icon: picture, tone, words = name, about }]) => element("button", {
      type: "button", class: "count", "data-status": tone, "data-count": name, title: `${about}. Show them`, onclick: () => this.show(table, choices(name)),
    }, icon(picture), element("span", {}, words), figures[name]);
    return { figures, node: element("div", { class: "counts" }, ...Object.entries(all).map(button)) };
  }

  // ---- health -------------------------------------------------------------------------------------------------------

  drawHealth(health) {
    const { tone, icon: picture, words } = STATUS[health.status];
    const fresh = badge(tone, picture, `${health.status}: ${words}`);
    if (this.status.firstElementChild?.outerHTML !== fresh.outerHTML) this.status.replaceChildren(fresh);
    setText(this.reasons, reasonsOf(health).join("; "));
    const { schedules } = health;
    facts(this.sizes, [["Businesses", number(health.businesses)], ["Teams", number(health.teams)], ["Batches active", `${number(schedules.active)} of ${number(schedules.total)}`]]);
    for (const [name, node] of Object.entries(this.batchCounts.figures)) setText(node, number(health.batches[name] ?? schedules[name]));
    for (const [name, node] of Object.entries(this.retryCounts.figures)) setText(node, number(health.retries[name]));
    this.drawProvider(health);
  }

  drawProvider({ provider, runs, lastWebhookAtMs, webhooksWaiting, clock, loops }) {
    const webhooks = !provider.webhooks ? "off: runs are asked about" : lastWebhookAtMs ? relativeTime(lastWebhookAtMs) : "none yet";
    const sick = loops.filter(({ health }) => SICK.has(health));
    facts(this.provider, [["Answers", reachedBadge(provider), provider.message ?? ""], ["Runs under way", `${number(runs.underWay)} of ${number(runs.most)}`],
      ["Last webhook", webhooks, lastWebhookAtMs ? `${exactTime(lastWebhookAtMs)}; ${count(webhooksWaiting, "webhook")} to work on` : "PUBLIC_URL and APIFY_WEBHOOK_SECRET make the provider tell of a run’s end"],
      ["Clock", clock === "server" ? "this server’s" : "the provider’s"],
      ["Loops", sick.length === 0 ? badge("completed", "check", `${number(loops.length)} work`) : badge("failed", "warn", `${number(sick.length)} of ${number(loops.length)} don’t`), sick.map(({ name, health }) => `${name}: ${health}`).join(", ")]]);
  }

  // ---- the 32 -------------------------------------------------------------------------------------------------------

  buildLines() {
    this.place = document.getElementById("lines");
    const half = (type) => {
      const grid = element("div", { class: "line-grid" }, ...Object.keys(PLATFORMS).flatMap((platform) => [element("p", { class: "line-platform", "data-row": `${platform} ${type}` }, PLATFORMS[platform])]));
      return element("section", { class: "line-type", "data-type": type, "aria-label": `Schedules for ${TYPES[type]}` }, element("h3", {}, { reviews: "Reviews", overview: "Overviews: rating and count" }[type]), grid);
    };
    this.others = element("div", { class: "line-grid line-others" });
    this.otherWords = element("h3", { class: "between" });
    this.rest = element("p", { class: "faint" });
    this.loading = element("p", { class: "faint" }, "Loading…");
    this.place.replaceChildren(this.loading, element("div", { class: "line-types" }, ...Object.keys(TYPES).map(half)), this.otherWords, this.others, this.rest);
  }

  drawLines({ lines }) {
    this.loading.remove();
    const [base, others] = [lines.filter((line) => line.base), lines.filter((line) => !line.base && line.batches > 0)];
    for (const line of base) this.drawCell(line, `${number(line.hours)} h`, (cell) => this.place.querySelector(`[data-row="${line.platform} ${line.type}"]`).after(cell));
    this.orderCells(base);
    const shown = others.slice(0, OTHERS_MOST);
    for (const line of shown) this.drawCell(line, `${kindWords(line)} ${number(line.hours)} h`, (cell) => this.others.append(cell));
    this.drop(new Set([...base, ...shown].map(keyOf)));
    setText(this.otherWords, shown.length > 0 ? "Other intervals, of tiers and of teams’ own" : "");
    setText(this.rest, others.length > shown.length ? `and ${number(others.length - shown.length)} more: choose the interval among the batches.` : "");
  }

  drawCell(line, words, put) {
    const key = keyOf(line);
    let cell = this.cells.get(key);
    if (cell === undefined) {
      cell = element("button", { type: "button", class: "line", "data-line": key, onclick: () => this.show("batches", { platform: line.platform, type: line.type, hours: String(line.hours), health: "", state: "" }) });
      this.cells.set(key, cell);
      put(cell);
    }
    const next = nextWords({ ...line, paused: line.batches > 0 && line.paused === line.batches });
    const head = element("span", { class: "line-head" }, element("b", {}, words), line.businesses === 0 ? badgeOf(STATES, "empty") : healthBadge(line.health));
    const foot = line.businesses === 0 ? [element("span", {}, line.batches === 0 ? "no business yet" : "no business now")] : [element("span", {}, `${number(line.businesses)} of ${number(line.capacity)}`), element("span", { class: "faint" }, line.paused > 0 ? pausedWords(line) : next)];
    const fresh = [head, loadBar(line, lineWords(line)), element("span", { class: "line-foot" }, ...foot)];
    const label = labelOf(line, next);
    if (cell.getAttribute("aria-label") !== label) cell.setAttribute("aria-label", label);
    if (cell.title !== label) cell.title = label;
    cell.classList.toggle("line-none", line.businesses === 0);
    if (fresh.map((node) => node.outerHTML).join("") !== cell.innerHTML) cell.replaceChildren(...fresh);
  }

  /** Within a platform the short intervals come first, whatever order they arrived in. */
  orderCells(base) {
    if (this.ordered) return;
    this.ordered = true;
    for (const line of [...base].sort((a, b) => b.hours - a.hours)) this.place.querySelector(`[data-row="${line.platform} ${line.type}"]`).after(this.cells.get(keyOf(line)));
  }

  drop(known) {
    for (const [key, cell] of this.cells) {
      if (known.has(key)) continue;
      cell.remove();
      this.cells.delete(key);
    }
  }
}

const keyOf = ({ platform, type, hours }) => `${platform} ${type} ${hours}`;

const pausedWords = ({ paused, batches: all }) => (paused === all ? "paused" : `${number(paused)} paused`);

function labelOf(line, next) {
  if (line.batches === 0) return `${lineWords(line)}: no business yet. Show its batches`;
  const paused = line.paused > 0 ? `, ${number(line.paused)} paused` : "";
  return `${lineWords(line)}: ${businesses(line.businesses)} of ${number(line.capacity)} in ${batches(line.batches)}${paused}, ${line.health}; next run ${next === "–" ? "none" : next}. Show its batches`;
}

function reachedBadge({ configured, reachable }) {
  if (!configured) return badge("scheduled", "warn", "no token: APIFY_TOKEN");
  if (reachable === null) return badge("cancelled", "clock", "not asked yet");
  return reachable ? badge("completed", "check", "yes") : badge("failed", "warn", "no");
}

/** Why the status is what it is. */
function reasonsOf({ loops, provider, retries, permanentlyFailed }) {
  const sick = loops.filter(({ health }) => SICK.has(health)).map(({ name, health }) => `${name} is ${health}`);
  const waiting = retries.waiting + retries.running;
  return [...sick, provider.configured && provider.reachable === false ? `the provider doesn’t answer: ${provider.message}` : null, waiting > 0 ? `${number(waiting)} to retry` : null,
    permanentlyFailed > 0 ? `${number(permanentlyFailed)} given up` : null, provider.configured ? null : "no run is started without a token of the provider"].filter(Boolean);
}

export const hoursOf = (lines) => [...new Set(lines.map(({ hours }) => hours))].sort((a, b) => a - b);
