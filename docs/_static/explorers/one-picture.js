// Home: the picture with its numbers free to change.

import { attention } from "./attention.js";
import { explorer, factor, format, h, matrix, numberGrid, real, reals, short, slider, write } from "./ui.js";

const WORDS = ["The", "cat", "sat"];
const fields = {
  q: reals(6, -9, 9, [1, 0, 0, 2, 2, 1]),
  k: reals(6, -9, 9, [1, 1, 0, 2, 2, 0]),
  v: reals(6, -9, 9, [1, 0, 0, 1, 1, 1]),
  tau: real(0.05, 20, 1),
};
const table = (numbers) => [0, 2, 4].map((at) => numbers.slice(at, at + 2));

export default (root) =>
  explorer(root, fields, (tools) => {
    const readout = h("p", { class: "ag-x-readout" });
    let now = null;
    let asked = ["weights", 1, 1];
    const show = (name, label, caption) =>
      matrix({ label, kind: { scores: "scores", weights: "weights", output: "values" }[name], caption, onCell: (i, j) => {
        asked = [name, i, j];
        explain();
      } }); // prettier-ignore
    const scores = show("scores", "Scores", "scores = Q Kᵀ ÷ √2");
    const weights = show("weights", "Weights", "weights = softmax of each row");
    const output = show("output", "Output", "output = weights × V");

    function explain() {
      const [name, i, j] = asked;
      const { q, k, v } = now;
      const product = (a, b) => a.map((x, d) => `${factor(x)} · ${factor(b[d])}`).join(" + ");
      if (name === "scores") {
        write(readout, `${WORDS[i]} asks, ${WORDS[j]} answers: (${product(q[i], k[j])}) ÷ √2 = ${format(now.scores[i][j])}`);
      } else if (name === "weights") {
        const powers = now.scores[i].map((s) => `exp(${format(s)}${now.tau === 1 ? "" : ` ÷ ${short(now.tau)}`})`);
        write(readout, `${WORDS[i]} gives ${WORDS[j]}: ${powers[j]} ÷ (${powers.join(" + ")}) = ${format(now.weights[i][j], 3)}`);
      } else {
        const terms = now.weights[i].map((w, m) => `${format(w, 3)} · ${factor(v[m][j])}`);
        write(readout, `${WORDS[i]} takes home, in component ${j + 1}: ${terms.join(" + ")} = ${format(now.output[i][j])}`);
      }
    }

    tools.onRender((state) => {
      const [q, k, v] = [table(state.q), table(state.k), table(state.v)];
      now = { q, k, v, tau: state.tau, ...attention(q, k, v, { temperature: state.tau }) };
      scores.update({ values: now.scores, rows: WORDS, columns: WORDS });
      weights.update({ values: now.weights, rows: WORDS, columns: WORDS });
      output.update({ values: now.output, rows: WORDS, columns: ["1", "2"], names: { rows: WORDS, columns: ["component 1", "component 2"] } });
      explain();
    });
    tools.say = () => {
      const row = now.weights[1];
      return `cat attends ${WORDS.map((word, j) => `${format(row[j])} to ${word}`).join(", ")}.`;
    };
    const grid = (key, label, role) => numberGrid(tools, key, { label, rows: WORDS, columns: ["component 1", "component 2"], role });
    return [
      h("div", { class: "ag-x-columns" }, grid("q", "Q, what each word asks", "query"), grid("k", "K, what it offers", "key"), grid("v", "V, what it gives", "value")),
      h("div", { class: "ag-x-controls" }, slider(tools, "tau", { label: "temperature τ", logarithmic: true })),
      h("div", { class: "ag-x-columns" }, scores.element, weights.element, output.element),
      readout,
    ];
  });
