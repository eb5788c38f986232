// Chapter 7: one key drawn at a time, and how the frequencies come to the soft weights.

import { argmax, gumbel, softmax, uniform } from "./attention.js";
import { bars, button, enable, explorer, facts, format, h, integer, numberGrid, real, reals, short, slider, svg, whole, write } from "./ui.js";

const KEYS = ["k₁", "k₂", "k₃", "k₄", "k₅"];
const MOST = 20000;
const fields = {
  z: reals(5, -9, 9, [2, 1, 0.5, 0, -1]),
  tau: real(0.05, 10, 1),
  noise: real(0, 3, 1),
  count: whole(1, MOST, 10),
  seed: whole(1, 9999, 1),
};

export default (root) =>
  explorer(root, fields, (tools) => {
    const table = bars({
      label: "Keys: their score, their soft weight and how often they were drawn",
      columns: ["key", "soft weight", "drawn", "frequency"],
      kinds: ["weights", "output"],
    });
    const last = h("p", { class: "ag-x-readout" });
    const truth = h("p", {});
    const numbers = facts();
    const curve = makeCurve();
    let drawn = [0, null];
    let now = null;

    /** The noise of every draw from a seed, one row for a draw, so that going back takes a draw away. */
    function noiseOf(seed) {
      const draw = uniform(seed * 7919);
      return Array.from({ length: MOST }, () => KEYS.map(() => gumbel(draw())));
    }

    tools.onRender(({ z, tau, noise, count, seed }) => {
      if (drawn[0] !== seed) drawn = [seed, noiseOf(seed)];
      const soft = softmax(z, tau);
      const pick = (row) => argmax(z.map((score, j) => score / tau + noise * row[j]));
      const counts = KEYS.map(() => 0);
      const path = []; // [draws so far, share of each key], at ever larger steps
      let next = 1;
      let chosen = 0;
      for (let s = 0; s < count; s++) {
        chosen = pick(drawn[1][s]);
        counts[chosen] += 1;
        if (s + 1 >= next || s + 1 === count) {
          path.push([s + 1, counts.map((c) => c / (s + 1))]);
          next = Math.max(next + 1, next * 1.04);
        }
      }
      const shares = counts.map((c) => c / count);
      const apart = Math.max(...shares.map((share, j) => Math.abs(share - soft[j])));
      const top = argmax(soft);
      const error = Math.sqrt((soft[top] * (1 - soft[top])) / count);
      now = { counts, soft, shares, apart };
      table.update(
        KEYS.map((name, j) => ({
          cells: [name, format(soft[j], 3), integer(counts[j]), format(shares[j], 3)],
          shares: [soft[j], shares[j]],
          chosen: j === chosen,
        })),
      );
      const row = drawn[1][count - 1];
      const terms = KEYS.map((name, j) => `${name} ${format(z[j] / tau + noise * row[j])}`);
      write(last, `Draw ${integer(count)}: scores ÷ τ with noise are ${terms.join(", ")}. The largest is that of ${KEYS[chosen]}.`);
      numbers.update([
        ["largest distance", format(apart, 3)],
        [`standard error of ${KEYS[top]}`, format(error, 3)],
      ]);
      write(
        truth,
        noise === 1
          ? "With noise 1 each key is drawn with exactly its soft weight."
          : noise === 0
            ? "Without noise the key with the largest score is drawn every time."
            : `With noise ${short(noise)} the frequencies go to the softmax at temperature ${short(tau * noise, 3)}, not at ${short(tau, 3)}.`,
      );
      curve.update(path, soft, top);
      enable(back, count > 1);
      for (const [more, element] of adders) enable(element, count + more <= MOST);
    });
    tools.say = ({ count }) =>
      `After ${count} draws the frequencies are ${now.shares.map((share) => format(share)).join(", ")}; largest distance from the soft weights ${format(now.apart, 3)}.`;

    const go = (by) => () => {
      const count = tools.state.count + by;
      if (count >= 1 && count <= MOST) tools.set({ count });
    };
    const back = button("Take one back", go(-1));
    const adders = [1, 10, 100, 1000].map((more) => [more, button(`Draw ${integer(more)}`, go(more))]);
    return [
      h(
        "div",
        { class: "ag-x-controls" },
        slider(tools, "count", { label: "draws", logarithmic: true }),
        slider(tools, "tau", { label: "temperature τ", logarithmic: true }),
        slider(tools, "noise", { label: "noise", step: 0.05 }),
        numberGrid(tools, "z", { label: "scores", rows: ["z"], columns: KEYS }),
      ),
      h(
        "div",
        { class: "ag-x-buttons" },
        ...adders.map(([, element]) => element),
        back,
        button("Other noise", () => tools.set({ seed: (tools.state.seed % 9999) + 1 })),
      ),
      table.element,
      h("p", { class: "ag-x-legend" }, h("span", { class: "ag-x-fill ag-x-fill-weights" }), " soft weight ", h("span", { class: "ag-x-fill ag-x-fill-output" }), " frequency"),
      numbers.element,
      curve.element,
      truth,
      last,
    ];
  });

/** The frequency of one key as draws are added, and the band where two of three such curves would be. */
function makeCurve() {
  const [W, H] = [360, 150];
  const band = svg("path", { fill: "var(--ag-grid)" });
  const level = svg("path", { stroke: "var(--ag-weights)", "stroke-width": 1.5, "stroke-dasharray": "5 3", fill: "none" });
  const line = svg("path", { stroke: "var(--ag-value)", "stroke-width": 2, fill: "none" });
  const marks = [1, 10, 100, 1000, 10000];
  const x = (n) => (Math.log(n) / Math.log(MOST)) * W;
  const y = (share) => H - share * H;
  const label = h("p", {});
  const element = svg(
    "svg",
    { class: "ag-x-plot ag-x-curve", viewBox: `-4 -4 ${W + 8} ${H + 24}`, role: "img" },
    band, level, line,
    svg("path", { class: "ag-x-axis", d: `M0 ${H}H${W}` }),
    ...marks.map((n) => svg("text", { x: x(n), y: H + 15, "text-anchor": n === 1 ? "start" : "middle" }, integer(n))),
  ); // prettier-ignore
  return {
    element: h("div", {}, label, element),
    update(path, soft, top) {
      const p = soft[top];
      const places = Array.from({ length: 60 }, (_, i) => MOST ** (i / 59));
      const edge = (n, sign) => `${x(n).toFixed(1)} ${y(Math.min(Math.max(p + sign * 2 * Math.sqrt((p * (1 - p)) / n), 0), 1)).toFixed(1)}`;
      band.setAttribute("d", `M${places.map((n) => edge(n, 1)).join("L")}L${places.toReversed().map((n) => edge(n, -1)).join("L")}Z`);
      level.setAttribute("d", `M0 ${y(p)}H${W}`);
      line.setAttribute("d", `M${path.map(([n, shares]) => `${x(n).toFixed(1)} ${y(shares[top]).toFixed(1)}`).join("L")}`);
      write(label, `Frequency of ${KEYS[top]} against the number of draws; dashed its soft weight, grey two standard errors around it:`);
      element.setAttribute("aria-label", `Frequency of ${KEYS[top]} against the number of draws: ${format(path.at(-1)[1][top], 3)} at the end, beside a soft weight of ${format(p, 3)}.`);
    },
  };
}
