/* What a person can change, as dialogs: each says what it will do, sends it once, and says what it did with the audit id, or why the
 * server refused. Nothing here draws the page; `done` is called after a change so that the page reads again. */

import { count, duration, element, number } from "./format.js";
import { sourceOf } from "./jobs-words.js";
import { FILE_TYPES, api, audited, changeDialog, field } from "./shell.js";

const USUAL = 5;
const MOST_USER = 5;
const MOST_ADMIN = 9;

/** A key of this dialog: sent twice, it is still one job. */
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function prioritySelect(chosen, admin) {
  const words = { 0: "0 · last", [USUAL]: `${USUAL} · usual`, [MOST_ADMIN]: "9 · first" };
  const most = Math.max(admin ? MOST_ADMIN : MOST_USER, chosen);
  const options = Array.from({ length: most + 1 }, (_, value) => element("option", { value, selected: value === chosen }, words[value] ?? String(value)));
  return element("select", { name: "priority" }, ...options.reverse());
}

// ---- a new import -------------------------------------------------------------------------------------------------

/** Ask for a list's name and where its members come from. `into`: an existing list; `credentials`: the person's own. */
export function newImport({ admin, credentials, into = null, done }) {
  const key = newKey();
  const name = element("input", { name: "listName", required: true, maxlength: "200", autocomplete: "off", placeholder: "Spring newsletter" });
  const account = element("select", { name: "account" }, ...credentials.map(({ account: value, provider }) => element("option", { value: JSON.stringify({ account: value, provider }) }, `${provider} · ${value}`)));
  const file = element("input", { type: "file", name: "file", accept: ".csv,.ndjson,.jsonl,text/csv,application/x-ndjson" });
  const radio = (value, words, checked) => element("label", { class: "check" }, element("input", { type: "radio", name: "from", value, checked }), element("span", {}, words));
  const fromAccount = credentials.length > 0;
  const accountField = fromAccount ? field("Account", account) : element("p", { class: "faint field" }, "You have no credential yet: add one first, or take a file.");
  const fileField = field("File", file, "CSV with a header row, or NDJSON; the column email is needed, name, username, phone and others are kept.");
  const from = element("fieldset", { class: "field" }, element("legend", {}, "Members come from"), radio("account", "an account of a provider", fromAccount), radio("file", "a file of mine", !fromAccount));
  const choose = () => {
    const value = from.querySelector(":checked").value;
    accountField.hidden = value !== "account";
    fileField.hidden = value !== "file";
    file.required = value === "file";
  };
  from.addEventListener("change", choose);
  choose();
  const words = into === null ? "Makes the list and queues one import into it." : `Queues one import into “${into.name}”. Contacts that are there already stay once.`;
  return changeDialog(into === null ? "New list" : `Import into “${into.name}”`, [
    into === null ? field("Name of the list", name) : null, from, accountField, fileField,
    field("Priority", prioritySelect(USUAL, admin), admin ? null : "Above 5 is for admins."), element("p", { class: "faint says" }, words),
  ].filter(Boolean), "Queue the import", async (form) => {
    const { job, auditId, new: isNew } = await sendImport(form, { into, key });
    done(job);
    return `${isNew ? "Queued" : "Was queued already:"} import ${job.id} from ${sourceOf(job)}.${audited(auditId)}`;
  });
}

function sendImport(form, { into, key }) {
  const { listName, priority, from, account, file } = form.elements;
  const target = into === null ? { listName: listName.value.trim() } : { listId: into.id };
  const wanted = { ...target, priority: Number(priority.value), key };
  if (from.value === "account") {
    if (!account) throw Object.assign(new Error("Add a credential first, or take a file."), { field: "from" });
    return api("/imports", { method: "POST", body: { ...wanted, ...JSON.parse(account.value) } });
  }
  const [chosen] = file.files;
  const type = FILE_TYPES[chosen.name.split(".").at(-1).toLowerCase()];
  if (type === undefined) throw Object.assign(new Error(`${chosen.name} is neither .csv nor .ndjson (.jsonl).`), { field: "file" });
  return api(`/imports?${new URLSearchParams(wanted)}`, { method: "POST", body: chosen.slice(0, chosen.size, type) });
}

// ---- a job --------------------------------------------------------------------------------------------------------

export function cancelJob(job, { listName, done }) {
  const stays = job.imported > 0 ? ` The ${count(job.imported, "contact")} that it has brought stay in the list.` : " It has brought nothing yet.";
  return changeDialog(`Cancel import ${job.id}?`, [element("p", { class: "says" }, `Stops the import from ${sourceOf(job)} into “${listName}”.${stays}`)], "Cancel the import", async () => {
    const { job: now, auditId } = await api(`/imports/${job.id}/cancel`, { method: "POST" });
    done(now);
    return `Cancelled import ${job.id}.${audited(auditId)}`;
  }, { dismiss: "Let it run" });
}

export function requeueJob(job, { listName, done }) {
  const words = `Puts the import from ${sourceOf(job)} into “${listName}” back into the queue: it goes on where it stopped, with all ${count(job.maxRetries, "retry", "retries")}.`;
  return changeDialog(`Requeue import ${job.id}?`, [element("p", { class: "says" }, words)], "Requeue", async () => {
    const { job: now, auditId } = await api(`/imports/${job.id}/requeue`, { method: "POST" });
    done(now);
    return `Import ${job.id} waits again.${audited(auditId)}`;
  });
}

export function setPriority(job, { admin, done }) {
  const words = `Import ${job.id} has priority ${job.priority}. Higher goes first; what waits long moves up by itself.`;
  const choice = field("New priority", prioritySelect(job.priority, admin), admin ? null : "Above 5 is for admins.");
  return changeDialog("Change the priority", [element("p", { class: "says" }, words), choice], "Change", async (form) => {
    const priority = Number(form.elements.priority.value);
    const { job: now, auditId } = await api(`/imports/${job.id}`, { method: "PATCH", body: { priority } });
    done(now);
    return `Import ${job.id} has priority ${now.priority} now.${audited(auditId)}`;
  });
}

// ---- a list -------------------------------------------------------------------------------------------------------

export function deleteList(list, { done }) {
  const words = `Deletes “${list.name}” with all its contacts, for everybody, and cancels its imports. This can’t be undone: export it first.`;
  return changeDialog(`Delete “${list.name}”?`, [element("p", { class: "says" }, words)], "Delete the list", async () => {
    const { auditId } = await api(`/audiences/${list.id}`, { method: "DELETE" });
    done();
    return `Deleted the list “${list.name}”.${audited(auditId)}`;
  });
}

// ---- credentials --------------------------------------------------------------------------------------------------

const secretField = () => field("API key", element("input", { name: "value", type: "password", required: true, autocomplete: "off", spellcheck: "false" }),
  "Sealed on the server and never shown again. It needs the scopes to read members and their e-mails.");

export function addCredential({ done }) {
  const account = field("Account", element("input", { name: "account", required: true, maxlength: "200", autocomplete: "off", spellcheck: "false", placeholder: "biz_…" }));
  return changeDialog("Add a credential", [account, secretField(), element("p", { class: "faint says" }, "Keeps the key for imports from this account.")], "Add", async (form) => {
    const { credential, auditId } = await api("/credentials", { method: "POST", body: { account: form.elements.account.value.trim(), value: form.elements.value.value.trim() } });
    done();
    return `Added the credential of ${credential.account}.${audited(auditId)}`;
  });
}

export function rotateCredential({ id, account }, { done }) {
  const words = `Replaces the key of ${account}. Imports under way use the new one from their next page on.`;
  return changeDialog("Rotate the credential", [element("p", { class: "says" }, words), secretField()], "Rotate", async (form) => {
    const { auditId } = await api(`/credentials/${id}/rotate`, { method: "POST", body: { value: form.elements.value.value.trim() } });
    done();
    return `Rotated the credential of ${account}.${audited(auditId)}`;
  });
}

export function removeCredential({ id, account }, { done }) {
  const words = `Removes the key of ${account}. Its imports that still wait or run fail; lists stay as they are.`;
  return changeDialog("Remove the credential?", [element("p", { class: "says" }, words)], "Remove", async () => {
    const { auditId } = await api(`/credentials/${id}`, { method: "DELETE" });
    done();
    return `Removed the credential of ${account}.${audited(auditId)}`;
  });
}

/** Ask the provider; not a change of ours but for the note of when, so no question first. */
export async function checkCredential({ id, account }, { done }) {
  const { ok, message, auditId } = await api(`/credentials/${id}/check`, { method: "POST" });
  done();
  if (!ok) throw new Error(`${account}: ${message}`);
  return `${account}: ${message}.${audited(auditId)}`;
}

/** "14 left", or for how long the provider wants to be left alone. */
export const tokensWords = (tokens, { shutMs }) => (tokens === null ? "–" : shutMs > 0 ? `shut for ${duration(Math.ceil(shutMs / 1000) * 1000)}` : `${number(Math.floor(tokens))} left`);
