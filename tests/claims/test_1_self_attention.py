"""Chapter 1, Self-attention: every claim of the chapter, measured."""

from __future__ import annotations

import math
import time
from math import log, sqrt

import numpy as np
import pytest

import attn_guide as ag

#: "The cat sat", one row for each token; the features are determiner, noun, verb and living thing.
TOKENS = ("The", "cat", "sat")
X = np.array([[1.0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]])  # (n, d_model)
W_Q = np.array([[1.0, 0], [0, 2], [2, 1], [1, 0]])  # (d_model, d_k)
W_K = np.array([[-1.0, 0], [1, 0], [0, 2], [1, 0]])  # (d_model, d_k)
W_V = np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 2], [0, 2, 0]])  # (d_model, d_v)


def random_layer(rng: np.random.Generator, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw W_Q, W_K and W_V, each (d, d), that keep the variance of what they project."""
    w_q, w_k, w_v = rng.standard_normal((3, d, d)) / sqrt(d)
    return w_q, w_k, w_v


# ------------------------------------------------------------------------------------------------ the idea

#: The words of the opening example in features thing, pronoun, quality, hard, thin; the others are all zero.
WORDS = {
    "ball": [1.0, 0, 0, 1, 0],
    "window": [1.0, 0, 0, 0, 1],
    "it": [0.0, 1, 0, 0, 0],
    "hard": [0.0, 0, 1, 1, 0],
    "thin": [0.0, 0, 1, 0, 1],
}


def sentence_of(last: str) -> tuple[list[str], np.ndarray]:
    """Return the words of "The ball broke the window because it was ..." and their vectors (9, 5)."""
    words = ["The", "ball", "broke", "the", "window", "because", "it", "was", last]
    return words, np.array([WORDS.get(word, [0.0] * 5) for word in words])


def resolve(last: str) -> np.ndarray:
    """Return the weights (9,) of "it" in the second of two layers of self-attention."""
    words, x = sentence_of(last)
    ask, found, hand_over = np.zeros((5, 1)), np.zeros((5, 1)), np.zeros((5, 5))
    ask[1], found[2] = 5.0, 1.0  # a pronoun asks for a quality
    hand_over[3, 3] = hand_over[4, 4] = 1.0  # and takes over what it says
    x = x + ag.self_attention(x, ask, found, hand_over)  # (9, 5)
    w_q, w_k = np.zeros((5, 3)), np.zeros((5, 3))
    w_q[[3, 4, 1], [0, 1, 2]] = 6.0  # now it asks for hard or thin, and for a thing
    w_k[[3, 4, 0, 2], [0, 1, 2, 2]] = 1.0, 1.0, 1.0, -1.0
    return ag.self_attention(x, w_q, w_k, np.eye(5), return_weights=True)[1][words.index("it")]


@pytest.mark.claim("self-it")
def test_two_layers_can_tell_what_it_means(claim):
    """The weights of "it" to "ball" and "window" when the sentence ends in "hard" and in "thin"."""
    for last, noun in (("hard", "ball"), ("thin", "window")):
        words, _ = sentence_of(last)
        weights = resolve(last)
        claim.check(f"largest weight, {last}", words[int(weights.argmax())], expected=noun)
        claim.note(**{last: {word: float(weights[words.index(word)]) for word in ("ball", "window", "it")}})


@pytest.mark.claim("self-one-layer")
def test_one_layer_cannot(claim):
    """1000 random W_Q and W_K: the ratio of the weights of "it" to "ball" and to "window" in both sentences."""
    rng = claim.rng(0)
    words, hard = sentence_of("hard")
    _, thin = sentence_of("thin")
    it, ball, window = (words.index(word) for word in ("it", "ball", "window"))
    worst = moved = 0.0
    for _ in range(1000):
        w_q, w_k = rng.standard_normal((2, 5, 4))
        first, second = (ag.softmax(ag.attention_scores(x @ w_q, x @ w_k))[it] for x in (hard, thin))
        worst = max(worst, abs(log(first[ball] / first[window]) - log(second[ball] / second[window])))
        moved = max(moved, abs(first[ball] - second[ball]))
    claim.below("largest difference of the log ratio", worst, 1e-12, "rounding")
    claim.above("largest difference of the weight itself", moved, 0.1, "the last word takes another share of the row")
    claim.note(layers=1000)


# ------------------------------------------------------------------------------------------------ the five steps


@pytest.mark.claim("self-five-steps")
def test_the_five_steps_by_hand(claim):
    """The example in plain Python, number by number, against ag.self_attention; and the shape after every step."""
    n, d_k, d_v = 3, 2, 3

    def project(w: np.ndarray) -> list[list[float]]:
        return [[sum(X[i, a] * w[a, b] for a in range(4)) for b in range(w.shape[1])] for i in range(n)]

    q, k, v = project(W_Q), project(W_K), project(W_V)
    scores = [
        [sum(a * b for a, b in zip(q[i], k[j], strict=True)) / math.sqrt(d_k) for j in range(n)] for i in range(n)
    ]
    powers = [[math.exp(s) for s in row] for row in scores]
    weights = [[p / sum(row) for p in row] for row in powers]
    output = [[sum(weights[i][j] * v[j][c] for j in range(n)) for c in range(d_v)] for i in range(n)]
    out, w = ag.self_attention(X, W_Q, W_K, W_V, return_weights=True)
    claim.check("weights", w, expected=weights, tolerance=1e-14, why="rounding")
    claim.check("output", out, expected=output, tolerance=1e-14, why="rounding")
    claim.check(
        "shapes of queries, keys and values", [np.shape(a) for a in (q, k, v)], expected=[(3, 2), (3, 2), (3, 3)]
    )
    claim.check("shape of scores and weights", [np.shape(scores), w.shape], expected=[(3, 3), (3, 3)])
    claim.check("shape of the output", out.shape, expected=(3, 3), why="n × d_v, not n × d_model, which is 3 × 4")


@pytest.mark.claim("self-reading")
def test_what_the_matrix_of_the_example_says(claim):
    """The largest weight of every row, the sums of rows and columns, and the pair that shows the direction."""
    _, weights = ag.self_attention(X, W_Q, W_K, W_V, return_weights=True)
    largest = " ".join(TOKENS[j] for j in weights.argmax(axis=1))
    claim.check("where the rows of The, cat and sat are largest", largest, expected="cat sat cat")
    claim.check("row sums", weights.sum(axis=1), expected=[1.0, 1.0, 1.0], tolerance=1e-12, why="rounding")
    received = weights.sum(axis=0)
    claim.above("attention received by cat, over that received by The", received[1] / received[0], 10.0)
    claim.above("The to cat, over cat to The", weights[0, 1] / weights[1, 0], 10.0)
    claim.note(received=received, the_to_cat=weights[0, 1], cat_to_the=weights[1, 0])


@pytest.mark.claim("self-rows-alone")
def test_rows_do_not_need_each_other(claim):
    """Outputs of 64 random tokens at once, in shuffled order of the queries, and one query at a time."""
    rng = claim.rng(1)
    x, weights = rng.standard_normal((64, 32)), random_layer(rng, 32)
    q, k, v = (x @ w for w in weights)
    whole = ag.scaled_dot_product_attention(q, k, v)
    order = rng.permutation(64)
    alone = np.concatenate([ag.scaled_dot_product_attention(q[i : i + 1], k, v) for i in order])
    claim.below("largest difference", np.abs(whole[order] - alone).max(), 1e-13, "rounding")


# ------------------------------------------------------------------------------------------------ RNN and attention


class Chain(np.ndarray):
    """An array that knows the longest chain of operations it came from: each waits for the one before."""

    steps = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = [np.asarray(a) for a in inputs]
        result = np.asarray(getattr(ufunc, method)(*plain, **kwargs)).view(Chain)
        result.steps = 1 + max(getattr(a, "steps", 0) for a in inputs)
        return result


def attention_steps(x: Chain, w_q: np.ndarray, w_k: np.ndarray, w_v: np.ndarray) -> Chain:
    """Self-attention in array operations; the softmax without the shift, which only guards against overflow."""
    q, k, v = np.matmul(x, w_q), np.matmul(x, w_k), np.matmul(x, w_v)
    powers = np.exp(np.matmul(q * w_q.shape[1] ** -0.5, transposed(k)))
    return np.matmul(powers / np.add.reduce(powers, axis=-1, keepdims=True), v)


def transposed(k: Chain) -> Chain:
    """The transpose, which computes nothing, with the chain kept."""
    turned = np.asarray(k).T.view(Chain)
    turned.steps = k.steps
    return turned


def recurrence_steps(x: Chain, w_x: np.ndarray, w_h: np.ndarray) -> list[Chain]:
    """The states of a recurrent layer in array operations."""
    drive = np.matmul(x, w_x)
    states: list[Chain] = []
    for t in range(len(x)):
        entry = np.asarray(drive)[t].view(Chain)
        entry.steps = drive.steps
        states.append(np.tanh(entry + np.matmul(states[-1], w_h)) if states else np.tanh(entry))
    return states


@pytest.mark.claim("self-sequential-steps")
def test_attention_needs_the_same_steps_for_any_length(claim):
    """The longest chain of array operations that wait for each other, for 4 to 256 tokens; values checked besides."""
    rng = claim.rng(2)
    lengths = [4, 16, 64, 256]
    attention, recurrence, apart = [], [], 0.0
    for n in lengths:
        x, (w_q, w_k, w_v) = rng.standard_normal((n, 16)), random_layer(rng, 16)
        out, states = attention_steps(x.view(Chain), w_q, w_k, w_v), recurrence_steps(x.view(Chain), w_q, w_k)
        apart = max(apart, float(np.abs(np.asarray(out) - ag.self_attention(x, w_q, w_k, w_v)).max()))
        apart = max(apart, float(np.abs(np.array(states) - ag.recurrent_layer(x, w_q, w_k)).max()))
        attention.append(out.steps)
        recurrence.append(states[-1].steps)
    claim.check("steps of attention", attention, expected=attention[0], why="the same for every length")
    claim.check(
        "steps of the recurrent layer", recurrence, expected=[3 * n - 1 for n in lengths], why="3 for each token"
    )
    claim.below("difference from the package's results", apart, 1e-12, "rounding")
    claim.note(lengths=lengths)


@pytest.mark.claim("self-path-length")
def test_how_many_steps_lie_between_two_tokens(claim):
    """The longest shortest path between two of n positions: all pairs, one to the left, two to each side."""
    lengths = [4, 16, 64, 256]
    graphs = {"attention": ag.full, "recurrent layer": ag.sliding_window(1, 0), "window of 5": ag.sliding_window(2, 2)}
    wanted = {
        "attention": [1] * 4,
        "recurrent layer": [n - 1 for n in lengths],
        "window of 5": [math.ceil((n - 1) / 2) for n in lengths],
    }
    for name, mask in graphs.items():
        claim.check(name, [ag.path_lengths(mask, n).longest for n in lengths], expected=wanted[name])
    claim.note(lengths=lengths)


DISTANCES = np.array([1, 2, 4, 8, 16, 32, 64, 128])
WIDTH, SEEDS = 32, 20


def orthogonal(rng: np.random.Generator, d: int) -> np.ndarray:
    """Draw a rotation (with reflections) of d dimensions, uniformly."""
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    return q * np.sign(np.diag(r))


def recurrent_gradients(rng: np.random.Generator, kind: str, size: float) -> np.ndarray:
    """Norms of d state_t / d token_0 for t = 0 ... 128; tokens are normal with standard deviation ``size``."""
    w_x = rng.standard_normal((WIDTH, WIDTH)) / sqrt(WIDTH)
    w_h = orthogonal(rng, WIDTH) if kind == "orthogonal" else rng.standard_normal((WIDTH, WIDTH)) / sqrt(WIDTH)
    states = ag.recurrent_layer(size * rng.standard_normal((DISTANCES[-1] + 1, WIDTH)), w_x, w_h)
    return np.linalg.norm(ag.recurrent_jacobian(states, w_x, w_h), axis=(1, 2))


def attention_gradient(rng: np.random.Generator, t: int, match: float = 0.0) -> float:
    """Norm of d output_t / d token_0 in causal self-attention over t + 1 random tokens.

    With ``match`` the query of token t is set to that many times the key of token 0, both of typical length.
    """
    w_q, w_k, w_v = random_layer(rng, WIDTH)
    x = rng.standard_normal((t + 1, WIDTH))
    q, k, v = x[-1:] @ w_q, x @ w_k, x @ w_v
    if match:
        q = match * sqrt(WIDTH) * k[:1] / np.linalg.norm(k[0])
    each = np.eye(WIDTH)[:, None]  # (d_v, 1, d_v): one backward pass for each component of the output
    _, d_key, d_value = ag.scaled_dot_product_attention_backward(each, *(np.tile(a, (WIDTH, 1, 1)) for a in (q, k, v)))
    jacobian = d_key[:, 0] @ w_k.T + d_value[:, 0] @ w_v.T  # (d_v, d_model); token 0 is key and value of output t
    return float(np.linalg.norm(jacobian))


def log_mean(norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the geometric mean over seeds (first axis) and the standard error of its logarithm."""
    logs = np.log(norms)
    return np.exp(logs.mean(axis=0)), logs.std(axis=0, ddof=1) / sqrt(len(logs))


@pytest.mark.claim("self-rnn-gradient")
def test_the_gradient_of_a_random_rnn_decays_exponentially(claim):
    """Norm of d state_t / d token_0, tanh, width 32, tokens of variance 1, 20 seeds: random and orthogonal W_h."""
    for kind in ("random", "orthogonal"):
        norms = np.stack([recurrent_gradients(claim_rng(claim, seed), kind, 1.0) for seed in range(SEEDS)])
        mean, error = log_mean(norms[:, DISTANCES])
        rate = np.log(norms[:, 64] / norms[:, 8]) / (64 - 8)  # per step, for each seed
        claim.below(f"{kind}: factor per step", float(np.exp(rate.mean())), 0.75)
        claim.below(f"{kind}: norm at distance 64 over norm at 1, largest over seeds",
                    float((norms[:, 64] / norms[:, 1]).max()), 1e-6)  # fmt: skip
        smallest, largest = float(np.exp(rate.min())), float(np.exp(rate.max()))
        claim.note(**{kind: {"norms": list(mean), "errors": list(error), "smallest": smallest, "largest": largest}})
    claim.note(distances=DISTANCES, samples=SEEDS, width=WIDTH)


def claim_rng(claim, seed: int) -> np.random.Generator:
    """The claim's generator, with each seed recorded once."""
    return np.random.default_rng(seed) if seed in claim.seeds else claim.rng(seed)


@pytest.mark.claim("self-orthogonal-rnn")
def test_an_orthogonal_rnn_in_its_linear_range_keeps_its_gradient(claim):
    """The same with an orthogonal W_h and tokens of standard deviation 0.001, where tanh is nearly the identity."""
    norms = np.stack([recurrent_gradients(claim.rng(seed), "orthogonal", 1e-3) for seed in range(SEEDS)])
    kept = norms[:, 128] / norms[:, 0]
    claim.above("share of the norm that is left at distance 128, smallest over seeds", float(kept.min()), 0.95)
    claim.note(norms=log_mean(norms[:, DISTANCES])[0], kept=float(kept.mean()))
    tanh_slope = 1 - np.tanh(np.random.default_rng(0).standard_normal(100_000)) ** 2
    claim.below("mean slope of tanh for standard normal inputs", float(tanh_slope.mean()), 0.7)


@pytest.mark.claim("self-attention-gradient")
def test_the_gradient_of_attention_falls_as_one_over_n_or_not_at_all(claim):
    """Norm of d output_t / d token_0, causal, 40 seeds: random weights, and a query that matches key 0."""
    samples = 40
    norms = np.array(
        [[attention_gradient(claim_rng(claim, seed), int(t)) for t in DISTANCES] for seed in range(samples)]
    )
    matched = np.array(
        [[attention_gradient(claim_rng(claim, s), int(t), 2.0) for t in DISTANCES] for s in range(samples)]
    )
    mean, error = log_mean(norms)
    far = DISTANCES >= 8
    fit = ag.fit_exponent(DISTANCES[far] + 1, mean[far])
    claim.check("exponent in n, random weights, from distance 8", fit.exponent, expected=-1.0,
                tolerance=4 * fit.standard_error, why="four standard errors; a weight is 1/n on average")  # fmt: skip
    # By symmetry the weights of random keys are 1/n in the mean; their geometric mean is smaller.
    q, k = claim.rng(samples).standard_normal((2, 2000, 32, WIDTH))
    share = 32 * ag.softmax(ag.attention_scores(q[:, :1], k))[:, 0, 0]
    claim.check("mean weight of the first of 32 random keys, times 32", float(share.mean()), expected=1.0,
                tolerance=4 * float(share.std()) / sqrt(len(share)), why="four standard errors")  # fmt: skip
    claim.above(
        "matching query: norm at 128 over norm at 1", float(log_mean(matched)[0][-1] / log_mean(matched)[0][0]), 0.8
    )
    claim.note(
        norms=mean, errors=error, matched=log_mean(matched)[0], distances=DISTANCES, samples=samples,
        fit_error=fit.standard_error,
    )  # fmt: skip


def recall_batch(rng: np.random.Generator, size: int, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one-hot sequences (size, distance + 1, 9) and answers (size, 4): a symbol, noise, then a question mark."""
    symbol = rng.integers(4, size=size)
    noise = rng.integers(4, 8, size=(size, distance - 1))
    tokens = np.concatenate([symbol[:, None], noise, np.full((size, 1), 8)], axis=1)
    return np.eye(9)[tokens], np.eye(4)[symbol]


def recall_model(rng: np.random.Generator, kind: str, d: int) -> dict[str, np.ndarray]:
    """Draw the weights of a model: embedding, what reads the sequence, and the output for four symbols."""
    w = {name: rng.standard_normal((d, d)) / sqrt(d) for name in ("q", "k", "v")}
    embedding, output = rng.standard_normal((9, d)), rng.standard_normal((d, 4)) / sqrt(d)
    if kind == "attention":
        return {"embedding": embedding, **w, "output": output}
    if kind == "RNN, random":
        return {"embedding": embedding, "h": w["q"], "output": output}
    return {"embedding": 0.02 * embedding, "h": orthogonal(rng, d), "output": output}


def recall_loss(w: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the guesses (size, 4) of a model and the gradient of the mean cross-entropy."""

    def flat(a: np.ndarray) -> np.ndarray:
        return a.reshape(-1, a.shape[-1])

    if "h" in w:
        states = ag.recurrent_layer(x, w["embedding"], w["h"])
        last = states[:, -1]
    else:
        e = x @ w["embedding"]  # (size, n, d)
        q, k, v = e[:, -1:] @ w["q"], e @ w["k"], e @ w["v"]  # the last token asks
        last = ag.scaled_dot_product_attention(q, k, v)[:, 0]
    guess = ag.softmax(last @ w["output"])
    d_logits = (guess - y) / len(x)
    d_last = d_logits @ w["output"].T
    grads = {"output": last.T @ d_logits}
    if "h" in w:
        d_states = np.zeros_like(states)
        d_states[:, -1] = d_last
        _, grads["embedding"], grads["h"], _, _ = ag.recurrent_layer_backward(d_states, x, w["embedding"], w["h"])
    else:
        d_q, d_k, d_v = ag.scaled_dot_product_attention_backward(d_last[:, None], q, k, v)
        d_e = d_k @ w["k"].T + d_v @ w["v"].T
        d_e[:, -1:] += d_q @ w["q"].T
        grads |= {"q": flat(e[:, -1:]).T @ flat(d_q), "k": flat(e).T @ flat(d_k), "v": flat(e).T @ flat(d_v)}
        grads["embedding"] = flat(x).T @ flat(d_e)
    return guess, grads


def train_recall(rng: np.random.Generator, kind: str, distance: int, steps: int = 300, rate: float = 0.003) -> float:
    """Train a model of width 32 with Adam on batches of 32, and return its accuracy on 400 new sequences."""
    w = recall_model(rng, kind, 32)
    mean, square = ({name: np.zeros_like(a) for name, a in w.items()} for _ in range(2))
    for step in range(1, steps + 1):
        _, grads = recall_loss(w, *recall_batch(rng, 32, distance))
        for name, grad in grads.items():
            mean[name] += 0.1 * (grad - mean[name])
            square[name] += 0.001 * (grad**2 - square[name])
            w[name] -= rate * mean[name] / (1 - 0.9**step) / (np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8)
    x, y = recall_batch(rng, 400, distance)
    return float((recall_loss(w, x, y)[0].argmax(axis=1) == y.argmax(axis=1)).mean())


@pytest.mark.claim("self-recall")
def test_what_keeps_its_gradient_learns_to_recall(claim):
    """Name the first of 5 or 33 tokens at the last: accuracy after 300 steps of Adam, 3 seeds; guessing gives 1/4."""
    kinds, seeds = ("RNN, random", "RNN, rotation, small input", "attention"), {}
    for distance in (4, 32):
        for kind in kinds:
            accuracy = [train_recall(claim_rng(claim, seed), kind, distance) for seed in range(3)]
            name = f"{kind}, distance {distance}"
            if kind == "RNN, random" and distance == 32:
                claim.below(name, float(np.mean(accuracy)), 0.4, "guessing gives 0.25")
            else:
                claim.above(name, float(np.mean(accuracy)), 0.6, "well above guessing")
            seeds[name] = {"worst": min(accuracy), "best": max(accuracy)}
    claim.note(steps=300, samples=3, sequences=400, seeds=seeds)


@pytest.mark.claim("self-mean")
def test_an_output_is_a_mean_and_forgets_what_a_mean_forgets(claim):
    """Outputs of 1000 random layers against the range of the values; and two sequences whose mean is the same."""
    rng = claim.rng(3)
    outside = -np.inf
    for _ in range(1000):
        x, weights = rng.standard_normal((8, 16)), random_layer(rng, 16)
        v, out = x @ weights[2], ag.self_attention(x, *weights)
        outside = max(outside, float(np.maximum(out - v.max(axis=0), v.min(axis=0) - out).max()))
    claim.below("how far an output lies outside the range of the values, at most", outside, 1e-12, "rounding")
    even = np.zeros((1, 2))  # a query that scores every key alike
    apart, alike = np.array([[1.0], [-1.0]]), np.array([[0.0], [0.0]])
    outputs = [ag.scaled_dot_product_attention(even, np.ones((2, 2)), v).item() for v in (apart, alike)]
    claim.check("outputs for the values (1, -1) and (0, 0)", outputs, expected=[0.0, 0.0], tolerance=1e-15)


# ------------------------------------------------------------------------------------------------ order


def random_encoder(rng: np.random.Generator, d: int, layers: int) -> list[ag.EncoderLayerParams]:
    """Draw encoder layers of width d with 4 heads."""
    return [
        ag.EncoderLayerParams(
            ag.init_multi_head(d, 4, rng=rng),
            rng.standard_normal((d, 4 * d)) / sqrt(d),
            rng.standard_normal((4 * d, d)) / sqrt(4 * d),
        )
        for _ in range(layers)
    ]


@pytest.mark.claim("self-stack-equivariance")
def test_a_stack_of_layers_is_equivariant_and_its_mean_invariant(claim):
    """Six encoder layers (4 heads, norms, feed-forward) on 12 tokens of width 32, in 20 other orders."""
    rng = claim.rng(4)
    layers = random_encoder(rng, 32, 6)

    def encode(x: np.ndarray) -> np.ndarray:
        for params in layers:
            x = ag.encoder_layer(x, params)
        return x

    x = rng.standard_normal((12, 32))
    positions = ag.sinusoidal_positions(12, 32)
    out, placed = encode(x), encode(x + positions)
    worst, pooled, with_positions, with_positions_pooled = 0.0, 0.0, np.inf, np.inf
    for _ in range(20):
        order = rng.permutation(12)
        there = encode(x[order])
        worst = max(worst, float(np.abs(there - out[order]).max()))
        pooled = max(pooled, float(np.abs(there.mean(axis=0) - out.mean(axis=0)).max()))
        moved = encode(x[order] + positions)
        with_positions = min(with_positions, float(np.abs(moved - placed[order]).max()))
        change = float(np.abs(moved.mean(axis=0) - placed.mean(axis=0)).max())
        with_positions_pooled = min(with_positions_pooled, change)
    claim.below("largest difference of a token's output", worst, 1e-10, "rounding")
    claim.below("largest difference of the mean output", pooled, 1e-10, "rounding")
    claim.above("with positions added: smallest difference of a token's output", with_positions, 0.1)
    claim.above("with positions added: smallest difference of the mean output", with_positions_pooled, 0.01)
    claim.note(layers=6, orders=20)


# ------------------------------------------------------------------------------------------------ saturation


@pytest.mark.claim("self-saturation")
def test_a_softmax_of_larger_scores_saturates(claim):
    """Weights and Jacobian norm for the scores 1, 2, 3 and for ten times as much."""
    small, large = ag.softmax([1.0, 2.0, 3.0]), ag.softmax([10.0, 20.0, 30.0])
    powers = [math.exp(s) for s in (1, 2, 3)]
    claim.check("weights of 1, 2, 3", small, expected=[p / sum(powers) for p in powers], tolerance=1e-15, why="by hand")
    claim.check("weights of 1, 2, 3, rounded", small.round(2), expected=[0.09, 0.24, 0.67], tolerance=1e-12)
    claim.above("largest weight of 10, 20, 30", large[2], 0.9999)
    norms = [float(np.linalg.norm(ag.softmax_jacobian(w))) for w in (small, large)]
    claim.above("Jacobian norm of 1, 2, 3 over that of 10, 20, 30", norms[0] / norms[1], 1000.0)
    claim.note(large=large, norms=norms, ratio=float(small[2] / small[1]), large_ratio=float(large[2] / large[1]))
    even = float(np.linalg.norm(ag.softmax_jacobian(np.full(3, 1 / 3))))
    claim.above("Jacobian norm of equal weights, over that of 1, 2, 3", even / norms[0], 1.0)


@pytest.mark.claim("self-score-spread")
def test_what_spread_of_scores_a_width_gives(claim):
    """Dot products of 20,000 pairs of width 512; and of width 64 with components of at most 0.3."""
    rng = claim.rng(5)
    q, k = rng.standard_normal((2, 20_000, 512), dtype=np.float32)
    spread = float(np.einsum("ij,ij->i", q, k).astype(float).std())
    claim.check("standard deviation at d_k = 512", spread, expected=sqrt(512), tolerance=0.03, relative=True,
                why="20,000 samples")  # fmt: skip
    small_q, small_k = rng.uniform(-0.3, 0.3, (2, 20_000, 64))
    small = np.einsum("ij,ij->i", small_q, small_k)
    claim.below("largest dot product of width 64, components within 0.3", float(np.abs(small).max()), 64 * 0.3**2)
    claim.check("standard deviation of these", float(small.std()), expected=8 * 0.03, tolerance=0.03, relative=True,
                why="the variance of a component is 0.3 ** 2 / 3")  # fmt: skip
    claim.note(bound=64 * 0.3**2, samples=20_000)


@pytest.mark.claim("self-printed-weights")
def test_weights_that_are_often_printed(claim):
    """The softmax of 1.2, 2.5, 0.8, 1.5; and 0.2, 0.5, 0.3 sharpened and flattened by a temperature."""
    weights = ag.softmax([1.2, 2.5, 0.8, 1.5])
    claim.above("distance from the printed .18, .42, .12, .28", np.abs(weights - [0.18, 0.42, 0.12, 0.28]).max(), 0.1)
    ratios = np.log(weights[:, None] / weights) - np.subtract.outer([1.2, 2.5, 0.8, 1.5], [1.2, 2.5, 0.8, 1.5])
    claim.below("log ratio of two weights minus the difference of their scores", np.abs(ratios).max(), 1e-12)
    scores = np.log([0.2, 0.5, 0.3])
    taus = np.geomspace(0.01, 100, 2000)
    tempered = np.stack([ag.softmax(scores, temperature=t) for t in taus])  # (2000, 3)
    claim.require("no temperature changes the order of the weights", bool((np.diff(tempered[:, [0, 2, 1]]) >= 0).all()))
    claim.note(weights=weights, half=ag.softmax(scores, temperature=0.5), two=ag.softmax(scores, temperature=2.0))


# ------------------------------------------------------------------------------------------------ cost

MEMORY_LENGTHS = [2**i for i in range(7, 18)]  # 128 ... 131,072


@pytest.mark.claim("self-memory")
def test_bytes_of_the_weights_by_length(claim):
    """Bytes of the n x n weights in half precision: one head, 32 heads, and 32 layers of 32 heads."""
    one = [ag.attention_bytes(n, 128).scores for n in MEMORY_LENGTHS]
    heads = [ag.attention_bytes(n, 128, num_heads=32).scores for n in MEMORY_LENGTHS]
    claim.require("one head: two bytes for each pair", one == [2 * n * n for n in MEMORY_LENGTHS])
    claim.require("32 heads: 32 times as much", heads == [32 * b for b in one])
    claim.check("one head at 32,768 tokens, in GiB", one[8] / 2**30, expected=2)
    claim.check("32 heads at 32,768 tokens, in GiB", heads[8] / 2**30, expected=64)
    claim.note(lengths=MEMORY_LENGTHS, one_head=one, heads_32=heads)


@pytest.mark.claim("self-memory-measured")
def test_peak_memory_with_the_weights_kept(claim):
    """Peak memory of attention in single precision, d_k = 64, with the weights returned, for 2048 to 8192 tokens."""
    rng = claim.rng(6)
    lengths, peaks, tiled = [2048, 4096, 8192], [], []
    ag.scaled_dot_product_attention(*rng.standard_normal((3, 64, 64)))  # what the first call sets up is not counted
    for n in lengths:
        q, k, v = rng.standard_normal((3, n, 64), dtype=np.float32)
        peaks.append(
            ag.peak_memory(lambda q=q, k=k, v=v: ag.scaled_dot_product_attention(q, k, v, return_weights=True))
        )
        tiled.append(ag.peak_memory(lambda q=q, k=k, v=v: ag.flash_attention(q, k, v)))
    claim.above(
        "peak over the bytes of the weights", [p / (4 * n * n) for p, n in zip(peaks, lengths, strict=True)], 1.0
    )
    claim.check("exponent", ag.fit_exponent(lengths, peaks).exponent, expected=2.0, tolerance=0.25,
                why="work space of a fixed size")  # fmt: skip
    claim.below("tiled: peak at the longest over the bytes of the weights", tiled[-1] / (4 * lengths[-1] ** 2), 0.25)
    claim.note(lengths=lengths, peaks=peaks, tiled=tiled)


@pytest.mark.claim("self-flops")
def test_where_the_quadratic_part_dominates(claim):
    """Multiply-adds of one layer, d_model = 768: share of the n x n part, and slope from n to 2n on log axes."""
    lengths = MEMORY_LENGTHS
    costs = [ag.attention_flops(n, 768, num_heads=12) for n in lengths]
    share = np.array([c.quadratic / c.macs for c in costs])
    slope = np.log2([ag.attention_flops(2 * n, 768).macs / ag.attention_flops(n, 768).macs for n in lengths])
    n = np.array(lengths)
    claim.below("share of the n x n part: deviation from n / (n + 2 d)", np.abs(share - n / (n + 2 * 768)).max(), 1e-12)
    recurrent = 2 * n * 768**2  # two square matrices for each token
    ratio = np.array([c.macs for c in costs]) / recurrent
    claim.below(
        "work over that of a recurrent layer: deviation from 2 + n / d", np.abs(ratio - 2 - n / 768).max(), 1e-9
    )
    claim.below("slope from 128 to 256", float(slope[0]), 1.2)
    claim.above("slope from 131,072 on", float(slope[-1]), 1.95)
    claim.note(lengths=lengths, share=share, slope=slope, macs=[c.macs for c in costs])


@pytest.mark.claim("self-time")
def test_processor_time_against_length(claim):
    """Processor time for width 64, single precision, best of 3, is recorded; the exponent of the work is judged."""
    rng = claim.rng(7)
    weights = tuple(w.astype(np.float32) for w in random_layer(rng, 64))
    lengths, seconds = [128, 256, 512, 1024, 2048, 4096], []
    for n in lengths:
        x = rng.standard_normal((n, 64), dtype=np.float32)
        ag.self_attention(x, *weights)
        taken = []
        for _ in range(3):
            start = time.process_time()
            for _ in range(max(1, 1024 // n)):
                ag.self_attention(x, *weights)
            taken.append((time.process_time() - start) / max(1, 1024 // n))
        seconds.append(min(taken))
    work = [ag.attention_flops(n, 64).macs for n in lengths]
    fit = ag.fit_exponent(lengths[2:], seconds[2:])
    claim.check("exponent of the multiply-adds, 512 to 4096", ag.fit_exponent(lengths[2:], work[2:]).exponent,
                expected=2.0, tolerance=0.1, why="2 n² d of 2 n² d + 4 n d², n ≥ 8 d")  # fmt: skip
    claim.note(lengths=lengths, seconds=seconds, exponent=fit.exponent, exponent_error=fit.standard_error)


# ------------------------------------------------------------------------------------------------ heads, masks, reading


@pytest.mark.claim("self-previous-token")
def test_positions_make_a_head_that_looks_one_back(claim):
    """64 components hold positions, 32 random content; W_Q turns the positions back by one and reads no content."""
    rng = claim.rng(8)
    n, d = 32, 64
    back = np.zeros((d, d))  # takes the vector of position t to that of t - 1
    for i in range(d // 2):
        c, s = np.cos(10_000 ** (-2 * i / d)), np.sin(10_000 ** (-2 * i / d))
        back[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, s], [-s, c]]
    w_q, w_k = np.zeros((96, d)), np.zeros((96, d))
    w_q[:d], w_k[:d] = 16.0 * back, np.eye(d)

    def weights(positions: np.ndarray) -> np.ndarray:
        x = np.hstack([positions, rng.standard_normal((n, 32))])  # (n, d_model)
        return ag.softmax(ag.attention_scores(x @ w_q, x @ w_k))  # (n, n)

    with_positions, without = weights(ag.sinusoidal_positions(n, d)), weights(np.zeros((n, d)))
    before = np.arange(1, n), np.arange(n - 1)
    claim.above("smallest weight to the token before", float(with_positions[before].min()), 0.5)
    claim.below("without positions: deviation from 1/n", np.abs(without - 1 / n).max(), 1e-12, "all keys score alike")
    claim.note(mean=float(with_positions[before].mean()), n=n, d_model=96)


@pytest.mark.claim("self-weight-is-not-effect")
def test_the_largest_weight_is_not_always_the_largest_effect(claim):
    """5000 random rows of 8 keys, width 16: does leaving out the key with the largest weight change the output most?"""
    rng = claim.rng(9)
    rows = 5000
    q, (k, v) = rng.standard_normal((rows, 1, 16)), rng.standard_normal((2, rows, 8, 16))
    out, weights = ag.scaled_dot_product_attention(q, k, v, return_weights=True)
    without = [ag.scaled_dot_product_attention(q, np.delete(k, j, 1), np.delete(v, j, 1)) for j in range(8)]
    effect = np.linalg.norm(np.stack(without) - out, axis=-1)[..., 0]  # (keys, rows)
    share = float(np.mean(effect.argmax(axis=0) != weights[:, 0].argmax(axis=-1)))
    claim.above("share of rows where leaving out another key matters more", share, 0.05)
    claim.note(
        rows=rows, error=sqrt(share * (1 - share) / rows), mean_largest_weight=float(weights.max(axis=-1).mean())
    )


@pytest.mark.claim("self-variants")
def test_pairs_and_paths_of_the_variants(claim):
    """Pairs and longest paths for n = 1024: all pairs, causal, a window of 128 to each side, and a causal window."""
    n = 1024
    masks = {
        "bidirectional": ag.full,
        "causal": ag.causal,
        "window": ag.sliding_window(128, 128),
        "causal window": ag.sliding_window(128, 0),
    }
    pairs = [mask.count(n) for mask in masks.values()]
    claim.check("pairs of the bidirectional and the causal mask", pairs[:2], expected=[n * n, n * (n + 1) // 2])
    for mask, count in zip(masks.values(), pairs, strict=True):
        claim.require(f"{mask!r}: counted as it is drawn", int(mask.materialize(n).sum()) == count)
    paths = [ag.path_lengths(mask, n) for mask in masks.values()]
    claim.check("longest paths", [p.longest for p in paths], expected=[1, 1, 8, 8])
    claim.note(names=list(masks), pairs=pairs, n=n, unreachable=[p.unreachable for p in paths])
