"""Score functions against torch, pair by pair as the papers write them, with gradients from autograd."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attn_guide as ag

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}


def pairwise_additive(q, k, w_q, w_k, v):
    """Bahdanau's formula as printed: project the query and the key of every pair, add, squash, read out."""
    pairs_q = q.unsqueeze(-2).expand(*q.shape[:-1], k.shape[-2], q.shape[-1])
    pairs_k = k.unsqueeze(-3).expand(*k.shape[:-2], q.shape[-2], *k.shape[-2:])
    return torch.tanh(pairs_q @ w_q + pairs_k @ w_k) @ v


def pairwise_concat(q, k, w, v):
    """Luong's concat as printed: the pair is laid end to end before the product."""
    pairs_q = q.unsqueeze(-2).expand(*q.shape[:-1], k.shape[-2], q.shape[-1])
    pairs_k = k.unsqueeze(-3).expand(*k.shape[:-2], q.shape[-2], *k.shape[-2:])
    return torch.tanh(torch.cat([pairs_q, pairs_k], dim=-1) @ w) @ v


#: name -> (function, backward, torch formula, widths (d_q, d_k), shapes of the parameters)
SCORES = {
    "dot": (ag.dot_score, ag.dot_score_backward, lambda q, k: torch.einsum("...nd,...md->...nm", q, k), (5, 5), []),
    "scaled": (
        ag.scaled_dot_score,
        ag.scaled_dot_score_backward,
        lambda q, k: torch.einsum("...nd,...md->...nm", q, k) / np.sqrt(5),
        (5, 5),
        [],
    ),
    "general": (
        ag.general_score,
        ag.general_score_backward,
        lambda q, k, w: torch.einsum("...nd,de,...me->...nm", q, w, k),
        (5, 3),
        [(5, 3)],
    ),
    "additive": (
        ag.additive_score,
        ag.additive_score_backward,
        pairwise_additive,
        (5, 3),
        [(5, 7), (3, 7), (7,)],
    ),
    "concat": (ag.concat_score, ag.concat_score_backward, pairwise_concat, (5, 3), [(8, 7), (7,)]),
    "cosine": (
        ag.cosine_score,
        ag.cosine_score_backward,
        lambda q, k: torch.nn.functional.cosine_similarity(q.unsqueeze(-2), k.unsqueeze(-3), dim=-1),
        (5, 5),
        [],
    ),
}


def arguments(name, dtype, lead=(2, 3), n=4, m=6, seed=0):
    rng = np.random.default_rng(seed)
    d_q, d_k = SCORES[name][3]
    shapes = [(*lead, n, d_q), (*lead, m, d_k), *SCORES[name][4]]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SCORES)
def test_score_equals_the_formula_pair_by_pair(name, dtype):
    ours, _, formula, *_ = SCORES[name]
    args = arguments(name, dtype)
    expected = formula(*map(torch.from_numpy, args)).numpy()
    got = ours(*args)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("name", SCORES)
def test_gradients_equal_autograd(name, lead):
    _, backward, formula, *_ = SCORES[name]
    args = arguments(name, np.float64, lead=lead)
    tensors = [torch.from_numpy(x).requires_grad_() for x in args]
    scores = formula(*tensors)
    grad = np.random.default_rng(1).standard_normal(scores.shape)
    scores.backward(torch.from_numpy(grad))
    for got, tensor in zip(backward(grad, *args), tensors, strict=True):
        np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_gradients_of_broadcast_queries_are_summed(name):
    """One set of queries against a batch of keys: the gradient is the sum over the batch."""
    _, backward, formula, *_ = SCORES[name]
    args = arguments(name, np.float64, lead=(3,))
    args[0] = args[0][:1]
    tensors = [torch.from_numpy(x).requires_grad_() for x in args]
    scores = formula(tensors[0].expand(3, -1, -1), *tensors[1:])
    grad = np.random.default_rng(1).standard_normal(scores.shape)
    scores.backward(torch.from_numpy(grad))
    for got, tensor in zip(backward(grad, *args), tensors, strict=True):
        np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-11, atol=1e-12)


def test_concat_is_additive_with_its_matrix_cut_in_two():
    q, k, w, v = arguments("concat", np.float64)
    np.testing.assert_array_equal(ag.concat_score(q, k, w, v), ag.additive_score(q, k, w[:5], w[5:], v))


def test_scaled_is_dot_of_a_shorter_query():
    q, k = arguments("dot", np.float64)
    np.testing.assert_allclose(ag.scaled_dot_score(q, k), ag.dot_score(q / np.sqrt(5), k), rtol=1e-12)
    np.testing.assert_allclose(ag.scaled_dot_score(q, k, scale=0.3), ag.dot_score(q * 0.3, k), rtol=1e-12)


def test_general_is_dot_of_projections():
    rng = np.random.default_rng(2)
    q, k = rng.standard_normal((4, 5)), rng.standard_normal((6, 3))
    w_q, w_k = rng.standard_normal((5, 2)), rng.standard_normal((3, 2))
    np.testing.assert_allclose(ag.general_score(q, k, w_q @ w_k.T), ag.dot_score(q @ w_q, k @ w_k), rtol=1e-12)


@given(st.floats(1e-150, 1e150), st.floats(1e-150, 1e150), st.integers(0, 2**32 - 1))
def test_cosine_is_bounded_and_blind_to_length(a, b, seed):
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal((3, 4)), rng.standard_normal((5, 4))
    cosine = ag.cosine_score(q, k)
    assert np.all(np.abs(cosine) <= 1 + 1e-12)
    np.testing.assert_allclose(ag.cosine_score(a * q, b * k), cosine, atol=1e-12)


def test_cosine_of_a_zero_vector_is_zero_and_so_is_its_gradient():
    q, k = np.zeros((1, 4)), np.ones((2, 4))
    assert np.array_equal(ag.cosine_score(q, k), np.zeros((1, 2)))
    grad_query, grad_key = ag.cosine_score_backward(np.ones((1, 2)), q, k)
    assert not grad_query.any()
    assert not grad_key.any()


def test_cosine_gradient_is_at_right_angles_to_its_vector():
    q, k = arguments("cosine", np.float64)
    grad_query, _ = ag.cosine_score_backward(np.ones((2, 3, 4, 6)), q, k)
    np.testing.assert_allclose((grad_query * q).sum(-1), 0, atol=1e-12)


def test_additive_never_holds_all_pairs_at_once():
    rng = np.random.default_rng(0)
    n, d_a = 512, 64  # all pairs would take n * n * d_a * 8 bytes = 128 MiB
    q, k = rng.standard_normal((n, 8)), rng.standard_normal((n, 8))
    parameters = rng.standard_normal((8, d_a)), rng.standard_normal((8, d_a)), rng.standard_normal(d_a)
    tracemalloc.start()
    ag.additive_score(q, k, *parameters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


def test_half_precision_is_computed_in_single():
    args = arguments("additive", np.float16)
    got = ag.additive_score(*args)
    assert got.dtype == np.float16
    exact = ag.additive_score(*(x.astype(np.float64) for x in args))
    np.testing.assert_allclose(got, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0), (1, 1)])
def test_empty_and_single_lengths(name, n, m):
    args = arguments(name, np.float64, n=n, m=m)
    scores = SCORES[name][0](*args)
    assert scores.shape == (2, 3, n, m)
    gradients = SCORES[name][1](np.ones_like(scores), *args)
    assert [g.shape for g in gradients] == [x.shape for x in args]


@pytest.mark.parametrize("name", SCORES)
def test_inputs_are_left_alone(name):
    args = arguments(name, np.float64)
    copies = [x.copy() for x in args]
    SCORES[name][0](*args)
    SCORES[name][1](np.ones((2, 3, 4, 6)), *args)
    for x, copy in zip(args, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


Q, K = np.ones((2, 4)), np.ones((3, 4))
BAD = [
    (lambda: ag.dot_score(Q, np.ones((3, 5))), ValueError, "key has width 5; wanted the width of query, 4"),
    (lambda: ag.dot_score(np.ones(4), K), ValueError, "query has shape (4,); wanted (..., n, d_q)"),
    (lambda: ag.dot_score(Q, K.astype(np.float32)), TypeError, "query float64, key float32"),
    (lambda: ag.dot_score(np.array([["a"]]), K), TypeError, "query has dtype <U1; wanted real numbers"),
    (lambda: ag.dot_score(np.ones((2, 2, 4)), np.ones((3, 3, 4))), ValueError, "do not broadcast"),
    (lambda: ag.scaled_dot_score(Q, K, scale=0.0), ValueError, "scale is 0.0; wanted a finite number above 0"),
    (lambda: ag.scaled_dot_score(Q, K, scale=True), TypeError, "scale is True of type bool"),
    (
        lambda: ag.general_score(Q, K, np.ones((3, 4))),
        ValueError,
        "weight has shape (3, 4); wanted (d_q, d_k) = (4, 4)",
    ),
    (
        lambda: ag.additive_score(Q, K, np.ones((4, 2)), np.ones((5, 2)), np.ones(2)),
        ValueError,
        "w_key has shape (5, 2); wanted (d_k, d_a) = (4, 2)",
    ),
    (
        lambda: ag.concat_score(Q, K, np.ones((7, 2)), np.ones(2)),
        ValueError,
        "weight has shape (7, 2); wanted (d_q + d_k, d_a) = (8, 2)",
    ),
    (lambda: ag.cosine_score(Q, K, scale=-1.0), ValueError, "scale is -1.0; wanted a finite number above 0"),
    (
        lambda: ag.dot_score_backward(np.ones((2, 2)), Q, K),
        ValueError,
        "grad_scores has shape (2, 2); wanted (..., n, m) = (2, 3)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
