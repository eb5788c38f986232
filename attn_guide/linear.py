"""Linear attention: a feature map in place of the exponential, and a state of fixed size in place of the matrix.

With weights ``phi(q) . phi(k)`` the sum over keys can be taken before the query is known: ``phi(q) @ (phi(K)^T V)``.
That costs O(n) and, read from left to right, is a recurrent network whose state is a matrix. It is another function
than softmax attention; ``random_features`` is the map that gives softmax attention on average.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from ._checks import (
    as_float_array,
    check_attention_inputs,
    check_choice,
    check_finite,
    check_integer,
    check_ndim,
    check_rng,
    compute_dtype,
)

__all__ = [
    "delta_rule_attention",
    "elu_feature_map",
    "linear_attention",
    "performer_attention",
    "random_feature_projection",
    "random_features",
]

FeatureMap = Callable[[np.ndarray], np.ndarray]

# -------------------------------------------------------------------------------------- linear attention


def linear_attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    feature_map: str | FeatureMap = "elu",
    is_causal: bool = False,
    form: str = "parallel",
    normalize: bool = True,
    chunk_size: int = 64,
    enable_gqa: bool = False,
) -> np.ndarray:
    """Attend with weights ``phi(q) . phi(k)`` in place of ``exp(q . k)``.

    Parameters
    ----------
    query : array_like, shape (..., h, n, d_k)
    key : array_like, shape (..., h_kv, m, d_k)
    value : array_like, shape (..., h_kv, m, d_v)
        Leading dimensions broadcast.
    feature_map : {"elu", "relu", "identity"} or callable, default "elu"
        The map phi: ``elu(x) + 1``, ``max(x, 0)``, x itself, or a function of an array (..., n, d_k) that returns
        (..., n, features). Weights are non-negative where the features are. Nothing is scaled by sqrt(d_k).
    is_causal : bool, default False
        Let query i see keys 0 ... i only (aligned top-left).
    form : {"parallel", "recurrent", "chunked"}, default "parallel"
        How the same sums are taken: all at once, one position at a time, or chunk by chunk.
    normalize : bool, default True
        Divide by the sum of the weights, so that the output is a weighted mean; a query whose weights sum to 0
        gives 0.
    chunk_size : int, default 64
        Positions per chunk of the chunked form.
    enable_gqa : bool, default False
        Let query head i read key/value head ``i // (h // h_kv)``.

    Returns
    -------
    numpy.ndarray, shape (..., h, n, d_v)
        In the dtype of the inputs; the three forms agree to rounding.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or head counts do not fit, a name is unknown, or ``feature_map`` returns another length.

    Notes
    -----
    With f features, the state :math:`S_t = S_{t-1} + \\phi(k_t) v_t^\\top` and :math:`z_t = z_{t-1} + \\phi(k_t)`:

    .. math::

        o_t = \\frac{\\phi(q_t)^\\top S_t}{\\phi(q_t)^\\top z_t}.

    Without a causal mask every form takes O(h (n + m) f d_v). Causal: recurrent O(h n f d_v), one small step per
    position; chunked O(h n (f d_v + chunk_size (f + d_v))); parallel O(h n m (f + d_v)), quadratic.

    References
    ----------
    Katharopoulos et al. (2020), Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention,
    equations 4-6 (parallel) and 16-20 (recurrent); Yang et al. (2023), Gated Linear Attention Transformers with
    Hardware-Efficient Training, section 2.2 (chunked).

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> query, key, value = np.random.default_rng(0).standard_normal((3, 100, 8))
    >>> out = ag.linear_attention(query, key, value, is_causal=True, form="chunked")
    >>> np.allclose(out, ag.linear_attention(query, key, value, is_causal=True, form="recurrent"))
    True

    It is another function than softmax attention:

    >>> np.allclose(out, ag.scaled_dot_product_attention(query, key, value, is_causal=True), atol=0.1)
    False
    """
    phi = _feature_map(feature_map)
    return _attend(query, key, value, phi, phi, is_causal, form, normalize, chunk_size, enable_gqa)


def _attend(
    query: Any,
    key: Any,
    value: Any,
    map_query: FeatureMap,
    map_key: FeatureMap,
    is_causal: bool,
    form: str,
    normalize: bool,
    chunk_size: int,
    enable_gqa: bool,
) -> np.ndarray:
    q, k, v = check_attention_inputs(query, key, value, enable_gqa=enable_gqa)
    check_choice("form", form, ("parallel", "recurrent", "chunked"))
    chunk_size = check_integer("chunk_size", chunk_size, least=1)
    dtype, compute = q.dtype, compute_dtype(q)
    q, k, v = (x.astype(compute, copy=False) for x in (q, k, v))
    if enable_gqa:  # (..., h_kv, group, n, d_k) against (..., h_kv, 1, m, d_k)
        heads, h_kv = q.shape[-3], k.shape[-3]
        q = q.reshape(*q.shape[:-3], h_kv, heads // h_kv, *q.shape[-2:])
        k, v = k[..., None, :, :], v[..., None, :, :]
    q, k = map_query(q), map_key(k)  # (..., n, features), (..., m, features)
    if normalize:  # a column of ones among the values carries the sum of the weights along
        v = np.concatenate([v, np.ones_like(v[..., :1])], axis=-1)
    if is_causal:
        mix = {"parallel": _causal_parallel, "recurrent": _causal_recurrent, "chunked": _causal_chunked}[form]
        out = mix(q, k, v, chunk_size)  # (..., n, d_v)
    else:
        step = {"parallel": max(1, k.shape[-2]), "recurrent": 1, "chunked": chunk_size}[form]
        out = q @ _summary(k, v, step)
    if normalize:
        total = out[..., -1:]
        out = out[..., :-1] / np.where(total == 0.0, compute.type(1.0), total)
    if enable_gqa:
        out = out.reshape(*out.shape[:-4], heads, *out.shape[-2:])
    return out.astype(dtype, copy=False)


def _summary(k: np.ndarray, v: np.ndarray, step: int) -> np.ndarray:
    """Return the sum over keys of k v^T, (..., features, d_v), taken ``step`` keys at a time."""
    (k, v), state = _spread(k, v), _empty_state(k, v)
    for i in range(0, k.shape[-2], step):
        state += k[..., i : i + step, :].swapaxes(-1, -2) @ v[..., i : i + step, :]
    return state


def _causal_parallel(q: np.ndarray, k: np.ndarray, v: np.ndarray, chunk_size: int = 0) -> np.ndarray:
    """Take all pairs at once, as softmax attention does: O(n^2)."""
    weights = q @ k.swapaxes(-1, -2)  # (..., n, m)
    return (weights * np.tri(*weights.shape[-2:], dtype=weights.dtype)) @ v


def _causal_recurrent(q: np.ndarray, k: np.ndarray, v: np.ndarray, chunk_size: int = 1) -> np.ndarray:
    """Take one position at a time: the state takes in k_t v_t^T, then the query reads it."""
    (q, k, v), state = _spread(q, k, v), _empty_state(q, k, v)  # (..., features, d_v)
    out = np.empty((*q.shape[:-1], v.shape[-1]), v.dtype)
    for t in range(q.shape[-2]):
        if t < k.shape[-2]:
            state += k[..., t, :, None] * v[..., t, None, :]
        out[..., t, :] = (q[..., t, None, :] @ state)[..., 0, :]
    return out


def _causal_chunked(q: np.ndarray, k: np.ndarray, v: np.ndarray, chunk_size: int) -> np.ndarray:
    """Take all pairs inside a chunk, and the state for all that came before it."""
    (q, k, v), state = _spread(q, k, v), _empty_state(q, k, v)  # (..., features, d_v)
    out = np.empty((*q.shape[:-1], v.shape[-1]), v.dtype)
    for i in range(0, q.shape[-2], chunk_size):
        chunk = (..., slice(i, i + chunk_size), slice(None))
        out[chunk] = q[chunk] @ state + _causal_parallel(q[chunk], k[chunk], v[chunk])
        state += k[chunk].swapaxes(-1, -2) @ v[chunk]
    return out


def _spread(*arrays: np.ndarray) -> list[np.ndarray]:
    """Broadcast the leading dimensions of arrays (..., length, width) to one another."""
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in arrays))
    return [np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in arrays]


def _empty_state(*arrays: np.ndarray) -> np.ndarray:
    """Return zeros (..., features, d_v) for keys and values, the last two of ``arrays``."""
    k, v = arrays[-2:]
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in arrays))
    return np.zeros((*lead, k.shape[-1], v.shape[-1]), v.dtype)


# ------------------------------------------------------------------------------------------ feature maps


def elu_feature_map(x: Any) -> np.ndarray:
    """Return ``elu(x) + 1``: x + 1 above zero and exp(x) below, so always positive.

    Parameters
    ----------
    x : array_like
        Any shape.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of ``x``.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers.

    References
    ----------
    Katharopoulos et al. (2020), Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention,
    equation 7.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.elu_feature_map([-1.0, 0.0, 2.0])
    array([0.367879, 1.      , 3.      ])
    """
    z = as_float_array("x", x)
    return np.where(z > 0.0, z + z.dtype.type(1.0), np.exp(np.minimum(z, z.dtype.type(0.0))))


_FEATURE_MAPS: dict[str, FeatureMap] = {
    "elu": elu_feature_map,
    "relu": lambda x: np.maximum(x, x.dtype.type(0.0)),
    "identity": lambda x: x,
}


def _feature_map(feature_map: str | FeatureMap) -> FeatureMap:
    """Return the map of that name, or the caller's own with its result checked."""
    if isinstance(feature_map, str):
        return _FEATURE_MAPS[check_choice("feature_map", feature_map, tuple(_FEATURE_MAPS))]
    if not callable(feature_map):
        raise TypeError(f"feature_map is {feature_map!r}; wanted a name or a function of an array (..., n, d_k)")

    def checked(x: np.ndarray) -> np.ndarray:
        features = np.asarray(feature_map(x))
        if features.shape[:-1] != x.shape[:-1] or features.dtype.kind != "f":
            raise ValueError(
                f"feature_map returned shape {features.shape} and dtype {features.dtype} for shape {x.shape};"
                f" wanted floats with the same leading dimensions"
            )
        return features.astype(x.dtype, copy=False)

    return checked


# --------------------------------------------------------------------------------------- random features


def random_feature_projection(
    d_k: int, features: int, *, rng: np.random.Generator, orthogonal: bool = True
) -> np.ndarray:
    """Draw the directions for ``random_features``: Gaussian, and orthogonal in groups of ``d_k``.

    Parameters
    ----------
    d_k : int
        Width of the vectors to be mapped.
    features : int
        Number of directions.
    rng : numpy.random.Generator
        The source of randomness.
    orthogonal : bool, default True
        Make the directions of each group of ``d_k`` orthogonal. Each direction alone is distributed as before, so
        the estimate stays unbiased, and its variance falls.

    Returns
    -------
    numpy.ndarray, shape (features, d_k)
        In float64.

    Raises
    ------
    ValueError, TypeError
        If a size is less than 1, or ``rng`` is not a NumPy Generator.

    References
    ----------
    Choromanski et al. (2021), Rethinking Attention with Performers, section 2.4.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> w = ag.random_feature_projection(4, 6, rng=np.random.default_rng(0))
    >>> np.allclose(w[:4] @ w[:4].T, np.diag(np.square(w[:4]).sum(axis=1)))
    True
    """
    d_k, features = check_integer("d_k", d_k, least=1), check_integer("features", features, least=1)
    check_rng("rng", rng)
    gaussian = rng.standard_normal((features, d_k))
    if not orthogonal:
        return gaussian
    groups = -(-features // d_k)
    basis, triangle = np.linalg.qr(rng.standard_normal((groups, d_k, d_k)))
    # With a positive diagonal the factorisation is unique, and the basis uniform over all rotations.
    basis *= np.sign(np.einsum("gii->gi", triangle))[:, None, :]
    directions = basis.swapaxes(-1, -2).reshape(groups * d_k, d_k)[:features]
    return directions * np.linalg.norm(gaussian, axis=1, keepdims=True)  # lengths as Gaussian vectors have


def random_features(x: Any, projection: Any, *, kind: str = "positive", scale: float | None = None) -> np.ndarray:
    """Map x so that the product of two maps is ``exp(scale * x . y)`` on average over projections.

    Parameters
    ----------
    x : array_like, shape (..., d_k)
        Queries or keys.
    projection : array_like, shape (features, d_k)
        Random directions, the same for queries and keys: see ``random_feature_projection``.
    kind : {"positive", "trigonometric"}, default "positive"
        Exponentials, or cosines and sines. The trigonometric estimate can be negative, and where the true value is
        small its error is the larger of the two.
    scale : float, optional
        Factor of the dot product, 1 / sqrt(d_k) unless given.

    Returns
    -------
    numpy.ndarray, shape (..., features) or, trigonometric, (..., 2 features)
        In the dtype of ``x``.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, ``kind`` is unknown or ``scale`` is negative.

    Notes
    -----
    With :math:`z = \\sqrt{scale}\\, x` and m directions :math:`w`, the features are

    .. math::

        \\frac{1}{\\sqrt m} e^{w \\cdot z - |z|^2 / 2} \\quad\\text{or}\\quad
        \\frac{1}{\\sqrt m} e^{|z|^2 / 2} (\\cos w \\cdot z, \\sin w \\cdot z).

    Time O(n features d_k).

    References
    ----------
    Choromanski et al. (2021), Rethinking Attention with Performers, section 2.3 and lemma 1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, y = np.array([1.0, 0.5]), np.array([0.5, -0.5])
    >>> w = ag.random_feature_projection(2, 100_000, rng=rng)
    >>> estimate = ag.random_features(x, w, scale=1.0) @ ag.random_features(y, w, scale=1.0)
    >>> bool(abs(estimate - np.exp(x @ y)) < 0.02)
    True
    """
    z = as_float_array("x", x)
    check_choice("kind", kind, ("positive", "trigonometric"))
    dots, half_square = _project(z, projection, scale)
    if kind == "positive":
        features = np.exp(dots - half_square)
    else:
        features = np.exp(half_square) * np.concatenate([np.cos(dots), np.sin(dots)], axis=-1)
    return (features / sqrt(dots.shape[-1])).astype(z.dtype, copy=False)


def performer_attention(
    query: Any,
    key: Any,
    value: Any,
    projection: Any,
    *,
    is_causal: bool = False,
    form: str = "chunked",
    scale: float | None = None,
    chunk_size: int = 64,
    enable_gqa: bool = False,
) -> np.ndarray:
    """Approximate softmax attention in linear time, with positive random features.

    Parameters
    ----------
    query : array_like, shape (..., h, n, d_k)
    key : array_like, shape (..., h_kv, m, d_k)
    value : array_like, shape (..., h_kv, m, d_v)
        Leading dimensions broadcast.
    projection : array_like, shape (features, d_k)
        Random directions from ``random_feature_projection``: more of them, less error.
    is_causal, form, chunk_size, enable_gqa
        As in ``linear_attention``.
    scale : float, optional
        Factor of the dot products, 1 / sqrt(d_k) unless given.

    Returns
    -------
    numpy.ndarray, shape (..., h, n, d_v)
        In the dtype of the inputs.

    Raises
    ------
    ValueError, TypeError
        As in ``linear_attention`` and ``random_features``.

    Notes
    -----
    This is ``linear_attention`` with ``random_features`` as its map, and with the largest exponent of each query,
    and of the keys of each head, taken off: those factors cancel in the normalised weights, and without them large
    vectors would overflow. Each weight before normalisation is unbiased; a ratio of two such sums is not, but its
    error falls as 1 / sqrt(features).

    References
    ----------
    Choromanski et al. (2021), Rethinking Attention with Performers, algorithm 1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = rng.standard_normal((3, 50, 8)) / 2
    >>> exact = ag.scaled_dot_product_attention(query, key, value)
    >>> for features in (16, 256, 4096):
    ...     w = ag.random_feature_projection(8, features, rng=rng)
    ...     error = np.abs(ag.performer_attention(query, key, value, w) - exact).mean()
    ...     print(features, bool(error < 0.3 / np.sqrt(features)))
    16 True
    256 True
    4096 True
    """

    def map_query(q: np.ndarray) -> np.ndarray:  # a factor per query leaves its normalised weights alone
        dots, half_square = _project(q, projection, scale)
        return np.exp(dots - half_square - (dots - half_square).max(axis=-1, keepdims=True))

    def map_key(k: np.ndarray) -> np.ndarray:  # and so does one factor for all keys of a head
        dots, half_square = _project(k, projection, scale)
        top = (dots - half_square).max(axis=(-2, -1), keepdims=True, initial=-np.inf)
        return np.exp(dots - half_square - np.where(top == -np.inf, top.dtype.type(0.0), top))

    return _attend(query, key, value, map_query, map_key, is_causal, form, True, chunk_size, enable_gqa)


def _project(x: np.ndarray, projection: Any, scale: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return w . z for each direction w, (..., n, features), and |z|^2 / 2, (..., n, 1), for z = sqrt(scale) x."""
    w = as_float_array("projection", projection)
    check_ndim("x", x, 1, "(..., d_k)")
    if w.ndim != 2 or w.shape[1] != x.shape[-1] or w.shape[0] == 0:
        raise ValueError(f"projection has shape {w.shape}; wanted (features, {x.shape[-1]})")
    scale = 1.0 / sqrt(x.shape[-1]) if scale is None else check_finite("scale", scale)
    if scale < 0.0:
        raise ValueError(f"scale is {scale}; wanted at least 0, since x is multiplied by its square root")
    dtype = compute_dtype(x)
    z = x.astype(dtype) * dtype.type(sqrt(scale))
    return z @ w.astype(dtype).T, np.square(z).sum(axis=-1, keepdims=True) / 2


# -------------------------------------------------------------------------------------------- delta rule


def delta_rule_attention(
    query: Any,
    key: Any,
    value: Any,
    beta: Any,
    *,
    form: str = "recurrent",
    chunk_size: int = 64,
    initial_state: Any = None,
    return_state: bool = False,
) -> Any:
    """Attend through a state that is corrected and not only added to: the delta rule.

    Linear attention adds each value to its state, so what two similar keys wrote can no longer be told apart. The
    delta rule first reads what the state holds for the new key and writes only the difference, times ``beta``: with
    ``beta = 1`` and keys of length 1, reading the key just written gives its value exactly.

    Parameters
    ----------
    query, key : array_like, shape (..., h, n, d_k)
    value : array_like, shape (..., h, n, d_v)
        Leading dimensions broadcast. Keys are used as they come; models bring them to length 1.
    beta : array_like, broadcastable to (..., h, n)
        How much of the difference is written, usually between 0 and 1.
    form : {"recurrent", "chunked"}, default "recurrent"
        One position at a time, or chunk by chunk: inside a chunk what all positions write is found by solving one
        triangular system.
    chunk_size : int, default 64
        Positions per chunk of the chunked form.
    initial_state : array_like, shape (..., h, d_k, d_v), optional
        The state to start from, zeros unless given.
    return_state : bool, default False
        Return the last state too, to go on from.

    Returns
    -------
    out : numpy.ndarray, shape (..., h, n, d_v)
        In the dtype of the inputs; both forms agree to rounding.
    state : numpy.ndarray, shape (..., h, d_k, d_v)
        Only with ``return_state``; in float32 for half-precision inputs.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit, query and key differ in length, or ``form`` is unknown.

    Notes
    -----
    .. math::

        S_t = S_{t-1} + \\beta_t k_t (v_t - S_{t-1}^\\top k_t)^\\top, \\quad o_t = S_t^\\top q_t.

    Time O(h n d_k d_v) recurrent, O(h n (d_k d_v + c (d_k + d_v) + c^2)) chunked with c = chunk_size.

    References
    ----------
    Schlag et al. (2021), Linear Transformers Are Secretly Fast Weight Programmers, section 4.2; Yang et al. (2024),
    Parallelizing Linear Transformers with the Delta Rule over Sequence Length, section 3.

    Examples
    --------
    Two keys, each written twice. The delta rule reads back the last value; a sum would give 10 + 30 and 20 + 40.

    >>> import attn_guide as ag
    >>> import numpy as np
    >>> key = np.eye(2)[[0, 1, 0, 1]]
    >>> value = np.array([[10.0], [20.0], [30.0], [40.0]])
    >>> ag.delta_rule_attention(key, key, value, beta=np.ones(4)).ravel()
    array([10., 20., 30., 40.])
    >>> ag.linear_attention(key, key, value, feature_map="identity", is_causal=True, normalize=False).ravel()
    array([10., 20., 40., 60.])
    """
    q, k, v = check_attention_inputs(query, key, value)
    b = as_float_array("beta", beta)
    check_choice("form", form, ("recurrent", "chunked"))
    chunk_size = check_integer("chunk_size", chunk_size, least=1)
    n, dtype, compute = q.shape[-2], q.dtype, compute_dtype(q)
    if k.shape[-2] != n:
        raise ValueError(f"key has length {k.shape[-2]}; wanted the length of query, {n}: each step reads and writes")
    q, k, v = _spread(*(x.astype(compute, copy=False) for x in (q, k, v)))
    try:
        b = np.broadcast_to(b, q.shape[:-1]).astype(compute)[..., None]  # (..., n, 1)
    except ValueError:
        raise ValueError(f"beta has shape {b.shape}; wanted one that broadcasts to {q.shape[:-1]}") from None
    state = _empty_state(q, k, v)  # (..., d_k, d_v)
    if initial_state is not None:
        start = as_float_array("initial_state", initial_state)
        if start.shape != state.shape:
            raise ValueError(f"initial_state has shape {start.shape}; wanted {state.shape}")
        state += start
    out = np.empty(v.shape, compute)
    if form == "recurrent":
        for t in range(n):
            now = (..., slice(t, t + 1), slice(None))
            state += k[now].swapaxes(-1, -2) @ (b[now] * (v[now] - k[now] @ state))
            out[now] = q[now] @ state
    else:
        for t in range(0, n, chunk_size):
            now = (..., slice(t, t + chunk_size), slice(None))
            written = _chunk_corrections(k[now], v[now], b[now], state)
            out[now] = q[now] @ state + _causal_parallel(q[now], k[now], written)
            state += k[now].swapaxes(-1, -2) @ written
    out = out.astype(dtype, copy=False)
    return (out, state) if return_state else out


def _chunk_corrections(k: np.ndarray, v: np.ndarray, beta: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Return what each position of a chunk writes, (..., c, d_v), given the state before the chunk.

    Position t writes beta_t (v_t - what k_t reads), and reads what the positions before it have written: a linear
    system with a triangle of key products, solved at once where the recurrence goes step by step.
    """
    earlier = np.tri(k.shape[-2], k=-1, dtype=k.dtype)
    system = np.eye(k.shape[-2], dtype=k.dtype) + beta * (k @ k.swapaxes(-1, -2)) * earlier
    return np.linalg.solve(system, beta * (v - k @ state))
