"""Chapter 0, Important concepts: every claim of the chapter, measured."""

from __future__ import annotations

from math import erf, log, sqrt

import numpy as np
import pytest

import attn_guide as ag
from attn_guide import experiments

WIDTHS = (4, 16, 64, 256, 512)
#: The three scales that the chapter compares, by the names of its tables and figures.
SCALES = {
    "no scaling": lambda d_k: 1.0,
    "1/sqrt(d_k)": lambda d_k: d_k**-0.5,
    "1/d_k": lambda d_k: 1.0 / d_k,
}


def dot_products(rng: np.random.Generator, samples: int, d_k: int) -> np.ndarray:
    """Draw ``samples`` dot products of two vectors of d_k standard normal components."""
    parts = []
    for start in range(0, samples, 10_000):
        shape = (min(10_000, samples - start), d_k)
        parts.append(np.einsum("ij,ij->i", rng.standard_normal(shape), rng.standard_normal(shape)))
    return np.concatenate(parts)


def score_rows(rng: np.random.Generator, rows: int, n: int, d_k: int) -> np.ndarray:
    """Draw (rows, n) unscaled scores: in each row one standard normal query against n keys."""
    return np.stack([rng.standard_normal((n, d_k)) @ rng.standard_normal(d_k) for _ in range(rows)])


def jacobian_norms(weights: np.ndarray) -> np.ndarray:
    """Return the Frobenius norm of the softmax Jacobian of every row (rows, n), without building the matrices.

    The squares of its entries are w_i^2 (1 - w_i)^2 on the diagonal and w_i^2 w_j^2 beside it.
    """
    square = weights**2
    beside = square * (square.sum(axis=-1, keepdims=True) - square)
    return np.sqrt((square * (1 - weights) ** 2 + beside).sum(axis=-1))


def mean_with_error(samples: np.ndarray) -> tuple[float, float]:
    """Return the mean and its standard error."""
    return float(samples.mean()), float(samples.std(ddof=1) / sqrt(samples.size))


# ------------------------------------------------------------------------------------------------ rows and columns


@pytest.mark.claim("concepts-rows-sum-to-one")
def test_rows_sum_to_one_and_columns_do_not(claim):
    """Weights of 1000 random self-attentions over 8 tokens, d_k = 16; the sums of all rows and all columns."""
    rng = claim.rng(0)
    q, k = rng.standard_normal((2, 1000, 8, 16))
    weights = ag.softmax(ag.attention_scores(q, k))  # (1000, 8, 8)
    columns = weights.sum(axis=-2)
    claim.below("largest deviation of a row sum from 1", np.abs(weights.sum(axis=-1) - 1).max(), 1e-12, "rounding")
    claim.below("smallest column sum", columns.min(), 0.5)
    claim.above("largest column sum", columns.max(), 2.0)
    claim.check("mean column sum", columns.mean(), expected=1.0, tolerance=1e-12, why="n rows of sum 1 over n columns")
    claim.note(matrices=1000)


# ------------------------------------------------------------------------------------------------ three projections


@pytest.mark.claim("concepts-shared-symmetric-scores")
def test_shared_projection_makes_scores_symmetric_and_weights_not(claim):
    """500 random sequences of n = 8 tokens, d_model = d_k = 16; one projection serves as query and key."""
    rng = claim.rng(1)
    x = rng.standard_normal((500, 8, 16))
    w = rng.standard_normal((500, 16, 16)) / 4.0  # variance 1 / d_model
    shared = x @ w
    scores = ag.attention_scores(shared, shared)
    weights = ag.softmax(scores)
    apart = np.abs(weights - weights.swapaxes(-1, -2)).max(axis=(-1, -2))  # (500,)
    claim.below(
        "largest difference of scores (i, j) and (j, i)",
        np.abs(scores - scores.swapaxes(-1, -2)).max(),
        1e-12,
        "rounding",
    )
    claim.above("mean over sequences of the largest difference of weights (i, j) and (j, i)", apart.mean(), 0.1)
    claim.above("smallest such difference in any sequence", apart.min(), 0.01)
    claim.note(sequences=500, n=8, d_k=16)


@pytest.mark.claim("concepts-shared-diagonal")
def test_shared_projection_makes_tokens_attend_to_themselves(claim):
    """The weight of a token to itself, with one projection for query and key and with two; n = 8, d_k = 16."""
    rng = claim.rng(2)
    x = rng.standard_normal((500, 8, 16))
    w_q, w_k = rng.standard_normal((2, 500, 16, 16)) / 4.0
    q, k = x @ w_q, x @ w_k
    shared = np.einsum("...ii->...i", ag.softmax(ag.attention_scores(q, q)))  # (500, 8): the diagonals
    separate = np.einsum("...ii->...i", ag.softmax(ag.attention_scores(q, k)))
    one, other = mean_with_error(shared.mean(axis=-1)), mean_with_error(separate.mean(axis=-1))
    claim.above("mean weight to itself, shared", one[0], 0.5)
    claim.check("mean weight to itself, separate", other[0], expected=1 / 8, tolerance=4 * other[1], why="1/n ± 4 SE")
    claim.note(shared_standard_error=one[1], separate_standard_error=other[1], uniform=1 / 8, sequences=500)


@pytest.mark.claim("concepts-scores-product")
def test_scores_depend_on_the_product_of_the_projections_alone(claim):
    """W_Q M and W_K M^-T for a random invertible M give the scores of W_Q and W_K, and so do W_Q W_K^T and identity."""
    rng = claim.rng(3)
    x = rng.standard_normal((10, 32))
    w_q, w_k = rng.standard_normal((2, 32, 4)) / sqrt(32)
    m = rng.standard_normal((4, 4))
    scores = ag.attention_scores(x @ w_q, x @ w_k, scale=0.5)
    turned = ag.attention_scores(x @ w_q @ m, x @ w_k @ np.linalg.inv(m).T, scale=0.5)
    merged = ag.attention_scores(x @ (w_q @ w_k.T), x, scale=0.5)
    claim.below("difference after turning queries and keys by M and M^-T", np.abs(scores - turned).max(), 1e-10)
    claim.below("difference when W_Q W_K^T is one matrix", np.abs(scores - merged).max(), 1e-10)
    claim.check("rank of W_Q W_K^T", int(np.linalg.matrix_rank(w_q @ w_k.T)), expected=4, why="d_k")
    claim.note(d_model=32, d_k=4)


# ------------------------------------------------------------------------------------------------ widths and heads


@pytest.mark.claim("concepts-heads-sum")
def test_concatenating_then_projecting_is_a_sum_over_heads(claim):
    """A layer with d_model = 24, h = 4, d_k = 6, d_v = 5: joined heads times W_O, and head by head."""
    rng = claim.rng(4)
    x = rng.standard_normal((7, 24))
    params = ag.MultiHeadParams(
        w_q=rng.standard_normal((24, 24)),
        w_k=rng.standard_normal((24, 24)),
        w_v=rng.standard_normal((24, 20)),
        w_o=rng.standard_normal((20, 24)),
        num_heads=4,
    )
    whole = ag.multi_head_attention(x, x, x, params)  # (7, 24)
    total = np.zeros_like(whole)
    for i in range(4):
        key, value = slice(6 * i, 6 * i + 6), slice(5 * i, 5 * i + 5)
        head = ag.self_attention(x, params.w_q[:, key], params.w_k[:, key], params.w_v[:, value])  # (7, 5)
        total += head @ params.w_o[value]
    claim.below("largest difference", np.abs(whole - total).max(), 1e-10, "rounding")
    claim.note(rows_of_w_o=20, columns_of_w_o=24)


@pytest.mark.claim("concepts-heads-cost")
def test_the_number_of_heads_changes_no_parameter_and_no_product(claim):
    """A layer with d_model = 768 cut into 1 to 96 heads, on n = 512 tokens: parameters, products and exponentials."""
    heads = [1, 2, 4, 8, 12, 16, 24, 48, 96]
    d_model, n = 768, 512
    w = np.zeros((d_model, d_model), np.float32)
    layers = [ag.MultiHeadParams(w_q=w, w_k=w, w_v=w, w_o=w, num_heads=h) for h in heads]
    costs = [ag.attention_flops(n, d_model, num_heads=h) for h in heads]
    claim.check("parameters", [p.count() for p in layers], expected=4 * d_model**2, why="four square matrices")
    claim.check(
        "multiply-adds of the matrix products", [c.macs for c in costs], expected=costs[0].macs, why="h * d_k = d_model"
    )
    claim.check(
        "exponentials", [c.exponentials for c in costs], expected=[h * n * n for h in heads], why="h matrices n x n"
    )
    claim.note(heads=heads, n=n, d_model=d_model)


# ------------------------------------------------------------------------------------------------ the scale


@pytest.mark.claim("concepts-score-variance")
def test_variance_of_a_dot_product_is_d_k(claim):
    """100,000 dot products of independent standard normal vectors for each width."""
    rng = claim.rng(5)
    samples = 100_000
    for d_k in (16, 64, 256, 512):
        s = dot_products(rng, samples, d_k)
        variance = float(s.var(ddof=1))
        error = sqrt((np.mean((s - s.mean()) ** 4) - variance**2) / samples)
        claim.check(f"variance at d_k = {d_k}", variance, expected=d_k, tolerance=4 * error, why="four standard errors")
        claim.check(
            f"variance at d_k = {d_k}, scaled",
            float((s / sqrt(d_k)).var(ddof=1)),
            expected=1.0,
            tolerance=4 * error / d_k,
            why="four standard errors",
        )
        claim.note(**{f"standard error at d_k = {d_k}": error})
    claim.note(samples=samples)


@pytest.mark.claim("concepts-variance-conditions")
def test_the_variance_needs_mean_zero_and_independence(claim):
    """Width 64, 100,000 pairs: components of mean 1, and vectors whose components are all equal."""
    rng = claim.rng(6)
    samples, d_k = 100_000, 64
    q, k = rng.standard_normal((2, samples, d_k), dtype=np.float32).astype(np.float64) + 1.0
    shifted = np.einsum("ij,ij->i", q, k)
    equal = d_k * rng.standard_normal(samples) * rng.standard_normal(samples)  # q_i = a and k_i = b for every i
    for name, s, expected in (("mean one", shifted, 3 * d_k), ("all components equal", equal, d_k**2)):
        variance = float(s.var(ddof=1))
        error = sqrt((np.mean((s - s.mean()) ** 4) - variance**2) / samples)
        claim.check(f"variance, {name}", variance, expected=expected, tolerance=4 * error, why="four standard errors")
    claim.check("mean, mean one", float(shifted.mean()), expected=d_k, tolerance=4 * sqrt(3 * d_k / samples))
    claim.note(samples=samples, d_k=d_k)


@pytest.mark.claim("concepts-score-range")
def test_a_range_of_scores_needs_its_sigma(claim):
    """The share of 100,000 dot products of width 512 inside two and three standard deviations."""
    rng = claim.rng(7)
    s = dot_products(rng, 100_000, 512)
    for k in (2, 3):
        share = erf(k / sqrt(2))
        error = sqrt(share * (1 - share) / s.size)
        inside = float(np.mean(np.abs(s) <= k * sqrt(512)))
        claim.check(f"share inside {k} sigma", inside, expected=share, tolerance=4 * error, why="four standard errors")
        claim.note(**{f"{k} sigma": k * sqrt(512)})
    claim.check(
        "share inside ±2 after scaling",
        float(np.mean(np.abs(s / sqrt(512)) <= 2)),
        expected=erf(sqrt(2)),
        tolerance=4 * sqrt(0.9545 * 0.0455 / s.size),
        why="four standard errors",
    )
    claim.note(samples=s.size)


@pytest.mark.claim("concepts-score-maximum")
def test_the_largest_score_grows_with_the_length(claim):
    """The largest absolute scaled score of an n x n matrix, d_k = 64: mean over 20 matrices for each n."""
    rng = claim.rng(8)
    largest, errors = [], []
    for n in (16, 128, 1024):
        q, k = rng.standard_normal((2, 20, n, 64))
        mean, error = mean_with_error(np.abs(ag.attention_scores(q, k)).max(axis=(-1, -2)))
        largest.append(mean)
        errors.append(error)
    claim.above("largest score at n = 128 and 1024", largest[1:], 4.0)
    claim.above(
        "growth from one n to the next, in standard errors", np.diff(largest) / np.hypot(errors[1:], errors[:-1]), 4.0
    )
    claim.note(largest=largest, standard_errors=errors, lengths=[16, 128, 1024], matrices=20)


@pytest.mark.claim("concepts-saturation")
def test_unscaled_weights_saturate_and_scaled_ones_do_not(claim):
    """4000 rows of n = 10 scores for each width: the mean largest weight and the mean entropy as a share of log n."""
    rng = claim.rng(9)
    n, rows = 10, 4000
    top = {name: [] for name in SCALES}
    entropy = {name: [] for name in SCALES}
    for d_k in WIDTHS:
        raw = score_rows(rng, rows, n, d_k)
        for name, scale in SCALES.items():
            weights = ag.softmax(raw * scale(d_k))
            top[name].append(float(weights.max(axis=-1).mean()))
            entropy[name].append(float(ag.attention_entropy(weights).mean()) / log(n))
    claim.above("increase of the largest weight with d_k, no scaling", np.diff(top["no scaling"]), 0.01)
    claim.above("largest weight at d_k = 512, no scaling", top["no scaling"][-1], 0.9)
    claim.check(
        "largest weight for every d_k, 1/sqrt(d_k)", top["1/sqrt(d_k)"], expected=0.32, tolerance=0.02,
        why="0.32 is its mean for standard normal scores; the smallest width is not yet normal",
    )  # fmt: skip
    claim.check("largest weight at d_k = 512, 1/d_k", top["1/d_k"][-1], expected=1 / n, tolerance=0.01, why="uniform")
    claim.note(
        widths=WIDTHS,
        n=n,
        rows=rows,
        largest_weight_no_scaling=top["no scaling"],
        largest_weight_one_over_d_k=top["1/d_k"],
        entropy_no_scaling=entropy["no scaling"],
        entropy_scaled=entropy["1/sqrt(d_k)"],
        entropy_one_over_d_k=entropy["1/d_k"],
    )


@pytest.mark.claim("concepts-one-over-d-k")
def test_dividing_by_d_k_leaves_almost_nothing(claim):
    """Scores divided by d_k = 64: their variance over 100,000 pairs, and the entropy of 4000 rows of 10 weights."""
    rng = claim.rng(10)
    s = dot_products(rng, 100_000, 64) / 64
    variance = float(s.var(ddof=1))
    error = sqrt((np.mean((s - s.mean()) ** 4) - variance**2) / s.size)
    claim.check("variance of the scores", variance, expected=1 / 64, tolerance=4 * error, why="four standard errors")
    weights = ag.softmax(score_rows(rng, 4000, 10, 64) / 64)
    claim.above("mean entropy as a share of log n", float(ag.attention_entropy(weights).mean()) / log(10), 0.99)
    claim.note(largest_weight=float(weights.max(axis=-1).mean()))


@pytest.mark.claim("concepts-gradient-tails")
def test_saturation_makes_gradients_heavy_tailed(claim):
    """Frobenius norms of the softmax Jacobian: 4000 rows (n = 10, d_k = 512) and 500 rows (n = 512, d_k = 64)."""
    rng = claim.rng(11)
    found = {}
    for length, n, d_k, rows in (("short", 10, 512, 4000), ("long", 512, 64, 500)):
        raw = score_rows(rng, rows, n, d_k)
        for name, factor in (("unscaled", 1.0), ("scaled", d_k**-0.5)):
            norms = jacobian_norms(ag.softmax(raw * factor))
            mean, error = mean_with_error(norms)
            low, median, high = (float(x) for x in np.quantile(norms, [0.05, 0.5, 0.95]))
            small = float(np.mean(norms < 0.01))
            found[length, name] = {
                "mean": mean, "error": error, "median": median, "low": low, "high": high, "small": small
            }  # fmt: skip
    claim.note(**{" ".join(key): facts for key, facts in found.items()})
    short, scaled = found["short", "unscaled"], found["short", "scaled"]
    claim.below("short rows, unscaled: median over mean", short["median"] / short["mean"], 0.05)
    claim.check("short rows, scaled: median over mean", scaled["median"] / scaled["mean"], expected=1, tolerance=0.05)
    claim.above("short rows, unscaled: share of rows below 0.01", short["small"], 0.5)
    ratio = found["long", "unscaled"]["mean"] / found["long", "scaled"]["mean"]
    claim.above("long rows: mean unscaled over mean scaled", ratio, 2.0)


@pytest.mark.claim("concepts-query-gradient")
def test_the_gradient_at_the_query_is_larger_in_the_mean_without_scaling(claim):
    """The norm of the derivative of a row of weights by its query, scale * J K, over 1000 and 200 rows."""
    rng = claim.rng(12)
    found = {}
    for length, n, d_k, rows in (("short", 10, 512, 1000), ("long", 512, 64, 200)):
        norms = {"unscaled": [], "scaled": []}
        for _ in range(rows):
            q, k = rng.standard_normal(d_k), rng.standard_normal((n, d_k))
            for name, scale in (("unscaled", 1.0), ("scaled", d_k**-0.5)):
                w = ag.softmax(scale * (k @ q))
                # J K without J: row i is w_i (k_i - sum_j w_j k_j)
                norms[name].append(scale * np.linalg.norm(w[:, None] * (k - w @ k)))
        for name, values in norms.items():
            found[length, name] = {"mean": float(np.mean(values)), "median": float(np.median(values))}
        ratio = found[length, "unscaled"]["mean"] / found[length, "scaled"]["mean"]
        claim.above(f"mean unscaled over mean scaled, n = {n}, d_k = {d_k}", ratio, 2.0)
    claim.note(**{" ".join(key): facts for key, facts in found.items()})
    ratio = found["short", "unscaled"]["median"] / found["short", "scaled"]["median"]
    claim.below("median unscaled over median scaled, n = 10, d_k = 512", ratio, 0.5)


RATES = {"sgd": (0.03, 0.1, 0.3, 1.0), "adam": (0.001, 0.003, 0.01, 0.03)}
SEEDS = (0, 1, 2, 3, 4)
STEPS = 300


@pytest.mark.claim("concepts-training")
@pytest.mark.slow
def test_a_layer_learns_with_every_scale_and_best_with_one_over_the_root(claim):
    """One layer (d_model = 32, d_k = 64) learns to look a value up: 3 scales, 2 optimizers, 4 rates each, 5 seeds.

    The mean loss over 300 steps is compared at the best rate of each scale: the one with the lowest mean among the
    rates at which no seed diverged.
    """
    for seed in SEEDS:
        claim.rng(seed)
    best, results = {}, {optimizer: {} for optimizer in RATES}
    for optimizer, rates in RATES.items():
        for name, scale in SCALES.items():
            loss = experiments.train_retrieval(scale(64), rates, optimizer=optimizer, seeds=SEEDS, steps=STEPS)
            mean = loss.mean(axis=-1).astype(np.float64)  # (rates, seeds)
            usable = np.where(np.isfinite(mean).all(axis=-1), mean.mean(axis=-1), np.inf)
            i = int(usable.argmin())
            best[optimizer, name] = mean[i], float(loss[i, :, -50:].mean())
            results[optimizer][name] = {
                "best rate": rates[i],
                "mean loss": float(mean[i].mean()),
                "deviation": float(mean[i].std(ddof=1)),
                "final loss": best[optimizer, name][1],
                "by rate": [float(x) if np.isfinite(x) else None for x in usable],
            }
    claim.note(guessing=log(8), steps=STEPS, rates=RATES, **results)
    for optimizer in RATES:
        root, none, inverse = (best[optimizer, name] for name in ("1/sqrt(d_k)", "no scaling", "1/d_k"))
        claim.above(
            f"{optimizer}: mean loss without scaling over mean loss with 1/sqrt(d_k), by seed", none[0] / root[0], 1.5
        )
        claim.below(f"{optimizer}: final loss without scaling", none[1], log(8) / 2, "half of what guessing costs")
        claim.below(
            f"{optimizer}: final loss with 1/d_k", inverse[1], log(8) / 20, "a twentieth of what guessing costs"
        )
    ratio = float(best["adam", "1/d_k"][0].mean() / best["adam", "1/sqrt(d_k)"][0].mean())
    claim.below("adam: mean loss with 1/d_k over mean loss with 1/sqrt(d_k)", ratio, 1.5)


# ------------------------------------------------------------------------------------------------ temperature


@pytest.mark.claim("concepts-temperature-order")
def test_a_temperature_never_reorders_weights(claim):
    """2000 rows of 10 standard normal scores at six temperatures: their order, and the mean largest weight."""
    rng = claim.rng(13)
    s = rng.standard_normal((2000, 10))
    temperatures = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
    order = s.argsort(axis=-1)
    top = []
    for tau in temperatures:
        weights = ag.softmax(s, temperature=tau)
        claim.require(f"same order at tau = {tau}", (np.diff(np.take_along_axis(weights, order, axis=-1)) >= 0).all())
        top.append(float(weights.max(axis=-1).mean()))
    claim.below("change of the mean largest weight from one tau to the next", np.diff(top), 0.0)
    claim.note(temperatures=temperatures, largest_weight=top, rows=2000)


@pytest.mark.claim("concepts-temperature-entropy")
def test_entropy_rises_with_temperature(claim):
    """The entropy of 500 rows of 10 scores on a grid of 60 temperatures, and its slope against Var(s) / tau^3."""
    rng = claim.rng(14)
    s = rng.standard_normal((500, 10))
    grid = np.geomspace(0.02, 50, 60)
    entropy = np.stack([ag.attention_entropy(ag.softmax(s, temperature=tau)) for tau in grid])  # (60, 500)
    claim.above(
        "smallest change of entropy from one tau to the next", np.diff(entropy, axis=0).min(), -1e-12, "rounding"
    )
    tau, step = 0.7, 1e-5
    slope = (
        ag.attention_entropy(ag.softmax(s, temperature=tau + step))
        - ag.attention_entropy(ag.softmax(s, temperature=tau - step))
    ) / (2 * step)
    w = ag.softmax(s, temperature=tau)
    variance = (w * s**2).sum(axis=-1) - (w * s).sum(axis=-1) ** 2
    claim.below("largest deviation of the slope from Var(s) / tau^3", np.abs(slope - variance / tau**3).max(), 1e-6)
    hot = ag.softmax(s, temperature=1e4)
    claim.below("distance from uniform at tau = 10,000", np.abs(hot - 0.1).max(), 1e-3)


@pytest.mark.claim("concepts-temperature-limit")
def test_low_temperature_tends_to_argmax(claim):
    """500 rows of 10 standard normal scores: distance of the weights from the one-hot row of the largest score."""
    rng = claim.rng(15)
    s = rng.standard_normal((500, 10))
    one_hot = np.eye(10)[s.argmax(axis=-1)]
    distance = [
        float(np.abs(ag.softmax(s, temperature=tau) - one_hot).max(axis=-1).mean()) for tau in (1.0, 0.1, 0.01, 0.001)
    ]
    claim.below("mean distance at tau = 0.001", distance[-1], 0.01)
    claim.below("change from one tau to the next lower", np.diff(distance), 0.0)
    tie = ag.softmax([1.0, 3.0, 3.0], temperature=1e-3)
    claim.check("weights of the scores 1, 3, 3 at tau = 0.001", tie, expected=[0.0, 0.5, 0.5], tolerance=1e-12)
    claim.note(distance=distance)


# ------------------------------------------------------------------------------------------------ dropout


@pytest.mark.claim("concepts-dropout-mean")
def test_dropout_keeps_the_expected_output(claim):
    """20,000 draws of dropout, p = 0.1, on the weights of one attention with n = 12, d_v = 4."""
    rng = claim.rng(16)
    q, k = rng.standard_normal((2, 12, 8))
    v = rng.standard_normal((12, 4))
    many = [np.broadcast_to(a, (20_000, *a.shape)) for a in (q, k, v)]
    draws = ag.scaled_dot_product_attention(*many, dropout_p=0.1, rng=rng)  # (20000, 12, 4)
    exact = ag.scaled_dot_product_attention(q, k, v)
    error = draws.std(axis=0, ddof=1) / sqrt(len(draws))
    z = np.abs(draws.mean(axis=0) - exact) / error  # (12, 4)
    claim.below(
        "largest deviation of a mean output, in standard errors", z.max(), 4.5, "the largest of 48 normal deviates"
    )
    claim.note(draws=len(draws), p=0.1)


@pytest.mark.claim("concepts-dropout-row-sums")
def test_dropout_breaks_the_row_sums(claim):
    """20,000 rows of 50 weights of standard normal scores, p = 0.1: mean, spread and range of the row sums."""
    rng = claim.rng(17)
    weights = ag.softmax(rng.standard_normal((20_000, 50)))
    sums = ag.dropout(weights, 0.1, rng).sum(axis=-1)
    predicted = sqrt(0.1 / 0.9 * float((weights**2).sum(axis=-1).mean()))
    mean, error = mean_with_error(sums)
    claim.check("mean row sum", mean, expected=1.0, tolerance=4 * error, why="four standard errors")
    claim.check("standard deviation of row sums", float(sums.std()), expected=predicted, tolerance=0.03, relative=True,
                why="sqrt(p / (1 - p) * sum of squared weights)")  # fmt: skip
    claim.above("share of rows whose sum is off by more than rounding", float(np.mean(np.abs(sums - 1) > 1e-6)), 0.999)
    low, high = np.quantile(sums, [0.025, 0.975])
    claim.note(
        low=float(low), high=float(high), smallest=float(sums.min()), largest=float(sums.max()), rows=20_000, p=0.1
    )


# ------------------------------------------------------------------------------------------------ positions


def random_layer(rng: np.random.Generator, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw W_Q, W_K and W_V, each (d, d), that keep the variance of what they project."""
    w_q, w_k, w_v = rng.standard_normal((3, d, d)) / sqrt(d)
    return w_q, w_k, w_v


@pytest.mark.claim("concepts-equivariance")
def test_without_positions_attention_commutes_with_permutations(claim):
    """Outputs of 100 random layers for x and for x in another order, n = 10, d_model = 16."""
    rng = claim.rng(18)
    worst = 0.0
    for _ in range(100):
        x, weights, order = rng.standard_normal((10, 16)), random_layer(rng, 16), rng.permutation(10)
        there, here = ag.self_attention(x[order], *weights), ag.self_attention(x, *weights)[order]
        worst = max(worst, float(np.abs(there - here).max()))
    claim.below("largest difference", worst, 1e-12, "rounding")
    claim.note(layers=100)


@pytest.mark.claim("concepts-causal-order")
def test_a_causal_mask_breaks_equivariance_by_itself(claim):
    """The same with a causal mask; and the mean square of outputs by position, 400 sequences of 64 random tokens."""
    rng = claim.rng(19)
    smallest = np.inf
    for _ in range(100):
        x, weights, order = rng.standard_normal((10, 16)), random_layer(rng, 16), np.roll(np.arange(10), 1)
        there = ag.self_attention(x[order], *weights, is_causal=True)
        here = ag.self_attention(x, *weights, is_causal=True)[order]
        smallest = min(smallest, float(np.abs(there - here).max()))
    claim.above("smallest difference over 100 layers, tokens moved on by one", smallest, 0.1)
    q, k, v = rng.standard_normal((3, 400, 64, 64))
    square = (ag.scaled_dot_product_attention(q, k, v, is_causal=True) ** 2).mean(axis=(0, 2))  # (64,)
    positions = np.array([1, 2, 4, 16, 64])
    claim.below(
        "change of the mean square output from one listed position to the next", np.diff(square[positions - 1]), 0.0
    )
    claim.note(positions=positions, mean_square=square[positions - 1])


@pytest.mark.claim("concepts-positions-break-equivariance")
def test_every_position_scheme_breaks_equivariance(claim):
    """The smallest of 20 differences between output of x reordered and output reordered, for five schemes."""
    rng = claim.rng(20)
    n, d = 10, 16
    table, biases = ag.init_learned_positions(n, d, rng=rng, std=1.0), rng.standard_normal((32, 1))

    def layer(x: np.ndarray, weights: tuple[np.ndarray, ...], scheme: str) -> np.ndarray:
        if scheme == "sinusoidal":
            x = x + ag.sinusoidal_positions(n, d)
        elif scheme == "learned":
            x = x + ag.learned_positions(table, n)
        q, k, v = (x @ w for w in weights)
        if scheme == "RoPE":
            q, k = ag.apply_rope(q), ag.apply_rope(k)
        bias = {"T5": lambda: ag.t5_relative_bias(biases, n)[0], "ALiBi": lambda: ag.alibi_bias(1, n)[0]}.get(scheme)
        return ag.scaled_dot_product_attention(q, k, v, attn_mask=bias() if bias else None)

    for scheme in ("none", "sinusoidal", "learned", "T5", "RoPE", "ALiBi"):
        differences = []
        for _ in range(20):
            x, weights, order = rng.standard_normal((n, d)), random_layer(rng, d), np.roll(np.arange(n), 3)
            differences.append(np.abs(layer(x[order], weights, scheme) - layer(x, weights, scheme)[order]).max())
        if scheme == "none":
            claim.below("largest difference, none", max(differences), 1e-12, "rounding")
        else:
            claim.above(f"smallest difference, {scheme}", min(differences), 1e-4)


@pytest.mark.claim("concepts-positions-values")
def test_added_positions_enter_the_values_too(claim):
    """With W_Q = W_K = 0 every weight is 1/n: how far do outputs still change when positions are added, or rotated?"""
    rng = claim.rng(21)
    n, d = 12, 16
    x, w_v, zero = rng.standard_normal((n, d)), rng.standard_normal((d, d)) / 4.0, np.zeros((d, d))
    plain = ag.self_attention(x, zero, zero, w_v)
    added = ag.self_attention(x + ag.sinusoidal_positions(n, d), zero, zero, w_v)
    still = np.zeros((n, d))  # the queries and keys
    rotated = ag.scaled_dot_product_attention(ag.apply_rope(still), ag.apply_rope(still), x @ w_v)
    claim.above("change by added sinusoidal positions", np.abs(added - plain).max(), 0.1)
    claim.check("change by RoPE", np.abs(rotated - plain).max(), expected=0.0, tolerance=1e-12, why="rounding")


@pytest.mark.claim("concepts-rope-offset")
def test_rope_scores_depend_on_the_offset_alone(claim):
    """Scores of 40 rotated queries and keys of width 64, all positions moved by 1 to 1,000,000."""
    rng = claim.rng(22)
    q, k = rng.standard_normal((2, 40, 64))

    def scores(shift: int) -> np.ndarray:
        return ag.attention_scores(ag.apply_rope(q, shift), ag.apply_rope(k, shift))

    for shift in (1, 1000, 1_000_000):
        claim.below(
            f"largest change, moved by {shift}", np.abs(scores(shift) - scores(0)).max(), 1e-8, "rounding of the angles"
        )
    apart = ag.attention_scores(ag.apply_rope(q, 7), ag.apply_rope(k))
    claim.above("largest change when only the queries move, by 7", np.abs(apart - scores(0)).max(), 0.1)
    lengths = np.linalg.norm(ag.apply_rope(q), axis=-1) - np.linalg.norm(q, axis=-1)
    claim.below("largest change of a length", np.abs(lengths).max(), 1e-12, "rounding")


@pytest.mark.claim("concepts-sinusoidal-offset")
def test_sinusoidal_products_depend_on_the_offset_alone(claim):
    """Dot products of the position vectors of 200 positions, d_model = 64, against the same moved by 1000."""
    p, moved = ag.sinusoidal_positions(200, 64), ag.sinusoidal_positions(np.arange(1000, 1200), 64)
    claim.below(
        "largest difference of dot products after moving by 1000", np.abs(p @ p.T - moved @ moved.T).max(), 1e-9
    )
    claim.check(
        "square length of every position vector",
        (p[:20] ** 2).sum(axis=-1),
        expected=32.0,
        tolerance=1e-12,
        why="d_model / 2",
    )
    # Moving on by 5 turns each pair of columns by a fixed angle: one matrix for every position.
    turn = np.zeros((64, 64))
    for i in range(32):
        c, s = np.cos(5 * 10_000 ** (-i / 32)), np.sin(5 * 10_000 ** (-i / 32))
        turn[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, -s], [s, c]]
    claim.below("error of one matrix that moves every position on by 5", np.abs(p[:-5] @ turn - p[5:]).max(), 1e-12)


# ------------------------------------------------------------------------------------------------ beside the layer


@pytest.mark.claim("concepts-crossovers")
def test_where_attention_costs_as_much_as_the_rest(claim):
    """Multiply-adds from ag.attention_flops and ag.feed_forward_flops (d_ff = 4 d_model), for three widths."""
    for d in (512, 768, 4096):
        for times, name in ((2, "projections"), (4, "feed-forward"), (6, "both")):
            n = times * d
            attention, feed_forward = ag.attention_flops(n, d), ag.feed_forward_flops(n, d)
            rest = {
                "projections": attention.projections,
                "feed-forward": feed_forward.macs,
                "both": attention.projections + feed_forward.macs,
            }[name]
            claim.check(f"n² part over {name} at n = {n}, d = {d}", attention.quadratic / rest, expected=1.0)
    short = ag.attention_flops(512, 768)
    claim.note(share_at_512=short.quadratic / (short.macs + ag.feed_forward_flops(512, 768).macs))


@pytest.mark.claim("concepts-layer-norm")
def test_layer_norm_works_on_each_token_alone(claim):
    """100 random tokens of width 64: means and variances, and what a change of one token or of its scale does."""
    rng = claim.rng(25)
    x = rng.normal(3.0, 2.0, (100, 64))
    normed = ag.layer_norm(x)
    claim.below("largest mean of a token", np.abs(normed.mean(axis=-1)).max(), 1e-12, "rounding")
    claim.check(
        "variance of every token", normed.var(axis=-1), expected=1.0, tolerance=1e-4, why="eps = 1e-5 in the divisor"
    )
    changed = x.copy()
    changed[0] = rng.normal(size=64)
    claim.check("change of the other tokens", np.abs(ag.layer_norm(changed)[1:] - normed[1:]).max(), expected=0.0)
    claim.below("largest change when x becomes 10 x + 5", np.abs(ag.layer_norm(10 * x + 5) - normed).max(), 1e-4, "eps")


@pytest.mark.claim("concepts-chunks")
def test_attention_in_chunks_is_exact(claim):
    """n = 257 tokens in chunks of 64: chunks of queries, and chunks of keys joined by their log-sum-exp."""
    rng = claim.rng(23)
    q, k, v = rng.standard_normal((3, 257, 32))
    whole = ag.scaled_dot_product_attention(q, k, v)
    starts = range(0, 257, 64)
    rows = np.concatenate([ag.scaled_dot_product_attention(q[i : i + 64], k, v) for i in starts])
    claim.below("largest difference, chunks of queries", np.abs(rows - whole).max(), 1e-13, "rounding")
    parts = [ag.scaled_dot_product_attention(q, k[i : i + 64], v[i : i + 64]) for i in starts]  # each (257, 32)
    sizes = [ag.log_sum_exp(ag.attention_scores(q, k[i : i + 64])) for i in starts]  # each (257,)
    shares = ag.softmax(np.stack(sizes), axis=0)  # (chunks, 257): how much of each row's weight a chunk holds
    joined = (shares[..., None] * np.stack(parts)).sum(axis=0)
    claim.below("largest difference, chunks of keys", np.abs(joined - whole).max(), 1e-13, "rounding")
    claim.note(n=257, chunk=64)


@pytest.mark.claim("concepts-cache")
def test_a_new_token_needs_its_own_key_and_value(claim):
    """The last row of causal attention over 20 tokens, from 19 cached keys and values, with and without its own."""
    rng = claim.rng(24)
    x = rng.standard_normal((20, 16))
    w_q, w_k, w_v = random_layer(rng, 16)
    full = ag.self_attention(x, w_q, w_k, w_v, is_causal=True)[-1:]  # (1, 16)
    k, v, q = x[:-1] @ w_k, x[:-1] @ w_v, x[-1:] @ w_q
    without = ag.scaled_dot_product_attention(q, k, v)
    k, v = np.concatenate([k, x[-1:] @ w_k]), np.concatenate([v, x[-1:] @ w_v])
    claim.below(
        "difference with the new key and value", np.abs(ag.scaled_dot_product_attention(q, k, v) - full).max(), 1e-13
    )
    claim.above("difference with the new query alone", np.abs(without - full).max(), 0.01)
