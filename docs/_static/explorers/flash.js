// Chapter 5: FlashAttention tile by tile, with the maximum and the sum that each row carries along.

import { attention, attentionScores, emptyState, normal, onlineResult, onlineStep } from "./attention.js";
import { button, checkbox, choice, explorer, facts, flag, format, h, matrix, radios, stepper, whole, write } from "./ui.js";

const [N, WIDTH] = [8, 2];
const fields = {
  step: whole(0, 64, 0),
  rows: choice(["1", "2", "4", "8"], "4"),
  columns: choice(["1", "2", "4", "8"], "2"),
  causal: flag(false),
  draw: whole(1, 9999, 1),
};

/** The tiles in the order in which they are made: for each block of queries, its blocks of keys. */
function tilesOf({ rows, columns, causal }) {
  const [br, bc] = [Number(rows), Number(columns)];
  const tiles = [];
  for (let i = 0; i < N; i += br) {
    for (let j = 0; j < N; j += bc) if (!causal || j <= i + br - 1) tiles.push([i, j]);
  }
  return { br, bc, tiles };
}

export default (root) =>
  explorer(root, fields, (tools) => {
    const readout = h("p", { class: "ag-x-readout" });
    const numbers = facts();
    const grid = matrix({ label: "Scores", kind: "scores", digits: 1, caption: "Scores: only the framed tile is in memory", onCell: point });
    const head = ["query", "running max", "rescaled by", "running sum", "output"];
    const body = h("tbody", {}, ...Array.from({ length: N }, () => h("tr", {}, h("th", { scope: "row" }), ...head.slice(1).map(() => h("td")))));
    const carried = h(
      "table",
      { class: "ag-x-bars ag-x-carried" },
      h("caption", { class: "ag-x-hidden" }, "What each row carries along"),
      h("thead", {}, h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, name)))),
      body,
    );
    let now = null;

    function problem(draw) {
      const next = normal(draw * 104729);
      const make = (n, d) => Array.from({ length: n }, () => Array.from({ length: d }, () => Math.round(next() * 10) / 10));
      return [make(N, WIDTH), make(N, WIDTH), make(N, WIDTH)];
    }
    function point(i, j) {
      if (!now) return;
      const [row, column] = [Math.floor(i / now.br) * now.br, Math.floor(j / now.bc) * now.bc];
      const at = now.tiles.findIndex(([a, b]) => a === row && b === column);
      const text =
        at < 0 ? "lies in the future and is never made" : at + 1 === now.done ? "is in memory" : at < now.done ? "was used and is forgotten" : `comes at step ${at + 1}`;
      write(readout, `The tile of query ${i} and key ${j} ${text}. ${at < now.done && at >= 0 && Number.isFinite(now.scores[i][j]) ? `The score there is ${format(now.scores[i][j])}.` : ""}`);
    }

    tools.onRender((state) => {
      const { br, bc, tiles } = tilesOf(state);
      const [q, k, v] = problem(state.draw);
      const allowed = q.map((_, i) => k.map((_key, j) => !state.causal || j <= i));
      const scores = attentionScores(q, k, { allowed });
      const done = Math.min(state.step, tiles.length);
      const states = q.map(() => emptyState(WIDTH));
      for (const [i, j] of tiles.slice(0, done)) {
        for (let row = i; row < i + br; row++) states[row] = onlineStep(states[row], scores[row].slice(j, j + bc), v.slice(j, j + bc));
      }
      now = { br, bc, tiles, done, scores };
      const current = tiles[done - 1];
      const place = new Map(tiles.map(([i, j], at) => [`${i} ${j}`, at]));
      const inside = (i, j) => current && i >= current[0] && i < current[0] + br && j >= current[1] && j < current[1] + bc;
      const at = (i, j) => place.get(`${Math.floor(i / br) * br} ${Math.floor(j / bc) * bc}`);
      grid.update({
        values: scores.map((row, i) => row.map((score, j) => (at(i, j) < done ? score : null))),
        allowed,
        rows: scores.map((_, i) => `q${i}`),
        columns: scores.map((_, j) => `k${j}`),
        marks: scores.map((row, i) => row.map((_, j) => (inside(i, j) ? "ag-x-marked" : at(i, j) < done ? "ag-x-faded" : ""))),
      });
      const exact = attention(q, k, v, { allowed }).output;
      let apart = 0;
      let finished = 0;
      states.forEach((one, i) => {
        const cells = body.children[i].children;
        const active = current && i >= current[0] && i < current[0] + br;
        body.children[i].classList.toggle("ag-x-chosen", Boolean(active));
        const result = onlineResult(one);
        const untouched = one.max === -Infinity;
        write(cells[0], `q${i}`);
        write(cells[1], format(one.max));
        write(cells[2], untouched ? "" : format(one.rescale));
        write(cells[3], untouched ? "0" : format(one.sum));
        write(cells[4], untouched ? "" : result.map((x) => format(x)).join(", "));
        if (tiles.every(([a], t) => a !== Math.floor(i / br) * br || t < done)) {
          finished += 1;
          apart = Math.max(apart, ...result.map((x, d) => Math.abs(x - exact[i][d])));
        }
      });
      numbers.update([
        ["scores in memory at once", `${br * bc}`],
        ["in the whole matrix", `${N * N}`],
        ["tiles to make", `${tiles.length} of ${Math.ceil(N / br) * Math.ceil(N / bc)}`],
        ["rows finished", `${finished} of ${N}`],
        ["furthest from the plain softmax", finished ? (apart < 1e-12 ? "less than 10⁻¹²" : apart.toExponential(1)) : "no row yet"],
      ]);
      point(...grid.active);
      now.moved = current ? tiles[done - 1] : null;
    });
    tools.say = () => {
      if (!now.moved) return "No tile has been made.";
      const [i, j] = now.moved;
      const row = body.children[i].children;
      return `Tile of queries ${i} to ${i + now.br - 1} and keys ${j} to ${j + now.bc - 1}. Query ${i}: running maximum ${row[1].textContent}, running sum ${row[3].textContent}.`;
    };

    const size = (key, label) => radios(tools, key, { label, options: ["1", "2", "4", "8"].map((x) => [x, x]) });
    return [
      h(
        "div",
        { class: "ag-x-controls" },
        size("rows", "queries in a tile"),
        size("columns", "keys in a tile"),
        checkbox(tools, "causal", "causal: tiles of the future are skipped"),
        button("Other numbers", () => tools.set({ draw: (tools.state.draw % 9999) + 1 })),
      ),
      stepper(tools, "step", { last: (state) => tilesOf(state).tiles.length, where: (at, most) => `${at} of ${most} tiles made` }),
      h("div", { class: "ag-x-parts" }, h("div", { class: "ag-x-fit" }, grid.element), h("div", {}, carried)),
      numbers.element,
      readout,
    ];
  });
