"""Sparse attention against HuggingFace's Longformer and BigBird, PyTorch, and masked dense attention."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import attn_guide as ag
from attn_guide import flash

torch = pytest.importorskip("torch")


def inputs(seed, lead=(2, 4), n=33, m=None, d_k=16, d_v=8, h_kv=None, dtype="float64"):
    """Query (*lead, n, d_k), key and value; ``h_kv`` replaces the last leading dimension of key and value."""
    rng = np.random.default_rng(seed)
    kv_lead = lead if h_kv is None else (*lead[:-1], h_kv)
    m = n if m is None else m
    shapes = ((*lead, n, d_k), (*kv_lead, m, d_k), (*kv_lead, m, d_v))
    return tuple(rng.standard_normal(s).astype(dtype) for s in shapes)


def assert_close(actual, expected, relative=1e-12):
    assert actual.shape == expected.shape
    assert not np.isnan(actual).any()
    scale = np.max(np.abs(expected), initial=0.0)
    assert np.max(np.abs(actual - expected), initial=0.0) <= relative * max(scale, 1e-300)


def torch_masked(q, k, v, mask, **options):
    allowed = torch.from_numpy(np.array(mask.materialize(q.shape[-2], k.shape[-2])))
    tensors = (torch.from_numpy(x) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=allowed, **options).numpy()


# -------------------------------------------------------------------------------- independent implementations


@pytest.mark.parametrize(("n", "m"), [(1, 1), (33, 33), (700, 700), (300, 520), (520, 300)])
@pytest.mark.parametrize("window", [(0, 0), (5, 0), (3, 9), (128, 128), (2000, 2000)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_window_equals_torch_under_the_same_mask(n, m, window, dtype):
    q, k, v = inputs(n + m, n=n, m=m, dtype=dtype, h_kv=2)
    expected = torch_masked(q, k, v, ag.sliding_window(*window), enable_gqa=True)
    actual = ag.sliding_window_attention(q, k, v, *window, enable_gqa=True)
    assert actual.dtype == dtype
    assert_close(actual, expected, 1e-12 if dtype == "float64" else 1e-5)


@pytest.mark.parametrize(("n", "window", "chosen"), [(64, 4, [0]), (96, 16, [0, 1, 50, 95]), (64, 32, [])])
def test_longformer_equals_huggingface_with_its_separate_global_projections(n, window, chosen, monkeypatch):
    modeling = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    from transformers import LongformerConfig

    softmax = torch.nn.functional.softmax  # the library asks for float32 here, in a float64 model too
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim))

    torch.manual_seed(0)
    config = LongformerConfig(
        hidden_size=32, num_attention_heads=4, attention_window=[window], attention_probs_dropout_prob=0.0
    )
    layer = modeling.LongformerSelfAttention(config, 0).double().eval()
    x = torch.randn(2, n, 32, dtype=torch.float64)
    is_global = torch.zeros(2, n, dtype=torch.bool)
    is_global[:, chosen] = True
    with torch.no_grad():
        expected = layer(
            x,
            attention_mask=10000.0 * is_global.double(),
            is_index_masked=torch.zeros(2, n, dtype=torch.bool),
            is_index_global_attn=is_global,
            is_global_attn=bool(chosen),
        )[0].numpy()

        def project(linear):
            return ag.split_heads(linear(x).numpy(), 4)

        out = ag.longformer_attention(
            project(layer.query),
            project(layer.key),
            project(layer.value),
            window,
            chosen,
            global_query=project(layer.query_global),
            global_key=project(layer.key_global),
            global_value=project(layer.value_global),
        )
    assert_close(ag.merge_heads(out), expected)


def huggingface_bigbird(blocks, block, r, monkeypatch):
    """Run HuggingFace's layer; return the projected inputs, its output and the table of blocks that it drew."""
    modeling = pytest.importorskip("transformers.models.big_bird.modeling_big_bird")
    from transformers import BigBirdConfig

    torch.manual_seed(0)
    n = blocks * block
    config = BigBirdConfig(
        hidden_size=32,
        num_attention_heads=4,
        block_size=block,
        num_random_blocks=r,
        max_position_embeddings=n,
        attention_probs_dropout_prob=0.0,
    )
    layer = modeling.BigBirdBlockSparseAttention(config, seed=3).double().train()  # eval draws block 0 only
    drawn = []
    original = layer._create_rand_mask_from_inputs

    def spy(a, b, table, *rest):
        drawn.append(table.numpy())
        return original(a, b, table, *rest)

    monkeypatch.setattr(layer, "_create_rand_mask_from_inputs", spy)
    x = torch.randn(2, n, 32, dtype=torch.float64)
    everything = torch.ones(2, n, dtype=torch.float64)
    blocked, band, row, column = modeling.BigBirdModel.create_masks_for_block_sparse_attn(everything, block)
    state = np.random.get_state()  # noqa: NPY002 (the library draws from the hidden source)
    with torch.no_grad():
        expected = layer(x, band, row, column, blocked, blocked)[0].numpy()
        projected = [ag.split_heads(f(x).numpy(), 4) for f in (layer.query, layer.key, layer.value)]
    np.random.set_state(state)  # noqa: NPY002
    table = np.zeros((2, 4, blocks, r), int)  # the first and the last block, which see everything, draw none
    table[:, :, 1:-1] = drawn[0]
    return projected, ag.split_heads(expected, 4), table


@pytest.mark.parametrize(("blocks", "block", "r"), [(12, 4, 1), (20, 3, 3), (17, 16, 2)])
def test_bigbird_equals_huggingface_with_the_blocks_it_drew(blocks, block, r, monkeypatch):
    projected, expected, table = huggingface_bigbird(blocks, block, r, monkeypatch)
    assert len(np.unique(table[0, :, 2:-2].reshape(4, -1), axis=0)) > 1  # the heads drew differently
    assert_close(ag.bigbird_attention(*projected, block, random_blocks=table), expected)


def test_huggingface_counts_a_block_twice_at_length_1024(monkeypatch):
    """At 1024, 3072 and 4096 it may draw a block that the row sees anyway, whose keys then enter the softmax twice.

    Dense attention with log 2 added to the scores of those keys gives its output, so the difference to
    ``bigbird_attention`` is explained in full.
    """
    (q, k, v), expected, table = huggingface_bigbird(16, 64, 2, monkeypatch)
    blocks = np.arange(16)
    seen = (np.abs(blocks[:, None] - blocks) <= 1) | np.isin(blocks, (0, 15))  # (16, 16)
    times = np.broadcast_to(seen, (2, 4, 16, 16)).astype(int)
    for i in range(1, 15):
        for b, h, j in np.ndindex(2, 4, 2):
            times[b, h, i, table[b, h, i, j]] += 1
    times[:, :, [0, 15]] = 1
    assert times.max() == 2
    with np.errstate(divide="ignore"):
        bias = np.log(times).repeat(64, -1).repeat(64, -2)
    assert_close(ag.scaled_dot_product_attention(q, k, v, attn_mask=bias), expected)
    once = np.where(times > 0, 0.0, -np.inf).repeat(64, -1).repeat(64, -2)
    ours = ag.bigbird_attention(q, k, v, 64, random_blocks=table)
    assert_close(ours, ag.scaled_dot_product_attention(q, k, v, attn_mask=once))
    assert np.max(np.abs(ours - expected)) > 0.01


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile.*")
def test_blocks_equal_flex_attention():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = inputs(4, n=100, m=100)
    pattern = ag.sliding_window(1, 0) | ag.global_tokens([0])
    mask = ag.blockwise(pattern, 16) & ag.causal
    block_mask = create_block_mask(mask, 2, 4, 100, 100, device="cpu")
    expected = flex_attention(*(torch.from_numpy(x) for x in (q, k, v)), block_mask=block_mask).numpy()
    assert_close(ag.block_sparse_attention(q, k, v, pattern, 16, is_causal=True), expected)


# ---------------------------------------------------------------------------------- equal to masked dense


def dense(q, k, v, mask, **options):
    return ag.scaled_dot_product_attention(q, k, v, mask_mod=mask, **options)


@settings(max_examples=120, deadline=None)
@given(
    n=st.integers(0, 90),
    m=st.integers(0, 90),
    left=st.integers(0, 100),
    right=st.integers(0, 100),
    dilation=st.integers(1, 8),
    group=st.integers(1, 3),
    softcap=st.sampled_from([None, 0.7]),
    size=st.sampled_from([1.0, 100.0]),
    seed=st.integers(0, 2**32),
)
def test_window_equals_dense(n, m, left, right, dilation, group, softcap, size, seed):
    q, k, v = inputs(seed, lead=(2, 2 * group), n=n, m=m, d_k=5, d_v=3, h_kv=2)
    options = {"enable_gqa": True, "softcap": softcap}
    expected = dense(size * q, size * k, v, ag.dilated_window(left, right, dilation), **options)
    out, lse = ag.sliding_window_attention(
        size * q, size * k, v, left, right, dilation=dilation, return_lse=True, **options
    )
    assert_close(out, expected, 1e-12 * size**2)
    assert not np.isnan(lse).any()


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 90),
    half=st.integers(0, 40),
    dilation=st.integers(1, 5),
    chosen=st.lists(st.integers(0, 89), max_size=5),
    group=st.integers(1, 2),
    seed=st.integers(0, 2**32),
)
def test_longformer_equals_dense(n, half, dilation, chosen, group, seed):
    q, k, v = inputs(seed, lead=(2 * group,), n=n, d_k=5, d_v=3, h_kv=2)
    chosen = [i % n for i in chosen]
    expected = dense(q, k, v, ag.longformer(2 * half, chosen, dilation=dilation), enable_gqa=True)
    assert_close(ag.longformer_attention(q, k, v, 2 * half, chosen, dilation=dilation, enable_gqa=True), expected)


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.integers(8, 14),
    block=st.integers(1, 9),
    window=st.sampled_from([1, 3]),
    anchors=st.integers(0, 3),
    r=st.integers(0, 2),
    seed=st.integers(0, 2**32),
)
def test_bigbird_equals_dense(blocks, block, window, anchors, r, seed):
    n = blocks * block
    q, k, v = inputs(seed, lead=(4,), n=n, d_k=5, d_v=3, h_kv=2)
    options = {"window_blocks": window, "global_blocks": anchors, "random_blocks": r}
    mask = ag.bigbird(n, block, rng=np.random.default_rng(seed), **options)
    actual = ag.bigbird_attention(q, k, v, block, rng=np.random.default_rng(seed), enable_gqa=True, **options)
    assert_close(actual, dense(q, k, v, mask, enable_gqa=True))


def test_bigbird_takes_a_table_for_each_head_and_counts_a_block_once():
    q, k, v = inputs(5, lead=(2, 2), n=60)
    tables = np.array([[[0]] * 10, [[i] for i in range(10)]])  # global already; in the window already
    expected = dense(q, k, v, ag.bigbird(60, 6, random_blocks=0))
    assert_close(ag.bigbird_attention(q, k, v, 6, random_blocks=tables), expected)
    tables = np.stack([ag.bigbird_random_blocks(10, 2, rng=np.random.default_rng(i)) for i in range(2)])
    actual = ag.bigbird_attention(q, k, v, 6, random_blocks=tables)
    for h in range(2):
        assert_close(actual[:, h], dense(q[:, h], k[:, h], v[:, h], ag.bigbird(60, 6, random_blocks=tables[h])))


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 60),
    m=st.integers(1, 60),
    block=st.integers(1, 70),
    is_causal=st.booleans(),
    extra=st.sampled_from([None, ag.strided(2), ag.sliding_window(9, 9)]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_blocks_equal_dense(n, m, block, is_causal, extra, share, seed):
    q, k, v = inputs(seed, lead=(2, 3), n=n, m=m, d_k=5, d_v=3)
    rows, columns = -(-n // block), -(-m // block)
    table = np.random.default_rng(seed).random((3, rows, columns)) < share
    allowed = table.repeat(block, 1).repeat(block, 2)[:, :n, :m]
    options = {"is_causal": is_causal, "mask_mod": extra}
    expected = ag.scaled_dot_product_attention(q, k, v, attn_mask=allowed, **options)
    assert_close(ag.block_sparse_attention(q, k, v, table, block, **options), expected)
    for h in range(3):
        one = ag.block_sparse_attention(q[:, h], k[:, h], v[:, h], table[h], block, return_lse=True, **options)
        assert_close(one[0], expected[:, h])
        assert (one[1] == -np.inf).any(axis=-1).sum() == (one[0] == 0).all(axis=-1).any(axis=-1).sum()


def test_block_mask_may_differ_between_heads():
    q, k, v = inputs(6, lead=(2, 2), n=50)
    mask = ag.per_head([ag.causal, ag.sliding_window(1, 1)])
    assert_close(ag.block_sparse_attention(q, k, v, mask, 7), dense(q, k, v, ag.blockwise(mask, 7)))


def test_nothing_outside_the_window_is_read():
    """Perturbation: what stands outside a query's window cannot change its output, to the bit."""
    q, k, v = inputs(7, lead=(2,), n=300)
    before = ag.sliding_window_attention(q, k, v, 20, 5)
    k2, v2 = k.copy(), v.copy()
    k2[:, 200:], v2[:, 200:] = np.nan, np.nan
    after = ag.sliding_window_attention(q, k2, v2, 20, 5, scale=None)
    untouched = 200 - 5 - 64  # and not in a block of queries that reads position 200
    assert_close(after[:, :untouched], before[:, :untouched], 1e-14)
    assert np.isnan(after[:, 200:]).all()


def test_longformer_with_all_tokens_global_or_a_wide_window_is_full_attention():
    q, k, v = inputs(8, n=40)
    full = ag.scaled_dot_product_attention(q, k, v)
    assert_close(ag.longformer_attention(q, k, v, 0, range(40)), full)
    assert_close(ag.longformer_attention(q, k, v, 80, 3), full)


# ------------------------------------------------------------------------------------------- time and memory


def run_window(q, k, v):
    return ag.sliding_window_attention(q, k, v, 128, 128)


def run_longformer(q, k, v):
    return ag.longformer_attention(q, k, v, 256, [0, 7, 100])


def run_bigbird(q, k, v):
    n = q.shape[-2]
    table = (np.arange(n // 64)[:, None] * [3, 5, 7]) % (n // 64)
    return ag.bigbird_attention(q, k, v, 64, random_blocks=table)


def run_blocks(q, k, v):
    return ag.block_sparse_attention(q, k, v, ag.sliding_window(2, 2), 64)


RUNS = [run_window, run_longformer, run_bigbird, run_blocks]


@pytest.mark.parametrize("run", RUNS, ids=lambda f: f.__name__)
def test_work_grows_as_n(run, monkeypatch):
    """Count the scores that are computed and the largest array that is made, at two lengths."""
    cells, largest = [], []
    original = flash._capped_scores

    def counted(q, tile, *rest):
        cells.append(len(q) * len(tile.value))
        largest.append(max(cells[-1], tile.key_t.size))
        return original(q, tile, *rest)

    monkeypatch.setattr(flash, "_capped_scores", counted)
    sizes, totals = (2048, 4096, 8192), []
    for n in sizes:
        cells.clear()
        run(*inputs(0, lead=(), n=n, d_k=4, d_v=4, dtype="float32"))
        totals.append(sum(cells))
    assert ag.fit_exponent(sizes, totals).exponent <= 1.1
    assert totals[-1] < 8192 * 1100  # a square has 8192 keys for each query
    assert max(largest) <= 256 * 512


@pytest.mark.parametrize("run", RUNS, ids=lambda f: f.__name__)
def test_memory_grows_as_n(run):
    """The peak, output included, is a small multiple of the inputs: a square of booleans would be 268 MB."""
    sizes = (4096, 8192, 16384)
    peaks = [ag.peak_memory(lambda n=n: run(*inputs(0, lead=(), n=n, d_k=16, d_v=16, dtype="float32"))) for n in sizes]
    assert ag.fit_exponent(sizes, peaks).exponent <= 1.1
    assert peaks[-1] < 20e6


# ------------------------------------------------------------------------------------------------- contract


def test_half_precision_and_zero_lengths():
    q, k, v = inputs(9, n=100, dtype="float16")
    for run in (run_window, run_longformer):
        pattern = {run_window: ag.sliding_window(128, 128), run_longformer: ag.full}[run]
        if run is run_longformer:
            q, k, v = inputs(9, n=101, dtype="float16")
        out = run(q, k, v)
        exact = dense(*(x.astype(np.float64) for x in (q, k, v)), pattern)
        assert out.dtype == np.float16
        assert_close(out.astype(np.float64), exact, 2e-3)
    empty = np.zeros((2, 0, 8))
    assert ag.sliding_window_attention(empty, empty, empty, 1, 1).shape == (2, 0, 8)
    assert ag.longformer_attention(empty, empty, empty, 2).shape == (2, 0, 8)
    assert ag.block_sparse_attention(empty, empty, empty, np.ones((0, 0), bool), 4).shape == (2, 0, 8)
    assert ag.bigbird_attention(empty, empty, empty, 4, global_blocks=0, random_blocks=0).shape == (2, 0, 8)


def test_inputs_are_left_alone():
    q, k, v = inputs(10, n=256)
    for x in (q, k, v):
        x.setflags(write=False)
    for run in RUNS[1:]:
        run(q, k, v)


X = np.zeros((2, 24, 8))
BAD = [
    ("sliding_window_attention", (X, X, X, -1, 0), {}, ValueError, "left"),
    ("sliding_window_attention", (X, X, X, 0, 1.5), {}, TypeError, "right"),
    ("sliding_window_attention", (X, X, X, 1, 1), {"dilation": 0}, ValueError, "dilation"),
    ("sliding_window_attention", (X, X[..., :4], X, 1, 1), {}, ValueError, "key"),
    ("sliding_window_attention", (X, X, X, 1, 1), {"softcap": -1.0}, ValueError, "softcap"),
    ("longformer_attention", (X, X, X, 3), {}, ValueError, "window"),
    ("longformer_attention", (X, X, X, -2), {}, ValueError, "window"),
    ("longformer_attention", (X, X, X, 2, [24]), {}, ValueError, "global_indices"),
    ("longformer_attention", (X, X, X, 2, [-1]), {}, ValueError, "global_indices"),
    ("longformer_attention", (X, X, X, 2, [0.5]), {}, TypeError, "global_indices"),
    ("longformer_attention", (X, X[:, :5], X[:, :5], 2), {}, ValueError, "key"),
    ("longformer_attention", (X, X, X, 2, 0), {"global_query": X[:, 1:]}, ValueError, "global_query"),
    ("longformer_attention", (X, X, X, 2, 0), {"global_key": np.float32(X)}, ValueError, "global_key"),
    ("block_sparse_attention", (X, X, X, np.ones((3, 3), bool), 0), {}, ValueError, "block"),
    ("block_sparse_attention", (X, X, X, np.ones((4, 3), bool), 8), {}, ValueError, "block_mask"),
    ("block_sparse_attention", (X, X, X, np.ones((3, 3)), 8), {}, TypeError, "block_mask"),
    ("bigbird_attention", (X, X, X, 5), {"random_blocks": 0}, ValueError, "block"),
    ("bigbird_attention", (X, X, X, 0), {"random_blocks": 0}, ValueError, "block"),
    ("bigbird_attention", (X, X, X, 2), {}, TypeError, "rng"),
    ("bigbird_attention", (X, X, X, 2), {"random_blocks": 0, "window_blocks": 2}, ValueError, "window_blocks"),
    ("bigbird_attention", (X, X, X, 2), {"random_blocks": 0, "global_blocks": -1}, ValueError, "global_blocks"),
    ("bigbird_attention", (X, X, X, 2), {"random_blocks": np.zeros((11, 1), int)}, ValueError, "random_blocks"),
    ("bigbird_attention", (X, X, X, 2), {"random_blocks": np.full((12, 1), 12)}, ValueError, "random_blocks"),
    ("bigbird_attention", (X, X, X, 2), {"random_blocks": np.zeros((12, 1))}, TypeError, "random_blocks"),
    ("bigbird_attention", (X, X, X, 2), {"random_blocks": -1}, ValueError, "random_blocks"),
    ("bigbird_attention", (X, X[:, :8], X[:, :8], 2), {"random_blocks": 0}, ValueError, "key"),
]


@pytest.mark.parametrize(("function", "args", "options", "error", "names"), BAD)
def test_bad_input_names_the_argument(function, args, options, error, names):
    with pytest.raises(error, match=names):
        getattr(ag, function)(*args, **options)
