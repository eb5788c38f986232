"""Chapter 6, Score functions: every claim of the chapter, measured."""

from __future__ import annotations

import contextlib
import math
import time
from functools import partial
from math import sqrt
from typing import ClassVar

import numpy as np
import pytest

import attn_guide as ag

#: The example of the chapter: one query, three keys, and the parameters of the scores that have some.
Q = np.array([[2.0, 1]])  # (n, d)
K = np.array([[2.0, 1], [4, -1], [-1, 2]])  # (m, d)
W = np.array([[0.0, 1], [-1, 0]])  # (d_q, d_k): a quarter turn
W_QUERY = W_KEY = 0.5 * np.eye(2)  # (d, d_a)
READOUT = np.array([2.0, 1])  # (d_a,)


def all_scores(q, k, w, w_query, w_key, v) -> dict[str, np.ndarray]:
    """The six scores of queries and keys of one width."""
    return {
        "additive": ag.additive_score(q, k, w_query, w_key, v),
        "dot": ag.dot_score(q, k),
        "general": ag.general_score(q, k, w),
        "concat": ag.concat_score(q, k, np.concatenate([w_query, w_key]), v),
        "scaled dot": ag.scaled_dot_score(q, k),
        "cosine": ag.cosine_score(q, k),
    }


# ------------------------------------------------------------------------------------------------ the six scores


@pytest.mark.claim("scores-example")
def test_six_scores_by_hand(claim):
    """One query and three keys of width 2, all six scores in plain Python, number by number, against the package."""
    q = Q[0].tolist()
    turned = [sum(q[a] * W[a, b] for a in range(2)) for b in range(2)]
    by_hand: dict[str, list[float]] = {
        name: [] for name in ("additive", "dot", "general", "concat", "scaled dot", "cosine")
    }
    for k in K.tolist():
        product = q[0] * k[0] + q[1] * k[1]
        hidden = [math.tanh(0.5 * q[a] + 0.5 * k[a]) for a in range(2)]
        pair = q + k  # laid end to end
        joined = np.concatenate([W_QUERY, W_KEY]).tolist()
        hidden_of_pair = [math.tanh(sum(pair[i] * joined[i][a] for i in range(4))) for a in range(2)]
        by_hand["additive"].append(2 * hidden[0] + 1 * hidden[1])
        by_hand["dot"].append(product)
        by_hand["general"].append(turned[0] * k[0] + turned[1] * k[1])
        by_hand["concat"].append(2 * hidden_of_pair[0] + 1 * hidden_of_pair[1])
        by_hand["scaled dot"].append(product / sqrt(2))
        by_hand["cosine"].append(product / (math.hypot(*q) * math.hypot(*k)))
    found = all_scores(Q, K, W, W_QUERY, W_KEY, READOUT)
    for name, row in by_hand.items():
        claim.check(name, found[name][0], expected=row, tolerance=1e-14, why="rounding")
    best = {name: int(row.argmax()) for name, row in found.items()}
    claim.check("key with the largest score: dot, cosine, general", [best["dot"], best["cosine"], best["general"]],
                expected=[1, 0, 2])  # fmt: skip
    claim.note(best=best, weights={name: ag.softmax(row)[0] for name, row in found.items()})


@pytest.mark.claim("scores-widths")
def test_which_scores_take_two_widths(claim):
    """Queries of width 3 and keys of width 5: which score functions compute, and which refuse."""
    rng = claim.rng(0)
    q, k = rng.standard_normal((4, 3)), rng.standard_normal((6, 5))
    w, w_q, w_k, v = (rng.standard_normal(s) for s in ((3, 5), (3, 7), (5, 7), (7,)))
    calls = {
        "additive": lambda: ag.additive_score(q, k, w_q, w_k, v),
        "dot": lambda: ag.dot_score(q, k),
        "general": lambda: ag.general_score(q, k, w),
        "concat": lambda: ag.concat_score(q, k, np.concatenate([w_q, w_k]), v),
        "scaled dot": lambda: ag.scaled_dot_score(q, k),
        "cosine": lambda: ag.cosine_score(q, k),
    }
    takes = []
    for name, call in calls.items():
        with contextlib.suppress(ValueError):
            takes += [name] if call().shape == (4, 6) else []
    claim.check("scores that take queries and keys of different widths", ", ".join(takes),
                expected="additive, general, concat")  # fmt: skip


@pytest.mark.claim("scores-concat-additive")
def test_concat_is_additive(claim):
    """Every pair really laid end to end, multiplied by one W and read out, against additive with W cut in two."""
    rng = claim.rng(1)
    q, k = rng.standard_normal((5, 3)), rng.standard_normal((7, 4))
    w, v = rng.standard_normal((7, 6)), rng.standard_normal(6)
    pairs = np.concatenate([np.repeat(q[:, None], 7, axis=1), np.repeat(k[None], 5, axis=0)], axis=-1)  # (n, m, 7)
    joined = np.tanh(pairs @ w) @ v
    cut = ag.additive_score(q, k, w[:3], w[3:], v)
    claim.check("largest difference from additive with W cut in two", np.abs(joined - cut).max(), expected=0.0,
                tolerance=1e-13, why="rounding")  # fmt: skip
    claim.check("concat_score less additive_score", np.abs(ag.concat_score(q, k, w, v) - cut).max(), expected=0.0)
    claim.note(pairs=q.shape[0] * k.shape[0])


@pytest.mark.claim("scores-general-special")
def test_general_contains_dot_and_projections(claim):
    """General with the identity, with 1/sqrt(d) times it, and with W_Q W_K^T, against the other scores; its rank."""
    rng = claim.rng(2)
    d_model, d_k = 16, 4
    x, y = rng.standard_normal((6, d_model)), rng.standard_normal((9, d_model))
    w_q, w_k = rng.standard_normal((2, d_model, d_k))
    identity = ag.general_score(x, y, np.eye(d_model))
    claim.check("with W the identity, less dot", np.abs(identity - ag.dot_score(x, y)).max(),
                expected=0.0, tolerance=1e-13, why="rounding")  # fmt: skip
    claim.check("with W = W_Q W_K', less dot of the projections",
                np.abs(ag.general_score(x, y, w_q @ w_k.T) - ag.dot_score(x @ w_q, y @ w_k)).max(), expected=0.0,
                tolerance=1e-12, why="rounding")  # fmt: skip
    claim.check("rank of W_Q W_K'", int(np.linalg.matrix_rank(w_q @ w_k.T)), expected=d_k)
    claim.check("numbers in W, and in W_Q and W_K", [d_model**2, w_q.size + w_k.size], expected=[256, 128])
    claim.note(d_model=d_model, d_k=d_k)


@pytest.mark.claim("scores-scaled-dot")
def test_scaled_is_dot_of_a_shorter_query(claim):
    """The query divided by sqrt(d_k), or the key, or both by its root, at widths 1 to 512: scores and gradients."""
    rng = claim.rng(3)
    off, off_gradient = [], []
    for d in (1, 2, 64, 512):
        q, k, g = rng.standard_normal((5, d)), rng.standard_normal((7, d)), rng.standard_normal((5, 7))
        s = ag.scaled_dot_score(q, k)
        others = (ag.dot_score(q / sqrt(d), k), ag.dot_score(q, k / sqrt(d)), ag.dot_score(q / d**0.25, k / d**0.25))
        off.append(max(np.abs(s - other).max() for other in others))
        scaled, plain = ag.scaled_dot_score_backward(g, q, k), ag.dot_score_backward(g, q, k)
        off_gradient.append(max(np.abs(a - b / sqrt(d)).max() for a, b in zip(scaled, plain, strict=True)))
    claim.check("largest difference", max(off), expected=0.0, tolerance=1e-13, why="rounding")
    claim.check("gradients less those of dot over sqrt(d_k)", max(off_gradient), expected=0.0, tolerance=1e-13,
                why="rounding")  # fmt: skip


@pytest.mark.claim("scores-signs")
def test_what_a_change_of_sign_does(claim):
    """Both query and key negated: products keep their value, the additive score turns its sign."""
    rng = claim.rng(4)
    q, k, w = rng.standard_normal((5, 8)), rng.standard_normal((6, 8)), rng.standard_normal((8, 8))
    w_q, w_k, v = rng.standard_normal((8, 8)), rng.standard_normal((8, 8)), rng.standard_normal(8)
    before, after = all_scores(q, k, w, w_q, w_k, v), all_scores(-q, -k, w, w_q, w_k, v)
    even = max(np.abs(after[name] - before[name]).max() for name in ("dot", "general", "scaled dot", "cosine"))
    odd = max(np.abs(after[name] + before[name]).max() for name in ("additive", "concat"))
    claim.check("change of the four products", even, expected=0.0, tolerance=1e-13, why="rounding")
    claim.check("sum of the additive score before and after", odd, expected=0.0, tolerance=1e-13, why="rounding")


@pytest.mark.claim("scores-additive-bound")
def test_additive_is_bounded_by_its_readout(claim):
    """Queries and keys up to a million times as long: |score| against the sum of |v|, which no score passes."""
    rng = claim.rng(5)
    w_q, w_k = rng.standard_normal((2, 8, 16))
    v = rng.standard_normal(16)
    bound = np.abs(v).sum()
    largest = []
    for length in (1.0, 10.0, 1e6):
        q, k = length * rng.standard_normal((64, 8)), rng.standard_normal((64, 8))
        largest.append(float(np.abs(ag.additive_score(q, k, w_q, w_k, v)).max() / bound))
    claim.below("largest |score| over the sum of |v|, lengths 1, 10, a million", max(largest), 1 + 1e-12)
    top = ag.additive_score([[1e3]], [[1e3]], np.ones((1, 16)), np.ones((1, 16)), np.abs(v))[0, 0]
    claim.check("reached, over the sum of |v|", top / bound, expected=1.0, tolerance=1e-12, why="rounding")
    claim.note(largest=largest)


@pytest.mark.claim("scores-additive-linear")
def test_without_the_bend_the_query_drops_out(claim):
    """The additive score with tanh and with nothing in its place: how far weights of different queries differ."""
    rng = claim.rng(6)
    n, m, d = 32, 16, 8
    q, k = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    w_q, w_k = rng.standard_normal((2, d, d)) / sqrt(d)
    v = rng.standard_normal(d)

    def apart(weights: np.ndarray) -> float:
        """Mean total variation distance of two rows."""
        return float(np.abs(weights[:, None] - weights[None]).sum(axis=-1).sum() / (2 * n * (n - 1)))

    linear = ag.softmax((q @ w_q @ v)[:, None] + (k @ w_k @ v)[None])
    claim.check("distance of the weights of two queries, without tanh", apart(linear), expected=0.0, tolerance=1e-14,
                why="rounding")  # fmt: skip
    lengths = (0.1, 1.0, 10.0)
    found = [apart(ag.softmax(ag.additive_score(a * q, a * k, w_q, w_k, v))) for a in lengths]
    claim.above("distance of the weights of two queries, with tanh", found[1], 0.05)
    claim.below("the same with queries and keys a tenth as long", found[0], 0.01)
    claim.note(lengths=lengths, distances=found, dot=apart(ag.softmax(ag.scaled_dot_score(q, k))))


@pytest.mark.claim("scores-rank")
def test_rank_of_the_matrix_of_scores(claim):
    """64 queries against 64 keys of width 4: how many independent rows each matrix of scores has."""
    rng = claim.rng(7)
    n, d = 64, 4
    q, k, w = rng.standard_normal((n, d)), rng.standard_normal((n, d)), rng.standard_normal((d, d))
    w_q, w_k, v = rng.standard_normal((d, d)), rng.standard_normal((d, d)), rng.standard_normal(d)
    rank = {
        name: int((np.linalg.svd(s, compute_uv=False) > 1e-10 * np.linalg.norm(s, 2)).sum())
        for name, s in all_scores(q, k, w, w_q, w_k, v).items()
    }
    claim.check("rank: dot, scaled dot, general, cosine", [rank[x] for x in ("dot", "scaled dot", "general", "cosine")],
                expected=[d] * 4)  # fmt: skip
    claim.above("rank: additive", rank["additive"], 2 * d)
    weights = np.linalg.svd(ag.softmax(ag.dot_score(q, k)), compute_uv=False)
    claim.above(
        "rank of the dot product's weights, after the softmax", int((weights > 1e-10 * weights[0]).sum()), 2 * d
    )
    claim.note(n=n, d=d)


@pytest.mark.claim("scores-length")
def test_the_dot_product_prefers_long_keys(claim):
    """Keys of random directions, half of them twice as long: how often the winner is a long one, by score."""
    rng = claim.rng(8)
    rows, m, d = 4000, 32, 16
    q, k = rng.standard_normal((rows, 1, d)), rng.standard_normal((rows, m, d))
    k[:, : m // 2] *= 2
    dot = (ag.dot_score(q, k).argmax(axis=-1) < m // 2).mean()
    cosine = (ag.cosine_score(q, k).argmax(axis=-1) < m // 2).mean()
    claim.above("share of winners that are long, dot", dot, 0.8)
    claim.check("share of winners that are long, cosine", cosine, expected=0.5, tolerance=4 * 0.5 / sqrt(rows),
                why="four standard errors: half of the keys are long")  # fmt: skip
    claim.note(rows=rows, keys=m, d=d)


# ------------------------------------------------------------------------------------------------ spread, scale


@pytest.mark.claim("scores-spread")
def test_spread_against_width(claim):
    """Variance of every score of random vectors (mean 0, variance 1) against d; projections keep variance 1."""
    rng = claim.rng(9)
    widths, pairs, draws = (4, 16, 64, 256), 200, 100
    x, weight = np.polynomial.hermite_e.hermegauss(80)
    tanh_squared = float((weight * np.tanh(sqrt(2) * x) ** 2).sum() / weight.sum())
    measured: dict[str, list[float]] = {}
    for d in widths:
        squares: dict[str, list[float]] = {}
        for _ in range(draws):  # other vectors and other parameters each time
            q, k = rng.standard_normal((2, pairs, 1, d))
            w = rng.standard_normal((d, d)) / sqrt(d)
            w_q, w_k = rng.standard_normal((2, d, d))
            w_q, w_k = (a / np.linalg.norm(a, axis=0) for a in (w_q, w_k))
            v = rng.choice([-1.0, 1.0], size=d) / sqrt(d)
            scores = all_scores(q, k, w, w_q, w_k, v)
            for name in ("additive", "dot", "general", "scaled dot", "cosine"):
                squares.setdefault(name, []).append(float(np.mean(scores[name] ** 2)))  # all means are zero
        truth = {"additive": tanh_squared, "dot": d, "general": d, "scaled dot": 1.0, "cosine": 1 / d}
        for name, values in squares.items():
            error = float(np.std(values, ddof=1) / sqrt(draws))
            claim.check(f"{name}, d = {d}", float(np.mean(values)), expected=truth[name], tolerance=4 * error,
                        why="four standard errors")  # fmt: skip
            measured.setdefault(name, []).append(float(np.mean(values)))
    claim.note(widths=widths, pairs=pairs * draws, tanh_squared=tanh_squared, variance=measured)


@pytest.mark.claim("scores-saturation")
def test_large_dot_products_saturate_and_do_not_round(claim):
    """Width 512 and 64 keys in single precision: the error of dot products by rounding, and what the softmax makes."""
    rng = claim.rng(10)
    q, k = rng.standard_normal((200, 1, 512)), rng.standard_normal((200, 64, 512))
    exact = ag.dot_score(q, k)
    single = ag.dot_score(q.astype(np.float32), k.astype(np.float32))
    claim.below("largest rounding error of a score in single precision", np.abs(single - exact).max(), 1e-3)
    sharp, even = ag.softmax(exact), ag.softmax(exact / sqrt(512))
    slope = [float(np.mean((w * (1 - w)).max(axis=-1))) for w in (sharp, even)]
    claim.above("mean largest weight, unscaled, in double precision", sharp.max(axis=-1).mean(), 0.85)
    claim.below("mean largest weight, scaled", even.max(axis=-1).mean(), 0.3)
    off = np.abs(ag.softmax(single) - sharp).max()
    claim.below("largest change of a weight by single precision", off, 1e-3)
    claim.note(slope_unscaled=slope[0], slope_scaled=slope[1], spread=float(exact.std()), rows=200, keys=64)


@pytest.mark.claim("scores-ranges")
def test_the_factor_between_two_rows(claim):
    """Scores 1, 2, 3 and what they are before division by sqrt(512), against the printed pair 10, 20, 30."""
    factor = sqrt(512)
    claim.check("two standard deviations, before and after", [2 * factor, 2.0], expected=[45.2548, 2.0], tolerance=1e-4,
                why="rounding to four digits")  # fmt: skip
    claim.check("three, before and after", [3 * factor, 3.0], expected=[67.8823, 3.0], tolerance=1e-4,
                why="rounding to four digits")  # fmt: skip
    claim.check("what 1, 2, 3 were", factor * np.array([1.0, 2, 3]), expected=[22.6274, 45.2548, 67.8823],
                tolerance=1e-4, why="rounding to four digits")  # fmt: skip
    claim.note(ratio=factor, scaled=ag.softmax([1.0, 2, 3]), ten=1 - ag.softmax([10.0, 20, 30])[2],
               real=1 - ag.softmax(factor * np.array([1.0, 2, 3]))[2])  # fmt: skip


# ------------------------------------------------------------------------------------------------ cosine


@pytest.mark.claim("scores-cosine-range")
def test_cosine_is_bounded_and_blind_to_length(claim):
    """Cosines of random vectors of lengths from a billionth to a billion: range, and change when lengths change."""
    rng = claim.rng(11)
    q, k = rng.standard_normal((50, 6)), rng.standard_normal((60, 6))
    lengths = 10 ** rng.uniform(-9, 9, size=(60, 1))
    s = ag.cosine_score(q, k)
    claim.below("largest |cosine|", np.abs(s).max(), 1 + 1e-12, "1, to rounding")
    changed = np.abs(ag.cosine_score(q, lengths * k) - s).max()
    claim.below("largest change when keys change their lengths", changed, 1e-12, "rounding")
    unit = q / np.linalg.norm(q, axis=1, keepdims=True), k / np.linalg.norm(k, axis=1, keepdims=True)
    claim.below(
        "difference from the dot product of unit vectors", np.abs(ag.dot_score(*unit) - s).max(), 1e-12, "rounding"
    )
    claim.check("itself", float(ag.cosine_score(q[:1], q[:1])[0, 0]), expected=1.0, tolerance=1e-12, why="rounding")


@pytest.mark.claim("scores-cosine-cap")
def test_the_largest_weight_that_a_cosine_can_give(claim):
    """One key along the query and n - 1 against it, the best case there is, through the softmax; with scales."""
    keys = (2, 10, 128, 512)

    def best(n: int, scale: float = 1.0) -> float:
        k = np.array([[3.0, 4.0]] + [[-0.6, -0.8]] * (n - 1))
        return float(ag.softmax(ag.cosine_score([[0.3, 0.4]], k, scale=scale))[0, 0])

    cap = [best(n) for n in keys]
    claim.check("largest weight with 2, 10, 128, 512 keys", cap,
                expected=[math.e**2 / (math.e**2 + n - 1) for n in keys], tolerance=1e-12, why="rounding")  # fmt: skip
    rng = claim.rng(12)
    for n in keys:
        q, k = rng.standard_normal((500, 1, 4)), rng.standard_normal((500, n, 4))
        claim.below(f"largest weight of 500 random rows of {n} keys", ag.softmax(ag.cosine_score(q, k)).max(),
                    best(n) + 1e-12, "never above the cap")  # fmt: skip
    needed = [math.log(9 * (n - 1)) / 2 for n in keys]
    claim.check("weight with the scale ln(9 (n - 1)) / 2", [best(n, s) for n, s in zip(keys, needed, strict=True)],
                expected=0.9, tolerance=1e-12, why="rounding")  # fmt: skip
    claim.note(keys=keys, needed=needed, at_ten=[best(n, 10.0) for n in keys])


@pytest.mark.claim("scores-cosine-random")
def test_random_directions_are_at_right_angles(claim):
    """The largest weight of 64 random keys, by width, with the bare cosine, with scale 10 and with the scaled dot."""
    rng = claim.rng(13)
    widths, n = (4, 16, 64, 256), 64
    found: dict[str, list[float]] = {"bare": [], "scale": [], "dot": []}
    for d in widths:
        q, k = rng.standard_normal((300, 1, d)), rng.standard_normal((300, n, d))
        for name, s in (
            ("bare", ag.cosine_score(q, k)),
            ("scale", ag.cosine_score(q, k, scale=sqrt(d))),
            ("dot", ag.scaled_dot_score(q, k)),
        ):
            found[name].append(float(ag.softmax(s).max(axis=-1).mean()))
    claim.below(
        "mean largest weight of 64 keys, bare cosine, d = 256", found["bare"][-1], 1.5 / n, "near an even share"
    )
    claim.check("cosine times sqrt(d) over scaled dot, d = 256", found["scale"][-1] / found["dot"][-1], expected=1.0,
                tolerance=0.1, why="long random vectors have nearly one length, sqrt(d)")  # fmt: skip
    claim.note(widths=widths, keys=n, even=1 / n, **found)


# ------------------------------------------------------------------------------------------------ gradients


@pytest.mark.claim("scores-gradients")
def test_gradients_against_differences(claim):
    """A random loss of each score: the derivative of every argument against central differences in double precision."""
    rng = claim.rng(14)
    n, m, d_q, d_k, d_a = 3, 4, 5, 5, 6
    q, k = rng.standard_normal((n, d_q)), rng.standard_normal((m, d_k))
    w, w_q, w_k = (rng.standard_normal(s) for s in ((d_q, d_k), (d_q, d_a), (d_k, d_a)))
    v, g = rng.standard_normal(d_a), rng.standard_normal((n, m))
    cases = {
        "additive": (ag.additive_score, ag.additive_score_backward, (q, k, w_q, w_k, v)),
        "dot": (ag.dot_score, ag.dot_score_backward, (q, k)),
        "general": (ag.general_score, ag.general_score_backward, (q, k, w)),
        "concat": (ag.concat_score, ag.concat_score_backward, (q, k, np.concatenate([w_q, w_k]), v)),
        "scaled dot": (ag.scaled_dot_score, ag.scaled_dot_score_backward, (q, k)),
        "cosine": (partial(ag.cosine_score, scale=3.0), partial(ag.cosine_score_backward, scale=3.0), (q, k)),
    }
    step, checked = 1e-5, 0
    for name, (score, backward, arguments) in cases.items():
        off = 0.0
        for i, (array, grad) in enumerate(zip(arguments, backward(g, *arguments), strict=True)):
            for place in np.ndindex(array.shape):
                values = []
                for sign in (1, -1):
                    moved = [a.copy() for a in arguments]
                    moved[i][place] += sign * step
                    values.append(float((g * score(*moved)).sum()))
                off = max(off, abs(grad[place] - (values[0] - values[1]) / (2 * step)))
                checked += 1
        claim.below(f"largest difference, {name}", off, 1e-7, "differences with steps of 1e-5")
    claim.note(derivatives=checked)


@pytest.mark.claim("scores-gradient-size")
def test_what_a_long_key_does_to_its_gradient(claim):
    """The gradient of one score with respect to its key, as the key grows: dot, cosine, additive."""
    rng = claim.rng(15)
    d, count = 8, 300
    w_q, w_k = rng.standard_normal((2, d, d)) / sqrt(d)
    v, one = rng.standard_normal(d) / sqrt(d), np.ones((count, 1, 1))
    q, k = rng.standard_normal((2, count, 1, d))
    lengths, size = (1.0, 10.0, 100.0), {"dot": [], "cosine": [], "additive": []}
    for a in lengths:
        grads = {
            "dot": ag.dot_score_backward(one, q, a * k)[1],
            "cosine": ag.cosine_score_backward(one, q, a * k)[1],
            "additive": ag.additive_score_backward(one, q, a * k, w_q, w_k, v)[1],
        }
        for name, grad in grads.items():
            size[name].append(float(np.linalg.norm(grad, axis=-1).mean()))
        if a == 1.0:
            radial = np.abs((grads["cosine"] * k).sum(axis=-1)).max()
    claim.check("dot: gradient with keys ten times as long over that with short ones", size["dot"][1] / size["dot"][0],
                expected=1.0, tolerance=1e-12, why="rounding")  # fmt: skip
    claim.check(
        "cosine: the same", size["cosine"][1] / size["cosine"][0], expected=0.1, tolerance=1e-12, why="rounding"
    )
    claim.below("cosine: largest part of a gradient along its key", radial, 1e-12, "rounding")
    claim.below("additive: the same", size["additive"][1] / size["additive"][0], 0.5)
    claim.note(lengths=lengths, size=size)


# ------------------------------------------------------------------------------------------------ cost


class Counted:
    """A number that counts what is done with it."""

    done: ClassVar[dict[str, int]] = {}

    def __init__(self, value: float) -> None:
        self.value = value

    def _do(self, what: str, value: float) -> Counted:
        Counted.done[what] = Counted.done.get(what, 0) + 1
        return Counted(value)

    def __mul__(self, other: Counted) -> Counted:
        return self._do("multiplications", self.value * other.value)

    def __add__(self, other: Counted) -> Counted:
        return self._do("additions", self.value + other.value)

    def tanh(self) -> Counted:
        return self._do("tanh", math.tanh(self.value))


def counted(a: np.ndarray) -> np.ndarray:
    return np.vectorize(Counted, otypes=[object])(a)


def count(function, *arrays: np.ndarray) -> tuple[dict[str, int], np.ndarray]:
    """Run a function on counting numbers and return how often each operation was done, and the result."""
    Counted.done = {}
    result = function(*map(counted, arrays))
    return dict(Counted.done), np.vectorize(lambda c: c.value, otypes=[float])(result)


def projected_dot(x, y, w_q, w_k):
    return (x @ w_q) @ (y @ w_k).T


def hoisted_additive(q, k, w_q, w_k, v):
    a, b = q @ w_q, k @ w_k
    return np.tanh(a[:, None] + b[None]) @ v


def naive_additive(q, k, w_q, w_k, v):
    return np.array([[np.tanh(x @ w_q + y @ w_k) @ v for y in k] for x in q])


def multiplications(kind: str, n: int, m: int, d: int) -> int:
    """Multiplications for all pairs, every width d."""
    return {
        "dot": n * m * d,
        "general": n * d * d + n * m * d,
        "projected dot": (n + m) * d * d + n * m * d,
        "additive": (n + m) * d * d + n * m * d,
        "additive, projected again for each pair": n * m * (2 * d * d + d),
        "cosine": n * m * d + 2 * (n + m) * d,
    }[kind]


@pytest.mark.claim("scores-cost")
def test_multiplications_counted(claim):
    """Numbers that count what is done with them, sent through each score; the formulas at n = 512, d = 64."""
    rng = claim.rng(16)
    for n, m, d in ((3, 4, 2), (5, 2, 3)):
        q, k = rng.standard_normal((n, d)), rng.standard_normal((m, d))
        w, w_q, w_k = rng.standard_normal((3, d, d))
        v = rng.standard_normal(d)
        runs = {
            "dot": (lambda q, k: q @ k.T, (q, k), ag.dot_score(q, k)),
            "general": (lambda q, k, w: (q @ w) @ k.T, (q, k, w), ag.general_score(q, k, w)),
            "projected dot": (projected_dot, (q, k, w_q, w_k), ag.dot_score(q @ w_q, k @ w_k)),
            "additive": (hoisted_additive, (q, k, w_q, w_k, v), ag.additive_score(q, k, w_q, w_k, v)),
            "additive, projected again for each pair": (
                naive_additive, (q, k, w_q, w_k, v), ag.additive_score(q, k, w_q, w_k, v)),
        }  # fmt: skip
        for name, (function, arrays, wanted) in runs.items():
            done, result = count(function, *arrays)
            np.testing.assert_allclose(result, wanted, atol=1e-12)
            claim.check(f"{name}: multiplications, n = {n}, m = {m}, d = {d}", done["multiplications"],
                        expected=multiplications(name, n, m, d))  # fmt: skip
            claim.check(f"{name}: tanh, n = {n}, m = {m}, d = {d}", done.get("tanh", 0),
                        expected=n * m * d if "additive" in name else 0)  # fmt: skip
    n, d = 512, 64
    table = {
        name: multiplications(name, n, n, d)
        for name in ("dot", "general", "projected dot", "additive", "additive, projected again for each pair", "cosine")
    }
    claim.check(
        "additive over projected dot, in multiplications", table["additive"] / table["projected dot"], expected=1.0
    )
    claim.note(n=n, d=d, table=table, tanh=n * n * d, additions=n * n * d,
               parameters={"projected dot": 2 * d * d, "additive": 2 * d * d + d},
               factor=table["additive, projected again for each pair"] / table["additive"])  # fmt: skip


@pytest.mark.claim("scores-memory")
def test_the_array_that_no_product_avoids(claim):
    """Peak memory of the additive score by broadcasting, of the package's in tiles, and of the dot product."""
    rng = claim.rng(17)
    n, d = 512, 64
    q, k = rng.standard_normal((2, n, d))
    w_q, w_k = rng.standard_normal((2, d, d))
    v = rng.standard_normal(d)
    whole = n * n * d * q.itemsize
    run = {
        "broadcast": lambda: np.tanh((q @ w_q)[:, None] + (k @ w_k)[None]) @ v,
        "tiles": lambda: ag.additive_score(q, k, w_q, w_k, v),
        "dot": lambda: ag.dot_score(q @ w_q, k @ w_k),
    }
    np.testing.assert_allclose(run["broadcast"](), run["tiles"](), atol=1e-10)
    peak = {name: ag.peak_memory(function) for name, function in run.items()}
    scores = n * n * q.itemsize
    claim.above("peak written with broadcasting, over the (n, m, d) array", peak["broadcast"] / whole, 0.99)
    claim.below("peak of the package's tiles, over the (n, m, d) array", peak["tiles"] / whole, 0.25)
    claim.below("peak of the dot product with its projections, over the scores", peak["dot"] / scores, 2.0)
    claim.check("MiB of the (n, m, d) array in half precision", n * n * d * 2 / 2**20, expected=32.0)
    claim.note(n=n, d=d, peak=peak, scores=scores, whole=whole)


@pytest.mark.claim("scores-time")
def test_processor_time_recorded(claim):
    """Processor time of each score in single precision, best of three; recorded, while the count of work is judged."""
    rng = claim.rng(18)
    d, lengths = 64, (128, 256, 512, 1024)
    weights = [a.astype(np.float32) for a in (*rng.standard_normal((3, d, d)) / sqrt(d), rng.standard_normal(d))]
    w, w_q, w_k, v = weights
    seconds: dict[str, list[float]] = {}
    for n in lengths:
        q, k = rng.standard_normal((2, n, d)).astype(np.float32)
        runs = {
            "dot": lambda: ag.dot_score(q, k),  # noqa: B023
            "projected dot": lambda: ag.dot_score(q @ w_q, k @ w_k),  # noqa: B023
            "general": lambda: ag.general_score(q, k, w),  # noqa: B023
            "cosine": lambda: ag.cosine_score(q, k),  # noqa: B023
            "additive": lambda: ag.additive_score(q, k, w_q, w_k, v),  # noqa: B023
        }
        for name, function in runs.items():
            repeat = 1 if name == "additive" else max(1, 2048 // n)
            taken = []
            for _ in range(3):
                start = time.process_time()
                for _ in range(repeat):
                    function()
                taken.append((time.process_time() - start) / repeat)
            seconds.setdefault(name, []).append(min(taken))
    same = [multiplications("additive", n, n, d) / multiplications("projected dot", n, n, d) for n in lengths]
    claim.check("multiplications of additive over those of projected dot, every n", same, expected=[1.0] * 4)
    claim.note(lengths=lengths, d=d, milliseconds={name: [1e3 * s for s in row] for name, row in seconds.items()},
               ratio=[a / b for a, b in zip(seconds["additive"], seconds["projected dot"], strict=True)])  # fmt: skip


# ------------------------------------------------------------------------------------------------ libraries


@pytest.mark.claim("scores-libraries")
def test_what_pytorch_and_onnx_call_them(claim):
    """PyTorch's and ONNX's attention with their default scale and with 1; nn.Bilinear; cosine_similarity."""
    torch = pytest.importorskip("torch")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    rng = claim.rng(19)
    q, k = rng.standard_normal((3, 4)), rng.standard_normal((5, 4))
    tq, tk = torch.from_numpy(q), torch.from_numpy(k)
    eye = torch.eye(5, dtype=torch.float64)  # as values, so that what comes out are the weights
    sdpa = torch.nn.functional.scaled_dot_product_attention
    off = {
        "PyTorch attention, default": sdpa(tq, tk, eye).numpy() - ag.softmax(ag.scaled_dot_score(q, k)),
        "PyTorch attention, scale=1": sdpa(tq, tk, eye, scale=1.0).numpy() - ag.softmax(ag.dot_score(q, k)),
        "F.cosine_similarity": torch.nn.functional.cosine_similarity(tq[:, None], tk[None], dim=-1).numpy()
        - ag.cosine_score(q, k),
    }
    bilinear = torch.nn.Bilinear(4, 4, 1, dtype=torch.float64)
    pairs = [t.reshape(-1, 4) for t in (tq[:, None].expand(3, 5, 4), tk[None].expand(3, 5, 4))]
    scores = bilinear(*pairs).detach().numpy().reshape(3, 5) - float(bilinear.bias.detach())
    off["nn.Bilinear less its bias"] = scores - ag.general_score(q, k, bilinear.weight[0].detach().numpy())

    def with_onnx(**scale) -> np.ndarray:
        arrays = {"q": q, "k": k, "v": np.eye(5)}
        inputs = [helper.make_tensor_value_info(x, TensorProto.DOUBLE, [1, 1, *a.shape]) for x, a in arrays.items()]
        outputs = [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 1, 3, 5])]
        graph = helper.make_graph([helper.make_node("Attention", list(arrays), ["y"], **scale)], "g", inputs, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])
        return ReferenceEvaluator(model).run(None, {x: a[None, None] for x, a in arrays.items()})[0][0, 0]

    off["ONNX Attention, default"] = with_onnx() - ag.softmax(ag.scaled_dot_score(q, k))
    off["ONNX Attention, scale=1"] = with_onnx(scale=1.0) - ag.softmax(ag.dot_score(q, k))
    for name, difference in off.items():
        claim.check(f"{name}: difference", float(np.abs(difference).max()), expected=0.0, tolerance=1e-7,
                    why="rounding; ONNX keeps its scale in single precision")  # fmt: skip
    named = [name for name in (*dir(torch.nn), *dir(torch.nn.functional)) if "additive" in name.lower()]
    claim.check("names in torch.nn with 'additive' in them", len(named), expected=0)
    claim.note(torch=torch.__version__, onnx=onnx.__version__)


@pytest.mark.claim("scores-keras-formula")
def test_keras_formulas_are_special_cases(claim):
    """The formulas that Keras documents for its "concat" and additive scores, by hand, against the additive score."""
    rng = claim.rng(20)
    q, k, each = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(4)
    sums = q[:, None] + k[None]
    one, scale, ones, eye = 0.7, 1.3, np.ones(4), np.eye(4)
    claim.check("Keras AdditiveAttention less additive with W_Q = W_K = 1",
                np.abs((each * np.tanh(sums)).sum(axis=-1) - ag.additive_score(q, k, eye, eye, each)).max(),
                expected=0.0, tolerance=1e-13, why="rounding")  # fmt: skip
    concat = one * np.tanh(scale * sums).sum(axis=-1)
    claim.check("Keras score_mode='concat' less additive with multiples of 1",
                np.abs(concat - ag.additive_score(q, k, scale * eye, scale * eye, one * ones)).max(), expected=0.0,
                tolerance=1e-13, why="rounding")  # fmt: skip
    swapped = one * np.tanh(scale * (k[:, None] + q[None])).sum(axis=-1)
    claim.check("Keras 'concat', query and key exchanged: change", np.abs(swapped.T - concat).max(), expected=0.0)
    w_q, w_k = rng.standard_normal((2, 4, 4))
    there, back = ag.additive_score(q, k, w_q, w_k, each), ag.additive_score(k, q, w_q, w_k, each)
    claim.above("additive, query and key exchanged: change", float(np.abs(back.T - there).max()), 0.5)
    claim.note(numbers_of_keras=[2, 4], numbers_of_luong=2 * 4 * 4 + 4)


@pytest.mark.claim("scores-in-models")
def test_t5_does_not_scale_and_swin_takes_the_cosine(claim):
    """Untrained layers of the package transformers: which score explains the weights that they return."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers import Swinv2Config, T5Config
    from transformers.models.swinv2.modeling_swinv2 import Swinv2SelfAttention
    from transformers.models.t5.modeling_t5 import T5Attention

    claim.seeds.append(21)
    generator = torch.Generator().manual_seed(21)
    x = torch.randn(1, 6, 16, generator=generator)
    config = T5Config(d_model=16, d_kv=8, num_heads=2, d_ff=16, num_layers=1, attn_implementation="eager")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(21)
        t5 = T5Attention(config, has_relative_attention_bias=False, layer_idx=0).eval()
        weights = t5(x, output_attentions=True)[-1][0].numpy()  # after the output and the position bias
        q, k = (layer(x)[0].unflatten(-1, (2, 8)).transpose(0, 1).numpy() for layer in (t5.q, t5.k))
        swin = Swinv2SelfAttention(Swinv2Config(), 16, 2, [2, 3], [0, 0]).eval()
        swin.logit_scale.copy_(torch.tensor([7.0, 1e6]).log()[:, None, None])
        started = float(Swinv2SelfAttention(Swinv2Config(), 16, 2, [2, 3], [0, 0]).logit_scale.exp().max())
        for p in swin.continuous_position_bias_mlp.parameters():
            p.zero_()
        looked = swin(x, output_attentions=True)[1][0].numpy()
        sq, sk = (layer(x)[0].unflatten(-1, (2, 8)).transpose(0, 1).numpy() for layer in (swin.query, swin.key))
    claim.check("T5 less dot", np.abs(weights - ag.softmax(ag.dot_score(q, k))).max(), expected=0.0, tolerance=1e-5,
                why="single precision")  # fmt: skip
    claim.above("T5 less scaled dot", np.abs(weights - ag.softmax(ag.scaled_dot_score(q, k))).max(), 1e-3)
    cosine = np.stack([ag.cosine_score(sq[i], sk[i], scale=s) for i, s in enumerate((7.0, 100.0))])
    claim.check("Swin V2 less cosine times 7, and times 100 where the parameter says a million",
                np.abs(looked - ag.softmax(cosine)).max(), expected=0.0, tolerance=1e-4,
                why="single precision")  # fmt: skip
    claim.check("Swin V2's scale at the start", started, expected=10.0, tolerance=1e-4, why="single precision")
    claim.note(transformers=transformers.__version__)


# ------------------------------------------------------------------------------------------------ trained

#: The seven trainings that differ in nothing but the score.
TRAINED = ("dot", "scaled", "general", "concat", "additive", "cosine", "bare-cosine")


def written(run):
    """Translate the held-out numbers: (source, target, weights over the source) of those that come out right."""
    pairs = run.experiment.pairs
    items = pairs.tests["held_out"]
    words, weights = run.model.translate(pairs.source.encode([source for source, _ in items]), 16)
    return [
        (source, target, weights[i, : len(target) + 1, : len(source) + 1].numpy())
        for i, (source, target) in enumerate(items)
        if pairs.target.decode(words[i]) == target
    ]


def places(found) -> dict[str, list[float]]:
    """Where the rows of units and of tens look, as shares of the numbers that have both: tens, units, <stop>."""
    rows: dict[str, list[int]] = {"units": [], "tens": []}
    for source, target, weights in found:
        if "und" in target:
            at = target.index("und")
            for name, row in (("units", at - 1), ("tens", at + 1)):
                rows[name].append(int(weights[row].argmax()) - len(source))
    return {name: [float(np.mean(np.equal(looked, -2 + i))) for i in range(3)] for name, looked in rows.items()}


@pytest.mark.claim("scores-trained")
def test_every_score_learns_the_task(claim):
    """Seven trainings of Luong's decoder, one a score, seed 0: accuracy on 500 unseen numbers, sharpness, places."""
    models = pytest.importorskip("attn_guide.models")
    runs = {name: models.load(f"luong-{name}") for name in TRAINED}
    held_out = [runs[name].results["held_out"] for name in TRAINED]
    claim.above("smallest held-out exact match of the seven", min(held_out), 0.9)
    found = {name: written(run) for name, run in runs.items()}
    largest = [float(np.mean([w.max(axis=1).mean() for _, _, w in found[name]])) for name in TRAINED]
    even = float(np.mean([1 / w.shape[1] for _, _, w in found["dot"]]))
    halfway = []
    for name in TRAINED:
        history = runs[name].history
        halfway.append(int(history["step"][np.argmax(history["held_out"] >= 0.5)]))
    claim.note(
        scores=list(TRAINED), held_out=held_out, largest=largest, even=even, halfway=halfway,
        places={name: places(rows) for name, rows in found.items()}, items=500,
        numbers=sum("und" in target for _, target, _ in found["general"]),
        parameters=[int(runs[name].results["parameters"]) for name in TRAINED], steps=len(runs["dot"].loss),
        scale=float(runs["cosine"].model.attention.log_scale.detach().exp()),
    )  # fmt: skip


@pytest.mark.claim("scores-bare-cosine")
def test_the_bare_cosine_stays_under_its_cap(claim):
    """All rows of the trained bare cosine on unseen numbers: the largest weight against the cap for that many words."""
    models = pytest.importorskip("attn_guide.models")
    run = models.load("luong-bare-cosine")
    found = written(run)
    over_cap = [w.max() / (math.e**2 / (math.e**2 + w.shape[1] - 1)) for _, _, w in found]
    claim.below("largest weight over its cap, all numbers", max(over_cap), 1.0)
    longest = max(w.shape[1] for _, _, w in found)
    claim.note(longest=longest, cap=math.e**2 / (math.e**2 + longest - 1), held_out=run.results["held_out"],
               largest=max(float(w.max()) for _, _, w in found if w.shape[1] == longest))  # fmt: skip


@pytest.mark.claim("scores-seeds")
def test_the_place_that_is_read_depends_on_the_seed(claim):
    """General and cosine, trained from seeds 0 and 1: what the row of the units reads, and the accuracy."""
    models = pytest.importorskip("attn_guide.models")
    share, held_out = {}, []
    for name in ("general", "cosine"):
        for seed in (0, 1):
            run = models.load(f"luong-{name}", seed)
            held_out.append(run.results["held_out"])
            share[f"{name} {seed}"] = places(written(run))["units"]
    claim.above("smallest held-out exact match", min(held_out), 0.9)
    both = [tens + units + stop for tens, units, stop in share.values()]
    claim.above("share of unit rows that read the tens, the units or <stop> most", min(both), 0.8)
    claim.note(units_read={name: row[1] for name, row in share.items()}, stop_read={n: r[2] for n, r in share.items()})


@pytest.mark.claim("scores-feeding")
def test_input_feeding_with_and_without(claim):
    """Trainings with and without input feeding, seed 0; and with it, but the vector that is fed set to zero in use."""
    import copy

    models = pytest.importorskip("attn_guide.models")
    from attn_guide.models import exact_match

    fed, plain = models.load("luong-general"), models.load("luong-no-feeding")
    cut = copy.deepcopy(fed.model)
    step = cut.step
    cut.step = lambda word, state, memory: step(  # type: ignore[method-assign]
        word, state._replace(attentional=state.attentional * 0), memory
    )
    pairs = fed.experiment.pairs
    items = pairs.tests["held_out"]
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        without_vector = exact_match(cut, pairs, items)
    claim.above("smaller held-out exact match of the two", min(fed.results["held_out"], plain.results["held_out"]), 0.9)
    at = int(np.argmax(fed.history["step"] >= 50))
    claim.note(zeroed=without_vector, fed=fed.results["held_out"], plain=plain.results["held_out"], items=len(items),
               parameters=[int(r.results["parameters"]) for r in (fed, plain)], step=int(fed.history["step"][at]),
               early=[float(r.history["held_out"][at]) for r in (fed, plain)],
               last_loss=[float(r.loss[-20:].mean()) for r in (fed, plain)])  # fmt: skip


@pytest.mark.claim("scores-local")
def test_local_attention_sees_a_window(claim):
    """Local-m and local-p with D = 2, local-p with D = 4: accuracy, words seen, sums of rows, distances needed."""
    models = pytest.importorskip("attn_guide.models")
    by_step, predicted = models.load("luong-local-m"), models.load("luong-local-p")
    wide = models.fit(models.recipe("luong-local-p").with_settings(window=4), 0)
    window = models.recipe("luong-local-m").settings["window"]
    rows_m, rows_p = (written(run) for run in (by_step, predicted))
    claim.check("most words with a weight in a row, local-m and local-p",
                [max(int((w > 0).sum(axis=1).max()) for _, _, w in rows) for rows in (rows_m, rows_p)],
                expected=[2 * window + 1] * 2)  # fmt: skip
    sums = [np.concatenate([w.sum(axis=1) for _, _, w in rows]) for rows in (rows_m, rows_p)]
    claim.check("smallest and largest sum of a row, local-m", [sums[0].min(), sums[0].max()], expected=[1.0, 1.0],
                tolerance=1e-5, why="single precision")  # fmt: skip
    claim.below("largest sum of a row, local-p", sums[1].max(), 1 + 1e-5, "the Gaussian only takes away")
    far = 0
    for source, target in by_step.experiment.pairs.tests["held_out"]:
        if "und" in target:
            at = target.index("und")
            far = max(far, abs(len(source) - 1 - (at - 1)), abs(len(source) - 2 - (at + 1)))
    claim.above("exact match, local-m", by_step.results["held_out"], 0.9)
    end = [float(np.mean(np.concatenate([w[1:, -1] > 0 for _, _, w in rows]))) for rows in (rows_m, rows_p)]
    claim.note(
        window=window, farthest=far, local_m=by_step.results["held_out"], local_p=predicted.results["held_out"],
        sees_stop=end,
        local_p_wide=wide.results["held_out"], whole=models.load("luong-general").results["held_out"],
        mean_sum_p=float(sums[1].mean()), steps=len(predicted.loss), longest=max(w.shape[1] for _, _, w in rows_m),
        last_loss=[float(r.loss[-20:].mean()) for r in (by_step, predicted, wide)],
    )  # fmt: skip


@pytest.mark.claim("scores-bend-outside")
def test_a_bend_after_the_sum_leaves_one_order_of_keys(claim):
    """Graph attention's score, LeakyReLU of a sum, and with the bend inside: how many orders 64 queries give."""
    rng = claim.rng(22)
    n, m, d = 64, 8, 4
    q, k = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    w_q, w_k, v = rng.standard_normal((d, d)), rng.standard_normal((d, d)), rng.standard_normal(d)

    def leaky(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, 0.2 * x)

    outside = leaky((q @ w_q @ v)[:, None] + (k @ w_k @ v)[None])
    inside = leaky((q @ w_q)[:, None] + (k @ w_k)[None]) @ v
    orders = [len({tuple(row) for row in s.argsort(axis=1)}) for s in (outside, inside)]
    claim.check("orders of the keys among 64 queries, bend after the sum", orders[0], expected=1)
    claim.above("orders of the keys among 64 queries, bend before it", orders[1], 8)
    claim.note(queries=n, keys=m)
