"""Chapter 2, Cross-attention: every claim of the chapter, measured."""

from __future__ import annotations

import math
from math import sqrt

import numpy as np
import pytest

import attn_guide as ag

#: "I am a student", to be written as "main chhatr hoon". Features: person, verb, noun, function word.
SOURCE = np.array([[2.0, 0, 0, 0], [1, 2, 0, 0], [0, 0, 1, 1], [0, 0, 2, 0]])  # (m, d_source)
TARGET = np.eye(3)  # (n, d_target): nothing written yet, subject written, noun written
W_Q = np.array([[3.0, 0, 0, 0], [-1, 0, 3, 0], [1, 3, -1, 0]])  # (d_target, d_k)
W_K = np.eye(4)  # (d_source, d_k)
W_V = np.array([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0, 0, 0]])  # (d_source, d_v)

#: Trained models are measured for these seeds.
SEEDS = (0, 1, 2)


def decoder(rng: np.random.Generator, layers: int = 2, d: int = 16, heads: int = 2) -> ag.TransformerParams:
    """Draw the weights of an encoder-decoder."""

    def feed() -> dict[str, np.ndarray]:
        return {
            "w_1": rng.standard_normal((d, 4 * d)) / sqrt(d),
            "w_2": rng.standard_normal((4 * d, d)) / sqrt(4 * d),
        }

    def attention() -> ag.MultiHeadParams:
        return ag.init_multi_head(d, heads, rng=rng)

    return ag.TransformerParams(
        encoder_layers=[ag.EncoderLayerParams(attention(), **feed()) for _ in range(layers)],
        decoder_layers=[ag.DecoderLayerParams(attention(), attention(), **feed()) for _ in range(layers)],
    )


# ------------------------------------------------------------------------------------------------ two sequences


@pytest.mark.claim("cross-four-steps")
def test_the_four_steps_by_hand(claim):
    """The example in plain Python, number by number, against ag.cross_attention."""
    n, m, d_k, d_v = 3, 4, 4, 3

    def product(a, b):
        return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]

    q, k, v = product(TARGET, W_Q), product(SOURCE, W_K), product(SOURCE, W_V)
    scores = [[sum(a * b for a, b in zip(q[i], k[j], strict=True)) / sqrt(d_k) for j in range(m)] for i in range(n)]
    weights = [[math.exp(s) / sum(map(math.exp, row)) for s in row] for row in scores]
    output = [[sum(weights[i][j] * v[j][c] for j in range(m)) for c in range(d_v)] for i in range(n)]
    out, w = ag.cross_attention(TARGET, SOURCE, W_Q, W_K, W_V, return_weights=True)
    claim.check("weights", w, expected=weights, tolerance=1e-14, why="rounding")
    claim.check("output", out, expected=output, tolerance=1e-14, why="rounding")
    claim.check("source word read most by each row", w.argmax(axis=1), expected=[0, 3, 1], why="I, student, am")


@pytest.mark.claim("cross-shapes")
def test_shapes_come_from_two_sequences(claim):
    """Random sequences of all lengths 1 to 6 on either side, with four different widths."""
    rng = claim.rng(0)
    d_target, d_source, d_k, d_v = 5, 7, 4, 3
    w_q, w_k, w_v = (rng.standard_normal(s) for s in ((d_target, d_k), (d_source, d_k), (d_source, d_v)))
    found = {}
    for n in range(1, 7):
        for m in range(1, 7):
            x, context = rng.standard_normal((n, d_target)), rng.standard_normal((m, d_source))
            out, weights = ag.cross_attention(x, context, w_q, w_k, w_v, return_weights=True)
            found[n, m] = (weights.shape, out.shape)
    claim.require("weights are n x m", all(shape == lengths for lengths, (shape, _) in found.items()))
    claim.require("outputs are n x d_v", all(shape == (n, d_v) for (n, _), (_, shape) in found.items()))
    square = sum(n == m for n, m in found)
    claim.note(pairs=len(found), square=square, d_target=d_target, d_source=d_source, d_k=d_k, d_v=d_v)


@pytest.mark.claim("cross-self")
def test_cross_attention_to_itself_is_self_attention(claim):
    """One sequence in both places: the same bits as ag.self_attention, every token seeing all of them."""
    rng = claim.rng(1)
    x = rng.standard_normal((6, 8))
    w_q, w_k, w_v = rng.standard_normal((3, 8, 8)) / sqrt(8)
    both, weights = ag.cross_attention(x, x, w_q, w_k, w_v, return_weights=True)
    claim.check("largest difference", np.abs(both - ag.self_attention(x, w_q, w_k, w_v)).max(), expected=0.0)
    claim.above("smallest weight", weights.min(), 0.0, "a token attends to all tokens, not to its own place")
    claim.note(n=6)


@pytest.mark.claim("cross-rows")
def test_target_rows_do_not_meet(claim):
    """Each target row by itself, against all of them at once; then one row replaced."""
    rng = claim.rng(2)
    x, context = rng.standard_normal((5, 8)), rng.standard_normal((7, 8))
    weights = rng.standard_normal((3, 8, 8)) / sqrt(8)
    whole = ag.cross_attention(x, context, *weights)
    single = np.concatenate([ag.cross_attention(x[i : i + 1], context, *weights) for i in range(5)])
    claim.below("largest difference of one row at a time", np.abs(single - whole).max(), 1e-14, "rounding")
    other = x.copy()
    other[2] = rng.standard_normal(8)
    moved = np.abs(ag.cross_attention(other, context, *weights) - whole).max(axis=1)
    claim.check("rows that move when target row 2 is replaced", np.flatnonzero(moved), expected=[2])


# ------------------------------------------------------------------------------------------------ encoder and decoder


@pytest.mark.claim("cross-influence")
def test_who_moves_whom_in_an_encoder_decoder(claim):
    """Two blocks on either side, 5 source and 6 target tokens: every token replaced in turn."""
    rng = claim.rng(3)
    params, m, n, d = decoder(rng), 5, 6, 16
    source, target = rng.standard_normal((m, d)), rng.standard_normal((n, d))
    memory, out = ag.transformer_encoder(source, params), ag.transformer(source, target, params)
    from_source, from_target = np.empty((n, m)), np.empty((n, n))
    in_memory = np.empty((m, m))
    for j in range(m):
        other = source.copy()
        other[j] = rng.standard_normal(d)
        from_source[:, j] = np.abs(ag.transformer(other, target, params) - out).max(axis=1)
        in_memory[:, j] = np.abs(ag.transformer_encoder(other, params) - memory).max(axis=1)
    for j in range(n):
        other = target.copy()
        other[j] = rng.standard_normal(d)
        from_target[:, j] = np.abs(ag.transformer(source, other, params) - out).max(axis=1)
    claim.above("smallest move of an output by a source token", from_source.min(), 1e-3)
    claim.above("smallest move of a source state by a source token", in_memory.min(), 1e-3)
    claim.above("smallest move of an output by an earlier target token", from_target[np.tril_indices(n)].min(), 1e-3)
    claim.check("largest move of an output by a later target token", np.triu(from_target, 1).max(), expected=0.0)
    claim.note(m=m, n=n, layers=2)


@pytest.mark.claim("cross-padding")
def test_padding_of_the_source_is_masked_twice(claim):
    """A source of 5 filled up to 8: masked in the encoder and in cross-attention, in one of them, in neither."""
    rng = claim.rng(4)
    params, d = decoder(rng), 16
    source, target = rng.standard_normal((5, d)), rng.standard_normal((6, d))
    padded = np.concatenate([source, rng.standard_normal((3, d))])
    real = np.arange(8) < 5
    right = ag.transformer(source, target, params)
    off = {
        name: np.abs(ag.transformer(padded, target, params, source_mask=a, memory_mask=b) - right).max()
        for name, a, b in (
            ("both", real, real), ("encoder only", real, None), ("cross-attention only", None, real),
            ("neither", None, None),
        )
    }  # fmt: skip
    claim.below("masked in both", off["both"], 1e-13, "rounding")
    for name in ("encoder only", "cross-attention only", "neither"):
        claim.above(f"masked in {name}", off[name], 1e-2)


# ------------------------------------------------------------------------------------------------ block and hybrids


@pytest.mark.claim("cross-block")
def test_cross_attention_is_a_block_of_self_attention(claim):
    """Source and target joined, a mask that lets targets see sources alone: with shared and with separate weights."""
    rng = claim.rng(5)
    m, n, d = 7, 5, 8
    source, target = rng.standard_normal((m, d)), rng.standard_normal((n, d))
    w_q, w_k, w_v = rng.standard_normal((3, d, d)) / sqrt(d)
    allowed = np.zeros((m + n, m + n), bool)
    allowed[:, :m] = True  # everyone sees the source and nothing else
    joined = np.concatenate([source, target])
    block = ag.self_attention(joined, w_q, w_k, w_v, attn_mask=allowed)[m:]
    wanted = ag.cross_attention(target, source, w_q, w_k, w_v)
    claim.below("largest difference, one set of weights", np.abs(block - wanted).max(), 1e-14, "rounding")
    # Widths that differ: source and target features side by side, and weights that read one side each.
    narrow = rng.standard_normal((n, 6))
    w_narrow = rng.standard_normal((6, d)) / sqrt(6)
    wide = np.block([[source, np.zeros((m, 6))], [np.zeros((n, d)), narrow]])
    lifted_q = np.concatenate([np.zeros((d, d)), w_narrow])
    lifted_k, lifted_v = (np.concatenate([w, np.zeros((6, d))]) for w in (w_k, w_v))
    block = ag.self_attention(wide, lifted_q, lifted_k, lifted_v, attn_mask=allowed)[m:]
    wanted = ag.cross_attention(narrow, source, w_narrow, w_k, w_v)
    claim.below("largest difference, separate weights", np.abs(block - wanted).max(), 1e-14, "rounding")
    free = ag.self_attention(joined, w_q, w_k, w_v)[m:]
    claim.above(
        "difference without the mask", np.abs(free - ag.cross_attention(target, source, w_q, w_k, w_v)).max(), 0.1
    )
    claim.note(m=m, n=n)


@pytest.mark.claim("cross-joint-gate")
def test_one_softmax_over_both_is_a_gate(claim):
    """The target's past and the source under one softmax, against the two attentions weighed by their sums."""
    rng = claim.rng(6)
    n, m, d = 6, 9, 16
    q, own_k, own_v = rng.standard_normal((3, n, d))
    src_k, src_v = rng.standard_normal((2, m, d))
    allowed = np.concatenate([ag.causal.materialize(n), np.ones((n, m), bool)], axis=1)
    joint = ag.scaled_dot_product_attention(
        q, np.concatenate([own_k, src_k]), np.concatenate([own_v, src_v]), attn_mask=allowed
    )
    own = ag.scaled_dot_product_attention(q, own_k, own_v, is_causal=True)
    read = ag.scaled_dot_product_attention(q, src_k, src_v)
    own_sum = ag.log_sum_exp(ag.attention_scores(q, own_k, is_causal=True))
    read_sum = ag.log_sum_exp(ag.attention_scores(q, src_k))
    gate = 1 / (1 + np.exp(read_sum - own_sum))  # the share of its own past
    mixed = gate[:, None] * own + (1 - gate)[:, None] * read
    claim.below("largest difference", np.abs(joint - mixed).max(), 1e-14, "rounding")
    claim.above("difference from the sum of the two", np.abs(joint - (own + read)).max(), 0.1)
    claim.note(share_of_its_own_past=gate, n=n, m=m)


@pytest.mark.claim("cross-closed-gate")
def test_a_gate_that_starts_closed(claim):
    """Tokens plus tanh(a) times cross-attention: nothing at a = 0, and a gradient for a all the same."""
    rng = claim.rng(7)
    x, image = rng.standard_normal((6, 16)), rng.standard_normal((10, 24))
    weights = [rng.standard_normal(s) / 4 for s in ((16, 16), (24, 16), (24, 16))]

    def layer(a: float) -> np.ndarray:
        return x + np.tanh(a) * ag.cross_attention(x, image, *weights)

    claim.check("largest change at a = 0", np.abs(layer(0.0) - x).max(), expected=0.0)
    claim.above("largest change at a = 0.5", np.abs(layer(0.5) - x).max(), 0.1)
    slope = (layer(1e-6) - layer(-1e-6)) / 2e-6
    claim.above("largest derivative by a at 0", np.abs(slope).max(), 0.1, "so it can open")


# ------------------------------------------------------------------------------------------------ cost


@pytest.mark.claim("cross-pairs")
def test_pairs_of_both_ways(claim):
    """Pairs counted from masks: three attentions of an encoder-decoder against one over the joined sequences."""
    table = {}
    for m, n in ((100, 100), (1000, 50), (50, 1000)):
        cross, encoder = ag.full.count(n, m), ag.full.count(m)
        table[f"{m} {n}"] = {
            "cross": cross,
            "bidirectional, separate": encoder + ag.full.count(n) + cross,
            "bidirectional, joined": ag.full.count(m + n),
            "causal target, separate": encoder + ag.causal.count(n) + cross,
            "prefix-LM": ag.prefix(m).count(m + n),
            "decoder-only": ag.causal.count(m + n),
        }
        row = table[f"{m} {n}"]
        claim.check(f"separate, m = {m}, n = {n}", row["bidirectional, separate"], expected=m * m + n * n + m * n)
        claim.check(f"joined, m = {m}, n = {n}", row["bidirectional, joined"], expected=(m + n) ** 2)
        claim.check(f"causal target against prefix-LM, m = {m}, n = {n}", row["causal target, separate"],
                    expected=row["prefix-LM"])  # fmt: skip
    claim.note(table=table)


@pytest.mark.claim("cross-macs")
def test_multiply_adds_of_both_ways(claim):
    """Multiply-adds of one layer, projections included, from ag.attention_flops at d_model = 512."""
    d = 512
    lengths, separate, joined, projections = [64, 256, 1024, 4096], [], [], []
    for n in lengths:
        three = (
            ag.attention_flops(n, d), ag.attention_flops(n, d, m=n), ag.attention_flops(n, d, pairs=ag.causal.count(n)),
        )  # fmt: skip
        separate.append(sum(part.macs for part in three))
        one = ag.attention_flops(2 * n, d, pairs=ag.prefix(n).count(2 * n))
        joined.append(one.macs)
        projections.append(sum(part.projections for part in three) / one.projections)
        extra = three[1].projections
        claim.check(f"separate less joined at n = {n}", separate[-1] - joined[-1], expected=extra,
                    why="the projections of cross-attention")  # fmt: skip
    ratio = np.divide(separate, joined)
    claim.check("ratio of the projections alone", projections, expected=[1.5] * 4)
    claim.require("the ratio falls with the length", bool((np.diff(ratio) < 0).all()))
    claim.note(lengths=lengths, ratio=ratio, d=d)


# ------------------------------------------------------------------------------------------------ cache


@pytest.mark.claim("cross-cache-equal")
def test_cached_and_uncached_decoding_agree(claim):
    """12 target tokens one by one, 4 heads of width 8, 9 source tokens: stored once, or projected at each step."""
    rng = claim.rng(8)
    h, m, n, d = 4, 9, 12, 32
    params = ag.init_multi_head(d, h, rng=rng)
    source, target = rng.standard_normal((m, d)), rng.standard_normal((n, d))
    cache = ag.KVCache(is_causal=False)
    _, key, value = params.project(target, source, source)
    cache.append(key, value)
    cached, again = [], []
    for t in range(n):
        q, k, v = params.project(target[t : t + 1], source, source)
        cached.append(cache.attend(q))
        again.append(ag.scaled_dot_product_attention(q, k, v))
    whole = ag.scaled_dot_product_attention(*params.project(target, source, source))
    claim.check(
        "largest difference of cached and projected again", np.abs(np.subtract(cached, again)).max(), expected=0.0
    )
    claim.below("largest difference from all rows at once", np.abs(np.concatenate(cached, axis=1) - whole).max(), 1e-14,
                "rounding")  # fmt: skip
    claim.check("tokens in the cache after the last step", len(cache), expected=m)
    claim.note(heads=h, m=m, n=n)


class Counter:
    """A matrix product that adds up its multiply-adds."""

    def __init__(self) -> None:
        self.macs = 0

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.macs += a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


@pytest.mark.claim("cross-cache-macs")
def test_multiply_adds_of_a_target(claim):
    """One head of width 64 writes n tokens from a source of m: products counted, with the source stored and without."""
    rng = claim.rng(9)
    d, n = 64, 32
    w_q, w_k, w_v = rng.standard_normal((3, d, d)) / sqrt(d)
    sources, with_cache, without = [32, 128, 512], [], []
    for m in sources:
        source, target = rng.standard_normal((m, d)), rng.standard_normal((n, d))
        once, again = Counter(), Counter()
        k, v = once(source, w_k), once(source, w_v)
        for row in target:
            outputs = []
            for product, keys, values in ((once, k, v), (again, None, None)):
                if keys is None:
                    keys, values = product(source, w_k), product(source, w_v)
                scores = product(product(row[None], w_q), keys.T) / sqrt(d)
                outputs.append(product(ag.softmax(scores), values))
            assert np.abs(np.subtract(*outputs)).max() < 1e-12
        with_cache.append(once.macs)
        without.append(again.macs)
    claim.check("stored once", with_cache, expected=[2 * m * d * d + n * (d * d + 2 * m * d) for m in sources])
    claim.check("projected at each step", without, expected=[n * (2 * m * d * d + d * d + 2 * m * d) for m in sources])
    claim.note(sources=sources, n=n, d=d, ratio=np.divide(without, with_cache))


@pytest.mark.claim("cross-cache-bytes")
def test_bytes_of_both_caches(claim):
    """Whisper large: 32 decoder layers, 20 heads of width 64, 1,500 source positions, at most 448 target tokens."""
    source = ag.kv_cache_bytes(layers=32, h_kv=20, d_k=64, n=1500)
    target = ag.kv_cache_bytes(layers=32, h_kv=20, d_k=64, n=448)
    claim.check("bytes of the source cache", source, expected=2 * 32 * 20 * 64 * 1500 * 2)
    claim.check("source over target at full length", source / target, expected=1500 / 448, tolerance=1e-12)
    rng = claim.rng(10)
    small = ag.KVCache(is_causal=False, capacity=30)
    key, value = rng.standard_normal((2, 2, 30, 64)).astype(np.float16)
    small.append(key, value)
    filled = small.nbytes
    for _ in range(5):
        small.attend(rng.standard_normal((2, 1, 64)).astype(np.float16))
    claim.check("bytes of a small source cache after five steps", small.nbytes, expected=filled)
    claim.note(target_at_full_length=target)


@pytest.mark.claim("cross-beams")
def test_beams_share_one_source(claim):
    """Four beams, 2 heads: queries stacked as rows of one call, against four calls with the source repeated."""
    rng = claim.rng(11)
    beams, h, m, d = 4, 2, 9, 8
    key, value = rng.standard_normal((2, h, m, d))
    queries = rng.standard_normal((beams, h, 1, d))
    source = ag.KVCache(is_causal=False)
    source.append(key, value)
    together = source.attend(np.concatenate(queries, axis=1))  # (h, beams, d): a row for each beam
    apart = [ag.scaled_dot_product_attention(q, key, value)[:, 0] for q in queries]
    claim.below("largest difference", np.abs(np.moveaxis(together, 1, 0) - apart).max(), 1e-14, "rounding")
    claim.note(beams=beams, copies=1)


# ------------------------------------------------------------------------------------------------ positions


@pytest.mark.claim("cross-set")
def test_the_operator_reads_a_set(claim):
    """200 random problems: pairs of key and value in another order; then keys alone in another order."""
    rng = claim.rng(12)
    largest, keys_only = 0.0, []
    for _ in range(200):
        q = rng.standard_normal((5, 8))
        k, v = rng.standard_normal((2, 7, 8))
        order = rng.permutation(7)
        out = ag.scaled_dot_product_attention(q, k, v)
        largest = max(largest, np.abs(ag.scaled_dot_product_attention(q, k[order], v[order]) - out).max())
        keys_only.append(np.abs(ag.scaled_dot_product_attention(q, k[np.roll(np.arange(7), 1)], v) - out).max())
    claim.below("largest change when pairs are moved together", largest, 1e-13, "rounding")
    claim.above("smallest change when keys are moved away from their values", min(keys_only), 1e-3)
    claim.note(problems=200)


@pytest.mark.claim("cross-positions-content")
def test_positions_act_through_contents(claim):
    """A source with one word twice, "the dog saw the cat": weights with and without positions added to the source."""
    rng = claim.rng(13)
    d = 32
    words = {w: rng.standard_normal(d) for w in ("the", "dog", "saw", "cat")}
    source = np.stack([words[w] for w in ("the", "dog", "saw", "the", "cat")])
    places = ag.sinusoidal_positions(5, d)
    w_q, w_k = rng.standard_normal((2, d, d)) / d**0.25 / sqrt(d)
    asks = rng.standard_normal((3, d))
    weights = {
        name: ag.softmax(ag.attention_scores(asks @ w_q, x @ w_k))
        for name, x in (("without", source), ("with", source + places))
    }
    twice = {name: np.abs(w[:, 0] - w[:, 3]).max() for name, w in weights.items()}
    claim.check("largest difference of the two weights on “the”, no positions", twice["without"], expected=0.0,
                tolerance=1e-15, why="equal keys have equal scores")  # fmt: skip
    claim.above("largest difference of the two weights on “the”, with positions", twice["with"], 0.01)
    moved = {}
    for name, added in (("no positions", 0.0 * places), ("with positions", places)):
        dog_saw_cat, cat_saw_dog = source + added, source[[0, 4, 2, 3, 1]] + added
        first, second = (
            ag.scaled_dot_product_attention(asks @ w_q, x @ w_k, x) for x in (dog_saw_cat, cat_saw_dog)
        )  # fmt: skip
        moved[name] = np.abs(first - second).max()
    claim.below(
        "change of outputs when dog and cat change places, no positions", moved["no positions"], 1e-13, "rounding"
    )
    claim.above("change of outputs when dog and cat change places, with positions", moved["with positions"], 0.05)


# ------------------------------------------------------------------------------------------------ trained models


def trained(name: str, seed: int = 0):
    """Return a trained model of this repository; the first call trains it."""
    pytest.importorskip("torch")
    from attn_guide import models

    return models.load(name, seed)


def untrained(name: str, seed: int = 0):
    """Return the same model with its first weights."""
    import torch

    from attn_guide import models

    recipe = models.recipe(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        experiment = recipe.start(recipe.settings, seed)
    experiment.model.eval()
    return experiment


def inverted(experiment) -> list:
    """Return the held-out numbers that German inverts: those that end in tens, "and", units."""
    return [(s, t) for s, t in experiment.pairs.tests["held_out"] if len(t) > 2 and t[-2] == "und"]


def rows_and_columns(experiment, items) -> np.ndarray:
    """Return the mean weights with which units, "und" and tens are predicted (rows) on tens, units and the rest."""
    import torch

    source, target = experiment.pairs.source, experiment.pairs.target
    with torch.no_grad():
        _, weights = experiment.model(source.encode([s for s, _ in items]), target.encode([t for _, t in items]))
    weights = weights.numpy()  # (b, ..., n, m)
    found = []
    for w, (s, t) in zip(weights, items, strict=True):
        last = w[..., len(t) - 3 : len(t), :]  # units, und, tens
        tens, units = last[..., len(s) - 2], last[..., len(s) - 1]
        found.append(np.stack([tens, units, 1 - tens - units], axis=-1))
    return np.array(found)  # (b, ..., 3, 3)


@pytest.mark.claim("cross-asking-state")
def test_which_word_has_been_read_by_the_state_that_asks(claim):
    """One target word replaced after the other in trained models, in double precision: the first row that moves."""
    import copy

    import torch

    sentence = ("seven thousand three hundred and forty two", "sieben tausend drei hundert zwei und vierzig")
    for name, behind in (("transformer", 1), ("luong-general", 1), ("bahdanau", 2)):
        run = trained(name)
        pairs, model = run.experiment.pairs, copy.deepcopy(run.model).double()
        source = pairs.source.encode([sentence[0].split()])
        target = pairs.target.encode([sentence[1].split()])
        n = target.shape[1]
        with torch.no_grad():
            _, right = model(source, target)  # (1, ..., n, m)
            first = []
            for j in range(n - behind):
                other = target.clone()
                other[0, j] = 3 + (target[0, j] - 2) % (len(pairs.target) - 3)
                moved = (model(source, other)[1] - right).abs().transpose(-2, 0).flatten(1).amax(dim=1)  # (n,)
                first.append(int(torch.nonzero(moved > 1e-13)[0]) - j)
        claim.check(f"rows from a word to the first that it moves, {name}", first, expected=[behind] * (n - behind))
    claim.note(sentence=sentence[1])


@pytest.mark.claim("cross-bahdanau")
def test_bahdanau_translates_unseen_numbers(claim):
    """Exact match on 500 held-out numbers for each seed."""
    runs = [trained("bahdanau", seed) for seed in SEEDS]
    claim.above("held-out exact match of each seed", [run.results["held_out"] for run in runs], 0.99 - 1e-9)
    experiment = runs[0].experiment
    seen = {tuple(s) for s, _ in experiment.pairs.train}
    held_out = experiment.pairs.tests["held_out"]
    claim.check("held-out numbers among those learned", sum(tuple(s) in seen for s, _ in held_out), expected=0)
    claim.note(
        seeds=SEEDS, train=len(experiment.pairs.train), held_out=len(held_out), steps=len(runs[0].loss),
        parameters=runs[0].results["parameters"],
    )  # fmt: skip


@pytest.mark.claim("cross-alignment")
def test_alignments_turn_round(claim):
    """All held-out numbers with tens and units: mean weights of three rows, before and after training, three seeds."""
    after = []
    for seed in SEEDS:
        experiment = trained("bahdanau", seed).experiment
        after.append(rows_and_columns(experiment, inverted(experiment)))
    items = inverted(experiment)
    before = rows_and_columns(untrained("bahdanau"), items)
    mean = np.array([rows.mean(axis=0) for rows in after])  # (seeds, 3, 3)
    # The German order is units, und, tens; the English is tens, units. A diagonal would read them in turn.
    most = np.array([rows.argmax(axis=-1) for rows in after])  # (seeds, b, 3): 0 tens, 1 units
    share = {
        "units read for the units": (most[..., 0] == 1).mean(axis=1),
        "tens read for the tens": (most[..., 2] == 0).mean(axis=1),
    }
    claim.above(
        "share of numbers in which the tens are read for the tens, each seed", share["tens read for the tens"], 0.9
    )
    claim.above("mean weight on tens less that on units when tens are written", mean[:, 2, 0] - mean[:, 2, 1], 0.5)
    claim.above("mean weight on the units, row of units over row of tens", mean[:, 0, 1] / mean[:, 2, 1], 2.0)
    claim.below("untrained: largest mean weight on tens or units", before.mean(axis=0)[:, :2].max(), 0.3, "nearly even")
    claim.note(
        numbers=len(items), mean=mean[0], units_on_units=mean[:, 0, 1],
        units_read_for_units=share["units read for the units"],
        untrained=before.mean(axis=0), mean_over_seeds=mean.mean(axis=0),
    )  # fmt: skip


@pytest.mark.claim("cross-neighbours")
def test_a_state_knows_its_neighbours(claim):
    """Numbers with tens and units: the state at the units, or at the tens, hidden from Bahdanau's attention."""
    import copy

    from attn_guide import models

    class Hiding(models.Bahdanau):
        """Hides one source position from attention: ``back`` places before the stop."""

        def encode(self, source):
            state, (positions, keep, projected) = super().encode(source)
            keep = keep.clone()
            keep[range(len(keep)), keep.sum(dim=1) - 1 - self.back] = False
            return state, (positions, keep, projected)

    found, reads_units = {"units": [], "tens": []}, []
    for seed in SEEDS:
        run = trained("bahdanau", seed)
        pairs, items = run.experiment.pairs, inverted(run.experiment)
        reads_units.append(rows_and_columns(run.experiment, items)[:, 0, 1].mean())
        for name, back in (("units", 1), ("tens", 2)):
            hiding = copy.deepcopy(run.model)
            hiding.__class__, hiding.back = Hiding, back
            found[name].append(models.exact_match(hiding, pairs, items))
    claim.note(numbers=len(items), seeds=SEEDS, **{f"{name}_hidden": x for name, x in found.items()})
    claim.above("exact match with the state at the units hidden, best seed", max(found["units"]), 0.2)
    claim.require("the training that reads the units least can best do without",
                  np.argmin(reads_units) == np.argmax(found["units"]))  # fmt: skip


@pytest.mark.claim("cross-fixed-vector")
def test_one_vector_is_not_enough_for_lists(claim):
    """Lists of 1 to 6 numbers below 100, the same translator with attention and without: exact match by length."""
    with_attention, without = trained("bahdanau-lists"), trained("fixed-vector-lists")
    lengths = (2, 4, 6)
    by_length = {
        name: [run.results[f"{n}_numbers"] for n in lengths]
        for name, run in (("with", with_attention), ("without", without))
    }
    claim.above("with attention, held-out", with_attention.results["held_out"], 0.97)
    gain = with_attention.results["held_out"] - without.results["held_out"]
    claim.above("with attention less without, held-out", gain, 0.3)
    claim.require("without attention it falls with the length", bool((np.diff(by_length["without"]) < 0).all()))
    short = [trained("bahdanau").results["held_out"], trained("fixed-vector").results["held_out"]]
    claim.above("single numbers: with attention, and without", short, 0.98, "short enough for one vector")
    claim.note(
        lengths=lengths, with_attention=by_length["with"], without=by_length["without"],
        without_held_out=without.results["held_out"], lists=len(with_attention.experiment.pairs.tests["held_out"]),
        parameters=[with_attention.results["parameters"], without.results["parameters"]],
    )  # fmt: skip


@pytest.mark.claim("cross-longer")
def test_longer_than_trained(claim):
    """Numbers from 10,000 and lists of 8, 10 and 12, none as long in training: exact match of every model."""
    numbers = {name: trained(name).results["longer"] for name in ("bahdanau", "fixed-vector", "transformer")}
    lists = {
        name: [trained(name).results[f"{n}_numbers"] for n in (8, 10, 12)]
        for name in ("bahdanau-lists", "fixed-vector-lists", "transformer-lists")
    }
    claim.below("largest exact match on longer numbers", max(numbers.values()), 0.05)
    claim.below("largest exact match on lists of 8 and more", max(map(max, lists.values())), 0.05)
    claim.note(numbers=numbers, lists=lists, items=len(trained("bahdanau").experiment.pairs.tests["longer"]))


@pytest.mark.claim("cross-longer-how")
def test_where_long_lists_go_wrong(claim):
    """300 lists of eight numbers, trained on up to six: numbers right before the first mistake, numbers written."""
    right, written = {}, {}
    for name in ("bahdanau-lists", "transformer-lists"):
        run = trained(name)
        pairs = run.experiment.pairs
        items = pairs.tests["8_numbers"]
        words, _ = run.model.translate(pairs.source.encode([s for s, _ in items]), 60)
        guesses = [" ".join(pairs.target.decode(row)).split(" , ") for row in words]
        wanted = [" ".join(t).split(" , ") for _, t in items]
        right[name] = [
            next((i for i, (a, b) in enumerate(zip(guess, want, strict=False)) if a != b), len(guess))
            for guess, want in zip(guesses, wanted, strict=True)
        ]
        written[name] = [len(guess) for guess in guesses]
    mean = {name: float(np.mean(x)) for name, x in right.items()}
    claim.above("numbers right before the first mistake, Transformer less Bahdanau",
                mean["transformer-lists"] - mean["bahdanau-lists"], 1.0)  # fmt: skip
    claim.below("numbers right before the first mistake, Transformer", mean["transformer-lists"], 7.0)
    claim.below("numbers written by Bahdanau's translator", np.mean(written["bahdanau-lists"]), 8.0)
    claim.note(bahdanau=mean["bahdanau-lists"], lists=len(items))


@pytest.mark.claim("cross-dates")
def test_dates_between_locales(claim):
    """American dates into Hungarian ones, 500 held out: exact match of Bahdanau's translator and the Transformer."""
    runs = {name: trained(name) for name in ("bahdanau-dates", "transformer-dates")}
    for name, run in runs.items():
        claim.above(f"held-out exact match, {name}", run.results["held_out"], 0.98)
    pairs = runs["bahdanau-dates"].experiment.pairs
    claim.note(train=len(pairs.train), held_out=len(pairs.tests["held_out"]))


@pytest.mark.claim("cross-transformer")
def test_the_transformer_translates_unseen_numbers(claim):
    """Exact match on 500 held-out numbers; the mean weights of each head on tens and units."""
    run = trained("transformer")
    claim.above("held-out exact match", run.results["held_out"], 0.98)
    rows = rows_and_columns(run.experiment, inverted(run.experiment)).mean(axis=0)  # (layers, heads, 3, 3)
    reads_units, reads_tens = rows[..., 0, 1], rows[..., 2, 0]
    claim.above("largest mean weight on the units when they are written, over heads", reads_units.max(), 0.3)
    claim.above("largest mean weight on the tens when they are written, over heads", reads_tens.max(), 0.3)
    claim.note(
        layers=rows.shape[0], heads=rows.shape[1], parameters=run.results["parameters"],
        steps=len(run.loss), units=reads_units, tens=reads_tens,
    )  # fmt: skip


@pytest.mark.claim("cross-blind")
def test_a_decoder_without_cross_attention_sees_no_source(claim):
    """All heads of cross-attention of the trained Transformer multiplied by zero: what it writes for 500 numbers."""
    import copy

    from attn_guide import models

    run = trained("transformer")
    pairs = run.experiment.pairs
    items = pairs.tests["held_out"]
    blind = copy.deepcopy(run.model)
    for block in blind.decoder:
        block.cross_attention.head_mask.zero_()
    words, _ = blind.translate(pairs.source.encode([s for s, _ in items]), 12)
    written = {tuple(pairs.target.decode(row)) for row in words}
    claim.check("different translations of 500 numbers", len(written), expected=1)
    claim.below("exact match", models.exact_match(blind, pairs, items), 0.01)
    claim.note(says=" ".join(next(iter(written))), numbers=len(items))


@pytest.mark.claim("cross-positions-trained")
def test_what_positions_do_for_a_trained_model(claim):
    """The trained Transformer: encoder states in another order, source words in another order, no source positions."""
    import copy

    import torch

    from attn_guide import models

    run = trained("transformer")
    pairs, model = run.experiment.pairs, run.model
    items = inverted(run.experiment)[:200]
    generator = torch.Generator().manual_seed(0)
    limit = max(len(t) for _, t in items) + 2

    class Shuffled(type(model)):
        """Moves the source's keys and values together before the decoder sees them."""

        def encode(self, source):
            state, (keys_values, allowed) = super().encode(source)
            order = torch.randperm(source.shape[1], generator=generator)
            moved = [(k[:, :, order], v[:, :, order]) for k, v in keys_values]
            return state, (moved, allowed[..., order])

    shuffled = copy.deepcopy(model)
    shuffled.__class__ = Shuffled
    right, _ = model.translate(pairs.source.encode([s for s, _ in items]), limit)
    moved, _ = shuffled.translate(pairs.source.encode([s for s, _ in items]), limit)
    claim.require("translations from encoder states in another order are the same", torch.equal(right, moved))

    placeless = copy.deepcopy(model)
    placeless.positions = torch.zeros_like(model.positions)
    embed = placeless._embed
    keep = model.positions.clone()

    def without_source_positions(words, embedding, start=0):
        placeless.positions.copy_(torch.zeros_like(keep) if embedding is placeless.source_embedding else keep)
        return embed(words, embedding, start)

    placeless._embed = without_source_positions
    backwards = [(s[::-1], t) for s, t in items]
    score = {
        "as it is": models.exact_match(model, pairs, items),
        "words backwards": models.exact_match(model, pairs, backwards),
        "no source positions": models.exact_match(placeless, pairs, items),
    }
    claim.above("exact match, as it is", score["as it is"], 0.98)
    claim.below("exact match, source words backwards", score["words backwards"], 0.1)
    claim.below("exact match, source positions left out", score["no source positions"], 0.5)
    claim.note(numbers=len(items))


@pytest.mark.claim("cross-cache-trained")
def test_the_trained_decoder_with_and_without_its_caches(claim):
    """The trained Transformer on held-out numbers: word by word with caches, against all positions at once."""
    import torch

    run = trained("transformer")
    pairs, model = run.experiment.pairs, run.model
    items = pairs.tests["held_out"][:100]
    source, target = pairs.source.encode([s for s, _ in items]), pairs.target.encode([t for _, t in items])
    with torch.no_grad():
        at_once, weights = model(source, target)
        stepwise, looked = type(model).__mro__[1].forward(model, source, target)
    claim.below("largest difference of logits", float((at_once - stepwise).abs().max()), 1e-3, "single precision")
    claim.below("largest difference of weights", float((weights - looked).abs().max()), 1e-4, "single precision")
    claim.require("the same most probable words", torch.equal(at_once.argmax(-1), stepwise.argmax(-1)))
    claim.note(numbers=len(items))
