/* MapLibre GL (or Mapbox GL) markers that follow a BatchcastClient.
 *
 *   import { followWithMapLibre } from "./maplibre-adapter.js";
 *   const following = followWithMapLibre(client, maplibregl, map);
 *   client.start();                       the viewport is the map's from now on
 *   following.markers.select("jazz");     keep this one, also when it leaves the view
 *   following.stop();
 *
 * Markers are nodes over the map, which is right for the hundreds of events that a view holds. What events say about themselves
 * is text: it is put into nodes, never into HTML.
 */

import { Markers, followMap } from "./markers.js";

export function followWithMapLibre(client, maplibregl, map, { draw = drawEmoji, onRefusal } = {}) {
  const at = ({ location: { latitude, longitude } }) => [longitude, latitude];
  const markers = new Markers(client, {
    add(event) {
      const element = document.createElement("div");
      element.className = "batchcast-event";
      draw(element, event);
      element.addEventListener("click", () => markers.select(event.id));
      return new maplibregl.Marker({ element }).setLngLat(at(event)).addTo(map);
    },
    update(marker, change, before) {
      const event = { ...before, ...change };
      marker.setLngLat(at(event));
      marker.getElement().style.filter = "";
      draw(marker.getElement(), event);
    },
    // Not `opacity`: that is the library's own, for markers behind the globe.
    fade: (marker) => Object.assign(marker.getElement().style, { filter: "opacity(0.4)" }),
    remove: (marker) => marker.remove(),
  });
  const unfollow = followMap(client, map, { onRefusal });
  return {
    markers,
    stop() {
      unfollow();
      markers.stop();
    },
  };
}

function drawEmoji(element, { emoji, title }) {
  element.textContent = emoji ?? "📍";
  element.title = title;
}
