/* The shell of every page: navigation, sign-in by pasting a token, the connection's state in words, notices, and calls of the
 * documented HTTP API. The token lives in this tab's session storage and travels in a header or a message, never in a URL. */

import { BatchcastClient } from "./batchcast.js";
import { element, icon, setText, timeOfDay } from "./format.js";

const TOKEN_KEY = "batchcast-token";
const NOTICE_MS = 7_000;
const MAX_NOTICES = 4;
const SAVED_MS = 60_000;
const PAGES = [
  { path: "/", name: "Map" },
  { path: "/jobs", name: "Jobs" },
  { path: "/schedules", name: "Schedules" },
  { path: "/tiers", name: "Tiers" },
  { path: "/tracking", name: "Tracking" },
];

/** Content types of files to upload, by their ending. */
export const FILE_TYPES = { csv: "text/csv", ndjson: "application/x-ndjson", jsonl: "application/x-ndjson" };

export const token = {
  read: () => sessionStorage.getItem(TOKEN_KEY),
  keep: (value) => sessionStorage.setItem(TOKEN_KEY, value),
  forget: () => sessionStorage.removeItem(TOKEN_KEY),
};

/** Where this server's WebSocket is: same host, the port that the page was served with; without one (a proxy) the page's own. */
function webSocketUrl(path = "/ws") {
  const port = document.querySelector('meta[name="batchcast-ws"]')?.content;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${port ? `${location.hostname}:${port}` : location.host}${path}`;
}

/** The live connection of a page, with this tab's token; when that is not taken, or has expired, it goes on as nobody. */
export function pageClient(options = {}) {
  return new BatchcastClient({ url: webSocketUrl(), token: token.read() ?? undefined, anonymous: true, ...options });
}

/** Call the HTTP API. Resolves with the body, rejects with an Error whose message is the server's own sentence
 * (its `content` is the whole body). A Blob goes as it is. */
export async function api(path, { method = "GET", body, signal, headers = {} } = {}) {
  const answer = await ask(path, { method, body, signal, headers: { Accept: "application/json", ...headers } });
  return answer.json().catch(() => ({}));
}

/** Fetch a file with this tab's token and hand it to the browser to save. */
export async function save(path, name) {
  const address = URL.createObjectURL(await (await ask(path, {})).blob());
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), SAVED_MS);
}

/** Parameters that are not null, as a query with its question mark. */
export function queryOf(parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  return query.size > 0 ? `?${query}` : "";
}

async function ask(path, { method = "GET", body, signal, headers = {} }) {
  const all = { ...headers };
  if (token.read()) all.Authorization = `Bearer ${token.read()}`;
  if (body !== undefined) all["Content-Type"] = body instanceof Blob ? body.type : "application/json";
  const sent = body === undefined || body instanceof Blob ? body : JSON.stringify(body);
  const answer = await fetch(path, { method, headers: all, signal, body: sent }).catch((trouble) => {
    if (trouble.name === "AbortError") throw trouble;
    throw Object.assign(new Error("The server can’t be reached."), { status: 0 });
  });
  if (answer.ok) return answer;
  const content = await answer.json().catch(() => ({}));
  const refusal = new Error(content.error?.message ?? `${method} ${path} was answered with ${answer.status}.`);
  throw Object.assign(refusal, { status: answer.status, code: content.error?.code, field: content.error?.field, content });
}

// ---- notices ------------------------------------------------------------------------------------------------------

/** Say something once. Errors stay until they are closed and are announced at once; the rest leaves by itself. */
export function notify(words, { error = false } = {}) {
  const box = document.getElementById("notices");
  const close = element("button", { class: "quiet only-icon", type: "button", "aria-label": "Close this notice" }, icon("close"));
  const kind = error ? "notice notice-error" : "notice";
  const notice = element("div", { class: kind, role: error ? "alert" : null }, icon(error ? "warn" : "check"), element("p", {}, words), close);
  close.addEventListener("click", () => notice.remove());
  box.append(notice);
  while (box.children.length > MAX_NOTICES) box.firstElementChild.remove();
  if (!error) setTimeout(() => notice.remove(), NOTICE_MS);
}

/** Run an action of a button once at a time: disabled while under way, its refusal shown in the server's words. */
export async function act(button, work) {
  if (button.getAttribute("aria-disabled") === "true" || button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    const words = await work();
    if (words) notify(words);
  } catch (refusal) {
    notify(refusal.message, { error: true });
  } finally {
    button.removeAttribute("aria-busy");
  }
}

/** Put the icons into the page once, so that one drawn later needs no server: "lost" has to be drawn without one. */
export async function loadIcons() {
  const text = await (await fetch("/site/icons.svg")).text();
  const sprite = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  sprite.setAttribute("class", "hidden-words");
  sprite.setAttribute("aria-hidden", "true");
  document.body.append(document.importNode(sprite, true));
}

// ---- navigation and connection ------------------------------------------------------------------------------------

export function drawPages() {
  const nav = document.getElementById("pages");
  nav.hidden = PAGES.length < 2;
  const link = ({ path, name }) => element("a", { href: path, "aria-current": location.pathname === path ? "page" : null }, name);
  nav.replaceChildren(...PAGES.map(link));
}

const STATES = {
  idle: { icon: "offline", words: () => "Not connected" },
  connecting: { icon: "offline", words: () => "Connecting…" },
  live: { icon: "live", words: () => "Live" },
  lost: { icon: "offline", words: lostWords },
  failed: { icon: "warn", words: ({ reason }) => `Stopped: ${reason ?? "the server closed the connection"}` },
};

function lostWords({ since, retryAt }) {
  const wait = retryAt === null ? null : Math.ceil((retryAt - Date.now()) / 1000);
  return `Lost since ${timeOfDay(since)} · ${wait !== null && wait > 0 ? `next try in ${wait} s` : "trying…"}`;
}

/** Show the state of `client` in the bar, and a button that tries at once while the connection is lost. */
export function watchConnection(client) {
  const place = document.getElementById("connection");
  const words = element("span", { class: "connection-words" });
  const count = element("span", { class: "connection-count", "aria-hidden": "true" });
  const retry = element("button", { class: "small", type: "button", hidden: true, onclick: () => client.retryNow() }, "Try now");
  const picture = element("span", { class: "connection-icon" });
  place.replaceChildren(picture, words, count, retry);
  const draw = () => drawConnection(client.state, { place, words, count, retry, picture });
  client.on("state", draw);
  addEventListener("online", () => client.retryNow());
  setInterval(() => client.state.name === "lost" && draw(), 1000);
  draw();
}

/** The words are announced when they change; the seconds beside them are for the eye only. */
function drawConnection(state, { place, words, count, retry, picture }) {
  const { icon: name, words: say } = STATES[state.name];
  const [first, second = ""] = say(state).split(" · ");
  if (place.dataset.state !== state.name) picture.replaceChildren(icon(name));
  place.dataset.state = state.name;
  setText(words, first);
  setText(count, second);
  retry.hidden = state.name !== "lost";
}

// ---- sign-in ------------------------------------------------------------------------------------------------------

/** Wire the account button to a client. `changed` is called with the roles whenever they change. */
export function watchAccount(client, changed) {
  const button = document.getElementById("account");
  const draw = () => {
    const signedIn = client.sub !== null;
    setText(button.querySelector("span"), signedIn ? `${client.sub} · ${rolesOf(client)}` : "Sign in");
    button.setAttribute("aria-label", signedIn ? `Signed in as ${client.sub}, ${rolesOf(client)}. Sign out…` : "Sign in");
    changed(client.roles);
  };
  client.on("authenticated", draw);
  client.on("signed-out", ({ reason }) => {
    token.forget();
    draw();
    if (reason !== "asked") notify(`Signed out: ${reason}`, { error: true });
  });
  button.addEventListener("click", () => (client.sub !== null ? askSignOut(client) : askToken(client)));
  draw();
}

/** Every token is a viewer's, also one that names no role. */
const rolesOf = ({ roles }) => roles.join(", ") || "viewer";

export function askToken(client) {
  const field = element("input", { type: "password", name: "token", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-help token-error" });
  const problem = element("p", { class: "form-error", id: "token-error", role: "alert" });
  const dialog = dialogWith("Sign in", [
    element("label", { class: "field" }, element("span", {}, "Token"), field),
    element("p", { class: "faint", id: "token-help" }, "Paste a token of this server. The admin’s is in ", element("code", {}, "DATA_DIR/admin.token"), "; it stays in this tab and is forgotten with it."),
    problem,
  ], "Sign in", async () => {
    const value = field.value.trim();
    setText(problem, "");
    // Kept first: what is told of the sign-in calls the API with it at once.
    token.keep(value);
    try {
      await client.signIn(value);
    } catch (refusal) {
      token.forget();
      setText(problem, refusal.message);
      field.focus();
      return false;
    }
    notify(`Signed in as ${client.sub ?? "?"} (${rolesOf(client)}).`);
    return true;
  });
  field.focus();
  return dialog;
}

function askSignOut(client) {
  const words = `You are ${client.sub ?? "signed in"} with the roles ${rolesOf(client)}. Signing out forgets the token in this tab.`;
  dialogWith("Sign out", [element("p", {}, words)], "Sign out", async () => {
    client.signOut();
    return true;
  });
}

/** A modal form. `submit` answers whether the dialog may close; while it works the button can't be pressed twice. */
export function dialogWith(title, content, action, submit, { dismiss = "Cancel" } = {}) {
  const go = element("button", { class: "primary", type: "submit" }, action);
  const cancel = element("button", { type: "button" }, dismiss);
  const form = element("form", { method: "dialog" }, element("h2", { id: "dialog-title" }, title), ...content, element("div", { class: "dialog-actions" }, cancel, go));
  const dialog = element("dialog", { class: "dialog", "aria-labelledby": "dialog-title" }, form);
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", async (happening) => {
    happening.preventDefault();
    if (go.disabled) return;
    go.disabled = true;
    try {
      if (await submit(form)) dialog.close();
    } finally {
      go.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A modal form for something that changes the server: `content` says what it will do, `work(form)` does it and answers with the words
 * that say what it did. A refusal stays in the dialog, in the server's words. */
export function changeDialog(title, content, action, work, options = {}) {
  const problem = element("p", { class: "form-error", id: "change-error", role: "alert" });
  return dialogWith(title, [...content, problem], action, async (form) => {
    problem.replaceChildren();
    try {
      const words = await work(form);
      if (words) notify(words);
      return true;
    } catch (refusal) {
      problem.replaceChildren(icon("warn"), element("span", {}, refusal.message));
      form.elements[refusal.field]?.focus?.();
      return false;
    }
  }, options);
}

/** A control of a form with its name, and a word of help below it. */
export const field = (words, control, help = null) => element("label", { class: "field" }, element("span", {}, words), control, help && element("small", { class: "faint" }, help));

/** Ends a sentence about a change: the entry in the audit log that remembers it. */
export const audited = (auditId) => (auditId === null || auditId === undefined ? "" : ` Audit ${auditId}.`);

/** Put these into the address (null: leave out), so that a link shows the same view. */
export function keepInAddress(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value === null) query.delete(name);
    else query.set(name, value);
  }
  history.replaceState(null, "", `${location.pathname}${query.size > 0 ? `?${query}` : ""}${location.hash}`);
}

/** A moving bar while the server works on it, for what is answered only when it is done. */
export function busyWhile(form, work) {
  const bar = element("progress", { "aria-label": "Under way" });
  form.querySelector(".dialog-actions").before(bar);
  return work().finally(() => bar.remove());
}

/** A key for what must not be done twice: sent again with it, it is still the same thing. */
export const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Buttons of class "fold" show and hide what they control. */
export function wireFolds(root = document) {
  for (const button of root.querySelectorAll("button.fold")) {
    const body = document.getElementById(button.getAttribute("aria-controls"));
    body.hidden = button.getAttribute("aria-expanded") !== "true";
    button.addEventListener("click", () => {
      body.hidden = !body.hidden;
      button.setAttribute("aria-expanded", String(!body.hidden));
    });
  }
}
