/* The smallest useful live map: Leaflet markers that follow a BatchcastClient.
 *
 * Open it from the server, so that its modules and its WebSocket have the same host: http://localhost:8080/site/examples/index.html
 * (`?ws=9081` when the WebSocket is not on port 8081). The class comes from the server too, there is one copy of it: read
 * /site/batchcast.js for all it can do. To use it in a page of your own, copy that one file; it needs nothing else.
 */

import { BatchcastClient } from "/site/batchcast.js";

const port = new URLSearchParams(location.search).get("ws") ?? "8081";
const words = document.getElementById("words");
const map = L.map("map", { worldCopyJump: true }).setView([30, 0], 3);
const client = new BatchcastClient({ url: `ws://${location.hostname}:${port}/ws`, maxEvents: 100 });
const markers = new Map();

function viewport() {
  const [west, east] = [map.getBounds().getWest(), map.getBounds().getEast()];
  const wrap = (longitude) => ((((longitude + 180) % 360) + 360) % 360) - 180;
  const wide = east - west >= 360;
  return {
    west: wide ? -180 : wrap(west),
    south: Math.max(-85, map.getBounds().getSouth()),
    east: wide ? 180 : wrap(east),
    north: Math.min(85, map.getBounds().getNorth()),
  };
}

/** As a node, never as HTML: what events say about themselves is text. */
function emojiNode(emoji) {
  return Object.assign(document.createElement("span"), { textContent: emoji ?? "📍" });
}

function draw(event) {
  markers.get(event.id)?.remove();
  const icon = L.divIcon({ className: "event", html: emojiNode(event.emoji), iconSize: [32, 32] });
  const { latitude, longitude } = event.location;
  markers.set(event.id, L.marker([latitude, longitude], { icon, title: `${event.title}: ${event.relevanceScore.toFixed(2)}` }).addTo(map));
}

// Everything that happens arrives here: the first snapshot, a batch, a single urgent change, the answer to a pan.
client.on("change", ({ type, creates, updates, deletes }) => {
  for (const id of deletes) {
    markers.get(id)?.remove();
    markers.delete(id);
  }
  for (const event of [...creates, ...updates]) draw(event);
  words.textContent = `${type}: ${creates.length} new, ${updates.length} changed, ${deletes.length} gone; ${client.events.size} in view`;
});
client.on("state", ({ name }) => name !== "live" && (words.textContent = `Connection: ${name}`));
map.on("moveend", () => client.setViewport(viewport()).catch((refusal) => (words.textContent = refusal.message)));
client.start(viewport());
