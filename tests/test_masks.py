"""Masks against brute force, their own printed form, FlexAttention and the graphs they are."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attn_guide as ag

# ------------------------------------------------------------------------------------------ masks with an oracle

#: Each row: how the mask is written, and the definition again as a plain function of Python integers.
PRINTABLE = [
    ("full", lambda h, i, j: True),
    ("causal", lambda h, i, j: j <= i),
    ("causal_lower_right(5, 9)", lambda h, i, j: j <= i + 4),
    ("causal_lower_right(9, 5)", lambda h, i, j: j <= i - 4),
    ("sliding_window(2, 1)", lambda h, i, j: -2 <= j - i <= 1),
    ("sliding_window(0, 0)", lambda h, i, j: i == j),
    ("dilated_window(2, 1, 3)", lambda h, i, j: j - i in (-6, -3, 0, 3)),
    ("strided(3)", lambda h, i, j: abs(i - j) % 3 == 0),
    ("strided(1)", lambda h, i, j: True),
    ("global_tokens([0, 1, 6])", lambda h, i, j: bool({i, j} & {0, 1, 6})),
    ("global_tokens([])", lambda h, i, j: False),
    ("block_local(4)", lambda h, i, j: i // 4 == j // 4),
    ("prefix(3)", lambda h, i, j: j <= i or j < 3),
    ("sinks(2)", lambda h, i, j: j < 2 and j <= i),
    ("document([0, 0, 1, 2, 2, 2, 0, 5, 5, 5, 5, 5])", lambda h, i, j: _IDS[i] == _IDS[j]),
    ("on_head(1)", lambda h, i, j: h == 1),
    ("per_head([causal, sliding_window(1, 0)])", lambda h, i, j: j <= i and (h == 0 or (h == 1 and j >= i - 1))),
    ("longformer(4, [0, 7])", lambda h, i, j: abs(i - j) <= 2 or bool({i, j} & {0, 7})),
    ("longformer(2, [5], dilation=2)", lambda h, i, j: abs(i - j) in (0, 2) or 5 in (i, j)),
    ("sparse_transformer_strided(3)", lambda h, i, j: j <= i and (i - j <= 3 or (i - j) % 3 == 0)),
    ("sparse_transformer_fixed(4, 2)", lambda h, i, j: j <= i and (i // 4 == j // 4 or j % 4 >= 2)),
    ("blockwise(causal, 3)", lambda h, i, j: j // 3 <= i // 3),
    (
        "blockwise(sliding_window(1, 0) | global_tokens([2]), 2)",
        lambda h, i, j: 0 <= i // 2 - j // 2 <= 1 or 2 in (i // 2, j // 2),
    ),
    (
        "bigbird(12, 2, window_blocks=3, global_blocks=3, random_blocks=0)",
        lambda h, i, j: abs(i // 2 - j // 2) <= 1 or bool({i // 2, j // 2} & {0, 1, 5}),
    ),
]
_IDS = [0, 0, 1, 2, 2, 2, 0, 5, 5, 5, 5, 5]
MOST = len(_IDS)


def build(expression: str) -> ag.Mask:
    return eval(expression, dict(vars(ag)))


def brute(oracle, n: int, m: int, h: int = 1) -> np.ndarray:
    return np.array([[[oracle(k, i, j) for j in range(m)] for i in range(n)] for k in range(h)], dtype=bool).reshape(
        h, n, m
    )


@pytest.mark.parametrize(("expression", "oracle"), PRINTABLE, ids=[row[0] for row in PRINTABLE])
@pytest.mark.parametrize(("n", "m"), [(12, 12), (5, 9), (9, 5), (1, 12), (0, 3), (3, 0)])
def test_each_mask_equals_its_definition(expression, oracle, n, m):
    mask = build(expression)
    np.testing.assert_array_equal(mask.materialize(n, m, h=3), brute(oracle, n, m, 3))
    assert mask.count(n, m, h=3) == brute(oracle, n, m, 3).sum()
    assert repr(mask) == expression


def composed(depth: int = 3):
    """Masks with their oracle, composed at random."""
    leaf = st.sampled_from([(build(expression), oracle) for expression, oracle in PRINTABLE])

    def join(children):
        return st.one_of(
            st.tuples(children, children).map(
                lambda p: (p[0][0] & p[1][0], lambda h, i, j: p[0][1](h, i, j) and p[1][1](h, i, j))
            ),
            st.tuples(children, children).map(
                lambda p: (p[0][0] | p[1][0], lambda h, i, j: p[0][1](h, i, j) or p[1][1](h, i, j))
            ),
            children.map(lambda c: (~c[0], lambda h, i, j: not c[1](h, i, j))),
        )

    return st.recursive(leaf, join, max_leaves=6)


LENGTHS = st.integers(0, MOST)


@settings(max_examples=150, deadline=None)
@given(composed(), LENGTHS, LENGTHS)
def test_composed_masks_equal_their_definition_and_are_counted_exactly(pair, n, m):
    mask, oracle = pair
    cells = mask.materialize(n, m, h=2)
    np.testing.assert_array_equal(cells, brute(oracle, n, m, 2))
    assert mask.count(n, m, h=2) == cells.sum()
    assert mask.density(n, m, h=2) == (cells.mean() if cells.size else 0.0)


@settings(max_examples=100, deadline=None)
@given(composed())
def test_a_mask_prints_as_the_expression_that_makes_it(pair):
    mask, _ = pair
    again = build(repr(mask))
    np.testing.assert_array_equal(again.materialize(MOST, h=2), mask.materialize(MOST, h=2))
    assert repr(again) == repr(mask)


@settings(max_examples=100, deadline=None)
@given(composed(), composed())
def test_de_morgan(one, two):
    a, b = one[0], two[0]
    left, right = ~(a & b), ~a | ~b
    np.testing.assert_array_equal(left.materialize(MOST, h=2), right.materialize(MOST, h=2))
    assert left.describe() == right.describe()
    left, right = ~(a | b), ~a & ~b
    np.testing.assert_array_equal(left.materialize(MOST, h=2), right.materialize(MOST, h=2))
    assert left.describe() == right.describe()
    assert (~~a).describe() == a.describe()
    np.testing.assert_array_equal((~~a).materialize(MOST), a.materialize(MOST))


@settings(max_examples=100, deadline=None)
@given(composed(), st.integers(0, MOST - 1), st.integers(0, MOST - 1))
def test_python_integers_arrays_and_numpy_scalars_get_one_answer(pair, i, j):
    mask, oracle = pair
    for cast in (int, np.int64, np.int32, np.array):
        assert bool(mask(0, 1, cast(i), cast(j))) is bool(oracle(1, i, j))


@settings(max_examples=60, deadline=None)
@given(composed(), st.integers(1, MOST), st.integers(0, 10**6))
def test_attention_under_a_predicate_equals_attention_under_its_matrix(pair, n, seed):
    mask, _ = pair
    q, k, v = np.random.default_rng(seed).normal(size=(3, 2, n, 4))
    np.testing.assert_array_equal(
        ag.scaled_dot_product_attention(q, k, v, mask_mod=mask),
        ag.scaled_dot_product_attention(q, k, v, mask.materialize(n, h=2)),
    )


@settings(max_examples=80, deadline=None)
@given(composed(), st.integers(0, 8))
def test_causal_and_sinks_never_show_the_future(pair, count):
    mask, _ = pair
    future = np.triu(np.ones((MOST, MOST), bool), 1)
    for joined in (ag.causal & mask, ag.sinks(count), ag.sinks(count) | (ag.causal & mask)):
        assert not (joined.materialize(MOST, h=2) & future).any()
        reached = ag.reachability(joined, MOST, layers=4)
        assert not (reached & future).any()


def test_a_global_token_breaks_causality_in_two_layers_and_a_sink_does_not():
    window = ag.causal & ag.sliding_window(1, 0)
    leaky = ag.reachability(window | ag.global_tokens([0]), 6, layers=2)
    assert leaky[1].tolist() == [True] * 6  # position 1 learns of position 5 through position 0
    assert not np.triu(ag.reachability(window | ag.sinks(1), 6, layers=2), 1).any()


# ------------------------------------------------------------------------------------------ random masks


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(1, 30), st.data())
def test_random_keys_draws_distinct_keys_and_repeats_with_the_seed(n, m, data):
    r = data.draw(st.integers(0, m))
    mask = ag.random_keys(r, n, m, rng=np.random.default_rng(5))
    cells = mask.materialize(n, m)
    assert (cells.sum(axis=1) == r).all()
    assert mask.count(n, m) == r * n
    again = ag.random_keys(r, n, m, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(cells, again.materialize(n, m))


def test_random_keys_are_uniform():
    counts = ag.random_keys(3, 20_000, 10, rng=np.random.default_rng(0)).materialize(20_000, 10).sum(axis=0)
    # Each of 10 keys is drawn by a row with probability 0.3: sd sqrt(20000 * 0.3 * 0.7) = 65.
    assert np.abs(counts - 6000).max() < 4 * 65
    pairs = ag.random_keys(2, 20_000, 5, rng=np.random.default_rng(1)).materialize(20_000, 5)
    for a, b in itertools.combinations(range(5), 2):
        together = (pairs[:, a] & pairs[:, b]).sum()
        assert abs(together - 2000) < 4 * np.sqrt(20_000 * 0.1 * 0.9)


def test_symmetric_random_keys_are_the_union_with_the_transpose():
    one = ag.random_keys(2, 15, rng=np.random.default_rng(3)).materialize(15)
    two = ag.random_keys(2, 15, rng=np.random.default_rng(3), symmetric=True).materialize(15)
    np.testing.assert_array_equal(two, one | one.T)


@pytest.mark.parametrize(("window_blocks", "global_blocks", "r"), [(3, 2, 3), (1, 0, 2), (5, 3, 0), (3, 1, 1)])
def test_bigbird_sees_window_global_and_random_blocks(window_blocks, global_blocks, r):
    n, block, blocks = 48, 4, 12
    options = {"window_blocks": window_blocks, "global_blocks": global_blocks}
    table = ag.bigbird_random_blocks(blocks, r, **options, rng=np.random.default_rng(0))
    mask = ag.bigbird(n, block, **options, random_blocks=r, rng=np.random.default_rng(0))
    anchors = {0, 1, 11} if global_blocks == 3 else {0, 11} if global_blocks == 2 else {0} if global_blocks else set()
    for i, j in itertools.product(range(blocks), repeat=2):
        near = abs(i - j) <= window_blocks // 2 or bool({i, j} & anchors)
        drawn = j in table[i]
        if i not in anchors:
            assert not (near and drawn)
            assert len(set(table[i])) == r
        assert mask.materialize(n)[i * block : (i + 1) * block, j * block : (j + 1) * block].all() == (near or drawn)
    given_table = ag.bigbird(n, block, **options, random_blocks=table)
    np.testing.assert_array_equal(given_table.materialize(n), mask.materialize(n))
    assert mask.count(n) == mask.materialize(n).sum()


# ------------------------------------------------------------------------------------------ counting without n x n


def test_counting_a_million_positions_is_exact_and_small():
    n = 1_000_000
    assert ag.causal.count(n) == n * (n + 1) // 2
    assert ag.full.count(n) == n * n
    assert (~ag.causal).count(n) == n * (n - 1) // 2
    w = 257  # visible keys of an interior query; the ends miss 128 + 127 + ... + 1 on each side
    window = n * w - 128 * 129
    assert ag.sliding_window(128, 128).count(n) == window
    # One global token adds its row and its column, less what its window held already.
    assert ag.longformer(256, [n // 2]).count(n) == window + 2 * (n - w)
    assert ag.prefix(60).count(n) == n * (n + 1) // 2 + 60 * 59 // 2
    streaming = ag.sinks(4) | (ag.causal & ag.sliding_window(1019, 0))
    assert streaming.count(n) == 1020 * n - 1020 * 1019 // 2 + 4 * (n - 1020) - (3 + 2 + 1)
    assert ag.block_local(1000).count(n) == 1000 * n


@pytest.mark.parametrize("expression", ["longformer(6, [0, 3, 40])", "prefix(9) & ~strided(4)", "block_local(7)"])
def test_counting_by_structure_equals_counting_cells(expression):
    mask = build(expression)
    plain = ag.Mask(mask.mask_mod)  # the same predicate without what is known of it
    for n, m in [(50, 50), (50, 31), (31, 50)]:
        assert mask.count(n, m) == plain.count(n, m) == mask.materialize(n, m).sum()


def test_counting_needs_no_square_array():
    import tracemalloc

    mask = ag.document(np.arange(6000) // 700)
    tracemalloc.start()
    assert mask.count(6000) == 8 * 700**2 + 400**2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6 < 6000**2


# ------------------------------------------------------------------------------------------ torch


def test_importing_and_using_masks_does_not_import_torch():
    code = (
        "import sys, attn_guide as ag\n"
        "mask = ag.document([0, 0, 1]) & ag.causal | ag.sinks(1)\n"
        "mask.materialize(3); mask.count(3); ag.reachability(mask, 3, 2)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def torch_masks() -> list[ag.Mask]:
    rng = np.random.default_rng(0)
    ids = np.array([[0] * 5 + [1] * 7, [0] * 9 + [1] * 3])
    return [
        *(build(expression) for expression, _ in PRINTABLE),
        ag.random_keys(3, 12, rng=rng),
        ag.random_keys(2, 12, rng=rng, symmetric=True),
        ag.document(ids) & ag.causal,
        ag.bigbird(12, 1, rng=rng),
        ag.blockwise(ag.random_keys(1, 4, rng=rng), 3),
        ag.from_array(rng.random((12, 12)) < 0.4),
        ~(ag.from_array(rng.random((12, 12)) < 0.4) | ag.document(ids[0])),
        ag.per_head([ag.causal, ag.document(ids) | ag.random_keys(1, 12, rng=rng)]),
    ]


def test_flex_attention_reads_every_predicate_as_numpy_does():
    pytest.importorskip("torch")
    from torch.nn.attention.flex_attention import create_block_mask, create_mask

    for mask in torch_masks():
        ours = mask.materialize(12, b=2, h=2)
        np.testing.assert_array_equal(create_mask(mask, 2, 2, 12, 12, device="cpu").numpy(), ours, err_msg=repr(mask))
        blocks = create_block_mask(mask, 2, 2, 12, 12, device="cpu", BLOCK_SIZE=4).to_dense().numpy()
        np.testing.assert_array_equal(
            blocks.astype(bool).reshape(2, 2, -1, blocks.shape[-1]),
            ours.reshape(2, 2, 3, 4, 3, 4).any(axis=(3, 5)),
            err_msg=repr(mask),
        )


@pytest.mark.filterwarnings("ignore")
def test_flex_attention_equals_the_reference_under_predicates():
    torch = pytest.importorskip("torch")
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = np.random.default_rng(1).normal(size=(3, 2, 2, 12, 4))
    for mask in torch_masks()[-4:]:
        block_mask = create_block_mask(mask, 2, 2, 12, 12, device="cpu")
        theirs = flex_attention(*(torch.tensor(x) for x in (q, k, v)), block_mask=block_mask).numpy()
        ours = ag.scaled_dot_product_attention(q, k, v, mask_mod=mask)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13, err_msg=repr(mask))


def everything_at_once() -> ag.Mask:
    """Operators, both signs, integer division and remainder, one- and two-dimensional tables, heads."""
    rng = np.random.default_rng(0)
    return ag.per_head(
        [
            ~ag.strided(3) & (ag.causal | ag.document(np.array([[0] * 12, [0] * 4 + [1] * 8]))),
            ag.bigbird(12, 2, random_blocks=1, rng=rng) | ag.from_array(rng.random((12, 12)) < 0.3),
        ]
    )


@pytest.mark.filterwarnings("ignore")
def test_predicates_can_be_traced_before_they_were_ever_called():
    torch = pytest.importorskip("torch")
    from torch.nn.attention.flex_attention import create_mask

    mask = everything_at_once()
    torch.compiler.reset()
    traced = torch.compile(create_mask, backend="eager", fullgraph=True)(mask, 2, 2, 12, 12, device="cpu")
    np.testing.assert_array_equal(traced.numpy(), mask.materialize(12, b=2, h=2))
    np.testing.assert_array_equal(create_mask(mask, 2, 2, 12, 12, device="cpu").numpy(), traced.numpy())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_predicates_compile_into_a_kernel():
    torch = pytest.importorskip("torch")
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = everything_at_once()
    q, k, v = (torch.tensor(x, dtype=torch.float32) for x in np.random.default_rng(1).normal(size=(3, 2, 2, 12, 16)))
    torch.compiler.reset()
    block_mask = create_block_mask(mask, 2, 2, 12, 12, device="cpu")
    theirs = torch.compile(flex_attention)(q, k, v, block_mask=block_mask)
    ours = ag.scaled_dot_product_attention(*(x.numpy() for x in (q, k, v)), mask_mod=mask)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Lower right causal bias")  # PyTorch's own formula has no answer for empty rows
def test_causal_lower_right_equals_torch():
    pytest.importorskip("torch")
    from torch.nn.attention.bias import causal_lower_right

    for n, m in [(3, 5), (5, 3), (4, 4), (1, 6)]:
        theirs = causal_lower_right(n, m)._materialize().numpy()
        np.testing.assert_array_equal(ag.causal_lower_right(n, m).materialize(n, m), theirs)


def test_windows_against_the_way_huggingface_counts():
    pytest.importorskip("transformers")
    from transformers import masking_utils

    i, j = np.arange(9)[:, None], np.arange(9)
    for size in (1, 2, 3, 7):
        theirs = masking_utils.sliding_window_overlay(size)(0, 0, i, j) & masking_utils.causal_mask_function(0, 0, i, j)
        ours = (ag.causal & ag.sliding_window(size - 1, 0)).materialize(9)
        np.testing.assert_array_equal(ours, theirs)


# ------------------------------------------------------------------------------------------ words

SENTENCES = [
    ("causal", "j is not after i"),
    ("~causal", "j is after i"),
    ("causal_lower_right(2, 5)", "j is not after i + 3"),
    ("causal_lower_right(5, 2)", "j is not after i - 3"),
    ("sliding_window(3, 1)", "j is within i - 3 ... i + 1"),
    ("~sliding_window(3, 0)", "j is outside i - 3 ... i"),
    ("sliding_window(0, 0)", "j is i"),
    ("~sliding_window(0, 0)", "j is not i"),
    ("dilated_window(1, 1, 4)", "j is within i - 4 ... i + 4 in steps of 4"),
    ("~strided(3)", "i and j leave different remainders when divided by 3"),
    ("global_tokens([4, 0])", "i or j is a global token (0, 4)"),
    ("~global_tokens([4])", "neither i nor j is a global token (4)"),
    ("prefix(3)", "j is not after i or j is in the prefix of 3"),
    ("~prefix(3)", "j is after i and j is not in the prefix of 3"),
    ("causal & sliding_window(2, 2)", "j is not after i and j is within i - 2 ... i + 2"),
    (
        "causal & (block_local(4) | strided(2))",
        "j is not after i and either i and j are in the same block of 4 or i and j leave the same remainder when"
        " divided by 2",
    ),
    (
        "~(causal & (block_local(4) | strided(2)))",
        "j is after i or both i and j are in different blocks of 4 and i and j leave different remainders when"
        " divided by 2",
    ),
    (
        "causal & strided(2) & block_local(4)",
        "j is not after i and i and j leave the same remainder when divided by 2"
        " and i and j are in the same block of 4",
    ),
    ("blockwise(causal, 8)", "counting in blocks of 8, j is not after i"),
    ("on_head(2) & causal", "the head is 2 and j is not after i"),
    ("document([0, 1])", "i and j are in the same document"),
]


@pytest.mark.parametrize(("expression", "condition"), SENTENCES, ids=[row[0] for row in SENTENCES])
def test_describe(expression, condition):
    assert build(expression).describe() == f"Query i sees key j if {condition}."


def test_describe_full_random_and_own_predicates():
    assert ag.full.describe() == "Every query sees every key."
    assert (~ag.full).describe() == "No query sees any key."
    drawn = ag.random_keys(2, 4, rng=np.random.default_rng(0))
    assert drawn.describe() == "Query i sees key j if j is one of the 2 keys drawn for i."
    both = ag.random_keys(2, 4, rng=np.random.default_rng(0), symmetric=True)
    assert both.describe() == "Query i sees key j if one of i and j is among the 2 keys drawn for the other."
    assert (~both).describe() == "Query i sees key j if neither of i and j is among the 2 keys drawn for the other."
    assert ag.from_array([[True]]).describe() == "Query i sees key j if the array allows (i, j)."

    def odd(b, h, q_idx, kv_idx):
        return kv_idx % 2 == 1

    assert (~ag.Mask(odd)).describe() == "Query i sees key j if odd does not hold."
    assert repr(ag.Mask(odd) | ag.causal) == "odd | causal"


# ------------------------------------------------------------------------------------------ graphs


@settings(max_examples=60, deadline=None)
@given(composed(), st.integers(1, MOST), st.integers(0, 5), st.booleans())
def test_reachability_is_the_boolean_matrix_power(pair, n, layers, residual):
    mask, _ = pair
    one = mask.materialize(n).astype(int) + (np.eye(n, dtype=int) if residual else 0)
    expected = np.eye(n, dtype=int)
    for _ in range(layers):
        expected = np.minimum(one @ expected, 1)
    reached = ag.reachability(mask, n, layers, residual=residual)
    np.testing.assert_array_equal(reached, expected.astype(bool))
    np.testing.assert_array_equal(ag.receptive_field(mask, n, layers, residual=residual), expected.sum(axis=1))


def test_reachability_is_what_perturbing_the_input_shows():
    mask = ag.causal & ag.sliding_window(2, 0) & ~ag.sliding_window(0, 0) | ag.global_tokens([4])
    rng = np.random.default_rng(0)
    n, layers = 9, 2
    params = [ag.init_multi_head(6, 2, rng=rng) for _ in range(layers)]
    x = rng.normal(size=(n, 6))

    def run(x):
        for p in params:
            x = x + ag.multi_head_attention(x, x, x, p, mask_mod=mask)
        return x

    moved = np.zeros((n, n), bool)
    for j in range(n):
        nudged = x.copy()
        nudged[j] += rng.normal(size=6)
        moved[:, j] = (run(nudged) != run(x)).any(axis=1)
    np.testing.assert_array_equal(moved, ag.reachability(mask, n, layers))


@pytest.mark.parametrize("layers", [0, 1, 2, 4, 9])
@pytest.mark.parametrize(("left", "right"), [(1, 1), (3, 0), (2, 5), (0, 0)])
def test_a_window_of_w_reaches_layers_times_w_minus_one_plus_one(layers, left, right):
    w = left + right + 1
    middle, n = 9 * left, 9 * (left + right) + 1
    field = ag.receptive_field(ag.sliding_window(left, right), n, layers)
    assert field[middle] == layers * (w - 1) + 1
    expected = [min(i, layers * left) + min(n - 1 - i, layers * right) + 1 for i in range(n)]
    np.testing.assert_array_equal(field, expected)


def test_dilation_without_a_shared_step_leaves_classes_apart():
    assert len(set(ag.connected_components(ag.dilated_window(2, 2, 3), 30))) == 3
    assert len(set(ag.connected_components(ag.dilated_window(2, 2, 3) | ag.sliding_window(1, 0), 30))) == 1


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_strided_has_k_components_at_any_depth(k):
    labels = ag.connected_components(ag.strided(k), 40)
    np.testing.assert_array_equal(labels, np.arange(40) % k)
    reached = ag.reachability(ag.strided(k), 40, layers=100)
    np.testing.assert_array_equal(reached, labels[:, None] == labels)
    assert ag.path_lengths(ag.strided(k), 40).unreachable == pytest.approx((40 - 40 // k) / 39)
    if k > 1:
        joined = ag.reachability(ag.sparse_transformer_strided(k), 40, layers=2)
        np.testing.assert_array_equal(joined, np.tril(np.ones((40, 40), bool)))  # any earlier key in two layers


def test_components_follow_a_chain_and_ignore_direction():
    n = 64
    cells = np.zeros((n, n), bool)
    order = np.random.default_rng(0).permutation(n)
    for a, b in itertools.pairwise(order[:50]):
        cells[a, b] = True
    labels = ag.connected_components(ag.from_array(cells), n)
    assert len(set(labels[order[:50]])) == 1
    assert len(set(labels)) == 1 + 14
    firsts = [labels.tolist().index(c) for c in range(labels.max() + 1)]
    assert firsts == sorted(firsts)


def bfs_paths(cells: np.ndarray) -> tuple[list[int], int]:
    lengths, missing = [], 0
    for start in range(len(cells)):
        distance, frontier = {start: 0}, [start]
        while frontier:
            frontier = [
                j
                for i in frontier
                for j in np.flatnonzero(cells[i])
                if j not in distance and not distance.update({j: distance[i] + 1})
            ]
        lengths += [d for d in distance.values() if d]
        missing += len(cells) - len(distance)
    return lengths, missing


@settings(max_examples=40, deadline=None)
@given(composed(), st.integers(1, MOST))
def test_path_lengths_equal_breadth_first_search(pair, n):
    mask, _ = pair
    lengths, missing = bfs_paths(mask.materialize(n))
    paths = ag.path_lengths(mask, n)
    if lengths:
        assert paths.mean == pytest.approx(np.mean(lengths), rel=1e-14)
    else:
        assert np.isnan(paths.mean)
    assert paths.longest == max(lengths, default=0)
    assert paths.unreachable == (missing / (n * (n - 1)) if n > 1 else 0.0)


@pytest.mark.parametrize("r", [2, 3, 4])
def test_directed_random_keys_leave_pairs_unreachable(r):
    # A position is read by somebody at some depth only if it has a large set of readers; the share s of such
    # positions solves s = 1 - exp(-r s) (the giant in-component of a random r-out graph).
    s = 1.0
    for _ in range(200):
        s = 1 - np.exp(-r * s)
    runs = [
        ag.path_lengths(ag.random_keys(r, 512, rng=np.random.default_rng(seed)), 512).unreachable for seed in range(8)
    ]
    error = np.std(runs, ddof=1) / np.sqrt(len(runs))
    assert abs(np.mean(runs) - (1 - s)) < 5 * error + 0.002
    mended = ag.random_keys(r, 512, rng=np.random.default_rng(0)) | ag.global_tokens([0])
    assert ag.path_lengths(mended, 512).unreachable == 0.0
    assert ag.path_lengths(mended, 512).longest == 2


def test_random_edges_make_paths_logarithmic_and_windows_linear():
    sizes = (128, 512, 2048)
    random = [
        ag.path_lengths(ag.random_keys(2, n, rng=np.random.default_rng(0), symmetric=True), n).mean for n in sizes
    ]
    steps = np.diff(random)
    # Four times the length adds about log 4 / log(branching) each time: the same amount, not a factor.
    assert 0.8 < steps[1] / steps[0] < 1.25
    window = [ag.path_lengths(ag.sliding_window(2, 2), n).mean for n in (128, 512)]
    assert window[1] / window[0] == pytest.approx(4, rel=0.02)


def test_packed_bits_across_word_boundaries():
    for n in (63, 64, 65, 129):
        reached = ag.reachability(ag.causal, n, 1)
        np.testing.assert_array_equal(reached, np.tril(np.ones((n, n), bool)))
        assert ag.receptive_field(ag.causal, n, 1).tolist() == list(range(1, n + 1))


# ------------------------------------------------------------------------------------------ bad input

RNG = np.random.default_rng(0)
BAD = [
    (lambda: ag.Mask(3), TypeError, "mask_mod is 3; wanted a function (b, h, q_idx, kv_idx) -> bool"),
    (lambda: ag.causal & np.eye(2, dtype=bool), TypeError, "a Mask combines with a Mask; got array"),
    (lambda: ag.causal | (lambda b, h, q, k: q == k), TypeError, "a Mask combines with a Mask; got <function"),
    (lambda: ag.causal.materialize(-1), ValueError, "n is -1; wanted an integer of at least 0"),
    (lambda: ag.causal.materialize(2.0), TypeError, "n is 2.0 of type float"),
    (lambda: ag.causal.materialize(2, 3, b=-1), ValueError, "b is -1"),
    (lambda: ag.causal.materialize(2, 3, h=True), TypeError, "h is True"),
    (lambda: ag.document([0, 1]).materialize(3), ValueError, "n is 3; document([0, 1]) is defined for at most 2"),
    (
        lambda: (ag.causal & ag.document([0, 1])).count(2, 3),
        ValueError,
        "m is 3; causal & document([0, 1]) is defined for",
    ),
    (lambda: ag.blockwise(ag.document([0, 1]), 2).count(5), ValueError, "n is 5; blockwise(document([0, 1]), 2) is"),
    (lambda: ag.document([0, 1])(0, 0, 2, 0), ValueError, "positions reach beyond a mask that is defined for (2,)"),
    (lambda: ag.Mask(lambda b, h, q, k: q + k).materialize(2), TypeError, "returned dtype int64; wanted booleans"),
    (lambda: ag.causal_lower_right(-1, 2), ValueError, "n is -1"),
    (lambda: ag.causal_lower_right(1, "2"), TypeError, "m is '2'"),
    (lambda: ag.sliding_window(-1, 0), ValueError, "left is -1; wanted an integer of at least 0"),
    (lambda: ag.sliding_window(1, 0.5), TypeError, "right is 0.5"),
    (lambda: ag.dilated_window(1, 1, 0), ValueError, "dilation is 0; wanted an integer of at least 1"),
    (lambda: ag.strided(0), ValueError, "stride is 0"),
    (lambda: ag.sparse_transformer_strided(0), ValueError, "stride is 0"),
    (lambda: ag.sparse_transformer_fixed(2, 3), ValueError, "summary is 3; wanted at most the block's length, 2"),
    (lambda: ag.global_tokens([0, -1]), ValueError, "indices is -1"),
    (lambda: ag.global_tokens([0.5]), TypeError, "indices is 0.5"),
    (lambda: ag.random_keys(4, 3, rng=RNG), ValueError, "r is 4; wanted at most the number of keys, 3"),
    (lambda: ag.random_keys(1, 3, rng=0), TypeError, "rng is 0; wanted a numpy.random.Generator"),
    (lambda: ag.random_keys(1, 3, 4, rng=RNG, symmetric=True), ValueError, "symmetric is True with n = 3 and m = 4"),
    (lambda: ag.block_local(0), ValueError, "block is 0"),
    (lambda: ag.blockwise(lambda b, h, q, k: q == k, 2), TypeError, "mask is <function"),
    (lambda: ag.prefix(-1), ValueError, "length is -1"),
    (lambda: ag.sinks(-1), ValueError, "count is -1"),
    (lambda: ag.document([0.0, 1.0]), TypeError, "ids has dtype float64; wanted integers"),
    (lambda: ag.document([[[0]]]), ValueError, "ids has shape (1, 1, 1); wanted (n,) or (batch, n)"),
    (lambda: ag.from_array([[0, 1]]), TypeError, "allowed has dtype int64; wanted booleans"),
    (lambda: ag.from_array([True]), ValueError, "allowed has shape (1,); wanted (n, m)"),
    (lambda: ag.on_head(-1), ValueError, "index is -1"),
    (lambda: ag.per_head([]), ValueError, "masks is empty; wanted one mask per head"),
    (lambda: ag.per_head([ag.causal, 3]), TypeError, "masks[1] is 3 of type int; wanted a Mask"),
    (lambda: ag.longformer(3), ValueError, "window is 3; wanted an even number"),
    (lambda: ag.bigbird(10, 3, rng=RNG), ValueError, "n is 10; wanted a multiple of block, 3"),
    (lambda: ag.bigbird(12, 3, window_blocks=2, rng=RNG), ValueError, "window_blocks is 2; wanted an odd number"),
    (lambda: ag.bigbird(12, 3), TypeError, "rng is None; wanted a numpy.random.Generator"),
    (lambda: ag.bigbird(12, 3, rng=RNG), ValueError, "random_blocks is 3; block 1 of 4 has only 0 blocks outside"),
    (
        lambda: ag.bigbird(12, 3, global_blocks=5, rng=RNG),
        ValueError,
        "global_blocks is 5; wanted at most the number of blocks, 4",
    ),
    (lambda: ag.bigbird(12, 3, random_blocks=[[0]]), ValueError, "random_blocks has shape (1, 1); wanted (4, r)"),
    (
        lambda: ag.bigbird(12, 3, random_blocks=[[4]] * 4),
        ValueError,
        "random_blocks holds 4 ... 4; wanted blocks 0 ... 3",
    ),
    (lambda: ag.bigbird(12, 3, random_blocks=[[0.5]] * 4), TypeError, "random_blocks has dtype float64"),
    (lambda: ag.reachability(ag.causal, 3, -1), ValueError, "layers is -1"),
    (lambda: ag.reachability("causal", 3, 1), TypeError, "mask is 'causal' of type str; wanted a Mask"),
    (lambda: ag.receptive_field(ag.document([0]), 2, 1), ValueError, "n is 2; document([0]) is defined for at most 1"),
    (lambda: ag.connected_components(ag.causal, -1), ValueError, "n is -1"),
    (lambda: ag.path_lengths(ag.causal, 1.5), TypeError, "n is 1.5"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[row[2][:40] for row in BAD])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_masks_are_frozen_and_keep_their_own_tables():
    with pytest.raises(AttributeError):
        ag.causal.name = "other"  # type: ignore[misc]
    ids = np.array([0, 0, 1])
    mask = ag.document(ids)
    ids[:] = 0
    assert not mask.materialize(3)[0, 2]
    cells = mask.materialize(3)
    cells[:] = True
    assert not mask.materialize(3)[0, 2]
