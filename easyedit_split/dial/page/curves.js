// The two curves of a change over m, with a point that moves with the dial. Drawn as wide as the dial, so that they line up.
const SPACE = "http://www.w3.org/2000/svg";
const EDGE = 10, HIGH = 150, TOP = 22, BOTTOM = 18; // EDGE is half the thumb of a dial

export function signed(value) {
  const text = Math.abs(Number(value.toPrecision(3))).toString();
  return (value < 0 && Number(text) !== 0 ? "−" : "+") + text;
}

export function plain(value) {
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

// the curve that is read and drawn: the law through the points, or the points joined by lines
export function read(curves) {
  return curves.law || curves;
}

// value of `ys` at m by straight lines; null outside, or where a neighbour is not known
export function at(ms, ys, m) {
  if (m < ms[0] || m > ms[ms.length - 1]) return null;
  let right = ms.findIndex((x) => x >= m);
  if (ms[right] === m) return ys[right];
  const [x0, x1, y0, y1] = [ms[right - 1], ms[right], ys[right - 1], ys[right]];
  return y0 === null || y1 === null ? null : y0 + ((y1 - y0) * (m - x0)) / (x1 - x0);
}

export function drawCurve(place, kind, curves, range, m, own) {
  const width = Math.max(place.clientWidth, 200), svg = element("svg", { viewBox: `0 0 ${width} ${HIGH}`, height: HIGH, role: "img" });
  const values = curves[kind].concat(curves[kind + "_interval"].flat(), read(curves)[kind], own ? own[kind] : []).filter((v) => v !== null);
  const [low, high] = padded(Math.min(...values), Math.max(...values));
  const x = (v) => EDGE + ((width - 2 * EDGE) * (v - range[0])) / (range[1] - range[0]);
  const y = (v) => TOP + ((HIGH - TOP - BOTTOM) * (high - v)) / (high - low);
  for (const tick of ticks(low, high)) {
    svg.append(element("line", { class: "grid", x1: EDGE, x2: width - EDGE, y1: y(tick), y2: y(tick) }));
    if (y(tick) > TOP + 10) svg.append(element("text", { class: "halo", x: EDGE + 2, y: y(tick) - 3 }, plain(tick)));
  }
  if (range[0] <= 0 && range[1] >= 0) svg.append(element("line", { class: "zero-m", x1: x(0), x2: x(0), y1: TOP, y2: HIGH - BOTTOM }));
  svg.append(element("path", { class: `band ${kind}`, d: band(curves.m, curves[kind + "_interval"], x, y) }));
  svg.append(element("path", { class: `law ${kind}${curves.law ? "" : " broken"}`, d: path(read(curves).m, read(curves)[kind], x, y) }));
  curves.m.forEach((v, k) => curves[kind][k] !== null && svg.append(element("circle", { class: `dot ${kind}`, cx: x(v), cy: y(curves[kind][k]), r: 2.2 })));
  if (kind === "utility" && curves.law) {
    const spent = curves.law.utility_at_zero - curves.budget.nats;
    svg.append(element("line", { class: "spent", x1: EDGE, x2: width - EDGE, y1: y(spent), y2: y(spent) }));
  }
  if (own) svg.append(element("path", { class: "own", d: path(own.m, own[kind], x, y) }));
  svg.append(element("text", { class: `title ${kind}`, x: EDGE, y: 13 }, `${kind}, nats`));
  point(svg, kind, curves, m, own, x, y, width);
  place.replaceChildren(svg);
}

function point(svg, kind, curves, m, own, x, y, width) {
  if (m === null) return;
  const value = at(read(curves).m, read(curves)[kind], m), mine = own && at(own.m, own[kind], m);
  const outside = m < curves.m[0] || m > curves.m[curves.m.length - 1];
  if (!outside) svg.append(element("line", { class: "cursor", x1: x(m), x2: x(m), y1: TOP, y2: HIGH - BOTTOM }));
  if (mine !== null && own) svg.append(element("circle", { class: "point own-point", cx: x(m), cy: y(mine), r: 5 }));
  if (value !== null) svg.append(element("circle", { class: `point ${kind}`, cx: x(m), cy: y(value), r: 6 }));
  const said = outside ? `m = ${plain(m)} was not swept` : value === null ? "undefined here" : `${signed(value)} at m = ${plain(m)}`;
  svg.append(element("text", { class: "said", x: width - EDGE, y: 13, "text-anchor": "end" }, said));
  svg.setAttribute("aria-label", `${kind}: ${said}`);
}

function padded(low, high) {
  const room = (high - low || 1) * 0.06;
  return [low - room, high + room];
}

function ticks(low, high) {
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) found.push(Number(v.toPrecision(12)));
  return found;
}

function path(ms, ys, x, y) {
  let text = "", pen = "M";
  ms.forEach((m, k) => {
    if (ys[k] === null) pen = "M";
    else [text, pen] = [`${text}${pen}${x(m).toFixed(1)} ${y(ys[k]).toFixed(1)}`, "L"];
  });
  return text;
}

function band(ms, pairs, x, y) {
  const known = ms.map((m, k) => [m, ...pairs[k]]).filter((p) => p[1] !== null && p[2] !== null);
  if (known.length < 2) return "";
  const there = known.map(([m, , high]) => `${x(m).toFixed(1)} ${y(high).toFixed(1)}`);
  const back = known.reverse().map(([m, low]) => `${x(m).toFixed(1)} ${y(low).toFixed(1)}`);
  return `M${there.concat(back).join("L")}Z`;
}

function element(name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
