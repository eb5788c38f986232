"""Softmax, and attention written out: the path that keeps its scores and weights, and the yardstick of the others."""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attn_guide._checks import check_positive, check_probability, check_softcap

from ._checks import check_attention_inputs, check_axis, check_finite, check_mask, check_tensor, compute_dtype

__all__ = ["attention_entropy", "attention_scores", "dropout", "log_sum_exp", "softmax"]

#: ``mask_mod(b, h, q_idx, kv_idx) -> bool``: may query q_idx of head h in sequence b attend to key kv_idx.
MaskMod = Callable[[Any, Any, Any, Any], Any]
#: ``score_mod(score, b, h, q_idx, kv_idx) -> score``: the score to use instead.
ScoreMod = Callable[[Any, Any, Any, Any, Any], Any]


def softmax(x: Tensor, axis: int = -1, *, temperature: float = 1.0, where: Tensor | None = None) -> Tensor:
    """Turn scores into weights that are not negative and sum to one along ``axis``.

    Unlike ``torch.softmax`` it gives 0, and gradients of 0, where nothing takes part.

    Parameters
    ----------
    x : torch.Tensor, shape (..., m, ...)
        Scores. -inf is allowed and gets weight 0.
    axis : int
        The axis of the m alternatives.
    temperature : float
        Divides the scores.
    where : torch.Tensor of bool, optional
        Broadcasts to ``x``. False takes a score out.

    Returns
    -------
    torch.Tensor
        Weights of the shape and dtype of ``x``; a slice in which nothing is left gets weights 0.

    Raises
    ------
    TypeError, ValueError
        If ``x`` does not hold real numbers, ``axis`` or ``where`` does not fit, or ``temperature`` is not above 0.

    Notes
    -----
    Time and memory O(size of x). Half precision is computed in float32.

    References
    ----------
    Bridle (1990), Probabilistic Interpretation of Feedforward Classification Network Outputs.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.softmax(torch.tensor([1.0, 2.0, 3.0]), where=torch.tensor([True, True, False]))
    tensor([0.2689, 0.7311, 0.0000])
    >>> at.softmax(torch.full((2,), float("-inf")))
    tensor([0., 0.])
    """
    temperature = check_positive("temperature", temperature)
    z = _scores_to_weigh(x, axis, where)
    return _weights(z if temperature == 1.0 else _divided(z, axis, temperature), axis).to(x.dtype)


def log_sum_exp(x: Tensor, axis: int = -1, *, where: Tensor | None = None) -> Tensor:
    """Return the logarithm of the sum of exponentials along ``axis``, without overflow.

    Parameters
    ----------
    x : torch.Tensor, shape (..., m, ...)
        Scores; -inf is allowed and adds nothing.
    axis : int
        The axis that is summed.
    where : torch.Tensor of bool, optional
        Broadcasts to ``x``. False takes a score out of the sum.

    Returns
    -------
    torch.Tensor
        The shape of ``x`` without ``axis``, in its dtype; -inf where nothing is left to sum.

    Raises
    ------
    TypeError, ValueError
        As in ``softmax``.

    Notes
    -----
    Time and memory O(size of x).

    References
    ----------
    Blanchard, Higham and Higham (2021), Accurately Computing the Log-Sum-Exp and Softmax Functions, section 1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.log_sum_exp(torch.tensor([1000.0, 1000.0]))
    tensor(1000.6931)
    """
    return torch.logsumexp(_scores_to_weigh(x, axis, where), dim=axis).to(x.dtype)


def attention_entropy(weights: Tensor, axis: int = -1, *, base: float | None = None) -> Tensor:
    """Return the entropy of attention weights: 0 for one key, log m for m equal ones.

    Parameters
    ----------
    weights : torch.Tensor, shape (..., m, ...)
        Rows that sum to one.
    axis : int
        The axis of the m keys.
    base : float, optional
        Base of the logarithm; e unless given.

    Returns
    -------
    torch.Tensor
        The shape of ``weights`` without ``axis``.

    Raises
    ------
    TypeError, ValueError
        If ``weights`` does not hold real numbers, it has no such axis, or ``base`` is not a finite number above 0.

    References
    ----------
    Shannon (1948), A Mathematical Theory of Communication, section 6.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.attention_entropy(torch.full((8,), 0.125), base=2)
    tensor(3.)
    """
    check_axis("axis", axis, check_tensor("weights", weights))
    w = weights.to(compute_dtype(weights))
    entropy = -torch.special.xlogy(w, w).sum(dim=axis)
    if base is not None:
        entropy = entropy / torch.log(torch.tensor(check_positive("base", base), dtype=w.dtype))
    return entropy.to(weights.dtype)


def dropout(x: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Set each entry to zero with probability ``p`` and divide the rest by ``1 - p``.

    Parameters
    ----------
    x : torch.Tensor, any shape
        Attention weights, or activations.
    p : float
        Probability of zero, in [0, 1].
    generator : torch.Generator, optional
        Source of the draws; torch's default generator unless given, as in ``torch.nn.functional.dropout``.

    Returns
    -------
    torch.Tensor
        The shape and dtype of ``x``.

    Raises
    ------
    TypeError, ValueError
        If ``x`` does not hold real numbers or ``p`` is outside [0, 1].

    References
    ----------
    Srivastava et al. (2014), Dropout: A Simple Way to Prevent Neural Networks from Overfitting, section 10.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.dropout(torch.ones(4), 0.5, torch.Generator().manual_seed(0)).unique()
    tensor([0., 2.])
    """
    check_tensor("x", x)
    p = check_probability("p", p)
    if p == 0.0:
        return x
    kept = torch.rand(x.shape, generator=generator, device=x.device, dtype=torch.float32) >= p
    return x * kept.to(x.dtype) * (1.0 / (1.0 - p) if p < 1.0 else 0.0)


def attention_scores(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return what attention hands to its softmax: the scaled, capped, biased and masked scores.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n, d_k)
        Queries.
    key : torch.Tensor, shape (..., h_kv, m, d_k)
        Keys.
    attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap : various
        As in ``scaled_dot_product_attention``.

    Returns
    -------
    torch.Tensor, shape (..., h, n, m)
        Row i holds the scores of query i. A forbidden cell holds -inf.

    Raises
    ------
    TypeError, ValueError
        As in ``scaled_dot_product_attention``.

    Notes
    -----
    Time O(h n m d_k), memory O(h n m).

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.attention_scores(torch.eye(2), torch.eye(2), is_causal=True, scale=1.0)
    tensor([[1., -inf],
            [0., 1.]])
    """
    p = prepare(query, key, key, attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap)
    return p.restore(scores(p))


class Problem(NamedTuple):
    """One call of attention. Grouped heads stand as (h_kv, h // h_kv) in place of h, so nothing is repeated."""

    q: Tensor  # (*lead, n, d_k)
    k: Tensor  # (*lead or 1s, m, d_k)
    v: Tensor  # (*lead or 1s, m, d_v)
    b: Tensor  # broadcasts to (*lead, 1, 1)
    h: Tensor  # broadcasts to (*lead, 1, 1)
    bias: Tensor | None  # added to the scores
    allowed: Tensor | None  # True = may attend
    is_causal: bool
    scale: float
    softcap: float | None
    score_mod: ScoreMod | None
    shape: tuple[int, ...]  # leading dimensions of the output as the caller sees them: (..., h)
    dtype: torch.dtype

    def restore(self, x: Tensor) -> Tensor:
        """Return a result in the caller's leading dimensions and dtype."""
        return x.reshape(*self.shape, *x.shape[-2:]).to(self.dtype)


def prepare(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    mask_mod: MaskMod | None,
    score_mod: ScoreMod | None,
    softcap: float | None,
) -> Problem:
    """Check the arguments of an attention call and line its tensors up."""
    shape = check_attention_inputs(query, key, value, enable_gqa)
    n, m, device, compute = query.shape[-2], key.shape[-2], query.device, compute_dtype(query)
    heads = shape[-1:]  # () where there is no head dimension
    h = torch.arange(prod(heads), device=device).view(*heads, 1, 1)
    b = torch.arange(prod(shape[:-1]), device=device).view(*shape[:-1], *(1 for _ in heads), 1, 1)
    bias = allowed = None
    if attn_mask is not None:
        mask = check_mask("attn_mask", attn_mask, (*shape, n, m))
        bias, allowed = (None, mask) if mask.dtype == torch.bool else (mask.to(compute), None)
    if mask_mod is not None:
        rows, columns = torch.arange(n, device=device)[:, None], torch.arange(m, device=device)
        visible = _visible(mask_mod, b, h, rows, columns, (*shape, n, m))
        allowed = visible if allowed is None else allowed & visible
    q, k, v = (x.to(compute) for x in (query, key, value))
    lead = shape
    if enable_gqa:
        h_kv = k.shape[-3]
        lead = (*shape[:-1], h_kv, shape[-1] // h_kv)
        q, b, h = (_group(x, h_kv) for x in (q, b, h))
        k, v = k[..., None, :, :], v[..., None, :, :]  # (..., h_kv, 1, m, d)
        bias, allowed = (None if x is None else _group(x, h_kv) for x in (bias, allowed))
    return Problem(
        q=q.expand(*lead, *q.shape[-2:]),
        k=k,
        v=v,
        b=b,
        h=h,
        bias=bias,
        allowed=allowed,
        is_causal=bool(is_causal),
        scale=1.0 / sqrt(query.shape[-1]) if scale is None else check_finite("scale", scale),
        softcap=check_softcap(softcap, torch.finfo(compute)),
        score_mod=score_mod,
        shape=shape,
        dtype=query.dtype,
    )


def scores(p: Problem) -> Tensor:
    """Return the scores (*lead, n, m): scaled, capped, modified, biased and masked, in this order."""
    s = (p.q * p.scale) @ p.k.transpose(-1, -2)
    if p.softcap is not None:
        s = p.softcap * torch.tanh(s / p.softcap)
    n, m = s.shape[-2:]
    rows, columns = torch.arange(n, device=s.device)[:, None], torch.arange(m, device=s.device)
    if p.score_mod is not None:
        new = p.score_mod(s, p.b, p.h, rows, columns)
        if not isinstance(new, Tensor) or not new.is_floating_point():
            raise TypeError(f"score_mod returned {getattr(new, 'dtype', type(new).__name__)}; wanted real numbers")
        s = new.expand_as(s).to(s.dtype)
    if p.bias is not None:  # a forbidden cell first, because inf - inf and NaN - inf are NaN
        s = s.masked_fill(p.bias == -torch.inf, -torch.inf) + p.bias
    if p.allowed is not None:
        s = s.masked_fill(~p.allowed, -torch.inf)
    if p.is_causal:
        s = s.masked_fill(columns > rows, -torch.inf)
    return s


def attend(
    p: Problem, dropout_p: float = 0.0, generator: torch.Generator | None = None, return_weights: bool = False
) -> Any:
    """Attend with the scores and the weights written out."""
    weights = dropout(_weights(scores(p)), dropout_p, generator)
    out = p.restore(weights @ p.v)
    return (out, p.restore(weights)) if return_weights else out


def _weights(s: Tensor, axis: int = -1) -> Tensor:
    """Return softmax(s), and 0 for a slice of -inf, whose softmax and its gradient would be NaN."""
    if s.shape[axis] == 0:
        return s
    empty = (s == -torch.inf).all(dim=axis, keepdim=True)
    return torch.softmax(s.masked_fill(empty, 0.0), dim=axis).masked_fill(empty, 0.0)


def _divided(z: Tensor, axis: int, temperature: float) -> Tensor:
    """Return (z - max z) / temperature; in float64 where the dtype of ``z`` would round the temperature away."""
    if z.shape[axis] == 0:
        return z
    top = z.detach().amax(dim=axis, keepdim=True)
    z = z - top.masked_fill(top == -torch.inf, 0.0)
    limits = torch.finfo(z.dtype)
    return (z if limits.tiny <= temperature <= limits.max else z.double()) / temperature


def _scores_to_weigh(x: Tensor, axis: int, where: Tensor | None) -> Tensor:
    check_axis("axis", axis, check_tensor("x", x))
    z = x.to(compute_dtype(x))
    if where is None:
        return z
    if not isinstance(where, Tensor) or where.dtype != torch.bool:
        raise TypeError(f"where has dtype {getattr(where, 'dtype', type(where).__name__)}; wanted booleans")
    try:
        where = where.expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"where has shape {tuple(where.shape)}; wanted one that broadcasts to {tuple(x.shape)}"
        ) from None
    return z.masked_fill(~where, -torch.inf)


def _visible(mask_mod: MaskMod, b: Any, h: Any, rows: Tensor, columns: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Evaluate a predicate and check what it returns."""
    limits = getattr(mask_mod, "_lengths", None)
    if limits is not None:
        limits(*shape[-2:])
    visible = mask_mod(b, h, rows, columns)
    if not isinstance(visible, Tensor) or visible.dtype != torch.bool:
        raise TypeError(f"mask_mod returned {getattr(visible, 'dtype', type(visible).__name__)}; wanted booleans")
    return check_mask("mask_mod", visible, shape)


def _group(x: Tensor, h_kv: int) -> Tensor:
    """Return (..., h, a, b) as (..., h_kv, h // h_kv, a, b); a head dimension of 1 stays 1."""
    if x.dim() < 3 or x.shape[-3] == 1:
        return x[..., None, :, :]
    return x.unflatten(-3, (h_kv, x.shape[-3] // h_kv))
