"""Positions, scores, heads, sparse, linear and selective attention on tensors against the NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import attn_guide as ag
import attn_guide.torch as at


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def agree(ours, theirs, tolerance=1e-12):
    ours, theirs = ours.detach().numpy(), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def gradients_agree(function, inputs, expected, grad):
    leaves = [x.clone().requires_grad_() for x in inputs]
    function(*leaves).backward(grad)
    for x, theirs in zip(leaves, expected, strict=True):
        agree(x.grad, theirs)


# ------------------------------------------------------------------------------------------------- heads


def test_heads_are_split_and_merged_as_in_the_reference():
    x = draw(2, 5, 12)
    agree(at.split_heads(x, 4), ag.split_heads(x.numpy(), 4))
    assert torch.equal(at.merge_heads(at.split_heads(x, 4)), x)
    with pytest.raises(ValueError, match="multiple of 5 heads"):
        at.split_heads(x, 5)


# --------------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize("positions", [None, 7, "tensor", "batched"])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary_dim", [None, 4])
def test_rotations(positions, interleaved, rotary_dim):
    x = draw(2, 3, 5, 8)
    at_ = {"tensor": torch.tensor([3, 1, 4, 1, 5]), "batched": torch.arange(10).view(2, 1, 5)}.get(positions, positions)
    options = {"interleaved": interleaved, "rotary_dim": rotary_dim}
    numpy_at = at_.numpy() if isinstance(at_, torch.Tensor) else at_
    agree(at.apply_rope(x, at_, **options), ag.apply_rope(x.numpy(), numpy_at, **options))
    tables = at.rope_tables(20, rotary_dim or 8)
    assert torch.equal(at.apply_rope(x, at_, tables=tables, **options), at.apply_rope(x, at_, **options))


def test_a_rotation_keeps_its_digits_far_into_a_sequence():
    x = draw(1, 4, 64, dtype=torch.float32)
    far = torch.arange(100_000, 100_004)
    exact = ag.apply_rope(x.double().numpy(), far.numpy())
    assert np.abs(at.apply_rope(x, far).numpy() - exact).max() < 1e-6


def test_sinusoids_and_biases():
    f64 = {"dtype": torch.float64}
    agree(at.sinusoidal_positions(9, 6, **f64), ag.sinusoidal_positions(9, 6))
    for h in (1, 4, 6, 12):
        agree(at.alibi_slopes(h), ag.alibi_slopes(h))
        agree(at.alibi_bias(h, 3, 5, offset=2, **f64), ag.alibi_bias(h, 3, 5, offset=2))
    distance = torch.arange(-300, 301)
    for options in ({}, {"bidirectional": False}, {"num_buckets": 8, "max_distance": 20}):
        agree(at.t5_relative_bucket(distance, **options), ag.t5_relative_bucket(distance.numpy(), **options))
    table = draw(32, 4)
    agree(at.t5_relative_bias(table, 3, 9, offset=6), ag.t5_relative_bias(table.numpy(), 3, 9, offset=6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: at.apply_rope(torch.ones(2, 3)), "width d of x is 3"),
        (lambda: at.apply_rope(torch.ones(2, 4), rotary_dim=6), "rotary_dim is 6"),
        (lambda: at.apply_rope(torch.ones(2, 4), torch.arange(3)), r"positions has shape \(3,\)"),
        (lambda: at.apply_rope(torch.ones(2, 4), tables=at.rope_tables(2, 6)), "tables have shapes"),
        (lambda: at.t5_relative_bucket(torch.arange(3), num_buckets=7), "num_buckets is 7"),
        (lambda: at.t5_relative_bucket(torch.arange(3), max_distance=8), "max_distance is 8"),
        (lambda: at.t5_relative_bias(torch.ones(4), 3), r"table has shape \(4,\)"),
    ],
)
def test_bad_positions_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------------------------ scores

SCORES = {
    "dot": ([(2, 5, 4), (2, 7, 4)], {}),
    "scaled_dot": ([(2, 5, 4), (7, 4)], {}),
    "general": ([(2, 5, 4), (2, 7, 3), (4, 3)], {}),
    "additive": ([(2, 5, 4), (2, 7, 3), (4, 6), (3, 6), (6,)], {}),
    "concat": ([(2, 5, 4), (2, 7, 3), (7, 6), (6,)], {}),
    "cosine": ([(2, 5, 4), (2, 7, 4)], {"scale": 3.0}),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_and_their_gradients(name):
    shapes, options = SCORES[name]
    inputs = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    arrays = [x.numpy() for x in inputs]
    ours = getattr(at, f"{name}_score")
    agree(ours(*inputs, **options), getattr(ag, f"{name}_score")(*arrays, **options))
    grad = draw(2, 5, 7, seed=9)
    theirs = getattr(ag, f"{name}_score_backward")(grad.numpy(), *arrays, **options)
    gradients_agree(lambda *x: ours(*x, **options), inputs, theirs, grad)


def test_a_zero_vector_scores_zero_with_everything_and_has_finite_gradients():
    q = torch.zeros(1, 3, requires_grad=True)
    at.cosine_score(q, torch.ones(2, 3)).sum().backward()
    assert torch.isfinite(q.grad).all()
    assert at.cosine_score(q, 1e30 * torch.ones(2, 3)).abs().max() == 0


# ------------------------------------------------------------------------------------------------ sparse


@pytest.mark.parametrize("n", [40, 700])
def test_sparse_patterns(n):
    q, k, v = draw(2, 4, n, 8), draw(2, 2, n, 8, seed=1), draw(2, 2, n, 6, seed=2)
    arrays = [x.numpy() for x in (q, k, v)]
    gqa = {"enable_gqa": True}
    for options in ({}, {"dilation": 3}, {"softcap": 2.0}, {"scale": 0.3}):
        agree(
            at.sliding_window_attention(q, k, v, 5, 2, **gqa, **options),
            ag.sliding_window_attention(*arrays, 5, 2, **gqa, **options),
        )
    agree(at.longformer_attention(q, k, v, 6, [0, 9], **gqa), ag.longformer_attention(*arrays, 6, [0, 9], **gqa))
    own = {"global_query": q + 1, "global_key": 2 * k, "global_value": -v}
    agree(
        at.longformer_attention(q, k, v, 6, [0, 9], **gqa, **own),
        ag.longformer_attention(*arrays, 6, [0, 9], **gqa, **{name: x.numpy() for name, x in own.items()}),
    )
    agree(
        at.block_sparse_attention(q, k, v, ag.sliding_window(1, 0), 16, is_causal=True, **gqa),
        ag.block_sparse_attention(*arrays, ag.sliding_window(1, 0), 16, is_causal=True, **gqa),
    )
    blocks = torch.rand(-(-n // 16), -(-n // 16), generator=torch.Generator().manual_seed(0)) > 0.7
    agree(
        at.block_sparse_attention(q, k, v, blocks, 16, **gqa),
        ag.block_sparse_attention(*arrays, blocks.numpy(), 16, **gqa),
    )
    table = ag.bigbird_random_blocks(n // 5, 1, rng=np.random.default_rng(0))
    agree(
        at.bigbird_attention(q, k, v, 5, random_blocks=table, **gqa),
        ag.bigbird_attention(*arrays, 5, random_blocks=table, **gqa),
    )


def test_a_pattern_is_of_one_sequence():
    q = draw(1, 5, 4)
    with pytest.raises(ValueError, match="the pattern is of one sequence"):
        at.longformer_attention(q, q[:, :4], q[:, :4], 2)
    with pytest.raises(ValueError, match="global_indices holds 5"):
        at.longformer_attention(q, q, q, 2, [5])


# ------------------------------------------------------------------------------------------------ linear


@pytest.mark.parametrize("form", ["parallel", "recurrent", "chunked"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("lengths", [(37, 37), (20, 37), (37, 20), (16, 16), (3, 3)])
def test_linear_attention(form, is_causal, lengths):
    n, m = lengths
    q, k, v = draw(2, 4, n, 8), draw(2, 2, m, 8, seed=1), draw(2, 2, m, 5, seed=2)
    arrays = [x.numpy() for x in (q, k, v)]
    for feature_map, normalize in (("elu", True), ("relu", True), ("identity", False)):
        options = {"feature_map": feature_map, "normalize": normalize, "is_causal": is_causal, "enable_gqa": True}
        ours = at.linear_attention(q, k, v, **options, form=form, chunk_size=8)
        agree(ours, ag.linear_attention(*arrays, **options), 1e-10)
    projection = draw(16, 8, seed=3)
    options = {"is_causal": is_causal, "form": form, "chunk_size": 8, "enable_gqa": True}
    agree(
        at.performer_attention(q, k, v, projection, **options),
        ag.performer_attention(*arrays, projection.numpy(), **options),
        1e-10,
    )


@pytest.mark.parametrize("kind", ["positive", "trigonometric"])
def test_random_features(kind):
    x, w = draw(4, 6), draw(9, 6, seed=1)
    agree(at.random_features(x, w, kind=kind), ag.random_features(x.numpy(), w.numpy(), kind=kind))
    g = torch.Generator().manual_seed(0)
    orthogonal = at.random_feature_projection(6, 12, generator=g, dtype=torch.float64)
    product = orthogonal[:6] @ orthogonal[:6].T
    assert torch.allclose(product, torch.diag(product.diagonal()), atol=1e-12)


@pytest.mark.parametrize("form", ["recurrent", "chunked"])
def test_the_delta_rule(form):
    q, k, v = draw(2, 3, 21, 4), draw(2, 3, 21, 4, seed=1) / 2, draw(2, 3, 21, 5, seed=2)
    beta, start = torch.sigmoid(draw(3, 21, seed=3)), draw(2, 3, 4, 5, seed=4)
    ours = at.delta_rule_attention(q, k, v, beta, form=form, chunk_size=8, initial_state=start, return_state=True)
    arrays = [x.numpy() for x in (q, k, v, beta)]
    theirs = ag.delta_rule_attention(*arrays, initial_state=start.numpy(), return_state=True)
    for pair in zip(ours, theirs, strict=True):
        agree(*pair, 1e-11)


def test_linear_attention_and_the_delta_rule_have_right_gradients():
    inputs = [draw(2, 5, 3, seed=i).requires_grad_() for i in range(3)]
    beta = torch.rand(2, 5, dtype=torch.float64).requires_grad_()
    for form in ("chunked", "recurrent"):
        assert torch.autograd.gradcheck(
            lambda *x, form=form: at.linear_attention(*x, is_causal=True, form=form, chunk_size=2), inputs
        )
        assert torch.autograd.gradcheck(
            lambda *x, form=form: at.delta_rule_attention(*x, form=form, chunk_size=2), (*inputs, beta)
        )


# --------------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("axis", [0, -1])
def test_entmax_and_its_gradient(alpha, axis):
    x = 2 * draw(6, 5, 7)
    where = torch.rand(6, 5, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    where[:, 0] = False
    where[0] = False
    for w in (None, where):
        theirs = ag.entmax(x.numpy(), alpha, axis, where=None if w is None else w.numpy())
        agree(at.entmax(x, alpha, axis, where=w), theirs, 1e-11)
        grad = draw(6, 5, 7, seed=2)
        expected = ag.entmax_backward(grad.numpy(), theirs, alpha, axis)
        leaf = x.clone().requires_grad_()
        at.entmax(leaf, alpha, axis, where=w).backward(grad)
        agree(leaf.grad, expected, 1e-8)  # a weight near 0 loses half its digits in p ** (2 - alpha)
    agree(at.sparsemax(x, axis), ag.sparsemax(x.numpy(), axis))


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_entmax_passes_the_numerical_gradient_check(alpha):
    assert torch.autograd.gradcheck(lambda x: at.entmax(x, alpha), draw(3, 5).requires_grad_())


def test_entmax_agrees_with_the_entmax_package():
    package = pytest.importorskip("entmax")
    x = draw(20, 9)
    agree(at.sparsemax(x), package.sparsemax(x, -1).numpy())
    agree(at.entmax(x), package.entmax15(x, -1).numpy(), 1e-7)


def test_hard_and_top_k_attention_by_argmax():
    q, k, v = draw(2, 5, 4), draw(2, 7, 4, seed=1), draw(2, 7, 3, seed=2)
    arrays = [x.numpy() for x in (q, k, v)]
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.4
    mask[2] = False
    for ours, theirs in zip(
        at.hard_attention(q, k, v, mask, choose="argmax", return_weights=True),
        ag.hard_attention(*arrays, mask.numpy(), choose="argmax", return_weights=True),
        strict=True,
    ):
        agree(ours, theirs)
    for kept in (1, 3, 9):
        for ours, theirs in zip(
            at.top_k_attention(q, k, v, kept, mask, return_weights=True),
            ag.top_k_attention(*arrays, kept, mask.numpy(), return_weights=True),
            strict=True,
        ):
            agree(ours, theirs)
    ties = torch.zeros(1, 4).double()
    agree(at.top_k_attention(ties, torch.ones(3, 4).double(), torch.eye(3).double(), 2), [[0.5, 0.5, 0.0]])


def test_hard_attention_draws_keys_as_often_as_their_weights_say():
    q, k = draw(1, 4).expand(20_000, 4), draw(5, 4, seed=1)
    drawn = at.hard_attention(q, k, torch.eye(5).double(), generator=torch.Generator().manual_seed(0))
    weights = at.attention(q[:1], k, k, return_weights=True)[1][0]
    error = (drawn.mean(0) - weights).abs() / (weights * (1 - weights) / 20_000).sqrt()
    assert error.max() < 4  # standard errors


def test_gumbel_softmax_is_reparameterised():
    logits = draw(3, 5).requires_grad_()

    def relaxed(z):
        return at.gumbel_softmax(z, temperature=0.7, generator=torch.Generator().manual_seed(0))

    assert torch.autograd.gradcheck(relaxed, logits)
    many = at.gumbel_softmax(
        torch.tensor([0.0, 1.0, 2.0]).expand(20_000, 3), generator=torch.Generator().manual_seed(1)
    )
    frequency = at.straight_through(many).mean(0)
    p = torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0)
    assert ((frequency - p).abs() / (p * (1 - p) / 20_000).sqrt()).max() < 4  # standard errors


def test_straight_through_is_hard_forward_and_soft_backward():
    logits, grad = draw(4, 5), draw(4, 5, seed=1)
    soft = ag.softmax(logits.numpy())
    expected = ag.straight_through_backward(grad.numpy(), soft)
    leaf = logits.clone().requires_grad_()
    hard = at.straight_through(at.softmax(leaf))
    assert torch.equal(hard, torch.nn.functional.one_hot(logits.argmax(-1), 5).double())
    hard.backward(grad)
    agree(leaf.grad, expected)
    q, k, v = (draw(3, 4, seed=i).requires_grad_() for i in range(3))
    at.hard_attention(q, k, v, choose="argmax").sum().backward()
    assert q.grad is None or q.grad.abs().max() == 0
    at.hard_attention(q, k, v, choose="argmax", differentiable=True).sum().backward()
    assert q.grad.abs().max() > 0


@pytest.mark.parametrize("baseline", ["none", "mean", "expected", 1.5])
def test_reinforce_finds_the_gradient_of_the_expected_reward(baseline):
    logits, reward = draw(5), draw(5, seed=1) + 3
    exact = at.expected_reward_gradient(logits, reward)
    agree(exact, ag.expected_reward_gradient(logits.numpy(), reward.numpy()))
    options = {"samples": 40_000, "generator": torch.Generator().manual_seed(0), "baseline": baseline}
    estimate = at.reinforce_gradient(logits, reward, **options)
    assert ((estimate.gradient - exact).abs() / estimate.standard_error).max() < 4
    if baseline == "expected":
        return
    leaf = logits.clone().requires_grad_()
    p = torch.softmax(logits, 0)
    choice = torch.multinomial(p, 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    at.reinforce_loss(leaf.expand(40_000, 5), choice, reward[choice], baseline=baseline).backward()
    agree(-leaf.grad, estimate.gradient.numpy(), 1e-9)  # the same draws, by autograd


def test_a_baseline_lowers_the_variance():
    logits, reward = draw(5), draw(5, seed=1) + 3

    def total(baseline):
        options = {"samples": 4000, "generator": torch.Generator().manual_seed(0), "baseline": baseline}
        return at.reinforce_gradient(logits, reward, **options).variance.sum()

    assert total("mean") < total("none") / 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: at.hard_attention(x, x, x), TypeError, "generator is None"),
        (lambda x: at.hard_attention(x, x, x, choose="best"), ValueError, "choose is 'best'"),
        (lambda x: at.top_k_attention(x, x, x, 0), ValueError, "k is 0"),
        (
            lambda x: at.gumbel_softmax(x, temperature=0.0, generator=torch.Generator()),
            ValueError,
            "temperature is 0.0",
        ),
        (lambda x: at.entmax(x, 0.5), ValueError, "alpha is 0.5"),
        (lambda x: at.entmax(x, axis=2), ValueError, "axis is 2"),
        (lambda x: at.reinforce_loss(x, torch.zeros(4).long(), torch.zeros(3)), ValueError, "choice has shape"),
        (lambda x: at.linear_attention(x, x, x, form="fast"), ValueError, "form is 'fast'"),
        (lambda x: at.linear_attention(x, x, x, feature_map="exp"), ValueError, "feature_map is 'exp'"),
        (lambda x: at.performer_attention(x, x, x, x[:, :2]), ValueError, "projection has shape"),
        (lambda x: at.delta_rule_attention(x, x[:2], x[:2], x[:, 0]), ValueError, "key has length 2"),
        (lambda x: at.general_score(x, x, x[:2]), ValueError, "weight has shape"),
        (lambda x: at.dot_score(x, x[:, :2]), ValueError, "key has width 2"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.ones(3, 4))
