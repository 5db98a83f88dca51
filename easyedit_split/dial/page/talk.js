// A conversation held twice, steered and not, each with its own answers; and answers of the server line by line.
import { make } from "./plotting.js";

export async function post(path, body, signal) {
  const reply = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
  if (!reply.ok) throw new Error((await reply.json()).error);
  return reply;
}

// calls `each(texts)` after every token
export async function streamed(body, signal, each) {
  const reader = (await post("/answers", body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((text) => JSON.parse(text))) {
      if (line.error) throw new Error(line.error);
      if (line.texts) each(line.texts);
    }
  }
}

export function card(kind, title) {
  const box = make("div", `answer ${kind}`);
  const head = box.appendChild(make("h3", "", title)), text = box.appendChild(make("div"));
  return { box, head, text };
}

export class Talk {
  constructor(place) {
    this.place = place;
    this.turns = [];
  }

  add(question) {
    const box = this.place.appendChild(make("div", "turn"));
    box.append(make("p", "", question));
    const answers = box.appendChild(make("div", "answers"));
    const turn = { question, plain: { text: "", cards: card("plain", "m = 0, unsteered") }, steered: { text: "", cards: card("steered", "") } };
    answers.append(turn.plain.cards.box, turn.steered.cards.box);
    this.turns.push(turn);
    return turn;
  }

  get last() {
    return this.turns[this.turns.length - 1];
  }

  // the conversation up to the last question, as `side` ("plain" or "steered") had it
  history(side) {
    const before = this.turns.slice(0, -1).flatMap((t) => [{ role: "user", content: t.question }, { role: "assistant", content: t[side].text }]);
    return [...before, { role: "user", content: this.last.question }];
  }

  // answer the last question: both sides, or the steered one where the unsteered answer stands
  async answer(strengths, words, sampling, signal) {
    const turn = this.last, key = JSON.stringify(sampling);
    const sides = turn.plain.done === key ? ["steered"] : ["plain", "steered"];
    Object.assign(turn.steered, { strengths, sampling });
    turn.run = signal;
    turn.steered.cards.head.textContent = words || "every dial at 0";
    for (const side of sides) this.mark(turn[side], "true");
    const off = strengths.map(({ name }) => ({ name, m1: 0, m2: 0 }));
    const rows = sides.map((side) => ({ turns: this.history(side), strengths: side === "plain" ? off : strengths }));
    if (sides.length === 2) turn.plain.done = "";
    try {
      await streamed({ rows, ...sampling }, signal, (texts) =>
        sides.forEach((side, k) => {
          turn[side].text = texts[k];
          turn[side].cards.text.textContent = texts[k];
        }),
      );
      if (sides.length === 2) turn.plain.done = key;
    } finally {
      if (turn.run === signal) for (const side of ["plain", "steered"]) this.mark(turn[side], "false");
    }
  }

  mark(side, busy) {
    side.cards.box.setAttribute("aria-busy", busy);
  }

  clear() {
    this.turns = [];
    this.place.replaceChildren();
  }

  exported() {
    return this.turns.map(({ question, plain, steered }) => ({
      question, unsteered: plain.text, steered: steered.text, strengths: steered.strengths, ...steered.sampling,
    }));
  }
}
