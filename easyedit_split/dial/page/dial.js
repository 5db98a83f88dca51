// The page: dials, the conversation, the curves of the change last touched, and what can be taken away.
import { drawCurve, read } from "./curves.js";
import { at, make, plain, signed } from "./plotting.js";
import { Dial } from "./slider.js";
import { Talk, card, post, streamed } from "./talk.js";

const $ = (id) => document.getElementById(id);
const FIRST_QUESTION = "Write a review of the sofa.";
const WAIT = 120; // milliseconds of rest before a moving dial asks for an answer

let state, dials, active, running = null, comparing = null;
const talk = new Talk($("turns"));
const resting = {}; // timers of what waits for a dial to rest
const own = new Map(); // change -> curves of one's own pair

async function open() {
  state = await (await fetch("/state")).json();
  $("model").textContent = `Model: ${state.model}.`;
  document.title = `Dial: ${state.changes.map((c) => c.name).join(", ")}`;
  dials = state.changes.map((change) => new Dial(change, moved));
  for (const dial of dials) {
    $("dials").append(dial.box);
    for (const event of ["focusin", "pointerdown"]) dial.box.addEventListener(event, () => activate(dial));
  }
  const swept = dials.find((d) => d.change.curves);
  if (swept) $("dials").append(Object.assign(make("p", "small", key(swept.change.curves.budget.nats)), { id: "key" }));
  const best = dials[0].best;
  if (best && best.reliable) dials[0].m1 = dials[0].m2 = dials[0].round(best.m);
  dials[0].show();
  activate(dials[0]);
  new ResizeObserver(() => draw()).observe($("curves"));
  if (state.model === "demo") ask(FIRST_QUESTION);
  else $("question").focus();
}

function key(nats) {
  return `A dial ends where the sweep ends. Green: utility falls by at most ${plain(nats)} nat${nats === 1 ? "" : "s"}; past it the budget is spent. Tall mark and bracket: the strength to use and its 95% interval. Arrow keys turn a dial, with Shift finely.`;
}

function activate(dial) {
  if (active === dial) return;
  active = dial;
  for (const d of dials) d.box.classList.toggle("active", d === dial);
  $("several-of").textContent = dial.change.name;
  $("strengths").value = rungs(dial).map(String).join(", ");
  draw();
}

function moved(dial) {
  activate(dial);
  draw();
  refresh();
  if (!$("live").checked || !talk.last) return;
  if (running) running.abort(); // its strength is no longer asked for
  later(answer);
}

function draw() {
  const { change, m } = active, curves = change.curves, mine = own.get(change) || null;
  $("curves-of").textContent = change.name;
  const others = dials.filter((d) => d !== active && d.on).map((d) => d.change.name);
  $("advice").textContent = change.advice;
  $("advice").className = change.best && change.best.reliable ? "" : "warning";
  for (const kind of ["preference", "utility"]) {
    if (curves) drawCurve($(kind), kind, curves, [change.low, change.high], m, mine);
    else $(kind).replaceChildren();
  }
  $("legend").textContent = curves ? legend(curves, mine, others, m) : "";
  $("scored").textContent = mine ? scored(curves, mine, m) : "";
}

function legend(curves, mine, others, m) {
  const drawn = curves.law ? "line: the law through the measured points" : "dashed: measured points joined, no law fits";
  return [
    `Mean of ${curves.pairs} pairs, ${curves.reduction === "sum" ? "sums over tokens" : "means over tokens"}; band: 95% interval; ${drawn}.`,
    curves.law ? `Red: a loss of ${plain(curves.budget.nats)} nat${curves.budget.nats === 1 ? "" : "s"} of utility.` : "",
    mine ? "Purple: your pair." : "",
    m === null ? "Curves are of m1 = m2, and yours are apart." : "",
    others.length ? `Measured alone; now ${others.join(", ")} acts too.` : "",
  ].filter(Boolean).join(" ");
}

function scored(curves, mine, m) {
  const here = m === null ? null : ["preference", "utility"].map((kind) => [at(mine.m, mine[kind], m), curves && at(read(curves).m, read(curves)[kind], m)]);
  if (!here || here[0][0] === null || here[1][0] === null) return "Your pair was scored over the sweep; turn the dial within it.";
  const said = here.map(([value, mean], k) => `${["preference", "utility"][k]} ${signed(value)}${mean === null ? "" : ` (data set ${signed(mean)})`}`);
  return `Your pair at m = ${plain(m)}: ${said.join(", ")} nats.`;
}

// --- answers ---

function sampling() {
  const number = (id) => ($(id).value === "" ? null : $(id).valueAsNumber);
  return { temperature: number("temperature"), seed: number("seed"), max_new_tokens: number("tokens") };
}

function strengths() {
  return dials.map(({ change, m1, m2 }) => ({ name: change.name, m1, m2 }));
}

const words = () => dials.filter((d) => d.on).map((d) => d.words).join("; ");

async function ask(question) {
  if (!question.trim()) return problem("there is no question: write one");
  talk.add(question);
  $("question").value = "";
  refresh();
  await answer();
}

async function answer() {
  clearTimeout(resting.answer);
  if (running) running.abort();
  await guarded(async (signal) => talk.answer(strengths(), words(), sampling(), signal), (control) => (running = control), () => running);
}

async function guarded(act, take, held) {
  const control = new AbortController();
  take(control);
  problem("");
  $("stop").disabled = false;
  try {
    await act(control.signal);
  } catch (error) {
    if (error.name !== "AbortError") problem(error instanceof TypeError ? "the page's server does not answer: start easyedit-split dial again" : error.message);
  } finally {
    if (held() === control) take(null);
    $("stop").disabled = !(running || comparing);
  }
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function stop() {
  for (const control of [running, comparing]) if (control) control.abort();
}

// --- several strengths ---

function rungs({ change, best, round }) {
  const { low, high } = change, to = best && best.m !== 0 ? best.m : high / 2;
  const wanted = [0, to / 2, to, 1.5 * to, to > 0 ? high : low].map((m) => round.call({ change }, m));
  return [...new Set(wanted)].filter((m) => low <= m && m <= high).sort((a, b) => a - b);
}

async function compare() {
  const given = $("strengths").value.split(/[\s,;]+/).filter(Boolean), ms = given.map((text) => Number(text.replace("−", "-")));
  const question = $("question").value.trim() || (talk.last && talk.last.question);
  if (!question) return problem("there is no question: write one");
  if (!ms.every(Number.isFinite)) return problem(`${given[ms.findIndex((m) => !Number.isFinite(m))]} is no strength: give numbers, such as 0, 1.5, 3`);
  const number = dials.indexOf(active), cards = ms.map((m) => card(m ? "steered" : "plain", `m = ${plain(m)}`));
  $("rungs").replaceChildren(...cards.map((c) => c.box));
  const rows = ms.map((m) => ({ turns: [{ role: "user", content: question }], strengths: strengths().map((s, k) => (k === number ? { ...s, m1: m, m2: m } : s)) }));
  if (comparing) comparing.abort();
  await guarded(
    (signal) => streamed({ rows, ...sampling() }, signal, (texts) => texts.forEach((text, k) => (cards[k].text.textContent = text))),
    (control) => (comparing = control), () => comparing,
  );
}

// --- one's own pair ---

async function score() {
  const change = active.change;
  $("scored").textContent = "scoring …";
  const body = { change: dials.indexOf(active), question: $("pair-question").value, matching: $("pair-matching").value, not_matching: $("pair-not-matching").value };
  try {
    own.set(change, await (await post("/pair", body)).json());
    draw();
  } catch (error) {
    $("scored").textContent = error.message;
  }
}

// --- to take away ---

function later(act) {
  clearTimeout(resting[act.name]);
  resting[act.name] = setTimeout(act, WAIT);
}

function refresh() {
  later(takeaway);
}

async function takeaway() {
  const turns = talk.last ? talk.history("steered") : [{ role: "user", content: $("question").value.trim() || FIRST_QUESTION }];
  try {
    const found = await (await post("/recipes", { rows: [{ turns, strengths: strengths() }], ...sampling() })).json();
    for (const name of ["python", "command", "request"]) $(name).textContent = found[name];
  } catch (error) {
    for (const name of ["python", "command", "request"]) $(name).textContent = `# ${error.message}`;
  }
}

function exportTalk() {
  const held = { made_by: `easyedit_split ${state.version}`, model: state.model, changes: state.changes.map(({ name, folder, form, site, concept }) => ({ name, folder, form, site, concept })), turns: talk.exported() };
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(held, null, 1)], { type: "application/json" }));
  link.download = "conversation.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

async function copy(button) {
  const text = $(button.dataset.copy);
  getSelection().selectAllChildren(text);
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch {
    document.execCommand("copy"); // pages that are not on this machine have no clipboard
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function on(id, event, act) {
  $(id).addEventListener(event, (e) => {
    if (event === "submit") e.preventDefault();
    act(e);
  });
}

on("ask", "submit", () => ask($("question").value));
on("question", "keydown", (e) => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  ask($("question").value);
});
on("stop", "click", stop);
document.addEventListener("keydown", (e) => e.key === "Escape" && stop());
on("fresh", "click", () => {
  stop();
  talk.clear();
  $("question").focus();
});
on("export", "click", exportTalk);
on("ladder", "submit", compare);
on("score", "submit", score);
for (const id of ["temperature", "seed", "tokens"])
  on(id, "change", () => {
    refresh();
    if ($("live").checked && talk.last) later(answer);
  });
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));

open();
