/* The live map: puts the parts of the page together. Leaflet moves the map, canvas.js paints it, batchcast.js keeps the events true,
 * the panels show them in words. This file holds what belongs to none of them: viewport, selection, changes. */

import { Batches } from "./batches.js";
import { EmojiLayer, Land } from "./canvas.js";
import { Bubbles, cellBounds } from "./clusters.js";
import { Card } from "./explain.js";
import { Filters } from "./filters.js";
import { Departed, ListState, RankedList } from "./panels.js";
import { drawPages, loadIcons, notify, pageClient, watchAccount, watchConnection, wireFolds } from "./shell.js";
import { WhatIf } from "./whatif.js";

const HOME = { center: [24, 8], zoom: 2.5 };
const TOP = 85.06;
const REST_MS = 150;
const RETRY_MS = 1000;
// A change of score smaller than what two digits can show is not worth a word.
const SMALLEST_CHANGE = 0.005;
const PHONE = matchMedia("(max-width: 760px)");
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

// ---- the map ------------------------------------------------------------------------------------------------------

/** The least zoom at which the world is as high as the window. */
const leastZoom = (height) => Math.ceil(Math.log2(Math.max(256, height) / 256) * 2) / 2;

function makeMap() {
  const node = document.getElementById("map");
  const map = L.map(node, {
    zoomControl: false, attributionControl: false, worldCopyJump: true, zoomSnap: 0.5, zoomDelta: 1, wheelPxPerZoomLevel: 100, maxZoom: 18,
    minZoom: leastZoom(node.clientHeight), maxBounds: [[-TOP, -Infinity], [TOP, Infinity]], maxBoundsViscosity: 1,
    zoomAnimation: !calm, fadeAnimation: !calm, inertia: !calm, markerZoomAnimation: false,
  });
  L.control.attribution({ position: "bottomright", prefix: '<a href="https://leafletjs.com">Leaflet</a>' }).addAttribution("Land: Natural Earth").addTo(map);
  L.control.scale({ position: "bottomright", maxWidth: 120 }).addTo(map);
  L.control.zoom({ position: "bottomright" }).addTo(map);
  const linked = placeInAddress();
  map.setView(linked?.center ?? HOME.center, linked?.zoom ?? Math.max(HOME.zoom, map.getMinZoom()));
  map.on("resize", () => map.setMinZoom(leastZoom(map.getSize().y)));
  return map;
}

/** The place that the address names (#zoom/latitude/longitude), or null. */
function placeInAddress() {
  const parts = location.hash.slice(1).split("/").map(Number);
  return parts.length === 3 && parts.every(Number.isFinite) ? { zoom: parts[0], center: parts.slice(1) } : null;
}

const wrap = (longitude) => (longitude >= -180 && longitude <= 180 ? longitude : ((((longitude + 180) % 360) + 360) % 360) - 180);

/** What the window shows, as the protocol wants it. */
function viewportOf(map) {
  const bounds = map.getBounds();
  const wide = bounds.getEast() - bounds.getWest() >= 360;
  const round = (degrees) => Math.round(degrees * 1e6) / 1e6;
  return {
    west: wide ? -180 : round(wrap(bounds.getWest())),
    south: round(Math.max(-TOP, Math.min(TOP - 0.01, bounds.getSouth()))),
    east: wide ? 180 : round(wrap(bounds.getEast())),
    north: round(Math.min(TOP, Math.max(0.01 - TOP, bounds.getNorth()))),
  };
}

function keepPlaceInAddress(map) {
  const { lat, lng } = map.getCenter();
  const hash = `#${Number(map.getZoom().toFixed(1))}/${lat.toFixed(4)}/${wrap(lng).toFixed(4)}`;
  history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
}

/** Best first: as the server orders them. */
const rank = (events) => Array.from(events.values()).sort((a, b) => (b.relevanceScore ?? 0) - (a.relevanceScore ?? 0) || String(a.start).localeCompare(String(b.start)) || (a.id < b.id ? -1 : 1));

// ---- the page -----------------------------------------------------------------------------------------------------

class Page {
  constructor() {
    this.map = makeMap();
    this.land = new Land().addTo(this.map);
    this.bubbles = new Bubbles({ chosen: (cell, at) => this.zoomInto(cell, at) }).addTo(this.map);
    this.emoji = new EmojiLayer().addTo(this.map);
    this.circle = null;
    this.filters = new Filters({ changed: () => this.filtersChanged(), centre: () => this.centre() });
    this.client = pageClient({ maxEvents: this.filters.max, filters: this.filters.value, clusters: true });
    this.clusters = [];
    this.max = this.filters.max;
    this.list = new RankedList({ chosen: (id) => this.choose(id), pointed: (id) => this.emoji.point(id) });
    this.departed = new Departed({ chosen: (id, event) => this.choose(id, event) });
    this.state = new ListState({ clearFilters: () => this.filters.clear(), showWorld: () => this.map.setView(HOME.center, this.map.getMinZoom()) });
    this.card = new Card({ client: this.client, closed: () => this.cardClosed() });
    this.batches = new Batches(this.client);
    this.whatIf = new WhatIf();
    this.wire();
    this.drawCircle();
  }

  start() {
    loadIcons().catch(() => undefined);
    drawPages();
    wireFolds();
    watchConnection(this.client);
    watchAccount(this.client, (roles) => {
      this.batches.roles(roles);
      this.whatIf.roles(roles);
    });
    fetch("/site/land.json").then((answer) => answer.json()).then((land) => this.land.load(land)).catch(() => notify("The coastlines could not be loaded; the events are all here.", { error: true }));
    this.client.start(viewportOf(this.map));
  }

  wire() {
    const { client, map } = this;
    client.on("change", (change) => this.changed(change));
    client.on("digest", (result) => this.batches.inStep(result));
    client.on("state", () => this.drawState());
    client.on("registered", () => {
      this.batches.readStats();
      this.card.refresh();
    });
    client.on("problem", ({ code, message }) => code !== "resync" && notify(message, { error: true }));
    client.on("state", () => this.batches.drawFlush());
    map.on("moveend", () => this.moved());
    addEventListener("hashchange", () => this.followAddress());
    map.on("click", ({ containerPoint }) => this.clicked(containerPoint));
    map.on("mousemove", ({ containerPoint }) => this.hovered(containerPoint));
    map.on("mouseout", () => {
      this.emoji.point(null);
      this.bubbles.point(null);
    });
    document.querySelector(".tabs").addEventListener("click", ({ target }) => this.openSheet(target.closest("button")?.dataset.opens));
    addEventListener("keydown", ({ key, target }) => key === "Escape" && !target.closest("dialog") && this.escape());
  }

  // ---- what is shown ----------------------------------------------------------------------------------------------

  changed({ type, creates, updates, deletes, reasons, before, message }) {
    const { events } = this.client;
    // A pan or a new filter answers what the person did: no ceremony, nothing "left".
    const quick = message.ref !== undefined || type === "replace-all" || !this.settled;
    this.settled = true;
    const changes = quick ? new Map() : scoreChanges([...creates, ...updates], before);
    const ranking = rank(events);
    this.emoji.show(ranking, { left: new Map(Object.entries(reasons)), changes, quick });
    this.clusters = message.clusters ?? this.clusters;
    this.list.total = this.bubbles.show(this.clusters, ranking);
    this.list.show(ranking, changes, { now: quick || type !== "batch-update" });
    this.filters.offer(creates);
    if (quick) this.departed.clear();
    else this.departed.add(deletes.map((id) => before.get(id)).filter(Boolean), reasons);
    this.departed.returned(events);
    // A batch that only counts anew brings no event.
    if (type === "batch-update" && creates.length + updates.length + deletes.length > 0) this.batches.landed({ creates, updates, deletes, before }, events);
    this.refreshCard({ creates, updates, deletes, quick, type });
    this.drawState();
  }

  /** The card follows its event: after a batch all terms may have moved. */
  refreshCard({ creates, updates, deletes, quick, type }) {
    const { id } = this.card;
    if (id === null) return;
    const touched = deletes.includes(id) || [...creates, ...updates].some((event) => event.id === id);
    if (touched || quick || type === "batch-update") this.card.refresh(this.client.events.get(id) ?? this.card.event);
  }

  drawState() {
    const { client, filters } = this;
    if (client.events.size > 0) return this.state.show(null);
    if (!this.settled) return this.state.show(client.state.name === "lost" || client.state.name === "failed" ? "lost" : "loading");
    this.state.show(filters.value.length > 0 ? "filtered" : "empty");
  }

  // ---- what the person does ---------------------------------------------------------------------------------------

  centre() {
    const { lat, lng } = this.map.getCenter();
    return { latitude: Number(lat.toFixed(5)), longitude: Number(wrap(lng).toFixed(5)) };
  }

  followAddress() {
    const place = placeInAddress();
    if (place) this.map.setView(place.center, place.zoom);
  }

  moved() {
    keepPlaceInAddress(this.map);
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.sendViewport(), REST_MS);
  }

  sendViewport() {
    const viewport = viewportOf(this.map);
    if (JSON.stringify(viewport) === JSON.stringify(this.client.viewport)) return;
    this.client.setViewport(viewport).catch((refusal) => this.refused(refusal, () => this.client.setViewport(viewportOf(this.map))));
  }

  async filtersChanged() {
    this.drawCircle();
    try {
      if (this.filters.max !== this.max) await this.client.setMaxEvents((this.max = this.filters.max));
      if (JSON.stringify(this.filters.value) !== JSON.stringify(this.client.filters)) await this.client.setFilters(this.filters.value);
    } catch (refusal) {
      this.refused(refusal, () => this.client.setFilters(this.filters.value));
    }
  }

  /** Too many at once is tried again; a lost connection brings the newest wish along by itself; the rest is told. */
  refused(refusal, again) {
    if (!this.client.live) return;
    if (refusal.retry) setTimeout(() => again().catch(() => undefined), RETRY_MS);
    else notify(refusal.message, { error: true });
  }

  drawCircle() {
    this.circle?.remove();
    const { circle } = this.filters;
    if (circle === null) return;
    this.circle = L.circle([circle.latitude, circle.longitude], { radius: circle.radius, className: "radius", interactive: false, weight: 1.5, fillOpacity: 0.06 }).addTo(this.map);
  }

  clicked(point) {
    const event = this.emoji.hit(point);
    if (event) return this.choose(event.id, event, { focus: false });
    const cell = this.bubbles.hit(point);
    if (cell) this.bubbles.choose(cell);
    else this.card.close();
  }

  hovered(point) {
    const event = this.emoji.hit(point);
    const cell = event ? null : this.bubbles.hit(point);
    this.emoji.point(event?.id ?? null);
    this.bubbles.point(cell);
    this.map.getContainer().classList.toggle("over-event", event !== null || cell !== null);
  }

  /** As far as the cell fills the part of the window that no panel covers; on the copy of the world that is in sight. */
  zoomInto(cell, { latitude, longitude }) {
    const { west, south, east, north } = cellBounds(cell);
    const turn = 360 * Math.round((this.map.getCenter().lng - longitude) / 360);
    const bounds = L.latLngBounds([south, west + turn], [north, east + turn]);
    const zoom = Math.max(this.map.getZoom() + 1, Math.min(this.map.getMaxZoom(), this.map.getBoundsZoom(bounds)));
    this.map.setView([latitude, longitude + turn], zoom, { animate: !calm });
  }

  choose(id, known, { focus = true } = {}) {
    const event = this.client.events.get(id) ?? known;
    if (event === undefined) return;
    this.emoji.select(id);
    this.list.select(id);
    this.returnTo = focus ? document.activeElement : null;
    this.openSheet("card");
    this.card.open(event, { focus });
    this.bringIntoSight(event);
  }

  /** Pan when the chosen event is hidden under a panel or outside the window. */
  bringIntoSight({ location: { latitude, longitude } }) {
    const near = L.latLng(latitude, longitude + 360 * Math.round((this.map.getCenter().lng - longitude) / 360));
    const wide = !PHONE.matches;
    const padding = { paddingTopLeft: [wide ? 360 : 24, wide ? 70 : 130], paddingBottomRight: [wide ? 390 : 24, wide ? 60 : Math.round(innerHeight * 0.6)], animate: !calm };
    if (this.map.getSize().x > 800 || !wide) this.map.panInside(near, padding);
  }

  cardClosed() {
    this.emoji.select(null);
    this.list.select(null);
    if (document.body.dataset.sheet === "card") this.openSheet(null);
    this.returnTo?.focus?.({ preventScroll: true });
    this.returnTo = null;
  }

  escape() {
    if (this.card.id !== null) this.card.close();
    else this.openSheet(null);
  }

  /** On a phone one panel at a time is a sheet; pressing its button again puts it away. */
  openSheet(name) {
    const { dataset } = document.body;
    if (name === undefined) return;
    if (name === null || (dataset.sheet === name && name !== "card")) delete dataset.sheet;
    else dataset.sheet = name;
    if (dataset.sheet && PHONE.matches) unfold(dataset.sheet);
    for (const button of document.querySelectorAll(".tabs button")) button.setAttribute("aria-expanded", String(button.dataset.opens === dataset.sheet));
  }
}

function unfold(name) {
  const button = document.querySelector(`.panel[data-sheet="${name}"] .fold[aria-expanded="false"]`);
  button?.click();
}

/** By how much each score moved, where two digits show it. */
function scoreChanges(events, before) {
  const changes = new Map();
  for (const { id, relevanceScore } of events) {
    const change = (relevanceScore ?? 0) - (before.get(id)?.relevanceScore ?? relevanceScore ?? 0);
    if (Math.abs(change) >= SMALLEST_CHANGE) changes.set(id, change);
  }
  return changes;
}

new Page().start();
