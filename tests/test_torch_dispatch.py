"""Attention on tensors against the NumPy reference: every backend, mask, shape and dtype, and what it refuses."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import attn_guide as ag
import attn_guide.torch as at
from attn_guide.torch import core, dispatch, flex

BOTTOM = float("-inf")

MASKS = {
    "none": None,
    "full": ag.full,
    "causal": ag.causal,
    "lower right": ag.causal_lower_right(7, 9),
    "window": ag.sliding_window(2, 1),
    "longformer": ag.longformer(2, [0, 4]),
    "documents by batch": ag.document([[0, 0, 0, 1, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2, 2, 2, 2]]),
    "by head": ag.per_head([ag.causal, ag.full, ag.sliding_window(1, 0), ag.strided(2)]),
    "empty rows": ag.sliding_window(3, 0) & ~ag.sinks(4),
    "function": lambda b, h, q_idx, kv_idx: (q_idx + kv_idx + b + h) % 3 != 0,
}


def inputs(seed=0, *, lead=(2,), h=4, h_kv=4, n=7, m=9, d_k=8, d_v=8, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    shapes = [(*lead, h, n, d_k), (*lead, h_kv, m, d_k), (*lead, h_kv, m, d_v)]
    return [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]


def reference(q, k, v, **options):
    options = {key: x.numpy() if isinstance(x, torch.Tensor) else x for key, x in options.items()}
    return ag.scaled_dot_product_attention(q.numpy(), k.numpy(), v.numpy(), **options)


def agree(ours, theirs, tolerance=1e-12):
    ours, theirs = ours.detach().numpy(), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", [None, "sdpa", "explicit"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_every_mask_gives_what_the_reference_gives(mask, is_causal, backend):
    q, k, v = inputs()
    options = {"mask_mod": MASKS[mask], "is_causal": is_causal}
    agree(at.attention(q, k, v, **options, backend=backend), reference(q, k, v, **options))


@pytest.mark.parametrize("backend", [None, "sdpa", "explicit"])
@pytest.mark.parametrize("kind", ["bool", "float", "-inf", "row", "by head", "by batch", "one batch"])
@pytest.mark.parametrize("also", [{}, {"is_causal": True}, {"mask_mod": ag.sliding_window(4, 4)}])
def test_mask_tensors_combine_with_the_other_masks(kind, also, backend):
    q, k, v = inputs()
    g = torch.Generator().manual_seed(1)
    shape = {"row": (9,), "by head": (4, 7, 9), "by batch": (2, 1, 7, 9), "one batch": (1, 4, 1, 9)}.get(kind, (7, 9))
    draw = torch.rand(shape, generator=g, dtype=torch.float64)
    mask = draw if kind == "float" else (draw > 0.4)
    if kind == "-inf":
        mask = torch.where(mask, draw, BOTTOM)
    agree(at.attention(q, k, v, mask, **also, backend=backend), reference(q, k, v, attn_mask=mask, **also))


@pytest.mark.parametrize("lead", [(), (2,), (3, 2), (1, 2, 2)])
@pytest.mark.parametrize("h_kv", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"mask_mod": ag.sliding_window(2, 2)}, {"softcap": 2.0}])
def test_grouped_heads_and_leading_dimensions(lead, h_kv, options):
    q, k, v = inputs(lead=lead, h_kv=h_kv, d_v=5)
    agree(at.attention(q, k, v, enable_gqa=True, **options), reference(q, k, v, enable_gqa=True, **options))


@pytest.mark.parametrize("backend", ["sdpa", "explicit"])
def test_leading_dimensions_broadcast(backend):
    q, k, v = inputs(lead=(3, 2))
    for q_, k_, v_ in [
        (q, k[0], v[:, :1]),
        (q[0, 0, 0], k, v),
        (q[:1], k[:, :1], v[0, 0, 0]),
        (q[0, 0, 0], k[0, 0, 0], v[0, 0, 0]),
    ]:
        agree(at.attention(q_, k_, v_, is_causal=True, backend=backend), reference(q_, k_, v_, is_causal=True))
    mask = torch.rand(3, 1, 4, 7, 9) > 0.3
    agree(at.attention(q, k, v, mask, backend=backend), reference(q, k, v, attn_mask=mask))


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("scored", [False, True])
def test_scores_are_scaled_capped_modified_and_masked_in_this_order(softcap, scored):
    def nearer(score, b, h, q_idx, kv_idx):
        return score - 0.1 * (h + 1) * abs(q_idx - kv_idx) + 0.2 * b

    # torch makes an integer times 0.1 a float32, whatever the scores are, so float64 would agree no better.
    q, k, v = inputs(dtype=torch.float32)
    options = {"softcap": softcap, "score_mod": nearer if scored else None, "scale": 0.7, "is_causal": True}
    agree(at.attention(q, k, v, **options), reference(q, k, v, **options), 2e-6)
    theirs = ag.attention_scores(q.numpy(), k.numpy(), **options)
    agree(at.attention_scores(q, k, **options), theirs, 2e-6)


def test_weights_come_back_on_request():
    q, k, v = inputs(h_kv=2)
    out, weights = at.attention(q, k, v, is_causal=True, enable_gqa=True, return_weights=True)
    theirs = reference(q, k, v, is_causal=True, enable_gqa=True, return_weights=True)
    agree(out, theirs[0])
    agree(weights, theirs[1])


@pytest.mark.parametrize("backend", ["sdpa", "explicit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("how", ["bool", "-inf", "mask_mod"])
def test_a_fully_masked_row_gives_zero_and_gradients_of_zero(how, dtype, backend):
    q, k, v = (x.requires_grad_() for x in inputs(dtype=dtype))
    allowed = torch.ones(7, 9, dtype=torch.bool)
    allowed[3] = False
    options = {
        "bool": {"attn_mask": allowed},
        "-inf": {"attn_mask": torch.where(allowed, 0.0, BOTTOM).to(dtype)},
        "mask_mod": {"mask_mod": ag.from_array(allowed.numpy())},
    }[how]
    out = at.attention(q, k, v, **options, backend=backend)
    assert torch.equal(out[:, :, 3], torch.zeros_like(out[:, :, 3]))
    out.sum().backward()
    for x in (q, k, v):
        assert torch.isfinite(x.grad).all()
    assert torch.equal(q.grad[:, :, 3], torch.zeros_like(q.grad[:, :, 3]))
    assert q.grad.abs().sum() > 0


@pytest.mark.parametrize("backend", ["sdpa", "explicit"])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"mask_mod": MASKS["empty rows"]}])
@pytest.mark.parametrize("h_kv", [2, 4])
def test_gradients_are_those_of_the_reference(backend, options, h_kv):
    q, k, v = inputs(h_kv=h_kv)
    grad = torch.randn(2, 4, 7, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    theirs = ag.scaled_dot_product_attention_backward(
        grad.numpy(), q.numpy(), k.numpy(), v.numpy(), enable_gqa=True, **options
    )
    leaves = [x.requires_grad_() for x in (q, k, v)]
    at.attention(*leaves, enable_gqa=True, backend=backend, **options).backward(grad)
    for x, expected in zip(leaves, theirs, strict=True):
        agree(x.grad, expected)


def test_a_learned_bias_gets_its_gradient():
    q, k, v = inputs()
    bias = torch.randn(4, 7, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: at.attention(q, k, v, b), bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["sdpa", "explicit"])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"mask_mod": ag.sliding_window(8, 8)}])
def test_half_precision_errs_no_more_than_the_plain_computation(dtype, backend, options):
    """Against float64 on the same rounded inputs; the plain computation rounds its scores and weights too."""
    q, k, v = inputs(n=64, m=64, d_k=32, d_v=32, dtype=dtype)
    exact = reference(q.double(), k.double(), v.double(), **options)
    mask = core.attention_scores(torch.zeros_like(q), k, scale=1.0, **options)
    plain = torch.softmax(q @ k.transpose(-1, -2) / 32**0.5 + mask, dim=-1) @ v
    ours = at.attention(q, k, v, **options, backend=backend)
    assert ours.dtype == dtype

    def worst(x):
        return np.abs(x.double().numpy() - exact).max()

    assert worst(ours) <= worst(plain)


def test_an_empty_sequence_gives_zero_or_nothing():
    q, k, v = inputs()
    for backend in ("sdpa", "explicit"):
        assert torch.equal(at.attention(q, k[:, :, :0], v[:, :, :0], backend=backend), torch.zeros(2, 4, 7, 8).double())
        assert at.attention(q[:, :, :0], k, v, backend=backend).shape == (2, 4, 0, 8)


def test_no_input_is_modified():
    q, k, v = inputs()
    mask = torch.rand(7, 9) > 0.5
    before = [x.clone() for x in (q, k, v, mask)]
    for options in ({}, {"is_causal": True}, {"return_weights": True}, {"softcap": 1.0}):
        at.attention(q, k, v, mask, **options)
    assert all(torch.equal(*pair) for pair in zip(before, (q, k, v, mask), strict=True))


# ---------------------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize(
    ("options", "backend", "words"),
    [
        ({}, "sdpa", "no mask"),
        ({"is_causal": True}, "sdpa", "flag"),
        ({"mask_mod": ag.causal}, "sdpa", "is_causal flag"),
        ({"mask_mod": ag.causal_lower_right(7, 7)}, "sdpa", "is_causal flag"),
        ({"mask_mod": ag.sliding_window(6, 0)}, "sdpa", "is_causal flag"),
        ({"mask_mod": ag.sliding_window(6, 6)}, "sdpa", "every pair"),
        ({"mask_mod": ag.full, "is_causal": True}, "sdpa", "flag"),
        ({"mask_mod": ag.sliding_window(2, 0)}, "sdpa", "short"),
        ({"mask_mod": ag.per_head([ag.causal] * 4)}, "sdpa", "short"),
        ({"attn_mask": torch.ones(7, 7, dtype=torch.bool)}, "sdpa", "mask tensor"),
        ({"attn_mask": torch.ones(7, 7, dtype=torch.bool), "is_causal": True}, "sdpa", "combined"),
        ({"softcap": 2.0}, "explicit", "soft-cap"),
        ({"return_weights": True}, "explicit", "weights"),
        ({"dropout_p": 0.5, "generator": torch.Generator()}, "explicit", "generator"),
        ({"backend": "explicit"}, "explicit", "caller"),
    ],
)
def test_explain_says_what_is_taken(options, backend, words, monkeypatch):
    q, k, v = inputs(n=7, m=7, dtype=torch.float32)
    choice = at.explain(q, k, v, **options)
    assert choice.backend == backend
    assert words in choice.reason
    called = []
    for name, module, function in (
        ("sdpa", dispatch.F, "scaled_dot_product_attention"),
        ("flex", flex, "attend"),
        ("explicit", core, "attend"),
    ):
        original = getattr(module, function)
        monkeypatch.setattr(
            module, function, lambda *a, _f=original, _n=name, **o: (called.append((_n, a)), _f(*a, **o))[1]
        )
    at.attention(q, k, v, **options)
    assert [name for name, _ in called] == [backend]
    if backend == "sdpa" and "mask_mod" in options and "short" not in words:
        assert called[0][1][3] is None  # the mask was not written out


def test_long_calls_go_where_empty_blocks_or_written_scores_are_saved():
    q = torch.zeros(1, 1, 4096, 16)
    window = ag.sliding_window(256, 0)
    assert at.explain(q, q, q, mask_mod=window).backend == "tiles"
    assert at.explain(q, q, q, mask_mod=lambda b, h, i, j: i - j < 9).backend == "sdpa"
    assert at.explain(q, q, q, mask_mod=~ag.strided(7)).backend == "sdpa"
    assert at.explain(q, q, q, mask_mod=ag.causal).backend == "sdpa"
    assert at.explain(q, q, q, softcap=5.0).backend == "flex"
    assert at.explain(q.double(), q.double(), q.double(), softcap=5.0).backend == "explicit"
    assert at.explain(q, q, q, softcap=5.0, dropout_p=0.1).backend == "explicit"
    learned = q.clone().requires_grad_()
    assert at.explain(learned, q, q, softcap=5.0).backend == "explicit"
    with torch.no_grad():
        assert at.explain(learned, q, q, softcap=5.0).backend == "flex"


LONG = {
    "window": ag.sliding_window(100, 0),
    "dilated": ag.dilated_window(4, 4, 16),
    "longformer": ag.longformer(64, [0, 300]),
    "bigbird": ag.bigbird(640, 64, random_blocks=1, rng=np.random.default_rng(0)),
    "documents": ag.document(np.repeat([[0, 1, 2, 3, 4], [0, 0, 0, 4, 4]], 128, axis=1)),
    "by head": ag.per_head([ag.sliding_window(9, 9), ag.sinks(3), ag.block_local(50), ag.sliding_window(0, 200)]),
    "empty rows": ag.sliding_window(30, 0) & ~ag.sinks(200),
}


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask", LONG)
def test_tiles_give_what_the_reference_gives_and_its_gradients(mask, is_causal):
    q, k, v = inputs(h_kv=2, n=640, m=640, d_v=5)
    options = {"mask_mod": LONG[mask], "is_causal": is_causal, "enable_gqa": True}
    agree(at.attention(q, k, v, **options, backend="tiles"), reference(q, k, v, **options))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    grad = torch.randn(2, 4, 640, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tiled = torch.autograd.grad(at.attention(*leaves, **options, backend="tiles"), leaves, grad)
    explicit = torch.autograd.grad(at.attention(*leaves, **options, backend="explicit"), leaves, grad)
    for ours, theirs in zip(tiled, explicit, strict=True):
        agree(ours, theirs)


def test_tiles_touch_only_the_blocks_of_the_pattern(monkeypatch):
    cells = []
    fused = dispatch.F.scaled_dot_product_attention

    def counted(q, k, *args, **options):
        cells.append(q.shape[-2] * k.shape[-2])
        return fused(q, k, *args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    q, k, v = inputs(n=2048, m=2048, dtype=torch.float32)
    at.attention(q, k, v, mask_mod=ag.sliding_window(128, 0))
    assert sum(cells) == (16 * 2 - 1) * 128**2  # the query's own block and the one before it


@pytest.mark.parametrize(
    ("backend", "options", "message"),
    [
        ("sdpa", {"return_weights": True}, "return the weights"),
        ("sdpa", {"softcap": 2.0}, "score_mod or a softcap"),
        ("sdpa", {"dropout_p": 0.5, "generator": torch.Generator()}, "draw from a generator"),
        ("flex", {"dropout_p": 0.5}, "drop weights out"),
        ("flex", {"attn_mask": torch.ones(7, 9, dtype=torch.bool)}, "mask tensor"),
        ("flex", {}, "float64"),
        ("tiles", {}, "without a Mask"),
        ("fast", {}, "wanted one of 'sdpa', 'flex', 'tiles', 'explicit'"),
    ],
)
def test_a_backend_that_cannot_serve_is_refused(backend, options, message):
    q, k, v = inputs()
    with pytest.raises(ValueError, match=message):
        at.attention(q, k, v, **options, backend=backend)


def test_grouped_heads_reach_a_fused_kernel_without_being_repeated():
    q, k, v = inputs(h=4, h_kv=2, n=16, m=16, dtype=torch.float32)
    math, flash = 0, 1
    chosen = torch._fused_sdp_choice(q, k, v, is_causal=True, enable_gqa=True)
    assert chosen == flash != math


# ------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("mask", [x for x in MASKS if x not in ("none", "function")])
def test_block_masks_are_those_torch_makes(mask):
    from torch.nn.attention.flex_attention import create_block_mask

    n, m = (7, 9) if MASKS[mask].shape == (None, None) else (9, 9)
    ours = at.block_mask(MASKS[mask], 2, 4, n, m, block=4)
    theirs = create_block_mask(MASKS[mask], 2, 4, n, m, device="cpu", BLOCK_SIZE=4)
    assert torch.equal(ours.to_dense().expand_as(theirs.to_dense()), theirs.to_dense())
    full = [x.full_kv_num_blocks.expand(2, 4, -1) for x in (ours, theirs)]
    # torch calls a block at the border full only if it counts cells beyond the sequence as hidden, as we do
    assert torch.equal(*full)
    assert at.block_mask(MASKS[mask], 2, 4, n, m, block=4) is ours


def test_a_mask_that_looks_at_neither_batch_nor_head_is_stored_once():
    window, documents, heads = ag.sliding_window(3, 0), MASKS["documents by batch"], MASKS["by head"]
    assert at.block_mask(window, 2, 4, 9, 9, block=4).kv_indices.shape[:2] == (1, 1)
    assert at.block_mask(documents, 2, 4, 9, 9, block=4).kv_indices.shape[:2] == (2, 1)
    assert at.block_mask(heads, 2, 4, 9, 9, block=4).kv_indices.shape[:2] == (1, 4)


def test_a_flag_is_found_exactly_where_a_mask_amounts_to_one():
    masks = [ag.causal, ag.full, ag.sliding_window(2, 0), ag.sliding_window(9, 0), ag.causal_lower_right(5, 6)]
    masks += [~ag.full, ag.causal & ag.full, ag.longformer(2, [0]), ag.strided(1), ag.on_head(0) & ag.causal]
    for mask, n, m in itertools.product(masks, range(1, 7), range(1, 7)):
        cells = mask.materialize(n, m, h=2)
        wanted = "full" if cells.all() else "causal" if np.array_equal(cells, [np.tri(n, m)] * 2) else None
        assert flex.flag(mask, n, m) in (wanted, None)
        if mask in (ag.causal, ag.full) or mask.name.startswith(("sliding", "causal_lower")):
            assert flex.flag(mask, n, m) == wanted


# ---------------------------------------------------------------------------------------------- dropout


def test_dropout_draws_from_its_generator_and_keeps_the_mean():
    q, k, v = inputs(n=64, m=64)

    def draw(seed):
        return at.attention(q, k, v, dropout_p=0.3, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    draws = torch.stack([draw(seed) for seed in range(400)])
    error = (draws.mean(0) - at.attention(q, k, v)).abs() / (draws.std(0) / 20)
    assert (error > 4).double().mean() < 1e-3  # four standard errors: 6e-5 of normal draws are further away


def test_dropout_everywhere_gives_zero():
    q, k, v = inputs()
    assert at.attention(q, k, v, dropout_p=1.0, generator=torch.Generator()).abs().max() == 0


# ----------------------------------------------------------------------------------------------- softmax


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 5.0])
def test_softmax_and_log_sum_exp_agree_with_the_reference(axis, temperature):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 5, 6, generator=g, dtype=torch.float64)
    where = torch.rand(4, 5, 6, generator=g) > 0.3
    where[:, 0] = False
    for w in (None, where):
        numpy_w = None if w is None else w.numpy()
        ours = at.softmax(x, axis, temperature=temperature, where=w)
        agree(ours, ag.softmax(x.numpy(), axis, temperature=temperature, where=numpy_w))
        agree(at.log_sum_exp(x, axis, where=w), ag.log_sum_exp(x.numpy(), axis, where=numpy_w))
        agree(at.attention_entropy(ours, axis, base=2), ag.attention_entropy(ours.numpy(), axis, base=2))


def test_softmax_of_nothing_has_gradients_of_zero():
    x = torch.full((2, 3), BOTTOM, requires_grad=True)
    at.softmax(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(2, 3))


def test_projections():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, 6, generator=g).double(), torch.randn(2, 4, 3, generator=g).double()
    w = [torch.randn(s, generator=g).double() for s in ((6, 7), (3, 7), (3, 2))]
    agree(at.cross_attention(x, y, *w), ag.cross_attention(x.numpy(), y.numpy(), *(a.numpy() for a in w)))
    w = [torch.randn(6, 4, generator=g).double() for _ in range(3)]
    agree(
        at.self_attention(x, *w, is_causal=True), ag.self_attention(x.numpy(), *(a.numpy() for a in w), is_causal=True)
    )
    with pytest.raises(ValueError, match=r"w_q has shape \(5, 4\); wanted \(6, width\)"):
        at.self_attention(x, w[0][:5], *w[1:])


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query": [[1.0]]}, TypeError, "query is list; wanted a torch.Tensor"),
        ({"query": torch.ones(2, 4, 7, 8, dtype=torch.int64)}, TypeError, "query has dtype torch.int64"),
        ({"key": torch.ones(2, 4, 9, 8)}, TypeError, "must share one dtype"),
        ({"query": torch.ones(8).double()}, ValueError, r"query has shape \(8,\)"),
        ({"query": torch.ones(2, 4, 7, 5).double()}, ValueError, "key has width 8"),
        ({"value": torch.ones(2, 4, 8, 8).double()}, ValueError, "value has length 8"),
        ({"query": torch.ones(2, 3, 7, 8).double()}, ValueError, "pass enable_gqa=True"),
        ({"query": torch.ones(2, 6, 7, 8).double(), "enable_gqa": True}, ValueError, "query has 6 heads and key 4"),
        ({"attn_mask": torch.ones(7, 9, dtype=torch.int64)}, TypeError, "attn_mask has dtype torch.int64"),
        ({"attn_mask": torch.ones(6, 9).bool()}, ValueError, r"attn_mask has shape \(6, 9\)"),
        ({"attn_mask": torch.full((7, 9), float("nan"))}, ValueError, "attn_mask holds NaN"),
        ({"attn_mask": torch.full((7, 9), float("inf"))}, ValueError, r"attn_mask holds \+inf"),
        ({"mask_mod": lambda b, h, q, k: q + k}, TypeError, "mask_mod returned torch.int64"),
        ({"mask_mod": ag.document([0, 1])}, ValueError, "defined for"),
        ({"score_mod": lambda s, b, h, q, k: q}, TypeError, "score_mod returned torch.int64"),
        ({"dropout_p": 1.5}, ValueError, "dropout_p is 1.5"),
        ({"scale": float("nan")}, ValueError, "scale is nan"),
        ({"softcap": 0.0}, ValueError, "softcap is 0.0"),
    ],
)
def test_bad_input_is_named(change, error, message):
    q, k, v = inputs()
    with pytest.raises(error, match=message):
        at.attention(**{"query": q, "key": k, "value": v, **change})


# -------------------------------------------------------------------------------- compiled and on a GPU


@pytest.mark.slow
def test_flex_attention_on_the_cpu_gives_what_the_reference_gives():
    q, k, v = inputs(lead=(1,), h=2, h_kv=1, n=300, m=300, d_k=16, d_v=16, dtype=torch.float32)
    options = {"mask_mod": ag.sliding_window(64, 0) & ~ag.sinks(20), "softcap": 3.0, "enable_gqa": True}
    agree(at.attention(q, k, v, **options, backend="flex"), reference(q, k, v, **options), 2e-6)


@pytest.mark.slow
def test_the_dispatch_compiles_into_one_graph():
    q, k, v = inputs(n=9, m=9, dtype=torch.float32)
    window = ag.sliding_window(2, 1)
    function = torch.compile(lambda q, k, v: at.attention(q, k, v, mask_mod=window), fullgraph=True)
    agree(function(q, k, v), reference(q, k, v, mask_mod=window), 2e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"mask_mod": ag.sliding_window(64, 0)}, {"softcap": 3.0}])
@pytest.mark.parametrize("backend", [None, "explicit", "flex"])
def test_every_backend_on_a_gpu(dtype, options, backend):
    q, k, v = (x.cuda() for x in inputs(h_kv=2, n=1024, m=1024, d_k=64, d_v=64, dtype=dtype))
    exact = reference(q.double().cpu(), k.double().cpu(), v.double().cpu(), enable_gqa=True, **options)
    ours = at.attention(q, k, v, enable_gqa=True, backend=backend, **options)
    eps = torch.finfo(dtype).eps
    assert np.abs(ours.double().cpu().numpy() - exact).max() < (8 * eps if dtype != torch.float32 else 2e-3)


def test_functional_names_stay_those_of_torch():
    theirs = ["attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"]
    assert list(inspect.signature(at.scaled_dot_product_attention).parameters)[3:8] == theirs
    assert all(name in F.scaled_dot_product_attention.__doc__ for name in theirs)
