/* The what-if panel, for admins: try another interval, cut, threshold or weighting on the viewers now connected, beside the present
 * settings. Nothing is sent or changed; the figures are the server's (POST /what-if), and it says what they were worked out from. */

import { count, duration, element, icon, number, percent } from "./format.js";
import { api, field } from "./shell.js";

const TERMS = [["time", "Time"], ["distance", "Distance"], ["popularity", "Popularity"], ["recency", "Recency"], ["confidence", "Confidence"]];
const SECOND = 1000;

/** What one may ask: [name in the form, words, least, most, step]. */
const ASKED = [
  ["interval", "Interval, seconds", 0.1, 86_400, "any"],
  ["maxEvents", "Events a view", 1, 500, 1],
  ["threshold", "Threshold", 0, 1, "any"],
  ["spacingKm", "Spacing, km", 0, 1000, "any"],
];

/** The figures, each from one side of the answer. */
const ROWS = [
  ["Messages an hour", ({ hour }) => whole(hour.messages)],
  ["… of a viewer, median; 95 %", ({ hour }) => `${tenths(hour.messagesPerViewer.median)}; ${tenths(hour.messagesPerViewer.p95)}`],
  ["Data an hour", ({ hour }) => size(hour.bytes)],
  ["… of a viewer, median; 95 %", ({ hour }) => `${size(hour.bytesPerViewer.median)}; ${size(hour.bytesPerViewer.p95)}`],
  ["Between two batches", ({ batch }) => time(batch.intervalMs)],
  ["Events a batch", ({ batch }) => `${batch.lowerBound ? "≥ " : ""}${number(batch.events)}`],
  ["Changes a message", ({ batch }) => tenths(batch.updatesPerFrame)],
  ["CPU a batch", ({ batch }) => `${(1000 * batch.cpuSeconds).toFixed(1)} ms`],
  ["Counters wait, mean", ({ stalenessMs }) => time(stalenessMs.mean)],
  ["Next batch", ({ next }) => `${count(next.allFrames, "message")}, ${size(next.allBytes)}`],
];

const whole = (value) => number(Math.round(value));
const tenths = (value) => number(Math.round(value * 10) / 10);
const time = (ms) => (ms === null ? "–" : duration(ms));
const size = (bytes) => (bytes >= 1 << 20 ? `${tenths(bytes / (1 << 20))} MiB` : `${tenths(bytes / 1024)} KiB`);

export class WhatIf {
  constructor() {
    this.panel = document.getElementById("what-if");
    this.tab = document.getElementById("what-if-tab");
    this.form = document.getElementById("what-if-form");
    this.result = document.getElementById("what-if-result");
    const input = ([name, words, min, max, step]) => field(words, element("input", { name, type: "number", min: String(min), max: String(max), step: String(step), inputmode: "decimal", placeholder: "as now" }));
    this.go = element("button", { class: "primary", type: "submit" }, icon("target"), element("span", {}, "Try it"));
    this.form.append(element("div", { class: "pair" }, ...ASKED.map(input)),
      element("fieldset", { class: "field" }, element("legend", {}, "Weights, 0 to 1"), element("div", { class: "pair" }, ...TERMS.map(([name, words]) => input([name, words, 0, 1, "any"])))),
      element("div", { class: "flush" }, this.go, element("p", { class: "faint" }, "Tries it on those now connected. Nothing is sent, nothing changes.")));
    this.form.addEventListener("submit", (happening) => {
      happening.preventDefault();
      this.ask();
    });
  }

  roles(roles) {
    this.panel.hidden = this.tab.hidden = !roles.includes("admin");
    if (this.panel.hidden) this.result.replaceChildren();
  }

  /** What the form asks for; what is empty stays as it is. */
  wish() {
    const value = (name) => (this.form.elements[name].value === "" ? undefined : Number(this.form.elements[name].value));
    const interval = value("interval");
    const weights = Object.fromEntries(TERMS.map(([name]) => [name, value(name)]).filter(([, share]) => share !== undefined));
    return {
      intervalMs: interval === undefined ? undefined : Math.round(interval * SECOND),
      maxEvents: value("maxEvents"), threshold: value("threshold"), spacingKm: value("spacingKm"),
      weights: Object.keys(weights).length > 0 ? weights : undefined,
    };
  }

  async ask() {
    if (this.go.disabled) return;
    this.go.disabled = true;
    try {
      this.draw(await api("/what-if", { method: "POST", body: this.wish() }));
      this.result.scrollIntoView({ block: "nearest" });
    } catch (refusal) {
      this.result.replaceChildren(element("p", { class: "form-error", role: "alert" }, icon("warn"), element("span", {}, refusal.message)));
      const name = refusal.field === "intervalMs" ? "interval" : refusal.field?.replace("weights.", "");
      this.form.elements[name]?.focus?.();
    } finally {
      this.go.disabled = false;
    }
  }

  draw(answer) {
    const { present, asked, change, sampled, viewers, deferred, estimatedFrom } = answer;
    const heading = (words) => element("th", { scope: "col" }, words);
    const rows = ROWS.map(([name, of]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, of(present)), element("td", {}, of(asked))));
    this.result.replaceChildren(
      element("p", { class: "what-if-change" }, changeLine(change, sampled)),
      element("table", { class: "compare" }, element("caption", { class: "hidden-words" }, "The present settings beside those asked for"),
        element("thead", {}, element("tr", {}, element("td", {}), heading("Now"), heading("Asked"))), element("tbody", {}, ...rows)),
      element("p", { class: "faint" }, groundsLine(estimatedFrom, sampled, viewers, deferred)),
    );
  }
}

function changeLine({ viewersDiffering, entering, leaving, topOverlap }, sampled) {
  if (sampled === 0) return "Nobody is connected whose view could change.";
  if (viewersDiffering === 0) return `None of ${count(sampled, "view")} would differ.`;
  return `${number(viewersDiffering)} of ${count(sampled, "view")} would differ: ${number(entering)} in, ${number(leaving)} out, ${percent(topOverlap)} of the best ten stay.`;
}

function groundsLine({ watchedMs, moved, activityKnown, waiting, waitingTaken }, sampled, viewers, deferred) {
  const known = activityKnown ? `Hours are estimated from ${count(moved, "event")} that moved in ${duration(watchedMs)}.` : `Nothing has moved in the ${duration(watchedMs)} watched: hours hold for a map on which only time moves.`;
  const left = deferred > 0 ? ` ${count(deferred, "viewer")} left out, as a message of theirs waits.` : "";
  return `Tried on ${number(sampled)} of ${count(viewers, "viewer")}, with ${number(waitingTaken)} of ${count(waiting, "waiting event")}.${left} ${known}`;
}
