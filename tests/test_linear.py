"""Linear attention, random features and the delta rule against their definitions, each written another way."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import attn_guide as ag

torch = pytest.importorskip("torch")

FORMS = ("parallel", "recurrent", "chunked")


def inputs(seed, lead=(2, 4), n=33, m=None, d_k=8, d_v=5, h_kv=None, dtype="float64"):
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


# -------------------------------------------------------------------------------------- linear attention


def torch_linear(q, k, v, phi, is_causal=False, normalize=True):
    """The definition: the whole matrix of weights phi(q) . phi(k), normalised row by row, in PyTorch."""
    q, k, v = (torch.from_numpy(x) for x in (q, k, v))
    weights = phi(q) @ phi(k).transpose(-1, -2)
    if is_causal:
        weights = torch.tril(weights)
    if normalize:
        weights = weights / weights.sum(-1, keepdim=True)
    return (weights @ v).numpy()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (33, 33), (130, 130), (20, 75), (75, 20)])
def test_equals_the_matrix_of_weights_in_torch(form, is_causal, n, m):
    q, k, v = inputs(n + m, n=n, m=m)
    expected = torch_linear(q, k, v, lambda x: torch.nn.functional.elu(x) + 1, is_causal)
    assert_close(ag.linear_attention(q, k, v, is_causal=is_causal, form=form), expected)
    single = ag.linear_attention(*(x.astype(np.float32) for x in (q, k, v)), is_causal=is_causal, form=form)
    assert single.dtype == np.float32
    assert_close(single, expected, 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_unnormalised_identity_features_are_a_plain_sum(form):
    q, k, v = inputs(1)
    options = {"feature_map": "identity", "normalize": False, "form": form}
    assert_close(ag.linear_attention(q, k, v, **options), q @ (k.swapaxes(-1, -2) @ v))
    expected = torch_linear(q, k, v, lambda x: x, is_causal=True, normalize=False)
    assert_close(ag.linear_attention(q, k, v, is_causal=True, **options), expected)


@settings(max_examples=120, deadline=None)
@given(
    n=st.integers(0, 60),
    m=st.integers(0, 60),
    chunk_size=st.integers(1, 70),
    group=st.integers(1, 3),
    is_causal=st.booleans(),
    feature_map=st.sampled_from(["elu", "relu", ag.elu_feature_map, lambda x: np.exp(x[..., :3])]),
    seed=st.integers(0, 2**32),
)
def test_forms_agree(n, m, chunk_size, group, is_causal, feature_map, seed):
    q, k, v = inputs(seed, lead=(2, 2 * group), n=n, m=m, h_kv=2)
    outs = [
        ag.linear_attention(
            q, k, v, feature_map=feature_map, is_causal=is_causal, form=form, chunk_size=chunk_size, enable_gqa=True
        )
        for form in FORMS
    ]
    for out in outs[1:]:
        # A relu row may have a total of nearly 0, by which all errors are divided: compare loosely there.
        assert_close(out, outs[0], 1e-12 if feature_map != "relu" else 1e-8)
    repeated = ag.linear_attention(
        q, np.repeat(k, group, 1), np.repeat(v, group, 1), feature_map=feature_map, is_causal=is_causal
    )
    assert_close(repeated, outs[0], 1e-12 if feature_map != "relu" else 1e-8)


def test_rows_are_weighted_means():
    q, k, _ = inputs(2)
    for form in FORMS:
        ones = ag.linear_attention(q, k, np.ones((2, 4, 33, 1)), is_causal=True, form=form)
        np.testing.assert_allclose(ones, 1.0, rtol=1e-13)


def test_a_query_without_weight_gives_zero():
    q, k, v = inputs(3)
    q[..., 4, :] = -1.0  # relu maps it to 0
    out = ag.linear_attention(q, k, v, feature_map="relu")
    assert not out[..., 4, :].any()
    assert not np.isnan(out).any()
    assert not ag.linear_attention(q, k[..., :0, :], v[..., :0, :]).any()


@pytest.mark.parametrize("form", FORMS)
def test_causal_forms_do_not_look_ahead(form):
    q, k, v = inputs(4, n=50)
    before = ag.linear_attention(q, k, v, is_causal=True, form=form, chunk_size=16)
    k[..., 30:, :], v[..., 30:, :] = 50.0, -1e6
    after = ag.linear_attention(q, k, v, is_causal=True, form=form, chunk_size=16)
    assert_close(after[..., :30, :], before[..., :30, :], 1e-14)
    assert np.abs(after[..., 30:, :] - before[..., 30:, :]).min() > 1.0


def test_it_is_another_function_than_softmax_attention():
    q, k, v = inputs(5)
    difference = ag.linear_attention(q, k, v) - ag.scaled_dot_product_attention(q, k, v)
    assert np.sqrt(np.mean(difference**2)) > 0.05


def test_elu_feature_map_equals_torch_and_keeps_the_dtype():
    x = np.linspace(-800, 50, 1001)
    np.testing.assert_allclose(
        ag.elu_feature_map(x), torch.nn.functional.elu(torch.from_numpy(x)).numpy() + 1, atol=1e-15
    )
    assert ag.elu_feature_map(x.astype(np.float32)).dtype == np.float32
    assert (ag.elu_feature_map(x) >= 0).all()


def test_half_precision_accumulates_in_float32():
    q, k, v = inputs(6, n=600, dtype="float16")
    exact = ag.linear_attention(*(x.astype(np.float64) for x in (q, k, v)), is_causal=True)
    for form in FORMS:
        out = ag.linear_attention(q, k, v, is_causal=True, form=form)
        assert out.dtype == np.float16
        assert np.max(np.abs(out - exact) / np.maximum(np.abs(exact), 1e-3)) < 1.1 * 2.0**-11


def test_inputs_are_left_alone():
    arrays = [*inputs(7), np.full((2, 4, 33), 0.5)]
    for x in arrays:
        x.setflags(write=False)
    for form in FORMS:
        ag.linear_attention(*arrays[:3], form=form, is_causal=True, feature_map="identity")
    for form in ("recurrent", "chunked"):
        ag.delta_rule_attention(*arrays, form=form)


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True, "form": "chunked"}, {"is_causal": True, "form": "recurrent"}],
    ids=["full", "chunked", "recurrent"],
)
def test_memory_grows_as_n(options):
    sizes = (2048, 4096, 8192)
    peaks = [
        ag.peak_memory(lambda n=n: ag.linear_attention(*inputs(0, lead=(), n=n, d_k=16, d_v=16), **options))
        for n in sizes
    ]
    assert ag.fit_exponent(sizes, peaks).exponent <= 1.1


# --------------------------------------------------------------------------------------- random features


def kernel_estimates(x, y, draws, seed, **options):
    """Estimates of exp(x . y / sqrt(d_k)) from ``draws`` independent projections of 2 d_k directions."""
    rng = np.random.default_rng(seed)
    kind = options.pop("kind", "positive")
    estimates = np.empty(draws)
    for i in range(draws):
        w = ag.random_feature_projection(x.size, 2 * x.size, rng=rng, **options)
        estimates[i] = ag.random_features(x, w, kind=kind) @ ag.random_features(y, w, kind=kind)
    return estimates


@pytest.mark.parametrize("kind", ["positive", "trigonometric"])
@pytest.mark.parametrize("orthogonal", [True, False])
def test_kernel_estimate_is_unbiased(kind, orthogonal):
    """The mean of 4000 estimates lies within four standard errors of exp(x . y / sqrt(d_k))."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 8)) / 2
    estimates = kernel_estimates(x, y, 4000, 1, kind=kind, orthogonal=orthogonal)
    standard_error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - np.exp(x @ y / np.sqrt(8))) < 4 * standard_error
    assert standard_error < 0.02


def test_orthogonal_directions_lower_the_variance():
    x, y = np.random.default_rng(0).standard_normal((2, 8)) / 2
    variances = {
        orthogonal: np.var(kernel_estimates(x, y, 3000, 2, orthogonal=orthogonal)) for orthogonal in (True, False)
    }
    assert variances[True] < 0.95 * variances[False]


def test_positive_features_are_better_where_the_kernel_is_small():
    """For opposite vectors the trigonometric estimate swings around 0; the positive one stays positive."""
    x = np.full(8, 0.9)
    positive = kernel_estimates(x, -x, 500, 3)
    trigonometric = kernel_estimates(x, -x, 500, 3, kind="trigonometric")
    assert (positive > 0).all()
    assert (trigonometric < 0).any()
    assert positive.std() < trigonometric.std() / 3


def test_projection_is_orthogonal_in_groups_and_gaussian_in_length():
    w = ag.random_feature_projection(16, 40, rng=np.random.default_rng(0))
    assert w.shape == (40, 16)
    for group in (w[:16], w[16:32], w[32:]):
        gram = group @ group.T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)
    rng = np.random.default_rng(1)
    squares = np.concatenate([np.square(ag.random_feature_projection(4, 4, rng=rng)).sum(1) for _ in range(4000)])
    assert abs(squares.mean() - 4) < 4 * np.sqrt(8 / 16000)  # chi-square with 4 degrees: mean 4, variance 8
    entries = np.array([ag.random_feature_projection(3, 1, rng=rng)[0] for _ in range(8000)])
    assert np.abs(entries.mean(0)).max() < 4 / np.sqrt(8000)  # no direction is preferred
    np.testing.assert_allclose(np.cov(entries.T), np.eye(3), atol=6 / np.sqrt(8000))


@pytest.mark.parametrize("is_causal", [False, True])
def test_performer_is_linear_attention_with_random_features(is_causal):
    q, k, v = inputs(8, lead=(2, 4), n=70, h_kv=2)
    w = ag.random_feature_projection(8, 24, rng=np.random.default_rng(0))
    expected = ag.linear_attention(
        q, k, v, feature_map=lambda x: ag.random_features(x, w), is_causal=is_causal, enable_gqa=True
    )
    for form in FORMS:
        actual = ag.performer_attention(q, k, v, w, is_causal=is_causal, form=form, enable_gqa=True)
        assert_close(actual, expected)


def test_performer_error_falls_as_one_over_the_root_of_the_features():
    q, k, v = (x / 2 for x in inputs(9, lead=(4,), n=40))
    exact = ag.scaled_dot_product_attention(q, k, v)
    rng = np.random.default_rng(0)
    features = [64, 256, 1024, 4096]
    errors = [
        np.mean(
            [
                np.square(ag.performer_attention(q, k, v, ag.random_feature_projection(8, f, rng=rng)) - exact).mean()
                for _ in range(20)
            ]
        )
        ** 0.5
        for f in features
    ]
    assert ag.fit_exponent(features, errors).exponent == pytest.approx(-0.5, abs=0.1)


def test_performer_survives_large_vectors():
    q, k, v = inputs(10, dtype="float32")
    w = ag.random_feature_projection(8, 32, rng=np.random.default_rng(0))
    out = ag.performer_attention(30 * q, 30 * k, v, w)
    assert np.isfinite(out).all()


# -------------------------------------------------------------------------------------------- delta rule


def torch_delta_rule(q, k, v, beta, state=None):
    """Schlag's definition as a product of matrices: S_t = S_{t-1} (I - beta k k^T) + beta v k^T, o_t = S_t q_t."""
    q, k, v, beta = (torch.from_numpy(x) for x in (q, k, v, beta))
    d_k, d_v = k.shape[-1], v.shape[-1]
    s = torch.zeros(*q.shape[:-2], d_v, d_k, dtype=q.dtype)
    s = s if state is None else torch.from_numpy(state).transpose(-1, -2)
    outs = []
    for t in range(q.shape[-2]):
        k_t, v_t, b_t = k[..., t, :], v[..., t, :], beta[..., t, None, None]
        s = s @ (torch.eye(d_k, dtype=q.dtype) - b_t * k_t[..., :, None] * k_t[..., None, :])
        s = s + b_t * v_t[..., :, None] * k_t[..., None, :]
        outs.append((s @ q[..., t, :, None])[..., 0])
    return torch.stack(outs, -2).numpy(), s.transpose(-1, -2).numpy()


def delta_inputs(seed, n):
    q, k, v = inputs(seed, n=n)
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    return q, k, v, np.random.default_rng(seed + 1).uniform(0, 1, (2, 4, n))


@pytest.mark.parametrize("form", ["recurrent", "chunked"])
@pytest.mark.parametrize("n", [1, 20, 130])
def test_delta_rule_equals_the_product_of_matrices_in_torch(form, n):
    q, k, v, beta = delta_inputs(n, n)
    start = np.random.default_rng(0).standard_normal((2, 4, 8, 5))
    for state in (None, start):
        expected, last = torch_delta_rule(q, k, v, beta, state)
        out, end = ag.delta_rule_attention(q, k, v, beta, form=form, initial_state=state, return_state=True)
        assert_close(out, expected)
        assert_close(end, last)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 70), chunk_size=st.integers(1, 80), cut=st.integers(0, 70), seed=st.integers(0, 2**32))
def test_delta_rule_forms_agree_and_can_be_continued(n, chunk_size, cut, seed):
    q, k, v, beta = delta_inputs(seed % 2**31, n)
    whole = ag.delta_rule_attention(q, k, v, beta)
    assert_close(ag.delta_rule_attention(q, k, v, beta, form="chunked", chunk_size=chunk_size), whole, 1e-11)
    cut = min(cut, n)
    first, state = ag.delta_rule_attention(
        q[..., :cut, :], k[..., :cut, :], v[..., :cut, :], beta[..., :cut], return_state=True
    )
    rest = ag.delta_rule_attention(
        q[..., cut:, :], k[..., cut:, :], v[..., cut:, :], beta[..., cut:], initial_state=state, form="chunked"
    )
    assert_close(np.concatenate([first, rest], axis=-2), whole, 1e-11)


def test_delta_rule_with_orthogonal_keys_and_beta_one_is_a_dictionary():
    rng = np.random.default_rng(0)
    keys = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    names = np.array([0, 1, 2, 1, 0, 5, 1])
    value = rng.standard_normal((7, 3))
    out = ag.delta_rule_attention(keys[names], keys[names], value, np.ones(7))
    assert_close(out, value)  # each read, just after the write, gives what was written
    _, state = ag.delta_rule_attention(keys[names], keys[names], value, np.ones(7), return_state=True)
    assert_close(keys[[0, 1, 2, 5]] @ state, value[[4, 6, 2, 5]])  # and the last write of each key is what stays


def test_delta_rule_with_orthogonal_keys_seen_once_is_linear_attention():
    q, _, v = inputs(11, lead=(3,), n=8)
    k = np.broadcast_to(np.eye(8), (3, 8, 8))
    expected = ag.linear_attention(q, k, v, feature_map="identity", normalize=False, is_causal=True)
    assert_close(ag.delta_rule_attention(q, k, v, np.ones((3, 8))), expected)


# ------------------------------------------------------------------------------------------------- contract

X = np.zeros((2, 6, 4))
W = np.zeros((5, 4))
BETA = np.zeros((2, 6))
BAD = [
    ("linear_attention", (X, X[..., :3], X), {}, ValueError, "key"),
    ("linear_attention", (X, X, X[:, :4]), {}, ValueError, "value"),
    ("linear_attention", (X, X, np.float32(X)), {}, TypeError, "value"),
    ("linear_attention", (X, X, X), {"feature_map": "gelu"}, ValueError, "feature_map"),
    ("linear_attention", (X, X, X), {"feature_map": 3}, TypeError, "feature_map"),
    ("linear_attention", (X, X, X), {"feature_map": lambda x: x[..., 0]}, ValueError, "feature_map"),
    ("linear_attention", (X, X, X), {"form": "serial"}, ValueError, "form"),
    ("linear_attention", (X, X, X), {"chunk_size": 0}, ValueError, "chunk_size"),
    ("elu_feature_map", (["a"],), {}, TypeError, "x"),
    ("random_feature_projection", (0, 4), {"rng": np.random.default_rng(0)}, ValueError, "d_k"),
    ("random_feature_projection", (4, 0), {"rng": np.random.default_rng(0)}, ValueError, "features"),
    ("random_feature_projection", (4, 4), {"rng": 0}, TypeError, "rng"),
    ("random_features", (X, W[:, :3]), {}, ValueError, "projection"),
    ("random_features", (X, W[0]), {}, ValueError, "projection"),
    ("random_features", (1.0, W), {}, ValueError, "x"),
    ("random_features", (X, W), {"kind": "fourier"}, ValueError, "kind"),
    ("random_features", (X, W), {"scale": -1.0}, ValueError, "scale"),
    ("performer_attention", (X, X, X, W[:0]), {}, ValueError, "projection"),
    ("performer_attention", (X, X, X, W), {"form": "serial"}, ValueError, "form"),
    ("delta_rule_attention", (X, X[:, :5], X[:, :5], BETA), {}, ValueError, "key"),
    ("delta_rule_attention", (X, X, X, np.zeros((2, 5))), {}, ValueError, "beta"),
    ("delta_rule_attention", (X, X, X, BETA), {"form": "parallel"}, ValueError, "form"),
    ("delta_rule_attention", (X, X, X, BETA), {"chunk_size": -1}, ValueError, "chunk_size"),
    ("delta_rule_attention", (X, X, X, BETA), {"initial_state": X}, ValueError, "initial_state"),
]


@pytest.mark.parametrize(("function", "args", "options", "error", "names"), BAD)
def test_bad_input_names_the_argument(function, args, options, error, names):
    with pytest.raises(error, match=names):
        getattr(ag, function)(*args, **options)
