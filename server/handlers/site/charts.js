/* Small inline charts: stacked bar, countdown ring, sparkline, columns by day, rates, spread, share. Plain SVG; colours come from the style sheet
 * by class, words and numbers stand beside the picture, never only in it. */

import { svg } from "./format.js";

/** parts: [{name, value}] of `total`; what is missing to the total stays empty. */
export function stackedBar(parts, total, label) {
  const root = svg("svg", { class: "stacked", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": label });
  let x = 0;
  for (const { name, value } of parts) {
    const width = Math.max(0, (value / total) * 100);
    root.append(svg("rect", { class: `term term-${name}`, x, y: 0, width, height: 10 }));
    x += width;
  }
  return root;
}

/** A ring that empties towards a moment. `set(fraction)` with 0..1, or null for "nothing planned". */
export function ring(size = 40) {
  const radius = size / 2 - 3;
  const around = 2 * Math.PI * radius;
  const centre = { cx: size / 2, cy: size / 2, r: radius };
  const arc = svg("circle", { ...centre, class: "ring-arc", "stroke-dasharray": around, transform: `rotate(-90 ${size / 2} ${size / 2})` });
  const node = svg("svg", { viewBox: `0 0 ${size} ${size}`, "aria-hidden": "true" }, svg("circle", { ...centre, class: "ring-track" }), arc);
  const set = (fraction) => arc.setAttribute("stroke-dashoffset", around * (1 - Math.min(1, Math.max(0, fraction ?? 0))));
  set(null);
  return { node, set };
}

/** The course of a few dozen values as a line that ends in a dot. */
export function sparkline(values, label, { width = 120, height = 24 } = {}) {
  const root = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  if (values.length === 0) return root;
  const top = Math.max(...values, 1);
  const step = (width - 6) / Math.max(1, values.length - 1);
  const points = values.map((value, index) => [3 + index * step, height - 3 - (value / top) * (height - 6)]);
  root.append(svg("polyline", { points: points.map((point) => point.map((n) => n.toFixed(1)).join(",")).join(" ") }));
  const [x, y] = points.at(-1);
  root.append(svg("circle", { cx: x, cy: y, r: 2.5 }));
  return root;
}

/** Columns side by side, each stacked of named parts: days: [{label, parts: [{name, value}]}]. Parts get the class part-NAME. */
export function columns(days, label, { height = 56, width = 18, gap = 8 } = {}) {
  const span = days.length * (width + gap) - gap;
  const root = svg("svg", { class: "columns", viewBox: `0 0 ${Math.max(1, span)} ${height}`, preserveAspectRatio: "xMinYMid meet", role: "img", "aria-label": label });
  const top = Math.max(1, ...days.map(({ parts }) => parts.reduce((sum, { value }) => sum + value, 0)));
  days.forEach(({ label: name, parts }, index) => {
    const x = index * (width + gap);
    const day = svg("g", {}, svg("title", {}, name), svg("rect", { class: "part-none", x, y: height - 1, width, height: 1 }));
    let y = height;
    for (const { name: part, value } of parts) {
      // What is there at all is at least two pixels high.
      const size = value > 0 ? Math.max(2, (value / top) * (height - 2)) : 0;
      y -= size;
      day.append(svg("rect", { class: `part-${part}`, x, y, width, height: size, rx: 1 }));
    }
    root.append(day);
  });
  return root;
}

/** Shares in per cent side by side as bars, oldest first: values: [{value, label}]. Lines at the two bounds; a bar is good above the first,
 * middling above the second, else bad. */
export function rateBars(values, bounds, label) {
  const root = svg("svg", { class: "rate-bars", viewBox: `0 0 ${values.length * 10} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  values.forEach(({ value, label: name }, index) => {
    const part = value > bounds[0] ? "good" : value > bounds[1] ? "warn" : "bad";
    // A rate of nothing is a bar too.
    const height = Math.max(2, value);
    root.append(svg("g", {}, svg("title", {}, name), svg("rect", { class: "rate-ground", x: index * 10, y: 0, width: 10, height: 100 }), svg("rect", { class: `part-${part}`, x: index * 10 + 1, y: 100 - height, width: 8, height })));
  });
  for (const bound of bounds) root.append(svg("line", { x1: 0, x2: values.length * 10, y1: 100 - bound, y2: 100 - bound }));
  return root;
}

/** A span of amounts on a logarithmic scale: pale what is allowed, strong what there is, a tick at the middle one. `scale`, `allowed` and
 * `there` are [from, to], all above zero; without `there` only what is allowed is drawn. */
export function spread({ scale, allowed, there = null, middle = null }, label, { width = 160, height = 14 } = {}) {
  const at = (value) => (Math.log(value / scale[0]) / Math.log(scale[1] / scale[0])) * width;
  const bar = (name, [from, to], thick) => svg("rect", { class: name, x: at(from), y: (height - thick) / 2, width: Math.max(2, at(to) - at(from)), height: thick, rx: 2 });
  const root = svg("svg", { class: "spread", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, bar("spread-allowed", allowed, height));
  if (there !== null) root.append(bar("spread-there", there, 6));
  if (middle !== null) root.append(svg("line", { class: "spread-middle", x1: at(middle), x2: at(middle), y1: 0, y2: height }));
  return root;
}

/** A share of a whole (0..1), and the span where it is expected. */
export function shareBar(share, [least, most], label, { width = 120, height = 10 } = {}) {
  const expected = svg("rect", { class: "share-expected", x: least * width, y: 0, width: Math.max(2, (Math.min(1, most) - least) * width), height });
  const there = svg("rect", { class: "share-there", x: 0, y: height / 2 - 2, width: share > 0 ? Math.max(2, share * width) : 0, height: 4, rx: 1 });
  return svg("svg", { class: "share", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, expected, there);
}
