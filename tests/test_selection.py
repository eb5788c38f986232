"""Selection against the entmax package, torch's Gumbel-softmax, autograd, enumeration and the draws themselves."""

import entmax as entmax_package
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import attn_guide as ag

ALPHAS = [1.2, 1.5, 2.0, 2.5, 4.0]
SCORES = arrays(np.float64, array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(-50, 50))


# ------------------------------------------------------------------------------------------------ sparsemax, entmax


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_sparsemax_equals_the_entmax_package(axis):
    x = 2 * np.random.default_rng(0).standard_normal((4, 5, 6))
    expected = entmax_package.sparsemax(torch.from_numpy(x), dim=axis).numpy()
    np.testing.assert_allclose(ag.sparsemax(x, axis), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_entmax_equals_the_entmax_package(alpha, axis):
    x = 2 * np.random.default_rng(1).standard_normal((4, 9))
    expected = entmax_package.entmax_bisect(torch.from_numpy(x), alpha=alpha, dim=axis, n_iter=200).numpy()
    np.testing.assert_allclose(ag.entmax(x, alpha, axis), expected, rtol=1e-12, atol=1e-12)


def test_entmax_one_and_a_half_equals_the_exact_algorithm():
    x = 2 * np.random.default_rng(2).standard_normal((50, 20))
    expected = entmax_package.entmax15(torch.from_numpy(x), dim=-1).numpy()
    np.testing.assert_allclose(ag.entmax(x), expected, rtol=1e-12, atol=1e-12)


def test_entmax_ends_are_softmax_and_sparsemax():
    x = np.random.default_rng(3).standard_normal((7, 8))
    np.testing.assert_array_equal(ag.entmax(x, 1.0), ag.softmax(x))
    np.testing.assert_array_equal(ag.entmax(x, 2.0), ag.sparsemax(x))
    # and the general algorithm runs into both
    np.testing.assert_allclose(ag.entmax(x, 1.0001), ag.softmax(x), atol=1e-4)
    np.testing.assert_allclose(ag.entmax(x, 2.000001), ag.sparsemax(x), atol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, *ALPHAS])
def test_entmax_gradient_equals_autograd(alpha):
    x = np.random.default_rng(4).standard_normal((5, 7))
    grad = np.random.default_rng(5).standard_normal((5, 7))
    tensor = torch.from_numpy(x).requires_grad_()
    if alpha == 1.0:
        weights = torch.softmax(tensor, -1)
    elif alpha == 2.0:
        weights = entmax_package.sparsemax(tensor, -1)
    else:
        weights = entmax_package.entmax_bisect(tensor, alpha=alpha, dim=-1, n_iter=200)
    weights.backward(torch.from_numpy(grad))
    got = ag.entmax_backward(grad, ag.entmax(x, alpha), alpha)
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 3.0])
def test_entmax_gradient_equals_finite_differences(alpha):
    x = np.array([0.3, -0.1, 0.55, 0.2])
    weights, step = ag.entmax(x, alpha), 1e-6
    for i, unit in enumerate(np.eye(4)):
        numeric = (ag.entmax(x + step * unit, alpha) - ag.entmax(x - step * unit, alpha)) / (2 * step)
        np.testing.assert_allclose(ag.entmax_backward(unit, weights, alpha), numeric, atol=1e-7, err_msg=str(i))


def test_sparsemax_backward_is_entmax_backward_of_two():
    grad, weights = np.array([[1.0, 2.0, 3.0]]), np.array([[0.6, 0.4, 0.0]])
    np.testing.assert_allclose(ag.sparsemax_backward(grad, weights), [[-0.5, 0.5, 0.0]])


@settings(deadline=None)
@given(SCORES, st.sampled_from([1.0, 1.3, 1.5, 2.0, 3.0]), st.floats(-100, 100))
def test_entmax_lies_on_the_simplex_keeps_order_and_ignores_shifts(x, alpha, shift):
    p = ag.entmax(x, alpha)
    assert np.all(p >= 0)
    np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(ag.entmax(x + shift, alpha), p, atol=1e-6)
    order = np.argsort(x, axis=-1)
    assert np.all(np.diff(np.take_along_axis(p, order, -1), axis=-1) >= -1e-12)


@settings(deadline=None)
@given(SCORES)
def test_sparsemax_is_the_nearest_point_of_the_simplex(x):
    """No other point of the simplex is nearer: checked against every corner and the centre (the projection's KKT)."""
    p = ag.sparsemax(x)
    for corner in [*np.eye(x.shape[-1]), np.full(x.shape[-1], 1 / x.shape[-1])]:
        assert np.all(((x - p) * (corner - p)).sum(-1) <= 1e-9)


@pytest.mark.parametrize("function", [ag.sparsemax, ag.entmax, lambda x, **k: ag.entmax(x, 1.0, **k)])
def test_masks_and_empty_rows(function):
    x = np.array([[1.0, 9.0, 0.5], [1.0, 2.0, 3.0]])
    where = np.array([[True, False, True], [False, False, False]])
    p = function(x, where=where)
    np.testing.assert_allclose(p[0, [0, 2]], function(x[0, [0, 2]]))
    assert p[0, 1] == 0
    assert not p[1].any()
    assert not np.isnan(function(np.full((1, 3), -np.inf))).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_in_is_dtype_out_even_for_extreme_scores(dtype):
    x = np.array([1e4, -1e4, 9.9e3], dtype)
    for weights in (ag.sparsemax(x), ag.entmax(x, 1.5), ag.entmax(x, 3.0)):
        assert weights.dtype == dtype
        np.testing.assert_allclose(weights, [1, 0, 0])


# ------------------------------------------------------------------------------------------------ hard, top-k


def qkv(n=5, m=7, d=4, lead=(2,), seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((*lead, n, d)),
        rng.standard_normal((*lead, m, d)),
        rng.standard_normal((*lead, m, 3)),
    )


def test_argmax_reads_the_value_of_the_largest_weight():
    q, k, v = qkv()
    _, weights = ag.scaled_dot_product_attention(q, k, v, return_weights=True)
    output, choice = ag.hard_attention(q, k, v, choose="argmax", return_weights=True)
    best = weights.argmax(-1)
    np.testing.assert_array_equal(choice.argmax(-1), best)
    np.testing.assert_array_equal(output, np.take_along_axis(v, best[..., None], axis=-2))


def test_samples_follow_the_soft_weights():
    """Pearson's chi-square over 200,000 draws of one query, 4 degrees of freedom: 18.47 is passed once in 1,000."""
    alpha = np.array([0.1, 0.25, 0.35, 0.2, 0.1])
    n = 200_000
    query = np.ones((n, 1))
    _, choice = ag.hard_attention(
        query, np.log(alpha)[:, None], np.eye(5), scale=1.0, rng=np.random.default_rng(0), return_weights=True
    )
    counts = choice.sum(axis=0)
    assert counts.sum() == n
    assert ((counts - n * alpha) ** 2 / (n * alpha)).sum() < 18.47


def test_hard_attention_never_chooses_a_forbidden_key():
    q, k, v = qkv()
    allowed = np.random.default_rng(1).random((2, 5, 7)) < 0.4
    allowed[0, 0] = False
    for choose in ("sample", "argmax"):
        rng = np.random.default_rng(2)
        output, choice = ag.hard_attention(q, k, v, allowed, choose=choose, rng=rng, return_weights=True)
        assert not choice[~allowed].any()
        np.testing.assert_array_equal(choice.sum(-1), allowed.any(-1).astype(float))
        assert not output[0, 0].any()


@pytest.mark.parametrize("k", [1, 3, 7, 20])
def test_top_k_equals_torch_topk_mask_then_softmax(k):
    q, key, v = qkv()
    scores = torch.from_numpy(q) @ torch.from_numpy(key).mT / 2.0
    kept = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.topk(min(k, 7)).indices, True)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(x) for x in (q, key, v)), attn_mask=kept
    )
    np.testing.assert_allclose(ag.top_k_attention(q, key, v, k), expected.numpy(), rtol=1e-12, atol=1e-13)


def test_top_k_by_renormalising_is_the_same():
    q, key, v = qkv()
    _, soft = ag.scaled_dot_product_attention(q, key, v, return_weights=True)
    _, top = ag.top_k_attention(q, key, v, 3, return_weights=True)
    kept = np.where(top > 0, soft, 0)
    np.testing.assert_allclose(top, kept / kept.sum(-1, keepdims=True), rtol=1e-12)


def test_top_k_goes_from_argmax_to_soft_attention():
    q, key, v = qkv()
    np.testing.assert_allclose(ag.top_k_attention(q, key, v, 1), ag.hard_attention(q, key, v, choose="argmax"))
    np.testing.assert_allclose(ag.top_k_attention(q, key, v, 7), ag.scaled_dot_product_attention(q, key, v))


def test_top_k_keeps_exactly_k_of_equals():
    _, weights = ag.top_k_attention(
        np.ones((1, 1)), np.array([[1.0], [1.0], [1.0], [0.0]]), np.eye(4), 2, return_weights=True
    )
    np.testing.assert_allclose(weights, [[0.5, 0.5, 0.0, 0.0]])


def test_top_k_with_fewer_allowed_than_k():
    q, key, v = qkv(n=2, lead=())
    allowed = np.zeros((2, 7), dtype=bool)
    allowed[0, :2] = True
    output, weights = ag.top_k_attention(q, key, v, 5, allowed, return_weights=True)
    np.testing.assert_allclose(weights[0].sum(), 1)
    assert not weights[~allowed].any()
    assert not output[1].any()


# ------------------------------------------------------------------------------------------------ Gumbel


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_gumbel_softmax_and_its_gradient_equal_torch_given_the_same_noise(temperature, monkeypatch):
    logits = np.random.default_rng(0).standard_normal((3, 5))
    noise = ag.gumbel_noise((3, 5), np.random.default_rng(1))
    # torch makes its Gumbel noise as -log of exponential draws; hand it the exponentials of ours
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_(torch.exp(-torch.from_numpy(noise))))
    grad = np.random.default_rng(2).standard_normal((3, 5))

    soft = ag.gumbel_softmax(logits, temperature=temperature, rng=np.random.default_rng(1))
    expected = torch.nn.functional.gumbel_softmax(torch.from_numpy(logits), tau=temperature)
    np.testing.assert_allclose(soft, expected.numpy(), rtol=1e-12)

    tensor = torch.from_numpy(logits).requires_grad_()
    hard = torch.nn.functional.gumbel_softmax(tensor, tau=temperature, hard=True)
    hard.backward(torch.from_numpy(grad))
    np.testing.assert_allclose(ag.straight_through(soft), hard.detach().numpy(), atol=1e-15)
    got = ag.straight_through_backward(grad, soft, temperature=temperature)
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-11, atol=1e-13)


def test_gumbel_softmax_nears_one_hot_as_the_temperature_falls():
    logits = np.zeros((20_000, 4))
    tops = [
        ag.gumbel_softmax(logits, temperature=tau, rng=np.random.default_rng(0)).max(-1).mean()
        for tau in (10, 1, 0.1, 0.01)
    ]
    assert tops == sorted(tops)
    assert tops[-1] > 0.99


def test_gumbel_softmax_never_draws_a_forbidden_entry():
    logits = np.array([0.0, -np.inf, 1.0])
    draws = np.stack([ag.gumbel_softmax(logits, rng=np.random.default_rng(s)) for s in range(50)])
    assert not draws[:, 1].any()
    np.testing.assert_allclose(draws.sum(-1), 1)


# ------------------------------------------------------------------------------------------------ REINFORCE

LOGITS = np.log([0.1, 0.25, 0.35, 0.2, 0.1])
REWARD = (np.arange(1.0, 6.0) - 3.5) ** 2


def exact_variance(baseline):
    """Variance of one estimate by enumeration of the five choices: no draw involved."""
    p = np.exp(LOGITS)
    estimates = (REWARD - baseline)[:, None] * (np.eye(5) - p)
    mean = p @ estimates
    return p @ (estimates - mean) ** 2


def test_expected_reward_gradient_equals_autograd():
    logits = torch.tensor(LOGITS, requires_grad=True)
    (torch.softmax(logits, 0) @ torch.from_numpy(REWARD)).backward()
    np.testing.assert_allclose(ag.expected_reward_gradient(LOGITS, REWARD), logits.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("baseline", ["none", "mean", "expected", "optimal", 2.0])
def test_reinforce_is_unbiased_with_every_baseline(baseline):
    """Five components within four standard errors: an unbiased estimator misses once in 3,000 runs."""
    estimate = ag.reinforce_gradient(LOGITS, REWARD, samples=200_000, rng=np.random.default_rng(0), baseline=baseline)
    error = np.abs(estimate.gradient - ag.expected_reward_gradient(LOGITS, REWARD))
    assert np.all(error < 4 * estimate.standard_error)


@pytest.mark.parametrize("baseline", ["none", "expected", "optimal"])
def test_reinforce_variance_is_the_exact_one(baseline):
    p = np.exp(LOGITS)
    squared = p * ((np.eye(5) - p) ** 2).sum(1)
    constant = {"none": 0.0, "expected": p @ REWARD, "optimal": squared @ REWARD / squared.sum()}[baseline]
    estimate = ag.reinforce_gradient(LOGITS, REWARD, samples=400_000, rng=np.random.default_rng(1), baseline=baseline)
    np.testing.assert_allclose(estimate.variance, exact_variance(constant), rtol=0.02)


def test_the_optimal_baseline_has_the_least_total_variance():
    def total(baseline):
        return ag.reinforce_gradient(
            LOGITS, REWARD, samples=100_000, rng=np.random.default_rng(2), baseline=baseline
        ).variance.sum()

    best = total("optimal")
    assert all(best <= total(constant) for constant in ("none", "expected", 0.5, 1.0, 2.0, 4.0))


def test_a_certain_choice_has_no_gradient():
    estimate = ag.reinforce_gradient([0.0], [3.0], samples=2, rng=np.random.default_rng(0), baseline="optimal")
    assert not estimate.gradient.any()
    assert not estimate.variance.any()


# ------------------------------------------------------------------------------------------------ bad input

Q, K, V, RNG = np.ones((2, 4)), np.ones((3, 4)), np.ones((3, 2)), np.random.default_rng(0)
BAD = [
    (lambda: ag.hard_attention(Q, K, V), TypeError, "rng is None; wanted a numpy.random.Generator"),
    (
        lambda: ag.hard_attention(Q, K, V, choose="best"),
        ValueError,
        "choose is 'best'; wanted one of 'sample', 'argmax'",
    ),
    (lambda: ag.hard_attention(Q, K[:0], V[:0], choose="argmax"), ValueError, "key has length 0"),
    (lambda: ag.top_k_attention(Q, K, V, 0), ValueError, "k is 0; wanted an integer of at least 1"),
    (lambda: ag.top_k_attention(Q, K, V, 1.5), TypeError, "k is 1.5 of type float; wanted an integer of at least 1"),
    (lambda: ag.gumbel_softmax([0.0], rng=np.random), TypeError, "wanted a numpy.random.Generator"),
    (
        lambda: ag.gumbel_softmax([0.0], temperature=0, rng=RNG),
        ValueError,
        "temperature is 0; wanted a finite number above 0",
    ),
    (lambda: ag.entmax([0.0], 0.5), ValueError, "alpha is 0.5; wanted a finite number of at least 1"),
    (lambda: ag.entmax([0.0], float("nan")), ValueError, "alpha is nan; wanted a finite number above 0"),
    (
        lambda: ag.entmax_backward([0.0], [0.0, 1.0]),
        ValueError,
        "grad has shape (1,); wanted the shape of weights, (2,)",
    ),
    (lambda: ag.sparsemax(["a"]), TypeError, "x has dtype <U1; wanted real numbers"),
    (lambda: ag.sparsemax(1.0), ValueError, "x has shape (); wanted at least one dimension"),
    (lambda: ag.straight_through(np.zeros((2, 0))), ValueError, "wanted at least one"),
    (
        lambda: ag.reinforce_gradient([0.0, 1.0], [1.0], samples=2, rng=RNG),
        ValueError,
        "reward has shape (1,); wanted the shape of logits, (2,)",
    ),
    (
        lambda: ag.reinforce_gradient([[0.0]], [[1.0]], samples=2, rng=RNG),
        ValueError,
        "logits has shape (1, 1); wanted (k,)",
    ),
    (
        lambda: ag.reinforce_gradient([0.0], [1.0], samples=1, rng=RNG),
        ValueError,
        "samples is 1; wanted an integer of at least 2",
    ),
    (
        lambda: ag.reinforce_gradient([0.0], [1.0], samples=2, rng=RNG, baseline="best"),
        ValueError,
        "baseline is 'best'; wanted one of 'none', 'mean', 'expected', 'optimal'",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
