// Chapter 3: the heads of trained models, one at a time, on several texts.

import { argmax, entropy, unpackLower } from "./attention.js";
import { colourOf } from "./colours.js";
import { explorer, facts, format, h, matrix, select, whole, write } from "./ui.js";

const ROLES = {
  previous: "on the token before",
  induction: "on what followed last time",
  same: "on the same token, earlier",
  first: "on the first token",
};
const plain = (token) => token.replace(" ", "␣");

export default (root, data) => {
  const layers = data[0].weights.length;
  const count = data[0].weights[0].length;
  const fields = {
    input: whole(0, data.length - 1, 0),
    head: whole(0, layers * count - 1, layers * count - 2),
  };
  const unpacked = data.map((input) => input.weights.flat().map((text) => unpackLower(text, input.tokens.length)));

  return explorer(root, fields, (tools) => {
    const readout = h("p", { class: "ag-x-readout" });
    const numbers = facts();
    const group = `ag-heads-${Math.floor(performance.now())}`;
    let now = null;
    const grid = matrix({ label: "Weights of the head", kind: "weights", caption: "Queries go down, keys across", onCell: explain });
    const picks = Array.from({ length: layers * count }, (_, at) => {
      const canvas = h("canvas", { width: 64, height: 64, "aria-hidden": "true" });
      const input = h("input", { type: "radio", name: group, value: at, class: "ag-x-hidden", onchange: () => tools.set({ head: at }) });
      const name = `layer ${Math.floor(at / count)}, head ${at % count}`;
      return { canvas, input, name, element: h("label", { class: "ag-x-pick" }, input, canvas, h("span", {}, name)) };
    });

    function explain(i, j) {
      if (!now || i >= now.tokens.length || j >= now.tokens.length) return;
      const [query, key] = [now.tokens[i], now.tokens[j]].map(plain);
      write(
        readout,
        j > i
          ? `Position ${i} (${query}) cannot see position ${j}, which comes later.`
          : `Position ${i} (${query}) gives position ${j} (${key}) ${format(now.weights[i][j], 3)} of its attention. Its largest weight, ${format(Math.max(...now.weights[i]), 3)}, is on position ${argmax(now.weights[i])}.`,
      );
    }

    let thumbs = null;
    tools.onRender(({ input, head }) => {
      const { tokens, scores } = data[input];
      if (thumbs !== input) {
        thumbs = input;
        picks.forEach(({ canvas }, at) => paint(canvas, unpacked[input][at]));
      }
      picks.forEach((pick, at) => {
        pick.input.checked = at === head;
        pick.element.classList.toggle("ag-x-picked", at === head);
      });
      const weights = unpacked[input][head];
      now = { tokens, weights };
      grid.update({
        values: weights,
        allowed: weights.map((row, i) => row.map((_, j) => j <= i)),
        rows: tokens.map(plain),
        columns: tokens.map(plain),
        names: { rows: tokens.map((t, i) => `query ${i}, ${plain(t)}`), columns: tokens.map((t, j) => `key ${j}, ${plain(t)}`) },
      });
      const [layer, at] = [Math.floor(head / count), head % count];
      const bits = weights.map(entropy);
      const before = weights.slice(1).map((row, i) => row[i]);
      numbers.update([
        ["mean entropy of a row", `${format(bits.reduce((a, b) => a + b, 0) / bits.length)} nats`],
        ["mean weight on the token before, here", format(before.reduce((a, b) => a + b, 0) / before.length)],
        ...(scores ? Object.entries(ROLES).map(([key, words]) => [`${words}, over 100 sequences`, format(scores[key][layer][at])]) : []),
      ]);
      explain(...grid.active);
    });
    tools.say = ({ head }) => `${picks[head].name}. ${numbers.element.innerText.replace(/\n+/g, ", ")}.`;

    return [
      select(tools, "input", { label: "What the model reads", options: data.map((input, i) => [String(i), input.name]) }),
      h("fieldset", { class: "ag-x-control ag-x-picks" }, h("legend", {}, "Head"), ...picks.map(({ element }) => element)),
      h("div", { class: "ag-x-parts" }, h("div", { class: "ag-x-fit" }, grid.element), h("div", {}, numbers.element)),
      readout,
    ];
  });
};

/** A small picture of a matrix. */
function paint(canvas, weights) {
  const n = weights.length;
  canvas.width = canvas.height = n;
  const context = canvas.getContext("2d");
  const image = context.createImageData(n, n);
  weights.forEach((row, i) =>
    row.forEach((weight, j) => {
      if (j <= i) image.data.set([...colourOf("weights", weight), 255], 4 * (i * n + j));
    }),
  );
  context.putImageData(image, 0, 0);
}
