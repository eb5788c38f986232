"""Chapter 7, Soft and hard attention: every claim of the chapter, measured."""

from __future__ import annotations

import itertools
import math
from functools import cache
from math import sqrt

import numpy as np
import pytest

import attn_guide as ag

#: Five values of width one and the weights of one query: the example of the chapter.
WEIGHTS = np.array([0.1, 0.25, 0.35, 0.2, 0.1])
SCORES = np.log(WEIGHTS)
VALUES = np.array([1.0, 2, 3, 4, 5])
TARGET = 3.5
LOSSES = (VALUES - TARGET) ** 2  # the loss of each choice
EXACT = WEIGHTS * (LOSSES - WEIGHTS @ LOSSES)  # the gradient of the expected loss with respect to the scores
DRAWS = 400_000


def soft_gradient(blend: np.ndarray, weights: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the gradient (..., 5) of (blend - target)² with respect to the scores; blend mixes by ``weights``."""
    return ag.softmax_backward((2 * (blend - TARGET))[..., None] * VALUES, weights, temperature=temperature)


def bias_and_variance(estimates: np.ndarray) -> tuple[float, float, float]:
    """Return the length of the bias of single-draw estimates (draws, 5), its standard error, and the total variance."""
    mean, variance = estimates.mean(axis=0), estimates.var(axis=0, ddof=1)
    off = mean - EXACT
    bias = float(np.linalg.norm(off))
    return bias, sqrt((off / bias) ** 2 @ variance / len(estimates)), float(variance.sum())


def gumbel_estimates(rng: np.random.Generator, temperature: float, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """Return single-draw gradients (draws, 5) through Gumbel-softmax and straight-through Gumbel-softmax."""
    soft = ag.softmax(SCORES + ag.gumbel_noise((draws, 5), rng), temperature=temperature)
    chosen = VALUES[soft.argmax(axis=1)]
    return soft_gradient(soft @ VALUES, soft, temperature), soft_gradient(chosen, soft, temperature)


def chi_square(counts: np.ndarray, chances: np.ndarray) -> tuple[float, float]:
    """Return the statistic of Pearson's test and its p-value, for an even number of degrees of freedom."""
    expected = counts.sum() * chances
    statistic = float(((counts - expected) ** 2 / expected).sum())
    half = (len(counts) - 1) // 2
    assert 2 * half == len(counts) - 1
    terms = [(statistic / 2) ** i / math.factorial(i) for i in range(half)]
    return statistic, math.exp(-statistic / 2) * sum(terms)


# ------------------------------------------------------------------------------------------------ average or choose


@pytest.mark.claim("soft-average-or-choose")
def test_one_row_of_weights_used_in_three_ways(claim):
    """The weights of the chapter through soft attention, 200,000 draws and argmax; the soft output in plain Python."""
    key, options = SCORES[:, None], {"scale": 1.0}
    query, value = np.ones((1, 1)), VALUES[:, None]
    soft, weights = ag.scaled_dot_product_attention(query, key, value, scale=1.0, return_weights=True)
    claim.check("weights", weights[0], expected=WEIGHTS, tolerance=1e-15, why="rounding")
    claim.check("soft output", soft[0, 0], expected=sum(w * v for w, v in zip(WEIGHTS, VALUES, strict=True)),
                tolerance=1e-14, why="rounding")  # fmt: skip
    claim.require("the soft output is none of the values", not np.isclose(VALUES, soft[0, 0]).any())
    rng = claim.rng(0)
    many = np.broadcast_to(query, (200_000, 1))
    drawn = ag.hard_attention(many, key, value, rng=rng, **options)[:, 0]
    claim.require("every draw is one of the values", np.isin(drawn, VALUES).all())
    spread = sqrt(WEIGHTS @ VALUES**2 - (WEIGHTS @ VALUES) ** 2)
    claim.check("mean of the draws", drawn.mean(), expected=soft[0, 0], tolerance=4 * spread / sqrt(len(drawn)),
                why="four standard errors")  # fmt: skip
    best = ag.hard_attention(many, key, value, choose="argmax", **options)[:, 0]
    claim.check("smallest and largest output of argmax", [best.min(), best.max()], expected=[3.0, 3.0])
    claim.note(draws=len(drawn), spread=spread)


@pytest.mark.claim("soft-two-hard")
def test_sampling_and_argmax_are_two_mechanisms(claim):
    """How often a draw is the argmax, over 200,000 draws; the same chance for temperatures down to 0.05, exactly."""
    rng = claim.rng(1)
    draws = 200_000
    same = (ag.hard_attention(np.ones((draws, 1)), SCORES[:, None], VALUES[:, None], scale=1.0, rng=rng) == 3).mean()
    claim.check("share of draws that are the argmax", same, expected=0.35,
                tolerance=4 * sqrt(0.35 * 0.65 / draws), why="four standard errors")  # fmt: skip
    temperatures = [1.0, 0.5, 0.2, 0.1, 0.05]
    chance = [float(ag.softmax(SCORES, temperature=t)[2]) for t in temperatures]
    claim.require("a lower temperature draws the argmax more often", (np.diff(chance) > 0).all())
    claim.above("chance of the argmax at the lowest temperature", chance[-1], 0.99)
    other = np.log([0.3, 0.25, 0.35, 0.05, 0.05])
    claim.check("argmax of quite different weights", VALUES[other.argmax()], expected=3.0, why="the margin is not seen")
    claim.note(draws=draws, temperatures=temperatures, chance=chance)


@pytest.mark.claim("soft-two-objectives")
def test_loss_of_the_average_and_average_of_the_loss(claim):
    """(value - 3.5)²: expected over the choices, and of the mean value; what descending either of the two leads to."""
    expected, of_mean = WEIGHTS @ LOSSES, (WEIGHTS @ VALUES - TARGET) ** 2
    variance = WEIGHTS @ (VALUES - WEIGHTS @ VALUES) ** 2
    claim.check("difference less the variance of the values", expected - of_mean - variance, expected=0.0,
                tolerance=1e-14, why="rounding")  # fmt: skip
    # Descend both from the same scores.
    z = {"soft": SCORES.copy(), "expected": SCORES.copy()}
    for _ in range(20_000):
        w = ag.softmax(z["soft"])
        z["soft"] -= 0.05 * soft_gradient(w @ VALUES, w)
        z["expected"] -= 0.05 * ag.expected_reward_gradient(z["expected"], LOSSES)
    found = {name: ag.softmax(s) for name, s in z.items()}
    claim.below("loss of the mean after descending it", (found["soft"] @ VALUES - TARGET) ** 2, 1e-6)
    claim.above("expected loss at those weights", found["soft"] @ LOSSES, 1.0)
    claim.check("expected loss after descending that", found["expected"] @ LOSSES, expected=LOSSES.min(),
                tolerance=0.01, why="the best single value")  # fmt: skip
    claim.note(expected=expected, of_mean=of_mean, variance=variance)
    claim.note(largest={name: w.max() for name, w in found.items()}, pair=np.sort(found["expected"])[-2:].sum())


@pytest.mark.claim("soft-hard-cost")
def test_what_a_choice_saves(claim):
    """64 keys of width 64: what decides a choice, what is read for it, and multiply-adds of one query."""
    rng = claim.rng(2)
    n, d = 64, 64
    q, k, v = rng.standard_normal((1, d)), rng.standard_normal((n, d)), rng.standard_normal((n, d))
    _, choice = ag.hard_attention(q, k, v, choose="argmax", return_weights=True)
    chosen = int(choice.argmax())
    decides = 0
    for j in range(n):
        moved = k.copy()
        moved[j] = (-3.0 if j == chosen else 3.0) * q[0]
        decides += int(ag.hard_attention(q, moved, v, choose="argmax", return_weights=True)[1].argmax() != chosen)
    claim.check("keys that can change the choice", decides, expected=n)
    ruined = np.full_like(v, np.nan)
    ruined[chosen] = v[chosen]
    claim.check("output when all other values are NaN", ag.hard_attention(q, k, ruined, choose="argmax")[0],
                expected=v[chosen], why="only the chosen value is read")  # fmt: skip
    soft, hard = n * d + n * d, n * d
    claim.check("soft over hard, multiply-adds", soft / hard, expected=2.0, why="n d for scores, n d for the mean")
    claim.note(n=n, soft=soft, hard=hard)


# ------------------------------------------------------------------------------------------------ no gradient


@pytest.mark.claim("soft-no-gradient")
def test_a_draw_is_a_step_function(claim):
    """20,000 draws with the noise held fixed: what moves when the score of value 5 rises, by 1e-6 and by 1."""
    rng = claim.rng(3)
    draws = 20_000
    noise = ag.gumbel_noise((draws, 5), rng)

    def outputs(change: float) -> np.ndarray:
        return VALUES[(SCORES + noise + change * np.eye(5)[4]).argmax(axis=1)]

    slope = (outputs(1e-6) - outputs(0.0)) / 1e-6
    claim.check("draws with a slope other than 0", int((slope != 0).sum()), expected=0)
    step = outputs(1.0) - outputs(0.0)
    mean = [ag.softmax(SCORES + c * np.eye(5)[4]) @ VALUES for c in (0.0, 1.0)]
    claim.check("mean step when the score rises by 1", step.mean(), expected=mean[1] - mean[0],
                tolerance=4 * step.std() / sqrt(draws), why="four standard errors")  # fmt: skip
    jumped = step != 0
    claim.check("draws that jumped to anything but 5", int((outputs(1.0)[jumped] != 5).sum()), expected=0)
    claim.note(draws=draws, jumped=jumped.mean(), soft_slope=WEIGHTS[4] * (VALUES[4] - WEIGHTS @ VALUES))


@pytest.mark.claim("soft-enumeration")
def test_the_exact_gradient(claim):
    """The gradient of the expected loss by enumeration against central differences; what enumerating would cost."""
    h = 1e-5
    numeric = [(ag.softmax(SCORES + h * e) @ LOSSES - ag.softmax(SCORES - h * e) @ LOSSES) / (2 * h) for e in np.eye(5)]
    found = ag.expected_reward_gradient(SCORES, LOSSES)
    claim.check("gradient", found, expected=numeric, tolerance=1e-9, why="differences of a smooth function, h = 1e-5")
    claim.check("sum of its entries", found.sum(), expected=0.0, tolerance=1e-15, why="softmax ignores shifts")
    claim.check("ways to take four looks at 16 patches", 16**4, expected=65_536)
    claim.note(digits=20 * math.log10(196), expected_loss=WEIGHTS @ LOSSES, length=np.linalg.norm(EXACT))


# ------------------------------------------------------------------------------------------------ REINFORCE


@pytest.mark.claim("soft-reinforce-unbiased")
def test_reinforce_is_unbiased(claim):
    """The mean of 400,000 single-draw estimates against enumeration, in standard errors; the expectation exactly."""
    rng = claim.rng(4)
    score = np.eye(5) - WEIGHTS  # row i: the gradient of log p_i
    numeric = np.empty((5, 5))
    for j, e in enumerate(np.eye(5)):
        numeric[:, j] = (np.log(ag.softmax(SCORES + 1e-5 * e)) - np.log(ag.softmax(SCORES - 1e-5 * e))) / 2e-5
    claim.check("gradient of log p", score, expected=numeric, tolerance=1e-9, why="central differences")
    claim.check("sum over choices of p loss grad log p", WEIGHTS @ (LOSSES[:, None] * score), expected=EXACT,
                tolerance=1e-15, why="rounding")  # fmt: skip
    for baseline in ("none", "mean"):
        found = ag.reinforce_gradient(SCORES, LOSSES, samples=DRAWS, rng=rng, baseline=baseline)
        off = np.abs(found.gradient - EXACT) / found.standard_error
        claim.below(f"largest error in standard errors, baseline {baseline}", off.max(), 4.0, "four standard errors")
    claim.note(draws=DRAWS, exact=EXACT, one_draw=LOSSES[1] * score[1])


@pytest.mark.claim("soft-baseline")
def test_a_baseline_cuts_the_variance(claim):
    """Total variance of a single draw for four baselines: 400,000 draws each, against the sum over the five choices."""
    rng = claim.rng(5)
    squared = ((np.eye(5) - WEIGHTS) ** 2).sum(axis=1)  # |grad log p_i|²
    best = (WEIGHTS * squared) @ LOSSES / (WEIGHTS @ squared)
    baselines = {"none": 0.0, "expected": WEIGHTS @ LOSSES, "optimal": best}
    exact = {name: float(WEIGHTS @ ((LOSSES - b) ** 2 * squared) - EXACT @ EXACT) for name, b in baselines.items()}
    measured = {}
    for name in ("none", "mean", "expected", "optimal"):
        variance = ag.reinforce_gradient(SCORES, LOSSES, samples=DRAWS, rng=rng, baseline=name).variance.sum()
        measured[name] = variance
        wanted = exact.get(name, exact["expected"])
        claim.check(f"variance, {name}", variance, expected=wanted, tolerance=0.02, relative=True,
                    why="two percent, more than four standard errors")  # fmt: skip
    slope = WEIGHTS @ (-2 * (LOSSES - best) * squared)
    claim.check("derivative of the variance at the best baseline", slope, expected=0.0, tolerance=1e-12,
                why="a parabola's lowest point")  # fmt: skip
    claim.above("variance without a baseline over that with the mean", measured["none"] / measured["mean"], 1.8)
    worse = float(WEIGHTS @ ((LOSSES + 5) ** 2 * squared) - EXACT @ EXACT)
    claim.above("variance with a baseline of -5, over none", worse / exact["none"], 2.0, "a bad baseline does harm")
    claim.note(best=best, expected_loss=baselines["expected"], exact=exact, draws=DRAWS)


@pytest.mark.claim("soft-own-baseline")
def test_a_mean_that_counts_the_draw_itself_is_biased(claim):
    """All 5⁴ batches of 4 draws: the expected gradient if the baseline is the mean with and without the draw itself."""
    n = 4
    mean = {"with": np.zeros(5), "without": np.zeros(5)}
    for batch in itertools.product(range(5), repeat=n):
        chosen = np.array(batch)
        chance = float(np.prod(WEIGHTS[chosen]))
        score, loss = np.eye(5)[chosen] - WEIGHTS, LOSSES[chosen]  # (n, 5), (n,)
        mean["with"] += chance * ((loss - loss.mean())[:, None] * score).mean(axis=0)
        others = (loss.sum() - loss) / (n - 1)
        mean["without"] += chance * ((loss - others)[:, None] * score).mean(axis=0)
    claim.check("expected gradient, mean of the others", mean["without"], expected=EXACT, tolerance=1e-13,
                why="rounding over 625 batches")  # fmt: skip
    claim.check("expected gradient, mean of all over the exact one", mean["with"] / EXACT, expected=[(n - 1) / n] * 5,
                tolerance=1e-12, why="the factor (N - 1)/N")  # fmt: skip
    claim.note(batch=n, batches=5**n)


@pytest.mark.claim("soft-direct-term")
def test_the_direct_gradient_of_the_loss_belongs_to_it(claim):
    """One parameter in scores and values: the gradient with and without the derivative of the loss itself."""
    rng = claim.rng(6)

    def parts(theta: float) -> tuple[np.ndarray, np.ndarray]:
        return ag.softmax(theta * SCORES), (theta * VALUES - TARGET) ** 2  # probabilities, loss of each choice

    def expected(theta: float) -> float:
        p, loss = parts(theta)
        return float(p @ loss)

    theta, h = 1.0, 1e-5
    truth = (expected(theta + h) - expected(theta - h)) / (2 * h)
    p, loss = parts(theta)
    drawn = rng.choice(5, size=DRAWS, p=p)
    score = SCORES[drawn] - p @ SCORES  # derivative of log p
    direct = 2 * (theta * VALUES[drawn] - TARGET) * VALUES[drawn]
    estimate = loss[drawn] * score
    error = (estimate + direct).std() / sqrt(DRAWS)
    claim.check("with the direct term", (estimate + direct).mean(), expected=truth, tolerance=4 * error,
                why="four standard errors")  # fmt: skip
    claim.above(
        "error without it, in standard errors", abs(estimate.mean() - truth) / (estimate.std() / sqrt(DRAWS)), 100
    )
    claim.note(truth=truth, without=estimate.mean(), draws=DRAWS)


@pytest.mark.claim("soft-samples")
def test_the_error_falls_as_one_over_the_root(claim):
    """Root mean square error of the mean of N draws, N = 1, 4, ... 1024, 2,000 repetitions; the fitted exponent."""
    rng = claim.rng(7)
    counts = [4**i for i in range(6)]
    rms = []
    for n in counts:
        drawn = rng.choice(5, size=(2000, n), p=WEIGHTS)
        estimate = ((LOSSES[drawn] - WEIGHTS @ LOSSES)[..., None] * (np.eye(5)[drawn] - WEIGHTS)).mean(axis=1)
        rms.append(float(np.sqrt(((estimate - EXACT) ** 2).sum(axis=1).mean())))
    slope = np.polyfit(np.log(counts), np.log(rms), 1)[0]
    claim.check("exponent", slope, expected=-0.5, tolerance=0.02, why="each point has an error of about one percent")
    claim.note(counts=counts, rms=rms)


# ------------------------------------------------------------------------------------------------ Gumbel


@pytest.mark.claim("soft-gumbel-max")
def test_gumbel_max_draws_from_the_softmax(claim):
    """Pearson's chi-square over 400,000 draws of argmax(scores + noise): Gumbel noise, and normal noise as wide."""
    rng = claim.rng(8)
    noise = ag.gumbel_noise((DRAWS, 5), rng)
    counts = np.bincount((SCORES + noise).argmax(axis=1), minlength=5)
    statistic, p_value = chi_square(counts, WEIGHTS)
    claim.above("p-value with Gumbel noise", p_value, 1e-4)
    normal = rng.normal(scale=math.pi / sqrt(6), size=(DRAWS, 5))
    other = np.bincount((SCORES + normal).argmax(axis=1), minlength=5)
    wrong, wrong_p = chi_square(other, WEIGHTS)
    claim.below("p-value with normal noise of the same variance", wrong_p, 1e-12)
    claim.check("variance of the Gumbel noise", noise.var(), expected=math.pi**2 / 6, tolerance=0.02,
                why="four standard errors")  # fmt: skip
    claim.note(draws=DRAWS, frequency=counts / DRAWS, statistic=statistic, normal_frequency=other / DRAWS,
               normal_statistic=wrong)  # fmt: skip


@pytest.mark.claim("soft-gumbel-bias")
def test_gumbel_softmax_trades_bias_for_variance(claim):
    """400,000 single-draw gradients at each temperature: the length of the bias and the total variance."""
    rng = claim.rng(9)
    temperatures = [4.0, 2.0, 1.0, 0.5, 0.25, 0.1]
    rows = [bias_and_variance(gumbel_estimates(rng, t)[0]) for t in temperatures]
    bias, error, variance = map(np.array, zip(*rows, strict=True))
    claim.require("the bias falls with the temperature", (np.diff(bias) < -4 * np.hypot(error[1:], error[:-1])).all(),
                  "by more than four standard errors from each to the next")  # fmt: skip
    claim.require("the variance rises as the temperature falls", (np.diff(variance) > 0).all())
    claim.above("bias at temperature 1, in standard errors", bias[2] / error[2], 100)
    reinforce = float(WEIGHTS @ ((LOSSES - WEIGHTS @ LOSSES) ** 2 * ((np.eye(5) - WEIGHTS) ** 2).sum(axis=1)))
    reinforce -= EXACT @ EXACT
    claim.above("variance at 0.1 over that of REINFORCE with a baseline", variance[-1] / reinforce, 3.0)
    claim.below("variance at 1 over that of REINFORCE with a baseline", variance[2] / reinforce, 1 / 3)
    claim.note(temperatures=temperatures, bias=bias, error=error, variance=variance, length=np.linalg.norm(EXACT),
               draws=DRAWS)  # fmt: skip


@pytest.mark.claim("soft-gumbel-two")
def test_two_choices_by_an_integral(claim):
    """Two choices, so that the noise is logistic: the mean gradient by an integral and by 400,000 draws."""
    rng = claim.rng(10)
    score, values, target, tau = 0.7, np.array([1.0, 3.0]), 2.5, 0.5
    u = (np.arange(200_000) + 0.5) / 200_000  # the midpoint rule over quantiles of the logistic distribution
    noise = np.log(u / (1 - u))

    def gradients(difference: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-(score + difference) / tau))  # weight of the second value
        blend = values[0] + p * (values[1] - values[0])
        return 2 * (blend - target) * (values[1] - values[0]) * p * (1 - p) / tau

    integral = gradients(noise).mean()
    draws = gradients(np.diff(ag.gumbel_noise((DRAWS, 2), rng), axis=1)[:, 0])
    claim.check("mean of the draws", draws.mean(), expected=integral, tolerance=4 * draws.std() / sqrt(DRAWS),
                why="four standard errors")  # fmt: skip
    p = 1 / (1 + np.exp(-score))
    exact = p * (1 - p) * ((values[1] - target) ** 2 - (values[0] - target) ** 2)
    claim.above("bias, in standard errors", abs(integral - exact) / (draws.std() / sqrt(DRAWS)), 20)
    claim.note(integral=integral, exact=exact)


@pytest.mark.claim("soft-crossover")
def test_few_draws_favour_bias_and_many_do_not(claim):
    """Mean square error of the mean of N draws, bias² + variance/N: Gumbel-softmax at 1 and 0.5 against REINFORCE."""
    rng = claim.rng(11)
    reinforce = ag.reinforce_gradient(SCORES, LOSSES, samples=DRAWS, rng=rng, baseline="expected").variance.sum()
    crossing = {}
    for tau in (1.0, 0.5):
        bias, _, variance = bias_and_variance(gumbel_estimates(rng, tau)[0])
        crossing[tau] = (reinforce - variance) / bias**2
        # The formula against 4,000 means of N draws each, on both sides of the crossing.
        for n, better in ((2, True), (64, False)):
            gumbel = gumbel_estimates(rng, tau, 4000 * n)[0].reshape(4000, n, 5).mean(axis=1)
            drawn = rng.choice(5, size=(4000, n), p=WEIGHTS)
            score = ((LOSSES[drawn] - WEIGHTS @ LOSSES)[..., None] * (np.eye(5)[drawn] - WEIGHTS)).mean(axis=1)
            off = [((estimate - EXACT) ** 2).sum(axis=1).mean() for estimate in (gumbel, score)]
            claim.require(f"temperature {tau:g}, {n} draws: Gumbel-softmax is {'better' if better else 'worse'}",
                          (off[0] < off[1]) == better)  # fmt: skip
    claim.note(crossing=[crossing[1.0], crossing[0.5]])


# ------------------------------------------------------------------------------------------------ straight-through


@pytest.mark.claim("soft-straight-through")
def test_how_far_straight_through_is_off(claim):
    """Draws from the weights, backward as if they were the weights: the mean over all choices, and 400,000 draws."""
    rng = claim.rng(12)
    every = soft_gradient(VALUES, np.broadcast_to(WEIGHTS, (5, 5)))  # the gradient for each choice
    mean = WEIGHTS @ every
    soft = soft_gradient(WEIGHTS @ VALUES, WEIGHTS)
    claim.check("its mean less the gradient of soft attention", mean - soft, expected=np.zeros(5), tolerance=1e-14,
                why="the derivative of a square is linear")  # fmt: skip
    drawn = rng.choice(5, size=DRAWS, p=WEIGHTS)
    bias, error, variance = bias_and_variance(every[drawn])
    claim.check("bias", bias, expected=float(np.linalg.norm(mean - EXACT)), tolerance=4 * error,
                why="four standard errors")  # fmt: skip
    claim.above("bias over the length of the gradient", bias / np.linalg.norm(EXACT), 0.5)
    claim.below("cosine with the exact gradient", mean @ EXACT / np.linalg.norm(mean) / np.linalg.norm(EXACT), 0.9)
    claim.note(variance=variance, length=np.linalg.norm(EXACT), mean=mean, exact=EXACT, draws=DRAWS)


@pytest.mark.claim("soft-straight-through-linear")
def test_straight_through_is_right_for_a_linear_loss(claim):
    """A loss that is linear in the output, 2,000 random problems: the mean straight-through gradient by enumeration."""
    rng = claim.rng(13)
    worst = {"linear": 0.0, "squared": math.inf}
    for _ in range(2000):
        p, slope, values = ag.softmax(rng.standard_normal(5)), rng.standard_normal(), rng.standard_normal(5)
        straight = ag.softmax_backward(slope * values, p)  # the same whatever was drawn
        worst["linear"] = max(worst["linear"], np.abs(straight - p * (slope * values - p @ (slope * values))).max())
        loss = (values - slope) ** 2
        mean = sum(p[i] * ag.softmax_backward(2 * (values[i] - slope) * values, p) for i in range(5))
        worst["squared"] = min(worst["squared"], np.abs(mean - p * (loss - p @ loss)).max())
    claim.below("largest bias, linear loss", worst["linear"], 1e-12, "rounding")
    claim.above("smallest bias, squared loss", worst["squared"], 1e-4)
    claim.note(problems=2000)


@pytest.mark.claim("soft-straight-through-gumbel")
def test_straight_through_gumbel(claim):
    """Forward the argmax of a Gumbel-softmax draw, backward its softmax: bias and variance beside Gumbel-softmax."""
    rng = claim.rng(14)
    temperatures = [2.0, 1.0, 0.5, 0.1]
    relaxed, straight = [], []
    for tau in temperatures:
        a, b = gumbel_estimates(rng, tau)
        relaxed.append(bias_and_variance(a))
        straight.append(bias_and_variance(b))
    relaxed, straight = np.array(relaxed), np.array(straight)  # (temperatures, 3): bias, error, variance
    claim.above("bias in standard errors", straight[:, 0] / straight[:, 1], 4.0)
    claim.require("less bias than Gumbel-softmax at every temperature", (straight[:, 0] < relaxed[:, 0]).all())
    claim.require("more variance at every temperature", (straight[:, 2] > relaxed[:, 2]).all())
    claim.note(temperatures=temperatures, bias=straight[:, 0], variance=straight[:, 2], relaxed=relaxed[:, 0])


# ------------------------------------------------------------------------------------------------ top-k


@pytest.mark.claim("soft-top-k")
def test_top_k_is_a_mask_and_nears_soft_attention(claim):
    """200 random problems of 32 keys: renormalising against masking, both ends, and the distance to soft attention."""
    rng = claim.rng(15)
    n, apart, ends, bound, distance, kept = 32, 0.0, 0.0, -math.inf, np.zeros(32), np.zeros(32)
    for _ in range(200):
        q, k, v = rng.standard_normal((1, 16)), rng.standard_normal((n, 16)), rng.standard_normal((n, 8))
        soft, w = ag.scaled_dot_product_attention(q, k, v, return_weights=True)
        diameter = np.linalg.norm(v[:, None] - v[None], axis=-1).max()
        for size in range(1, n + 1):
            out, found = ag.top_k_attention(q, k, v, k=size, return_weights=True)
            best = np.argsort(-w[0])[:size]
            again = np.zeros(n)
            again[best] = w[0, best] / w[0, best].sum()
            apart = max(apart, np.abs(found[0] - again).max())
            off = np.linalg.norm(out - soft)
            distance[size - 1] += off / 200
            kept[size - 1] += w[0, best].sum() / 200
            bound = max(bound, off - (1 - w[0, best].sum()) * diameter)
        ends = max(ends, np.abs(ag.top_k_attention(q, k, v, k=n) - soft).max())
        ends = max(ends, np.abs(ag.top_k_attention(q, k, v, k=1) - ag.hard_attention(q, k, v, choose="argmax")).max())
    claim.below("renormalised less masked", apart, 1e-12, "rounding")
    claim.below("k = n less soft attention, k = 1 less argmax", ends, 1e-12, "rounding")
    claim.below("distance to soft attention less its bound", bound, 1e-12, "(1 - weight kept) times the diameter of V")
    claim.require("the mean distance falls with every further key", (np.diff(distance) < 0).all())
    claim.note(n=n, problems=200, distance=distance, kept=kept)


@pytest.mark.claim("soft-top-k-jump")
def test_top_k_jumps(claim):
    """Two scores that change places at the border of the best two: the output before and after, and the gradients."""
    q, v = np.ones((1, 1)), np.array([[0.0], [1.0], [9.0]])

    def run(third: float) -> tuple[np.ndarray, np.ndarray]:
        return ag.top_k_attention(q, [[2.0], [1.0], [third]], v, k=2, scale=1.0, return_weights=True)

    below, above = run(1 - 1e-9), run(1 + 1e-9)
    claim.above("jump of the output", float(above[0][0, 0] - below[0][0, 0]), 1.0)
    claim.check("weight just below the border", below[1][0, 2], expected=0.0)
    grad = ag.softmax_backward(v[:, 0], below[1][0])
    claim.check("gradient of the score left out", grad[2], expected=0.0, why="although its value would matter most")
    soft = [
        float(ag.scaled_dot_product_attention(q, [[2.0], [1.0], [1 + e]], v, scale=1.0)[0, 0]) for e in (-1e-9, 1e-9)
    ]
    claim.below("jump of soft attention", abs(soft[1] - soft[0]), 1e-7)
    claim.note(below=below[0][0, 0], above=above[0][0, 0])


# ------------------------------------------------------------------------------------------------ sparsemax, entmax


def nearest_on_the_simplex(z: np.ndarray) -> np.ndarray:
    """Return the point of the simplex nearest to z by trying every face: for each support the foot of the normal."""
    best, distance = None, math.inf
    for size in range(1, len(z) + 1):
        for support in map(list, itertools.combinations(range(len(z)), size)):
            p = np.zeros(len(z))
            p[support] = z[support] - (z[support].sum() - 1) / size
            off = ((p - z) ** 2).sum()
            if (p >= 0).all() and off < distance:
                best, distance = p, off
    return best


@pytest.mark.claim("soft-sparsemax-projection")
def test_sparsemax_is_the_nearest_point_of_the_simplex(claim):
    """500 random rows of 6 scores: sparsemax against the nearest point found by trying all 63 faces."""
    rng = claim.rng(16)
    rows = 2 * rng.standard_normal((500, 6))
    apart = max(np.abs(ag.sparsemax(z) - nearest_on_the_simplex(z)).max() for z in rows)
    claim.below("largest difference", apart, 1e-12, "rounding")
    found = ag.sparsemax(rows)
    claim.check("sums of the rows", [found.sum(axis=1).min(), found.sum(axis=1).max()], expected=[1.0, 1.0],
                tolerance=1e-14, why="rounding")  # fmt: skip
    claim.note(rows=500, faces=2**6 - 1)


@pytest.mark.claim("soft-sparsemax-zeros")
def test_exact_zeros(claim):
    """2,000 rows of 64 standard normal scores: how many weights are exactly zero, for four values of alpha."""
    rng = claim.rng(17)
    z = rng.standard_normal((2000, 64))
    alphas = [1.0, 1.25, 1.5, 2.0]
    positive = [float((ag.entmax(z, a) > 0).sum(axis=1).mean()) for a in alphas]
    claim.check("weights above zero, softmax", positive[0], expected=64.0)
    claim.require("fewer for every larger alpha", (np.diff(positive) < 0).all())
    claim.below("weights above zero, sparsemax", positive[-1], 10.0)
    claim.note(alphas=alphas, positive=positive, rows=2000, n=64)


@pytest.mark.claim("soft-sparsemax-jacobian")
def test_the_gradient_of_sparsemax(claim):
    """200 rows of 6 scores: the backward pass against central differences and PyTorch's autograd through entmax."""
    rng = claim.rng(18)
    worst, outside, near = 0.0, 0.0, 0
    rows = 2 * rng.standard_normal((200, 6))
    for z in rows:
        p = ag.sparsemax(z)
        numeric = np.stack(
            [(ag.sparsemax(z + 1e-6 * e) - ag.sparsemax(z - 1e-6 * e)) / 2e-6 for e in np.eye(6)], axis=1
        )
        found = np.stack([ag.sparsemax_backward(e, p) for e in np.eye(6)])
        support = p > 0
        exact = np.where(np.outer(support, support), np.eye(6) - 1 / support.sum(), 0.0)
        worst = max(worst, np.abs(found - exact).max())
        outside = max(outside, np.abs(found[:, ~support]).max(initial=0.0))
        # Within 1e-6 of a corner of the piecewise linear function a difference straddles two pieces.
        tau = z[support].max() - p.max()
        if np.abs(z - tau).min() > 1e-5:
            worst = max(worst, np.abs(found - numeric).max())
        else:
            near += 1
    claim.below("largest difference", worst, 1e-8, "differences of a piecewise linear function")
    claim.check("gradient of scores whose weight is zero", outside, expected=0.0)
    claim.note(rows=200, left_out=near)


@pytest.mark.claim("soft-entmax-package")
def test_entmax_equals_its_authors_package(claim):
    """Weights and gradients for alpha 1.25, 1.5, 1.75 and 2 against the package of its authors; both ends."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("entmax")
    rng = claim.rng(19)
    z, grad = 2 * rng.standard_normal((50, 12)), rng.standard_normal((50, 12))
    weights, gradients = 0.0, 0.0
    for alpha in (1.25, 1.5, 1.75, 2.0):
        x = torch.from_numpy(z).requires_grad_()
        if alpha == 1.5:
            y = theirs.entmax15(x, dim=-1)
        elif alpha == 2.0:
            y = theirs.sparsemax(x, dim=-1)
        else:
            y = theirs.entmax_bisect(x, alpha=alpha, dim=-1, n_iter=100)
        y.backward(torch.from_numpy(grad))
        found = ag.entmax(z, alpha)
        weights = max(weights, np.abs(found - y.detach().numpy()).max())
        gradients = max(gradients, np.abs(ag.entmax_backward(grad, found, alpha) - x.grad.numpy()).max())
    claim.below("largest difference of weights", weights, 1e-9, "both find tau to rounding")
    claim.below("largest difference of gradients", gradients, 1e-6, "roots of weights near zero")
    claim.below("alpha 1.0001 less softmax", np.abs(ag.entmax(z, 1.0001) - ag.softmax(z)).max(), 1e-3)
    claim.below("alpha 1.9999 less sparsemax", np.abs(ag.entmax(z, 1.9999) - ag.sparsemax(z)).max(), 1e-3)


@pytest.mark.claim("soft-entmax-margin")
def test_how_far_below_the_best_a_weight_is_zero(claim):
    """5,000 rows of 8 scores: every score that lies 1/(alpha - 1) or more below the largest; and one just within."""
    rng = claim.rng(20)
    z = 2 * rng.standard_normal((5000, 8))
    below = z.max(axis=1, keepdims=True) - z
    alphas = [1.25, 1.5, 2.0, 3.0]
    largest = []
    for alpha in alphas:
        w = ag.entmax(z, alpha)
        largest.append(float(w[below >= 1 / (alpha - 1)].max()))
    claim.check("largest weight of such a score", max(largest), expected=0.0)
    margin = [float(1 / (alpha - 1)) for alpha in alphas]
    kept = [float(ag.entmax(np.array([0.0, -0.99 * m]), a)[1]) for a, m in zip(alphas, margin, strict=True)]
    claim.above("two scores, one just within the margin: its weight", kept, 0.0)
    claim.note(alphas=alphas, margin=margin)


@pytest.mark.claim("soft-sparse-all-scores")
def test_zero_weights_have_scores(claim):
    """100 rows of 64 scores: for each weight that is zero, the score is raised; how many then enter."""
    rng = claim.rng(21)
    enter = zeros = 0
    for z in rng.standard_normal((100, 64)):
        for weigh in (ag.sparsemax, ag.entmax):
            for j in np.flatnonzero(weigh(z) == 0)[:8]:
                raised = z.copy()
                raised[j] = z.max()
                zeros += 1
                enter += int(weigh(raised)[j] > 0)
    claim.check("share of zero weights that a higher score makes positive", enter / zeros, expected=1.0)
    claim.note(zeros=zeros)


# ------------------------------------------------------------------------------------------------ digits

SEEDS = {"soft": 5, "hard": 5, "gumbel": 5, "straight-through": 5, "random": 3, "no-baseline": 3, "unseen": 3}


@cache
def runs(name: str) -> list:
    from attn_guide import models

    return [models.load(f"glimpse-{name}", seed=seed) for seed in range(SEEDS[name])]


def results(name: str, what: str = "accuracy") -> np.ndarray:
    """Return a result of every run (seeds,) of a kind of glimpse classifier."""
    return np.array([run.results[what] for run in runs(name)])


def standard_error(x: np.ndarray) -> float:
    return float(x.std(ddof=1) / sqrt(len(x)))


@pytest.fixture
def digits():
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")


@pytest.mark.claim("soft-digits-accuracy")
def test_four_ways_to_train_where_to_look(claim, digits):
    """Held-out accuracy of the glimpse classifier, five seeds of each method, against looks at random (three seeds)."""
    found = {name: results(name) for name in ("soft", "hard", "gumbel", "straight-through")}
    random = results("random")
    for name, accuracy in found.items():
        claim.above(f"{name}, worst seed", accuracy.min(), random.max(), "the best seed of looks at random")
    means = {name: float(a.mean()) for name, a in found.items()}
    spread = {name: float(a.std(ddof=1)) for name, a in found.items()}
    errors = np.hypot(standard_error(found["soft"]), [standard_error(a) for a in found.values()])
    claim.note(mean=means, spread=spread, random=random.mean(), random_spread=random.std(ddof=1))
    claim.note(
        lowest={name: a.min() for name, a in found.items()}, highest={name: a.max() for name, a in found.items()}
    )
    claim.note(behind=[float((means["soft"] - m) / e) if m != means["soft"] else 0.0
                       for m, e in zip(means.values(), errors, strict=True)])  # fmt: skip
    run = runs("soft")[0]
    claim.note(
        held_out=len(run.experiment.test_labels), parameters=int(run.results["parameters"]), seeds=SEEDS["soft"],
        chance=float(np.bincount(run.experiment.test_labels.numpy()).max() / len(run.experiment.test_labels)),
    )  # fmt: skip
    from attn_guide import models

    settings = models.recipe("glimpse-soft").settings
    claim.note(**{name: settings[name] for name in ("looks", "steps", "batch", "width")})


@pytest.mark.claim("soft-digits-hardened")
def test_soft_weights_do_not_survive_being_hardened(claim, digits):
    """Held-out accuracy of trained models whose looks are made otherwise: soft ones choose, hard ones average."""
    soft, hardened, drawn = results("soft"), results("soft", "hardened"), []
    for run in runs("soft"):
        drawn.append(run.experiment.accuracy("hard", drawn=True))
    claim.above("loss of accuracy of a soft model that takes the most probable patch, smallest of five seeds",
                (soft - hardened).min(), 0.05)  # fmt: skip
    hard, softened = results("hard"), results("hard", "softened")
    claim.below("change of a hard model that averages, largest of five seeds", np.abs(hard - softened).max(), 0.1)
    claim.note(
        soft=soft.mean(), hardened=hardened.mean(), drawn=np.mean(drawn), hard=hard.mean(), softened=softened.mean()
    )
    largest = {name: results(name, "largest").mean() for name in ("soft", "hard", "gumbel", "straight-through")}
    entropy = {name: results(name, "entropy").mean() for name in largest}
    claim.require(
        "soft looks are the most spread out", all(entropy["soft"] > e for n, e in entropy.items() if n != "soft")
    )
    claim.note(largest=largest, entropy=entropy, gumbel_own=results("gumbel", "accuracy_drawn").mean(),
               gumbel_hard=results("gumbel").mean())  # fmt: skip


@pytest.mark.claim("soft-digits-start")
def test_how_soon_each_method_learns(claim, digits):
    """Training loss of the first 100 batches, and the first measured step with half of the held-out digits right."""
    early, half = {}, {}
    for name in ("soft", "hard", "gumbel", "straight-through", "no-baseline"):
        early[name] = float(np.mean([run.loss[:100].mean() for run in runs(name)]))
        half[name] = float(
            np.mean([run.history["step"][(run.history["accuracy"] >= 0.5).argmax()] for run in runs(name)])
        )
    claim.above("mean loss of the first 100 batches, REINFORCE less soft", early["hard"] - early["soft"], 0.1)
    claim.above("steps to half right, REINFORCE less soft", half["hard"] - half["soft"], 0.0)
    claim.note(early=early, half=half)


@pytest.mark.claim("soft-digits-baseline")
def test_training_without_a_baseline(claim, digits):
    """Held-out accuracy and loss of REINFORCE with and without its baseline, seeds 0 to 2."""
    with_it, without = results("hard")[:3], results("no-baseline")
    early = [np.mean([run.loss[50:200].mean() for run in runs(name)[:3]]) for name in ("hard", "no-baseline")]
    claim.note(with_it=with_it, without=without, early_with=early[0], early_without=early[1], seeds=3)
    claim.above("loss of batches 50 to 200 without a baseline less with", early[1] - early[0], 0.0)


@pytest.mark.claim("soft-digits-unseen")
def test_choosing_without_having_seen(claim, digits):
    """Keys from places alone, seeds 0 to 2: accuracy, and whether the first look is at one place for all digits."""
    seen, unseen, random = results("hard")[:3], results("unseen"), results("random")
    claim.above("worst seed", unseen.min(), random.max(), "the best seed of looks at random")
    error = float(np.hypot(standard_error(seen), standard_error(unseen)))
    claim.above("mean less that with keys from what the patches show", unseen.mean() - seen.mean(), -2 * error,
                "minus two standard errors: no loss is to be seen")  # fmt: skip
    first, common = [], []
    for run in runs("unseen"):
        looks = run.experiment.look(359)[1]  # (images, looks, 4, 4)
        chosen = looks.reshape(359, looks.shape[1], -1).argmax(axis=-1)
        common.append([np.bincount(chosen[:, i]).max() / 359 for i in range(chosen.shape[1])])
        first.append([len(np.unique(chosen[:, i])) for i in range(chosen.shape[1])])
    claim.check("places of the first look, each seed", [f[0] for f in first], expected=[1, 1, 1],
                why="nothing has been read before it")  # fmt: skip
    claim.note(mean=unseen.mean(), seen=seen.mean(), random=random.mean(), places=np.mean(first, axis=0), error=error,
               commonest=np.mean(common, axis=0))  # fmt: skip


@pytest.mark.claim("soft-digits-where")
def test_where_the_looks_go(claim, digits):
    """Looks at 359 held-out digits: their share on patches with ink, at the corners, and at places looked at before."""
    run = runs("hard")[0]
    images = run.experiment.look(359)[0]
    ink = images.reshape(359, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(359, 16)  # (images, patches)
    dark, corner = ink > 0.25, np.isin(np.arange(16), [0, 3, 12, 15])
    share, corners, repeated = {}, {}, {}
    for name in ("soft", "hard", "gumbel", "straight-through"):
        on, at, again = [], [], []
        for one in runs(name):
            weights = one.experiment.look(359)[1].reshape(359, -1, 16)
            on.append((weights * dark[:, None]).sum(axis=-1).mean())
            at.append(weights[..., corner].sum(axis=-1).mean())
            chosen = weights.argmax(axis=-1)
            again.append(np.mean([len(set(row)) < len(row) for row in chosen.tolist()]))
        share[name], corners[name], repeated[name] = map(float, map(np.mean, (on, at, again)))
    even = float(dark.mean())
    claim.note(share=share, even=even, corners=corners, repeated=repeated, corner_even=0.25)
    claim.below("largest share of looks at corners", max(corners.values()), 0.25, "an even share")


# ------------------------------------------------------------------------------------------------ pointers


def features(x: np.ndarray) -> np.ndarray:
    """Return (..., 3): 1, x and x²."""
    return np.stack([np.ones_like(x), x, x**2], axis=-1)


def lists(rng: np.random.Generator, count: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features of a wanted number (count, 1, 3) and of n numbers (count, n, 3), and where the nearest stands."""
    wanted, numbers = rng.uniform(-1, 1, (count, 1)), rng.uniform(-1, 1, (count, n))
    return features(wanted), features(numbers), np.abs(numbers - wanted).argmin(axis=1)


def train_pointer(rng: np.random.Generator, how: str, steps: int, rate: float = 10.0) -> list[float]:
    """Train the 3 × 3 matrix of a general score to point; return held-out accuracy for 5 numbers after each step."""
    w, accuracy = np.zeros((3, 3)), []
    test = lists(np.random.default_rng(999), 2000, 5)
    for _ in range(steps):
        q, k, place = lists(rng, 64, 5)
        p = ag.softmax((q @ w @ k.swapaxes(1, 2))[:, 0])  # (64, 5)
        if how == "likelihood":
            grad = p - np.eye(5)[place]
        else:
            drawn = (np.log(p) + ag.gumbel_noise(p.shape, rng)).argmax(axis=1)
            right = (drawn == place).astype(float)
            others = (right.sum() - right) / (len(right) - 1)
            grad = -(right - others)[:, None] * (np.eye(5)[drawn] - p)
        w = w - rate * np.einsum("bi,bj,bjd->id", q[:, 0], grad, k) / 64
        accuracy.append(float((((test[0] @ w) @ test[1].swapaxes(1, 2))[:, 0].argmax(axis=1) == test[2]).mean()))
    return accuracy


@pytest.mark.claim("soft-pointer")
def test_pointing_is_trained_by_likelihood(claim):
    """Pointing to the nearest of 5 numbers, five seeds: accuracy after 10 and 100 batches, by likelihood, by draws."""
    found = {
        how: np.array([train_pointer(claim.rng(seed), how, 100) for seed in seeds])
        for how, seeds in (("likelihood", range(30, 35)), ("sampling", range(40, 45)))
    }
    claim.above("after 10 batches, worst seed by likelihood", found["likelihood"][:, 9].min(),
                found["sampling"][:, 9].max(), "the best seed by sampling")  # fmt: skip
    claim.above("after 100 batches, likelihood", found["likelihood"][:, 99].mean(), 0.85)
    claim.note(**{f"{how}_{step}": a[:, step - 1].mean() for how, a in found.items() for step in (10, 100)})
    claim.note(chance=0.2, numbers=5, seeds_each=5)
