/* What both map adapters share: which marker is added, changed or taken away for each change of a view, and what a map's bounds
 * are as a viewport. No map library, no DOM: `hands` does the work.
 *
 *   hands: { add(event) -> marker, update(marker, event, before), remove(marker), fade?(marker, reason) }
 *
 * In the order of the protocol: what goes is removed, then what comes is added, then what stays is updated in place, so that an
 * open popup stays open. A selected marker is kept when its event only leaves the view (it is out of the viewport, outranked,
 * filtered, has ended): it fades, follows again when its event comes back, and goes when something else is selected. When the
 * event was removed or may not be seen any more its marker goes at once.
 */

const GONE_FOR_GOOD = new Set(["removed", "hidden"]);

export class Markers {
  #hands;
  #markers = new Map();
  #faded = new Set();
  #selected = null;
  #stop;

  constructor(client, hands) {
    this.#hands = hands;
    for (const event of client.events.values()) this.#put(event);
    this.#stop = client.on("change", (change) => this.#changed(change));
  }

  get(id) {
    return this.#markers.get(id);
  }

  get size() {
    return this.#markers.size;
  }

  /** The id of the selected event, or null. */
  get selected() {
    return this.#selected;
  }

  /** Is its marker only kept because it is selected? */
  faded(id) {
    return this.#faded.has(id);
  }

  /** Keep this one; null: none. Of the one before, what was only kept for being selected goes. */
  select(id) {
    const before = this.#selected;
    this.#selected = id !== null && this.#markers.has(id) ? id : null;
    if (before !== this.#selected && this.#faded.has(before)) this.#take(before);
  }

  /** Follow no longer; all markers go. */
  stop() {
    this.#stop();
    this.#selected = null;
    for (const id of [...this.#markers.keys()]) this.#take(id);
  }

  /** Every marker with its id. */
  [Symbol.iterator]() {
    return this.#markers[Symbol.iterator]();
  }

  #changed({ creates, updates, deletes, reasons, before }) {
    for (const id of deletes) this.#leave(id, reasons[id]);
    // With `fields: "delta"` an update may be a part of its event.
    for (const event of [...creates, ...updates]) this.#put({ ...before.get(event.id), ...event }, before.get(event.id));
  }

  #leave(id, reason) {
    const marker = this.#markers.get(id);
    if (marker === undefined) return;
    if (id !== this.#selected || GONE_FOR_GOOD.has(reason)) return this.#take(id);
    this.#faded.add(id);
    this.#hands.fade?.(marker, reason);
  }

  #put(event, before) {
    const marker = this.#markers.get(event.id);
    this.#faded.delete(event.id);
    if (marker === undefined) this.#markers.set(event.id, this.#hands.add(event));
    else this.#hands.update(marker, event, before);
  }

  #take(id) {
    const marker = this.#markers.get(id);
    this.#markers.delete(id);
    this.#faded.delete(id);
    if (id === this.#selected) this.#selected = null;
    this.#hands.remove(marker);
  }
}

/** A map's bounds, which may lie beyond the antimeridian or show the world more than once, as a viewport of the protocol. */
export function viewportOf({ west, south, east, north }) {
  const wrap = (longitude) => ((((longitude + 180) % 360) + 360) % 360) - 180;
  const whole = east - west >= 360;
  const box = { west: whole ? -180 : wrap(west), south: Math.max(-90, south), east: whole ? 180 : wrap(east), north: Math.min(90, north) };
  return box.west === box.east ? { ...box, west: -180, east: 180 } : box;
}

/** Where a map looks: Leaflet's and MapLibre's have the same words for it. */
function boundsOf(map) {
  const box = map.getBounds();
  return { west: box.getWest(), south: box.getSouth(), east: box.getEast(), north: box.getNorth() };
}

/** Tell the client where the map looks, now and whenever it has come to rest. Returns a function that ends it. */
export function followMap(client, map, { onRefusal = () => {} } = {}) {
  const look = () => client.setViewport(viewportOf(boundsOf(map))).catch(onRefusal);
  map.on("moveend", look);
  look();
  return () => map.off("moveend", look);
}
