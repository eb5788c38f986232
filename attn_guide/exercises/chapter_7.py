"""Checkers for the exercises of chapter 7, soft and hard attention."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from . import Answer, exercise

__all__: list[str] = []


@functools.cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Places and lengths for an integral from 0 to 1."""
    nodes, lengths = np.polynomial.legendre.leggauss(400)
    return (nodes + 1) / 2, lengths / 2


def _random_weights(rng: np.random.Generator, m: int) -> np.ndarray:
    powers = np.exp(rng.standard_normal(m))
    return powers / powers.sum()


@exercise(
    "7.1",
    name="gap",
    signature="(weights, values, target)",
    statement="""
    By how much does the expected squared loss of a value drawn with these weights exceed the squared loss of the
    weighted average? The loss is the squared distance from target; weights and values have shape (m,).
    """,
    wrong={
        "takes the difference the other way round": """
def gap(weights, values, target): return (weights @ values - target) ** 2 - weights @ (values - target) ** 2
""",
        "gives the expected loss alone": """
def gap(weights, values, target): return weights @ (values - target) ** 2
""",
        "forgets the weights in the variance": "def gap(weights, values, target): return np.var(values)",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for m in (2, 3, 5, 7):
        weights, values, target = _random_weights(rng, m), rng.standard_normal(m), float(rng.standard_normal())
        expected = sum(w * (v - target) ** 2 for w, v in zip(weights, values, strict=True))
        mean = sum(w * v for w, v in zip(weights, values, strict=True))
        answer(weights, values, target).equals(expected - (mean - target) ** 2)


@exercise(
    "7.2",
    name="best_baseline",
    signature="(weights, losses)",
    statement="""
    Return the constant baseline b with the least total variance of the REINFORCE estimate (loss_i - b) (e_i - weights),
    where i is drawn with probabilities weights (m,) and costs losses[i].
    """,
    wrong={
        "takes the expected loss": "def best_baseline(weights, losses): return weights @ losses",
        "takes the plain mean": "def best_baseline(weights, losses): return np.mean(losses)",
        "weighs with lengths that are not squared": """
def best_baseline(weights, losses):
    s = np.sqrt(((np.eye(len(weights)) - weights) ** 2).sum(axis=1))
    return (weights * s) @ losses / (weights @ s)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for m in (3, 4, 6, 8):
        weights, losses = _random_weights(rng, m), 3 * rng.standard_normal(m)

        def variance(b: float, weights: np.ndarray = weights, losses: np.ndarray = losses) -> float:
            estimates = (losses - b)[:, None] * (np.eye(len(weights)) - weights)  # (choices, m)
            mean = weights @ estimates
            return float(weights @ ((estimates - mean) ** 2).sum(axis=1))

        # The variance is a parabola: three of its points give the lowest one.
        low, middle, high = variance(-1.0), variance(0.0), variance(1.0)
        answer(weights, losses).equals((low - high) / (2 * (low - 2 * middle + high)))


@exercise(
    "7.3",
    name="reinforce",
    signature="(scores, drawn, losses)",
    statement="""
    Return the mean REINFORCE estimate (m,) of the gradient of the expected loss with respect to scores (m,). drawn (N,)
    holds the choices that were drawn and losses (N,) what each of them cost. The baseline of a draw is the mean loss of
    the other draws.
    """,
    wrong={
        "counts the draw itself in its baseline": """
def reinforce(scores, drawn, losses):
    w = ag.softmax(scores)
    return ((losses - losses.mean())[:, None] * (np.eye(len(w))[drawn] - w)).mean(axis=0)
""",
        "has no baseline": """
def reinforce(scores, drawn, losses):
    w = ag.softmax(scores)
    return (losses[:, None] * (np.eye(len(w))[drawn] - w)).mean(axis=0)
""",
        "adds the draws up": """
def reinforce(scores, drawn, losses):
    w = ag.softmax(scores)
    others = (losses.sum() - losses) / (len(losses) - 1)
    return ((losses - others)[:, None] * (np.eye(len(w))[drawn] - w)).sum(axis=0)
""",
        "has the sign of a reward": """
def reinforce(scores, drawn, losses):
    w = ag.softmax(scores)
    others = (losses.sum() - losses) / (len(losses) - 1)
    return ((others - losses)[:, None] * (np.eye(len(w))[drawn] - w)).mean(axis=0)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for m, count in [(2, 2), (3, 5), (5, 4), (4, 9)]:
        scores, losses = rng.standard_normal(m), rng.standard_normal(count)
        drawn = rng.integers(m, size=count)
        weights = np.exp(scores) / np.exp(scores).sum()
        wanted = np.zeros(m)
        for i in range(count):
            others = [losses[j] for j in range(count) if j != i]
            for c in range(m):
                direction = (c == drawn[i]) - weights[c]
                wanted[c] += (losses[i] - sum(others) / len(others)) * direction / count
        answer(scores, drawn, losses).equals(wanted)


@exercise(
    "7.4",
    name="chance_of_pair",
    signature="(weights, first, second)",
    statement="""
    Gumbel noise is added to scores whose softmax is weights (m,). Return the probability that key first has the largest
    sum and key second, another key, the next largest.
    """,
    wrong={
        "draws with replacement": "def chance_of_pair(weights, first, second): return weights[first] * weights[second]",
        "takes the pair in either order": """
def chance_of_pair(weights, first, second):
    p, q = weights[first], weights[second]
    return p * q / (1 - p) + q * p / (1 - q)
""",
        "removes the second": """
def chance_of_pair(weights, first, second): return weights[first] * weights[second] / (1 - weights[second])
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    u, lengths = _quadrature()  # u: the first sum's distribution function, integrated over
    for m in (3, 4, 6):
        weights = _random_weights(rng, m)
        first, second = rng.choice(m, size=2, replace=False)
        # P(first > second > rest) by the densities of the sums: the second lies below the first, the rest below it.
        rest = 1 - weights[first]
        below_first = u ** (rest / weights[first])  # all others below the first sum, given that it stands at u
        chance = lengths @ (below_first * weights[second] / rest)
        answer(weights, int(first), int(second)).equals(float(chance), tolerance=1e-5)


@exercise(
    "7.5",
    name="sparsemax",
    signature="(z)",
    statement="""
    Return the sparsemax of one row of scores z (m,): the point of the simplex that is nearest to z. Do not sort.
    """,
    wrong={
        "drops once and stops": """
def sparsemax(z):
    tau = (z.sum() - 1) / len(z)
    left = z > tau
    return np.where(left, z - (z[left].sum() - 1) / left.sum(), 0)
""",
        "cuts off and divides by the sum": """
def sparsemax(z):
    p = np.maximum(z - z.mean(), 0) + 1e-12
    return p / p.sum()
""",
        "is the softmax": "def sparsemax(z): return ag.softmax(z)",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    rows = [np.array([2.0, 1.2, 0.5, -3.0, -3.5, 0.1]), np.array([0.3]), np.zeros(4)]
    for z in [*rows, *(2 * rng.standard_normal(m) for m in (2, 5, 7, 7))]:
        best, distance = z, math.inf
        for size in range(1, len(z) + 1):  # the truth: the nearest foot over all faces of the simplex
            for support in map(list, itertools.combinations(range(len(z)), size)):
                p = np.zeros(len(z))
                p[support] = z[support] - (z[support].sum() - 1) / size
                if (p >= 0).all() and ((p - z) ** 2).sum() < distance:
                    best, distance = p, ((p - z) ** 2).sum()
        answer(z).equals(best)


@exercise(
    "7.6",
    name="smallest_k",
    signature="(weights, tolerance, diameter)",
    statement="""
    Return the smallest k for which top-k attention is sure to lie within tolerance of soft attention with these weights
    (m,), if no two values are further apart than diameter.
    """,
    wrong={
        "takes the keys in the order in which they come": """
def smallest_k(weights, tolerance, diameter):
    return int(((1 - np.cumsum(weights)) * diameter <= tolerance + 1e-12).argmax()) + 1
""",
        "forgets the diameter": """
def smallest_k(weights, tolerance, diameter):
    left = 1 - np.cumsum(np.sort(weights)[::-1])
    return int((left <= tolerance + 1e-12).argmax()) + 1
""",
        "is one short": """
def smallest_k(weights, tolerance, diameter):
    left = 1 - np.cumsum(np.sort(weights)[::-1])
    return int((left * diameter <= tolerance + 1e-12).argmax())
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for m, diameter, share in [(4, 4.0, 0.3), (6, 0.5, 0.2), (9, 3.0, 0.05), (5, 2.0, 0.6), (8, 5.0, 0.35)]:
        weights = _random_weights(rng, m)
        tolerance = share * diameter
        k = next(k for k in range(1, m + 1) if sum(sorted(weights)[: m - k]) * diameter <= tolerance)
        answer(weights, tolerance, diameter).equals(k)


@exercise(
    "7.7",
    name="pointer_gradient",
    signature="(scores, place)",
    statement="""
    Return the gradient, with respect to scores (b, n), of the mean over the batch of minus the logarithm of the softmax
    weight at place (b,), the right position of each row.
    """,
    wrong={
        "adds up where a mean is asked for": """
def pointer_gradient(scores, place): return ag.softmax(scores) - np.eye(scores.shape[1])[place]
""",
        "has the opposite sign": """
def pointer_gradient(scores, place): return (np.eye(scores.shape[1])[place] - ag.softmax(scores)) / len(scores)
""",
        "takes the softmax down the batch": """
def pointer_gradient(scores, place):
    return (ag.softmax(scores, axis=0) - np.eye(scores.shape[1])[place]) / len(scores)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    def loss(scores: np.ndarray, place: np.ndarray) -> float:
        logs = [row[p] - math.log(np.exp(row).sum()) for row, p in zip(scores, place, strict=True)]
        return -sum(logs) / len(logs)

    for b, n in [(1, 4), (3, 2), (4, 5)]:
        scores, place, h = rng.standard_normal((b, n)), rng.integers(n, size=b), 1e-5
        wanted = np.zeros((b, n))
        for i, j in np.ndindex(b, n):
            step = h * np.eye(b * n)[i * n + j].reshape(b, n)
            wanted[i, j] = (loss(scores + step, place) - loss(scores - step, place)) / (2 * h)
        answer(scores, place).equals(wanted)
