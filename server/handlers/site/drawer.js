/* A panel at the side (on a phone: a sheet from the bottom) that tells more about one thing of a page. It does not lock the page:
 * tables behind it go on living. Escape and its button close it; the focus goes back to where it came from. */

import { element, icon, setText } from "./format.js";

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
