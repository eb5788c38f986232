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
    """Attend with weights ``phi(q) . phi(k)`` in place of ``exp(q . k)``."""
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
    """Return ``elu(x) + 1``: x + 1 above zero and exp(x) below, so always positive."""
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
    """Draw the directions for ``random_features``: Gaussian, and orthogonal in groups of ``d_k``."""
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
    """Map x so that the product of two maps is ``exp(scale * x . y)`` on average over projections."""
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
    """Approximate softmax attention in linear time, with positive random features."""

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
    """Attend through a state that is corrected and not only added to: the delta rule."""
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
