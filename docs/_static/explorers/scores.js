// Chapter 6: one query, four keys in the plane, and what six score functions say of them.

import { additiveScore, concatScore, cosineScore, dotScore, generalScore, scaledDotScore, softmax } from "./attention.js";
import { explorer, factor, format, h, matrix, numberGrid, real, reals, short, slider, svg, write } from "./ui.js";

const REACH = 3;
const KEYS = ["k₁", "k₂", "k₃", "k₄"];
const fields = {
  q: reals(2, -REACH, REACH, [0.6, 1.8]),
  k: reals(8, -REACH, REACH, [2, 1, 0.8, 0.4, -1.2, 1.6, 1, -1.5]),
  scale: real(0.5, 20, 4),
};
const pair = (numbers, at) => numbers.slice(2 * at, 2 * at + 2);

export default (root, data) =>
  explorer(root, fields, (tools) => {
    const vector = (a) => `(${a.map((x) => short(x)).join(", ")})`;
    const sum = (a, b) => a.map((x, d) => `${factor(x)} · ${factor(b[d])}`).join(" + ");
    const functions = [
      ["dot", (q, k) => dotScore(q, k), (q, k) => `q · k = ${sum(q, k)}`],
      ["scaled", (q, k) => scaledDotScore(q, k), (q, k) => `q · k ÷ √2 = (${sum(q, k)}) ÷ √2`],
      ["general", (q, k) => generalScore(q, k, data.general), (q, k) => `q W k, with q = ${vector(q)} and k = ${vector(k)},`],
      ["additive", (q, k) => additiveScore(q, k, data.w_query, data.w_key, data.v), (q, k) => `v · tanh(W q + U k), with q = ${vector(q)} and k = ${vector(k)},`],
      ["concat", (q, k) => concatScore(q, k, data.concat, data.readout), (q, k) => `v · tanh(W [q; k]), with [q; k] = ${vector([...q, ...k])},`],
      ["cosine", (q, k) => cosineScore(q, k, tools.state.scale), (q, k) => `${short(tools.state.scale)} × cos of the angle between ${vector(q)} and ${vector(k)}`],
    ]; // prettier-ignore
    const names = functions.map(([name]) => name);
    const readout = h("p", { class: "ag-x-readout" });
    let now = null;
    let asked = ["scores", 0, 0];
    const show = (name, label, caption) =>
      matrix({ label, kind: name, caption, onCell: (i, j) => {
        asked = [name, i, j];
        explain();
      } }); // prettier-ignore
    const scores = show("scores", "Scores", "scores of q with each key");
    const weights = show("weights", "Weights", "softmax of each row");

    function explain() {
      const [name, i, j] = asked;
      const { q, k } = now;
      if (name === "scores") {
        write(readout, `${names[i]}: ${functions[i][2](q, k[j])} = ${format(now.scores[i][j])} for ${KEYS[j]}`);
      } else {
        const others = now.scores[i].map((s) => format(Math.exp(s))).join(" + ");
        write(readout, `${names[i]}: exp(${format(now.scores[i][j])}) ÷ (${others}) = ${format(now.weights[i][j], 3)} for ${KEYS[j]}`);
      }
    }

    const plane = makePlane(tools);
    tools.onRender((state) => {
      const q = state.q;
      const k = KEYS.map((_, j) => pair(state.k, j));
      const all = functions.map(([, score]) => k.map((one) => score(q, one)));
      now = { q, k, scores: all, weights: all.map((row) => softmax(row)) };
      plane.update(q, k);
      scores.update({ values: now.scores, rows: names, columns: KEYS });
      weights.update({ values: now.weights, rows: names, columns: KEYS });
      explain();
    });
    tools.say = () =>
      `Largest weight: ${names.map((name, i) => `${name} ${KEYS[now.weights[i].indexOf(Math.max(...now.weights[i]))]}`).join(", ")}.`;

    return [
      h(
        "div",
        { class: "ag-x-parts" },
        h("div", {}, plane.element),
        h(
          "div",
          { class: "ag-x-columns" },
          numberGrid(tools, "q", { label: "query", rows: ["q"], columns: ["across", "up"], role: "query", step: 0.1 }),
          numberGrid(tools, "k", { label: "keys", rows: KEYS, columns: ["across", "up"], role: "key", step: 0.1 }),
        ),
      ),
      h("div", { class: "ag-x-columns" }, scores.element, weights.element),
      h("div", { class: "ag-x-controls" }, slider(tools, "scale", { label: "factor of the cosine", step: 0.1 })),
      readout,
      h("p", { class: "ag-x-legend" }, "W, U and v of general, additive and concat would be learned; here they are random, from a seed."),
    ];
  });

/** The plane, with the query and the keys as arrows whose points can be dragged or moved by the arrow keys. */
function makePlane(tools) {
  const SIZE = 300;
  const toX = (x) => ((x / REACH + 1) / 2) * SIZE;
  const toY = (y) => ((1 - y / REACH) / 2) * SIZE;
  const grid = [-3, -2, -1, 0, 1, 2, 3].map((at) =>
    svg("path", { d: `M${toX(at)} 0V${SIZE}M0 ${toY(at)}H${SIZE}`, stroke: at ? "var(--ag-grid)" : "var(--ag-muted)", "stroke-width": 1 }),
  );
  const points = ["q", ...KEYS].map((name, at) => {
    const colour = at ? "var(--ag-key)" : "var(--ag-query)";
    const line = svg("path", { stroke: colour, "stroke-width": at ? 1.5 : 3, fill: "none" });
    const dot = at
      ? svg("circle", { r: 9, fill: colour })
      : svg("rect", { x: -9, y: -9, width: 18, height: 18, fill: colour }); // the shape tells them apart without colour
    const text = svg("text", { x: 12, y: -10 }, name);
    const handle = svg("g", { class: "ag-x-handle", tabindex: 0, role: "button", "aria-roledescription": "point in the plane" }, svg("circle", { r: 20, fill: "transparent" }), dot, text);
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.setPointerCapture(event.pointerId);
      handle.focus({ preventScroll: true });
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = element.getBoundingClientRect();
      const x = (((event.clientX - box.left) / box.width) * 2 - 1) * REACH;
      const y = (1 - ((event.clientY - box.top) / box.height) * 2) * REACH;
      move(at, x, y);
    });
    handle.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.5 : 0.1;
      const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (!by) return;
      event.preventDefault();
      const [x, y] = at ? pair(tools.state.k, at - 1) : tools.state.q;
      move(at, x + by[0], y + by[1]);
    });
    return { name, line, handle };
  });
  function move(at, ...place) {
    const [x, y] = place.map((value) => Number(Math.min(Math.max(value, -REACH), REACH).toFixed(2)));
    if (!at) return tools.set({ q: [x, y] });
    const k = [...tools.state.k];
    k.splice(2 * (at - 1), 2, x, y);
    return tools.set({ k });
  }
  const element = svg(
    "svg",
    { class: "ag-x-plot ag-x-plane", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", "aria-label": "The query and the keys in the plane" },
    ...grid, ...points.map((p) => p.line), ...points.toReversed().map((p) => p.handle),
  ); // prettier-ignore
  return {
    element,
    update(q, k) {
      [q, ...k].forEach(([x, y], at) => {
        const { name, line, handle } = points[at];
        line.setAttribute("d", `M${toX(0)} ${toY(0)}L${toX(x)} ${toY(y)}`);
        handle.setAttribute("transform", `translate(${toX(x)} ${toY(y)})`);
        handle.setAttribute("aria-label", `${name} at ${short(x)}, ${short(y)}; arrow keys move it`);
      });
    },
  };
}
