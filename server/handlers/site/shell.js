/* The shell of every page: navigation, sign-in by pasting a token, the connection's state in words, notices, and calls of the
 * documented HTTP API. The token lives in this tab's session storage and travels in a header or a message, never in a URL. */

import { element, icon, setText, timeOfDay } from "./format.js";

const TOKEN_KEY = "batchcast-token";
const NOTICE_MS = 7_000;
const MAX_NOTICES = 4;
const PAGES = [{ path: "/", name: "Map" }];

export const token = {
  read: () => sessionStorage.getItem(TOKEN_KEY),
  keep: (value) => sessionStorage.setItem(TOKEN_KEY, value),
  forget: () => sessionStorage.removeItem(TOKEN_KEY),
};

/** Where this server's WebSocket is: same host, the port that the page was served with. */
export function webSocketUrl(path = "/ws") {
  const port = document.querySelector('meta[name="batchcast-ws"]')?.content;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${location.hostname}:${port}${path}`;
}

/** Call the HTTP API. Resolves with the body, rejects with an Error whose message is the server's own sentence. */
export async function api(path, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (token.read()) headers.Authorization = `Bearer ${token.read()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  const refusal = new Error(content.error?.message ?? `${method} ${path} was answered with ${answer.status}.`);
  throw Object.assign(refusal, { status: answer.status, code: content.error?.code });
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
    const signedIn = client.roles.length > 0;
    setText(button.querySelector("span"), signedIn ? `${client.sub ?? "signed in"} · ${client.roles.join(", ")}` : "Sign in");
    button.setAttribute("aria-label", signedIn ? `Signed in as ${client.sub}, ${client.roles.join(", ")}. Sign out…` : "Sign in");
    changed(client.roles);
  };
  client.on("authenticated", draw);
  client.on("signed-out", ({ reason }) => {
    token.forget();
    draw();
    if (reason !== "asked") notify(`Signed out: ${reason}`, { error: true });
  });
  button.addEventListener("click", () => (client.roles.length > 0 ? askSignOut(client) : askToken(client)));
  draw();
}

function askToken(client) {
  const field = element("input", { type: "password", name: "token", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-help token-error" });
  const problem = element("p", { class: "form-error", id: "token-error", role: "alert" });
  const dialog = dialogWith("Sign in", [
    element("label", { class: "field" }, element("span", {}, "Token"), field),
    element("p", { class: "faint", id: "token-help" }, "Paste a token of this server. The admin’s is in ", element("code", {}, "DATA_DIR/admin.token"), "; it stays in this tab and is forgotten with it."),
    problem,
  ], "Sign in", async () => {
    const value = field.value.trim();
    setText(problem, "");
    try {
      await client.signIn(value);
    } catch (refusal) {
      setText(problem, refusal.message);
      field.focus();
      return false;
    }
    token.keep(value);
    notify(`Signed in as ${client.sub ?? "?"} (${client.roles.join(", ")}).`);
    return true;
  });
  field.focus();
  return dialog;
}

function askSignOut(client) {
  const words = `You are ${client.sub ?? "signed in"} with the roles ${client.roles.join(", ")}. Signing out forgets the token in this tab.`;
  dialogWith("Sign out", [element("p", {}, words)], "Sign out", async () => {
    client.signOut();
    return true;
  });
}

/** A modal form. `submit` answers whether the dialog may close; while it works the button can't be pressed twice. */
export function dialogWith(title, content, action, submit) {
  const go = element("button", { class: "primary", type: "submit" }, action);
  const cancel = element("button", { type: "button" }, "Cancel");
  const form = element("form", { method: "dialog" }, element("h2", { id: "dialog-title" }, title), ...content, element("div", { class: "dialog-actions" }, cancel, go));
  const dialog = element("dialog", { class: "dialog", "aria-labelledby": "dialog-title" }, form);
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", async (happening) => {
    happening.preventDefault();
    if (go.disabled) return;
    go.disabled = true;
    if (await submit()) dialog.close();
    go.disabled = false;
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

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
