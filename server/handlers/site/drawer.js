/* A panel at the side (on a phone: a sheet from the bottom) that tells more about one thing of a page. It does not lock the page:
 * tables behind it go on living. Escape and its button close it; the focus goes back to where it came from. */

import { badge, count, element, icon, number, setText } from "./format.js";

export class Drawer {
  /** `closed` is called when the person closes it. */
  constructor(closed) {
    this.closed = closed;
    this.title = element("h2", { id: "drawer-title", tabindex: "-1" });
    this.about = element("p", { class: "faint" });
    this.body = element("div", { class: "panel-body" });
    const close = element("button", { class: "quiet only-icon", type: "button", "aria-label": "Close the details", onclick: () => this.leave() }, icon("close"));
    this.node = element("aside", { class: "panel drawer", id: "drawer", "aria-labelledby": "drawer-title", hidden: true },
      element("div", { class: "panel-head drawer-head" }, element("div", { class: "card-title" }, this.title, this.about), close), this.body);
    document.body.append(this.node);
    addEventListener("keydown", ({ key }) => key === "Escape" && !this.node.hidden && document.querySelector("dialog[open]") === null && this.leave());
  }

  /** Show this; the same thing shown again keeps focus and scroll. */
  open(title, about, ...content) {
    if (this.node.hidden) this.returnTo = document.activeElement;
    setText(this.title, title);
    setText(this.about, about);
    this.body.replaceChildren(...content);
    this.node.hidden = false;
    keepingPlace(this.returnTo, () => (document.body.dataset.drawer = "open"));
    this.body.scrollTop = 0;
    this.title.focus({ preventScroll: true });
  }

  hide() {
    this.node.hidden = true;
    keepingPlace(this.returnTo, () => delete document.body.dataset.drawer);
    this.body.replaceChildren();
  }

  leave() {
    this.hide();
    if (this.returnTo?.isConnected) this.returnTo.focus({ preventScroll: true });
    this.returnTo = null;
    this.closed();
  }
}

/** The page gets narrower or wider beside the drawer: what the person has clicked stays where it is on the screen. */
function keepingPlace(node, change) {
  const before = node?.closest?.("main") ? node.getBoundingClientRect().top : null;
  change();
  if (before !== null && node.isConnected) scrollBy({ top: node.getBoundingClientRect().top - before, behavior: "instant" });
}

/** The nodes for what a verification found: {ok, checks: [{name, meaning, ok, failed, examples}]}, failed ones first. `command` does the same. */
export function checksDetail({ ok, checks }, command) {
  const failed = checks.filter((check) => !check.ok);
  const verdict = ok ? badge("completed", "check", `all ${number(checks.length)} checks hold`) : badge("failed", "critical", `${count(failed.length, "check")} of ${number(checks.length)} failed`);
  const line = (check) => element("li", { "data-status": check.ok ? "completed" : "failed" }, icon(check.ok ? "check" : "warn"), element("div", {}, element("b", {}, check.name), element("p", { class: "faint" }, check.meaning), ...examples(check)));
  return [element("div", { class: "job-progress" }, verdict), element("ul", { class: "checks" }, ...[...failed, ...checks.filter((check) => check.ok)].map(line)),
    element("p", { class: "faint" }, "The same on the command line: ", element("code", {}, command), ".")];
}

function examples({ ok, failed, examples: named }) {
  if (ok) return [];
  return [element("p", { class: "bad" }, `${count(failed, "time")}${named.length < failed ? `, of which ${number(named.length)} are named` : ""}:`), element("ul", { class: "examples" }, ...named.map((text) => element("li", {}, text)))];
}
