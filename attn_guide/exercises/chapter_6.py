"""Checkers for the exercises of chapter 6, score functions."""

from __future__ import annotations

import math

import numpy as np

from . import Answer, exercise

__all__: list[str] = []


def _best_weight(n: int, scale: float) -> float:
    """The weight of a key along the query when n - 1 others point against it, summed term by term."""
    powers = [math.exp(scale)] + [math.exp(-scale)] * (n - 1)
    return powers[0] / math.fsum(powers)


@exercise(
    "6.1",
    name="cosine_cap",
    signature="(n, scale)",
    statement="""
    The largest weight that one of ``n`` keys can get from a softmax when the scores are cosines times ``scale``.
    """,
    wrong={
        "lets the other scores be 0": "def cosine_cap(n, scale): return float(1 / (1 + (n - 1) * np.exp(-scale)))",
        "counts the key itself among the others": """
def cosine_cap(n, scale):
    return float(1 / (1 + n * np.exp(-2 * scale)))
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    drawn = (3, float(rng.uniform(1, 5))), (40, float(rng.uniform(1, 5)))
    for n, scale in [(1, 1.0), (2, 1.0), (10, 1.0), (512, 1.0), (512, 10.0), *drawn]:
        answer(n, scale).equals(_best_weight(n, scale))


@exercise(
    "6.2",
    name="scale_for",
    signature="(weight, n)",
    statement="""
    The smallest factor with which a cosine can give one of ``n`` keys that weight. The weight is between 1 / n and 1.
    """,
    wrong={
        "lets the other scores be 0": """
def scale_for(weight, n):
    return float(np.log(weight * (n - 1) / (1 - weight)))
""",
        "forgets how many keys there are": """
def scale_for(weight, n):
    return float(np.log(weight / (1 - weight)) / 2)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n in [2, 3, 10, 512, int(rng.integers(20, 200))]:
        weight = float(rng.uniform(1.2 / n, 0.99))
        low, high = 0.0, 50.0
        for _ in range(100):  # the truth: halve the interval in which the cap reaches the weight
            middle = (low + high) / 2
            low, high = (middle, high) if _best_weight(n, middle) < weight else (low, middle)
        answer(weight, n).equals(high)


@exercise(
    "6.3",
    name="additive",
    signature="(q, k, w_query, w_key, v)",
    statement="""
    The additive scores ``v . tanh(q w_query + k w_key)``, of shape (n, m), without making an array of more than two
    dimensions on the way. ``w_query`` is (d_q, d_a), ``w_key`` (d_k, d_a) and ``v`` (d_a,).
    """,
    wrong={
        "bends each projection by itself": """
def additive(q, k, w_query, w_key, v):
    return (np.tanh(q @ w_query) @ v)[:, None] + (np.tanh(k @ w_key) @ v)[None]
""",
        "bends after the readout": """
def additive(q, k, w_query, w_key, v):
    return np.tanh((q @ w_query @ v)[:, None] + (k @ w_key @ v)[None])
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, m, d_q, d_k, d_a in [(1, 2, 3, 4, 1), (3, 5, 2, 4, 6), (4, 2, 3, 3, 2)]:
        q, k = rng.standard_normal((n, d_q)), rng.standard_normal((m, d_k))
        w_query, w_key, v = (rng.standard_normal(s) for s in ((d_q, d_a), (d_k, d_a), (d_a,)))
        wanted = [
            [sum(v[a] * math.tanh(x @ w_query[:, a] + y @ w_key[:, a]) for a in range(d_a)) for y in k] for x in q
        ]
        answer(q, k, w_query, w_key, v).equals(np.array(wanted))


@exercise(
    "6.4",
    name="multiplications",
    signature="(n, m, d_q, d_k, d_a)",
    statement="""
    How many multiplications an additive score takes for ``n`` queries of width ``d_q`` and ``m`` keys of width
    ``d_k``, with ``d_a`` hidden components, if every projection is computed once.
    """,
    wrong={
        "projects again for every pair": """
def multiplications(n, m, d_q, d_k, d_a):
    return n * m * (d_q * d_a + d_k * d_a + d_a)
""",
        "forgets the readout": """
def multiplications(n, m, d_q, d_k, d_a):
    return n * d_q * d_a + m * d_k * d_a
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, m, d_q, d_k, d_a in [(1, 1, 1, 1, 1), *rng.integers(2, 7, size=(4, 5)).tolist()]:
        count = 0
        for rows, width in ((n, d_q), (m, d_k)):  # the truth: go through the loops and count
            for _ in range(rows):
                for _ in range(d_a):
                    for _ in range(width):
                        count += 1
        for _ in range(n):
            for _ in range(m):
                for _ in range(d_a):
                    count += 1
        answer(n, m, d_q, d_k, d_a).equals(count)


@exercise(
    "6.5",
    name="as_general",
    signature="(w_query, w_key)",
    statement="""
    The matrix W with which ``x W y`` is the score of an attention head, ``(x w_query) . (y w_key)`` over the square
    root of the head's width. Both projections have shape (d_model, d_k).
    """,
    wrong={
        "forgets to divide": "def as_general(w_query, w_key): return w_query @ w_key.T",
        "divides by the root of the wrong width": """
def as_general(w_query, w_key):
    return w_query @ w_key.T / np.sqrt(w_query.shape[0])
""",
        "exchanges query and key": """
def as_general(w_query, w_key):
    return w_key @ w_query.T / np.sqrt(w_query.shape[1])
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for d_model, d_k in [(3, 2), (6, 4), (5, 1)]:
        w_query, w_key = rng.standard_normal((2, d_model, d_k))
        unit = np.eye(d_model)  # entry (i, j) of W is the score of the i-th unit vector with the j-th
        wanted = [[float((x @ w_query) @ (y @ w_key)) / math.sqrt(d_k) for y in unit] for x in unit]
        answer(w_query, w_key).equals(np.array(wanted))


@exercise(
    "6.6",
    name="cosine_push",
    signature="(q, k)",
    statement="""
    The gradient of the cosine of two vectors ``q`` and ``k``, both of shape (d,), with respect to ``k``.
    """,
    wrong={
        "keeps the part along the key": """
def cosine_push(q, k):
    return q / (np.linalg.norm(q) * np.linalg.norm(k))
""",
        "forgets the length of the key": """
def cosine_push(q, k):
    a, b = q / np.linalg.norm(q), k / np.linalg.norm(k)
    return a - (a @ b) * b
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    def cosine(q: np.ndarray, k: np.ndarray) -> float:
        return float(q @ k) / math.sqrt(float(q @ q) * float(k @ k))

    for d in (2, 3, 5):
        q, k = rng.standard_normal((2, d))
        k *= 3.0
        step = 1e-5 * np.eye(d)
        wanted = [(cosine(q, k + h) - cosine(q, k - h)) / 2e-5 for h in step]
        answer(q, k).equals(np.array(wanted), tolerance=1e-5)


@exercise(
    "6.7",
    name="local_weights",
    signature="(scores, centre, window)",
    statement="""
    Local-p attention for one row of scores, shape (m,): a softmax over the places no further than ``window`` from the
    whole number nearest to ``centre``, times exp(-(s - centre)^2 / (2 sigma^2)) for place s, with sigma half of
    ``window``. The result is not divided again.
    """,
    wrong={
        "lets the row sum to one": """
def local_weights(scores, centre, window):
    place = np.arange(len(scores))
    seen = np.abs(place - np.round(centre)) <= window
    powers = np.where(seen, np.exp(scores - (place - centre) ** 2 / (2 * (window / 2) ** 2)), 0.0)
    return powers / powers.sum()
""",
        "sees the whole row before the Gaussian": """
def local_weights(scores, centre, window):
    place = np.arange(len(scores))
    powers = np.exp(scores - scores.max())
    return powers / powers.sum() * np.exp(-((place - centre) ** 2) / (2 * (window / 2) ** 2))
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for m, window in [(7, 2), (9, 1), (6, 4), (4, 3)]:
        scores, centre = 2 * rng.standard_normal(m), float(rng.integers(m)) + float(rng.uniform(-0.4, 0.4))
        nearest = min(range(m), key=lambda s: abs(s - centre))
        seen = [s for s in range(m) if abs(s - nearest) <= window]
        total = math.fsum(math.exp(scores[s]) for s in seen)
        wanted = np.zeros(m)
        for s in seen:
            wanted[s] = math.exp(scores[s]) / total * math.exp(-((s - centre) ** 2) / (2 * (window / 2) ** 2))
        answer(scores, centre, window).equals(wanted)
