/* Where far more is in view than is shown: quiet bubbles with a count, below the events. One a cell, at the middle of what lies in
 * it or, when emoji would hide it there, right beside; and only where there is more than the map shows already. A click or Enter zooms into the cell. The mouse's way to them leads
 * over the emoji (map.js asks `hit`), for these lie above; the keyboard's is one stop for Tab, at the fullest, then the arrows. */

import { LABELLED, project, sizeOf } from "./canvas.js";
import { count, element, number, setText } from "./format.js";

const SMALLEST = 24;
const DIGIT = 7;
// For a finger a bubble is at least so wide.
const REACH = matchMedia("(pointer: coarse)").matches ? 22 : 12;
// Where a bubble may stand, from the middle outwards; labels of events are above, below and beside, so corners come first.
const PLACES = [[0, 0], ...[34, 46, 58, 72].flatMap((far) => [0.25, 0.75, 1.25, 1.75, 0, 1, 0.5, 1.5].map((turn) => [far * Math.cos(turn * Math.PI), far * Math.sin(turn * Math.PI)]))];
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** Area grows with the order of magnitude, and the number fits. */
export const bubbleSize = (events) => Math.round(Math.max(SMALLEST + 7 * Math.log10(events), DIGIT * number(events).length + 14));

/** What a cell of the slippy map, level/x/y, spans. */
export function cellBounds(cell) {
  const [level, x, y] = cell.split("/").map(Number);
  const side = 2 ** level;
  const latitude = (row) => (Math.atan(Math.sinh(Math.PI * (1 - (2 * row) / side))) * 180) / Math.PI;
  return { west: (x / side) * 360 - 180, east: ((x + 1) / side) * 360 - 180, north: latitude(y), south: latitude(y + 1) };
}

/** How many of the events held lie in each of the cells. */
export function shownIn(clusters, events) {
  const shown = new Map(clusters.map(({ cell }) => [cell, 0]));
  const level = Number(clusters[0]?.cell.split("/")[0] ?? 0);
  const [side, last] = [2 ** level, 2 ** level - 1];
  for (const { location } of events) {
    const at = project(location.latitude, location.longitude);
    const cell = `${level}/${Math.min(last, Math.floor(at.x * side))}/${Math.max(0, Math.min(last, Math.floor(at.y * side)))}`;
    if (shown.has(cell)) shown.set(cell, shown.get(cell) + 1);
  }
  return shown;
}

/** Where canvas.js may put the name of an event. */
function names(x, y, side) {
  const [beside, below] = [[15, 45], [-25, 0, 25]].map((steps, i) => steps.flatMap((far) => [-1, 1].map((way) => (i === 0 ? [way * (side + far), 0] : [far, way * (side + 11)]))));
  return [...beside, ...below].map(([right, down]) => ({ x: x + right, y: y + down, reach: 9 }));
}

export class Bubbles extends L.Layer {
  constructor({ chosen }) {
    super();
    this.chosen = chosen;
    this.bubbles = new Map();
    this.events = [];
    this.active = null;
    this.pointed = null;
  }

  onAdd(map) {
    this.map = map;
    const pane = map.createPane("clusters");
    pane.style.zIndex = 350;
    this.node = element("div", { class: "clusters leaflet-zoom-hide", role: "group", "aria-label": "Places with more events than are shown" });
    this.node.hidden = true;
    pane.append(this.node);
    this.node.addEventListener("keydown", (happening) => this.key(happening));
    this.node.addEventListener("focusin", ({ target }) => this.activate(target.dataset.cell));
    this.node.addEventListener("click", ({ target }) => this.choose(target.closest("button")?.dataset.cell));
    // A click on the map is something else.
    L.DomEvent.disableClickPropagation(this.node);
  }

  getEvents() {
    return { moveend: this.place, viewreset: this.place, resize: this.place };
  }

  /** Show these; `events` are those held, which are on the map themselves. Answers how many there are in all. */
  show(clusters, events) {
    this.events = events;
    const shown = shownIn(clusters, events);
    const more = clusters.filter((one) => one.count > shown.get(one.cell));
    const named = new Set(more.map(({ cell }) => cell));
    for (const [cell, bubble] of this.bubbles) if (!named.has(cell)) this.remove(cell, bubble);
    for (const one of more) this.put(one, shown.get(one.cell));
    this.inOrder(more);
    this.node.hidden = more.length === 0;
    if (!named.has(this.active)) this.activate(more[0]?.cell ?? null);
    this.place({ keep: true });
    this.keepFocus();
    return clusters.reduce((sum, one) => sum + one.count, 0);
  }

  /** As one reads: so a button that is there already never moves, and what has the focus keeps it. */
  inOrder(clusters) {
    const place = ({ cell }) => cell.split("/").map(Number);
    const rows = [...clusters].sort((one, other) => place(one)[2] - place(other)[2] || place(one)[1] - place(other)[1]);
    let next = this.node.firstElementChild;
    for (const { cell } of rows) {
      const { button } = this.bubbles.get(cell);
      if (button === next) next = next.nextElementSibling;
      else this.node.insertBefore(button, next);
    }
  }

  put(cluster, shown) {
    const bubble = this.bubbles.get(cluster.cell) ?? this.make(cluster.cell);
    const size = bubbleSize(cluster.count);
    Object.assign(bubble, { ...cluster.location, size });
    setText(bubble.button, number(cluster.count));
    const words = `${count(cluster.count, "event")} here, ${shown === 0 ? "none" : number(shown)} shown. Zoom in.`;
    if (bubble.button.ariaLabel !== words) bubble.button.ariaLabel = words;
    for (const node of [bubble.button, ...bubble.copies]) Object.assign(node.style, { width: `${size}px`, height: `${size}px`, margin: `${-size / 2}px` });
    for (const copy of bubble.copies) setText(copy, number(cluster.count));
  }

  make(cell) {
    const bubble = { button: element("button", { class: "bubble", type: "button", "data-cell": cell, tabindex: "-1" }), copies: [] };
    this.bubbles.set(cell, bubble);
    return bubble;
  }

  remove(cell, { button, copies }) {
    this.wasFocused ||= button === document.activeElement;
    for (const node of [button, ...copies]) node.remove();
    this.bubbles.delete(cell);
    if (this.pointed === cell) this.pointed = null;
  }

  /** Put every bubble in its place, and copies of it where the window shows the world more than once. */
  place({ keep = false } = {}) {
    if (!this.map) return;
    const [bounds, middle] = [this.map.getBounds().pad(0.1), this.map.getCenter().lng];
    const taken = this.obstacles(middle);
    for (const bubble of this.bubbles.values()) {
      const nearest = Math.round((middle - bubble.longitude) / 360);
      const turns = [nearest - 2, nearest - 1, nearest + 1, nearest + 2].filter((turn) => bounds.getWest() <= bubble.longitude + 360 * turn && bubble.longitude + 360 * turn <= bounds.getEast());
      while (bubble.copies.length > turns.length) bubble.copies.pop().remove();
      while (bubble.copies.length < turns.length) bubble.copies.push(this.copy(bubble));
      const at = (turn) => this.map.latLngToLayerPoint([bubble.latitude, bubble.longitude + 360 * turn]);
      bubble.offset = this.freePlace(keep ? bubble : { size: bubble.size }, at(nearest), taken);
      [nearest, ...turns].forEach((turn, i) => L.DomUtil.setPosition(i === 0 ? bubble.button : bubble.copies[i - 1], at(turn).add(bubble.offset)));
    }
  }

  /** What a bubble must not be hidden by, as circles: the emoji, and where the names of the best may be. */
  obstacles(middle) {
    return this.events.flatMap(({ location: { latitude, longitude }, relevanceScore }, rank) => {
      const { x, y } = this.map.latLngToLayerPoint([latitude, longitude + 360 * Math.round((middle - longitude) / 360)]);
      const reach = sizeOf(relevanceScore, this.events.length) / 2;
      return [{ x, y, reach }, ...(rank < LABELLED ? names(x, y, reach) : [])];
    });
  }

  /** Where it was, when that is given and free, so that a batch moves none without need; else the nearest free place. It is taken then. */
  freePlace({ offset = [0, 0], size }, at, taken) {
    const free = ([x, y]) => taken.every((other) => Math.hypot(at.x + x - other.x, at.y + y - other.y) >= other.reach + size / 2 - 3);
    const chosen = [offset, ...PLACES].find(free) ?? PLACES[0];
    taken.push({ x: at.x + chosen[0], y: at.y + chosen[1], reach: size / 2 });
    return chosen;
  }

  copy({ button }) {
    const copy = element("span", { class: "bubble leaflet-zoom-hide", "aria-hidden": "true" }, button.textContent);
    copy.style.cssText = button.style.cssText;
    button.parentElement.parentElement.append(copy);
    return copy;
  }

  /** The cell of the bubble under a point of the window, or null. */
  hit(containerPoint) {
    const at = this.map.containerPointToLayerPoint(containerPoint);
    const over = ([, { button, copies, size }]) => [button, ...copies].some((node) => L.DomUtil.getPosition(node).distanceTo(at) <= Math.max(size / 2, REACH));
    return Array.from(this.bubbles).find(over)?.[0] ?? null;
  }

  point(cell) {
    if (cell === this.pointed) return;
    this.bubbles.get(this.pointed)?.button.classList.remove("pointed");
    this.bubbles.get(cell)?.button.classList.add("pointed");
    this.pointed = cell;
  }

  choose(cell) {
    if (cell === undefined || cell === null) return;
    this.wasFocused = this.node.contains(document.activeElement);
    this.chosen(cell, this.bubbles.get(cell));
  }

  // ---- the keyboard -----------------------------------------------------------------------------------------------

  key(happening) {
    const cells = Array.from(this.node.querySelectorAll("button"), ({ dataset }) => dataset.cell);
    const places = { Home: 0, End: cells.length - 1 };
    const next = places[happening.key] ?? (happening.key in STEPS ? cells.indexOf(this.active) + STEPS[happening.key] : null);
    if (next === null) return;
    this.bubbles.get(cells[Math.max(0, Math.min(cells.length - 1, next))]).button.focus({ preventScroll: true });
    happening.preventDefault();
    // The map would pan.
    happening.stopPropagation();
  }

  /** The one that Tab comes to. */
  activate(cell) {
    this.bubbles.get(this.active)?.button.setAttribute("tabindex", "-1");
    this.active = cell ?? null;
    this.bubbles.get(this.active)?.button.setAttribute("tabindex", "0");
  }

  /** Who zoomed in by the keyboard goes on there: at the fullest bubble, or on the map when there is none any more. */
  keepFocus() {
    if (!this.wasFocused || document.activeElement !== document.body) return;
    this.wasFocused = false;
    (this.bubbles.get(this.active)?.button ?? this.map.getContainer()).focus({ preventScroll: true });
  }
}
