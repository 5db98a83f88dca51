// The report's page: curves with values under the pointer, methods switched on and off, texts at every strength, tables that sort.
import { SIZE, curves, front, short, value, within } from "./charts.js";
import { at, make, plain, signed } from "./plotting.js";

const report = JSON.parse(document.getElementById("data").textContent);
const REDUCTIONS = { sum: "sums over tokens", mean: "means over tokens" };
const chosen = { on: new Set(report.methods.keys()), reduction: null, m: 0, loss: report.budget ?? 1 };
const STEPS = 400; // of a slider
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
    chart(place, kind, (m) => set("m", swept(m, 200)), (width) => curves(width, kind, name, shown(), range(), chosen.m));
  }
  place.append(cursor("m", "m", () => range(), (m) => `m = ${plain(m)}`), readout());
  place.append(make("h3", "", "Preference gained for utility lost"), make("p", "small", "Points: measured strengths on one side of 0. Line: the most that is gained for at most that loss, joined between measured strengths."));
  chart(place, "front", (loss) => set("loss", loss), (width) => front(width, shown(), report.spending, report.budgets[chosen.reduction] ?? null, chosen.loss));
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

// m, or the swept strength that is next to it: no further than one of so many parts of the range
function swept(m, parts) {
  const [low, high] = range(), near = shown().flatMap(({ sweep }) => sweep.m).filter((x) => Math.abs(x - m) <= (high - low) / parts);
  return near.length ? near.reduce((a, b) => (Math.abs(a - m) <= Math.abs(b - m) ? a : b)) : m;
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
    box.replaceChildren(made ? made.svg : make("p", "small", shown().length ? "No front: it needs a law for both curves, and a utility at m = 0." : "Nothing to draw: switch a method on."));
  };
  box.addEventListener("pointermove", (e) => {
    if (!ends) return;
    const inside = (e.clientX - box.getBoundingClientRect().left - SIZE.edge) / (ends.width - 2 * SIZE.edge);
    point(ends.range[0] + Math.min(1, Math.max(0, inside)) * (ends.range[1] - ends.range[0]));
  });
}

// --- what stands under the pointer, in words ---

function cursor(what, name, ends, words) {
  const box = make("div", "at"), label = box.appendChild(make("label")), input = box.appendChild(make("input"));
  Object.assign(input, { type: "range", id: `at-${what}` });
  input.setAttribute("aria-label", name);
  label.htmlFor = input.id;
  // half a step at most, so that the keyboard reaches every swept strength and passes it
  input.addEventListener("input", () => set(what, what === "m" ? swept(input.valueAsNumber, 2 * STEPS + 1) : input.valueAsNumber));
  redrawn.push(() => {
    const [low, high] = ends();
    Object.assign(input, { min: low, max: high, step: (high - low) / STEPS });
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
