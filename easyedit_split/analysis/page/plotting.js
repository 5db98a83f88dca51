// What the pages draw with: numbers as people read them, elements, and the scales, paths and frame of a chart.
const SPACE = "http://www.w3.org/2000/svg";

export function signed(value) {
  const text = Math.abs(Number(value.toPrecision(3))).toString();
  return (value < 0 && Number(text) !== 0 ? "−" : "+") + text;
}

export function plain(value) {
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

// value of `ys` at m by straight lines; null outside, or where a neighbour is not known
export function at(ms, ys, m) {
  if (m < ms[0] || m > ms[ms.length - 1]) return null;
  let right = ms.findIndex((x) => x >= m);
  if (ms[right] === m) return ys[right];
  const [x0, x1, y0, y1] = [ms[right - 1], ms[right], ys[right - 1], ys[right]];
  return y0 === null || y1 === null ? null : y0 + ((y1 - y0) * (m - x0)) / (x1 - x0);
}

export function make(name, kind = "", text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}

export function element(name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// an empty chart with its grid: the picture and the scales of both axes; `values` are all that it must hold
export function frame(width, { high, edge, top, bottom }, range, values) {
  const svg = element("svg", { viewBox: `0 0 ${width} ${high}`, height: high, role: "img" });
  const [lowest, highest] = padded(Math.min(...values), Math.max(...values));
  const x = (v) => edge + ((width - 2 * edge) * (v - range[0])) / (range[1] - range[0]);
  const y = (v) => top + ((high - top - bottom) * (highest - v)) / (highest - lowest);
  for (const tick of ticks(lowest, highest)) {
    svg.append(element("line", { class: "grid", x1: edge, x2: width - edge, y1: y(tick), y2: y(tick) }));
    if (y(tick) > top + 10) svg.append(element("text", { class: "halo", x: edge + 2, y: y(tick) - 3 }, plain(tick)));
  }
  if (range[0] <= 0 && range[1] >= 0) svg.append(element("line", { class: "zero-m", x1: x(0), x2: x(0), y1: top, y2: high - bottom }));
  return { svg, x, y };
}

function padded(low, high) {
  const room = (high - low || 1) * 0.06;
  return [low - room, high + room];
}

export function ticks(low, high, wanted = 4) {
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) found.push(Number(v.toPrecision(12)));
  return found;
}

export function path(ms, ys, x, y) {
  let text = "", pen = "M";
  ms.forEach((m, k) => {
    if (ys[k] === null) pen = "M";
    else [text, pen] = [`${text}${pen}${x(m).toFixed(1)} ${y(ys[k]).toFixed(1)}`, "L"];
  });
  return text;
}

export function band(ms, pairs, x, y) {
  const known = ms.map((m, k) => [m, ...pairs[k]]).filter((p) => p[1] !== null && p[2] !== null);
  if (known.length < 2) return "";
  const there = known.map(([m, , high]) => `${x(m).toFixed(1)} ${y(high).toFixed(1)}`);
  const back = known.reverse().map(([m, low]) => `${x(m).toFixed(1)} ${y(low).toFixed(1)}`);
  return `M${there.concat(back).join("L")}Z`;
}
