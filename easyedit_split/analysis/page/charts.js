// The report's charts: curves over the strength, and the front of preference gained for utility lost, of several methods
// at once. A series is { name, k (its place, which gives its colour), sweep }.
import { at, band, element, frame, path, plain, signed, ticks } from "./plotting.js";

export const SIZE = { high: 240, edge: 12, top: 24, bottom: 22 };

export const short = (value) => plain(Number(value.toPrecision(3)));

// what a curve is at m: what was measured there, else the law where it is drawn, else the points joined
export function value(sweep, kind, m) {
  const { mean, line } = sweep[kind], swept = sweep.m.findIndex((x) => Math.abs(x - m) < 1e-9);
  if (swept >= 0) return mean[swept];
  const law = at(line.m, line.law, m);
  return law === null ? at(line.m, line.joined, m) : law;
}

// preference or utility over m, from one of `ends` to the other; null where there is nothing to draw
export function curves(width, kind, title, series, ends, now) {
  const values = series.flatMap(({ sweep }) => [sweep[kind].mean, sweep[kind].interval.flat(), sweep[kind].line.law]).flat().filter((v) => v !== null);
  if (!values.length) return null;
  const { svg, x, y } = frame(width, SIZE, ends, values);
  axis(svg, x, ends, width, "m");
  for (const { k, sweep } of series) {
    const one = sweep[kind], c = `c${k % 7}`;
    svg.append(element("path", { class: `band ${c}`, d: band(sweep.m, one.interval, x, y) }));
    svg.append(element("path", { class: `law joined ${c}`, d: path(one.line.m, one.line.joined, x, y) }));
    svg.append(element("path", { class: `law ${c}`, d: path(one.line.m, one.line.law, x, y) }));
    sweep.m.forEach((m, i) => one.mean[i] !== null && svg.append(element("circle", { class: `dot ${c}`, cx: x(m), cy: y(one.mean[i]), r: 2.4 })));
    if (sweep.best && sweep.best[kind] !== null) svg.append(star(x(sweep.best.m), y(sweep.best[kind]), c, sweep.best.reliable));
  }
  const here = series.map(({ k, sweep }) => ({ k, v: value(sweep, kind, now) }));
  mark(svg, x(now), width, y, here, `${title}, at m = ${plain(now)}`, series);
  return { svg, range: ends };
}

// gain in preference over loss of utility, up to a loss of `spending`; null where no method has a front
export function front(width, every, spending, budget, now) {
  const series = every.filter(({ sweep }) => sweep.front), ends = [0, spending];
  const inside = series.map(({ k, sweep }) => ({ k, sweep, edge: cut(sweep.front, spending), points: onSide(sweep, spending) }));
  const values = inside.flatMap(({ edge, points }) => [edge.gain, points.map((p) => p.gain)]).flat();
  if (!values.length) return null;
  const { svg, x, y } = frame(width, SIZE, ends, [0, ...values]);
  axis(svg, x, ends, width, "loss of utility, nats");
  if (budget !== null) {
    svg.append(element("line", { class: "budget", x1: x(budget), x2: x(budget), y1: SIZE.top, y2: SIZE.high - SIZE.bottom }));
    svg.append(element("text", { class: "halo", x: x(budget) + 4, y: SIZE.high - SIZE.bottom - 6 }, `budget ${plain(budget)}`));
  }
  for (const { k, sweep, edge, points } of inside) {
    const c = `c${k % 7}`, { best } = sweep;
    svg.append(element("path", { class: `law ${c}`, d: path(edge.loss, edge.gain, x, y) }));
    for (const { loss, gain } of points) svg.append(element("circle", { class: `dot ${c}`, cx: x(loss), cy: y(gain), r: 2.4 }));
    if (best && best.loss !== null && best.loss <= spending) svg.append(star(x(best.loss), y(best.gain), c, best.reliable));
  }
  const here = series.map(({ k, sweep }) => ({ k, v: within(sweep, now).gain }));
  mark(svg, x(now), width, y, here, `gain in preference, nats, within a loss of ${plain(now)}`, series);
  return { svg, range: ends };
}

// the part of a front that the axis shows; past its last point it stays what it is
function cut({ m, gain, loss }, spending) {
  const kept = loss.map((_, i) => i).filter((i) => loss[i] <= spending && gain[i] >= 0);
  const edge = { m: kept.map((i) => m[i]), gain: kept.map((i) => gain[i]), loss: kept.map((i) => loss[i]) };
  if (kept.length) {
    edge.gain.push(at(loss, gain, spending) ?? edge.gain[edge.gain.length - 1]);
    edge.loss.push(spending);
  }
  return edge;
}

// measured strengths on the side of 0 that the front is on
function onSide({ front: edge, measured }, spending) {
  const last = edge.loss.filter((l) => l <= spending).length - 1, side = Math.sign(edge.m[last]);
  const points = measured.m.map((m, i) => ({ m, gain: measured.gain[i], loss: measured.loss[i] }));
  return points.filter(({ m, gain, loss }) => m * side >= 0 && gain >= 0 && loss <= spending);
}

// the most that is gained for at most so much loss, and the strength there
export function within({ front: { m, gain, loss } }, most) {
  const last = loss.filter((l) => l <= most + 1e-9).length - 1;
  return last < 0 ? { m: null, gain: null } : { m: m[last], gain: gain[last] };
}

function axis(svg, x, [low, high], width, name) {
  for (const tick of ticks(low, high, width < 500 ? 5 : 9)) {
    svg.append(element("line", { class: "grid", x1: x(tick), x2: x(tick), y1: SIZE.high - SIZE.bottom, y2: SIZE.high - SIZE.bottom + 4 }));
    const anchor = x(tick) < 20 ? "start" : x(tick) > width - 20 ? "end" : "middle";
    svg.append(element("text", { x: anchor === "start" ? x(tick) - 8 : anchor === "end" ? x(tick) + 8 : x(tick), y: SIZE.high - 6, "text-anchor": anchor }, plain(tick)));
  }
  svg.append(element("text", { class: "halo", x: width - SIZE.edge, y: SIZE.high - SIZE.bottom - 4, "text-anchor": "end" }, name));
}

function star(x, y, kind, reliable) {
  const corners = [...Array(10).keys()].map((i) => {
    const far = i % 2 ? 3.4 : 8.5, turn = (Math.PI * i) / 5;
    return `${(x + far * Math.sin(turn)).toFixed(1)} ${(y - far * Math.cos(turn)).toFixed(1)}`;
  });
  return element("path", { class: `best ${reliable ? "" : "doubtful "}${kind}`, d: `M${corners.join("L")}Z` });
}

// the line under the pointer, a point on every curve and its value beside it, none over another
function mark(svg, x, width, y, here, title, series) {
  svg.append(element("line", { class: "cursor", x1: x, x2: x, y1: SIZE.top, y2: SIZE.high - SIZE.bottom }));
  const left = x > width - 90, known = here.filter(({ v }) => v !== null).sort((a, b) => b.v - a.v);
  let above = -Infinity;
  for (const { k, v } of known) {
    svg.append(element("circle", { class: `point c${k % 7}`, cx: x, cy: y(v), r: 5 }));
    above = Math.max(y(v) + 4, above + 13);
    svg.append(element("text", { class: `value halo c${k % 7}`, x: x + (left ? -9 : 9), y: above, "text-anchor": left ? "end" : "start" }, signed(v)));
  }
  svg.append(element("text", { class: "title", x: SIZE.edge, y: 14 }, title));
  const words = known.map(({ k, v }) => `${series.find((s) => s.k === k).name} ${signed(v)}`);
  svg.setAttribute("aria-label", `${title}: ${words.join(", ")}`);
}
