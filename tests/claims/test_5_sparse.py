"""Chapter 5, Sparse attention: every claim of the chapter, measured."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import sqrt

import numpy as np
import pytest

import attn_guide as ag
from attn_guide import core, flash

GiB = 2**30


@contextmanager
def scores_computed() -> Iterator[list[int]]:
    """Collect how many scores each block of the dense function and each tile of the others multiplies out."""
    sizes: list[int] = []

    def counting(function):
        def wrapped(*args, **options):
            scores = function(*args, **options)
            sizes.append(scores.size)
            return scores

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "_capped", counting(core._capped))
        patch.setattr(flash, "_capped_scores", counting(flash._capped_scores))
        yield sizes


def scores_of(run) -> int:
    """Return how many scores ``run()`` multiplies out."""
    with scores_computed() as sizes:
        run()
    return sum(sizes)


def relative_error(a: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest difference over the largest entry."""
    return float(np.abs(a.astype(np.float64) - truth).max() / np.abs(truth).max())


# ------------------------------------------------------------------------------------------------ the wall


@pytest.mark.claim("sparse-wall")
def test_bytes_of_the_weights_and_of_everything_else(claim):
    """Bytes of the weights of one head in half precision against those of queries, keys, values and output."""
    lengths = [1024, 8192, 65536, 131072, 1048576]
    table = [ag.attention_bytes(n, 128) for n in lengths]
    claim.check("bytes of the weights", [row.scores for row in table], expected=[2 * n * n for n in lengths])
    claim.check("bytes of the rest", [row.linear for row in table], expected=[2 * 4 * n * 128 for n in lengths])
    rng = claim.rng(0)
    q, k, v = rng.standard_normal((3, 1024, 128)).astype(np.float16)
    out, weights = ag.scaled_dot_product_attention(q, k, v, return_weights=True)
    claim.check("bytes of the weights of a run at 1024", weights.nbytes, expected=table[0].scores)
    claim.check("bytes of the rest of a run at 1024", sum(a.nbytes for a in (q, k, v, out)), expected=table[0].linear)
    claim.note(lengths=lengths, window=[2 * ag.sliding_window(256, 256).count(n) for n in lengths])


@pytest.mark.claim("sparse-long-is-feasible")
def test_a_hundred_thousand_tokens(claim):
    """131,072 keys: flash attention of 256 of the queries, and a window for all of them; peak memory of both."""
    rng = claim.rng(1)
    n, d = 131072, 16
    q, k, v = rng.standard_normal((3, n, d)).astype(np.float32)
    some = np.sort(rng.choice(n, 256, replace=False))
    ag.flash_attention(q[some], k, v)
    peak = ag.peak_memory(lambda: ag.flash_attention(q[some], k, v))
    weights = 4 * n * n
    claim.below("peak of exact attention to all keys, over the bytes of the weights of all", peak / weights, 0.01)
    window = ag.peak_memory(lambda: ag.sliding_window_attention(q, k, v, 256, 0))
    claim.below("peak of a window for all queries, over the same", window / weights, 0.01)
    exact = ag.scaled_dot_product_attention(*(x.astype(np.float64) for x in (q[some[:16]], k, v)))
    claim.below(
        "relative error of the exact rows",
        relative_error(ag.flash_attention(q[some[:16]], k, v), exact),
        1e-4,
        "single precision over 131,072 keys",
    )
    claim.note(n=n, weights=weights, exact_peak=peak, window_peak=window, linear=4 * n * 4 * d)


# ------------------------------------------------------------------------------------------------ patterns and counts


def in_plain_python(n: int, rule) -> int:
    """Count pairs one by one."""
    return sum(bool(rule(i, j)) for i in range(n) for j in range(n))


@pytest.mark.claim("sparse-zoo")
def test_predicates_against_plain_python(claim):
    """Pairs of eight patterns at n = 96, counted one by one in plain Python from their definitions in words."""
    n = 96
    table = ag.bigbird_random_blocks(12, 2, rng=claim.rng(2))
    random = ag.random_keys(5, n, rng=claim.rng(3))
    seen = random.materialize(n)
    cases = {
        "window": (ag.sliding_window(4, 4), lambda i, j: abs(i - j) <= 4),
        "dilated": (ag.dilated_window(4, 4, 3), lambda i, j: abs(i - j) <= 12 and (i - j) % 3 == 0),
        "strided": (ag.strided(8), lambda i, j: i % 8 == j % 8),
        "sparse transformer": (
            ag.sparse_transformer_strided(8),
            lambda i, j: j <= i and (i - j <= 8 or (i - j) % 8 == 0),
        ),
        "longformer": (ag.longformer(8, [0, 50]), lambda i, j: abs(i - j) <= 4 or i in (0, 50) or j in (0, 50)),
        "random": (random, lambda i, j: seen[i, j]),
        "block": (ag.block_local(8), lambda i, j: i // 8 == j // 8),
        "bigbird": (
            ag.bigbird(n, 8, random_blocks=table),
            lambda i, j: abs(i // 8 - j // 8) <= 1 or {i // 8, j // 8} & {0, 11} or j // 8 in table[i // 8],
        ),
    }
    counts = {name: mask.count(n) for name, (mask, _) in cases.items()}
    wanted = {name: in_plain_python(n, rule) for name, (_, rule) in cases.items()}
    claim.check("pairs of each pattern", list(counts.values()), expected=list(wanted.values()))
    claim.check("keys drawn for each query", np.unique(seen.sum(axis=1)), expected=[5])
    claim.note(n=n, pairs=counts, patterns=len(cases))


@pytest.mark.claim("sparse-window-pairs")
def test_pairs_of_a_window(claim):
    """Pairs of a symmetric window of w keys: n w less what the two ends lack."""
    for n, w in ((1024, 129), (64, 5), (4096, 513)):
        half = w // 2
        claim.check(
            f"pairs at n = {n}, w = {w}",
            ag.sliding_window(half, half).count(n),
            expected=n * w - half * (half + 1),
            why="each end lacks 1 + 2 + ... + w // 2",
        )
    claim.note(product=1024 * 129)
    conventions = {"sliding_window(2, 0)": (2, 0), "sliding_window(1, 1)": (1, 1), "sliding_window(2, 1)": (2, 1)}
    claim.note(keys={name: int(ag.sliding_window(*a).materialize(9)[4].sum()) for name, a in conventions.items()})


@pytest.mark.claim("sparse-growth-of-pairs")
def test_how_pairs_grow(claim):
    """Pairs of each pattern from 1,024 to 16,384 tokens, and the exponent: doubling the length multiplies them by."""
    lengths = [1024, 2048, 4096, 8192, 16384]
    patterns = {
        "all pairs": lambda n: ag.full,
        "causal": lambda n: ag.causal,
        "window of 257": lambda n: ag.sliding_window(128, 128),
        "window of a tenth": lambda n: ag.sliding_window(n // 20, n // 20),
        "stride 8": lambda n: ag.strided(8),
        "stride of the root": lambda n: ag.sparse_transformer_strided(round(sqrt(n))),
        "longformer": lambda n: ag.longformer(256, [0]),
    }
    pairs = {name: [make(n).count(n) for n in lengths] for name, make in patterns.items()}
    slope = {name: ag.fit_exponent(lengths, count).exponent for name, count in pairs.items()}
    claim.check("stride 8", slope["stride 8"], expected=2.0, tolerance=1e-6, why="n^2 / 8")
    claim.check("window of a tenth", slope["window of a tenth"], expected=2.0, tolerance=0.02, why="w grows with n")
    claim.check("window of 257", slope["window of 257"], expected=1.0, tolerance=0.05, why="n w, less the ends")
    claim.check("longformer", slope["longformer"], expected=1.0, tolerance=0.05, why="n (w + 2g), less the ends")
    claim.check("stride of the root", slope["stride of the root"], expected=1.5, tolerance=0.05, why="n sqrt(n)")
    claim.check("all pairs", slope["all pairs"], expected=2.0, tolerance=1e-6)
    claim.note(lengths=lengths, pairs=pairs, slope=slope)


# ------------------------------------------------------------------------------------------------ receptive field


def powers(mask: np.ndarray, layers: int) -> np.ndarray:
    """Return which inputs reach which outputs through ``layers`` layers: matrix powers in exact integers."""
    return np.linalg.matrix_power((mask | np.eye(len(mask), dtype=bool)).astype(object), layers) > 0


@pytest.mark.claim("sparse-receptive-field")
def test_receptive_field_of_windows(claim):
    """Windows of 3, 5 and 9 keys, 1 to 6 layers: receptive field, matrix powers, and real attention layers."""
    rng = claim.rng(4)
    n = 60
    for w in (3, 5, 9):
        mask = ag.sliding_window(w // 2, w // 2)
        middle = [int(ag.receptive_field(mask, n, layers)[n // 2]) for layers in range(1, 7)]
        claim.check(f"tokens that reach the middle, w = {w}", middle, expected=[L * (w - 1) + 1 for L in range(1, 7)])
        by_power = [int(powers(mask.materialize(n), layers)[n // 2].sum()) for layers in (1, 2, 4)]
        claim.check(
            f"the same by integer powers of the mask, w = {w}, 1, 2 and 4 layers",
            by_power,
            expected=[L * (w - 1) + 1 for L in (1, 2, 4)],
        )
    x = rng.standard_normal((n, 8))
    weights = [ag.init_multi_head(8, 2, rng=rng) for _ in range(4)]

    def run(tokens):
        for params in weights:
            tokens = tokens + ag.multi_head_attention(tokens, tokens, tokens, params, mask_mod=ag.sliding_window(1, 1))
        return tokens[n // 2]

    moved = []
    for j in range(n):
        other = x.copy()
        other[j] = rng.standard_normal(8)
        moved.append(bool((run(other) != run(x)).any()))
    claim.check("tokens that move the middle output of four attention layers, w = 3", sum(moved), expected=9)
    claim.check("Mistral 7B", 32 * (4096 - 1) + 1, expected=131041)
    claim.note(
        product=32 * 4096, three=[int(ag.receptive_field(ag.sliding_window(1, 1), n, L)[30]) for L in (1, 2, 3, 4)]
    )


@pytest.mark.claim("sparse-dilated-reach")
def test_dilation_reaches_further_and_misses_neighbours(claim):
    """A dilated window of 3 keys in every layer: components; the same with a growing dilation from layer to layer."""
    n = 96
    for dilation in (2, 3, 4):
        mask = ag.dilated_window(1, 1, dilation)
        parts = len(set(ag.connected_components(mask, n).tolist()))
        claim.check(f"components with dilation {dilation} everywhere", parts, expected=dilation)
        claim.check(
            f"furthest distance after three layers, dilation {dilation}",
            int(np.flatnonzero(ag.reachability(mask, n, 3)[n // 2]).max()) - n // 2,
            expected=3 * dilation,
        )
    reached = np.eye(n, dtype=bool)
    growing = []
    for layer in range(4):
        step = ag.dilated_window(1, 1, 3**layer).materialize(n)
        reached = (step.astype(int) @ reached.astype(int)) > 0
        growing.append(int(reached[n // 2].sum()))
    claim.check("tokens reached with dilations 1, 3, 9 and 27", growing, expected=[3, 9, 27, 81], why="3 to the layers")
    plain = [
        int(a) for a in (ag.receptive_field(ag.sliding_window(1, 1), n, layers)[n // 2] for layers in (1, 2, 3, 4))
    ]
    claim.check("tokens reached with a plain window", plain, expected=[3, 5, 7, 9])
    mixed = ag.dilated_window(1, 1, 2) | ag.sliding_window(1, 1)
    claim.check(
        "components if some heads are dilated and some are not",
        len(set(ag.connected_components(mixed, n).tolist())),
        expected=1,
    )
    inner = slice(20, 76)
    claim.check(
        "keys of a query, dilated and plain",
        [int(m.materialize(n)[inner].sum(axis=1).max()) for m in (ag.dilated_window(4, 4, 2), ag.sliding_window(4, 4))],
        expected=[9, 9],
    )


@pytest.mark.claim("sparse-strided-components")
def test_strided_positions_never_meet(claim):
    """Strides of 2 and 8 at n = 64: components, pairs reached at any depth, and what a window beside it changes."""
    n = 64
    for stride in (2, 8):
        mask = ag.strided(stride)
        claim.check(
            f"components, stride {stride}", len(set(ag.connected_components(mask, n).tolist())), expected=stride
        )
        deep = ag.reachability(mask, n, 100)
        claim.check(f"share of pairs that ever meet, stride {stride}", deep.mean(), expected=1 / stride)
    claim.require(
        "after 100 layers no more than after 1",
        (ag.reachability(ag.strided(8), n, 100) == ag.strided(8).materialize(n)).all(),
    )
    for name, mask in (("strided", ag.sparse_transformer_strided(8)), ("fixed", ag.sparse_transformer_fixed(8, 1))):
        claim.require(
            f"sparse transformer, {name}: the whole past in two layers",
            (ag.reachability(mask, n, 2) == ag.causal.materialize(n)).all(),
        )
        claim.require(
            f"sparse transformer, {name}: not in one", (mask.materialize(n) != ag.causal.materialize(n)).any()
        )
    claim.note(n=n)


@pytest.mark.claim("sparse-star")
def test_a_global_token_connects_everything_in_two_layers(claim):
    """One global token at n = 200, with and without a window beside it, and sinks: longest path, unreachable pairs."""
    n = 200
    for name, mask in (
        ("global token alone", ag.global_tokens([7])),
        ("longformer", ag.longformer(8, [0])),
        ("bigbird", ag.bigbird(n, 8, rng=claim.rng(5))),
    ):
        found = ag.path_lengths(mask, n)
        claim.check(f"layers for any pair, {name}", found.longest, expected=2)
        claim.check(f"share of pairs with no path, {name}", found.unreachable, expected=0.0)
    window = ag.path_lengths(ag.sliding_window(4, 4), n)
    claim.check("layers for any pair, window of 9", window.longest, expected=math.ceil((n - 1) / 4))
    claim.note(n=n)


# ------------------------------------------------------------------------------------------------ random graphs


def never_reached(r: float) -> float:
    """Solve x = exp(-r (1 - x)): the share of tokens from which a branching process of mean r dies out."""
    x = 0.0
    for _ in range(1000):
        x = math.exp(-r * (1 - x))
    return x


@pytest.mark.claim("sparse-random-unreachable")
def test_directed_random_keys_leave_pairs_apart(claim):
    """n = 512, 1 to 6 keys drawn for each query, 5 seeds: ordered pairs with no path at any depth."""
    n, seeds = 512, 5
    rs = [1, 2, 3, 4, 6]
    shares = {}
    for r in rs:
        shares[r] = [
            ag.path_lengths(ag.random_keys(r, n, rng=claim.rng(100 * r + s)), n).unreachable for s in range(seeds)
        ]
        if r > 1:
            claim.check(
                f"unreachable pairs, {r} keys",
                np.mean(shares[r]),
                expected=never_reached(r),
                tolerance=0.02,
                why="the branching process is for infinite n, and 5 graphs scatter",
            )
    claim.above(
        "unreachable pairs, 1 key", np.mean(shares[1]), 0.9, "paths of a random map are short: sqrt(pi n / 8) or so"
    )
    whole = [
        ag.path_lengths(ag.random_keys(3, n, rng=claim.rng(900 + s), symmetric=True), n).unreachable
        for s in range(seeds)
    ]
    claim.check("unreachable pairs, 3 keys, symmetric", whole, expected=[0.0] * seeds)
    star = ag.path_lengths(ag.random_keys(1, n, rng=claim.rng(950)) | ag.global_tokens([0]), n)
    claim.check("unreachable pairs, 1 key and a global token", star.unreachable, expected=0.0)
    claim.note(
        n=n,
        r=rs,
        mean=[float(np.mean(shares[r])) for r in rs],
        spread=[float(np.std(shares[r], ddof=1)) for r in rs],
        theory=[never_reached(r) for r in rs],
        never_seen=[math.exp(-r) for r in rs],
    )


@pytest.mark.claim("sparse-random-paths")
def test_random_keys_shorten_paths_to_the_logarithm(claim):
    """3 symmetric random keys for each query, 5 seeds, n = 64 ... 2048: mean path, beside a window of 7 keys."""
    lengths = [64, 128, 256, 512, 1024, 2048]
    mean = [
        float(
            np.mean(
                [ag.path_lengths(ag.random_keys(3, n, rng=claim.rng(n + s), symmetric=True), n).mean for s in range(5)]
            )
        )
        for n in lengths
    ]
    steps = np.diff(mean)
    claim.note(lengths=lengths, mean=mean, per_doubling=float(steps.mean()))
    claim.below("spread of what a doubling of n adds", steps.max() - steps.min(), 0.1, "a straight line in log n")
    theory = math.log(2) / math.log(5)  # ends of an edge see 5 new ones: 6 edges each, one of them back
    claim.check(
        "added by a doubling", steps.mean(), expected=theory, tolerance=0.08, why="log 2 / log 5, roughly regular"
    )
    short = [64, 128, 256, 512]
    window = [ag.path_lengths(ag.sliding_window(3, 3), n).mean for n in short]
    both = [ag.path_lengths(ag.sliding_window(3, 3) | ag.random_keys(1, n, rng=claim.rng(n)), n).mean for n in short]
    claim.check(
        "window: exponent of the mean path",
        ag.fit_exponent(short, window).exponent,
        expected=1.0,
        tolerance=0.06,
        why="n / 9 and a half",
    )
    claim.below("window and one random key at 512, over the window alone", both[-1] / window[-1], 0.15)
    claim.note(short=short, window=window, both=both)


# ------------------------------------------------------------------------------------------------ blocks


@pytest.mark.claim("sparse-block-cost")
def test_cost_of_blocks(claim):
    """n = 1024, blocks of 64, each seeing its own and 3 others: scores that the kernel multiplies out, and the rule."""
    rng = claim.rng(6)
    n, b, s = 1024, 64, 3
    blocks = n // b
    table = np.eye(blocks, dtype=bool)
    for i in range(blocks):
        table[i, rng.choice([j for j in range(blocks) if j != i], s, replace=False)] = True
    q, k, v = rng.standard_normal((3, n, 16))
    out = ag.block_sparse_attention(q, k, v, table, b)
    computed = scores_of(lambda: ag.block_sparse_attention(q, k, v, table, b))
    claim.check("scores computed", computed, expected=n * (1 + s) * b)
    mask = ag.blockwise(ag.from_array(table), b)
    claim.check("pairs of the pattern", mask.count(n), expected=computed)
    dense = ag.scaled_dot_product_attention(q, k, v, mask_mod=mask)
    claim.below("difference from masked dense attention", np.abs(out - dense).max(), 1e-12, "rounding")
    claim.note(printed=n * b + n * s, n=n, b=b, s=s)


@pytest.mark.claim("sparse-block-waste")
def test_a_pattern_is_paid_for_in_whole_blocks(claim):
    """As many pairs in whole blocks, in a window and at random: tiles of 64 by 64 that hold any of them, n = 4096."""
    n, b = 4096, 64
    keys = 192
    patterns = {
        "whole blocks": ag.blockwise(ag.sliding_window(1, 1), b),
        "window": ag.sliding_window(keys // 2, keys // 2 - 1),
        "stride": ag.strided(n // keys),
        "random": ag.random_keys(keys, n, rng=claim.rng(7)),
    }
    used = {}
    for name, mask in patterns.items():
        cells = mask.materialize(n).reshape(n // b, b, n // b, b)
        touched = cells.any(axis=(1, 3)).sum() * b * b
        used[name] = float(cells.sum() / touched)
    claim.check("share of touched tiles that is used, whole blocks", used["whole blocks"], expected=1.0)
    claim.check(
        "share of touched tiles that is used, window",
        used["window"],
        expected=0.6,
        tolerance=0.02,
        why="192 keys around 64 neighbours lie in five tiles of 64",
    )
    claim.check(
        "share of touched tiles that is used, random",
        used["random"],
        expected=keys / n,
        tolerance=1e-3,
        why="every tile holds a pair",
    )
    claim.note(used=used, n=n, b=b, keys=keys)


# ------------------------------------------------------------------------------------------------ a long document


@cache
def manual() -> list[str]:
    """Return the words of the reference manual that comes with Python, in lower case."""
    from pydoc_data.topics import topics

    return re.findall(r"[a-z_]+", " ".join(topics[name] for name in sorted(topics)).lower())


def vectors(words: list[str], width: int, rng: np.random.Generator) -> np.ndarray:
    """Give every word a random vector of its own; return those of the text, (n, width)."""
    kinds = sorted(set(words))
    table = dict(zip(kinds, rng.standard_normal((len(kinds), width)), strict=True))
    return np.array([table[word] for word in words])


def document(rng: np.random.Generator, asked: str, count: int | None = None, width: int = 64):
    """Return words with a question at the front, and local and global projections of their vectors.

    The global query is twice the word's own vector, the global key and value are the vector: it looks for the word it
    stands for. The local projections are random.
    """
    words = [asked, *manual()][:count]
    x = vectors(words, width, rng)
    w_q, w_k, w_v = rng.standard_normal((3, width, width)) / sqrt(width)
    return words, (x @ w_q, x @ w_k, x @ w_v), (2 * x, x, x)


@pytest.mark.claim("sparse-longformer-equal")
def test_longformer_equals_masked_dense_attention(claim):
    """The first 4,096 words of the manual, window 256, 2 global tokens, with and without projections of their own."""
    rng = claim.rng(8)
    words, (q, k, v), (gq, gk, gv) = document(rng, "lambda", 4096)
    chosen = [0, 1000]
    mask = ag.longformer(256, chosen)
    dense = ag.scaled_dot_product_attention(q, k, v, mask_mod=mask)
    out = ag.longformer_attention(q, k, v, 256, chosen)
    claim.below("largest difference, one set of projections", np.abs(out - dense).max(), 1e-12, "rounding")
    own = ag.longformer_attention(q, k, v, 256, chosen, global_query=gq, global_key=gk, global_value=gv)
    rows = ag.scaled_dot_product_attention(gq[chosen], gk, gv)
    claim.below(
        "largest difference of the global rows, projections of their own",
        np.abs(own[chosen] - rows).max(),
        1e-12,
        "rounding",
    )
    others = np.setdiff1d(np.arange(len(words)), chosen)
    claim.check("change of all other rows by them", np.abs(own[others] - out[others]).max(), expected=0.0)
    claim.above("change of the global rows by them", np.abs(own[chosen] - out[chosen]).max(), 0.1)
    computed = scores_of(lambda: ag.longformer_attention(q, k, v, 256, chosen))
    claim.note(n=len(words), pairs=mask.count(len(words)), computed=computed, dense_pairs=len(words) ** 2)
    claim.below("scores computed over all pairs", computed / len(words) ** 2, 0.2)


@pytest.mark.claim("sparse-document")
def test_the_whole_manual_in_one_pass(claim):
    """All words of the manual with a question in front: where the global token's weight goes; memory; scores."""
    rng = claim.rng(9)
    asked = "lambda"
    words, local, own = document(rng, asked)
    n = len(words)
    local, own = ([a.astype(np.float32) for a in three] for three in (local, own))
    options = dict(zip(("global_query", "global_key", "global_value"), own, strict=True))

    def run():
        return ag.longformer_attention(*local, 128, [0], **options)

    out = run()
    peak = ag.peak_memory(run)
    weights = ag.softmax(own[0][0].astype(float) @ own[1].astype(float).T / 8)  # (n,), the row of the global token
    places = np.array([i for i, word in enumerate(words) if word == asked])
    without = ag.softmax(local[0][0].astype(float) @ local[1].astype(float).T / 8)
    claim.above("weight of the global token on the word asked for", weights[places].sum(), 0.95)
    claim.below("the same with the local projections", without[places].sum(), 0.05)
    expected = weights @ own[2].astype(float)
    claim.below("error of the global row", np.abs(out[0] - expected).max(), 1e-4, "single precision")
    claim.note(
        n=n,
        asked=asked,
        places=len(places) - 1,
        furthest=int(places[-1]),
        within=int((places <= 64).sum()) - 1,
        kinds=len(set(words)),
    )
    claim.below("peak memory over the bytes of the weights", peak / (4 * n * n), 0.02)
    computed = scores_of(run)
    claim.below("scores computed over all pairs", computed / n**2, 0.01)
    claim.note(
        peak=peak, weights=4 * n * n, computed=computed, pairs=n * n, inputs=sum(a.nbytes for a in (*local, *own))
    )


@pytest.mark.claim("sparse-bigbird-equal")
def test_bigbird_equals_masked_dense_attention(claim):
    """The first 4,096 words, blocks of 64, window 3, 2 global, 3 random: against dense attention under ag.bigbird."""
    rng = claim.rng(10)
    _, (q, k, v), _ = document(rng, "lambda", 4096)
    out = ag.bigbird_attention(q, k, v, 64, rng=claim.rng(11))
    mask = ag.bigbird(4096, 64, rng=claim.rng(12))
    other = ag.scaled_dot_product_attention(q, k, v, mask_mod=mask)
    table = ag.bigbird_random_blocks(64, 3, rng=np.random.default_rng(11))
    same = ag.scaled_dot_product_attention(q, k, v, mask_mod=ag.bigbird(4096, 64, random_blocks=table))
    claim.below("largest difference under the same drawing", np.abs(out - same).max(), 1e-12, "rounding")
    claim.above("largest difference under another drawing", np.abs(out - other).max(), 0.01)
    computed = scores_of(lambda: ag.bigbird_attention(q, k, v, 64, random_blocks=table))
    claim.check("scores computed less pairs of the pattern", computed - mask.count(4096), expected=0)
    claim.note(
        pairs=mask.count(4096),
        density=mask.density(4096),
        blocks_of_a_row=int(mask.materialize(4096)[2000].sum() // 64),
    )


# ------------------------------------------------------------------------------------------------ growth


def example(n: int, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, n, width)).astype(np.float32)


#: How each is run, at which lengths, and how its peak memory should grow.
GROWTH = {
    "dense, weights kept": (
        lambda q, k, v: ag.scaled_dot_product_attention(q, k, v, return_weights=True),
        (1024, 2048, 4096),
        2.0,
    ),
    "flash": (lambda q, k, v: ag.flash_attention(q, k, v), (3072, 6144, 12288), 1.0),
    "window": (lambda q, k, v: ag.sliding_window_attention(q, k, v, 64, 64), (8192, 16384, 32768), 1.0),
    "longformer": (lambda q, k, v: ag.longformer_attention(q, k, v, 128, [0, 1]), (8192, 16384, 32768), 1.0),
    "bigbird": (
        lambda q, k, v: ag.bigbird_attention(q, k, v, 64, rng=np.random.default_rng(0)),
        (8192, 16384, 32768),
        1.0,
    ),
    "linear": (lambda q, k, v: ag.linear_attention(q, k, v), (8192, 16384, 32768), 1.0),
}


def seconds_and_peaks(name: str) -> tuple[list[float], list[int]]:
    """Return seconds of processor time, the better of two after one to warm up, and bytes at the highest point."""
    run, lengths, _ = GROWTH[name]
    seconds, peaks = [], []
    for n in lengths:
        tensors, taken = example(n), []
        for _ in range(3):
            start = time.process_time()
            run(*tensors)
            taken.append(time.process_time() - start)
        seconds.append(min(taken[1:]))
        peaks.append(ag.peak_memory(lambda tensors=tensors: run(*tensors)))
    return seconds, peaks


@pytest.mark.claim("sparse-growth")
def test_how_memory_and_time_grow(claim):
    """Peak memory, judged, and processor time, recorded, at three lengths each, in a process of one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    ran = subprocess.run(
        [sys.executable, __file__], env={**os.environ, **one}, capture_output=True, text=True, check=True
    )
    for name, (seconds, peaks) in json.loads(ran.stdout).items():
        _, lengths, wanted = GROWTH[name]
        claim.check(
            f"{name}: memory",
            ag.fit_exponent(lengths, peaks).exponent,
            expected=wanted,
            tolerance=0.3,
            why="buffers of a fixed size flatten the fit",
        )
        fit = ag.fit_exponent(lengths, seconds)
        claim.note(
            **{
                f"{name}: time": fit.exponent,
                f"{name}: time error": fit.standard_error,
                f"{name}: lengths": list(lengths),
                f"{name}: MiB": peaks[-1] / 2**20,
                f"{name}: ms": 1e3 * seconds[-1],
            }
        )


@pytest.mark.claim("sparse-looks")
def test_what_is_computed_and_what_only_looks_sparse(claim):
    """Scores multiplied out for one window of 129 keys, by three functions, 1,024 to 8,192 tokens."""
    lengths = [1024, 2048, 4096, 8192]
    mask = ag.sliding_window(64, 64)
    found: dict[str, list[int]] = {"dense and a mask": [], "flash and a mask": [], "window": []}
    differ = 0.0
    for n in lengths:
        q, k, v = example(n, 8)
        ways = {
            "dense and a mask": lambda q=q, k=k, v=v: ag.scaled_dot_product_attention(q, k, v, mask_mod=mask),
            "flash and a mask": lambda q=q, k=k, v=v: ag.flash_attention(
                q, k, v, mask_mod=mask, block_q=128, block_k=128
            ),
            "window": lambda q=q, k=k, v=v: ag.sliding_window_attention(q, k, v, 64, 64),
        }
        for name, way in ways.items():
            found[name].append(scores_of(way))
        outs = [way() for way in ways.values()]
        differ = max(differ, *(float(np.abs(a - outs[0]).max()) for a in outs[1:]))
    claim.below("largest difference of the three results", differ, 1e-4, "single precision")
    claim.check("dense and a mask", found["dense and a mask"], expected=[n * n for n in lengths])
    claim.below(
        "window, over the pairs of the pattern",
        [a / mask.count(n) for a, n in zip(found["window"], lengths, strict=True)],
        2.6,
    )
    claim.below("flash and a mask at 8192, over all pairs", found["flash and a mask"][-1] / 8192**2, 0.2)
    slopes = {name: ag.fit_exponent(lengths, counts).exponent for name, counts in found.items()}
    claim.check("exponent, window", slopes["window"], expected=1.0, tolerance=0.05, why="the ends")
    claim.check("exponent, flash and a mask", slopes["flash and a mask"], expected=1.0, tolerance=0.1, why="the ends")
    claim.check("exponent, dense and a mask", slopes["dense and a mask"], expected=2.0, tolerance=1e-9)
    claim.note(lengths=lengths, computed=found, pairs=[mask.count(n) for n in lengths])


# ------------------------------------------------------------------------------------------------ causal


@pytest.mark.claim("sparse-causal")
def test_sparse_patterns_met_with_causal(claim):
    """Patterns met with ag.causal at n = 64: future pairs, what a global token becomes, reach; kernels."""
    n = 64
    rng = claim.rng(13)
    future = np.triu(np.ones((n, n), bool), 1)
    patterns = {
        "window": ag.sliding_window(4, 4),
        "longformer": ag.longformer(8, [0]),
        "bigbird": ag.bigbird(n, 4, rng=rng),
        "strided": ag.strided(8),
        "random": ag.random_keys(3, n, rng=rng),
    }
    met = [int((mask & ag.causal).materialize(n)[future].sum()) for mask in patterns.values()]
    claim.check("future pairs of each pattern met with causal", met, expected=[0] * len(met))
    claim.require(
        "a global token met with causal is a sink",
        (
            (ag.longformer(8, [0]) & ag.causal).materialize(n)
            == (ag.sinks(1) | ag.causal & ag.sliding_window(4, 0)).materialize(n)
        ).all(),
    )
    reach = [int(ag.receptive_field(ag.causal & ag.sliding_window(4, 0), n, layers)[-1]) for layers in (1, 2, 3, 4)]
    claim.check("tokens that reach the last, causal window of 5", reach, expected=[L * 4 + 1 for L in (1, 2, 3, 4)])
    q, k, v = rng.standard_normal((3, 500, 16))
    window = ag.sliding_window_attention(q, k, v, 40, 0)
    dense = ag.scaled_dot_product_attention(q, k, v, mask_mod=ag.causal & ag.sliding_window(40, 40))
    claim.below("causal window: difference from masked dense", np.abs(window - dense).max(), 1e-12, "rounding")
    blocks = ag.block_sparse_attention(q, k, v, ag.sliding_window(2, 0), 32, is_causal=True)
    dense = ag.scaled_dot_product_attention(q, k, v, mask_mod=ag.causal & ag.blockwise(ag.sliding_window(2, 0), 32))
    claim.below("causal blocks: difference from masked dense", np.abs(blocks - dense).max(), 1e-12, "rounding")
    late = ag.path_lengths(ag.causal & ag.longformer(8, [0]), n)
    claim.check(
        "layers for any pair of past and present, longformer met with causal",
        late.longest,
        expected=math.ceil((n - 2) / 4),
        why="a sink gathers nothing, so paths go through windows",
    )


# ------------------------------------------------------------------------------------------------ a trained model


def held_out(experiment, length: int, count: int):
    """Return windows (count, length + 1) of the text that the training left out: every tenth piece of 2,000."""
    import torch

    from attn_guide.models.gpt import corpus

    text = corpus()
    pieces = [text[i : i + 2000] for i in range(0, len(text) - 1999, 2000)][9::10]
    windows = [p[i : i + length + 1] for p in pieces for i in range(0, len(p) - length, length + 1)]
    return torch.stack([experiment.encode(window) for window in windows[:count]])


def read_with(model, rows, weigh):
    """Return the loss of each position when the trained model reads with weights of its own: ``weigh(q, k)``."""
    import torch

    from attn_guide.models import rope

    with torch.no_grad():
        x = model.embedding(rows[:, :-1]) * model.embedding.weight.shape[1] ** 0.5
        for block in model.blocks:
            layer, normed = block.self_attention, block.self_norm(x)
            k, v = layer.keys_values(normed)
            found = weigh(rope(layer.split(layer.w_query(normed))), k) @ v
            x = x + layer.w_output(found.transpose(1, 2).flatten(-2))
            x = x + block.feed(x)
        loss = torch.nn.functional.cross_entropy(model.output(model.norm(x)).mT, rows[:, 1:], reduction="none")
    return loss.numpy().astype(float)


def softmax_under(mask: np.ndarray):
    """Return the softmax of scaled dot products under a mask, for ``read_with``."""
    import torch

    allowed = torch.from_numpy(mask)
    return lambda q, k: (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~allowed, -torch.inf).softmax(dim=-1)


@pytest.mark.claim("sparse-mass")
def test_attention_mass_in_a_window(claim):
    """The trained decoder on held-out text: weight on the last w keys and the loss with that window."""
    pytest.importorskip("torch")
    from attn_guide import models

    trained = models.load("gpt")
    n = models.recipe("gpt").settings["length"]
    rows = held_out(trained.experiment, n, 60)
    import torch

    with torch.no_grad():
        weights = trained.model(rows[:, :-1])[2].double().numpy()  # (texts, layers, heads, n, n)
    windows = [1, 2, 4, 8, 16, 32, 64]
    late = slice(63, None)
    inside = {w: (ag.causal & ag.sliding_window(w - 1, 0)).materialize(n) for w in windows}
    mass = np.array(
        [(weights * inside[w]).sum(axis=-1)[..., late].mean(axis=(0, 3)) for w in windows]
    )  # (w, layers, heads)
    even = [float((w / np.arange(1, n + 1))[late].mean()) for w in windows]
    per_layer = mass.mean(axis=2)
    claim.require(
        "more is kept than an even share, in every layer and window", (per_layer > np.array(even)[:, None]).all()
    )
    claim.note(
        windows=windows,
        n=n,
        texts=len(rows),
        even=even,
        layers=per_layer,
        lowest=mass.min(axis=(1, 2)),
        highest=mass.max(axis=(1, 2)),
        mean=mass.mean(axis=(1, 2)),
    )
    causal = read_with(trained.model, rows, softmax_under(ag.causal.materialize(n)))
    plain = torch.nn.functional.cross_entropy(trained.model(rows[:, :-1])[0].mT, rows[:, 1:], reduction="none")
    claim.below(
        "difference of the losses read here from those of the model",
        np.abs(causal - plain.detach().numpy()).max(),
        1e-3,
        "single precision",
    )
    loss = [read_with(trained.model, rows, softmax_under(inside[w]))[:, late].mean(axis=1) for w in windows]
    whole = causal[:, late].mean(axis=1)
    claim.note(
        loss=[float(a.mean()) for a in loss],
        whole=float(whole.mean()),
        error=float((loss[4] - whole).std(ddof=1) / sqrt(len(rows))),
    )
    claim.above("loss with the last key alone, less that with all", loss[0].mean() - whole.mean(), 0.5)


@pytest.mark.claim("sparse-distance")
def test_what_a_window_cannot_answer(claim):
    """The trained Longformer, with and without its global token: right answers by distance, 200 each."""
    pytest.importorskip("torch")
    from attn_guide import models

    settings = models.recipe("longformer").settings
    reach = settings["layers"] * settings["window"] // 2
    places = [1, 2, 4, 8, 9, 16, 32, 63]
    found = {name: models.load(name).experiment.accuracy_by_distance(places) for name in ("longformer", "window-only")}
    near = np.array(places) <= reach
    chance = 1 / settings["digits"]
    error = sqrt(chance * (1 - chance) / (200 * (~near).sum()))
    claim.above("longformer, right at any distance", found["longformer"].min(), 0.9)
    claim.check(
        "window alone, right beyond its reach",
        found["window-only"][~near].mean(),
        expected=chance,
        tolerance=4 * error,
        why="four standard errors of guessing",
    )
    claim.above("window alone, right within its reach", found["window-only"][near].mean(), 2 * chance)
    claim.note(
        places=places,
        reach=reach,
        chance=chance,
        longformer=found["longformer"],
        window_only=found["window-only"],
        settings={name: settings[name] for name in ("layers", "window", "length", "steps")},
    )


@pytest.mark.claim("sparse-quality")
def test_what_each_pattern_can_answer(claim):
    """Eight models that differ in their pattern, the same task: right answers at places within reach and beyond it."""
    pytest.importorskip("torch")
    from attn_guide import models

    names = ["dense", "global", "bigbird", "strided-window", "random", "dilated", "strided", "window"]
    settings = models.recipe("far-dense").settings
    chance = 1 / settings["digits"]
    within, beyond, reach, keys = {}, {}, {}, {}
    for name in names:
        trained = models.load(f"far-{name}")
        near = trained.experiment.within_reach()[1:]  # of the places where the answer can stand
        within[name], reach[name] = trained.results["within"], int(near.sum())
        keys[name] = int(np.median(trained.experiment.patterns[1].materialize(settings["length"]).sum(axis=1)))
        if not near.all():
            beyond[name] = trained.results["beyond"]
            error = sqrt(chance * (1 - chance) / (1000 * (~near).mean()))
            claim.check(
                f"right beyond reach, {name}",
                beyond[name],
                expected=chance,
                tolerance=4 * error,
                why="four standard errors of guessing, in some 1,000 sequences",
            )
        claim.above(f"right within reach, {name}", within[name], 1.5 * chance)
    for name in ("dense", "global", "bigbird"):
        claim.check(f"places within reach, {name}", reach[name], expected=settings["length"] - 1)
    claim.note(names=names, within=within, beyond=beyond, reach=reach, keys=keys, chance=chance)
    claim.note(places=settings["length"] - 1, steps=settings["steps"])


# ------------------------------------------------------------------------------------------------ linear attention


@pytest.mark.claim("sparse-linear-forms")
def test_three_forms_of_linear_attention_agree(claim):
    """200 positions, 2 heads, causal: parallel, recurrent and in chunks of 1, 7, 64 and 500; and in plain Python."""
    rng = claim.rng(14)
    q, k, v = rng.standard_normal((3, 2, 200, 8))
    parallel = ag.linear_attention(q, k, v, is_causal=True)
    off = [np.abs(ag.linear_attention(q, k, v, is_causal=True, form="recurrent") - parallel).max()]
    off += [
        np.abs(ag.linear_attention(q, k, v, is_causal=True, form="chunked", chunk_size=c) - parallel).max()
        for c in (1, 7, 64, 500)
    ]
    claim.below("largest difference of the forms", max(off), 1e-11, "rounding")
    # one head in plain Python, counting multiplications
    n, d = 12, 4
    phi = lambda x: [a + 1 if a > 0 else math.exp(a) for a in x]  # noqa: E731
    q, k, v = (a[0, :n, :d].tolist() for a in (q, k, v))
    state, norm, products, rows = [[0.0] * d for _ in range(d)], [0.0] * d, 0, []
    for t in range(n):
        f, g = phi(k[t]), phi(q[t])
        for a in range(d):
            norm[a] += f[a]
            for c in range(d):
                state[a][c] += f[a] * v[t][c]
                products += 1
        total = sum(g[a] * norm[a] for a in range(d))
        rows.append([sum(g[a] * state[a][c] for a in range(d)) / total for c in range(d)])
        products += d * d + d
    here = ag.linear_attention(*(np.array(a) for a in (q, k, v)), is_causal=True, form="recurrent")
    claim.check("outputs in plain Python", rows, expected=here, tolerance=1e-12, why="rounding")
    claim.check("multiplications for each token, width 4", products / n, expected=2 * d * d + d)


@pytest.mark.claim("sparse-linear-cost")
def test_cost_of_linear_attention(claim):
    """Multiply-adds of linear and of softmax attention; numbers kept for the next token."""
    d = 64
    lengths = [16, 64, 1024, 16384]
    linear = [2 * n * d * d for n in lengths]
    dense = [ag.attention_flops(n, d).quadratic for n in lengths]
    claim.check(
        "dense over linear", [a / b for a, b in zip(dense, linear, strict=True)], expected=[n / d for n in lengths]
    )
    _, state = ag.delta_rule_attention(*np.ones((3, 50, d)), np.ones(50), return_state=True)
    claim.check("numbers in the state", state.size, expected=d * d)
    claim.check(
        "numbers in a cache of keys and values at 16,384",
        ag.kv_cache_bytes(1, 1, d, n=16384) // 2,
        expected=2 * 16384 * d,
    )
    claim.note(lengths=lengths, linear=linear, dense=dense, d=d)


@pytest.mark.claim("sparse-linear-different")
def test_linear_attention_is_another_function(claim):
    """Random queries and keys, n = 256, d = 32, 20 draws: how much weight stands elsewhere; largest weight; rank."""
    rng = claim.rng(15)
    n, d = 256, 32
    away, sharp_soft, sharp_linear = [], [], []
    for _ in range(20):
        q, k = rng.standard_normal((2, n, d))
        soft = ag.softmax(q @ k.T / sqrt(d))
        linear = ag.linear_attention(q, k, np.eye(n))  # values that are a unit matrix show the weights
        away.append(0.5 * np.abs(soft - linear).sum(axis=1).mean())
        sharp_soft.append(soft.max(axis=1).mean())
        sharp_linear.append(linear.max(axis=1).mean())
    claim.below("largest distance of a row sum of linear weights from one", np.abs(linear.sum(axis=1) - 1).max(), 1e-12)
    claim.check("rank of the linear weights", int(np.linalg.matrix_rank(linear)), expected=d)
    claim.check("rank of the softmax weights", int(np.linalg.matrix_rank(soft)), expected=n)
    claim.above("share of the weight that stands elsewhere", np.mean(away), 0.2)
    claim.above("largest softmax weight over largest linear weight", np.mean(sharp_soft) / np.mean(sharp_linear), 3.0)
    sharper = np.array([10.0 * q, q])  # longer queries sharpen a softmax
    claim.note(
        largest_soft=float(np.mean(sharp_soft)),
        largest_linear=float(np.mean(sharp_linear)),
        even=1 / n,
        soft_ten=float(ag.softmax(sharper[0] @ k.T / sqrt(d)).max(axis=1).mean()),
        linear_ten=float(ag.linear_attention(sharper[0], k, np.eye(n)).max(axis=1).mean()),
        n=n,
        d=d,
    )


@pytest.mark.claim("sparse-linear-swap")
def test_a_trained_model_does_not_survive_the_swap(claim):
    """The trained decoder, its softmax replaced by elu features at reading time: held-out loss, 40 windows."""
    pytest.importorskip("torch")
    import torch

    from attn_guide import models

    trained = models.load("gpt")
    n = models.recipe("gpt").settings["length"]
    rows = held_out(trained.experiment, n, 40)
    below = torch.from_numpy(ag.causal.materialize(n))

    def linear(q, k):
        weights = (torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1).mT * below
        return weights / weights.sum(dim=-1, keepdim=True)

    soft = read_with(trained.model, rows, softmax_under(below.numpy())).mean(axis=1)
    swapped = read_with(trained.model, rows, linear).mean(axis=1)
    claim.above("loss with linear weights less loss with softmax", (swapped - soft).mean(), 0.5)
    claim.note(soft=float(soft.mean()), swapped=float(swapped.mean()), bigram=trained.experiment.baselines()["bigram"])


def recall(kind: str, pairs: int, d: int, rng: np.random.Generator, trials: int = 40) -> float:
    """Return the share of stored values that are found again by their keys, which are random and of length 1."""
    right = 0
    for _ in range(trials):
        keys = rng.standard_normal((pairs, d))
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        values = np.sign(rng.standard_normal((pairs, 16)))
        q, k, v = (np.concatenate(a) for a in ((keys, keys), (keys, 0 * keys), (values, 0 * values)))
        if kind == "softmax":
            found = ag.scaled_dot_product_attention(keys, keys, values, scale=20.0)
        elif kind == "sum":
            found = ag.linear_attention(q, k, v, feature_map="identity", is_causal=True, normalize=False)[pairs:]
        else:
            beta = np.repeat([1.0, 0.0], pairs)
            found = ag.delta_rule_attention(q, k, v, beta)[pairs:]
        right += int((np.sign(found) == values).all(axis=1).sum())
    return right / (trials * pairs)


@pytest.mark.claim("sparse-linear-recall")
def test_a_state_of_fixed_size_forgets(claim):
    """Keys of width 32 in random directions, values of 16 signs, 40 trials: share of values found again exactly."""
    rng = claim.rng(16)
    counts = [4, 8, 16, 32, 64, 128]
    found = {kind: [recall(kind, c, 32, rng) for c in counts] for kind in ("softmax", "sum", "delta")}
    claim.above("softmax, 128 pairs", found["softmax"][-1], 0.95)
    claim.above("sum, 4 pairs", found["sum"][0], 0.9)
    claim.below("sum, 128 pairs", found["sum"][-1], 0.2)
    claim.above("delta rule less sum, 16 pairs", found["delta"][2] - found["sum"][2], 0.1)
    claim.below("delta rule, 128 pairs", found["delta"][-1], 0.5)
    claim.note(counts=counts, d=32, **found)


@pytest.mark.claim("sparse-delta")
def test_the_delta_rule_corrects(claim):
    """Keys of length 1, beta 1: what is read right after writing; both forms; and a sum beside it."""
    rng = claim.rng(17)
    k = rng.standard_normal((60, 16))
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    v = rng.standard_normal((60, 8))
    found = ag.delta_rule_attention(k, k, v, np.ones(60))
    claim.below("error of a value read with the key just written", np.abs(found - v).max(), 1e-12, "rounding")
    added = ag.linear_attention(k, k, v, feature_map="identity", is_causal=True, normalize=False)
    claim.above("mean error if values are only added", np.abs(added - v).mean(), 0.3)
    q = rng.standard_normal((60, 16))
    beta = rng.random(60)
    chunked = ag.delta_rule_attention(q, k, v, beta, form="chunked", chunk_size=16)
    claim.below(
        "difference of the recurrent and the chunked form",
        np.abs(chunked - ag.delta_rule_attention(q, k, v, beta)).max(),
        1e-10,
        "rounding",
    )


@pytest.mark.claim("sparse-performer")
def test_random_features_approach_the_softmax(claim):
    """n = 128, d = 16, components of sd 0.35, 0.5 and 1, 16 to 16,384 features: mean error, 6 drawings."""
    rng = claim.rng(18)
    features = [16, 64, 256, 1024, 4096, 16384]
    errors, linear, slope = {}, {}, {}
    for sd in (0.35, 0.5, 1.0):
        q, k, v = rng.standard_normal((3, 128, 16)) * np.array([sd, sd, 1.0])[:, None, None]
        exact = ag.scaled_dot_product_attention(q, k, v)

        def error(m: int, q=q, k=k, v=v, exact=exact) -> float:
            projection = ag.random_feature_projection(16, m, rng=rng)
            return float(np.abs(ag.performer_attention(q, k, v, projection) - exact).mean())

        errors[sd] = [float(np.mean([error(m) for _ in range(6)])) for m in features]
        linear[sd] = float(np.abs(ag.linear_attention(q, k, v) - exact).mean())
        slope[sd] = ag.fit_exponent(features, errors[sd]).exponent
    claim.check(
        "exponent of the error, sd 0.35", slope[0.35], expected=-0.5, tolerance=0.06, why="six drawings scatter"
    )
    claim.require("the longer the vectors, the slower", slope[0.35] < slope[0.5] < slope[1.0])
    claim.note(slope=slope)
    claim.note(features=features, errors=errors, linear=linear, n=128, d=16)


# ------------------------------------------------------------------------------------------------ flash


@pytest.mark.claim("sparse-online-softmax")
def test_online_softmax(claim):
    """Random rows of 100 scores, blocks of 1, 7, 32 and 100; every prefix; scores of thousands; a row of -inf."""
    rng = claim.rng(19)
    s, v = 5 * rng.standard_normal((20, 100)), rng.standard_normal((20, 100, 4))
    exact = (ag.softmax(s)[:, None, :] @ v)[:, 0]
    off = []
    for block in (1, 7, 32, 100):
        *_, last = ag.online_softmax(s, v, block_size=block)
        off.append(np.abs(last.result - exact).max())
    claim.below("largest difference at the end, blocks of 1, 7, 32 and 100", max(off), 1e-13, "rounding")
    between = max(
        np.abs(step.result - (ag.softmax(s[:, : step.block.stop])[:, None, :] @ v[:, : step.block.stop])[:, 0]).max()
        for step in ag.online_softmax(s, v, block_size=7)
    )
    claim.below("largest difference on the way from the softmax of what was read", between, 1e-13, "rounding")
    with np.errstate(over="ignore", invalid="ignore"):
        naive = np.exp(1000 * s[0]) / np.exp(1000 * s[0]).sum()
    *_, last = ag.online_softmax(1000 * s[0], v[0])
    claim.require("scores a thousand times as large overflow without a maximum", not np.isfinite(naive).all())
    claim.below("error of the online softmax there", np.abs(last.result - ag.softmax(1000 * s[0]) @ v[0]).max(), 1e-13)
    rescales = [float(step.rescale[0]) for step in ag.online_softmax(s)]
    claim.note(new_maxima=int(np.sum(np.array(rescales[1:]) < 1)), harmonic=float(np.sum(1 / np.arange(2, 101))), m=100)
    records = np.mean(
        [
            sum(bool(step.rescale < 1) for step in list(ag.online_softmax(row))[1:])
            for row in rng.standard_normal((300, 100))
        ]
    )
    claim.check(
        "mean number of new maxima in 100 random scores",
        records,
        expected=np.sum(1 / np.arange(2, 101)),
        tolerance=0.45,
        why="four standard errors: 1/2 + 1/3 + ... + 1/100",
    )


@pytest.mark.claim("sparse-flash-exact")
def test_flash_equals_dense(claim):
    """Awkward lengths, widths and tiles, masks, and scores up to thousands; errors against double precision."""
    rng = claim.rng(20)
    worst, cases = 0.0, 0
    for n, m, d_k, d_v, b_q, b_k in (
        (1, 1, 1, 1, None, 512),
        (1, 1000, 8, 3, None, 512),
        (63, 65, 16, 5, 16, 16),
        (257, 513, 7, 9, None, 512),
        (100, 37, 24, 24, 1, 1),
        (500, 500, 64, 64, 33, 77),
        (129, 1025, 3, 2, 128, 1000),
    ):
        q, k, v = rng.standard_normal((n, d_k)), rng.standard_normal((m, d_k)), rng.standard_normal((m, d_v))
        for factor in (1.0, 100.0, 1e4):
            for options in ({}, {"is_causal": True}, {"softcap": 5.0}):
                flash_out = ag.flash_attention(factor * q, k, v, block_q=b_q, block_k=b_k, **options)
                dense = ag.scaled_dot_product_attention(factor * q, k, v, **options)
                worst, cases = max(worst, relative_error(flash_out, dense)), cases + 1
    claim.below("largest relative difference in double precision", worst, 1e-10, "rounding, of scores up to 10,000")
    q, k, v = rng.standard_normal((3, 2000, 64))
    truth = ag.scaled_dot_product_attention(q, k, v)
    single = [a.astype(np.float32) for a in (q, k, v)]
    errors = {
        "flash": relative_error(ag.flash_attention(*single), truth),
        "dense": relative_error(ag.scaled_dot_product_attention(*single), truth),
    }
    claim.below("error of flash over that of dense, single precision", errors["flash"] / errors["dense"], 4.0)
    claim.note(cases=cases, single=errors)


@pytest.mark.claim("sparse-flash-backward")
def test_backward_of_flash(claim):
    """Gradients at n = 150 from tiles against the whole matrix, and against central differences."""
    rng = claim.rng(21)
    q, k, v, g = rng.standard_normal((4, 150, 8))
    out, lse = ag.flash_attention(q, k, v, is_causal=True, return_lse=True)
    grads = ag.flash_attention_backward(g, q, k, v, out, lse, is_causal=True, block_q=32, block_k=48)
    dense = ag.scaled_dot_product_attention_backward(g, q, k, v, is_causal=True)
    claim.below(
        "largest difference from dense",
        max(np.abs(a - b).max() for a, b in zip(grads, dense[:3], strict=True)),
        1e-12,
        "rounding",
    )
    step, direction = 1e-6, rng.standard_normal((3, 150, 8))
    ends = [
        (
            ag.flash_attention(
                *(a + sign * step * b for a, b in zip((q, k, v), direction, strict=True)), is_causal=True
            )
            * g
        ).sum()
        for sign in (1, -1)
    ]
    along = sum((a * b).sum() for a, b in zip(grads, direction, strict=True))
    claim.check(
        "derivative in a random direction",
        along,
        expected=(ends[0] - ends[1]) / (2 * step),
        tolerance=1e-6,
        relative=True,
        why="central differences",
    )
    claim.check(
        "sum over keys of p dp, from the output alone",
        (g * out).sum(axis=1)[:100],
        expected=(ag.softmax(ag.attention_scores(q, k, is_causal=True)) * (g @ v.T)).sum(axis=1)[:100],
        tolerance=1e-12,
        why="rounding",
    )


@pytest.mark.claim("sparse-flash-work")
def test_flash_does_all_the_work(claim):
    """n = 2,048: scores computed by flash and by dense attention, causal and not; peak memory beside the weights."""
    q, k, v = example(2048)
    for name, function in (("flash", ag.flash_attention), ("dense", ag.scaled_dot_product_attention)):
        claim.check(f"scores computed, {name}", scores_of(lambda f=function: f(q, k, v)), expected=2048**2)
    causal = scores_of(lambda: ag.flash_attention(q, k, v, is_causal=True))
    claim.check(
        "scores computed, causal, over all", causal / 2048**2, expected=0.5, tolerance=0.1, why="tiles on the diagonal"
    )
    claim.note(n=2048, causal=causal)


@pytest.mark.claim("sparse-flash-traffic")
def test_numbers_moved(claim):
    """Numbers moved by three passes over a stored matrix and by tiles, counted in a run; n = 1,024, d = 64."""
    n, d = 1024, 64
    rng = claim.rng(22)
    q, k, v = rng.standard_normal((3, n, d))
    moved = 0

    def move(*arrays):
        nonlocal moved
        moved += sum(a.size for a in arrays)
        return arrays if len(arrays) > 1 else arrays[0]

    # three steps, each from slow memory to slow memory
    a, b = move(q, k)
    scores = move(a @ b.T / 8)
    weights = move(ag.softmax(move(scores)))
    w, c = move(weights, v)
    out = move(w @ c)
    stored = moved
    found = {}
    for rows in (16, 64, 256):
        moved, tiled = 0, np.empty_like(out)
        for i in range(0, n, rows):
            part = move(q[i : i + rows])
            top, total, mixed = np.full(rows, -np.inf), np.zeros(rows), np.zeros((rows, d))
            for j in range(0, n, 64):
                kk, vv = move(k[j : j + 64], v[j : j + 64])
                s = part @ kk.T / 8
                new = np.maximum(top, s.max(axis=1))
                p, shrink = np.exp(s - new[:, None]), np.exp(top - new)
                total, mixed, top = shrink * total + p.sum(axis=1), shrink[:, None] * mixed + p @ vv, new
            tiled[i : i + rows] = move(mixed / total[:, None])
        found[rows] = moved
        claim.below(
            f"difference of the two outputs, tiles of {rows} rows", np.abs(tiled - out).max(), 1e-12, "rounding"
        )
    claim.check("stored matrix: numbers moved", stored, expected=4 * n * n + 4 * n * d)
    claim.check(
        "tiles of 16, 64 and 256 rows: numbers moved",
        list(found.values()),
        expected=[2 * n * d + 2 * n * d * n // rows for rows in found],
    )
    claim.note(n=n, d=d, ratio=[stored / a for a in found.values()])


@pytest.mark.claim("sparse-flash-masks")
def test_flash_skips_what_a_mask_rules_out(claim):
    """Masks of Chapter 4 and of this one in flash attention, n = 2,048: share of scores computed, and the result."""
    n = 2048
    q, k, v = example(n)
    masks = {
        "window": ag.sliding_window(128, 128),
        "document": ag.document(np.arange(n) // 512),
        "longformer": ag.longformer(256, [0]),
        "strided": ag.strided(16),
        "random": ag.random_keys(64, n, rng=claim.rng(23)),
    }
    share, off = {}, 0.0
    for name, mask in masks.items():
        with scores_computed() as sizes:
            out = ag.flash_attention(q, k, v, mask_mod=mask, block_q=128, block_k=128)
        share[name] = sum(sizes) / n**2
        off = max(off, np.abs(out - ag.scaled_dot_product_attention(q, k, v, mask_mod=mask)).max())
    claim.below("largest difference from dense under the same mask", off, 1e-5, "single precision")
    claim.check("share of scores computed, strided", share["strided"], expected=1.0)
    claim.check("share of scores computed, random", share["random"], expected=1.0)
    claim.below("share of scores computed, window", share["window"], 0.3)
    claim.note(share=share, density={name: mask.density(n) for name, mask in masks.items()})


if __name__ == "__main__":  # every kind of attention measured, for ``sparse-growth``
    print(json.dumps({name: seconds_and_peaks(name) for name in GROWTH}))
