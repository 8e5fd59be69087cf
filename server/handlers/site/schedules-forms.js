/* What a person can change, as dialogs: each says what it will do, sends it once, and says what it did with the audit id, or why the
 * server refused. Nothing here draws the page; `done` is called after a change so that the page reads again. */

import { count, element, exactTime, number, radio, says } from "./format.js";
import { HOURS, HOURS_MOST, OWN_TIER, PLATFORMS, TIERS, TYPES, batchWords, batches, businesses, every, kindWords, lineWords } from "./schedules-words.js";
import { FILE_TYPES, api, audited, busyWhile, changeDialog, dialogWith, field, newKey } from "./shell.js";
import { Table } from "./table.js";

const REASON_MOST = 500;

const check = (name, value, words, checked = true) => element("label", { class: "check" }, element("input", { type: "checkbox", name, value, checked }), element("span", {}, words));
const placements = (moved) => (moved === 1 ? "1 placement moved" : `${number(moved)} placements moved`);
const teamPath = (team) => `/admin/teams/${encodeURIComponent(team)}`;

// ---- a batch ------------------------------------------------------------------------------------------------------

export function triggerSchedule(batch, { done }) {
  const key = newKey();
  const words = `Starts a run at the provider now, for the ${businesses(batch.businesses)} of ${batchWords(batch)}. The provider bills it like any other run; the next one on time stays as it is.`;
  return changeDialog("Run this batch now?", [says(words)], "Run it", async () => {
    const { runId, new: fresh, auditId } = await api(`/admin/schedules/${batch.id}/trigger`, { method: "POST", headers: { "Idempotency-Key": key } });
    done();
    return `${fresh ? `Run ${runId} is on its way` : `Run ${runId} is under way already`}: ${batchWords(batch)}.${audited(auditId)}`;
  });
}

export function pauseSchedule(batch, { done }) {
  const words = `No further runs of ${batchWords(batch)}, and no further businesses into it, until it is resumed. Its ${businesses(batch.businesses)} stay; a run under way goes on.`;
  return changeDialog("Pause this batch?", [says(words)], "Pause it", async () => {
    const { schedule, auditId } = await api(`/admin/schedules/${batch.id}/pause`, { method: "PUT" });
    done(schedule);
    return `Paused ${batchWords(batch)}.${audited(auditId)}`;
  });
}

export function resumeSchedule(batch, { done }) {
  const words = `${batchWords(batch)} goes on with its next slot, for ${businesses(batch.businesses)}. What passed meanwhile is not made up for.`;
  return changeDialog("Resume this batch?", [says(words)], "Resume it", async () => {
    const { schedule, auditId } = await api(`/admin/schedules/${batch.id}/resume`, { method: "PUT" });
    done(schedule);
    return `Resumed ${batchWords(batch)}${schedule.empty ? "" : `; next run ${exactTime(schedule.nextRunAtMs)}`}.${audited(auditId)}`;
  });
}

// ---- evening out --------------------------------------------------------------------------------------------------

const BALANCES = {
  rebalance: { title: "Rebalance", about: "Moves businesses between the batches of a schedule where their loads differ by more than 20 % of the mean.", did: "Rebalanced", nothing: "nothing to do, no batches differ by more than 20 % of the mean." },
  consolidate: { title: "Consolidate", about: "Empties batches that hold less than 30 % of what they may, the smallest first, into others of the same schedule, and sets them aside.", did: "Consolidated", nothing: "nothing to do, no batch under 30 % would fit into others." },
};

const PLAN_COLUMNS = [
  { key: "name", name: "Schedule", type: "words" },
  { key: "moves", name: "Moves", type: "number", format: number },
  { key: "words", name: "How", type: "words" },
];

/** Asks what would be done, shows it, and does it when told to; where it is nothing, answers with words that say so. `line`: only that
 * schedule. */
export async function balance(action, { line = null, done }) {
  const { title, about, did, nothing } = BALANCES[action];
  const body = line === null ? {} : { platform: line.platform, type: line.type, hours: line.hours };
  const preview = await api(`/admin/schedules/${action}`, { method: "POST", body: { ...body, preview: true } });
  const where = line === null ? "all schedules" : lineWords(line);
  if (preview.plans.length === 0) return `${title}, ${where}: ${nothing}`;
  const place = element("div");
  const sum = [businesses(preview.moves), preview.created > 0 ? `${batches(preview.created)} made` : null, preview.retired > 0 ? `${batches(preview.retired)} set aside` : null].filter(Boolean).join(", ");
  const dialog = changeDialog(`${title}: ${where}`, [says(about), place, says(`To move: ${sum}, in ${count(preview.lines, "schedule")}. Each keeps its interval and goes on with the next run of its new batch.`)], `Move ${businesses(preview.moves)}`, (form) => busyWhile(form, async () => {
    const now = await api(`/admin/schedules/${action}`, { method: "POST", body });
    done();
    return `${did} ${count(now.lines, "schedule")}: ${businesses(now.moves)} moved, ${batches(now.created)} made, ${number(now.retired)} set aside.${now.more ? " There is more: do it again." : ""}${audited(now.auditId)}`;
  }));
  dialog.classList.add("wide");
  new Table(place, { caption: `what to ${action}`, columns: PLAN_COLUMNS, sort: "moves", empty: nothing }).setRows(preview.plans.map(planRow));
  return null;
}

function planRow(plan) {
  const moved = plan.transfers.map(({ source, target, count: n }) => `${number(n)} from batch ${source} to ${target}`);
  const made = plan.created.length > 0 ? [`makes batch ${plan.created.join(", ")}`] : [];
  const retired = plan.retired.length > 0 ? [`sets aside batch ${plan.retired.join(", ")}`] : [];
  return { name: lineWords(plan), moves: plan.transfers.reduce((sum, { count: n }) => sum + n, 0), words: [...made, ...moved, ...retired].join("; ") };
}

// ---- a team -------------------------------------------------------------------------------------------------------

export function changeTier(view, { done }) {
  const intervals = ({ reviews, overview }) => `reviews ${reviews} h, overviews ${overview} h`;
  const tiers = element("fieldset", { class: "field" }, element("legend", {}, "Tier"), ...Object.entries(TIERS).map(([tier, hours]) => radio("tier", tier, `${tier}: ${intervals(hours)}`, tier === view.tier)));
  const words = says();
  const chosen = () => tiers.querySelector(":checked").value;
  const say = () => {
    const lost = chosen() !== OWN_TIER && view.own.length > 0 ? ` Its ${count(view.own.length, "interval")} of its own end with it.` : "";
    words.textContent = chosen() === view.tier ? `${view.team} is ${view.tier}: nothing would change.` : `Moves the ${businesses(view.businesses)} of ${view.team} to the batches of ${chosen()} (${intervals(TIERS[chosen()])}), all at once.${lost}`;
  };
  tiers.addEventListener("change", say);
  say();
  return changeDialog(`Tier of ${view.team}`, [tiers, words], "Change the tier", async () => {
    if (chosen() === view.tier) throw Object.assign(new Error(`${view.team} is ${view.tier} already; choose another tier.`), { field: "tier" });
    const { before, after, moved, auditId } = await api(`${teamPath(view.team)}/tier`, { method: "PUT", body: { tier: chosen() } });
    done();
    return `${view.team} is ${after} now${before ? `, was ${before}` : ""}: ${placements(moved)}.${audited(auditId)}`;
  });
}

/** An interval of the team's own, for some of its platforms and types. */
export function customInterval(view, { done }) {
  const hours = element("input", { name: "hours", type: "number", required: true, min: "1", max: String(HOURS_MOST), step: "1", value: String(HOURS[0]), inputmode: "numeric" });
  const platforms = element("fieldset", { class: "field" }, element("legend", {}, "Platforms"), ...Object.entries(PLATFORMS).map(([value, words]) => check("platforms", value, words)));
  const types = element("fieldset", { class: "field" }, element("legend", {}, "For"), ...Object.entries(TYPES).map(([value, words]) => check("types", value, words)));
  const reason = element("input", { name: "reason", maxlength: String(REASON_MOST), autocomplete: "off", placeholder: "opening week" });
  const expires = element("input", { name: "expiresAtMs", type: "datetime-local" });
  const words = says();
  const ticked = (place) => Array.from(place.querySelectorAll(":checked"), ({ value }) => value);
  const say = () => (words.textContent = intervalWords(view, { hours: hours.value, platforms: ticked(platforms), types: ticked(types), until: expires.value }));
  const content = [field("Hours", hours, `1 to ${HOURS_MOST}; a batch of its own where it is none of ${HOURS.join(", ")}.`), element("div", { class: "ticks" }, platforms, types), field("Reason", reason, "For those who ask later; kept in the history and the audit trail."),
    field("Runs out", expires, "In your time zone; left empty, it holds until it is removed."), words];
  say();
  const dialog = changeDialog(`Own interval for ${view.team}`, content, "Set the interval", async () => {
    const [where, what] = [ticked(platforms), ticked(types)];
    if (where.length === 0) throw Object.assign(new Error("Choose a platform at least."), { field: "platforms" });
    if (what.length === 0) throw Object.assign(new Error("Choose reviews, overview, or both."), { field: "types" });
    const body = { hours: Number(hours.value), platforms: where, types: what, reason: reason.value.trim(), ...(expires.value && { expiresAtMs: new Date(expires.value).getTime() }) };
    const { moved, auditId } = await api(`${teamPath(view.team)}/custom-interval`, { method: "POST", body });
    done();
    return auditId === null ? `${view.team} had exactly that: nothing changed.` : `${view.team} is asked ${every(body.hours)} now: ${placements(moved)}.${audited(auditId)}`;
  });
  dialog.addEventListener("input", say);
  return dialog;
}

function intervalWords(view, { hours, platforms, types, until }) {
  if (!(Number(hours) >= 1)) return "Say how many hours.";
  const lines = view.lines.filter(({ platform, type }) => platforms.includes(platform) && types.includes(type));
  const touched = lines.filter((line) => line.businesses > 0 && line.hours !== Number(hours));
  const where = touched.map((line) => `${kindWords(line)} (${number(line.businesses)}, now ${every(line.hours)})`).join(", ");
  const end = until ? `until ${exactTime(new Date(until).getTime())}, then back to the tier’s` : "until it is removed";
  return touched.length === 0 ? `Nothing moves now: no business of ${view.team} is there with another interval. It holds ${end}.` : `Moves to ${every(Number(hours))}: ${where}. It holds ${end}.`;
}

export function removeInterval(own, { view, done }) {
  const tier = TIERS[view.tier][own.type];
  const words = `Takes the interval of ${own.team} for ${kindWords(own)} away, ${every(own.hours)}${own.reason ? ` (${own.reason})` : ""}. Its businesses there go back to ${every(tier)}, as the tier ${view.tier} has it.`;
  return changeDialog("Back to the tier’s interval?", [says(words)], "Take it away", async () => {
    const { moved, auditId } = await api(`${teamPath(own.team)}/custom-interval?platform=${own.platform}&type=${own.type}`, { method: "DELETE" });
    done();
    return `${own.team}, ${kindWords(own)}: back to ${every(tier)}, ${placements(moved)}.${audited(auditId)}`;
  }, { dismiss: "Keep it" });
}

// ---- businesses ---------------------------------------------------------------------------------------------------

/** Try again at once: one row of the queue, or (without a type) a whole business on a platform. */
export function retryBusiness({ businessId, team, platform, type }, { done }) {
  const what = type ? kindWords({ platform, type }) : `${PLATFORMS[platform]}, reviews and overview`;
  const words = `Tries business ${businessId} of ${team} again at once, ${what}, with a fresh count of retries: by a run of its own, which the provider bills.`;
  return changeDialog("Try again?", [says(words)], "Try again", async () => {
    const { retries, auditId } = await api(`/admin/businesses/${businessId}/retry`, { method: "POST", body: { platform, ...(type && { type }) } });
    done();
    const due = retries.filter(({ state }) => state === "waiting" || state === "running").length; // Some may have begun already.
    return `Business ${businessId} is tried again: ${count(due, "retry", "retries")} due now.${audited(auditId)}`;
  });
}

const HELP = {
  google: "The place id, such as ChIJN1t_tDeuEmsR…",
  facebook: "The address of its page, https://www.facebook.com/…",
  tripadvisor: "The address of its page, https://www.tripadvisor.com/Hotel_Review-…",
  booking: "The address of its page, https://www.booking.com/hotel/…",
};

/** Follow a business of `team`; with `business` (a profile) the one that there is gets a further platform. */
export function followBusiness({ team, business = null, done }) {
  const platform = element("select", { name: "platform" }, ...Object.entries(PLATFORMS).filter(([value]) => value !== business?.platform).map(([value, words]) => element("option", { value }, words)));
  const identifier = element("input", { name: "identifier", required: true, maxlength: "2000", autocomplete: "off", spellcheck: "false" });
  const help = element("small", { class: "faint" });
  const name = element("input", { name: "name", maxlength: "300", autocomplete: "organization", placeholder: "Café Adler" });
  const say = () => (help.textContent = HELP[platform.value]);
  platform.addEventListener("change", say);
  say();
  const place = element("label", { class: "field" }, element("span", {}, "Known there as"), identifier, help);
  const words = business === null ? `Adds a business to ${team}; its reviews and its rating are fetched from now on, as often as the tier says.` : `Adds a further platform to “${business.name}”.`;
  return changeDialog(business === null ? "Follow a business" : `A further platform for “${business.name}”`, [field("Platform", platform), place, business === null ? field("Name", name, "For people; left empty, it goes by its address.") : null, says(words)].filter(Boolean), "Follow it", async () => {
    const body = { team, identifier: identifier.value.trim(), ...(business === null ? { name: name.value.trim() } : { businessId: business.id }) };
    const { profile, new: fresh, auditId } = await api(`/api/${platform.value}/profile`, { method: "POST", body });
    done(profile);
    return `${fresh ? "Following" : "Was followed already:"} “${profile.name}” on ${PLATFORMS[profile.platform]}.${audited(auditId)}`;
  });
}

export function unfollow(profile, { done }) {
  const words = `Follows “${profile.name}” of ${profile.team} on ${PLATFORMS[profile.platform]} no more: it leaves its batches and the retry queue. On its last platform the business goes too, with its reviews unless the server keeps them (SCHEDULES_KEEP_REVIEWS).`;
  return changeDialog("Stop following?", [says(words)], "Stop following", async () => {
    const { businessGone, auditId } = await api(`/api/${profile.platform}/profile/${profile.id}`, { method: "DELETE" });
    done();
    return `“${profile.name}” is followed on ${PLATFORMS[profile.platform]} no more${businessGone ? "; that was its last platform, the business is gone" : ""}.${audited(auditId)}`;
  }, { dismiss: "Go on following" });
}

// ---- a file of businesses -----------------------------------------------------------------------------------------

export function importBusinesses({ done }) {
  const file = element("input", { type: "file", name: "file", required: true, accept: ".csv,.ndjson,.jsonl,text/csv,application/x-ndjson" });
  const help = "CSV with a header row, or NDJSON: team, name, tier, and a column for each platform (google, facebook, tripadvisor, booking), or platform and identifier.";
  return changeDialog("Import businesses", [field("File", file, help), says("Adds the businesses to their teams and places them in batches. A bad row is listed, the good ones go in; the same file again goes on where it stopped and changes nothing twice.")], "Import", (form) => busyWhile(form, async () => {
    const [chosen] = file.files;
    const type = FILE_TYPES[chosen.name.split(".").at(-1).toLowerCase()];
    if (type === undefined) throw Object.assign(new Error(`${chosen.name} is neither .csv nor .ndjson (.jsonl).`), { field: "file" });
    const report = await api(`/admin/businesses?${new URLSearchParams({ key: await keyOf(chosen) })}`, { method: "POST", body: chosen.slice(0, chosen.size, type) });
    done();
    // Once this dialog is gone.
    if (report.errors.length > 0) setTimeout(() => showRefused(chosen.name, report));
    const resumed = report.resumedAtRow > 0 ? `, from row ${number(report.resumedAtRow)} on` : "";
    return `Imported ${chosen.name}${resumed}: ${count(report.rows, "row")}, ${number(report.placed)} placed, ${number(report.known)} known before, ${number(report.refused)} refused.${audited(report.auditId)}`;
  }));
}

/** Names the file by its content where the browser offers SHA-256 (it does on a secure origin), else by what it says of itself. */
async function keyOf(file) {
  if (crypto.subtle === undefined) return `${file.name.slice(0, 120)} ${file.size} ${file.lastModified}`.replace(/[^\x20-\x7e]/g, "_");
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function showRefused(name, { rows, refused, errors }) {
  const place = element("div");
  const columns = [{ key: "number", name: "Row", type: "number" }, { key: "field", name: "Field", type: "text" }, { key: "reason", name: "Reason", type: "words" }];
  const first = errors.length < refused ? `; the first ${number(errors.length)} are listed` : "";
  const dialog = dialogWith("Rows that were refused", [says(`${number(refused)} of ${count(rows, "row")} of ${name} did not go in${first}. Mend them and import the file again: what is in stays as it is.`), place], "Close", async () => true, { dismiss: "Back" });
  dialog.classList.add("wide");
  new Table(place, { caption: `refused rows of ${name}`, columns, sort: "number", descending: false }).setRows(errors.map((error) => ({ ...error, number: error.number + 1 })));
}
