"""Checkers for the exercises of chapter 1, self-attention."""

from __future__ import annotations

from itertools import combinations

import numpy as np

import attn_guide as ag

from . import Answer, exercise

__all__: list[str] = []


@exercise(
    "1.1",
    name="with_silent_word",
    signature="(scores)",
    statement="""
    The words of a sentence have the scores (n, n). A word whose features are all 0 is added at the end; the layer has
    no biases. Return the attention weights (n + 1, n + 1) of the longer sentence.
    """,
    wrong={
        "gives the silent word no weight": """
def with_silent_word(scores):
    longer = np.pad(scores, ((0, 1), (0, 1)), constant_values=-np.inf)
    longer[-1] = 0
    return ag.softmax(longer)
""",
        "lets the silent word attend to itself alone": """
def with_silent_word(scores):
    weights = ag.softmax(np.pad(scores, ((0, 1), (0, 1))))
    weights[-1] = np.eye(len(weights))[-1]
    return weights
""",
        "pads the weights, so that rows do not add up to one": """
def with_silent_word(scores): return np.pad(ag.softmax(scores), ((0, 1), (0, 1)))
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, d in [(1, 2), (3, 2), (4, 3)]:
        x = np.vstack([rng.standard_normal((n, d)), np.zeros(d)])
        w_q, w_k = rng.standard_normal((2, d, d))
        scores = ag.attention_scores(x @ w_q, x @ w_k)
        _, wanted = ag.self_attention(x, w_q, w_k, np.eye(d), return_weights=True)
        answer(scores[:n, :n]).equals(wanted)


@exercise(
    "1.2",
    name="sharpening",
    signature="(scores, weight)",
    statement="""
    Return the factor by which a query must be multiplied so that the largest of its scores gets the given weight, which
    is above 1 / len(scores). One score is larger than the others. Return None for a weight of 1, which no factor
    reaches.
    """,
    wrong={
        "returns a large factor where there is none": """
def sharpening(scores, weight):
    low, high = 0.0, 1e4
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if ag.softmax(c * np.asarray(scores)).max() < weight else (low, c)
    return c
""",
        "divides the weights": """
def sharpening(scores, weight): return weight / ag.softmax(scores).max() if weight < 1 else None
""",
        "returns the temperature": """
def sharpening(scores, weight):
    if weight >= 1:
        return None
    low, high = 1e-6, 1e6
    for _ in range(200):
        tau = np.sqrt(low * high)
        low, high = (tau, high) if ag.softmax(scores, temperature=tau).max() > weight else (low, tau)
    return tau
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    answer(np.array([-2.0, 4.0, 2.0]) / np.sqrt(2), 1.0).equals(None)
    for size, wanted in [(2, 0.9), (3, 0.99), (5, 0.999), (8, 0.999999)]:
        scores = rng.standard_normal(size)
        scores[rng.integers(size)] = scores.max() + 0.3
        given = answer(scores, wanted)
        c = given.number()
        rest = np.delete(scores, scores.argmax()) - scores.max()
        weight = 1 / (1 + np.exp(c * rest).sum())
        given.holds(
            abs(weight - wanted) < 1e-6 * (1 - wanted) + 1e-9,
            f"with this factor the weight is {weight:.6f}, not {wanted}",
        )


@exercise(
    "1.3",
    name="by_way_of",
    signature="(weights, reader, source)",
    statement="""
    Two layers have the same weights (n, n), and values are handed on unchanged. Return an array (n,): which part of
    what reader has of source after both layers came by way of token 0, of token 1, and so on. The parts add up to 1.
    """,
    wrong={
        "exchanges the reader and the source": """
def by_way_of(weights, reader, source):
    via = weights[source] * weights[:, reader]
    return via / via.sum()
""",
        "leaves the parts unnormalised": """
def by_way_of(weights, reader, source): return weights[reader] * weights[:, source]
""",
        "looks at the first step only": "def by_way_of(weights, reader, source): return weights[reader]",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n in (2, 3, 5):
        weights = rng.dirichlet(np.ones(n), size=n)
        reader, source = int(rng.integers(n)), int(rng.integers(n))
        if n > 2 and reader == source:
            source = (source + 1) % n
        parts = []
        for k in range(n):  # close the way through k, and see what is missing
            open_ways = weights.copy()
            open_ways[:, k] = 0
            parts.append(1 - (open_ways @ weights)[reader, source] / (weights @ weights)[reader, source])
        answer(weights, reader, source).equals(np.array(parts))


@exercise(
    "1.4",
    name="longest_sequence",
    signature="(memory, layers, heads, number_bytes)",
    statement="""
    Return the largest number of tokens, an integer, for which the attention weights of all heads of all layers fit into
    so many bytes of memory, if a number takes number_bytes.
    """,
    wrong={
        "counts one layer": """
def longest_sequence(memory, layers, heads, number_bytes): return int((memory / (heads * number_bytes)) ** 0.5)
""",
        "rounds to the nearest": """
def longest_sequence(memory, layers, heads, number_bytes):
    return round((memory / (layers * heads * number_bytes)) ** 0.5)
""",
        "lets the memory grow linearly": """
def longest_sequence(memory, layers, heads, number_bytes): return memory // (layers * heads * number_bytes)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for layers, heads, size in [(40, 40, 2), (1, 1, 4), *rng.integers(1, 13, size=(3, 3)).tolist()]:
        n = int(rng.integers(3, 5000))
        exact = sum(heads * n * n * size for _ in range(layers))
        following = sum(heads * (n + 1) * (n + 1) * size for _ in range(layers))
        for memory in (exact, following - 1):
            answer(memory, layers, heads, size).equals(n)


@exercise(
    "1.5",
    name="length_for_share",
    signature="(d_model, share)",
    statement="""
    Return the length at which the n x n part is this share of the multiply-adds of an attention layer with its four
    projections, each d_model wide. The share lies between 0 and 1.
    """,
    wrong={
        "takes the share as a ratio to the projections": """
def length_for_share(d_model, share): return 2 * d_model * share
""",
        "forgets the projection of the output": """
def length_for_share(d_model, share): return 1.5 * d_model * share / (1 - share)
""",
        "counts the scores, but not the sum of values": """
def length_for_share(d_model, share): return 4 * d_model * share / (1 - share)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for d, n in [(64, 128), (512, 9216), (32, 7), *rng.integers(8, 3000, size=(3, 2)).tolist()]:
        cost = ag.attention_flops(n, d)
        answer(d, cost.quadratic / cost.macs).equals(float(n))


@exercise(
    "1.6",
    name="steps_until",
    signature="(factor, share)",
    statement="""
    In its linear range, a recurrent layer has as its matrix a rotation times a factor below 1. Return the smallest
    number of steps, an integer, after which the norm of the gradient is at most this share of what it was.
    """,
    wrong={
        "lets the gradient fall linearly": """
def steps_until(factor, share): return int(np.ceil((1 - share) / (1 - factor)))
""",
        "rounds down": "def steps_until(factor, share): return int(np.log(share) / np.log(factor))",
        "takes the steps to the square of the share": """
def steps_until(factor, share): return int(np.ceil(2 * np.log(share) / np.log(factor)))
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    turn, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    for factor, share in [
        (0.95, 0.1),
        (0.5, 0.3),
        *zip(rng.uniform(0.3, 0.98, 4), rng.uniform(0.01, 0.9, 4), strict=True),
    ]:
        product, steps = np.eye(4), 0
        while np.linalg.norm(product) > share * np.linalg.norm(np.eye(4)):
            product, steps = product @ (factor * turn), steps + 1
        answer(float(factor), float(share)).equals(steps)


@exercise(
    "1.7",
    name="values_to_tell",
    signature="(m)",
    statement="""
    Return values (m, 2) for m keys such that from the mean of any two different ones it can be told which two they
    were.
    """,
    wrong={
        "puts them on a circle": """
def values_to_tell(m):
    angle = 2 * np.pi * np.arange(m) / m
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)
""",
        "puts them on a line, evenly": "def values_to_tell(m): return np.stack([np.arange(m), np.arange(m)], axis=1)",
        "makes all values equal": "def values_to_tell(m): return np.ones((m, 2))",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for m in (2, 3, 4, 6, 9):
        given = answer(m)
        values = given.array((m, 2))
        means = {(i, j): (values[i] + values[j]) / 2 for i, j in combinations(range(m), 2)}
        for one, other in combinations(means, 2):
            apart = np.abs(means[one] - means[other]).max() > 1e-9 * max(1.0, np.abs(values).max())
            given.holds(apart, f"values {one[0]} and {one[1]} have the same mean as {other[0]} and {other[1]}")
        given.holds(m > 2 or not np.array_equal(values[0], values[1]), "two values are equal")
