"""Softmax and scaled dot-product attention: the formula every chapter returns to.

Attention compares each query with every key, turns the comparisons into weights that sum to one, and mixes the
values with those weights::

    scores  = query @ key^T * scale        (..., h, n, m)
    weights = softmax(scores)              (..., h, n, m)   rows sum to one
    output  = weights @ value              (..., h, n, d_v)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np

from ._checks import (
    as_float_array,
    as_mask,
    check_attention_inputs,
    check_finite,
    check_ndim,
    check_positive,
    check_probability,
    check_rng,
    compute_dtype,
)

__all__ = [
    "attention_entropy",
    "attention_scores",
    "cross_attention",
    "dropout",
    "log_sum_exp",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "self_attention",
    "softmax",
    "softmax_backward",
    "softmax_jacobian",
]

#: ``mask_mod(b, h, q_idx, kv_idx) -> bool``: may query q_idx of head h attend to key kv_idx.
MaskMod = Callable[[Any, Any, Any, Any], Any]
#: ``score_mod(score, b, h, q_idx, kv_idx) -> score``: the score to use instead.
ScoreMod = Callable[[Any, Any, Any, Any, Any], Any]

#: Scores made at a time. 2**18 float32 numbers are 1 MiB: they stay in a core's second-level cache between
#: the product that writes them, the softmax that rewrites them and the product that reads them.
_BLOCK = 2**18


# ------------------------------------------------------------------------------------------------ softmax


def softmax(x: Any, axis: int = -1, *, temperature: float = 1.0, where: Any = None) -> np.ndarray:
    """Turn scores into weights that are positive and sum to one along ``axis``."""
    z = as_float_array("x", x)
    out_dtype, tau = z.dtype, check_positive("temperature", temperature)
    z = z.astype(compute_dtype(z))
    if where is not None:
        z = np.where(where, z, -np.inf)
    e, total = _shifted_exp(z, axis, tau)
    e /= _nonzero(total)
    return e.astype(out_dtype, copy=False)


def _shifted_exp(z: np.ndarray, axis: int = -1, tau: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Overwrite ``z`` with exp((z - max z) / tau), which cannot overflow; return it and its sum."""
    z -= _finite_max(z, axis)
    if tau != 1.0:
        z /= tau
    np.exp(z, out=z)
    return z, z.sum(axis=axis, keepdims=True)


def _finite_max(z: np.ndarray, axis: int) -> np.ndarray:
    """Return the maximum, and 0 where every entry is -inf, so that -inf - max stays -inf and not NaN."""
    top = z.max(axis=axis, keepdims=True, initial=-np.inf)
    top[top == -np.inf] = 0.0
    return top


def _nonzero(total: np.ndarray) -> np.ndarray:
    """Return the divisor of a softmax: a row with nothing to attend to has total 0 and keeps weights 0."""
    return np.where(total == 0.0, total.dtype.type(1.0), total)


def log_sum_exp(x: Any, axis: int = -1, *, where: Any = None) -> np.ndarray:
    """Return ``log(sum(exp(x)))`` along ``axis`` without overflow; -inf where nothing is summed."""
    z = as_float_array("x", x)
    out_dtype = z.dtype
    z = z.astype(compute_dtype(z))
    if where is not None:
        z = np.where(where, z, -np.inf)
    top = _finite_max(z, axis)
    total = np.exp(z - top).sum(axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):  # log(0) = -inf is the answer of an empty sum
        return np.squeeze(np.log(total) + top, axis=axis).astype(out_dtype, copy=False)


def softmax_backward(grad: Any, weights: Any, axis: int = -1, *, temperature: float = 1.0) -> np.ndarray:
    """Carry the gradient of a loss from the weights of a softmax back to its scores."""
    g, w = as_float_array("grad", grad), as_float_array("weights", weights)
    ds = w * (g - np.sum(g * w, axis=axis, keepdims=True))
    return ds / check_positive("temperature", temperature)


def softmax_jacobian(weights: Any, *, temperature: float = 1.0) -> np.ndarray:
    """Return the derivative of every weight with respect to every score, ``diag(w) - w w^T``."""
    w = as_float_array("weights", weights)
    check_ndim("weights", w, 1, "(..., m)")
    jacobian = np.eye(w.shape[-1], dtype=w.dtype) * w[..., None, :] - w[..., :, None] * w[..., None, :]
    return jacobian / check_positive("temperature", temperature)


def attention_entropy(weights: Any, axis: int = -1, *, base: float | None = None) -> np.ndarray:
    """Return how spread out weights are: 0 for one key, ``log(m)`` for m equal ones."""
    w = as_float_array("weights", weights)
    if np.any(w < 0):
        raise ValueError(f"weights holds {w.min()}; wanted weights of at least 0")
    logs = np.log(w, out=np.zeros_like(w), where=w > 0)  # 0 log 0 = 0
    nats = -np.sum(w * logs, axis=axis)
    return nats if base is None else nats / np.log(base)


# ------------------------------------------------------------------------------------------------ attention


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    softcap: float | None = None,
    rng: np.random.Generator | None = None,
    return_weights: bool = False,
) -> Any:
    """Mix the values by how well each query matches each key: ``softmax(q k^T * scale) v``."""
    p = _prepare(query, key, value, attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap)
    shape = (*p.lead, p.q.shape[-2], p.k.shape[-2])  # (..., n, m)
    keep = _keep(shape, dropout_p, rng, p.q.dtype)
    out = np.empty((*shape[:-1], p.v.shape[-1]), p.q.dtype)  # (..., n, d_v)
    weights = np.zeros(shape, p.q.dtype) if return_weights else None
    for at, rows, keys in _blocks(p.lead, *shape[-2:], is_causal):
        s = _masked(_capped_scores(p, at, rows, keys), p, at, rows, keys)
        e, total = _shifted_exp(s)
        e /= _nonzero(total)
        if keep is not None:
            e *= keep[at][..., rows, keys]
        if weights is not None:
            weights[at][..., rows, keys] = e
        np.matmul(e, p.v[at][..., keys, :], out=out[at][..., rows, :])
    if weights is None:
        return p.restore(out)
    return p.restore(out), p.restore(weights)


def _capped_scores(p: _Problem, at: tuple[int, ...], rows: slice, keys: slice) -> np.ndarray:
    """Return scale * q k^T, soft-capped, for one block: (..., rows, keys). The smaller factor is scaled."""
    s = (p.q[at][..., rows, :] * p.q.dtype.type(p.scale)) @ p.k[at][..., keys, :].swapaxes(-1, -2)
    if p.softcap is not None:
        s /= p.softcap
        np.tanh(s, out=s)
        s *= p.softcap
    return s


def _masked(s: np.ndarray, p: _Problem, at: tuple[int, ...], rows: slice, keys: slice) -> np.ndarray:
    """Return the block of scores after score_mod, bias and masks; a forbidden cell holds -inf."""
    q_idx, kv_idx = p.q_idx[rows], p.kv_idx[:, keys]  # (rows, 1), (1, keys)
    if p.score_mod is not None:
        s = _call_score_mod(p.score_mod, s, p.b[at], p.h[at], q_idx, kv_idx)
    if p.bias is not None:
        s += p.bias[at][..., rows, keys]
    if p.allowed is not None:
        np.copyto(s, -np.inf, where=~p.allowed[at][..., rows, keys])
    if p.is_causal:
        np.copyto(s, -np.inf, where=kv_idx > q_idx)
    return s


def _blocks(lead: tuple[int, ...], n: int, m: int, is_causal: bool) -> Iterator[tuple[tuple[int, ...], slice, slice]]:
    """Cut (*lead, n, m) scores into pieces of about ``_BLOCK``: (leading index, query rows, key columns).

    A small problem is one piece. A large one goes head by head and then by rows of queries; causal rows stop at
    the last key that any of them may see, which halves the work.
    """
    j = next((i for i in range(len(lead)) if prod(lead[i:]) * n * m <= _BLOCK), len(lead))
    step = n if prod(lead[j:]) * n * m <= _BLOCK else max(16, _BLOCK // m)
    for at in np.ndindex(lead[:j]):
        for start in range(0, n, max(step, 1)):
            stop = min(start + step, n)
            yield at, slice(start, stop), slice(0, min(m, stop) if is_causal else m)


class _Problem(NamedTuple):
    """One call of attention with everything broadcast (as views) to the leading dimensions of the output.

    With grouped heads the head dimension h is seen as (h_kv, h // h_kv), and each key/value head is broadcast
    over its group: nothing is repeated in memory.
    """

    q: np.ndarray  # (*lead, n, d_k)
    k: np.ndarray  # (*lead, m, d_k)
    v: np.ndarray  # (*lead, m, d_v)
    lead: tuple[int, ...]
    b: np.ndarray  # (*lead, 1, 1), flat index over the dimensions before the heads
    h: np.ndarray  # (*lead, 1, 1)
    q_idx: np.ndarray  # (n, 1)
    kv_idx: np.ndarray  # (1, m)
    scale: float
    softcap: float | None
    score_mod: ScoreMod | None
    bias: np.ndarray | None  # (*lead, n, m), added to the scores
    allowed: np.ndarray | None  # (*lead, n, m), True = may attend
    is_causal: bool
    shape: tuple[int, ...]  # the leading dimensions as the caller sees them
    dtype: np.dtype  # the caller's

    def restore(self, x: np.ndarray) -> np.ndarray:
        """Return a result in the caller's leading dimensions and dtype."""
        return x.reshape(*self.shape, *x.shape[-2:]).astype(self.dtype, copy=False)


def _prepare(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    mask_mod: MaskMod | None,
    score_mod: ScoreMod | None,
    softcap: float | None,
) -> _Problem:
    """Check the arguments of an attention call and line its arrays up."""
    q, k, v = check_attention_inputs(query, key, value, enable_gqa=enable_gqa)
    dtype, compute = q.dtype, compute_dtype(q)
    n, m = q.shape[-2], k.shape[-2]
    split = 3 if enable_gqa else 2
    shape = np.broadcast_shapes(*(x.shape[:-split] for x in (q, k, v))) + (q.shape[-3:-2] if enable_gqa else ())
    heads = shape[-1:]  # () when there is no head dimension
    bias = allowed = None
    if attn_mask is not None:
        mask = as_mask("attn_mask", attn_mask, (*shape, n, m))
        bias, allowed = (None, mask) if mask.dtype == bool else (mask.astype(compute, copy=False), None)
    b = np.arange(prod(shape[:-1])).reshape(*shape[:-1], *(1 for _ in heads), 1, 1)
    h = np.arange(prod(heads)).reshape(*heads, 1, 1)
    q_idx, kv_idx = np.arange(n)[:, None], np.arange(m)[None, :]
    if mask_mod is not None:
        seen = as_mask("mask_mod", mask_mod(b, h, q_idx, kv_idx), (*shape, n, m), boolean=True)
        allowed = seen if allowed is None else allowed & seen
    lead = shape
    if enable_gqa:
        h_kv = k.shape[-3]
        lead = (*shape[:-1], h_kv, shape[-1] // h_kv)
        q, b, h = (_group(x, h_kv) for x in (q, b, h))
        k, v = k[..., None, :, :], v[..., None, :, :]
        bias, allowed = (x if x is None else _group(x, h_kv) for x in (bias, allowed))

    def spread(x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, (*lead, *x.shape[-2:]))

    return _Problem(
        *(spread(x.astype(compute, copy=False)) for x in (q, k, v)),
        lead,
        spread(b),
        spread(h),
        q_idx,
        kv_idx,
        1.0 / sqrt(q.shape[-1]) if scale is None else check_finite("scale", scale),
        None if softcap is None else check_positive("softcap", softcap),
        score_mod,
        None if bias is None else spread(bias),
        None if allowed is None else spread(allowed),
        bool(is_causal),
        shape,
        dtype,
    )


def _group(x: np.ndarray, h_kv: int) -> np.ndarray:
    """Return a view of (..., h, a, b) as (..., h_kv, h // h_kv, a, b); a head dimension of 1 stays 1."""
    if x.ndim < 3 or x.shape[-3] == 1:
        return x[..., None, :, :]
    return x.reshape(*x.shape[:-3], h_kv, x.shape[-3] // h_kv, *x.shape[-2:])


def _call_score_mod(score_mod: ScoreMod, s: np.ndarray, *index: np.ndarray) -> np.ndarray:
    """Return ``score_mod(s, ...)`` as a fresh array of the shape and dtype of ``s``."""
    new = np.asarray(score_mod(s.copy(), *index))
    try:
        return np.array(np.broadcast_to(new, s.shape), dtype=s.dtype)
    except ValueError:
        raise ValueError(f"score_mod returned shape {new.shape}; wanted one that broadcasts to {s.shape}") from None


def attention_scores(
    query: Any,
    key: Any,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    softcap: float | None = None,
) -> np.ndarray:
    """Return what attention hands to its softmax: scaled, capped, biased and masked scores."""
    p = _prepare(query, key, key, attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap)
    whole = ((), slice(None), slice(None))
    return p.restore(_masked(_capped_scores(p, *whole), p, *whole))


def scaled_dot_product_attention_backward(
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    score_mod_grad: ScoreMod | None = None,
    softcap: float | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of a loss with respect to query, key and value."""
    if (score_mod is None) != (score_mod_grad is None):
        raise TypeError(
            "score_mod and score_mod_grad must be given together: the backward pass cannot differentiate code"
        )
    p = _prepare(query, key, value, attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap)
    n, m, d_v = p.q.shape[-2], p.k.shape[-2], p.v.shape[-1]
    keep = _keep((*p.lead, n, m), dropout_p, rng, p.q.dtype)
    g = as_float_array("grad_out", grad_out).astype(p.q.dtype, copy=False)
    if g.shape != (*p.shape, n, d_v):
        raise ValueError(f"grad_out has shape {g.shape}; wanted the shape of the output, {(*p.shape, n, d_v)}")
    g = g.reshape(*p.lead, n, d_v)
    whole = ((), slice(None), slice(None))
    capped = _capped_scores(p, *whole)  # (..., n, m)
    weights = softmax(_masked(capped.copy(), p, *whole))  # (..., n, m)
    dropped = weights if keep is None else weights * keep

    dv = dropped.swapaxes(-1, -2) @ g  # (..., m, d_v)
    dw = g @ p.v.swapaxes(-1, -2)  # (..., n, m)
    if keep is not None:
        dw *= keep
    ds = softmax_backward(dw, weights)
    if score_mod_grad is not None:
        ds *= _call_score_mod(score_mod_grad, capped, p.b, p.h, p.q_idx, p.kv_idx)
    if p.softcap is not None:
        ds *= 1.0 - (capped / p.softcap) ** 2  # derivative of tanh
    ds *= p.scale
    dq = ds @ p.k  # (..., n, d_k)
    dk = ds.swapaxes(-1, -2) @ p.q  # (..., m, d_k)
    q, k, v = (as_float_array("", x) for x in (query, key, value))
    return (
        _sum_to(dq.reshape(*p.shape, *dq.shape[-2:]), q),
        _sum_to(_sum_group(dk, enable_gqa), k),
        _sum_to(_sum_group(dv, enable_gqa), v),
    )


def _sum_group(x: np.ndarray, grouped: bool) -> np.ndarray:
    """Add up what the query heads of a group send to their shared key/value head."""
    return x.sum(axis=-3) if grouped else x


def _sum_to(grad: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Add a gradient up over the dimensions along which ``like`` was broadcast; give it the dtype of ``like``."""
    grad = grad.sum(axis=tuple(range(grad.ndim - like.ndim)))
    stretched = tuple(i for i, size in enumerate(like.shape) if size == 1 and grad.shape[i] != 1)
    return grad.sum(axis=stretched, keepdims=True).astype(like.dtype, copy=False)


def self_attention(x: Any, w_q: Any, w_k: Any, w_v: Any, **options: Any) -> Any:
    """Attend within one sequence: queries, keys and values are three projections of the same ``x``."""
    return cross_attention(x, x, w_q, w_k, w_v, **options)


def cross_attention(x: Any, context: Any, w_q: Any, w_k: Any, w_v: Any, **options: Any) -> Any:
    """Attend from ``x`` to ``context``: queries come from one sequence, keys and values from another."""
    q = _project("x", x, "w_q", w_q)
    k = _project("context", context, "w_k", w_k)
    v = _project("context", context, "w_v", w_v)
    return scaled_dot_product_attention(q, k, v, **options)


def _project(name: str, x: Any, weight_name: str, weight: Any) -> np.ndarray:
    """Return ``x @ weight`` for x (..., d_in) and weight (d_in, d_out), or raise naming both."""
    a, w = as_float_array(name, x), as_float_array(weight_name, weight)
    check_ndim(name, a, 2, "(..., length, width)")
    if w.ndim != 2 or w.shape[0] != a.shape[-1]:
        raise ValueError(
            f"{weight_name} has shape {w.shape}; wanted ({a.shape[-1]}, width) for {name} of shape {a.shape}"
        )
    return a @ w


# ------------------------------------------------------------------------------------------------ dropout


def dropout(x: Any, p: float, rng: np.random.Generator) -> np.ndarray:
    """Set each entry to zero with probability ``p`` and divide the others by ``1 - p``."""
    z = as_float_array("x", x)
    keep = _keep(z.shape, p, rng, compute_dtype(z))
    return z.copy() if keep is None else (z * keep).astype(z.dtype)


def _keep(shape: tuple[int, ...], p: float, rng: np.random.Generator | None, dtype: np.dtype) -> np.ndarray | None:
    """Draw the factors of dropout: 0 with probability p, 1 / (1 - p) otherwise; None where p is 0."""
    p = check_probability("dropout_p", p)
    if p == 0.0:
        return None
    kept = check_rng("rng", rng).random(shape, dtype=np.float32) >= p
    return kept.astype(dtype) * dtype.type(1.0 / (1.0 - p) if p < 1.0 else 0.0)
