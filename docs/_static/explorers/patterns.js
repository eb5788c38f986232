// Chapter 5: a sparse pattern, what it costs at any length, and how far it reads through several layers.

import {
  attentionBytes, both, countAllowed, countPattern, either, materialize, pairFlops, predicates, randomKeys, reachability,
} from "./attention.js"; // prettier-ignore
import { bytes, checkbox, explorer, facts, flag, format, h, integer, matrix, operations, percent, slider, whole, write } from "./ui.js";

const WIDTH = 64;
const fields = {
  n: whole(8, 64, 32),
  w: whole(0, 16, 2),
  d: whole(1, 4, 1),
  s: whole(0, 16, 0),
  g: whole(0, 8, 1),
  r: whole(0, 4, 0),
  causal: flag(false),
  layers: whole(1, 8, 2),
  long: whole(10, 17, 14),
};

const near = ({ w, d, s }) => {
  const window = predicates.dilated_window(w, w, d);
  return s ? either(window, predicates.strided(s)) : window;
};

function pattern(state, table) {
  const parts = [near(state), predicates.global_tokens(state.g), ...(table ? [predicates.keys(table)] : [])];
  const all = parts.reduce(either);
  return state.causal ? both(all, predicates.causal()) : all;
}

function code({ w, d, s, g, r, causal }) {
  const parts = [d > 1 ? `ag.dilated_window(${w}, ${w}, ${d})` : `ag.sliding_window(${w}, ${w})`];
  if (s) parts.push(`ag.strided(${s})`);
  if (g) parts.push(`ag.global_tokens(range(${g}))`);
  if (r) parts.push(`ag.random_keys(${r}, n, rng=rng)`);
  const joined = parts.join(" | ");
  return causal ? `${parts.length > 1 ? `(${joined})` : joined} & ag.causal` : joined;
}

export default (root) =>
  explorer(root, fields, (tools) => {
    const python = h("code", {});
    const here = facts();
    const there = facts();
    const heading = h("p", { class: "ag-x-heading" });
    const readout = h("p", { class: "ag-x-readout" });
    let now = { made: [[true]], reached: [[true]] };
    let query = null;
    const grid = matrix({ label: "Pattern: queries down, keys across", kind: "mask", caption: "One layer: queries down, keys across", onCell: (i) => {
      query = i;
      draw();
    } }); // prettier-ignore
    const strip = matrix({ label: "What the query has read", kind: "mask", caption: "What that query has read after all layers", onCell: null });
    const drawn = {};

    /** Random keys for a length, drawn once. */
    const tableOf = (n, r) => {
      const key = `${n} ${r}`;
      if (r && !drawn[key]) drawn[key] = randomKeys(r, n, n, 2020);
      return r ? drawn[key] : null;
    };

    function draw() {
      const { n, layers } = tools.state;
      const at = Math.min(query ?? Math.floor(n / 2), n - 1);
      const names = { rows: [`query ${at}`], columns: now.made.map((_, j) => `input ${j}`) };
      strip.update({ values: [now.reached[at]], allowed: [now.reached[at]], names });
      const seen = now.made[at].filter(Boolean).length;
      const read = now.reached[at].filter(Boolean).length;
      write(readout, `Query ${at} sees ${seen} of ${n} keys. After ${layers} ${layers === 1 ? "layer" : "layers"} it has read ${read} of ${n} inputs.`);
    }

    tools.onRender((state) => {
      const { n, r, g, layers, causal } = state;
      const made = materialize(pattern(state, tableOf(n, r)), n);
      const reached = reachability(made, layers);
      now = { made, reached };
      const names = { rows: made.map((_, i) => `query ${i}`), columns: made.map((_, j) => `key ${j}`) };
      grid.update({ values: made, allowed: made, names });
      write(python, code(state));
      const pairs = countAllowed(made);
      const fields_ = reached.map((row) => row.filter(Boolean).length);
      here.update([
        ["allowed pairs", `${integer(pairs)} of ${integer(n * n)}`],
        ["density", percent(pairs / (n * n), 1)],
        ["inputs read, on average", format(fields_.reduce((a, b) => a + b, 0) / n, 1)],
        ["inputs read, fewest", integer(Math.min(...fields_))],
      ]);
      const far = 2 ** state.long;
      const count = countPattern(near(state), { n: far, tokens: g, causal, table: tableOf(far, r) });
      const cost = attentionBytes(far, WIDTH);
      const dense = causal ? (far * (far + 1)) / 2 : far * far;
      write(heading, `The same pattern at ${integer(far)} positions, one head of width ${WIDTH}`);
      there.update([
        ["allowed pairs", integer(count)],
        ["density", percent(count / (far * far), count / (far * far) < 0.001 ? 4 : 2)],
        ["FLOPs on the pairs", operations(pairFlops(count, WIDTH))],
        [causal ? "all pairs of the past" : "all pairs", operations(pairFlops(dense, WIDTH))],
        ["bytes of these scores, fp16", bytes(2 * count)],
        ["of the whole matrix", bytes(cost.scores)],
        ["of queries, keys, values, output", bytes(cost.linear)],
      ]);
      draw();
    });
    tools.say = ({ n }) => `${percent(countAllowed(now.made) / (n * n), 1)} of pairs are allowed. ${readout.textContent}`;

    const part = (key, label) => slider(tools, key, { label });
    return [
      h(
        "div",
        { class: "ag-x-controls" },
        part("w", "window, keys on each side"),
        part("d", "dilation of the window"),
        part("g", "global tokens"),
        part("r", "random keys for each query"),
        part("s", "stride, 0 for none"),
        checkbox(tools, "causal", "causal: only the past"),
      ),
      h("p", { class: "ag-x-code" }, python),
      h("div", { class: "ag-x-controls" }, part("n", "positions in the picture"), part("layers", "layers")),
      h("div", { class: "ag-x-parts" }, h("div", { class: "ag-x-fit" }, grid.element, strip.element), h("div", {}, here.element)),
      readout,
      h("div", { class: "ag-x-controls" }, part("long", "long sequence, as a power of 2")),
      heading,
      there.element,
    ];
  });
