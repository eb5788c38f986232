// Chapter 4: masks that combine, the matrix that they make, and what it costs.

import { both, countAllowed, either, materialize, opposite, pairFlops, predicates, tilesTouched } from "./attention.js";
import { button, enable, explorer, facts, h, integer, matrix, operations, percent, slider, whole, write } from "./ui.js";

const [MOST, LONGEST, WIDTH, TILE] = [4, 32, 64, 4];

// Each kind: what it is called, its numbers as [name, lowest, highest, start], its predicate, its call in Python.
const KINDS = {
  causal: ["causal", [], () => predicates.causal(), () => "ag.causal"],
  window: [
    "sliding window",
    [["back", 0, 31, 3], ["ahead", 0, 31, 0]],
    (a, b) => predicates.sliding_window(a, b),
    (a, b) => `ag.sliding_window(${a}, ${b})`,
  ],
  prefix: ["prefix", [["length", 0, 32, 4]], (p) => predicates.prefix(p), (p) => `ag.prefix(${p})`],
  document: [
    "documents",
    [["length of each", 1, 32, 5]],
    (size) => predicates.document(Array.from({ length: LONGEST }, (_, i) => Math.floor(i / size))),
    (size) => `ag.document(np.arange(n) // ${size})`,
  ],
  sinks: ["sinks", [["count", 0, 32, 1]], (s) => predicates.sinks(s), (s) => `ag.sinks(${s})`],
  strided: ["strided", [["stride", 1, 32, 4]], (s) => predicates.strided(s), (s) => `ag.strided(${s})`],
  global: ["global tokens", [["first", 0, 32, 1]], (g) => predicates.global_tokens(g), (g) => `ag.global_tokens(range(${g}))`],
}; // prettier-ignore

// A term is [joint, negated, kind, ...numbers]; the joint of the first is not used.
const term = (joint, kind, ...numbers) => [joint, false, kind, ...numbers];
const START = [term("and", "causal"), term("and", "window", 3, 0), term("or", "sinks", 1)];

const terms = {
  start: START,
  read(text) {
    const parts = text.split("_");
    if (parts.length > MOST) throw new RangeError(`At most ${MOST} masks are combined.`);
    return parts.map((part) => {
      const [joint, negated, kind, ...numbers] = part.split(".");
      const known = Object.hasOwn(KINDS, kind) && ["and", "or"].includes(joint) && ["is", "not"].includes(negated);
      const wanted = known ? KINDS[kind][1] : [];
      const values = numbers.map(Number);
      const fit = (x, i) => Number.isInteger(x) && x >= wanted[i][1] && x <= wanted[i][2];
      if (!known || values.length !== wanted.length || !values.every(fit)) {
        throw new RangeError("One of the masks in it is not a mask of this page.");
      }
      return [joint, negated === "not", kind, ...values];
    });
  },
  write: (list) => list.map(([joint, not, ...rest]) => [joint, not ? "not" : "is", ...rest].join(".")).join("_"),
};

const fields = { n: whole(2, LONGEST, 12), terms };

const predicateOf = ([, negated, kind, ...numbers]) => {
  const plain = KINDS[kind][2](...numbers);
  return negated ? opposite(plain) : plain;
};
const codeOf = ([, negated, kind, ...numbers]) => `${negated ? "~" : ""}${KINDS[kind][3](...numbers)}`;

/** From left to right, with brackets where Python would join otherwise. */
function code(list) {
  return list.slice(1).reduce(
    ({ text, last }, one) => {
      const joint = one[0] === "and" ? "&" : "|";
      return { text: `${last === "|" && joint === "&" ? `(${text})` : text} ${joint} ${codeOf(one)}`, last: joint };
    },
    { text: codeOf(list[0]), last: "" },
  ).text;
}

export default (root) =>
  explorer(root, fields, (tools) => {
    const editor = h("div", { class: "ag-x-terms" });
    const add = button("Add a mask", () => {
      if (tools.state.terms.length < MOST) change(tools.state.terms.concat([term("or", "prefix", 4)]));
    });
    const python = h("code", {});
    const readout = h("p", { class: "ag-x-readout" });
    const warning = h("p", { class: "ag-x-warning" });
    const numbers = facts();
    let made = { matrix: [[true]], parts: [], mask: () => true };
    const grid = matrix({ label: "Mask: queries down, keys across", kind: "mask", caption: "Queries go down, keys across; hatched is hidden", onCell: explain });

    const change = (list) => tools.set({ terms: list });
    const replace = (at, part) => change(tools.state.terms.map((one, i) => (i === at ? part : one)));

    function line(at, kind, size) {
      const [, wanted] = KINDS[kind];
      const joint = h("select", { class: "ag-x-select", "aria-label": `How mask ${at + 1} joins those before`, onchange: () => replace(at, [joint.value, ...tools.state.terms[at].slice(1)]) }, h("option", { value: "and" }, "and"), h("option", { value: "or" }, "or"));
      const not = h("input", { type: "checkbox", onchange: () => { const [j, , ...rest] = tools.state.terms[at]; replace(at, [j, not.checked, ...rest]); } });
      const menu = h(
        "select",
        { class: "ag-x-select", "aria-label": `Mask ${at + 1}`, onchange: () => {
          const [j, negated] = tools.state.terms[at];
          replace(at, [j, negated, menu.value, ...KINDS[menu.value][1].map(([, , , start]) => start)]);
        } },
        ...Object.entries(KINDS).map(([value, [words]]) => h("option", { value }, words)),
      ); // prettier-ignore
      const boxes = wanted.map(([name, low, high], p) => {
        const box = h("input", { type: "number", class: "ag-x-box", min: low, max: high, step: 1, "aria-label": `Mask ${at + 1}, ${name}, ${low} to ${high}`, oninput: () => {
          const value = Number(box.value);
          const good = box.value !== "" && Number.isInteger(value) && value >= low && value <= high;
          box.toggleAttribute("aria-invalid", false);
          if (!good) {
            box.setAttribute("aria-invalid", "true");
            tools.tell(`${name}: wanted is a whole number from ${low} to ${high}. The picture keeps ${tools.state.terms[at][3 + p]}.`);
            return;
          }
          const next = [...tools.state.terms[at]];
          next[3 + p] = value;
          replace(at, next);
        } });
        return box;
      }); // prettier-ignore
      const remove = button("Remove", () => change(tools.state.terms.filter((_, i) => i !== at)), { "aria-label": `Remove mask ${at + 1}` });
      const element = h(
        "div",
        { class: "ag-x-term" },
        at ? joint : null,
        h("label", { class: "ag-x-check" }, not, h("span", {}, "not")),
        menu,
        ...boxes.map((box, p) => h("label", { class: "ag-x-number" }, `${wanted[p][0]} `, box)),
        size > 1 ? remove : null,
      );
      return {
        element,
        update([j, negated, k, ...values]) {
          joint.value = j;
          not.checked = negated;
          menu.value = k;
          boxes.forEach((box, p) => {
            if (document.activeElement !== box) {
              box.value = values[p];
              box.removeAttribute("aria-invalid");
            }
          });
        },
      };
    }

    let lines = [];
    let shape = "";
    function showTerms(list) {
      const now = list.map(([, , kind]) => kind).join();
      if (now !== shape) {
        const focused = [...editor.querySelectorAll("select, input, button")].indexOf(document.activeElement);
        const [before, length] = [document.activeElement?.getAttribute("aria-label"), shape.split(",").length];
        shape = now;
        lines = list.map(([, , kind], i) => line(i, kind, list.length));
        editor.replaceChildren(...lines.map((one) => one.element));
        if (focused >= 0) {
          const same = [...editor.querySelectorAll("[aria-label]")].find((e) => e.getAttribute("aria-label") === before);
          (length === list.length && same ? same : add).focus();
        }
      }
      list.forEach((one, i) => lines[i].update(one));
      enable(add, list.length < MOST);
    }

    function explain(i, j) {
      const n = made.matrix.length;
      if (i >= n || j >= n) return;
      const said = made.parts.map(([name, part]) => `${name} ${part(i, j) ? "yes" : "no"}`).join(", ");
      write(readout, `Query ${i}, key ${j}: ${made.matrix[i][j] ? "allowed" : "hidden"}. ${said}.`);
    }

    tools.onRender(({ n, terms: list }) => {
      showTerms(list);
      const parts = list.map((one) => [codeOf(one).replace(/ag\./g, ""), predicateOf(one)]);
      const mask = list.slice(1).reduce((whole_, one, i) => (one[0] === "and" ? both : either)(whole_, parts[i + 1][1]), parts[0][1]);
      made = { matrix: materialize(mask, n), parts, mask };
      grid.update({ values: made.matrix, allowed: made.matrix, rows: n <= 16 ? made.matrix.map((_, i) => String(i)) : null, columns: n <= 16 ? made.matrix.map((_, i) => String(i)) : null, names: { rows: made.matrix.map((_, i) => `query ${i}`), columns: made.matrix.map((_, i) => `key ${i}`) } });
      write(python, code(list));
      const pairs = countAllowed(made.matrix);
      const tiles = tilesTouched(made.matrix, TILE);
      const side = Math.ceil(n / TILE);
      numbers.update([
        ["allowed pairs", `${integer(pairs)} of ${integer(n * n)}`],
        ["density", percent(pairs / (n * n), 1)],
        [`FLOPs at dₖ = ${WIDTH}`, operations(pairFlops(pairs, WIDTH))],
        [`tiles of ${TILE} × ${TILE} to compute`, `${tiles} of ${side * side}`],
      ]);
      const blind = made.matrix.flatMap((row, i) => (row.some(Boolean) ? [] : [i]));
      const ahead = made.matrix.some((row, i) => row.some((seen, j) => seen && j > i));
      write(
        warning,
        (blind.length ? `${blind.length === 1 ? `Query ${blind[0]} sees` : `${blind.length} queries see`} nothing: the output there is 0. ` : "") +
          (ahead ? "Some query sees the future." : ""),
      );
      explain(...grid.active);
    });
    tools.say = ({ n }) => `${countAllowed(made.matrix)} of ${n * n} pairs are allowed. ${warning.textContent}`;

    return [
      editor,
      h("div", { class: "ag-x-buttons" }, add),
      h("p", { class: "ag-x-code" }, python),
      h("div", { class: "ag-x-controls" }, slider(tools, "n", { label: "length n" })),
      h("div", { class: "ag-x-parts" }, h("div", { class: "ag-x-fit" }, grid.element), h("div", {}, numbers.element, warning)),
      readout,
    ];
  });
