// A dial: one change, its swept range, and on it the strength to use, its interval and where the budget of utility is spent.
import { read } from "./curves.js";
import { at, make, plain, signed } from "./plotting.js";

export class Dial {
  constructor(change, moved) {
    Object.assign(this, { change, moved, m1: 0, m2: 0, apart: false });
    this.box = make("article", "dial");
    const head = this.box.appendChild(make("div", "head"));
    head.append(make("h2", "", change.name), make("small", "", [change.form.replace("_", " "), change.site, change.concept].filter(Boolean).join(", ")));
    this.knobs = this.box.appendChild(make("div"));
    this.now = this.box.appendChild(make("p", "now"));
    this.warning = this.box.appendChild(make("p", "warning"));
    this.warning.setAttribute("role", "status");
    this.build();
  }

  get best() {
    return this.change.best;
  }

  // the strength that both terms have, or null where they are apart
  get m() {
    return this.m1 === this.m2 ? this.m1 : null;
  }

  get on() {
    return this.m1 !== 0 || this.m2 !== 0;
  }

  get words() {
    return this.m === null ? `${this.change.name} m1 = ${plain(this.m1)}, m2 = ${plain(this.m2)}` : `${this.change.name} m = ${plain(this.m)}`;
  }

  build() {
    this.knobs.replaceChildren();
    const names = this.apart ? ["m1", "m2"] : ["m"];
    this.inputs = names.map((name) => this.knob(name));
    if (this.change.form === "local_weight") {
      const tick = make("label", "tick", ""), box = make("input");
      box.type = "checkbox";
      box.checked = this.apart;
      box.className = "apart";
      box.addEventListener("change", () => {
        this.apart = box.checked;
        if (!this.apart) this.m2 = this.m1;
        this.build();
        this.knobs.querySelector(".apart").focus();
        this.moved(this);
      });
      tick.append(box, "m1 for dW, m2 for db");
      this.knobs.append(tick);
    }
    this.show();
  }

  knob(name) {
    const { low, high, step, curves } = this.change;
    const knob = this.knobs.appendChild(make("div", "knob")), set = knob.appendChild(make("div", "set"));
    const number = make("input"), range = make("input"), label = make("label", "", `${name} `);
    Object.assign(number, { type: "number", step, className: "number" });
    Object.assign(range, { type: "range", min: low, max: high, step, className: "range" });
    range.setAttribute("aria-label", `${this.change.name}, ${name === "m" ? "strength m" : name === "m1" ? "m1, of dW" : "m2, of db"}`);
    label.append(number);
    set.append(label, button("off", () => this.turn(name, 0), "set to 0"));
    if (this.best) set.append(button(`use ${plain(this.round(this.best.m))}`, () => this.turn(name, this.round(this.best.m)), "set to the recommended strength"));
    number.addEventListener("change", () => this.turn(name, Number.isFinite(number.valueAsNumber) ? number.valueAsNumber : 0));
    range.addEventListener("keydown", (e) => {
      const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[e.key];
      if (!way) return;
      e.preventDefault(); // a step is fine: arrows go ten, and one with Shift
      this.turn(name, Math.min(high, Math.max(low, this.round(range.valueAsNumber + way * step * (e.shiftKey ? 1 : 10)))));
    });
    range.addEventListener("input", () => this.turn(name, range.valueAsNumber));
    const track = knob.appendChild(make("div", "track"));
    const stretch = curves && curves.budget.stretch;
    track.append(this.part(stretch ? "all" : "all unknown", low, high));
    if (stretch) track.append(this.part("within", ...stretch));
    track.append(this.part("tick zero", 0));
    if (this.best && this.best.interval) track.append(this.part("interval", ...this.best.interval));
    if (this.best) track.append(this.part("tick best", this.best.m));
    track.append(range);
    knob.append(this.scale());
    return { name, number, range };
  }

  part(kind, from, to) {
    const { low, high } = this.change, mark = make("i", kind);
    mark.style.setProperty("--x", (from - low) / (high - low));
    if (to !== undefined) mark.style.setProperty("--w", (to - from) / (high - low));
    return mark;
  }

  scale() {
    const { low, high, curves } = this.change, scale = make("div", "scale");
    const put = (kind, m, text) => {
      const span = scale.appendChild(make("span", kind, text));
      span.style.setProperty("--x", (m - low) / (high - low));
    };
    const end = curves ? "swept to " : "";
    put("low", low, `${plain(low)}`);
    put("high", high, `${end}${plain(high)}`);
    const best = this.best ? this.best.m : null, far = (m) => best === null || Math.abs(m - best) > (high - low) * 0.16;
    if (low < 0 && high > 0 && far(0)) put("zero", 0, "0");
    if (best !== null && best < high - (high - low) * 0.3 && best > low + (high - low) * 0.1) put("best", best, `${plain(this.round(best))}`);
    return scale;
  }

  round(m) {
    const { step } = this.change;
    return Number((Math.round(m / step) * step).toPrecision(12));
  }

  turn(name, m) {
    if (name !== "m2") this.m1 = m;
    if (name !== "m1") this.m2 = m;
    this.show();
    this.moved(this);
  }

  show() {
    for (const { name, number, range } of this.inputs) {
      const m = name === "m2" ? this.m2 : this.m1;
      range.value = m;
      number.value = m;
      range.setAttribute("aria-valuetext", `m = ${plain(m)}; ${this.spoken()}`);
    }
    this.now.textContent = this.spoken();
    this.warning.textContent = this.warned();
  }

  // what the dial does and costs against m = 0, as far as it was measured
  difference() {
    const { curves } = this.change;
    if (!curves || this.m === null) return null;
    const line = read(curves);
    const [p, u] = ["preference", "utility"].map((kind) => [at(line.m, line[kind], this.m), at(line.m, line[kind], 0)]);
    return [p, u].flat().includes(null) ? null : { preference: p[0] - p[1], utility: u[0] - u[1] };
  }

  spoken() {
    if (!this.on) return "off: the model as it is";
    const by = this.difference();
    return by ? `preference ${signed(by.preference)}, utility ${signed(by.utility)} nats against m = 0` : "what this costs was not measured";
  }

  warned() {
    const { curves, low, high } = this.change;
    if (!curves) return "No sweep of this change is here: run easyedit-split sweep to see what a strength costs.";
    if (Math.min(this.m1, this.m2) < low || Math.max(this.m1, this.m2) > high) return `Past the sweep, which ends at ${plain(this.m1 < low || this.m2 < low ? low : high)}: nothing was measured here.`;
    const by = this.difference();
    if (this.on && by && -by.utility > curves.budget.nats + 5e-3) return `Past the budget: utility has fallen by ${plain(-by.utility)} nats, more than ${plain(curves.budget.nats)}.`;
    if (this.best && !this.best.reliable) return "The recommended strength is not reliable here: read why beside the curves.";
    return "";
  }
}

function button(text, act, title) {
  const made = make("button", "plain", text);
  made.type = "button";
  made.title = title;
  made.addEventListener("click", act);
  return made;
}
