// The arithmetic of the explorers, after attn_guide: tests/site/test_explorer_math.py compares the two on grids of inputs.
// A matrix is an array of rows; a mask is an array of rows of booleans, true where the query may attend.

export const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
export const transpose = (a) => (a.length ? a[0].map((_, j) => a.map((row) => row[j])) : []);
export const matmul = (a, b) => {
  const columns = transpose(b);
  return a.map((row) => columns.map((column) => dot(row, column)));
};

// --- softmax (core.py) ----------------------------------------------------------------------------------------------

/** Softmax of a row; a forbidden key gets 0, and a row that may see nothing is all zeros. */
export function softmax(x, temperature = 1, allowed = null) {
  const z = x.map((value, j) => (allowed && !allowed[j] ? -Infinity : value));
  const top = Math.max(...z);
  if (top === -Infinity) return z.map(() => 0);
  const powers = z.map((value) => Math.exp((value - top) / temperature));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/** The logarithm of the sum of exponentials; -Infinity for nothing. */
export function logSumExp(x) {
  const top = Math.max(...x);
  return top === -Infinity ? top : top + Math.log(x.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

/** Entropy in nats. */
export const entropy = (p) => Math.abs(p.reduce((sum, w) => sum + (w > 0 ? w * Math.log(w) : 0), 0));

/** The matrix of derivatives of the weights with respect to the scores. */
export const softmaxJacobian = (p, temperature = 1) =>
  p.map((a, i) => p.map((b, j) => ((i === j ? a : 0) - a * b) / temperature));

/** The root of the sum of squares of a matrix. */
export const frobenius = (a) => Math.sqrt(a.reduce((sum, row) => sum + dot(row, row), 0));

// --- attention (core.py) ----------------------------------------------------------------------------------------------

/** Dot products of all queries and keys times scale; -Infinity where the mask forbids. */
export const attentionScores = (query, key, { scale = 1 / Math.sqrt(query[0].length), allowed = null } = {}) =>
  query.map((q, i) => key.map((k, j) => (allowed && !allowed[i][j] ? -Infinity : dot(q, k) * scale)));

/** Scores, weights and output of scaled dot-product attention. */
export function attention(query, key, value, options = {}) {
  const scores = attentionScores(query, key, options);
  const weights = scores.map((row) => softmax(row, options.temperature ?? 1));
  return { scores, weights, output: matmul(weights, value) };
}

/** Every matrix of self-attention, from the tokens to the output. */
export function selfAttention(x, wQ, wK, wV) {
  const q = matmul(x, wQ);
  const k = matmul(x, wK);
  const v = matmul(x, wV);
  return { q, k, v, raw: attentionScores(q, k, { scale: 1 }), ...attention(q, k, v) };
}

// --- masks (masks.py) -------------------------------------------------------------------------------------------------

const modulo = (a, b) => ((a % b) + b) % b;

/** One predicate per name: (i, j) => whether query i may see key j. */
export const predicates = {
  full: () => () => true,
  causal: () => (i, j) => j <= i,
  sliding_window: (left, right) => (i, j) => j >= i - left && j <= i + right,
  dilated_window: (left, right, step) => (i, j) =>
    j >= i - left * step && j <= i + right * step && modulo(j - i, step) === 0,
  strided: (stride) => (i, j) => modulo(j - i, stride) === 0,
  block_local: (block) => (i, j) => Math.floor(i / block) === Math.floor(j / block),
  prefix: (length) => (i, j) => j <= i || j < length,
  sinks: (count) => (i, j) => j < count && j <= i,
  global_tokens: (count) => (i, j) => i < count || j < count, // the first ones
  document: (ids) => (i, j) => ids[i] === ids[j],
  keys: (table) => (i, j) => table[i].includes(j), // random keys, drawn into a table
};

export const both = (a, b) => (i, j) => a(i, j) && b(i, j);
export const either = (a, b) => (i, j) => a(i, j) || b(i, j);
export const opposite = (a) => (i, j) => !a(i, j);

export const materialize = (mask, n, m = n) =>
  Array.from({ length: n }, (_, i) => Array.from({ length: m }, (_, j) => mask(i, j)));

export const countAllowed = (matrix) =>
  matrix.reduce((sum, row) => sum + row.reduce((inner, seen) => inner + (seen ? 1 : 0), 0), 0);

/** How many tiles of b x b hold an allowed pair: what a tiled kernel has to compute. */
export function tilesTouched(matrix, b) {
  const touched = new Set();
  matrix.forEach((row, i) =>
    row.forEach((seen, j) => seen && touched.add(`${Math.floor(i / b)} ${Math.floor(j / b)}`)),
  );
  return touched.size;
}

/**
 * Pairs allowed by the union of patterns that depend on j - i alone, the first `tokens` positions that see and are
 * seen by all, and a table of random keys; below the diagonal only, if causal. No n x n array is made.
 */
export function countPattern(near, { n, tokens = 0, causal = false, table = null }) {
  const g = Math.min(tokens, n);
  const rest = n - g;
  let total = causal ? (g * (g + 1)) / 2 + rest * g : g * n + rest * g;
  for (let distance = 1 - rest; distance < rest; distance++) {
    if (!(causal && distance > 0) && near(0, distance)) total += rest - Math.abs(distance);
  }
  for (let i = g; table && i < n; i++) {
    for (const j of new Set(table[i])) {
      if (j >= g && !near(i, j) && !(causal && j > i)) total += 1;
    }
  }
  return total;
}

/** What each query has read of the input after some layers: rows of booleans. A residual path keeps its own place. */
export function reachability(matrix, layers) {
  const n = matrix.length;
  let reached = matrix.map((_, i) => matrix.map((_, j) => i === j));
  for (let layer = 0; layer < layers; layer++) {
    const before = reached;
    reached = before.map((row) => row.slice());
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < n; k++) {
        if (matrix[i][k]) for (let j = 0; j < n; j++) if (before[k][j]) reached[i][j] = true;
      }
    }
  }
  return reached;
}

// --- what it costs (measure.py) ---------------------------------------------------------------------------------------

/** Operations on the pairs of one head, two for each multiply-add: products with the keys, and sums of the values. */
export const pairFlops = (pairs, dK, dV = dK) => 2 * pairs * (dK + dV);

/** Bytes of the arrays of one head; scores only if the whole matrix is made. */
export const attentionBytes = (n, dK, { m = n, dV = dK, itemBytes = 2 } = {}) => ({
  linear: itemBytes * (n * dK + m * dK + m * dV + n * dV),
  scores: itemBytes * n * m,
});

// --- FlashAttention (flash.py) ------------------------------------------------------------------------------------------

/** The state of an online softmax before any score. */
export const emptyState = (width) => ({ max: -Infinity, sum: 0, mixed: new Array(width).fill(0), rescale: 0 });

/** The state after one more block of scores and their values. */
export function onlineStep(state, scores, values) {
  const max = Math.max(state.max, ...scores);
  const shift = max === -Infinity ? 0 : max; // nothing allowed yet: keep exp(-Infinity) = 0
  const rescale = Math.exp(state.max - shift);
  const powers = scores.map((score) => Math.exp(score - shift));
  return {
    max,
    rescale,
    sum: rescale * state.sum + powers.reduce((a, b) => a + b, 0),
    mixed: state.mixed.map((total, d) => rescale * total + dot(powers, values.map((value) => value[d]))),
  };
}

/** The average that a state stands for. */
export const onlineResult = (state) => state.mixed.map((total) => total / (state.sum === 0 ? 1 : state.sum));

// --- score functions (scores.py) ----------------------------------------------------------------------------------------

const normalise = (a) => {
  const top = Math.max(0, ...a.map(Math.abs)); // first by the largest entry: squares of it may overflow
  if (top === 0) return a.map(() => 0);
  const scaled = a.map((x) => x / top);
  const length = Math.sqrt(dot(scaled, scaled));
  return scaled.map((x) => x / length);
};

const through = (a, w) => w[0].map((_, j) => a.reduce((sum, x, i) => sum + x * w[i][j], 0));

export const dotScore = (q, k) => dot(q, k);
export const scaledDotScore = (q, k) => dot(q, k) / Math.sqrt(q.length);
export const generalScore = (q, k, weight) => dot(through(q, weight), k);
export const additiveScore = (q, k, wQuery, wKey, v) => {
  const a = through(q, wQuery);
  const b = through(k, wKey);
  return v.reduce((sum, readout, d) => sum + readout * Math.tanh(a[d] + b[d]), 0);
};
export const concatScore = (q, k, weight, v) =>
  additiveScore(q, k, weight.slice(0, q.length), weight.slice(q.length), v);
export const cosineScore = (q, k, scale = 1) => scale * dot(normalise(q), normalise(k));

// --- selection (selection.py) -------------------------------------------------------------------------------------------

/** The weights that a softmax gives with noise added to the scores first. */
export const gumbelSoftmax = (logits, noise, temperature = 1) =>
  softmax(logits.map((z, i) => z + noise[i]), temperature);

/** Where the largest entry stands; the first of equals. */
export const argmax = (x) => x.reduce((best, value, i) => (value > x[best] ? i : best), 0);

/** Standard Gumbel noise from a number between 0 and 1. */
export const gumbel = (u) => -Math.log(-Math.log(u));

/** The point of the simplex that is nearest to the scores. */
export function sparsemax(x) {
  const top = Math.max(...x);
  const ordered = x.map((value) => value - top).sort((a, b) => b - a);
  let total = 0;
  let tau = 0;
  ordered.forEach((value, i) => {
    total += value;
    if (1 + (i + 1) * value > total) tau = (total - 1) / (i + 1);
  });
  return x.map((value) => Math.max(value - top - tau, 0));
}

// --- random numbers: the same on every machine, from a seed ---------------------------------------------------------------

/** Numbers between 0 and 1, both excluded (Tommy Ettinger's mulberry32). */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
}

/** Standard normal numbers, by Box and Muller. */
export function normal(seed) {
  const draw = uniform(seed);
  return () => Math.sqrt(-2 * Math.log(draw())) * Math.cos(2 * Math.PI * draw());
}

/** For each of n queries, r different keys below m. */
export function randomKeys(r, n, m, seed) {
  const draw = uniform(seed);
  const count = Math.min(r, m);
  return Array.from({ length: n }, () => {
    const drawn = new Set();
    while (drawn.size < count) drawn.add(Math.floor(draw() * m));
    return [...drawn].sort((a, b) => a - b);
  });
}

// --- weights of trained models, as text: two letters for each, in steps of 1/4095 (guide_ext/explorer_data.py) --------------

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const unpackOne = (text, at) => (64 * LETTERS.indexOf(text[2 * at]) + LETTERS.indexOf(text[2 * at + 1])) / 4095;

/** A matrix of n rows and m columns. */
export const unpack = (text, n, m) =>
  Array.from({ length: n }, (_, i) => Array.from({ length: m }, (_, j) => unpackOne(text, i * m + j)));

/** A causal matrix: of row i the first i + 1 entries were sent, and the others are 0. */
export const unpackLower = (text, n) =>
  Array.from({ length: n }, (_, i) =>
    Array.from({ length: n }, (_, j) => (j > i ? 0 : unpackOne(text, (i * (i + 1)) / 2 + j))),
  );
