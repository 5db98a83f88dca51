// The two curves of a change over m, with a point that moves with the dial. Drawn as wide as the dial, so that they line up.
import { at, band, element, frame, path, plain, signed } from "./plotting.js";

const SIZE = { high: 150, edge: 10, top: 22, bottom: 18 }; // the edge is half the thumb of a dial

// the curve that is read and drawn: the law through the points, or the points joined by lines
export function read(curves) {
  return curves.law || curves;
}

export function drawCurve(place, kind, curves, range, m, own) {
  const width = Math.max(place.clientWidth, 200), { edge } = SIZE;
  const values = curves[kind].concat(curves[kind + "_interval"].flat(), read(curves)[kind], own ? own[kind] : []).filter((v) => v !== null);
  const { svg, x, y } = frame(width, SIZE, range, values);
  svg.append(element("path", { class: `band ${kind}`, d: band(curves.m, curves[kind + "_interval"], x, y) }));
  svg.append(element("path", { class: `law ${kind}${curves.law ? "" : " broken"}`, d: path(read(curves).m, read(curves)[kind], x, y) }));
  curves.m.forEach((v, k) => curves[kind][k] !== null && svg.append(element("circle", { class: `dot ${kind}`, cx: x(v), cy: y(curves[kind][k]), r: 2.2 })));
  if (kind === "utility" && curves.law) {
    const spent = curves.law.utility_at_zero - curves.budget.nats;
    svg.append(element("line", { class: "spent", x1: edge, x2: width - edge, y1: y(spent), y2: y(spent) }));
  }
  if (own) svg.append(element("path", { class: "own", d: path(own.m, own[kind], x, y) }));
  svg.append(element("text", { class: `title ${kind}`, x: edge, y: 13 }, `${kind}, nats`));
  point(svg, kind, curves, m, own, x, y, width);
  place.replaceChildren(svg);
}

function point(svg, kind, curves, m, own, x, y, width) {
  if (m === null) return;
  const { high, edge, top, bottom } = SIZE;
  const value = at(read(curves).m, read(curves)[kind], m), mine = own && at(own.m, own[kind], m);
  const outside = m < curves.m[0] || m > curves.m[curves.m.length - 1];
  if (!outside) svg.append(element("line", { class: "cursor", x1: x(m), x2: x(m), y1: top, y2: high - bottom }));
  if (mine !== null && own) svg.append(element("circle", { class: "point own-point", cx: x(m), cy: y(mine), r: 5 }));
  if (value !== null) svg.append(element("circle", { class: `point ${kind}`, cx: x(m), cy: y(value), r: 6 }));
  const said = outside ? `m = ${plain(m)} was not swept` : value === null ? "undefined here" : `${signed(value)} at m = ${plain(m)}`;
  svg.append(element("text", { class: "said", x: width - edge, y: 13, "text-anchor": "end" }, said));
  svg.setAttribute("aria-label", `${kind}: ${said}`);
}
