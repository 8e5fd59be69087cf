/* What is painted: the land below, the emoji above. Both are canvases in a Leaflet pane, a little larger than the window so
 * that a drag needs no painting, in device pixels. Land is painted when the map comes to rest. The emoji layer paints only
 * while something on it changes; sprites are rendered once per emoji and size, because text is dear and images are cheap. */

import { signed } from "./format.js";

const FONT = '"Noto Color Emoji", "Apple Color Emoji", "Segoe UI Emoji", sans-serif';
const WORDS = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const PADDING = 0.25;
const LARGEST = 42;
const CROWDED = 28;
const SMALLEST = 13;
export const LABELLED = 5;
const PLACE_ZOOM = { 1: 2.5, 2: 4, 3: 6 };
const ENTER_MS = 350;
const LEAVE_MS = 1600;
const MOVE_MS = 500;
const CHANGE_SHOWN_MS = 1400;
// Sprites at the bound are all thrown away and made again as needed; a page uses a few hundred.
const MAX_SPRITES = 1500;
// As near to the antimeridian as the land file's grid can tell.
const EDGE = 1e-6;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const REASONS = { left_view: "outside the view", outranked: "outranked", filtered: "filtered out", ended: "ended", removed: "removed", hidden: "no longer visible to you" };

/** A position on the unit square of the Mercator map. */
export function project(latitude, longitude) {
  const sine = Math.sin((Math.max(-85.0511, Math.min(85.0511, latitude)) * Math.PI) / 180);
  return { x: longitude / 360 + 0.5, y: 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI) };
}

/** Area grows with the score, so the side with its square root; where many share the map all are smaller. */
export function sizeOf(score, count) {
  const largest = LARGEST - (LARGEST - CROWDED) * Math.max(0, Math.min(1, (count - 50) / 300));
  return Math.max(SMALLEST, largest * Math.sqrt(Math.max(0, score ?? 0)));
}

const colours = () => {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["water", "land", "coast", "grid", "text", "halo", "accent", "up", "down", "faint", "place"].map((name) => [name, style.getPropertyValue(`--map-${name}`).trim()]));
};

/** A canvas that covers the map and some more, and moves and scales with it until it is painted anew. */
class CanvasLayer extends L.Layer {
  onAdd(map) {
    this.map = map;
    this.canvas = L.DomUtil.create("canvas", "leaflet-zoom-animated leaflet-layer", map.getPane(this.options.pane));
    this.context = this.canvas.getContext("2d");
    this.canvas.setAttribute("aria-hidden", "true");
    this.colours = colours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.colours = colours();
      this.recoloured?.();
      this.paint();
    });
    this.place();
  }

  onRemove() {
    this.canvas.remove();
  }

  getEvents() {
    return {
      moveend: this.place,
      resize: this.place,
      move: this.placeWhenUncovered,
      zoom: () => this.transform(this.map.getCenter(), this.map.getZoom()),
      zoomanim: ({ center, zoom }) => this.transform(center, zoom),
    };
  }

  /** Put the canvas round the window again, at the map's own scale, and paint. */
  place() {
    const size = this.map.getSize();
    const pad = size.multiplyBy(PADDING).round();
    this.ratio = Math.min(2, devicePixelRatio || 1);
    this.size = size.add(pad.multiplyBy(2));
    this.zoom = this.map.getZoom();
    this.world = 256 * 2 ** this.zoom;
    this.corner = this.map.getPixelBounds().min.subtract(pad);
    L.DomUtil.setTransform(this.canvas, this.map.containerPointToLayerPoint(pad.multiplyBy(-1)), 1);
    this.fit();
    this.paint();
  }

  fit() {
    const [width, height] = [Math.round(this.size.x * this.ratio), Math.round(this.size.y * this.ratio)];
    if (this.canvas.width === width && this.canvas.height === height) return;
    Object.assign(this.canvas, { width, height });
    Object.assign(this.canvas.style, { width: `${this.size.x}px`, height: `${this.size.y}px` });
  }

  placeWhenUncovered() {
    if (this.map.getZoom() !== this.zoom) return;
    const seen = this.map.getPixelBounds();
    const far = this.corner.add(this.size);
    if (seen.min.x < this.corner.x || seen.min.y < this.corner.y || seen.max.x > far.x || seen.max.y > far.y) this.place();
  }

  transform(center, zoom) {
    const scale = 2 ** (zoom - this.zoom);
    const pane = L.DomUtil.getPosition(this.map.getPane("mapPane"));
    const topLeft = this.map.project(center, zoom).subtract(this.map.getSize().divideBy(2)).add(pane);
    L.DomUtil.setTransform(this.canvas, this.corner.multiplyBy(scale).subtract(topLeft), scale);
  }

  /** The copies of the world that the canvas shows: for each, where its left edge is on the canvas. */
  * copies() {
    const first = Math.floor((this.corner.x - LARGEST) / this.world);
    const last = Math.floor((this.corner.x + this.size.x + LARGEST) / this.world);
    for (let copy = first; copy <= last; copy++) yield copy * this.world - this.corner.x;
  }

  begin() {
    this.context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.context.clearRect(0, 0, this.size.x, this.size.y);
  }
}

// ---- land ---------------------------------------------------------------------------------------------------------

/** One ring of the land file as unit-square coordinates with its bounding box. */
function unpack(ring, scale) {
  const points = new Float64Array(ring.length);
  const box = { west: Infinity, north: Infinity, east: -Infinity, south: -Infinity };
  let [x, y] = [0, 0];
  for (let i = 0; i < ring.length; i += 2) {
    x += ring[i];
    y += ring[i + 1];
    const at = project(y / scale, x / scale);
    points[i] = at.x;
    points[i + 1] = at.y;
    box.west = Math.min(box.west, at.x);
    box.east = Math.max(box.east, at.x);
    box.north = Math.min(box.north, at.y);
    box.south = Math.max(box.south, at.y);
  }
  return { points, box };
}

export class Land extends CanvasLayer {
  constructor() {
    super();
    L.setOptions(this, { pane: "tilePane" });
    this.rings = [];
    this.places = [];
  }

  load({ scale, rings, places = [] }) {
    this.rings = rings.map((ring) => unpack(ring, scale));
    this.places = places.map(([tier, latitude, longitude, name]) => ({ tier, name, ...project(latitude, longitude) }));
    if (this.map) this.paint();
  }

  paint() {
    this.begin();
    this.paintGrid();
    const taken = [];
    for (const left of this.copies()) this.paintLand(left);
    this.fade();
    for (const left of this.copies()) this.paintPlaces(left, taken);
  }

  /** The coastlines are good to a few kilometres: nearer than that they would lie, so they give way to plain ground. */
  fade() {
    const blank = Math.max(0, Math.min(0.85, (this.zoom - 7) / 3.5));
    Object.assign(this.context, { globalAlpha: blank, fillStyle: this.colours.land });
    this.context.fillRect(0, 0, this.size.x, this.size.y);
    this.context.globalAlpha = 1;
    if (blank > 0) this.paintGrid();
  }

  /** Names of cities for orientation, the large ones first, never one over another. */
  paintPlaces(left, taken) {
    const { context, world, corner, size } = this;
    Object.assign(context, { font: `11px ${WORDS}`, textAlign: "left", textBaseline: "middle", fillStyle: this.colours.place, globalAlpha: 1 });
    for (const place of this.places) {
      if (this.zoom < PLACE_ZOOM[place.tier]) continue;
      const [x, y] = [place.x * world + left, place.y * world - corner.y];
      if (x < 0 || y < 0 || x > size.x || y > size.y) continue;
      const box = [x - 4, y - 8, context.measureText(place.name).width + 14, 16];
      if (taken.some((other) => overlap(other, box))) continue;
      taken.push(box);
      context.fillRect(x - 1.5, y - 1.5, 3, 3);
      context.fillText(place.name, x + 5, y);
    }
  }

  /** Rings cut at the antimeridian are filled whole but outlined without the cut. */
  paintLand(left) {
    const { context } = this;
    const [coast, fill] = [new Path2D(), new Path2D()];
    for (const { points, box } of this.rings) {
      if (!this.shows(box, left)) continue;
      const isCut = box.west < EDGE || box.east > 1 - EDGE;
      this.trace(fill, points, left, false);
      this.trace(coast, points, left, isCut);
    }
    Object.assign(context, { fillStyle: this.colours.land, strokeStyle: this.colours.coast, lineWidth: 1, lineJoin: "round" });
    context.fill(fill, "evenodd");
    context.stroke(coast);
  }

  shows(box, left) {
    const { world, corner, size } = this;
    if ((box.east - box.west) * world < 0.7 && (box.south - box.north) * world < 0.7) return false;
    return box.east * world + left >= 0 && box.west * world + left <= size.x && box.south * world >= corner.y && box.north * world <= corner.y + size.y;
  }

  /** Points closer than most of a pixel to the last one are left out. `open`: not along the antimeridian. */
  trace(path, points, left, open) {
    const [world, top] = [this.world, this.corner.y];
    const onEdge = (unit) => unit < EDGE || unit > 1 - EDGE;
    let [lastX, lastY, lastOnEdge] = [Infinity, Infinity, false];
    for (let i = 0; i < points.length; i += 2) {
      const [x, y] = [points[i] * world + left, points[i + 1] * world - top];
      const edge = open && onEdge(points[i]);
      if (Math.abs(x - lastX) + Math.abs(y - lastY) < 0.8 && edge === lastOnEdge) continue;
      if (lastX === Infinity || (edge && lastOnEdge)) path.moveTo(x, y);
      else path.lineTo(x, y);
      [lastX, lastY, lastOnEdge] = [x, y, edge];
    }
    if (!open) path.closePath();
  }

  /** Meridians and parallels at a step that suits the zoom: the only scale on a map without streets. */
  paintGrid() {
    const step = [30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002].find((degrees) => (degrees / 360) * this.world < 190) ?? 0.001;
    const { context, size, corner, world } = this;
    context.beginPath();
    const first = Math.floor((corner.x / world - 0.5) * 360 / step);
    for (let i = first; ; i++) {
      const x = ((i * step) / 360 + 0.5) * world - corner.x;
      if (x > size.x) break;
      if (x >= 0) context.moveTo(x, 0), context.lineTo(x, size.y);
    }
    for (let latitude = -80; latitude <= 80.0001; latitude = nextParallel(latitude, step, this)) {
      const y = project(latitude, 0).y * world - corner.y;
      if (y >= 0 && y <= size.y) context.moveTo(0, y), context.lineTo(size.x, y);
    }
    context.strokeStyle = this.colours.grid;
    context.lineWidth = 1;
    context.stroke();
  }
}

/** The next parallel northwards that can be on the canvas. */
function nextParallel(latitude, step, { corner, size, world }) {
  const bottom = (corner.y + size.y) / world;
  const south = (Math.atan(Math.sinh(Math.PI * (1 - 2 * bottom))) * 180) / Math.PI;
  const top = (Math.atan(Math.sinh(Math.PI * (1 - (2 * corner.y) / world))) * 180) / Math.PI;
  if (latitude > top) return Infinity;
  return Math.max(Math.round(latitude / step) + 1, Math.floor(south / step)) * step;
}

// ---- emoji --------------------------------------------------------------------------------------------------------

export class EmojiLayer extends CanvasLayer {
  constructor() {
    super();
    L.setOptions(this, { pane: "overlayPane" });
    this.items = new Map();
    this.order = [];
    this.sprites = new Map();
    this.selected = null;
    this.pointed = null;
    this.waiting = 0;
  }

  recoloured() {
    this.sprites.clear();
  }

  /** The ranking as it is now, best first. `left`: Map id -> reason; `quick`: a pan, so no ceremony. */
  show(ranking, { left = new Map(), changes = new Map(), quick = false } = {}) {
    const now = performance.now();
    const present = new Set(ranking.map(({ id }) => id));
    ranking.forEach((event, rank) => this.put(event, { rank, size: sizeOf(event.relevanceScore, ranking.length) }, now, changes.get(event.id)));
    for (const item of this.items.values()) {
      if (!present.has(item.event.id) && !item.leaving) this.dismiss(item, left.get(item.event.id), now, quick);
    }
    this.order = Array.from(this.items.values()).sort((a, b) => b.rank - a.rank);
    this.paint();
  }

  put(event, { rank, size }, now, change) {
    const known = this.items.get(event.id);
    const item = known ?? { size, from: size, alpha: 0, alphaFrom: 0, alphaAt: now, sizeAt: now };
    if (known === undefined || known.leaving) Object.assign(item, { alphaFrom: item.alpha, alphaTo: 1, alphaAt: now, alphaMs: ENTER_MS, leaving: false, words: null });
    if (item.size !== size) Object.assign(item, { from: this.sizeAt(item, now), size, sizeAt: now });
    if (change) Object.assign(item, { words: signed(change), tone: change > 0 ? "up" : "down", wordsAt: now, wordsMs: CHANGE_SHOWN_MS });
    const at = project(event.location.latitude, event.location.longitude);
    this.items.set(event.id, Object.assign(item, { event, rank, x: at.x, y: at.y }));
  }

  dismiss(item, reason, now, quick) {
    const spoken = quick ? null : REASONS[reason] ?? null;
    const ms = spoken === null ? ENTER_MS : LEAVE_MS;
    const words = { words: spoken, tone: "faint", wordsAt: now, wordsMs: ms };
    Object.assign(item, { alphaFrom: item.alpha, alphaTo: 0, alphaAt: now, alphaMs: ms, leaving: true, rank: 1e6 }, words);
  }

  select(id) {
    this.selected = id;
    this.paint();
  }

  point(id) {
    if (this.pointed === id) return;
    this.pointed = id;
    this.paint();
  }

  /** The event under a point of the window, the one in front first. */
  hit(containerPoint) {
    const at = this.map.getPixelBounds().min.add(containerPoint).subtract(this.corner);
    for (let i = this.order.length - 1; i >= 0; i--) {
      const item = this.order[i];
      if (item.leaving) continue;
      for (const left of this.copies()) {
        const reach = Math.max(11, item.size / 2 + 1);
        if (Math.hypot(item.x * this.world + left - at.x, item.y * this.world - this.corner.y - at.y) <= reach) return item.event;
      }
    }
    return null;
  }

  paint() {
    if (this.waiting || !this.map) return;
    this.waiting = requestAnimationFrame((now) => {
      this.waiting = 0;
      if (this.frame(performance.now())) this.paint();
    });
  }

  /** Paint once; answers whether anything is still on its way. */
  frame(now) {
    this.begin();
    this.moving = false;
    const gone = [];
    const lefts = Array.from(this.copies());
    for (const item of this.order) {
      item.alpha = this.alphaAt(item, now);
      if (item.leaving && item.alpha === 0) gone.push(item);
      else for (const left of lefts) this.paintItem(item, left, now);
    }
    for (const left of lefts) this.paintWords(left, now);
    this.context.globalAlpha = 1;
    for (const item of gone) this.items.delete(item.event.id);
    if (gone.length > 0) this.order = this.order.filter((item) => !(item.leaving && item.alpha === 0));
    return this.moving;
  }

  /** 0..1 of the way from `at` over `ms`, eased; notes that another frame is needed. */
  way(at, ms, now) {
    if (calm.matches || now - at >= ms) return 1;
    this.moving = true;
    const t = Math.max(0, (now - at) / ms);
    return 1 - (1 - t) ** 3;
  }

  alphaAt(item, now) {
    if (item.leaving && item.words) {
      // Words have to be read: stay first, then go.
      const t = calm.matches && now - item.alphaAt >= item.alphaMs ? 1 : Math.min(1, (now - item.alphaAt) / item.alphaMs);
      if (t < 1) this.moving = true;
      return t === 1 ? 0 : item.alphaFrom * Math.min(1, 2 * (1 - t)) * 0.75;
    }
    return item.alphaFrom + (item.alphaTo - item.alphaFrom) * this.way(item.alphaAt, item.alphaMs, now);
  }

  sizeAt(item, now) {
    return item.from + (item.size - item.from) * this.way(item.sizeAt, MOVE_MS, now);
  }

  paintItem(item, left, now) {
    const [x, y] = [item.x * this.world + left, item.y * this.world - this.corner.y];
    if (x < -LARGEST || y < -LARGEST || x > this.size.x + LARGEST || y > this.size.y + LARGEST) return;
    const size = this.sizeAt(item, now);
    const front = item.event.id === this.selected || item.event.id === this.pointed;
    if (front) this.paintHalo(x, y, size, item.event.id === this.selected);
    const sprite = this.sprite(item.event.emoji || "📍", Math.round(size * (front ? 1.15 : 1)));
    this.context.globalAlpha = item.alpha * (item.event.status === "PENDING" ? 0.62 : 1);
    const side = sprite.width / this.ratio;
    this.context.drawImage(sprite, x - side / 2, y - side / 2, side, side);
  }

  paintHalo(x, y, size, chosen) {
    const { context } = this;
    context.globalAlpha = 1;
    context.beginPath();
    context.arc(x, y, size * 0.72 + 3, 0, 2 * Math.PI);
    context.fillStyle = this.colours.halo;
    context.fill();
    context.strokeStyle = this.colours.accent;
    context.lineWidth = chosen ? 2.5 : 1;
    context.stroke();
  }

  sprite(emoji, size) {
    const key = `${size} ${this.ratio} ${emoji}`;
    const known = this.sprites.get(key);
    if (known) return known;
    if (this.sprites.size >= MAX_SPRITES) this.sprites.clear();
    const sprite = document.createElement("canvas");
    sprite.width = sprite.height = Math.ceil(size * 1.35 * this.ratio);
    const context = sprite.getContext("2d");
    Object.assign(context, { font: `${size * this.ratio}px ${FONT}`, textAlign: "center", textBaseline: "middle", fillStyle: this.colours.text });
    context.fillText(emoji, sprite.width / 2, sprite.height / 2 + size * this.ratio * 0.06);
    this.sprites.set(key, sprite);
    return sprite;
  }

  /** Names of the best, of the chosen and of the one pointed at; then what has just changed. */
  paintWords(left, now) {
    const taken = this.order.filter(({ rank }) => rank < LABELLED).map((item) => this.boxOf(item, left));
    for (let i = this.order.length - 1; i >= 0; i--) {
      const item = this.order[i];
      const chosen = item.event.id === this.selected || item.event.id === this.pointed;
      if (!item.leaving && (item.rank < LABELLED || chosen)) this.paintName(item, left, taken, chosen);
    }
    for (const item of this.order) if (item.words) this.paintChange(item, left, now);
  }

  /** Where an emoji is, a little smaller than it looks. */
  boxOf({ x, y, size }, left) {
    return [x * this.world + left - size * 0.4, y * this.world - this.corner.y - size * 0.4, size * 0.8, size * 0.8];
  }

  paintName(item, left, taken, chosen) {
    const { context } = this;
    const [x, y] = [item.x * this.world + left, item.y * this.world - this.corner.y];
    context.font = `600 12px ${WORDS}`;
    const title = shorten(item.event.title ?? "", 30);
    const [width, gap] = [context.measureText(title).width, item.size / 2 + 5];
    const places = [[x - width / 2, y + gap + 6], [x + gap, y], [x - gap - width, y], [x - width / 2, y - gap - 6]];
    const free = places.find(([px, py]) => !taken.some((box) => overlap(box, [px, py - 8, width, 16])));
    if (free === undefined && !chosen) return;
    const [px, py] = free ?? places[0];
    taken.push([px, py - 8, width, 16]);
    context.globalAlpha = item.alpha;
    this.haloText(title, px, py, this.colours.text, "left");
  }

  paintChange(item, left, now) {
    const age = (now - item.wordsAt) / item.wordsMs;
    if (age >= 1) return void (item.words = null);
    this.moving = true;
    const [x, y] = [item.x * this.world + left, item.y * this.world - this.corner.y];
    if (x < 0 || y < 0 || x > this.size.x || y > this.size.y) return;
    const lift = calm.matches ? 0 : 8 * (1 - (1 - age) ** 3);
    this.context.globalAlpha = Math.min(1, 3 * (1 - age));
    this.context.font = `600 11px ${WORDS}`;
    this.haloText(item.words, x, y - item.size / 2 - 6 - lift, this.colours[item.tone], "center");
  }

  haloText(text, x, y, colour, align) {
    const { context } = this;
    Object.assign(context, { textAlign: align, textBaseline: "middle", lineJoin: "round", lineWidth: 3.5, strokeStyle: this.colours.halo, fillStyle: colour });
    context.strokeText(text, x, y);
    context.fillText(text, x, y);
  }
}

const shorten = (text, length) => (text.length <= length ? text : `${text.slice(0, length - 1).trimEnd()}…`);

const overlap = ([ax, ay, aw, ah], [bx, by, bw, bh]) => ax < bx + bw && bx < ax + aw && ay < by + bh && by < ay + ah;
