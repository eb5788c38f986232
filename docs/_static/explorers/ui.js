// What the explorers share: a state that the address can hold, controls, matrices. All text goes in as text.

import { colourOf, inkOn } from "./colours.js";

// --- elements ---------------------------------------------------------------------------------------------------------

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export const h = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** Set a text only where it differs: what does not change is not drawn again. */
export const write = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};
const attribute = (element, name, value) => {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
};

let serial = 0;
const unique = () => `ag-x${++serial}`;

// --- numbers as text -----------------------------------------------------------------------------------------------------

export function format(x, digits = 2) {
  if (x === Infinity) return "∞";
  if (x === -Infinity) return "−∞";
  const text = x.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}
/** As few digits as the number needs, and at most so many. */
export const short = (x, digits = 2) => format(x, digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
/** A number as a factor: a negative one in brackets. */
export const factor = (x, digits = 2) => (x < 0 ? `(${short(x, digits)})` : short(x, digits));
export const integer = (x) => x.toLocaleString("en-US");
export const percent = (x, digits = 0) => `${format(100 * x, digits)} %`;
export function bytes(x) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const at = x < 1 ? 0 : Math.min(Math.floor(Math.log2(x) / 10), units.length - 1);
  return `${short(x / 1024 ** at, 1)} ${units[at]}`;
}
export function operations(x) {
  const units = ["", " thousand", " million", " billion", " trillion"];
  const at = x < 1000 ? 0 : Math.min(Math.floor(Math.log10(x) / 3), units.length - 1);
  return `${short(x / 1000 ** at, 1)}${units[at]}`;
}
/** A text as it may be quoted in a message: not longer than a line. */
export const quote = (text) => {
  const letters = Array.from(text);
  return `“${letters.length > 24 ? `${letters.slice(0, 24).join("")}…` : text}”`;
};

// --- the state: what each part may be, and how the address writes it ----------------------------------------------------

const wrong = (wanted, text) => new RangeError(`${wanted}, and ${quote(text)} is not.`);

const number = (text) => {
  const plain = text.trim().replace(/^−/, "-").replace(",", ".");
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
};
export const real = (low, high, start) => ({
  start,
  low,
  high,
  read(text) {
    const value = number(text);
    if (value >= low && value <= high) return value;
    throw wrong(`Wanted is a number from ${short(low)} to ${short(high)}`, text);
  },
  write: (value) => String(Number(value.toPrecision(6))),
});
export const whole = (low, high, start) => ({
  start,
  low,
  high,
  read(text) {
    const value = number(text);
    if (Number.isInteger(value) && value >= low && value <= high) return value;
    throw wrong(`Wanted is a whole number from ${integer(low)} to ${integer(high)}`, text);
  },
  write: String,
});
export const choice = (values, start = values[0]) => ({
  start,
  values,
  read(text) {
    if (values.includes(text)) return text;
    throw wrong(`Wanted is one of ${values.join(", ")}`, text);
  },
  write: String,
});
export const flag = (start) => ({
  start,
  read(text) {
    if (text === "1" || text === "0") return text === "1";
    throw wrong("Wanted is 0 or 1", text);
  },
  write: (value) => (value ? "1" : "0"),
});
export const line = (start, most) => ({
  start,
  most,
  read(text) {
    if (!text.trim()) throw new RangeError("Wanted is at least one word.");
    const letters = Array.from(text);
    if (letters.length <= most) return text;
    throw new RangeError(`Wanted is a text of at most ${most} characters; this one has ${integer(letters.length)}.`);
  },
  write: String,
});
export const reals = (length, low, high, start) => ({
  start,
  length,
  low,
  high,
  read(text) {
    const values = text.split("_").map(number);
    if (values.length === length && values.every((x) => x >= low && x <= high)) return values;
    throw wrong(`Wanted are ${length} numbers from ${short(low)} to ${short(high)}`, text);
  },
  write: (values) => values.map((x) => Number(x.toFixed(4))).join("_"),
});

const copyOf = (value) => (Array.isArray(value) ? value.map(copyOf) : value);
const starts = (fields) => Object.fromEntries(Object.entries(fields).map(([key, f]) => [key, copyOf(f.start)]));

function decode(name, fields, hash) {
  const state = starts(fields);
  const problems = [];
  const prefix = `#explorer-${name}:`;
  if (!hash.startsWith(prefix)) return { state, problems };
  for (const [key, text] of new URLSearchParams(hash.slice(prefix.length))) {
    if (!Object.hasOwn(fields, key)) {
      problems.push(`It has no setting ${quote(key)}.`);
      continue;
    }
    try {
      state[key] = fields[key].read(text);
    } catch (error) {
      problems.push(`${key}: ${error.message}`);
    }
  }
  return { state, problems };
}

function encode(name, fields, state) {
  const changed = Object.entries(fields)
    .map(([key, field]) => [key, field.write(state[key]), field.write(field.start)])
    .filter(([, now, start]) => now !== start);
  const parameters = new URLSearchParams(changed.map(([key, now]) => [key, now])).toString();
  return `#explorer-${name}:${parameters}`;
}

// --- an explorer -----------------------------------------------------------------------------------------------------------

const SETTLE = 700; // ms without a change before the result is said and the address written

/**
 * Put an explorer in place of its figure. `make(tools)` returns its elements; `tools.onRender` takes what draws the
 * state, and `tools.say` what a screen reader hears of it when it has come to rest.
 */
export function explorer(root, fields, make) {
  const name = root.dataset.explorer;
  let { state, problems } = decode(name, fields, location.hash);
  let frame = 0;
  let timer = 0;
  let touched = false;
  const drawers = [];
  const live = h("p", { class: "ag-x-live", role: "status" });
  const note = h("p", { class: "ag-x-note" });

  const tools = {
    fields,
    say: () => "",
    get state() {
      return state;
    },
    onRender: (draw) => drawers.push(draw),
    /** Change a part of the state; what shows it is drawn once before the next frame. */
    set(patch) {
      state = { ...state, ...patch };
      touched = true;
      write(note, "");
      schedule();
    },
    tell(text) {
      write(note, text);
      write(live, text);
    },
  };

  function draw() {
    frame = 0;
    for (const drawer of drawers) drawer(state);
    root.removeAttribute("data-drawing");
  }
  function schedule() {
    root.setAttribute("data-drawing", ""); // what is shown is about to change
    if (!frame) frame = requestAnimationFrame(draw);
    clearTimeout(timer);
    timer = setTimeout(settle, SETTLE);
  }
  function settle() {
    const said = tools.say(state);
    if (said) write(live, said);
    if (touched) history.replaceState(history.state, "", encode(name, fields, state));
  }
  function restore() {
    ({ state, problems } = decode(name, fields, location.hash));
    draw();
    report();
  }
  function report() {
    if (problems.length) {
      tools.tell(`Not all of the link could be read, and the rest stands at its start. ${problems.slice(0, 3).join(" ")}`);
    }
  }
  async function copy() {
    const link = new URL(encode(name, fields, state), location.href).href;
    history.replaceState(history.state, "", link);
    try {
      await navigator.clipboard.writeText(link);
      tools.tell("The link is copied. It opens this page with these settings.");
    } catch {
      tools.tell("The browser does not let this page copy. The address of the page now holds the settings.");
    }
  }
  function reset() {
    state = starts(fields);
    for (const box of body.querySelectorAll("[aria-invalid]")) box.removeAttribute("aria-invalid");
    for (const error of body.querySelectorAll(".ag-x-error")) error.hidden = true;
    touched = true;
    schedule();
    tools.tell("Everything is as it was at the start.");
  }

  const body = h(
    "div",
    { class: "ag-explorer-body" },
    ...make(tools),
    h(
      "div",
      { class: "ag-x-tools" },
      h("button", { type: "button", class: "ag-x-button", onclick: reset }, "Reset"),
      h("button", { type: "button", class: "ag-x-button", onclick: copy }, "Copy link"),
      note,
    ),
    live,
  );
  draw();
  root.querySelector(".ag-explorer-fallback")?.setAttribute("hidden", "");
  root.append(body);
  root.dataset.live = "";
  root.dataset.settings = Object.keys(fields).join(" "); // the names that a link may use
  report();
  addEventListener("hashchange", () => location.hash.startsWith(`#explorer-${name}:`) && restore());
  return tools;
}

// --- controls ----------------------------------------------------------------------------------------------------------------

/** A slider with a box to type in, both for one number of the state. On a logarithmic slider equal steps multiply. */
export function slider(tools, key, { label, step = 1, logarithmic = false, digits = 2, role = "" }) {
  const field = tools.fields[key];
  const [id, errorId] = [unique(), unique()];
  const stops = logarithmic ? 200 : Math.round((field.high - field.low) / step);
  const integral = field.write === String;
  const toStop = (value) =>
    logarithmic
      ? (stops * Math.log(value / field.low)) / Math.log(field.high / field.low)
      : (value - field.low) / step;
  const toValue = (stop) => {
    const value = logarithmic ? field.low * (field.high / field.low) ** (stop / stops) : field.low + stop * step;
    return integral ? Math.round(value) : Number(value.toPrecision(logarithmic ? 3 : 10));
  };
  const text = (value) => (integral ? String(value) : short(value, digits));
  const range = h("input", {
    type: "range", id, min: 0, max: stops, step: logarithmic ? "any" : 1,
    oninput: () => accept(toValue(Number(range.value))),
    onkeydown: nudge,
  }); // prettier-ignore
  const box = h("input", {
    type: "text", class: "ag-x-box", inputmode: "decimal", autocomplete: "off", spellcheck: "false",
    "aria-label": `${label}, as a number`,
    oninput: () => type(),
    onchange: () => type(),
  }); // prettier-ignore
  const error = h("p", { class: "ag-x-error", id: errorId, hidden: true });
  let refused = null; // the value that stood when something typed was refused

  function accept(value) {
    clear();
    tools.set({ [key]: value });
  }
  function clear() {
    refused = null;
    error.hidden = true;
    box.removeAttribute("aria-invalid");
    box.removeAttribute("aria-describedby");
  }
  function type() {
    try {
      accept(field.read(box.value));
    } catch (problem) {
      refused = tools.state[key];
      write(error, problem.message);
      error.hidden = false;
      box.setAttribute("aria-invalid", "true");
      box.setAttribute("aria-describedby", errorId);
    }
  }
  function nudge(event) {
    const direction = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!logarithmic || !direction) return;
    event.preventDefault(); // a whole number must move by at least one
    const value = tools.state[key];
    const next = toValue(Math.min(Math.max(toStop(value) + 4 * direction, 0), stops));
    accept(Math.min(Math.max(integral && next === value ? value + direction : next, field.low), field.high));
  }

  tools.onRender((state) => {
    const value = state[key];
    if (refused !== null && (refused !== value || !box.hasAttribute("aria-invalid"))) clear();
    range.value = toStop(value);
    attribute(range, "aria-valuetext", text(value));
    if (refused === null && document.activeElement !== box) box.value = text(value);
  });
  return h(
    "div",
    { class: "ag-x-control" },
    h("label", { for: id, class: role && `ag-x-${role}` }, label),
    h("div", { class: "ag-x-slider" }, range, box),
    error,
  );
}

/** A small matrix of the state to type in, row by row; the arrow keys change a number by `step`. */
export function numberGrid(tools, key, { label, rows, columns, role = "", step = 0.5 }) {
  const field = tools.fields[key];
  const errorId = unique();
  const error = h("p", { class: "ag-x-error", id: errorId, hidden: true });
  const boxes = rows.flatMap((row, i) => columns.map((column, j) => make(i * columns.length + j, `${row}, ${column}`)));
  const one = real(field.low, field.high, 0);

  function put(at, value) {
    const values = [...tools.state[key]];
    values[at] = value;
    clear();
    tools.set({ [key]: values });
  }
  function clear() {
    error.hidden = true;
    for (const box of boxes) {
      box.removeAttribute("aria-invalid");
      box.removeAttribute("aria-describedby");
    }
  }
  function make(at, name) {
    const box = h("input", {
      type: "text", class: "ag-x-box", inputmode: "decimal", autocomplete: "off", "aria-label": `${label}: ${name}`,
      onfocus: () => box.select(),
      oninput: () => {
        try {
          put(at, one.read(box.value));
        } catch (problem) {
          write(error, problem.message);
          error.hidden = false;
          box.setAttribute("aria-invalid", "true");
          box.setAttribute("aria-describedby", errorId);
        }
      },
      onkeydown: (event) => {
        const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
        if (!direction) return;
        event.preventDefault();
        const value = Math.min(Math.max(tools.state[key][at] + direction * step, field.low), field.high);
        put(at, Number(value.toFixed(4)));
        box.value = short(value);
      },
    }); // prettier-ignore
    return box;
  }

  tools.onRender((state) => {
    boxes.forEach((box, at) => {
      if (document.activeElement === box || box.hasAttribute("aria-invalid")) return;
      box.value = short(state[key][at]);
    });
  });
  const line = (row, i) =>
    h("tr", {}, h("th", { scope: "row" }, row), ...columns.map((_, j) => h("td", {}, boxes[i * columns.length + j])));
  const element = h(
    "div",
    { class: "ag-x-grid" },
    h("p", { class: `ag-x-heading ${role && `ag-x-${role}`}` }, label),
    h("table", { role: "presentation" }, ...rows.map(line)),
    error,
  );
  element.style.setProperty("--columns", columns.length); // as an attribute the page's security policy would refuse it
  return element;
}

/** One of a few, as radio buttons. `options` are pairs of a value and what it is called. */
export function radios(tools, key, { label, options }) {
  const group = unique();
  const inputs = options.map(([value, words]) => [
    value,
    h("input", { type: "radio", name: group, value, onchange: () => tools.set({ [key]: value }) }),
    words,
  ]);
  tools.onRender((state) => {
    for (const [value, input] of inputs) input.checked = state[key] === value;
  });
  return h(
    "fieldset",
    { class: "ag-x-control ag-x-radios" },
    h("legend", {}, label),
    h("div", {}, ...inputs.map(([, input, words]) => h("label", {}, input, h("span", {}, words)))),
  );
}

/** One of many. */
export function select(tools, key, { label, options }) {
  const id = unique();
  const menu = h(
    "select",
    { id, class: "ag-x-select", onchange: () => tools.set({ [key]: typeof tools.state[key] === "number" ? Number(menu.value) : menu.value }) },
    ...options.map(([value, words]) => h("option", { value }, words)),
  );
  tools.onRender((state) => {
    menu.value = String(state[key]);
  });
  return h("div", { class: "ag-x-control" }, h("label", { for: id }, label), menu);
}

export function checkbox(tools, key, label) {
  const input = h("input", { type: "checkbox", onchange: () => tools.set({ [key]: input.checked }) });
  tools.onRender((state) => {
    input.checked = state[key];
  });
  return h("label", { class: "ag-x-check" }, input, h("span", {}, label));
}

export const button = (label, onclick, attributes = {}) =>
  h("button", { type: "button", class: "ag-x-button", onclick, ...attributes }, label);

/** A button that keeps the focus where it cannot be used. */
export function enable(element, usable) {
  attribute(element, "aria-disabled", usable ? "false" : "true");
}

/** To the first step, one back, one on, to the last; `last(state)` is the number of the last, `name(state)` its name. */
export function stepper(tools, key, { last, name = null, unit = "Step", where: told = null }) {
  const go = (to) => () => {
    const step = Math.min(Math.max(to(tools.state), 0), last(tools.state));
    if (step !== tools.state[key]) tools.set({ [key]: step });
  };
  const first = button("«", go(() => 0), { "aria-label": "First", title: "First" });
  const back = button("◀ Back", go((state) => Math.min(state[key], last(state)) - 1));
  const on = button("Next ▶", go((state) => state[key] + 1));
  const end = button("»", go((state) => last(state)), { "aria-label": "Last", title: "Last" });
  const where = h("p", { class: "ag-x-where" });
  tools.onRender((state) => {
    const most = last(state);
    for (const element of [first, back]) enable(element, state[key] > 0);
    for (const element of [on, end]) enable(element, state[key] < most);
    const at = Math.min(state[key], most); // a choice may have left fewer steps
write(where, told ? told(at, most) : `${unit} ${at + 1} of ${most + 1}${name ? `: ${name(state)}` : ""}`);
  });
  return h("div", { class: "ag-x-stepper" }, h("div", { class: "ag-x-buttons" }, first, back, on, end), where);
}

// --- what is shown -------------------------------------------------------------------------------------------------------------

/** A line of numbers, each with its name: ``facts.update([["entropy", "1.20"], ...])``. */
export function facts() {
  const list = h("dl", { class: "ag-x-facts" });
  return {
    element: list,
    update(pairs) {
      while (list.children.length < pairs.length) list.append(h("div", {}, h("dt"), h("dd")));
      while (list.children.length > pairs.length) list.lastChild.remove();
      pairs.forEach(([name, value], i) => {
        write(list.children[i].firstChild, name);
        write(list.children[i].lastChild, value);
      });
    },
  };
}

/** A table of bars: a name, numbers, and a bar as long as the share; two bars to compare where two are given. */
export function bars({ label, columns, kinds = ["weights"] }) {
  const head = h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, name)), h("td", { class: "ag-x-bar" }));
  const rows = h("tbody");
  return {
    element: h(
      "table",
      { class: "ag-x-bars" },
      h("caption", { class: "ag-x-hidden" }, label),
      h("thead", {}, head),
      rows,
    ),
    update(lines) {
      while (rows.children.length < lines.length) {
        rows.append(
          h(
            "tr",
            {},
            h("th", { scope: "row" }),
            ...columns.slice(1).map(() => h("td")),
            h("td", { class: "ag-x-bar" }, ...kinds.map((kind) => h("span", { class: `ag-x-fill ag-x-fill-${kind}` }))),
          ),
        );
      }
      while (rows.children.length > lines.length) rows.lastChild.remove();
      lines.forEach(({ cells, shares, chosen = false }, i) => {
        const row = rows.children[i];
        row.classList.toggle("ag-x-chosen", chosen);
        cells.forEach((text, c) => write(row.children[c], text));
        shares.forEach((share, c) => {
          row.lastChild.children[c].style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
        });
      });
    },
  };
}

/**
 * A matrix whose cells are reached by pointer, finger and arrow keys; `onCell(i, j)` hears which one is.
 * Queries go down and keys across. A forbidden cell is hatched, which no number looks like.
 */
export function matrix({ label, kind, digits = 2, onCell = null, caption = null }) {
  const table = h("table", { class: `ag-x-matrix ag-x-${kind}`, role: "grid", "aria-label": label });
  const shown = caption && h("figcaption", {}, ...[caption].flat());
  const frame = h("figure", { class: "ag-x-figure" }, shown, h("div", { class: "ag-x-room" }, table));
  let cells = [];
  let heads = { rows: [], columns: [] };
  let active = [0, 0];
  let shape = "";

  const find = (target) => target?.closest?.("td[data-at]");
  const at = (cell) => cell.dataset.at.split(" ").map(Number);
  function activate(cell) {
    const [i, j] = at(cell);
    cells[active[0]]?.[active[1]]?.setAttribute("tabindex", "-1");
    table.querySelector(".ag-x-active")?.classList.remove("ag-x-active");
    active = [i, j];
    cell.setAttribute("tabindex", "0");
    cell.classList.add("ag-x-active");
    onCell?.(i, j);
  }
  table.addEventListener("pointerover", (event) => {
    const cell = find(event.target);
    if (cell) activate(cell);
  });
  table.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") return; // a finger holds on to the cell where it came down
    const cell = find(document.elementFromPoint(event.clientX, event.clientY));
    if (cell && table.contains(cell) && !cell.classList.contains("ag-x-active")) activate(cell);
  });
  table.addEventListener("focusin", (event) => {
    const cell = find(event.target);
    if (cell) activate(cell);
  });
  table.addEventListener("keydown", (event) => {
    const cell = find(event.target);
    if (!cell) return;
    const [i, j] = at(cell);
    const [n, m] = [cells.length, cells[0].length];
    const to = {
      ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1],
      Home: [event.ctrlKey ? 0 : i, 0], End: [event.ctrlKey ? n - 1 : i, m - 1],
      PageUp: [0, j], PageDown: [n - 1, j],
    }[event.key]; // prettier-ignore
    if (!to) return;
    event.preventDefault();
    cells[Math.min(Math.max(to[0], 0), n - 1)][Math.min(Math.max(to[1], 0), m - 1)].focus();
  });

  function rebuild(n, m, labelled) {
    const corner = h("td", { class: "ag-x-corner" });
    heads = {
      rows: Array.from({ length: n }, () => h("th", { scope: "row" })),
      columns: Array.from({ length: m }, () => h("th", { scope: "col" })),
    };
    cells = Array.from({ length: n }, (_, i) =>
      Array.from({ length: m }, (_, j) => h("td", { "data-at": `${i} ${j}`, tabindex: "-1" })),
    );
    const lines = cells.map((row, i) => h("tr", {}, labelled.rows ? heads.rows[i] : null, ...row));
    table.replaceChildren(
      ...(labelled.columns ? [h("tr", {}, labelled.rows ? corner : null, ...heads.columns)] : []),
      ...lines,
    );
    active = [Math.min(active[0], n - 1), Math.min(active[1], m - 1)];
    cells[active[0]][active[1]].setAttribute("tabindex", "0");
    table.style.setProperty("--columns", m);
    table.classList.toggle("ag-x-small", m > 8);
    table.classList.toggle("ag-x-tiny", m > 16);
    table.classList.toggle("ag-x-many", m > 5);
    table.classList.toggle("ag-x-unlabelled", !labelled.rows);
  }

  return {
    element: frame,
    table,
    get active() {
      return active;
    },
    caption: (text) => shown && write(shown, text),
    /** `marks[i][j]` is a class for a cell; `rows` and `columns` are labels or null; `limits` those of the colours. */
    update({ values, allowed = null, rows = null, columns = null, limits = null, marks = null, names = null }) {
      const [n, m] = [values.length, values[0]?.length ?? 0];
      const now = `${n} ${m} ${Boolean(rows)} ${Boolean(columns)}`;
      if (now !== shape) {
        shape = now;
        rebuild(n, m, { rows: Boolean(rows), columns: Boolean(columns) });
      }
      const finite = values.flat().filter(Number.isFinite);
      const [low, high] = limits ?? (kind === "weights" ? [0, 1] : symmetric(finite));
      const say = names ?? { rows: rows ?? count(n, "query"), columns: columns ?? count(m, "key") };
      rows?.forEach((text, i) => write(heads.rows[i], text));
      columns?.forEach((text, j) => write(heads.columns[j], text));
      table.classList.toggle("ag-x-long", Boolean(columns?.some((text) => text.length > 4)));
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < m; j++) {
          const cell = cells[i][j];
          const value = values[i][j];
          const hidden = allowed ? !allowed[i][j] : false;
          const blank = value === null;
          const mask = kind === "mask";
          const name = `${hidden ? "ag-x-forbidden" : blank ? "ag-x-blank" : mask ? "ag-x-open" : ""} ${marks?.[i]?.[j] ?? ""} ${
            cell.classList.contains("ag-x-active") ? "ag-x-active" : ""
          }`.trim();
          if (cell.className !== name) cell.className = name;
          const text = hidden || blank || mask ? "" : format(value, digits);
          if (m <= 8) write(cell, text);
          else if (cell.firstChild) cell.textContent = "";
          const plain = hidden || blank || mask || marks?.[i]?.[j] === "ag-x-faded";
          const colour = plain ? null : colourOf(kind, (value - low) / (high - low || 1));
          const background = colour ? `rgb(${colour.join(" ")})` : "";
          if (cell.dataset.colour !== background) {
            cell.dataset.colour = background;
            cell.style.backgroundColor = background;
            cell.style.color = colour ? inkOn(colour) : "";
          }
          const heard = hidden ? "hidden" : blank ? "nothing yet" : mask ? "allowed" : text;
          attribute(cell, "aria-label", `${say.rows[i]}, ${say.columns[j]}: ${heard}`);
        }
      }
    },
  };
}

const count = (n, word) => Array.from({ length: n }, (_, i) => `${word} ${i}`);

function symmetric(values) {
  const top = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0) || 1;
  return [-top, top];
}
