"""The claims of the appendices: attention across machines, and the conventions of libraries."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ring_measurements  # noqa: E402
from convention_probes import bigbird_counts, of  # noqa: E402

import attn_guide as ag  # noqa: E402
from attn_guide.torch.ring import ring_tile  # noqa: E402


@pytest.mark.claim("sparse-ring-exact")
def test_a_ring_of_processes_is_exact(claim):
    """Two and four processes give the output and the gradients of one, up to rounding."""
    found = ring_measurements.measure()["exact"]
    claim.note(n=256, heads=4, kv_heads=2, seed=0, what="largest of output, dq, dk and dv, in double precision")
    assert set(found) == {"2 dense", "2 causal", "4 dense", "4 causal"}
    for name, errors in found.items():
        claim.below(f"largest difference from one process, {name}", max(errors), 1e-12, "rounding")


@pytest.mark.claim("sparse-ring-bytes")
def test_bytes_sent_by_a_process(claim):
    """Forward (p - 1) / p of all keys and values; backward the same and a full circle of their gradients in float32."""
    sent = ring_measurements.measure()["sent"]
    n, kv_heads, width = sent["n"], sent["kv_heads"], sent["width"]
    claim.note(n=n, heads=sent["heads"], kv_heads=kv_heads, width=width)
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        for p in (2, 4):
            numbers = 2 * kv_heads * n * width  # keys and values of the whole sequence
            forward, backward = (sent[f"{dtype} {p} {way}"] for way in ("forward", "backward"))
            claim.check(f"bytes forward, {p} x {dtype}", forward["bytes"], expected=numbers * size * (p - 1) // p)
            claim.check(f"messages forward, {p} x {dtype}", forward["messages"], expected=p - 1)
            claim.check(
                f"bytes backward, {p} x {dtype}",
                backward["bytes"],
                expected=numbers * size * (p - 1) // p + numbers * 4,
            )
            claim.check(f"messages backward, {p} x {dtype}", backward["messages"], expected=2 * p - 1)


def pairs_by_step(p, length, zigzag):
    """Pairs of query and key that each process computes in each step of a causal ring: (steps, processes)."""
    pairs = np.zeros((p, p), dtype=int)
    for step in range(p):
        for rank in range(p):
            tile = ring_tile(rank, (rank - step) % p, length, is_causal=True, zigzag=zigzag)
            if tile is not None:
                rows, keys, diagonal = tile
                pairs[step, rank] = length * (length + 1) // 2 if diagonal else len(rows) * len(keys)
    return pairs


@pytest.mark.claim("sparse-ring-balance")
def test_zigzag_balances_a_causal_ring(claim):
    """Parts in order leave the first process idle; zigzag parts give all the same work and end in half the time."""
    p, length = 4, 1024
    ordered, zigzag = pairs_by_step(p, length, False), pairs_by_step(p, length, True)
    whole = (p * length) * (p * length + 1) // 2
    claim.note(processes=p, positions_each=length)
    claim.check("pairs in all, in order", ordered.sum(), expected=whole)
    claim.check("pairs in all, zigzag", zigzag.sum(), expected=whole)
    claim.check("largest spread of work in a step, zigzag", np.ptp(zigzag, axis=1).max(), expected=0)
    work = ordered.sum(axis=0)
    claim.check("share of the work of the last process, in order", work[-1] / whole, expected=0.4375, tolerance=1e-3)
    claim.check("share of the work of the first process, in order", work[0] / whole, expected=0.0625, tolerance=1e-3)
    # Everyone waits for the slowest in every step, since nobody can pass on what has not come.
    pace = ordered.max(axis=1).sum() / zigzag.max(axis=1).sum()
    claim.check("time in order over time zigzag, if steps wait for the slowest", pace, expected=1.75, tolerance=1e-3)
    many = {
        q: pairs_by_step(q, 64, False).max(axis=1).sum() / pairs_by_step(q, 64, True).max(axis=1).sum()
        for q in (2, 8, 32)
    }
    for q, ratio in many.items():
        claim.check(f"the same with {q} processes", ratio, expected=2 - 1 / q, tolerance=0.02)


@pytest.mark.claim("sparse-ring-overlap")
def test_the_ring_hides_its_transfers(claim):
    """A link as slow as a step's computation costs next to nothing, since the two run at once."""
    found = ring_measurements.measure()["overlap"]
    transfers = (ring_measurements.PROCESSES - 1) * found["delay"]
    share = 1 - (found["hidden"] - found["free"]) / transfers
    claim.note(
        **{name: found[name] for name in ("n", "rounds", "free", "delay")},
        processes=ring_measurements.PROCESSES,
        waiting=transfers,
    )
    claim.below("seconds, transfer during the computation", found["hidden"], found["exposed"])
    claim.above("seconds, transfer before the computation", found["exposed"], found["free"])
    claim.above("share of the transfer time that was hidden", share, 0.5, "times of a busy machine scatter")


# ------------------------------------------------------------------------------------------------ conventions

INSTALLED = ("attn-guide", "torch", "onnx", "transformers", "entmax")


def answers(claim, question, expected):
    """Ask the installed libraries, note their versions, and judge every answer; ``expected`` has one for each probe."""
    found = of(question, INSTALLED)
    assert [p.name for p in found] == list(expected)
    claim.note(**{name: version(name) for name in dict.fromkeys(p.package for p in found)})
    for p in found:
        claim.check(p.name, p(), expected=expected[p.name])


@pytest.mark.claim("appendix-polarity")
def test_what_true_means_in_a_mask(claim):
    """Two keys with values 1 and 2 under the mask [True, False]: which value comes out."""
    answers(
        claim,
        "polarity",
        {
            "attn-guide: scaled_dot_product_attention(attn_mask=)": "True lets see",
            "torch: scaled_dot_product_attention(attn_mask=)": "True lets see",
            "torch: nn.MultiheadAttention(attn_mask=)": "True hides",
            "torch: nn.MultiheadAttention(key_padding_mask=)": "True hides",
            "torch: flex_attention, mask_mod": "True lets see",
            "onnx: Attention, attn_mask": "True lets see",
            "transformers: BertModel(attention_mask=[1, 0])": "1 lets see",
        },
    )


@pytest.mark.claim("appendix-alignment")
def test_where_the_causal_triangle_starts(claim):
    """Three queries of five keys and five queries of three, with one value for each key: which values arrive."""
    answers(
        claim,
        "alignment",
        {
            "attn-guide: is_causal=True": "top-left",
            "attn-guide: mask_mod=causal_lower_right(n, m)": "bottom-right",
            "attn-guide: KVCache.attend": "bottom-right",
            "torch: is_causal=True": "top-left",
            "torch: attn_mask=causal_lower_right(n, m)": "bottom-right",
            "onnx: Attention, is_causal=1": "top-left",
            "onnx: Attention, is_causal=1, past keys": "bottom-right",
            "transformers: sdpa_attention_forward, no mask": "top-left",
        },
    )


@pytest.mark.claim("appendix-empty-row")
def test_a_query_that_may_see_nothing(claim):
    """Values 1, 2, 3, 4, all of them hidden from one query: what it gets."""
    answers(
        claim,
        "empty row",
        {
            "attn-guide: attn_mask of booleans": "0",
            "attn-guide: attn_mask of floats": "0",
            "torch: scaled_dot_product_attention, booleans": "0",
            "torch: scaled_dot_product_attention, floats": "0",
            "torch: flex_attention": "0",
            "torch: nn.MultiheadAttention, need_weights=True": "NaN",
            "torch: nn.MultiheadAttention, need_weights=False": "0",
            "torch: written by hand, masked_fill(-inf)": "NaN",
            "torch: written by hand, masked_fill(-1e9)": "the mean of all values",
            "onnx: Attention, booleans": "0",
            "transformers: eager attention of Gemma 2": "the mean of all values",
            "entmax: sparsemax of scores that are all -inf": "RuntimeError",
        },
    )


@pytest.mark.claim("appendix-encoder-layer")
def test_an_encoder_layer_with_a_query_that_sees_nothing(claim):
    """torch.nn.TransformerEncoderLayer with one row of src_mask hidden throughout, in both modes."""
    answers(
        claim,
        "encoder layer",
        {
            "torch: train(), booleans": "finite",
            "torch: train(), floats": "finite",
            "torch: eval(), booleans": "NaN",
            "torch: eval(), floats": "NaN",
            "torch: eval(), booleans, gradients wanted": "finite",
        },
    )


@pytest.mark.claim("appendix-soft-cap")
def test_the_order_of_soft_cap_and_bias(claim):
    """Scores 3 and 0, biases 0 and 4, a cap of 2: which order gives the weight that came out."""
    answers(
        claim,
        "soft cap",
        {
            "attn-guide: softcap=": "cap, then bias",
            "onnx: Attention, softcap": "cap, then bias",
            "transformers: eager attention of Gemma 2, softcap=": "cap, then bias",
        },
    )


@pytest.mark.claim("appendix-scale")
def test_the_default_scale(claim):
    """Dot products 4 and 0 at width 4: the logarithm of the ratio of the weights is 4 times the scale."""
    root = "one over the root of the width"
    answers(
        claim,
        "scale",
        {
            "attn-guide: scaled_dot_product_attention": root,
            "attn-guide: softmax(dot_score(...))": "one",
            "torch: scaled_dot_product_attention": root,
            "onnx: Attention": root,
            "transformers: T5Attention": "one",
        },
    )


@pytest.mark.claim("appendix-dropout")
def test_dropout_on_the_weights(claim):
    """A thousand keys of equal weight and a probability of 1/2: what has become of the weights."""
    answers(
        claim,
        "dropout",
        {
            "attn-guide: dropout_p=, rng=: weights returned": "zero or doubled",
            "torch: scaled_dot_product_attention, model in eval()": "zero or doubled",
            "torch: nn.MultiheadAttention, train(): weights returned": "zero or doubled",
            "torch: nn.MultiheadAttention, eval(): weights returned": "untouched",
        },
    )


@pytest.mark.claim("appendix-groups")
def test_which_key_head_a_query_head_reads(claim):
    """Four query heads, two heads of values that hold 0 and 1: what each query head returns."""
    libraries = (
        "attn-guide: enable_gqa=True",
        "torch: enable_gqa=True",
        "onnx: Attention, 4 and 2 heads",
        "transformers: eager attention of Gemma 2",
    )
    answers(claim, "groups", dict.fromkeys(libraries, "0, 0, 1, 1"))


@pytest.mark.claim("appendix-window")
def test_what_a_window_of_three_is(claim):
    """Equal scores and one value for each key: how many keys a query in the middle sees."""
    answers(
        claim,
        "window",
        {
            "attn-guide: sliding_window(3, 0)": "4: 3 before, itself, 0 after",
            "attn-guide: longformer(4)": "5: 2 before, itself, 2 after",
            "onnx: Attention, left_window_size=3, is_causal=1": "4: 3 before, itself, 0 after",
            "transformers: Mistral, sliding_window=3": "3: 2 before, itself, 0 after",
            "transformers: Longformer, attention_window=4": "5: 2 before, itself, 2 after",
        },
    )


@pytest.mark.claim("appendix-weights")
def test_the_weights_that_are_returned(claim):
    """Two sequences, four heads, three queries, five keys: the shape of what is returned as weights."""
    answers(
        claim,
        "weights",
        {
            "attn-guide: return_weights=True": "(2, 4, 3, 5)",
            "torch: nn.MultiheadAttention": "(2, 3, 5)",
            "torch: nn.MultiheadAttention, average_attn_weights=False": "(2, 4, 3, 5)",
            "onnx: Attention, fourth output": "(2, 4, 3, 5), the scores, not the weights",
            "onnx: Attention, fourth output, qk_matmul_output_mode=3": "(2, 4, 3, 5), the weights",
            "transformers: eager attention of Gemma 2": "(2, 4, 3, 5)",
        },
    )


@pytest.mark.claim("appendix-additive")
def test_what_additive_and_concat_compute(claim):
    """Random queries, keys and parameters: which formula gives the scores that came out."""
    formula = "v · tanh(W q + U k)"
    answers(claim, "additive", {"attn-guide: additive_score": formula, "attn-guide: concat_score": formula})


@pytest.mark.claim("appendix-ties")
def test_equal_scores_at_the_border_of_top_k(claim):
    """The best two of 1, 1, 1, 0: how many keys are kept."""
    answers(
        claim,
        "ties",
        {
            "attn-guide: top_k_attention(k=2)": "2",
            "torch: topk(2)": "2",
            "torch: scores >= topk(2).values.min()": "3",
        },
    )


@pytest.mark.claim("appendix-bigbird")
def test_blocks_that_bigbird_counts_more_than_once(claim):
    """BigBird of transformers, all scores 0, values that name their block: the share of each block, as a count."""
    answers(
        claim,
        "bigbird",
        {
            "transformers: BigBird, train(), n = 1024": "the last block up to 2 times",
            "transformers: BigBird, eval(), n = 1024": "the first block up to 4 times",
            "transformers: BigBird, train(), n = 2048": "every block once",
            "transformers: BigBird, eval(), n = 2048": "the first block up to 4 times",
        },
    )
    training, evaluating = bigbird_counts(1024, True), bigbird_counts(1024, False)
    claim.note(block=64, longest=4096, random_blocks=3, row_in_eval=evaluating[7], row_in_train=training[7])
    # What the first block would weigh if it were counted once, and what it weighs, where all scores are equal.
    row = evaluating[7]
    claim.check("share of the first block, in eval", row[0] / row.sum(), expected=4 / 8)
    claim.check("its share if counted once", 1 / np.count_nonzero(row), expected=1 / 5)
    # The mask of this package, given blocks that are distinct, counts every key once.
    mask = ag.bigbird(1024, 64, rng=claim.rng(0)).materialize(1024)[64 * 7]
    _, weights = ag.scaled_dot_product_attention(
        np.zeros((1, 1, 2)), np.zeros((1, 1024, 2)), np.zeros((1, 1024, 2)), mask[None], return_weights=True
    )
    claim.check("largest weight over the least that is not zero, here", weights.max() / weights[weights > 0].min(),
                expected=1.0, tolerance=1e-12)  # fmt: skip


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.claim("appendix-paired")
def test_paired_ratios_hold_on_a_machine_that_slows_down(claim, monkeypatch):
    """A clock that counts work, and a machine that does it at a third of its first pace in the end."""
    common = pytest.importorskip("benchmarks.common")
    now, done, rounds = [0.0], [0], 40
    rng = claim.rng(0)

    def work(amount):
        def call():
            pace = 1.0 - (2 / 3) * done[0] / (2 * rounds + 2)  # from 1 to 1/3 over all calls
            done[0] += 1
            now[0] += amount / pace * rng.normal(1.0, 0.02)

        return call

    monkeypatch.setattr(common, "timed", lambda call: -now[0] + (call(), now[0])[1])
    claim.note(rounds=rounds, noise=0.02, code="benchmarks/common.py")
    for name, ours, expected in (
        ("ratio of two equal functions", 1.0, 1.0),
        ("ratio where one does twice the work", 2.0, 2.0),
    ):
        done[0] = 0
        row = common.paired_ratio("x", "x", work(ours), work(1.0), rounds=rounds)
        # The median of 40 ratios, each with a noise of 2 % twice: 1.25 * 0.028 / sqrt(40) is a standard error.
        claim.check(name, row.value, expected=expected, tolerance=0.023, relative=True, why="four standard errors")
    first = [0.0, 0.0]
    for half in (0, 1):  # all of one, then all of the other
        done[0] = half * rounds
        first[half] = np.median([common.timed(work(1.0)) for _ in range(rounds)])
    claim.below("ratio of two equal functions, one after the other", first[0] / first[1], 0.75)
