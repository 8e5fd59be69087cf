/* Leaflet markers that follow a BatchcastClient.
 *
 *   import { followWithLeaflet } from "./leaflet-adapter.js";
 *   const following = followWithLeaflet(client, L, map, { popup: (event) => event.title });
 *   client.start();                       the viewport is the map's from now on
 *   following.markers.select("jazz");     keep this one, also when it leaves the view
 *   following.stop();
 *
 * What events say about themselves is text: it is put into nodes, never into HTML.
 */

import { Markers, followMap } from "./markers.js";

const SIZE = 32;

export function followWithLeaflet(client, L, map, { icon, popup, onRefusal } = {}) {
  const iconOf = (event) => (icon ? icon(event) : L.divIcon({ className: "batchcast-event", html: emojiNode(event), iconSize: [SIZE, SIZE] }));
  // Across the antimeridian a place has many longitudes: the one next to the map's centre is in sight.
  const at = ({ location: { latitude, longitude } }) => [latitude, longitude + 360 * Math.round((map.getCenter().lng - longitude) / 360)];
  const events = new WeakMap();
  const markers = new Markers(client, {
    add(event) {
      const marker = L.marker(at(event), { icon: iconOf(event), title: event.title, alt: event.title }).addTo(map);
      events.set(marker, event);
      if (popup) marker.bindPopup((one) => textNode(popup(events.get(one))));
      marker.on("click", () => markers.select(event.id));
      return marker;
    },
    update(marker, change, before) {
      const event = { ...before, ...change };
      events.set(marker, event);
      marker.setLatLng(at(event)).setOpacity(1);
      if (before === undefined || before.emoji !== event.emoji || icon) marker.setIcon(iconOf(event));
      const element = marker.getElement();
      if (element) element.title = event.title;
      if (marker.isPopupOpen()) marker.getPopup().update();
    },
    fade: (marker) => marker.setOpacity(0.4),
    remove: (marker) => marker.remove(),
  });
  const turn = () => {
    for (const [, marker] of markers) marker.setLatLng(at(events.get(marker)));
  };
  map.on("moveend", turn);
  const unfollow = followMap(client, map, { onRefusal });
  return {
    markers,
    stop() {
      unfollow();
      map.off("moveend", turn);
      markers.stop();
    },
  };
}

function emojiNode({ emoji }) {
  return textNode(emoji ?? "📍");
}

function textNode(said) {
  return said instanceof Node ? said : Object.assign(document.createElement("span"), { textContent: said });
}
