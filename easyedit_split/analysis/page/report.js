// The report's page: curves with values under the pointer, methods switched on and off, texts at every strength, tables that sort.
import { at, band, element, frame, make, path, plain, signed, ticks } from "./plotting.js";

const report = JSON.parse(document.getElementById("data").textContent);
const SIZE = { high: 240, edge: 12, top: 24, bottom: 22 };
const REDUCTIONS = { sum: "sums over tokens", mean: "means over tokens" };
const chosen = { on: new Set(report.methods.keys()), reduction: null, m: 0, loss: report.budget ?? 1 };
const charts = {}; // name -> place of a chart
const redrawn = []; // what is said anew when something is chosen

// the sweeps that are drawn: those of methods switched on, in the chosen reduction
function shown() {
  const all = report.methods.map(({ name, sweeps }, k) => ({ name, k, sweep: sweeps[chosen.reduction] }));
  return all.filter(({ k, sweep }) => chosen.on.has(k) && sweep);
}

function build() {
  const place = document.getElementById("explore");
  const found = Object.keys(REDUCTIONS).filter((r) => report.methods.some(({ sweeps }) => sweeps[r]));
  chosen.reduction = Object.keys(report.methods[0].sweeps)[0];
  place.append(choices(found), make("p", "small", ""));
  for (const [kind, name] of [["preference", "preference, nats"], ["utility", "utility, nats"]]) {
    chart(place, kind, (x) => set("m", x), () => curve(kind, name));
  }
  place.append(cursor("m", "m", () => range(), (m) => `m = ${plain(m)}`), readout());
  place.append(make("h3", "", "Preference gained for utility lost"), make("p", "small", "Points: measured strengths on one side of 0. Line: the most that is gained for at most that loss, joined between measured strengths."));
  chart(place, "front", (x) => set("loss", Math.max(x, 0)), front);
  place.append(cursor("loss", "loss of utility", () => [0, report.spending], (loss) => `loss ${plain(loss)}`), spent());
  const best = shown().map(({ sweep }) => sweep.best).find(Boolean);
  chosen.m = best ? best.m : 0;
  draw();
  new ResizeObserver(draw).observe(place);
}

function choices(found) {
  const box = make("div");
  box.id = "choose";
  const methods = box.appendChild(make("fieldset"));
  methods.append(make("legend", "", "Methods"));
  report.methods.forEach(({ name }, k) => {
    const input = tick(methods, "checkbox", name, `swatch c${k % 7}`);
    input.checked = true;
    input.addEventListener("change", () => {
      if (input.checked) chosen.on.add(k);
      else chosen.on.delete(k);
      draw();
    });
  });
  if (found.length < 2) return box;
  const reductions = box.appendChild(make("fieldset"));
  reductions.append(make("legend", "", "Log-odds from"));
  for (const r of found) {
    const input = tick(reductions, "radio", REDUCTIONS[r], "");
    Object.assign(input, { name: "reduction", value: r, checked: r === chosen.reduction });
    input.addEventListener("change", () => set("reduction", r));
  }
  return box;
}

function tick(place, type, text, swatch) {
  const label = place.appendChild(make("label", "tick")), input = label.appendChild(make("input"));
  input.type = type;
  if (swatch) label.append(make("i", swatch));
  label.append(text);
  return input;
}

function set(what, value) {
  chosen[what] = value;
  draw();
}

function draw() {
  const words = { sum: "sums over the tokens of an answer", mean: "means over the tokens of an answer" }[chosen.reduction];
  document.querySelector("#explore > .small").textContent =
    `Log-odds from ${words}. Line: the law, where the points bear it out; dotted: points joined. Band: 95% interval. Star: the recommended strength, hollow where it is not reliable. Point at a curve, or move the slider below it.`;
  const [low, high] = range();
  chosen.m = Math.min(high, Math.max(low, chosen.m));
  for (const name of Object.keys(charts)) charts[name]();
  for (const say of redrawn) say();
}

function range() {
  const ms = shown().flatMap(({ sweep }) => sweep.m);
  const [low, high] = ms.length ? [Math.min(...ms), Math.max(...ms)] : [0, 1];
  return low < high ? [low, high] : [low - 1, high + 1];
}

// --- charts ---

// a chart: `drawn` gives its picture and the values of its axis at both ends, `point` takes the value under the pointer
function chart(place, name, point, drawn) {
  const box = place.appendChild(make("div", "chart"));
  box.id = name;
  let ends = null;
  charts[name] = () => {
    const width = Math.max(box.clientWidth, 200), made = drawn(width);
    ends = made ? { width, range: made.range } : null;
    box.replaceChildren(made ? made.svg : make("p", "small", shown().length ? "No front: utility at m = 0 was not measured." : "Nothing to draw: switch a method on."));
  };
  box.addEventListener("pointermove", (e) => {
    if (!ends) return;
    const inside = (e.clientX - box.getBoundingClientRect().left - SIZE.edge) / (ends.width - 2 * SIZE.edge);
    point(ends.range[0] + Math.min(1, Math.max(0, inside)) * (ends.range[1] - ends.range[0]));
  });
}

const short = (value) => plain(Number(value.toPrecision(3)));

// what a curve is at m: what was measured there, else the law where it is drawn, else the points joined
function value(sweep, kind, m) {
  const { mean, line } = sweep[kind], swept = sweep.m.findIndex((x) => Math.abs(x - m) < 1e-9);
  if (swept >= 0) return mean[swept];
  const law = at(line.m, line.law, m);
  return law === null ? at(line.m, line.joined, m) : law;
}

const curve = (kind, title) => {
  const series = shown(), ends = range(), width = Math.max(document.getElementById(kind).clientWidth, 200);
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
  const here = series.map(({ k, sweep }) => ({ k, v: value(sweep, kind, chosen.m) }));
  mark(svg, x(chosen.m), width, y, here, `${title}, at m = ${plain(chosen.m)}`, series);
  return { svg, range: ends };
};

const front = () => {
  const series = shown().filter(({ sweep }) => sweep.front), ends = [0, report.spending], width = Math.max(document.getElementById("front").clientWidth, 200);
  const inside = series.map(({ k, sweep }) => ({ k, sweep, edge: cut(sweep.front), points: onSide(sweep) }));
  const values = inside.flatMap(({ edge, points }) => [edge.gain, points.map((p) => p.gain)]).flat();
  if (!values.length) return null;
  const { svg, x, y } = frame(width, SIZE, ends, [0, ...values]);
  axis(svg, x, ends, width, "loss of utility, nats");
  if (report.budget !== null) {
    svg.append(element("line", { class: "budget", x1: x(report.budget), x2: x(report.budget), y1: SIZE.top, y2: SIZE.high - SIZE.bottom }));
    svg.append(element("text", { class: "halo", x: x(report.budget) + 4, y: SIZE.high - SIZE.bottom - 6 }, `budget ${plain(report.budget)}`));
  }
  for (const { k, sweep, edge, points } of inside) {
    const c = `c${k % 7}`, { best } = sweep;
    svg.append(element("path", { class: `law ${c}`, d: path(edge.loss, edge.gain, x, y) }));
    for (const { loss, gain } of points) svg.append(element("circle", { class: `dot ${c}`, cx: x(loss), cy: y(gain), r: 2.4 }));
    if (best && best.loss !== null && best.loss <= report.spending) svg.append(star(x(best.loss), y(best.gain), c, best.reliable));
  }
  const here = series.map(({ k, sweep }) => ({ k, v: within(sweep, chosen.loss).gain }));
  mark(svg, x(chosen.loss), width, y, here, `gain in preference, nats, within a loss of ${plain(chosen.loss)}`, series);
  return { svg, range: ends };
};

// the part of a front that the axis shows; past its last point it stays what it is
function cut({ m, gain, loss }) {
  const kept = loss.map((_, i) => i).filter((i) => loss[i] <= report.spending && gain[i] >= 0);
  const edge = { m: kept.map((i) => m[i]), gain: kept.map((i) => gain[i]), loss: kept.map((i) => loss[i]) };
  if (kept.length && kept[kept.length - 1] < loss.length - 1) {
    edge.gain.push(at(loss, gain, report.spending));
    edge.loss.push(report.spending);
  }
  return edge;
}

// measured strengths on the side of 0 that the front is on
function onSide({ front, measured }) {
  const last = front.loss.filter((l) => l <= report.spending).length - 1, side = Math.sign(front.m[last]);
  const points = measured.m.map((m, i) => ({ m, gain: measured.gain[i], loss: measured.loss[i] }));
  return points.filter(({ m, gain, loss }) => m * side >= 0 && gain >= 0 && loss <= report.spending);
}

// the most that is gained for at most so much loss, and the strength there
function within({ front: { m, gain, loss } }, most) {
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

// --- what stands under the pointer, in words ---

function cursor(what, name, ends, words) {
  const box = make("div", "at"), label = box.appendChild(make("label")), input = box.appendChild(make("input"));
  Object.assign(input, { type: "range", id: `at-${what}` });
  input.setAttribute("aria-label", name);
  label.htmlFor = input.id;
  input.addEventListener("input", () => set(what, input.valueAsNumber));
  redrawn.push(() => {
    const [low, high] = ends();
    Object.assign(input, { min: low, max: high, step: (high - low) / 400 || 1 });
    input.value = chosen[what];
    label.textContent = words(chosen[what]);
    input.setAttribute("aria-valuetext", words(chosen[what]));
  });
  return box;
}

function readout() {
  return sheet("values", ["Method", "preference", "utility", "gain", "loss"], ({ sweep }) => {
    const [p, u] = ["preference", "utility"].map((kind) => value(sweep, kind, chosen.m)), points = sweep.measured;
    const [gain, loss] = points ? [at(points.m, points.gain, chosen.m), at(points.m, points.loss, chosen.m)] : [null, null];
    return [p === null ? "–" : signed(p), u === null ? "–" : signed(u), gain === null ? "–" : signed(gain), loss === null ? "–" : short(loss)];
  });
}

function spent() {
  return sheet("within", ["Method", "gain within it", "at m"], ({ sweep }) => {
    const { m, gain } = sweep.front ? within(sweep, chosen.loss) : { m: null, gain: null };
    return [gain === null ? "–" : signed(gain), m === null ? "–" : plain(m)];
  });
}

function sheet(id, heads, cells) {
  const box = make("div", "wide"), table = box.appendChild(make("table")), body = make("tbody");
  table.id = id;
  const head = table.appendChild(make("thead")).appendChild(make("tr"));
  heads.forEach((name, k) => head.append(make("th", k ? "number" : "", name)));
  table.append(body);
  redrawn.push(() => {
    body.replaceChildren();
    for (const one of shown()) {
      const row = body.appendChild(make("tr")), name = row.appendChild(make("td"));
      name.append(make("i", `swatch c${one.k % 7}`), one.name);
      for (const text of cells(one)) row.append(make("td", "number", text));
    }
  });
  return box;
}

// --- texts ---

function turnable(article) {
  const { texts } = report.methods[Number(article.dataset.method)];
  const box = make("div", "turn"), label = make("label", "", "Turn m "), input = make("input"), output = make("output");
  Object.assign(input, { type: "range", min: 0, max: texts.m.length - 1, step: 1, id: `texts-${article.dataset.method}` });
  input.value = article.dataset.row;
  label.htmlFor = input.id;
  box.append(label, input, output);
  article.querySelector("h3").after(box);
  const cards = [...article.querySelectorAll(".answer.turned")];
  const show = (turned) => {
    const row = input.valueAsNumber, m = texts.m[row];
    output.textContent = costs(m, texts.gain[row], texts.loss[row]);
    input.setAttribute("aria-valuetext", output.textContent);
    if (!turned) return;
    cards.forEach((card, k) => {
      card.querySelector("h4").textContent = `m = ${plain(m)}${m === 0 ? ", unsteered" : verdict(texts.loss[row])}`;
      card.querySelector("div").textContent = texts.answers[row][k];
    });
  };
  input.addEventListener("input", () => show(true));
  show(false);
}

function costs(m, gain, loss) {
  return gain === null ? `m = ${plain(m)}` : `m = ${plain(m)}: preference ${signed(gain)}, ${short(loss)} nats of utility lost`;
}

function verdict(loss) {
  return loss !== null && report.budget !== null && loss > report.budget ? `, too much: ${short(loss)} nats of utility lost` : "";
}

// --- tables ---

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = make("button", "", head.textContent);
    button.type = "button";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => compared(a.cells[column].textContent, b.cells[column].textContent, way)));
    });
  });
}

// numbers by size, whatever follows them; texts by the alphabet; what is not known last, either way
function compared(a, b, way) {
  const [x, y] = [a, b].map((text) => (/^(-|n\/a|)$/.test(text.trim()) ? null : text));
  if (x === null || y === null) return (x === null) - (y === null);
  const [p, q] = [parseFloat(x), parseFloat(y)];
  return way * (Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q);
}

build();
for (const article of document.querySelectorAll(".texts")) turnable(article);
for (const table of document.querySelectorAll("#tables table")) sortable(table);
