// Chapter 0: the width of the vectors, the scale and the temperature, and what the softmax makes of them.

import { dot, entropy, frobenius, normal, softmax, softmaxJacobian } from "./attention.js";
import { bars, button, explorer, facts, format, h, percent, radios, choice, real, short, slider, svg, whole, write } from "./ui.js";

const [WIDEST, PAIRS, KEYS] = [512, 1000, 8];
const SCALES = {
  root: ["÷ √dₖ", (d) => 1 / Math.sqrt(d)],
  none: ["none", () => 1],
  width: ["÷ dₖ", (d) => 1 / d],
};

/** Dot products of the first d components, for every d at once: running sums of the products. */
function running(pairs, draw, query = null) {
  return Array.from({ length: pairs }, () => {
    const sums = new Float64Array(WIDEST + 1);
    for (let d = 0; d < WIDEST; d++) sums[d + 1] = sums[d] + (query ? query[d] : draw()) * draw();
    return sums;
  });
}

const many = running(PAIRS, normal(20170612)); // independent pairs of a query and a key
function row(seed) {
  const draw = normal(seed);
  const query = Array.from({ length: WIDEST }, draw);
  return running(KEYS, draw, query);
}

const fields = {
  d: whole(1, WIDEST, 64),
  scale: choice(Object.keys(SCALES), "none"),
  tau: real(0.05, 20, 1),
  draw: whole(1, 9999, 1),
};

export default (root) =>
  explorer(root, fields, (tools) => {
    const spread = h("p", {});
    const plot = histogram();
    const table = bars({ label: "Scores of eight keys and their weights", columns: ["key", "score", "weight"] });
    const numbers = facts();
    let drawn = [0, null];
    let now = null;

    tools.onRender(({ d, scale, tau, draw }) => {
      if (drawn[0] !== draw) drawn = [draw, row(draw)];
      const factor = SCALES[scale][1](d);
      const scores = drawn[1].map((sums) => sums[d] * factor);
      const weights = softmax(scores, tau);
      const sample = many.map((sums) => sums[d] * factor);
      const variance = dot(sample, sample) / PAIRS;
      now = { scores, weights, H: entropy(weights), norm: frobenius(softmaxJacobian(weights, tau)), variance };
      plot.update(sample, scores, factor * Math.sqrt(d));
      write(
        spread,
        `${PAIRS.toLocaleString("en-US")} scores of random queries and keys: variance ${short(variance, 2)}, ` +
          `expected ${short(factor * factor * d, 4)}.`,
      );
      table.update(
        scores.map((score, j) => ({
          cells: [`k${"₀₁₂₃₄₅₆₇"[j]}`, format(score), format(weights[j], 3)],
          shares: [weights[j]],
        })),
      );
      numbers.update([
        ["largest weight", format(Math.max(...weights), 3)],
        ["entropy", `${format(now.H, 3)} nats`],
        ["of the most possible", percent(now.H / Math.log(KEYS))],
        ["norm of the softmax’s Jacobian", now.norm < 0.001 ? now.norm.toExponential(1) : format(now.norm, 3)],
      ]);
    });
    tools.say = ({ d, tau }) =>
      `Width ${d}, temperature ${short(tau)}: largest weight ${format(Math.max(...now.weights))}, entropy ${format(now.H)} nats.`;

    return [
      h(
        "div",
        { class: "ag-x-controls" },
        slider(tools, "d", { label: "width dₖ", logarithmic: true }),
        slider(tools, "tau", { label: "temperature τ", logarithmic: true }),
        radios(tools, "scale", { label: "scale", options: Object.entries(SCALES).map(([key, [words]]) => [key, words]) }),
        h(
          "div",
          { class: "ag-x-buttons" },
          button("New query and keys", () => tools.set({ draw: (tools.state.draw % 9999) + 1 })),
          button("Back to the one before", () => tools.set({ draw: Math.max(tools.state.draw - 1, 1) })),
        ),
      ),
      h(
        "div",
        { class: "ag-x-parts" },
        h("div", {}, plot.element, spread),
        h("div", {}, table.element),
      ),
      numbers.element,
    ];
  });

/** The scores' distribution with the normal curve of the expected spread, and the eight scores as ticks. */
function histogram() {
  const [W, H, BINS] = [320, 150, 41];
  const area = svg("path", { fill: "var(--ag-scores)", opacity: "0.35" });
  const curve = svg("path", { fill: "none", stroke: "var(--ag-ink)", "stroke-width": "1.5", "stroke-dasharray": "5 3" });
  const ticks = svg("path", { stroke: "var(--ag-weights)", "stroke-width": "2", fill: "none" });
  const labels = [0, 0.25, 0.5, 0.75, 1].map((at) => svg("text", { x: at * W, y: H + 16, "text-anchor": ["start", "middle", "middle", "middle", "end"][at * 4] }));
  const element = svg(
    "svg",
    { class: "ag-x-plot", viewBox: `0 -8 ${W} ${H + 28}`, role: "img" },
    area, curve, ticks, svg("path", { class: "ag-x-axis", d: `M0 ${H}H${W}` }), ...labels,
  ); // prettier-ignore
  return {
    element,
    update(sample, scores, sigma) {
      const reach = 4 * niceAbove(sigma); // the axis keeps its place while a slider moves a little
      const counts = new Array(BINS).fill(0);
      for (const x of sample) {
        const bin = Math.floor(((x / reach + 1) / 2) * BINS);
        if (bin >= 0 && bin < BINS) counts[bin] += 1;
      }
      const width = (2 * reach) / BINS;
      const top = Math.max(...counts, (0.4 * sample.length * width) / sigma);
      const x = (value) => (((value / reach + 1) / 2) * W).toFixed(1);
      const y = (count) => (H - (count / top) * (H - 4)).toFixed(1);
      const steps = counts.map((count, i) => `L${x(-reach + i * width)} ${y(count)}H${x(-reach + (i + 1) * width)}`);
      area.setAttribute("d", `M0 ${H}${steps.join("")}V${H}Z`);
      const points = Array.from({ length: 121 }, (_, i) => -reach + (i / 60) * reach);
      const density = (v) => (sample.length * width * Math.exp((-v * v) / (2 * sigma * sigma))) / (sigma * Math.sqrt(2 * Math.PI));
      curve.setAttribute("d", `M${points.map((v) => `${x(v)} ${y(density(v))}`).join("L")}`);
      ticks.setAttribute("d", scores.map((v) => `M${x(Math.min(Math.max(v, -reach), reach))} ${H - 10}V${H}`).join(""));
      labels.forEach((label, i) => write(label, short(-reach + (i / 2) * reach, 3)));
      element.setAttribute("aria-label", `Histogram of scores, from ${short(-reach, 3)} to ${short(reach, 3)}, with a normal curve of standard deviation ${short(sigma, 3)}. Ticks mark the eight scores of the table.`);
    },
  };
}

const niceAbove = (x) => 2 ** Math.ceil(Math.log2(x) - 1e-9);
