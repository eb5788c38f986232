"""Ways to compare a query with a key; autograd gives their gradients."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from attn_guide._checks import check_positive

from ._checks import broadcast_shape, check_finite, check_tensor, compute_dtype

__all__ = ["additive_score", "concat_score", "cosine_score", "dot_score", "general_score", "scaled_dot_score"]


def dot_score(query: Tensor, key: Tensor) -> Tensor:
    """Compare by the dot product.

    Parameters
    ----------
    query : torch.Tensor, shape (..., n, d)
    key : torch.Tensor, shape (..., m, d)

    Returns
    -------
    torch.Tensor, shape (..., n, m)

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not fit.

    Notes
    -----
    n m d multiply-adds.

    References
    ----------
    Luong, Pham and Manning (2015), Effective Approaches to Attention-based Neural Machine Translation, section 3.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.dot_score(torch.tensor([[1.0, 2.0]]), torch.eye(2))
    tensor([[1., 2.]])
    """
    return scaled_dot_score(query, key, scale=1.0)


def scaled_dot_score(query: Tensor, key: Tensor, *, scale: float | None = None) -> Tensor:
    """Compare by the dot product times a scale.

    Parameters
    ----------
    query : torch.Tensor, shape (..., n, d)
    key : torch.Tensor, shape (..., m, d)
    scale : float, optional
        1 / sqrt(d) unless given.

    Returns
    -------
    torch.Tensor, shape (..., n, m)

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not fit, or ``scale`` is not finite.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, equation 1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.scaled_dot_score(torch.ones(1, 4), torch.ones(1, 4))
    tensor([[2.]])
    """
    q, k, dtype = _pair(query, key, same_width=True)
    scale = 1.0 / sqrt(query.shape[-1]) if scale is None else check_finite("scale", scale)
    return ((q * scale if scale != 1.0 else q) @ k.transpose(-1, -2)).to(dtype)


def general_score(query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
    """Compare through a matrix, ``q W k``.

    Parameters
    ----------
    query : torch.Tensor, shape (..., n, d_q)
    key : torch.Tensor, shape (..., m, d_k)
    weight : torch.Tensor, shape (d_q, d_k)

    Returns
    -------
    torch.Tensor, shape (..., n, m)

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not fit.

    References
    ----------
    Luong, Pham and Manning (2015), Effective Approaches to Attention-based Neural Machine Translation, section 3.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.general_score(torch.ones(1, 2), torch.ones(1, 3), torch.ones(2, 3))
    tensor([[6.]])
    """
    q, k, dtype = _pair(query, key, same_width=False)
    _shape("weight", weight, (query.shape[-1], key.shape[-1]))
    return (q @ weight.to(q.dtype) @ k.transpose(-1, -2)).to(dtype)


def additive_score(query: Tensor, key: Tensor, w_query: Tensor, w_key: Tensor, v: Tensor) -> Tensor:
    """Compare with a small network, ``v . tanh(q W_q + k W_k)``.

    Parameters
    ----------
    query : torch.Tensor, shape (..., n, d_q)
    key : torch.Tensor, shape (..., m, d_k)
    w_query : torch.Tensor, shape (d_q, d_a)
    w_key : torch.Tensor, shape (d_k, d_a)
    v : torch.Tensor, shape (d_a,)

    Returns
    -------
    torch.Tensor, shape (..., n, m)

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not fit.

    Notes
    -----
    The projections are taken once per query and once per key; the array of tanh is (..., n, m, d_a).

    References
    ----------
    Bahdanau, Cho and Bengio (2014), Neural Machine Translation by Jointly Learning to Align and Translate,
    section A.1.2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> one = torch.ones(1, 1)
    >>> at.additive_score(one / 2, torch.tensor([[0.5], [-0.5]]), one, one, 2 * one[0])
    tensor([[1.5232, 0.0000]])
    """
    q, k, dtype = _pair(query, key, same_width=False)
    if check_tensor("v", v).dim() != 1:
        raise ValueError(f"v has shape {tuple(v.shape)}; wanted (d_a,)")
    _shape("w_query", w_query, (query.shape[-1], v.shape[0]))
    _shape("w_key", w_key, (key.shape[-1], v.shape[0]))
    a, b = q @ w_query.to(q.dtype), k @ w_key.to(q.dtype)  # (..., n, d_a), (..., m, d_a)
    return (torch.tanh(a[..., :, None, :] + b[..., None, :, :]) @ v.to(q.dtype)).to(dtype)


def concat_score(query: Tensor, key: Tensor, weight: Tensor, v: Tensor) -> Tensor:
    """Compare with a small network on the pair laid end to end, ``v . tanh([q; k] W)``.

    Parameters
    ----------
    query : torch.Tensor, shape (..., n, d_q)
    key : torch.Tensor, shape (..., m, d_k)
    weight : torch.Tensor, shape (d_q + d_k, d_a)
    v : torch.Tensor, shape (d_a,)

    Returns
    -------
    torch.Tensor, shape (..., n, m)

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not fit.

    Notes
    -----
    This is ``additive_score`` with W cut into its query rows and its key rows, and is computed so.

    References
    ----------
    Luong, Pham and Manning (2015), Effective Approaches to Attention-based Neural Machine Translation, equation 8.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> one = torch.ones(1, 1)
    >>> at.concat_score(one / 2, torch.tensor([[0.5], [-0.5]]), torch.ones(2, 1), 2 * one[0])
    tensor([[1.5232, 0.0000]])
    """
    d_q = check_tensor("query", query).shape[-1]
    if check_tensor("weight", weight).dim() != 2 or weight.shape[0] != d_q + key.shape[-1]:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; wanted ({d_q} + {key.shape[-1]}, d_a)")
    return additive_score(query, key, weight[:d_q], weight[d_q:], v)


def cosine_score(query: Tensor, key: Tensor, *, scale: float = 1.0) -> Tensor:
    """Compare by the cosine of the angle between query and key, times a scale.

    Parameters
    ----------
    query : torch.Tensor, shape (..., n, d)
    key : torch.Tensor, shape (..., m, d)
    scale : float, default 1.0
        What the cosine is multiplied by.

    Returns
    -------
    torch.Tensor, shape (..., n, m)
        A zero vector scores 0 with everything.

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not fit, or ``scale`` is not above 0.

    References
    ----------
    Graves, Wayne and Danihelka (2014), Neural Turing Machines, equations 5 and 6.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.cosine_score(torch.tensor([[2.0, 0.0]]), torch.tensor([[30.0, 0.0], [0.0, -5.0], [0.0, 0.0]]))
    tensor([[1., 0., 0.]])
    """
    q, k, dtype = _pair(query, key, same_width=True)
    return (check_positive("scale", scale) * (_unit(q) @ _unit(k).transpose(-1, -2))).to(dtype)


def _unit(x: Tensor) -> Tensor:
    """Return the unit vectors of the rows; a zero row stays zero, and so does its gradient."""
    # Divide by the largest entry first: squares of very long vectors would overflow, of very short ones vanish.
    top = x.detach().abs().amax(dim=-1, keepdim=True)
    y = x / torch.where(top > 0, top, 1.0)
    square = y.square().sum(dim=-1, keepdim=True)
    return y * torch.where(square > 0, square, 1.0).rsqrt()


def _pair(query: Tensor, key: Tensor, *, same_width: bool) -> tuple[Tensor, Tensor, torch.dtype]:
    """Return query and key in the dtype to compute in, and their own."""
    for name, x in (("query", query), ("key", key)):
        if check_tensor(name, x).dim() < 2:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; wanted (..., length, width)")
    if query.dtype != key.dtype:
        raise TypeError(f"query, key must share one dtype; got query {query.dtype}, key {key.dtype}")
    if same_width and query.shape[-1] != key.shape[-1]:
        raise ValueError(f"key has width {key.shape[-1]}; wanted the width of query, {query.shape[-1]}")
    if broadcast_shape(query.shape[:-2], key.shape[:-2]) is None:
        raise ValueError(
            f"leading dimensions of query {tuple(query.shape)} and key {tuple(key.shape)} do not broadcast"
        )
    compute = compute_dtype(query)
    return query.to(compute), key.to(compute), query.dtype


def _shape(name: str, x: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(check_tensor(name, x).shape) != wanted:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; wanted {wanted}")
