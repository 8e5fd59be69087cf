/* What an administrator can change, as dialogs: each says what it will do, sends it once, and says what it did with the audit id, or why
 * the server refused. Nothing here draws the page; `done` is called after a change so that the page reads again. */

import { count, element, icon, money, number } from "./format.js";
import { FILE_TYPES, api, audited, changeDialog, dialogWith, field, notify } from "./shell.js";
import { Table } from "./table.js";
import { TIERS, brokenRules, flagWords, monthWords, runTitle, verifiedTitle } from "./tiers-words.js";

const REASON_MOST = 500;

const radio = (name, value, words, checked = false) => element("label", { class: "check" }, element("input", { type: "radio", name, value, checked }), element("span", {}, words));
const tierSelect = (name, chosen) => element("select", { name, "aria-label": "Tier" }, ...TIERS.map((tier) => element("option", { value: tier, selected: tier === chosen }, tier)));
const says = (...words) => element("p", { class: "says" }, ...words);
const people = (value) => count(value, "person", "people");
const began = ({ run, new: fresh, auditId }) => `${fresh ? "Began" : "Was under way already:"} run ${run.id}, ${runTitle(run)}.${audited(auditId)}`;

/** A moving bar while the server works on it, for what is answered only when it is done. */
function busyWhile(form, work) {
  const bar = element("progress", { "aria-label": "Under way" });
  form.querySelector(".dialog-actions").before(bar);
  return work().finally(() => bar.remove());
}

// ---- people in ----------------------------------------------------------------------------------------------------

export function importPeople({ done }) {
  const file = element("input", { type: "file", name: "file", required: true, accept: ".csv,.ndjson,.jsonl,text/csv,application/x-ndjson" });
  const help = "CSV with a header row, or NDJSON. The column name is needed; key, ratings, comparables, country, timezone and others are in docs/tiers.md.";
  return changeDialog("Import people", [
    field("File", file, help), says("Brings new people in and updates those that are known by their key. A bad row is listed, the good ones go in; tiers change only when you classify."),
  ], "Import", (form) => busyWhile(form, async () => {
    const [chosen] = file.files;
    const type = FILE_TYPES[chosen.name.split(".").at(-1).toLowerCase()];
    if (type === undefined) throw Object.assign(new Error(`${chosen.name} is neither .csv nor .ndjson (.jsonl).`), { field: "file" });
    const report = await api("/tiers/people", { method: "POST", body: chosen.slice(0, chosen.size, type) }).catch((refusal) => {
      // Every row was refused: the answer is a refusal that carries the report.
      if (!refusal.content?.errors) throw refusal;
      return refusal.content;
    });
    done();
    // Once this dialog is gone.
    if (report.rejected > 0) setTimeout(() => showRejected(chosen.name, report));
    const became = [["created", "new"], ["updated", "updated"], ["unchanged", "unchanged"], ["rejected", "refused"]].map(([key, words]) => `${number(report[key])} ${words}`);
    return `Imported ${chosen.name}: ${became.join(", ")}.${audited(report.auditId)}`;
  }));
}

/** What a file's refused rows were refused for. */
function showRejected(name, { rows, rejected, errors }) {
  const place = element("div");
  const columns = [{ key: "line", name: "Line", type: "number" }, { key: "field", name: "Field", type: "text" }, { key: "reason", name: "Reason", type: "words" }];
  const first = errors.length < rejected ? `; the first ${number(errors.length)} are listed` : "";
  const words = `${number(rejected)} of ${count(rows, "row")} of ${name} did not go in${first}. Mend them and import the file again: what is in stays as it is.`;
  const dialog = dialogWith("Rows that were refused", [says(words), place], "Close", async () => true, { dismiss: "Back" });
  dialog.classList.add("wide");
  new Table(place, { caption: `refused rows of ${name}`, columns, sort: "line", descending: false }).setRows(errors);
}

// ---- runs ---------------------------------------------------------------------------------------------------------

/** `mode` is chosen first; `counts` are the people of the state. */
export function classify({ mode, counts, done }) {
  const tier = tierSelect("tier", "S");
  const modes = element("fieldset", { class: "field" }, element("legend", {}, "Who"),
    radio("mode", "all", `everybody: ${people(counts.active)}`, mode === "all"),
    radio("mode", "new-only", `only those without a tier: ${people(counts.missingTier)}`, mode === "new-only"),
    radio("mode", "tier", "only those in one tier", mode === "tier"));
  const tierField = field("Tier", tier);
  const choose = () => (tierField.hidden = modes.querySelector(":checked").value !== "tier");
  modes.addEventListener("change", choose);
  choose();
  const words = says("Decides tier, packages, country and the most slots a month from the evidence, in the background. Decisions of reviewers stay; ",
    "where nothing changes, no row is touched. A tier that changes has to be verified again.");
  return changeDialog("Classify", [modes, tierField, words], "Classify", async (form) => {
    const chosen = form.elements.mode.value;
    const answer = await api("/tiers/classify", { method: "POST", body: chosen === "tier" ? { mode: chosen, tier: tier.value } : { mode: chosen } });
    done(answer.run);
    return began(answer);
  });
}

export function classifyPerson(person, { done }) {
  const words = "Decides tier, packages and country of this person again, from the evidence that is known now. A reviewer’s decision stays.";
  return changeDialog(`Classify ${person.name}?`, [says(words)], "Classify", async () => {
    const answer = await api("/tiers/classify", { method: "POST", body: { person: person.id } });
    done(answer.run);
    return began(answer);
  });
}

/** Plan a month of a tier, or of one person. `why`: what shuts the gate, null when it is open. */
export function generate({ tier = null, person = null, month, size = 0, why = null, done }) {
  const who = person === null ? `the ${people(size)} in tier ${tier}` : person.name;
  const replace = element("label", { class: "check" }, element("input", { type: "checkbox", name: "replace" }), element("span", {}, "plan anew who is planned already (booked slots stay)"));
  const override = element("input", { name: "override", maxlength: String(REASON_MOST), autocomplete: "off", placeholder: "why it can’t wait" });
  const gate = why === null ? [] : [
    element("p", { class: "says warned" }, icon("warn"), element("span", {}, `The gate is shut: ${why}.`)),
    field("Go on all the same, because", override, "The reason is written to the audit trail. Left empty, the server refuses."),
  ];
  return changeDialog(`Generate ${person === null ? tier : person.name} for ${monthWords(month)}`, [
    says(`Plans rotations, cities and slots of ${monthWords(month)} for ${who}, in the background. Who is planned already stays as it is; running it twice creates nothing.`), replace, ...gate,
  ], "Generate", async (form) => {
    const reason = why === null ? "" : override.value.trim();
    const body = { ...(person === null ? { tier } : { person: person.id }), month, ...(form.elements.replace.checked && { replace: true }), ...(reason && { override: reason }) };
    const answer = await api("/tiers/generate", { method: "POST", body });
    done(answer.run);
    return began(answer);
  });
}

export function stopRun(run, { done }) {
  const words = `Stops “${runTitle(run)}” after the people under way. What is done stays; resume goes on where it stopped, with the same rows.`;
  return changeDialog(`Stop run ${run.id}?`, [says(words)], "Stop the run", async () => {
    const { run: now, auditId } = await api(`/tiers/runs/${run.id}/stop`, { method: "POST" });
    done(now);
    return `Stopped run ${run.id} after ${people(now.taken)}.${audited(auditId)}`;
  }, { dismiss: "Let it run" });
}

export function resumeRun(run, { done }) {
  const words = `Goes on with “${runTitle(run)}”, of which ${number(run.taken)} of ${people(run.total)} are through. The rows are those of a run without interruption.`;
  return changeDialog(`Resume run ${run.id}?`, [says(words)], "Resume", async () => {
    const { kind, scope, tier, person, month } = run;
    const whom = scope === "person" ? { person } : scope === "tier" || kind === "generate" ? { tier } : {};
    const body = { ...whom, resume: true, ...(kind === "generate" ? { month } : { mode: scope }) };
    const answer = await api(`/tiers/${kind}`, { method: "POST", body });
    done(answer.run);
    return `Run ${answer.run.id} goes on: ${runTitle(answer.run)}.${audited(answer.auditId)}`;
  });
}

// ---- verification -------------------------------------------------------------------------------------------------

/** `tier` null: the foundation and every tier are offered first. */
export function verify({ tier, month, done }) {
  const chosen = tierSelect("tier", tier ?? "S");
  const whole = element("fieldset", { class: "field" }, element("legend", {}, "What"),
    radio("whole", "yes", `the foundation, and every tier’s ${monthWords(month)}`, tier === null), radio("whole", "no", `one tier’s ${monthWords(month)}`, tier !== null));
  const tierField = field("Tier", chosen);
  const choose = () => (tierField.hidden = whole.querySelector(":checked").value === "yes");
  whole.addEventListener("change", choose);
  choose();
  const words = "Holds the rows against every rule and records what was found, with the person and the rule; it changes nothing else. A tier that passes opens the gate of the next one.";
  return changeDialog("Verify", [whole, tierField, says(words)], "Verify", (form) => busyWhile(form, async () => {
    const body = { month, ...(form.elements.whole.value === "no" && { tier: chosen.value }) };
    const { passed, verifications } = await api("/tiers/verify", { method: "POST", body });
    done();
    const ids = verifications.map(({ id }) => id);
    const recorded = `Recorded as verification ${ids.length > 1 ? `${ids[0]} to ${ids.at(-1)}` : ids[0]}.`;
    if (passed) return `${verifications.length > 1 ? `The foundation and every tier for ${monthWords(month)}` : verifiedTitle(verifications[0])}: passed. ${recorded}`;
    const failed = verifications.filter((found) => !found.passed).map((found) => `${verifiedTitle(found)}: ${brokenRules(found)}`);
    notify(`Failed. ${failed.join("; ")}. ${recorded}`, { error: true });
    return null;
  }));
}

// ---- people -------------------------------------------------------------------------------------------------------

/** Decide about a person: the tier it has is right, or another one is. */
export function decide(person, { done }) {
  const flagged = person.needsReview && person.tier !== null;
  const tier = tierSelect("tier", person.tier ?? "D");
  const what = flagged ? element("fieldset", { class: "field" }, element("legend", {}, "Decision"),
    radio("accept", "yes", `tier ${person.tier} is right: clear “${person.flags.map(flagWords).join(", ")}”`, true), radio("accept", "no", "another tier")) : null;
  const tierField = field("Tier", tier);
  const reason = element("textarea", { name: "reason", required: true, maxlength: String(REASON_MOST), rows: "3" });
  const accepts = () => what?.querySelector(":checked").value === "yes";
  const words = says();
  const choose = () => {
    tierField.hidden = accepts();
    words.textContent = decision(person, accepts() ? null : tier.value);
  };
  what?.addEventListener("change", choose);
  tier.addEventListener("change", choose);
  choose();
  const now = element("p", { class: "says faint" }, person.reason ?? "Not classified yet.");
  const why = field("Reason", reason, "For those who ask later; kept in the history and the audit trail.");
  return changeDialog(`Decide: ${person.name}`, [now, what, tierField, why, words].filter(Boolean), "Decide", async () => {
    const body = accepts() ? { accept: true, reason: reason.value.trim() } : { tier: tier.value, reason: reason.value.trim() };
    const { person: decided, auditId } = await api(`/tiers/people/${person.id}/decision`, { method: "POST", body });
    done(decided);
    return `${decided.name} ${decided.tier === person.tier ? "stays in" : "is now in"} tier ${decided.tier}.${audited(auditId)}`;
  });
}

/** What a decision will do; `tier` null: the flags are let pass. */
function decision({ name, tier: before }, tier) {
  if (tier === null) return `Keeps ${name} in tier ${before} and takes the flags away.`;
  if (tier === before) return `Keeps ${name} in tier ${tier}, as a decision that goes before all evidence that is still to come.`;
  return `Puts ${name} into tier ${tier} at once: packages and the most slots a month follow, and months that are planned have to be planned and verified again.`;
}

/** Give back what somebody has booked. */
export function cancelBooking(slot, { words, name, done }) {
  const said = `Cancels the booking of ${slot.bookedBy} with ${name}: ${words}, ${money(slot.priceCents)}. The time is on offer again.`;
  return changeDialog("Cancel the booking?", [says(said)], "Cancel the booking", async () => {
    const { auditId } = await api(`/availability/${slot.id}/cancel`, { method: "POST" });
    done();
    return `Cancelled the booking of ${slot.bookedBy}, ${words}.${audited(auditId)}`;
  }, { dismiss: "Keep it" });
}
