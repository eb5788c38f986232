// Chapter 2: a trained translator, word by word, with the source words that it reads for each.

import { argmax, unpack } from "./attention.js";
import { bars, explorer, format, h, integer, matrix, percent, select, stepper, whole, write } from "./ui.js";

const plain = (word) => word.replace("<stop>", "‹stop›");

export default (root, data) => {
  const { items, accuracy, counts } = data;
  const longest = Math.max(...items.map((item) => item.target.length));
  const fields = { item: whole(0, items.length - 1, 2), step: whole(0, longest - 1, 0) };
  const tables = items.map((item) => unpack(item.weights, item.target.length, item.source.length));

  return explorer(root, fields, (tools) => {
    const sentence = h("p", { class: "ag-x-sentence", lang: "de" });
    const verdict = h("p", {});
    const readout = h("p", { class: "ag-x-readout" });
    const table = bars({ label: "Weights of the source words", columns: ["read", "weight"] });
    let now = null;
    let asked = null;
    const grid = matrix({ label: "Alignment: written words down, read words across", kind: "weights", caption: "Written words go down, read words across", onCell: (i, j) => {
      asked = [i, j];
      explain();
    } }); // prettier-ignore

    function explain() {
      const { item, weights, step } = now;
      const [i, j] = asked ?? [step, argmax(weights[step])];
      if (i > step || j >= item.source.length) {
        write(readout, `Step ${step + 1}: “${plain(item.target[step])}” is written.`);
      } else {
        write(readout, `While writing “${plain(item.target[i])}” the decoder gives “${plain(item.source[j])}” ${format(weights[i][j], 3)} of its attention.`);
      }
    }

    tools.onRender((state) => {
      const item = items[state.item];
      const weights = tables[state.item];
      const last = item.target.length - 1;
      const step = Math.min(state.step, last);
      if (!now || now.item !== item || now.step !== step) asked = null;
      now = { item, weights, step };
      const source = item.source.map(plain);
      const target = item.target.map(plain);
      const top = argmax(weights[step]);
      sentence.replaceChildren(
        ...target.slice(0, step + 1).flatMap((word, i) => [i === step ? h("strong", {}, word) : h("span", {}, word), " "]),
      );
      table.update(source.map((word, j) => ({ cells: [word, format(weights[step][j], 3)], shares: [weights[step][j]], chosen: j === top })));
      grid.update({
        values: weights.map((row, i) => (i <= step ? row : row.map(() => null))),
        rows: target.map((word, i) => (i <= step ? word : "…")),
        columns: source,
      });
      const right = item.target.slice(0, -1).join(" ") === item.reference.join(" ");
      write(
        verdict,
        step < last
          ? ""
          : right
            ? "The translation is right."
            : `The translation is wrong. Right is: ${item.reference.join(" ")}.`,
      );
      explain();
    });
    tools.say = () => {
      const { item, weights, step } = now;
      const top = argmax(weights[step]);
      return `“${plain(item.target[step])}” is written; most weight, ${format(weights[step][top])}, on “${plain(item.source[top])}”. ${verdict.textContent}`;
    };
    const groups = { held_out: "unseen", longer: "longer than trained" };
    const options = items.map((item, i) => [String(i), `${item.source.slice(0, -1).join(" ")} (${groups[item.test]})`]);
    const picker = select(tools, "item", { label: "Number to translate", options });
    picker.querySelector("select").addEventListener("change", () => tools.set({ step: 0 }));
    return [
      picker,
      stepper(tools, "step", { last: (state) => items[state.item].target.length - 1, unit: "Word" }),
      sentence,
      verdict,
      h("div", { class: "ag-x-parts" }, h("div", {}, table.element), h("div", { class: "ag-x-fit" }, grid.element)),
      readout,
      h("p", { class: "ag-x-legend" }, `Of ${integer(counts.held_out)} unseen numbers the model translates ${percent(accuracy.held_out, 1)} without a mistake, of ${integer(counts.longer)} longer ones ${percent(accuracy.longer, 1)}.`),
    ];
  });
};
