"""Chapter 4, Causal attention: every claim of the chapter, measured."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from functools import partial
from math import sqrt

import numpy as np
import pytest

import attn_guide as ag

#: "the cat sat down": every word is a feature of its own, so row i of a matrix of weights belongs to word i.
TOKENS = ("the", "cat", "sat", "down")
Q = np.array([[0.0, 2, 1, 0], [1, 0, 2, 0], [0, 2, 1, 1], [0, 1, 2, 0]])  # (n, d_k)
K = 2.0 * np.eye(4)  # (m, d_k)
V = np.array([[0.0, 0], [2, 0], [0, 2], [1, 1]])  # (m, d_v)


def blocks(rng: np.random.Generator, count: int, d: int = 16, heads: int = 2, kv_heads: int | None = None) -> list:
    """Draw the weights of ``count`` decoder blocks."""
    return [
        ag.EncoderLayerParams(
            ag.init_multi_head(d, heads, num_kv_heads=kv_heads, rng=rng),
            w_1=rng.standard_normal((d, 4 * d)) / sqrt(d),
            w_2=rng.standard_normal((4 * d, d)) / sqrt(4 * d),
        )
        for _ in range(count)
    ]


def run(x: np.ndarray, layers: list, **mask) -> np.ndarray:
    """Send tokens (n, d) through decoder blocks with rotary positions."""
    for params in layers:
        x = ag.encoder_layer(x, params, norm_first=True, activation="gelu", rope=ag.apply_rope, **mask)
    return x


def influence(forward, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how far output i moves when token j is replaced by a random one: (n, n)."""
    out = forward(x)
    moved = np.empty((len(x), len(x)))
    for j in range(len(x)):
        other = x.copy()
        other[j] = rng.standard_normal(x.shape[1])
        moved[:, j] = np.abs(forward(other) - out).max(axis=1)
    return moved


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - ag.log_sum_exp(logits)[..., None]


# ------------------------------------------------------------------------------------------------ why


@pytest.mark.claim("causal-cheating")
def test_without_a_mask_the_next_token_is_copied(claim):
    """A head whose query at position i equals the key at position i + 1, on random tokens: how often it is right."""
    rng = claim.rng(0)
    vocabulary, n, sequences = 16, 32, 500
    place = np.eye(n + 1)
    q, k = 40.0 * place[1:], place[:n]  # position i asks for position i + 1
    right = {"no mask": 0, "causal": 0}
    for _ in range(sequences):
        tokens = rng.integers(vocabulary, size=n)
        v = np.eye(vocabulary)[tokens]
        for name, is_causal in (("no mask", False), ("causal", True)):
            guess = ag.scaled_dot_product_attention(q, k, v, is_causal=is_causal)[:-1]
            # The causal rows tie: one of the tokens at the top is drawn.
            best = (guess + 1e-9 * rng.random(guess.shape)).argmax(axis=1)
            right[name] += int((best == tokens[1:]).sum())
    total = sequences * (n - 1)
    chance = 1 / vocabulary
    claim.check("share of right predictions without a mask", right["no mask"] / total, expected=1.0)
    claim.check(
        "share of right predictions with a causal mask", right["causal"] / total, expected=chance,
        tolerance=4 * sqrt(chance * (1 - chance) / total), why="four standard errors of guessing",
    )  # fmt: skip
    claim.note(vocabulary=vocabulary, predictions=total, chance=chance)


# ------------------------------------------------------------------------------------------------ the four steps


@pytest.mark.claim("causal-four-steps")
def test_the_four_steps_by_hand(claim):
    """The example in plain Python, visible keys alone, against ag.scaled_dot_product_attention; shapes of all steps."""
    n, d_k = 4, 4
    raw = [[sum(a * b for a, b in zip(Q[i], K[j], strict=True)) for j in range(n)] for i in range(n)]
    scores = [[s / sqrt(d_k) for s in row] for row in raw]
    weights = []
    for i in range(n):
        powers = [math.exp(scores[i][j]) if j <= i else 0.0 for j in range(n)]
        weights.append([p / sum(powers) for p in powers])
    output = [[sum(weights[i][j] * V[j][c] for j in range(n)) for c in range(2)] for i in range(n)]
    out, w = ag.scaled_dot_product_attention(Q, K, V, is_causal=True, return_weights=True)
    claim.check("weights", w, expected=weights, tolerance=1e-14, why="rounding")
    claim.check("output", out, expected=output, tolerance=1e-14, why="rounding")
    claim.check("weights above the diagonal", np.triu(w, 1), expected=np.zeros((4, 4)))
    claim.check("first row", w[0], expected=[1.0, 0, 0, 0], why="the first token sees itself alone")
    whole = ag.scaled_dot_product_attention(Q, K, V)
    claim.check("last output less that without a mask", out[-1] - whole[-1], expected=[0.0, 0.0])
    claim.check("shapes of scores, weights and output", [np.shape(scores), w.shape, out.shape],
                expected=[(4, 4), (4, 4), (4, 2)])  # fmt: skip


@pytest.mark.claim("causal-mask-before-softmax")
def test_masking_after_the_softmax_leaks(claim):
    """200 random problems: zeros put into the weights after the softmax, with and without dividing again."""
    rng = claim.rng(1)
    below = np.tril(np.ones((8, 8), bool))
    row_sum, leak, renormalised = [], [], 0.0
    for _ in range(200):
        q, k, v = rng.standard_normal((3, 8, 16))
        late = ag.softmax(ag.attention_scores(q, k)) * below
        row_sum.append(late.sum(axis=1))
        other = k.copy()
        other[4:] = rng.standard_normal((4, 16))  # the future of rows 0 ... 3
        changed = ag.softmax(ag.attention_scores(q, other)) * below
        leak.append(np.abs(changed[:4] @ v - late[:4] @ v).max())
        again = late / late.sum(axis=1, keepdims=True)
        renormalised = max(renormalised, np.abs(again - ag.softmax(ag.attention_scores(q, k, is_causal=True))).max())
    claim.check("mean sum of the first row", np.mean(row_sum, axis=0)[0], expected=1 / 8, tolerance=0.02,
                why="its share of eight random keys")  # fmt: skip
    claim.above("smallest change of outputs 0 to 3 when only keys 4 to 7 change", min(leak), 1e-3)
    claim.below("largest difference from masked scores after dividing again", renormalised, 1e-13, "rounding")
    claim.note(median_change=float(np.median(leak)), problems=200, mean_row_sums=np.mean(row_sum, axis=0))


@pytest.mark.claim("causal-finite-mask")
def test_what_a_finite_number_hides(claim):
    """Random scores (8, 8), masked with numbers instead of minus infinity, in double and half precision."""
    rng = claim.rng(2)
    scores = 3.0 * rng.standard_normal((8, 8))
    below = np.tril(np.ones((8, 8), bool))
    right = ag.softmax(scores, where=below)
    weight = {}
    for fill in (-1e9, -1e4, -100.0, -10.0):
        weights = ag.softmax(np.where(below, scores, fill))
        weight[fill] = float(weights[~below].max())
    claim.check("largest weight of the future, filled with -1e9", weight[-1e9], expected=0.0)
    claim.check("largest weight of the future, filled with -1e4", weight[-1e4], expected=0.0)
    claim.above("largest weight of the future, filled with -10", weight[-10.0], 1e-6)
    low = ag.softmax(np.where(below, scores, -1e9))
    claim.check("weights with -1e9 less those with -inf", np.abs(low - right).max(), expected=0.0)
    with np.errstate(over="ignore"):
        claim.check("-1e9 in half precision", float(np.float16(-1e9)), expected=-math.inf)
    claim.check("a row in which all is -1e9", ag.softmax(np.full(4, -1e9)), expected=np.full(4, 0.25),
                why="equal scores, however low")  # fmt: skip
    claim.note(minus_hundred=weight[-100.0])


@pytest.mark.claim("causal-printed-weights")
def test_rows_that_are_printed(claim):
    """Softmax of the scores .2 .6 .7 and .2 .3 .4 .5 with the width that is not divided by, and the printed rows."""
    three, four = np.array([0.2, 0.6, 0.7]), np.array([0.2, 0.3, 0.4, 0.5])
    printed_three, printed_four = np.array([0.22, 0.35, 0.43]), np.array([0.18, 0.22, 0.26, 0.34])
    claim.note(three=ag.softmax(three), four=ag.softmax(four), two=ag.softmax(np.array([0.2, 0.6])))
    claim.note(scaled_two=ag.softmax(np.array([0.2, 0.6]) / 8), scaled_three=ag.softmax(three / 8))
    temperatures = np.arange(0.05, 3, 0.001)
    for name, scores, printed in (("three", three, printed_three), ("four", four, printed_four)):
        off = [np.abs(ag.softmax(scores, temperature=tau) - printed).max() for tau in temperatures]
        claim.above(f"smallest distance of the printed {name} from any temperature", min(off), 0.005,
                    "more than rounding to two digits")  # fmt: skip
        claim.note(**{f"nearest temperature, {name}": float(temperatures[int(np.argmin(off))])})


# ------------------------------------------------------------------------------------------------ leak tests


@pytest.mark.claim("causal-no-leak")
def test_nothing_leaks_by_perturbation(claim):
    """Four blocks with rotary positions on 12 tokens; every token is replaced in turn, and all outputs are compared."""
    rng = claim.rng(3)
    layers, x = blocks(rng, 4), rng.standard_normal((12, 16))
    causal = influence(partial(run, layers=layers, is_causal=True), x, rng)
    both = influence(partial(run, layers=layers), x, rng)
    upper = np.triu_indices(12, 1)
    lower = np.tril_indices(12)
    claim.check("largest change of an output before the token", causal[upper].max(), expected=0.0)
    claim.above("smallest change of an output at or after it", causal[lower].min(), 1e-4)
    claim.above("smallest change before it, without a mask", both[upper].min(), 1e-4)
    claim.note(layers=4, n=12)


@pytest.mark.claim("causal-no-leak-gradient")
def test_nothing_leaks_by_gradients(claim):
    """Three attentions with residual connections: the gradient of every output with respect to every input token."""
    rng = claim.rng(4)
    n, d = 12, 16
    layers = [ag.init_multi_head(d, 4, rng=rng) for _ in range(3)]
    inputs = [rng.standard_normal((n, d))]
    for params in layers:
        x = inputs[-1]
        inputs.append(x + ag.multi_head_attention(x, x, x, params, is_causal=True))
    size = np.empty((n, n))
    for t in range(n):
        grad = np.zeros((n, d))
        grad[t] = rng.standard_normal(d)
        for params, x in zip(reversed(layers), reversed(inputs[:-1]), strict=True):
            g_q, g_k, g_v, _ = ag.multi_head_attention_backward(grad, x, x, x, params, is_causal=True)
            grad = grad + g_q + g_k + g_v
        size[t] = np.linalg.norm(grad, axis=1)
    claim.check("largest gradient with respect to a later token", size[np.triu_indices(n, 1)].max(), expected=0.0)
    claim.above("smallest with respect to the token itself or an earlier one", size[np.tril_indices(n)].min(), 1e-6)


@pytest.mark.claim("causal-nan")
def test_zero_times_nan(claim):
    """A NaN in the last of four values and in the last key, under a causal mask."""
    torch = pytest.importorskip("torch")
    value, key = V.copy(), K.copy()
    value[-1], key[-1] = np.nan, np.nan
    by_hand = ag.softmax(np.where(np.tril(np.ones((4, 4), bool)), ag.attention_scores(Q, K), -np.inf)) @ value
    claim.check("rows with NaN, written by hand, NaN in a value", int(np.isnan(by_hand).any(axis=1).sum()), expected=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masked = np.where(np.tril(np.ones((4, 4), bool)), Q @ key.T / 2, -np.inf)
    rows = np.isnan(ag.softmax(masked[:3]) @ V).any(axis=1).sum()
    claim.check("rows before the last with NaN, NaN in a key", int(rows), expected=0)
    tensors = [torch.from_numpy(a)[None, None] for a in (Q, K, value)]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        out = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True)[0, 0]
    claim.check("rows with NaN, PyTorch's math path, NaN in a value", int(out.isnan().any(dim=1).sum()), expected=4)


# ------------------------------------------------------------------------------------------------ one pass


@pytest.mark.claim("causal-one-pass")
def test_one_pass_equals_all_prefixes(claim):
    """Three blocks: row t of the whole sequence against the last row of its first t + 1 tokens, both kinds of mask."""
    rng = claim.rng(5)
    layers, x = blocks(rng, 3), rng.standard_normal((24, 16))
    off = {}
    for name, mask in (("causal", {"is_causal": True}), ("bidirectional", {})):
        whole = run(x, layers, **mask)
        prefixes = np.array([run(x[: t + 1], layers, **mask)[-1] for t in range(24)])
        off[name] = np.abs(whole - prefixes).max(axis=1)
    claim.below("largest difference, causal", off["causal"].max(), 1e-12, "rounding")
    claim.above("smallest difference, bidirectional", off["bidirectional"][:-1].min(), 1e-2)
    claim.note(n=24, layers=3)


@pytest.mark.claim("causal-teacher-forcing")
def test_losses_of_one_pass_are_those_of_the_prefixes(claim):
    """A random model of three blocks and 20 words: losses in one pass, prefix by prefix, and of the whole text."""
    rng = claim.rng(6)
    vocabulary, n, d = 20, 32, 16
    embed, unembed = rng.standard_normal((vocabulary, d)), rng.standard_normal((d, vocabulary)) / sqrt(d)
    layers = blocks(rng, 3)
    text = rng.integers(vocabulary, size=n + 1)
    inputs, targets = text[:-1], text[1:]
    logits = run(embed[inputs], layers, is_causal=True) @ unembed
    one_pass = -log_softmax(logits)[np.arange(n), targets]
    one_by_one = np.array(
        [-log_softmax(run(embed[text[: t + 1]], layers, is_causal=True)[-1] @ unembed)[text[t + 1]] for t in range(n)]
    )
    claim.below("largest difference of the losses", np.abs(one_pass - one_by_one).max(), 1e-11, "rounding")
    probability = math.prod(float(np.exp(-loss)) for loss in one_by_one)
    claim.check("sum of the losses and -log of the product of probabilities", one_pass.sum(),
                expected=-math.log(probability), tolerance=1e-9, why="rounding")  # fmt: skip
    changed = embed[inputs].copy()
    changed[n // 2] = embed[(inputs[n // 2] + 1) % vocabulary]
    moved = -log_softmax(run(changed, layers, is_causal=True) @ unembed)[np.arange(n), targets] != one_pass
    claim.check("first loss that a changed token moves", int(np.flatnonzero(moved)[0]), expected=n // 2)
    claim.note(n=n, vocabulary=vocabulary)


@pytest.mark.claim("causal-one-pass-work")
def test_work_of_one_pass_and_of_the_prefixes(claim):
    """Multiply-adds of Q K^T and of the weighted sum, added up from ag.attention_flops."""
    d = 64
    for n in (128, 1024, 8192):
        one = ag.attention_flops(n, d).quadratic
        prefixes = sum(ag.attention_flops(t, d).quadratic for t in range(1, n + 1))
        claim.check(f"prefixes over one pass at n = {n}", prefixes / one, expected=n / 3, tolerance=0.6,
                    why="(n + 1)(2n + 1) / 6n is n/3 and a half")  # fmt: skip


@pytest.mark.claim("causal-pairs")
def test_half_of_the_pairs(claim):
    """Pairs under ag.causal; keys per row for four tokens; processor time with and without the mask."""
    lengths = [4, 64, 1024, 16384]
    pairs = [ag.causal.count(n) for n in lengths]
    claim.check("pairs", pairs, expected=[n * (n + 1) // 2 for n in lengths])
    claim.check("keys of each of four queries, causal", ag.causal.materialize(4).sum(axis=1), expected=[1, 2, 3, 4])
    claim.check("keys of each of four queries, bidirectional", ag.full.materialize(4).sum(axis=1), expected=[4] * 4)
    rng = claim.rng(7)
    q, k, v = rng.standard_normal((3, 4096, 64)).astype(np.float32)
    seconds = {}
    for name, is_causal in (("full", False), ("causal", True)):
        taken = []
        for _ in range(4):
            start = time.process_time()
            ag.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
            taken.append(time.process_time() - start)
        seconds[name] = min(taken[1:])
    claim.note(
        lengths=lengths, density=[ag.causal.density(n) for n in lengths], time_ratio=seconds["causal"] / seconds["full"]
    )


@pytest.mark.claim("causal-first-token")
def test_what_the_mask_alone_gives_the_first_token(claim):
    """Attention received by each position when all scores tie, and with random scores: sums down the columns."""
    n = 64
    tied = ag.softmax(np.zeros((n, n)), where=ag.causal.materialize(n)).sum(axis=0)
    harmonic = np.cumsum(1 / np.arange(1, n + 1))
    expected = harmonic[-1] - np.concatenate([[0.0], harmonic[:-1]])
    claim.check("received by positions 0 to 63, tied scores", tied, expected=expected, tolerance=1e-12, why="rounding")
    rng = claim.rng(8)
    received = [ag.softmax(rng.standard_normal((n, n)), where=ag.causal.materialize(n)).sum(axis=0) for _ in range(400)]
    mean, error = np.mean(received, axis=0), np.std(received, axis=0) / 20
    claim.check("received by the first, random scores", mean[0], expected=expected[0], tolerance=4 * error[0],
                why="four standard errors")  # fmt: skip
    claim.note(n=n, first=tied[0], middle=tied[n // 2], last=tied[-1])


# ------------------------------------------------------------------------------------------------ families of models


@pytest.mark.claim("causal-families")
def test_pairs_of_the_three_families(claim):
    """Source of 6 and target of 5 tokens as one sequence: who sees whom in encoder-decoder, prefix-LM, decoder-only."""
    source, target = 6, 5
    n = source + target
    encoder_decoder = np.zeros((n, n), bool)
    encoder_decoder[:source, :source] = ag.full.materialize(source)  # the encoder
    encoder_decoder[source:, :source] = ag.full.materialize(target, source)  # cross-attention
    encoder_decoder[source:, source:] = ag.causal.materialize(target)  # the decoder
    claim.require("encoder-decoder and prefix-LM let the same pairs meet",
                  (encoder_decoder == ag.prefix(source).materialize(n)).all())  # fmt: skip
    claim.check("pairs that a decoder-only model lacks", int(encoder_decoder.sum()) - ag.causal.count(n),
                expected=source * (source - 1) // 2)  # fmt: skip
    claim.note(pairs={"prefix": int(encoder_decoder.sum()), "causal": ag.causal.count(n), "full": n * n}, n=n)


@pytest.mark.claim("causal-prefix")
def test_a_prefix_sees_itself_whole(claim):
    """Two blocks, 10 tokens, a prefix of 4: who moves whom; and what a longer prefix does to earlier outputs."""
    rng = claim.rng(9)
    layers, x = blocks(rng, 2), rng.standard_normal((10, 16))
    moved = influence(partial(run, layers=layers, mask_mod=ag.prefix(4)), x, rng)
    claim.above("smallest change within the prefix", moved[:4, :4].min(), 1e-4)
    claim.check("largest change of the prefix by what follows", moved[:4, 4:].max(), expected=0.0)
    claim.check("largest change of what follows by its own future", np.triu(moved[4:, 4:], 1).max(), expected=0.0)
    short, long = (run(x, layers, mask_mod=ag.prefix(length)) for length in (4, 6))
    claim.above("smallest change of the first four outputs when the prefix grows to six",
                np.abs(short[:4] - long[:4]).max(axis=1).min(), 1e-4)  # fmt: skip
    before, after = run(x[:6], layers, is_causal=True), run(x, layers, is_causal=True)
    claim.below("change of earlier outputs under a causal mask when tokens are added",
                np.abs(before - after[:6]).max(), 1e-12, "rounding")  # fmt: skip


@pytest.mark.claim("causal-document")
def test_packed_documents_do_not_meet(claim):
    """Documents of 5, 3 and 8 tokens packed into 16, with rotary positions: against each by itself."""
    rng = claim.rng(10)
    lengths = [5, 3, 8]
    layers, x = blocks(rng, 3), rng.standard_normal((16, 16))
    mask = ag.causal & ag.document(np.repeat([0, 1, 2], lengths))
    packed = run(x, layers, mask_mod=mask)
    mixed = run(x, layers, is_causal=True)
    edges = np.cumsum([0, *lengths])
    alone = np.concatenate([run(x[a:b], layers, is_causal=True) for a, b in itertools.pairwise(edges)])
    claim.below("largest difference between packed and alone", np.abs(packed - alone).max(), 1e-11, "rounding")
    claim.check("change of the first document without a document mask", np.abs(mixed - alone)[:5].max(), expected=0.0,
                tolerance=1e-11, why="nothing stands before it")  # fmt: skip
    claim.above(
        "smallest change of a token in the others without it", np.abs(mixed - alone)[5:].max(axis=1).min(), 1e-2
    )
    table = rng.standard_normal((16, 16))  # learned positions, added to the tokens
    plain = partial(lambda t, m: ag.encoder_layer(t, layers[0], norm_first=True, mask_mod=m))
    counted_on = plain(x + table, mask)[5:8]
    by_itself = plain(x[5:8] + table[:3], ag.causal)
    claim.above(
        "change of the second document when absolute positions count on", np.abs(counted_on - by_itself).max(), 0.1
    )
    claim.note(pairs=mask.count(16), causal_pairs=ag.causal.count(16))


@pytest.mark.claim("causal-padding")
def test_padding_at_either_end(claim):
    """Six tokens padded to nine, on the right and on the left, under a causal mask with and without a padding mask."""
    rng = claim.rng(11)
    layers, x = blocks(rng, 2), rng.standard_normal((6, 16))
    pad = rng.standard_normal((3, 16))
    alone = run(x, layers, is_causal=True)
    right = run(np.concatenate([x, pad]), layers, is_causal=True)[:6]
    claim.below("change by padding on the right, causal mask alone", np.abs(right - alone).max(), 1e-12, "rounding")
    left = np.concatenate([pad, x])
    claim.above(
        "change by padding on the left, causal mask alone",
        np.abs(run(left, layers, is_causal=True)[3:] - alone).max(),
        0.1,
    )
    real = ag.Mask(lambda b, h, q_idx, kv_idx: (kv_idx >= 3) & (q_idx >= 0), name="real_keys")
    masked = run(left, layers, mask_mod=ag.causal & real)[3:]
    claim.below("change by padding on the left, padding masked", np.abs(masked - alone).max(), 1e-11, "rounding")
    empty = ~(ag.causal & real).materialize(9).any(axis=1)
    claim.check("rows that see nothing", int(empty.sum()), expected=3)


# ------------------------------------------------------------------------------------------------ masks


@pytest.mark.claim("causal-composition")
def test_and_keeps_causality_or_may_break_it(claim):
    """Every mask of the zoo, met with ag.causal and joined with it, at n = 12: pairs above the diagonal."""
    zoo = {
        "window": ag.sliding_window(2, 2), "prefix": ag.prefix(4), "document": ag.document([0] * 5 + [1] * 7),
        "block_local": ag.block_local(3), "blockwise": ag.blockwise(ag.causal, 3), "global": ag.global_tokens([0]),
        "dilated": ag.dilated_window(2, 2, 2), "strided": ag.strided(3), "full": ag.full,
    }  # fmt: skip
    future = np.triu(np.ones((12, 12), bool), 1)
    met = {name: int((ag.causal & mask).materialize(12)[future].sum()) for name, mask in zoo.items()}
    joined = {name: int((ag.causal | mask).materialize(12)[future].sum()) for name, mask in zoo.items()}
    claim.check("future pairs of any mask met with causal", sum(met.values()), expected=0)
    claim.above("future pairs of each joined with causal", min(joined.values()), 0.5, "each of these looks ahead")
    streaming = ag.sinks(2) | ag.causal & ag.sliding_window(3, 0)
    claim.check(
        "future pairs of sinks joined with a causal window", int(streaming.materialize(12)[future].sum()), expected=0
    )
    claim.note(masks=len(zoo))


@pytest.mark.claim("causal-window-reach")
def test_how_far_a_window_reaches(claim):
    """Influence through 1 to 4 blocks under a causal window of 4 keys: the farthest token that moves the last."""
    rng = claim.rng(12)
    window, n = 4, 20
    x = rng.standard_normal((n, 16))
    reach = []
    for count in (1, 2, 3, 4):
        layers = blocks(rng, count)
        mask = ag.causal & ag.sliding_window(window - 1, 0)
        moved = influence(partial(run, layers=layers, mask_mod=mask), x, rng)[-1]
        reach.append(int((moved > 0).sum()))
    claim.check(
        "tokens that move the last output", reach, expected=[count * (window - 1) + 1 for count in (1, 2, 3, 4)]
    )
    claim.note(mistral=32 * (4096 - 1) + 1, window=window, mistral_product=32 * 4096)


@pytest.mark.claim("causal-global-leak")
def test_a_global_token_leaks_and_a_sink_does_not(claim):
    """Eight tokens, the last of them changed: how far each earlier output moves in one and in two blocks."""
    rng = claim.rng(13)
    n = 8
    x = rng.standard_normal((n, 16))
    other = x.copy()
    other[-1] = rng.standard_normal(16)
    window = ag.causal & ag.sliding_window(1, 0)
    layers = blocks(rng, 2)
    masks = {"global": ag.global_tokens([0]) | window, "sink": ag.sinks(1) | window}
    for name, mask in masks.items():
        for count in (1, 2):
            moved = np.abs(run(other, layers[:count], mask_mod=mask) - run(x, layers[:count], mask_mod=mask)).max(
                axis=1
            )[:-1]
            claim.note(**{f"{name} {count}": moved})
            if name == "sink":
                claim.check(f"largest change of an earlier output, sink, layers: {count}", moved.max(), expected=0.0)
            elif count == 1:
                claim.check("earlier outputs that move in one layer, global token", np.flatnonzero(moved > 0),
                            expected=[0], why="only the global row sees the change")  # fmt: skip
            else:
                claim.above("smallest change of an earlier output in two layers, global token", moved.min(), 1e-6)


# ------------------------------------------------------------------------------------------------ a row with nothing


@pytest.mark.claim("causal-masked-row")
def test_a_row_that_sees_nothing(claim):
    """Scores 0 1 2 3, values 1 2 3 4, all forbidden: what is returned by this package, PyTorch and by hand."""
    torch = pytest.importorskip("torch")
    q, k, v = np.ones((1, 1)), np.arange(4.0).reshape(4, 1), np.arange(1.0, 5).reshape(4, 1)
    nothing = np.zeros((1, 4), bool)
    out, weights = ag.scaled_dot_product_attention(q, k, v, nothing, return_weights=True)
    claim.check("output here", out.item(), expected=0.0)
    claim.check("weights here", weights[0], expected=np.zeros(4))
    gradients = ag.scaled_dot_product_attention_backward(np.ones((1, 1)), q, k, v, nothing)
    claim.check("largest gradient here", max(np.abs(g).max() for g in gradients[:3]), expected=0.0)
    claim.check("log-sum-exp here", float(ag.log_sum_exp(np.full(4, -np.inf))), expected=-math.inf)
    with np.errstate(invalid="ignore"):
        scores = np.full(4, -np.inf)
        powers = np.exp(scores - scores.max())
        by_hand = float((powers / powers.sum()) @ v[:, 0])
    claim.require("by hand: NaN", math.isnan(by_hand), "the largest score is -inf, and -inf less -inf is no number")
    low = float(ag.softmax((q @ k.T)[0] * 0 - 1e9) @ v[:, 0])
    claim.check("with -1e9: the mean of what was hidden", low, expected=2.5)
    tensors = [torch.from_numpy(a)[None, None] for a in (q, k, v)]
    for backend in ("MATH", "FLASH_ATTENTION"):
        with torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, backend)):
            got = torch.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=torch.from_numpy(nothing))
        claim.check(f"PyTorch, {backend}", got.item(), expected=0.0)
    claim.note(torch=torch.__version__)


@pytest.mark.claim("causal-masked-row-gradient")
def test_a_nan_row_spoils_gradients(claim):
    """PyTorch by hand, three queries of which the first sees nothing and is left out of the loss: NaN in gradients."""
    torch = pytest.importorskip("torch")
    rng = claim.rng(14)
    x = torch.from_numpy(rng.standard_normal((1, 3, 4)))
    start = torch.from_numpy(rng.standard_normal((2, 4, 4)))
    allowed = torch.tensor([[False, False, False], [True, True, False], [True, True, True]])
    bias = torch.zeros(3, 3, dtype=torch.float64).masked_fill(~allowed, -math.inf)

    def filled(q, k, v):
        return torch.softmax((q @ k.mT / 2).masked_fill(~allowed, -math.inf), dim=-1) @ v

    def added(q, k, v):
        return torch.softmax(q @ k.mT / 2 + bias, dim=-1) @ v

    def attention(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)

    spoiled = {}
    for name, attend in (("filled", filled), ("added", added), ("attention", attention)):
        w_k, w_v = start.clone().requires_grad_().unbind()
        w_k.retain_grad(), w_v.retain_grad()
        attend(x, x @ w_k, x @ w_v)[:, 1:].sum().backward()  # the loss does not look at row 0
        spoiled[name] = [int(w.grad.isnan().sum()) for w in (w_k, w_v)]
    claim.check("NaN among 16 gradients of W_K and 16 of W_V, masked_fill", spoiled["filled"], expected=[0, 16])
    claim.check("NaN among 16 gradients of W_K and 16 of W_V, -inf added", spoiled["added"], expected=[16, 16])
    claim.check("NaN among 16 gradients of W_K and 16 of W_V, PyTorch's attention", spoiled["attention"],
                expected=[0, 0])  # fmt: skip


# ------------------------------------------------------------------------------------------------ the cache


@pytest.mark.claim("causal-cache-equal")
def test_cached_decoding_equals_computing_again(claim):
    """Three blocks with rotary positions and grouped heads: a prompt of 6, then 18 single tokens, against one pass."""
    rng = claim.rng(15)
    n, prompt, d, heads = 24, 6, 16, 4
    layers, x = blocks(rng, 3, d, heads, kv_heads=2), rng.standard_normal((n, d))
    caches = [ag.KVCache(rope=ag.apply_rope) for _ in layers]

    def step(t: np.ndarray) -> np.ndarray:
        for params, cache in zip(layers, caches, strict=True):
            p, y = params.self_attention, ag.layer_norm(t)
            q, k, v = ag.split_heads(y @ p.w_q, heads), ag.split_heads(y @ p.w_k, 2), ag.split_heads(y @ p.w_v, 2)
            t = t + ag.merge_heads(cache.attend(q, k, v)) @ p.w_o
            t = t + ag.gelu(ag.layer_norm(t) @ params.w_1) @ params.w_2
        return t

    cached = np.concatenate([step(x[:prompt]), *(step(x[t : t + 1]) for t in range(prompt, n))])
    claim.below("largest difference", np.abs(cached - run(x, layers, is_causal=True)).max(), 1e-11, "rounding")
    claim.check("tokens in each cache", [len(cache) for cache in caches], expected=[n] * 3)
    claim.note(n=n, prompt=prompt, layers=3, heads=heads, kv_heads=2)


class Counter:
    """A matrix product that adds up its multiply-adds."""

    def __init__(self) -> None:
        self.macs = 0

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.macs += a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


@pytest.mark.claim("causal-cache-macs")
def test_multiply_adds_of_one_token(claim):
    """One head of width 64: the products of the last token are counted, with a cache and with none."""
    rng = claim.rng(16)
    d = 64
    w_q, w_k, w_v = rng.standard_normal((3, d, d)) / sqrt(d)
    lengths = [128, 256, 512, 1024]
    with_cache, without = [], []
    for n in lengths:
        x = rng.standard_normal((n, d))
        old_k, old_v = x[:-1] @ w_k, x[:-1] @ w_v  # in the cache
        product = Counter()
        q, k, v = (product(x[-1:], w) for w in (w_q, w_k, w_v))
        scores = product(q, np.concatenate([old_k, k]).T) / sqrt(d)
        out = product(ag.softmax(scores), np.concatenate([old_v, v]))
        with_cache.append(product.macs)
        again = Counter()
        q, k, v = (again(x, w) for w in (w_q, w_k, w_v))
        scores = again(q, k.T) / sqrt(d)
        whole = again(ag.softmax(scores, where=ag.causal.materialize(n)), v)
        without.append(again.macs)
        claim.below(f"difference of the outputs at n = {n}", np.abs(out - whole[-1:]).max(), 1e-12, "rounding")
    claim.check("with a cache", with_cache, expected=[2 * n * d + 3 * d * d for n in lengths])
    claim.check("without", without, expected=[2 * n * n * d + 3 * n * d * d for n in lengths])
    claim.check("ratio", [a / b for a, b in zip(without, with_cache, strict=True)], expected=lengths)
    growth = np.diff(with_cache) / np.diff(lengths)
    claim.check("more per token of context, with a cache", growth, expected=[2.0 * d] * 3, why="it is not constant")
    claim.note(lengths=lengths, d=d)


@pytest.mark.claim("causal-generation-macs")
def test_multiply_adds_of_a_whole_text(claim):
    """The attention part, added up over all tokens of a text, from ag.attention_flops."""
    d = 64
    lengths = [128, 1024, 8192]
    cached, again = [], []
    for n in lengths:
        cached.append(sum(ag.attention_flops(1, d, m=t).quadratic for t in range(1, n + 1)))
        again.append(sum(ag.attention_flops(t, d).quadratic for t in range(1, n + 1)))
        claim.check(f"cached over n^2 d at n = {n}", cached[-1] / (n * n * d), expected=1.0, tolerance=1.5 / n,
                    why="n (n + 1) d")  # fmt: skip
        claim.check(f"recomputed over 2/3 n^3 d at n = {n}", again[-1] / (2 / 3 * n**3 * d), expected=1.0,
                    tolerance=2 / n, why="d n (n + 1)(2n + 1) / 3")  # fmt: skip
    claim.note(lengths=lengths, cached=cached, recomputed=again, d=d)


@pytest.mark.claim("causal-cache-time")
def test_time_of_one_token(claim):
    """Processor time of one token after n, 8 heads of width 64, single precision: recorded, its order judged."""
    rng = claim.rng(17)
    heads, d = 8, 64
    lengths = [256, 512, 1024, 2048]
    cached, again = [], []
    for n in lengths:
        q, k, v = rng.standard_normal((3, heads, n, d)).astype(np.float32)
        cache = ag.KVCache(capacity=n + 64)
        cache.append(k[:, :-1], v[:, :-1])
        new = [a[:, -1:] for a in (q, k, v)]
        start = time.process_time()
        for _ in range(20):
            cache.attend(*new)
        cached.append((time.process_time() - start) / 20)
        taken = []
        for _ in range(3):
            start = time.process_time()
            ag.scaled_dot_product_attention(q, k, v, is_causal=True)
            taken.append(time.process_time() - start)
        again.append(min(taken))
    claim.above("recomputing over cached at 2048 tokens", again[-1] / cached[-1], 20.0, "n = 2048 by count")
    claim.note(
        lengths=lengths, cached_ms=[1e3 * t for t in cached], recomputed_ms=[1e3 * t for t in again], heads=heads, d=d
    )


@pytest.mark.claim("causal-cache-bytes")
def test_bytes_of_real_caches(claim):
    """ag.kv_cache_bytes for published shapes, half precision; and against a cache that was filled."""
    models = {
        "GPT-2": (12, 12, 64, 1024, None), "Llama 2 7B": (32, 32, 128, 4096, None),
        "Llama 2 70B": (80, 8, 128, 4096, None), "Mistral 7B": (32, 8, 128, 32768, 4096),
    }  # fmt: skip
    table = {}
    for name, (layers, h_kv, d, n, window) in models.items():
        table[name] = {
            "per token": ag.kv_cache_bytes(layers, h_kv, d),
            "whole": ag.kv_cache_bytes(layers, h_kv, d, n=n, window=window),
            "n": n,
        }
    claim.note(table=table)
    claim.note(unwindowed=ag.kv_cache_bytes(32, 8, 128, n=32768))
    rng = claim.rng(18)
    cache = ag.KVCache()
    cache.append(*rng.standard_normal((2, 8, 100, 128)).astype(np.float16))
    claim.check("bytes of a filled cache, one layer of 8 heads, 100 tokens", cache.nbytes,
                expected=ag.kv_cache_bytes(1, 8, 128, n=100))  # fmt: skip
    claim.check("Llama 2 7B, one token", table["Llama 2 7B"]["per token"], expected=2 * 32 * 32 * 128 * 2)


@pytest.mark.claim("causal-cache-intensity")
def test_multiply_adds_for_each_byte_of_the_cache(claim):
    """Attention of a prompt of n tokens and of one token over n: multiply-adds over bytes of keys and values."""
    n, d = 1024, 128
    read = ag.kv_cache_bytes(1, 1, d, n=n)
    one = ag.attention_flops(1, d, m=n).quadratic / read
    grouped = ag.attention_flops(1, 8 * d, m=n, num_heads=8, num_kv_heads=1, d_k=d, d_v=d).quadratic / read
    prompt = ag.attention_flops(n, d).quadratic / read
    claim.check("one token, one head", one, expected=0.5, why="two bytes a number, one product each")
    claim.check("one token, eight query heads on one key head", grouped, expected=4.0)
    claim.check("a prompt of 1024 tokens", prompt, expected=n / 2)


@pytest.mark.claim("causal-window-cache")
def test_a_cache_that_does_not_grow(claim):
    """200 tokens through a cache with a window of 16 and 2 sinks: what is stored, and against the mask in one pass."""
    rng = claim.rng(19)
    q, k, v = rng.standard_normal((3, 2, 200, 8))
    cache = ag.KVCache(window=16, sinks=2)
    outputs, stored = [], []
    for t in range(200):
        outputs.append(cache.attend(*(a[:, t : t + 1] for a in (q, k, v))))
        stored.append(len(cache.positions))
    mask = ag.sinks(2) | ag.causal & ag.sliding_window(15, 0)
    whole = ag.scaled_dot_product_attention(q, k, v, mask_mod=mask)
    claim.below("largest difference", np.abs(np.concatenate(outputs, axis=1) - whole).max(), 1e-12, "rounding")
    claim.check("most tokens stored", max(stored), expected=18)
    claim.check("positions stored at the end", cache.positions, expected=[0, 1, *range(184, 200)])


# ------------------------------------------------------------------------------------------------ alignment


def rows_of(mask: np.ndarray) -> list[str]:
    """Return a mask as rows of x and ., such as "x.." for a query that sees the first of three keys."""
    return ["".join("x" if seen else "." for seen in row) for row in np.asarray(mask)]


def visible(attend, n: int, m: int) -> list[str]:
    """Return which keys count in the outputs of ``attend(q, k, v)``, by giving every key a value of its own."""
    out = np.asarray(attend(np.ones((n, m)), np.zeros((m, m)), np.eye(m)))
    assert np.isfinite(out).all()
    return rows_of(out > 0)


@pytest.mark.claim("causal-alignment")
def test_where_libraries_put_the_triangle(claim):
    """3 queries with 5 keys and 5 with 3: which keys count, in this package, in PyTorch and in the ONNX reference."""
    torch = pytest.importorskip("torch")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator
    from torch.nn.attention.bias import causal_lower_right

    def with_torch(**options):
        def attend(q, k, v):
            tensors = [torch.from_numpy(a)[None, None] for a in (q, k, v)]
            return torch.nn.functional.scaled_dot_product_attention(*tensors, **options)[0, 0].numpy()

        return attend

    def with_onnx(past: int):
        def attend(q, k, v):
            names = ["q", "k", "v"] + (["", "past_key", "past_value"] if past else [])
            outs = ["y"] + (["present_key", "present_value"] if past else [])
            node = helper.make_node("Attention", names, outs, is_causal=1)
            value = partial(helper.make_tensor_value_info, elem_type=TensorProto.DOUBLE, shape=None)
            graph = helper.make_graph([node], "g", [value(a) for a in names if a], [value(a) for a in outs])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
            feed = {"q": q, "k": k[past:], "v": v[past:]} | (
                {"past_key": k[:past], "past_value": v[:past]} if past else {}
            )
            return ReferenceEvaluator(model).run(None, {a: b[None, None] for a, b in feed.items()})[0][0, 0]

        return attend

    def with_cache(q, k, v):
        cache = ag.KVCache()
        cache.append(k[None, : -len(q)], v[None, : -len(q)])
        return cache.attend(q[None], k[None, -len(q) :], v[None, -len(q) :])[0]

    top_left = {"wide": ["x....", "xx...", "xxx.."], "tall": ["x..", "xx.", "xxx", "xxx", "xxx"]}
    bottom_right = {"wide": ["xxx..", "xxxx.", "xxxxx"], "tall": ["...", "...", "x..", "xx.", "xxx"]}
    here = partial(ag.scaled_dot_product_attention, is_causal=True)
    for shape, (n, m) in (("wide", (3, 5)), ("tall", (5, 3))):
        with warnings.catch_warnings():  # PyTorch warns of NaN where n > m; what it returns is judged below
            warnings.simplefilter("ignore")
            theirs = causal_lower_right(n, m)
        lower = partial(ag.scaled_dot_product_attention, mask_mod=ag.causal_lower_right(n, m))
        for name, attend, expected in (
            ("here, is_causal", here, top_left),
            ("here, causal_lower_right", lower, bottom_right),
            ("PyTorch, is_causal", with_torch(is_causal=True), top_left),
            ("PyTorch, causal_lower_right", with_torch(attn_mask=theirs), bottom_right),
            ("ONNX, is_causal without a past", with_onnx(0), top_left),
        ):
            claim.check(f"{name}, {n} × {m}", " ".join(visible(attend, n, m)), expected=" ".join(expected[shape]))
    claim.check("ONNX, is_causal with a past of 2, 3 × 5", " ".join(visible(with_onnx(2), 3, 5)),
                expected=" ".join(bottom_right["wide"]))  # fmt: skip
    claim.check("here, KVCache holding 2, 3 × 5", " ".join(visible(with_cache, 3, 5)),
                expected=" ".join(bottom_right["wide"]))  # fmt: skip
    claim.note(torch=torch.__version__, onnx=onnx.__version__)


@pytest.mark.claim("causal-alignment-bug")
def test_the_wrong_alignment_in_decoding(claim):
    """One new query over 10 stored keys with is_causal=True: what it gets."""
    torch = pytest.importorskip("torch")
    rng = claim.rng(20)
    q, k, v = rng.standard_normal((1, 8)), rng.standard_normal((10, 8)), rng.standard_normal((10, 8))
    wrong = ag.scaled_dot_product_attention(q, k, v, is_causal=True)
    claim.check("output less the first value, here", np.abs(wrong - v[:1]).max(), expected=0.0)
    tensors = [torch.from_numpy(a)[None, None] for a in (q, k, v)]
    theirs = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True)[0, 0].numpy()
    claim.below("output less the first value, PyTorch", np.abs(theirs - v[:1]).max(), 1e-12, "rounding")
    right = ag.scaled_dot_product_attention(q, k, v, mask_mod=ag.causal_lower_right(1, 10))
    claim.check("right alignment less no mask at all", np.abs(right - ag.scaled_dot_product_attention(q, k, v)).max(),
                expected=0.0, tolerance=1e-15, why="the newest token may see all")  # fmt: skip


# ------------------------------------------------------------------------------------------------ a language model


def held_out(experiment, length: int, count: int):
    """Return windows (count, length + 1) of the text that the training left out: every tenth piece of 2,000."""
    import torch

    from attn_guide.models.gpt import corpus

    text = corpus()
    pieces = [text[i : i + 2000] for i in range(0, len(text) - 1999, 2000)][9::10]
    windows = [p[i : i + length + 1] for p in pieces for i in range(0, len(p) - length, length + 1)]
    return torch.stack([experiment.encode(window) for window in windows[:count]])


def losses(experiment, rows, mask: ag.Mask) -> np.ndarray:
    """Return the loss of each position of each window (count, length) when the model reads under a mask of its own."""
    import torch

    model, allowed = experiment.model, torch.from_numpy(mask.materialize(rows.shape[1] - 1))
    found = []
    with torch.no_grad():
        for part in rows.split(20):
            x = model.embedding(part[:, :-1]) * model.embedding.weight.shape[1] ** 0.5
            for block in model.blocks:
                x = block(x, allowed)[0]
            logits = model.output(model.norm(x))
            found.append(torch.nn.functional.cross_entropy(logits.mT, part[:, 1:], reduction="none"))
    return torch.cat(found).numpy().astype(float)


def standard_error(x: np.ndarray) -> float:
    """Return the standard error of the mean of one number for each window."""
    return float(x.std(ddof=1) / sqrt(len(x)))


@pytest.mark.claim("causal-gpt-baselines")
def test_the_language_model_beats_counting(claim):
    """Held-out loss of the trained decoder in nats per character, and of unigram and bigram counts."""
    pytest.importorskip("torch")
    from attn_guide import models
    from attn_guide.models.gpt import corpus

    trained = models.load("gpt")
    found = losses(trained.experiment, held_out(trained.experiment, 96, 400), ag.causal).mean(axis=1)
    counts = trained.experiment.baselines()
    claim.below("loss of the model", found.mean(), counts["bigram"], "the bigram's loss")
    claim.below("loss of the bigram", counts["bigram"], counts["unigram"], "the unigram's loss")
    claim.note(error=standard_error(found), unigram=counts["unigram"], windows=len(found), characters=len(corpus()))
    claim.note(parameters=int(trained.results["parameters"]), kinds=len(trained.experiment.characters))
    claim.note(
        settings={name: models.recipe("gpt").settings[name] for name in ("width", "layers", "heads", "length", "steps")}
    )


@pytest.mark.claim("causal-gpt-position")
def test_loss_falls_with_what_has_been_read(claim):
    """Held-out loss by position: after the first character, after 2 to 8, and from the 32nd on; 400 windows of 96."""
    pytest.importorskip("torch")
    from attn_guide import models

    trained = models.load("gpt")
    found = losses(trained.experiment, held_out(trained.experiment, 96, 400), ag.causal)
    early, middle, late = found[:, 0], found[:, 1:8].mean(axis=1), found[:, 31:].mean(axis=1)
    claim.above("loss after one character less that after 2 to 8", early.mean() - middle.mean(),
                2 * standard_error(early - middle), "two standard errors")  # fmt: skip
    claim.above("loss after 2 to 8 characters less that after 32 or more", middle.mean() - late.mean(),
                2 * standard_error(middle - late), "two standard errors")  # fmt: skip
    claim.note(early=early.mean(), middle=middle.mean(), late=late.mean())


@pytest.mark.claim("causal-gpt-no-leak")
def test_the_trained_model_does_not_leak(claim):
    """The trained model on 20 held-out windows: logits before a character that is replaced."""
    torch = pytest.importorskip("torch")
    from attn_guide import models

    experiment = models.load("gpt").experiment
    rows = held_out(experiment, 96, 20)[:, :-1]
    other = rows.clone()
    other[:, 48] = (other[:, 48] + 1) % len(experiment.characters)
    with torch.no_grad():
        moved = (experiment.model(other)[0] - experiment.model(rows)[0]).abs().amax(dim=(0, 2)).numpy()
    claim.check("largest change of logits before the character", moved[:48].max(), expected=0.0)
    claim.above("smallest change at it or after it", moved[48:].min(), 1e-4)


@pytest.mark.claim("causal-gpt-cache")
def test_writing_with_a_cache_writes_the_same(claim):
    """Texts written with and without a cache, taking the most probable character and drawing; and the logits."""
    torch = pytest.importorskip("torch")
    from attn_guide import models

    experiment = models.load("gpt").experiment
    prompt = "The "
    for name, options in (("most probable", {}), ("drawn", {"temperature": 0.8, "seed": 0})):
        cached = experiment.write(prompt, 80, **options)
        claim.check(f"text with a cache and without, {name}", cached, expected=experiment.write(
            prompt, 80, use_cache=False, **options))  # fmt: skip
    rows = held_out(experiment, 96, 10)[:, :-1]
    with torch.no_grad():
        whole = experiment.model(rows)[0]
        first, cache, _ = experiment.model(rows[:, :40])
        parts = [first]
        for t in range(40, 96):
            one, cache, _ = experiment.model(rows[:, t : t + 1], cache)
            parts.append(one)
    difference = (torch.cat(parts, dim=1) - whole).abs().max().item()
    claim.below("largest difference of the logits", difference, 1e-3, "single precision")
    claim.note(prompt=prompt)


@pytest.mark.claim("causal-gpt-beyond")
def test_beyond_the_length_of_training(claim):
    """Held-out loss on 100 windows of 384, four times the length of training: all keys, a window of 64, and sinks."""
    pytest.importorskip("torch")
    from attn_guide import models

    experiment = models.load("gpt").experiment
    rows = held_out(experiment, 384, 100)
    window = ag.causal & ag.sliding_window(63, 0)
    found = {
        "all": losses(experiment, rows, ag.causal),
        "window": losses(experiment, rows, window),
        "sinks": losses(experiment, rows, ag.sinks(4) | ag.causal & ag.sliding_window(59, 0)),
    }
    mean = {name: a[:, 192:].mean(axis=1) for name, a in found.items()}
    inside = found["all"][:, 32:96].mean(axis=1)
    claim.above("loss from character 192 on less that within 96, all keys", (mean["all"] - inside).mean(),
                4 * standard_error(mean["all"] - inside), "four standard errors")  # fmt: skip
    claim.above("loss from character 192 on, all keys less a window of 64", (mean["all"] - mean["window"]).mean(),
                4 * standard_error(mean["all"] - mean["window"]), "four standard errors")  # fmt: skip
    claim.note(inside=inside.mean(), windows=len(rows), bigram=experiment.baselines()["bigram"])
    claim.note(**{f"beyond, {name}": a.mean() for name, a in mean.items()})
    claim.note(sinks_minus_window=(mean["sinks"] - mean["window"]).mean(),
               sinks_error=standard_error(mean["sinks"] - mean["window"]))  # fmt: skip


@pytest.mark.claim("causal-gpt-sinks")
def test_whether_sinks_have_formed(claim):
    """Attention to the first character from rows 32 on, in every head of the trained model; 100 windows of 96."""
    torch = pytest.importorskip("torch")
    from attn_guide import models

    experiment = models.load("gpt").experiment
    with torch.no_grad():
        weights = experiment.model(held_out(experiment, 96, 100)[:, :-1])[2].numpy()  # (100, layers, heads, 96, 96)
    share = weights[..., 32:, 0].mean(axis=(0, 3))
    even = float(np.mean(1 / np.arange(33, 97)))
    claim.below("largest share of the first character in any head", share.max(), even, "what equal scores would give")
    received = weights.mean(axis=(0, 2)).sum(axis=1)  # (layers, 96)
    claim.note(even=even, received_first=received[:, 0], tied=float(np.sum(1 / np.arange(1, 97))), heads=share.size)
