// Chapter 1: a sentence of the reader's own through the five steps.

import { selfAttention } from "./attention.js";
import { explorer, factor, format, h, integer, line, matrix, quote, short, stepper, whole, write } from "./ui.js";

const [MOST, LONGEST] = [8, 200];
const STEPS = ["project", "compare", "scale", "decide", "mix"];

export default (root, data) => {
  const fields = { text: line("The cat sat", LONGEST), step: whole(0, STEPS.length - 1, 0) };
  const { features, words, w_q: wQ, w_k: wK, w_v: wV } = data;
  const zero = features.map(() => 0);
  const known = (token) => Object.hasOwn(words, token.toLowerCase()); // "constructor" is a word like any other
  const vector = (token) => (known(token) ? words[token.toLowerCase()] : zero);

  return explorer(root, fields, (tools) => {
    const box = h("input", {
      type: "text", class: "ag-x-text", id: "ag-five-steps-text", "data-free": true, autocomplete: "off",
      spellcheck: "false", oninput: typed,
    }); // prettier-ignore
    const error = h("p", { class: "ag-x-error", id: "ag-five-steps-error", hidden: true });
    const hint = h("p", {});
    const readout = h("p", { class: "ag-x-readout" });
    let now = null;
    let asked = null;
    let at = -1; // the step that was drawn last
    const show = (name, kind, caption, digits = 2) =>
      matrix({ label: [caption].flat()[0], kind, caption, digits, onCell: (i, j) => {
        asked = [name, i, j];
        explain();
      } }); // prettier-ignore
    const by = (letter) => [`${letter} = X W`, h("sub", {}, letter)];
    const captions = {
      x: () => ["values", "X, the tokens", 0],
      q: () => ["values", by("Q"), 0],
      k: () => ["values", by("K"), 0],
      v: () => ["values", by("V"), 0],
      raw: () => ["scores", "Q Kᵀ", 0],
      scores: () => ["scores", "scores = Q Kᵀ ÷ √2"],
      weights: () => ["weights", "weights = softmax of each row"],
      output: () => ["values", "output = weights × V"],
    };
    // What each step takes and then makes, and of these the one that is asked about first.
    const made = ["q", "raw", "scores", "weights", "output"];
    const groups = [["x", "q", "k", "v"], ["q", "k", "raw"], ["raw", "scores"], ["scores", "weights"], ["weights", "v", "output"]];
    const shown = groups.map((group) => Object.fromEntries(group.map((key) => [key, show(key, ...captions[key]())])));
    const panels = shown.map((group) => h("div", { class: "ag-x-columns" }, ...Object.values(group).map((m) => m.element)));

    /** What the sentence is made of, and a message where something in it needs one. */
    function read(text) {
      const tokens = text.split(/\s+/u).filter(Boolean);
      const used = tokens.slice(0, MOST);
      const unknown = [...new Set(used.filter((token) => !known(token)))];
      const notes = [];
      if (tokens.length > MOST) notes.push(`${integer(tokens.length)} words: the first ${MOST} are used.`);
      if (unknown.length) {
        notes.push(`${unknown.map(quote).join(", ")}: not in the small vocabulary of this example, so a vector of zeros.`);
      }
      return { used, notes };
    }
    function refuse(message) {
      write(error, message);
      error.hidden = !message;
      if (message) {
        box.setAttribute("aria-invalid", "true");
        box.setAttribute("aria-describedby", error.id);
      } else {
        box.removeAttribute("aria-invalid");
        box.removeAttribute("aria-describedby");
      }
    }
    function typed() {
      try {
        tools.set({ text: fields.text.read(box.value) });
        return refuse("");
      } catch (problem) {
        return refuse(`${problem.message} The picture keeps the sentence before.`);
      }
    }

    const name = (i) => (now.tokens.length > new Set(now.tokens).size ? `${now.tokens[i]} (${i + 1})` : now.tokens[i]);
    const sum = (a, b) => a.map((value, d) => `${factor(value)} · ${factor(b[d])}`).join(" + ");
    const column = (m, j) => m.map((row) => row[j]);
    function explain() {
      const { x, q, k, v, raw, scores, weights, output } = now;
      const [what, i, j] = asked;
      if (i >= now.tokens.length) return;
      const projected = (letter, matrix_, result) =>
        `${letter} of ${name(i)}, component ${j + 1}: ${sum(x[i], column(matrix_, j))} = ${short(result[i][j])}`;
      const texts = {
        x: () => `${name(i)}: ${features[j]} ${short(x[i][j])}`,
        q: () => projected("Query", wQ, q),
        k: () => projected("Key", wK, k),
        v: () => projected("Value", wV, v),
        raw: () => `${name(i)} asks, ${name(j)} answers: ${sum(q[i], k[j])} = ${short(raw[i][j])}`,
        scores: () => `${name(i)} and ${name(j)}: ${short(raw[i][j])} ÷ √${wQ[0].length} = ${format(scores[i][j])}`,
        weights: () => {
          const powers = scores[i].map((s) => format(Math.exp(s)));
          return `${name(i)} gives ${name(j)}: exp(${format(scores[i][j])}) ÷ (${powers.join(" + ")}) = ${format(weights[i][j], 3)}`;
        },
        output: () =>
          `${name(i)}, component ${j + 1}: ${weights[i].map((w, m) => `${format(w, 3)} · ${factor(v[m][j])}`).join(" + ")} = ${format(output[i][j])}`,
      };
      write(readout, texts[what]());
    }

    tools.onRender(({ text, step }) => {
      const { used: tokens, notes } = read(text);
      const x = tokens.map(vector);
      now = { tokens, x, ...selfAttention(x, wQ, wK, wV) };
      if (document.activeElement !== box && !box.hasAttribute("aria-invalid")) box.value = text;
      if (!box.hasAttribute("aria-invalid")) error.hidden = true;
      write(hint, notes.join(" "));
      const labels = tokens.map((token) => quote(token).slice(1, -1));
      const components = (m, word) => Array.from({ length: m[0].length }, (_, j) => `${word} ${j + 1}`);
      shown.forEach((group, g) => {
        panels[g].hidden = g !== step;
        for (const [key, m] of Object.entries(group)) {
          const square = ["raw", "scores", "weights"].includes(key);
          const columns = square ? labels : key === "x" ? ["det.", "noun", "verb", "living"] : null;
          const names = { rows: labels, columns: square ? labels : key === "x" ? features : components(now[key], "component") };
          m.update({ values: now[key], rows: labels, columns, names });
        }
      });
      const main = made[step];
      if (at !== step) asked = [main, ...shown[step][main].active];
      at = step;
      if (asked[1] >= tokens.length || asked[2] >= now[asked[0]][0].length) asked = [asked[0], 0, 0];
      explain();
    });
    tools.say = ({ step }) => `Step ${step + 1}, ${STEPS[step]}. ${readout.textContent}`;

    return [
      h("div", { class: "ag-x-control" }, h("label", { for: box.id }, "Your sentence"), box, error, hint),
      stepper(tools, "step", { last: () => STEPS.length - 1, name: ({ step }) => STEPS[step] }),
      ...panels,
      readout,
      h("details", {}, h("summary", {}, `The ${Object.keys(words).length} words it knows`), h("p", {}, Object.keys(words).join(", "))),
    ];
  });
};
