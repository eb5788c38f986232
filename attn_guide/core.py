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
    as_condition,
    as_float_array,
    as_mask,
    check_attention_inputs,
    check_axis,
    check_finite,
    check_function,
    check_ndim,
    check_positive,
    check_probability,
    check_rng,
    check_softcap,
    compute_dtype,
)
from ._pool import parallel

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

#: ``mask_mod(b, h, q_idx, kv_idx) -> bool``: may query q_idx of head h in sequence b attend to key kv_idx.
MaskMod = Callable[[Any, Any, Any, Any], Any]
#: ``score_mod(score, b, h, q_idx, kv_idx) -> score``: the score to use instead.
ScoreMod = Callable[[Any, Any, Any, Any, Any], Any]

#: Scores made at a time. 2**18 float32 numbers are 1 MiB: they stay in a core's second-level cache between
#: the product that writes them, the softmax that rewrites them and the product that reads them.
_BLOCK = 2**18


# ------------------------------------------------------------------------------------------------ softmax


def softmax(x: Any, axis: int = -1, *, temperature: float = 1.0, where: Any = None) -> np.ndarray:
    """Turn scores into weights that are not negative and sum to one along ``axis``.

    Parameters
    ----------
    x : array_like, shape (..., m, ...)
        Scores. -inf is allowed and gets weight 0.
    axis : int
        The axis of the m alternatives.
    temperature : float
        Divides the scores. Below 1 it sharpens the weights towards the largest score, above 1 it flattens them
        towards 1/m. It never changes their order.
    where : array_like of bool, optional
        Broadcasts to ``x``. False takes a score out: its weight is 0 and it does not count in the sum.

    Returns
    -------
    numpy.ndarray
        Weights of the shape and dtype of ``x``. A slice in which nothing is left, because every score is -inf
        or taken out, gets weights 0.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers or ``where`` does not hold booleans.
    ValueError
        If ``axis`` or the shape of ``where`` does not fit, or ``temperature`` is not a finite number above 0.

    See Also
    --------
    log_sum_exp : The logarithm of the sum in the denominator.
    softmax_backward, softmax_jacobian : Its derivative.

    Notes
    -----
    :math:`w_j = e^{x_j / \\tau} / \\sum_k e^{x_k / \\tau}`, computed after the largest score is subtracted. That
    changes no weight, because it multiplies the numerator and the denominator by the same number, and it keeps
    every exponential at 1 or below, so nothing overflows. Time and memory O(size of x).

    References
    ----------
    Bridle (1990), Probabilistic Interpretation of Feedforward Classification Network Outputs.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.softmax([1.0, 2.0, 3.0]).round(2)
    array([0.09, 0.24, 0.67])
    >>> ag.softmax([1.0, 2.0, 3.0], temperature=0.25).round(2)
    array([0.  , 0.02, 0.98])
    >>> ag.softmax([1.0, 2.0, 3.0], where=[True, True, False]).round(2)
    array([0.27, 0.73, 0.  ])
    """
    z, dtype = _scores_to_weigh(x, axis, where)
    e, total = _shifted_exp(z, axis, check_positive("temperature", temperature))
    e /= _nonzero(total)
    return e.astype(dtype, copy=False)


def log_sum_exp(x: Any, axis: int = -1, *, where: Any = None) -> np.ndarray:
    """Return the logarithm of the sum of exponentials along ``axis``, without overflow.

    It is the part of a softmax that two halves of a row need to share: see ``online_softmax``.

    Parameters
    ----------
    x : array_like, shape (..., m, ...)
        Scores; -inf is allowed and adds nothing.
    axis : int
        The axis that is summed.
    where : array_like of bool, optional
        Broadcasts to ``x``. False takes a score out of the sum.

    Returns
    -------
    numpy.ndarray
        The shape of ``x`` without ``axis``, in the dtype of ``x``; -inf where nothing is left to sum.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers or ``where`` does not hold booleans.
    ValueError
        If ``axis`` or the shape of ``where`` does not fit.

    Notes
    -----
    :math:`\\log \\sum_j e^{x_j} = t + \\log \\sum_j e^{x_j - t}` for every :math:`t`; the largest score is the
    :math:`t` that cannot overflow. Time and memory O(size of x).

    References
    ----------
    Blanchard, Higham and Higham (2021), Accurately Computing the Log-Sum-Exp and Softmax Functions, section 1.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> ag.log_sum_exp([1000.0, 1000.0])
    np.float64(1000.6931471805599)
    >>> ag.log_sum_exp(np.full((2, 3), -np.inf))
    array([-inf, -inf])
    """
    z, dtype = _scores_to_weigh(x, axis, where)
    top = _finite_max(z, axis)
    _, total = _shifted_exp(z, axis)
    with np.errstate(divide="ignore"):  # the logarithm of an empty sum is -inf
        return (np.log(total) + top).squeeze(axis=axis).astype(dtype)[()]


def softmax_backward(grad: Any, weights: Any, axis: int = -1, *, temperature: float = 1.0) -> np.ndarray:
    """Carry the gradient of a loss from the weights of a softmax back to its scores.

    Parameters
    ----------
    grad : array_like, shape (..., m, ...)
        Gradient of the loss with respect to the weights.
    weights : array_like, shape (..., m, ...)
        What ``softmax`` returned.
    axis : int
        The axis the softmax ran along.
    temperature : float
        The temperature the softmax had.

    Returns
    -------
    numpy.ndarray, shape (..., m, ...)
        Gradient with respect to the scores, in the dtype of ``weights``. Its sum along ``axis`` is 0, because
        adding one number to all scores changes no weight.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If the shapes differ, ``axis`` does not fit, or ``temperature`` is not a finite number above 0.

    See Also
    --------
    softmax_jacobian : The whole matrix, which this multiplies by ``grad`` without making it.

    Notes
    -----
    :math:`ds_j = w_j (g_j - \\sum_k g_k w_k) / \\tau`: an alternative gains if its gradient is above the weighted
    average. Time O(m) a row, where the Jacobian takes O(m^2).

    References
    ----------
    Dao et al. (2022), FlashAttention, appendix B.2.

    Examples
    --------
    >>> import attn_guide as ag
    >>> weights = ag.softmax([1.0, 2.0, 3.0])
    >>> ag.softmax_backward([0.0, 0.0, 1.0], weights).round(4)
    array([-0.0599, -0.1628,  0.2227])
    """
    g, w = as_float_array("grad", grad), as_float_array("weights", weights)
    axis = check_axis("axis", axis, w)
    if g.shape != w.shape:
        raise ValueError(f"grad has shape {g.shape}; wanted the shape of weights, {w.shape}")
    dtype, compute = w.dtype, compute_dtype(w)
    g, w = g.astype(compute, copy=False), w.astype(compute, copy=False)
    ds = w * (g - (g * w).sum(axis=axis, keepdims=True))
    _divide(ds, check_positive("temperature", temperature))
    return ds.astype(dtype, copy=False)


def softmax_jacobian(weights: Any, *, temperature: float = 1.0) -> np.ndarray:
    """Return the derivative of every weight of a softmax with respect to every score.

    Parameters
    ----------
    weights : array_like, shape (..., m)
        What ``softmax`` returned along the last axis.
    temperature : float
        The temperature the softmax had.

    Returns
    -------
    numpy.ndarray, shape (..., m, m)
        Entry (i, j) is the derivative of weight i with respect to score j. The matrix is symmetric and its rows
        sum to 0.

    Raises
    ------
    TypeError
        If ``weights`` does not hold real numbers.
    ValueError
        If ``weights`` has no axis or ``temperature`` is not a finite number above 0.

    See Also
    --------
    softmax_backward : Its product with a vector, without the matrix.

    Notes
    -----
    :math:`J = (\\mathrm{diag}(w) - w w^\\top) / \\tau`. Where one weight is nearly 1 every entry is nearly 0: a
    saturated row hardly answers to its scores. Time and memory O(m^2) a row.

    References
    ----------
    Bridle (1990), Probabilistic Interpretation of Feedforward Classification Network Outputs.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> ag.softmax_jacobian(np.array([0.5, 0.5]))
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    >>> norm = np.linalg.norm(ag.softmax_jacobian(ag.softmax([10.0, 20.0, 30.0])))
    >>> print(f"{norm:.1e}")
    9.1e-05
    """
    w = as_float_array("weights", weights)
    check_ndim("weights", w, 1, "(..., m)")
    dtype, w = w.dtype, w.astype(compute_dtype(w), copy=False)
    jacobian = np.eye(w.shape[-1], dtype=w.dtype) * w[..., None, :] - w[..., :, None] * w[..., None, :]
    _divide(jacobian, check_positive("temperature", temperature))
    return jacobian.astype(dtype, copy=False)


def attention_entropy(weights: Any, axis: int = -1, *, base: float | None = None) -> np.ndarray:
    """Return how widely each row spreads its attention: 0 for one key, ``log(m)`` for m equal ones.

    Parameters
    ----------
    weights : array_like, shape (..., m, ...)
        Attention weights, such as ``softmax`` returns.
    axis : int
        The axis of the keys.
    base : float, optional
        Base of the logarithm: 2 gives bits, None gives nats. With ``base=m`` the largest possible value is 1.

    Returns
    -------
    numpy.ndarray
        The shape of ``weights`` without ``axis``. A row of zeros, which attends to nothing, gives 0.

    Raises
    ------
    TypeError
        If ``weights`` does not hold real numbers.
    ValueError
        If a weight is negative, ``axis`` does not fit, or ``base`` is not a number above 0 other than 1.

    Notes
    -----
    :math:`-\\sum_j w_j \\log w_j`, where 0 log 0 counts as 0. ``exp`` of it is the number of keys that would give
    the same entropy with equal weights. Time and memory O(size of weights).

    References
    ----------
    Shannon (1948), A Mathematical Theory of Communication, section 6.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.attention_entropy([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]], base=2)
    array([2., 0.])
    """
    w = as_float_array("weights", weights)
    axis = check_axis("axis", axis, w)
    if np.any(w < 0):
        raise ValueError(f"weights holds {w.min()}; wanted weights of at least 0")
    if base is not None and check_positive("base", base) == 1.0:
        raise ValueError("base is 1; wanted a number above 0 other than 1")
    dtype, w = w.dtype, w.astype(compute_dtype(w), copy=False)
    logs = np.log(w, out=np.zeros_like(w), where=w > 0)
    entropy = np.abs((w * logs).sum(axis=axis))  # no term is positive; abs turns -0.0 into 0.0
    return (entropy if base is None else entropy / np.log(base)).astype(dtype)[()]


def _scores_to_weigh(x: Any, axis: int, where: Any) -> tuple[np.ndarray, np.dtype]:
    """Return a copy of the scores to compute with, -inf where they are taken out, and the caller's dtype."""
    z = as_float_array("x", x)
    check_axis("axis", axis, z)
    dtype, z = z.dtype, z.astype(compute_dtype(z))
    if where is not None:
        np.copyto(z, -np.inf, where=~as_condition("where", where, z.shape))
    return z, dtype


def _shifted_exp(z: np.ndarray, axis: int = -1, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Overwrite ``z`` with exp((z - max z) / temperature), at most 1, and return it with its sum."""
    with np.errstate(over="ignore", under="ignore"):  # -1e308 - 1e308 is -inf here, and exp(-1000) is 0: right
        z -= _finite_max(z, axis)
        if temperature != 1.0:
            _divide(z, temperature)
        np.exp(z, out=z)
    return z, z.sum(axis=axis, keepdims=True)


def _divide(z: np.ndarray, divisor: float) -> None:
    """Divide ``z`` in place; in float64 where the dtype of ``z`` would round the divisor to 0, or to infinity."""
    limits = np.finfo(z.dtype)
    fits = limits.tiny <= divisor <= limits.max
    np.divide(z, divisor, out=z, dtype=None if fits else np.float64, casting="same_kind")


def _finite_max(z: np.ndarray, axis: int) -> np.ndarray:
    """Return the maximum, and 0 where every entry is -inf, so that -inf minus it stays -inf."""
    top = z.max(axis=axis, keepdims=True, initial=-np.inf)
    top[top == -np.inf] = 0.0
    return top


def _nonzero(total: np.ndarray) -> np.ndarray:
    """Return the divisor of a softmax: a row with nothing to attend to has total 0 and keeps weights 0."""
    return np.where(total == 0.0, total.dtype.type(1.0), total)


# ---------------------------------------------------------------------------------------------- attention


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
    """Mix the values by how well each query matches each key.

    The names and meanings of the first eight arguments are those of
    ``torch.nn.functional.scaled_dot_product_attention``, with one difference: masks compose here. A key is
    visible only where ``attn_mask``, ``is_causal`` and ``mask_mod`` all allow it, while PyTorch refuses
    ``attn_mask`` together with ``is_causal``.

    Parameters
    ----------
    query : array_like, shape (..., h, n, d_k)
        What each of the n positions looks for.
    key : array_like, shape (..., h_kv, m, d_k)
        What each of the m positions offers to be found by.
    value : array_like, shape (..., h_kv, m, d_v)
        What each of the m positions hands over. All three share one dtype, and their leading dimensions, the
        heads included, broadcast.
    attn_mask : array_like, optional
        Broadcasts to (..., h, n, m). Booleans: True says "may attend". Floats are added to the scores; -inf
        forbids.
    dropout_p : float
        Probability with which each weight is set to zero; the rest are divided by ``1 - dropout_p``. It is
        applied whenever it is above 0 and needs ``rng``.
    is_causal : bool
        Query i sees the keys j <= i, counted from the first query and the first key (aligned top-left). For the
        alignment with the last key pass ``mask_mod=causal_lower_right(n, m)``.
    scale : float, optional
        Multiplies the dot products; ``1 / sqrt(d_k)`` unless given.
    enable_gqa : bool
        Grouped queries: h may be a multiple of h_kv, and query head i reads key/value head
        ``i // (h // h_kv)``. Nothing is repeated in memory.
    mask_mod : callable, optional
        ``mask_mod(b, h, q_idx, kv_idx)`` says with index arithmetic who may attend to whom; a ``Mask`` is one.
        It is called once, with integer arrays that broadcast to (..., h, n, m); b counts the dimensions before
        the heads, flattened.
    score_mod : callable, optional
        ``score_mod(score, b, h, q_idx, kv_idx)`` returns the score to use instead, elementwise. It may be
        called several times, each time with a block of scores.
    softcap : float, optional
        Replaces a score s by ``softcap * tanh(s / softcap)``.
    rng : numpy.random.Generator, optional
        Source of the dropout; the draws do not depend on how the work is cut.
    return_weights : bool
        Also return the weights that multiplied the values, after dropout.

    Returns
    -------
    output : numpy.ndarray, shape (..., h, n, d_v)
        In the dtype of the inputs. A query that may attend to nothing gets 0.
    weights : numpy.ndarray, shape (..., h, n, m)
        Only if ``return_weights``. Without dropout each row sums to 1, or to 0 if all of it is forbidden.

    Raises
    ------
    TypeError
        If dtypes differ or are not real, a mask is neither boolean nor float, ``mask_mod`` does not return
        booleans, or ``rng`` is missing where ``dropout_p`` is above 0.
    ValueError
        If shapes or head counts do not fit, a mask holds NaN or +inf, ``dropout_p`` is outside [0, 1], ``scale``
        is not finite, or ``softcap`` is not above 0.

    See Also
    --------
    attention_scores : The scores that go into the softmax.
    scaled_dot_product_attention_backward : The gradients.
    flash_attention : The same result in memory that grows with n + m.

    Notes
    -----
    :math:`\\mathrm{softmax}(Q K^\\top / \\sqrt{d_k}) V`. Between the product and the softmax a score is scaled,
    soft-capped, passed to ``score_mod``, then biased and masked, in this order. Half precision is computed in
    float32.

    Time O(h n m (d_k + d_v)); causal rows stop at the last key they may see, which halves it. The scores are
    made a block of about a megabyte at a time, so without a mask, dropout or weights to return the extra memory
    is O(1) for each thread. The blocks run on as many threads as NumPy's own products would use.

    A forbidden key may hold anything, NaN included. Its value must be finite: it is hidden by its weight of 0,
    and 0 times NaN is NaN.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, equation 1; Ainslie et al. (2023), GQA, section 2.2;
    Gemma Team (2024), Gemma 2, section 2, for the soft-cap.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> query = np.array([[1.0, 0.0], [0.0, 1.0]])  # (n=2, d_k=2)
    >>> key = np.array([[4.0, 0.0], [0.0, 4.0], [0.0, 0.0]])  # (m=3, d_k=2)
    >>> value = np.array([[1.0], [2.0], [3.0]])  # (m=3, d_v=1)
    >>> output, weights = ag.scaled_dot_product_attention(query, key, value, return_weights=True)
    >>> weights.round(2)
    array([[0.89, 0.05, 0.05],
           [0.05, 0.89, 0.05]])
    >>> output.round(2)
    array([[1.16],
           [2.  ]])
    >>> ag.scaled_dot_product_attention(query, key, value, mask_mod=lambda b, h, q, kv: kv > q).round(2)
    array([[2.5],
           [3. ]])
    """
    p = _prepare(query, key, value, attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap)
    n, m, d_v = p.q.shape[-2], p.k.shape[-2], p.v.shape[-1]
    keep = _keep("dropout_p", dropout_p, rng, (*p.lead, n, m), p.q.dtype)
    out = np.empty((*p.lead, n, d_v), p.q.dtype)
    weights = np.zeros((*p.lead, n, m), p.q.dtype) if return_weights else None

    def attend(block: _Block) -> None:
        at, rows, keys = block
        w, total = _shifted_exp(_masked(_capped(p, block), p, block))  # (..., rows, keys)
        w /= _nonzero(total)
        if keep is not None:
            w *= keep[at][..., rows, keys]
        if weights is not None:
            weights[at][..., rows, keys] = w
        out[at][..., rows, :] = w @ p.v[at][..., keys, :]

    parallel(attend, _blocks(p))
    return p.restore(out) if weights is None else (p.restore(out), p.restore(weights))


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
    """Return what attention hands to its softmax: the scaled, capped, biased and masked scores.

    Parameters
    ----------
    query : array_like, shape (..., h, n, d_k)
        Queries.
    key : array_like, shape (..., h_kv, m, d_k)
        Keys.
    attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap : various
        As in ``scaled_dot_product_attention``.

    Returns
    -------
    numpy.ndarray, shape (..., h, n, m)
        Row i holds the scores of query i. A forbidden cell holds -inf.

    Raises
    ------
    TypeError, ValueError
        As in ``scaled_dot_product_attention``.

    See Also
    --------
    softmax : Turns each row into weights.

    Notes
    -----
    Time O(h n m d_k), memory O(h n m).

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.1.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> x = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [2.0, 0.0, 0.0, 2.0]])
    >>> ag.attention_scores(x, x, is_causal=True)
    array([[ 1. , -inf, -inf],
           [ 0.5,  1. , -inf],
           [ 1. ,  0. ,  4. ]])
    """
    p = _prepare(query, key, key, attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap)
    return p.restore(_masked(_capped(p, _WHOLE), p, _WHOLE))


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
    """Return the gradients of a loss with respect to query, key and value.

    Parameters
    ----------
    grad_out : array_like, shape (..., h, n, d_v)
        Gradient of the loss with respect to the output of ``scaled_dot_product_attention``.
    query, key, value : array_like
        As given to ``scaled_dot_product_attention``.
    attn_mask, dropout_p, is_causal, scale, enable_gqa, mask_mod, score_mod : various
        As given to ``scaled_dot_product_attention``.
    score_mod_grad : callable, optional
        ``score_mod_grad(score, b, h, q_idx, kv_idx)`` returns the derivative of what ``score_mod`` returned with
        respect to ``score``; a bias that is added has derivative 1. Needed with ``score_mod``, whose code cannot
        be differentiated here.
    softcap : float, optional
        As given to ``scaled_dot_product_attention``.
    rng : numpy.random.Generator, optional
        In the state in which the forward pass got it, so that the same weights are dropped.

    Returns
    -------
    grad_query, grad_key, grad_value : numpy.ndarray
        The shapes and dtypes of query, key and value. Where an input was broadcast, or one key/value head serves
        a group of query heads, the gradients add up. A query that may attend to nothing gets gradient 0, and so
        does a key that no query may see.

    Raises
    ------
    TypeError, ValueError
        As in ``scaled_dot_product_attention``; ``ValueError`` if ``grad_out`` has not the shape of the output,
        ``TypeError`` if only one of ``score_mod`` and ``score_mod_grad`` is given.

    See Also
    --------
    flash_attention_backward : The same gradients in memory that grows with n + m.

    Notes
    -----
    With weights :math:`P` and output :math:`O = P V`:

    .. math::

        dV = P^\\top dO, \\quad dP = dO\\, V^\\top, \\quad
        dS_{ij} = P_{ij} (dP_{ij} - \\textstyle\\sum_k P_{ik} dP_{ik}), \\quad
        dQ = dS\\, K / \\sqrt{d_k}, \\quad dK = dS^\\top Q / \\sqrt{d_k}.

    Time O(h n m (d_k + d_v)), memory O(h n m).

    References
    ----------
    Dao et al. (2022), FlashAttention, appendix B.2.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> query, key, value = np.ones((1, 2)), np.eye(2), np.array([[1.0], [3.0]])
    >>> grads = ag.scaled_dot_product_attention_backward(np.ones((1, 1)), query, key, value)
    >>> [grad.round(3).tolist() for grad in grads]
    [[[-0.354, 0.354]], [[-0.354, -0.354], [0.354, 0.354]], [[0.5], [0.5]]]
    """
    if (score_mod is None) != (score_mod_grad is None):
        alone = "score_mod" if score_mod_grad is None else "score_mod_grad"
        raise TypeError(f"{alone} came alone; wanted score_mod and its derivative score_mod_grad, or neither")
    p = _prepare(query, key, value, attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap)
    g = as_float_array("grad_out", grad_out).astype(p.q.dtype, copy=False)
    n, m, d_v = p.q.shape[-2], p.k.shape[-2], p.v.shape[-1]
    if g.shape != (*p.shape, n, d_v):
        raise ValueError(f"grad_out has shape {g.shape}; wanted the shape of the output, {(*p.shape, n, d_v)}")
    keep = _keep("dropout_p", dropout_p, rng, (*p.lead, n, m), p.q.dtype)
    g = g.reshape(*p.lead, n, d_v)

    capped = _capped(p, _WHOLE)  # (..., n, m)
    weights, total = _shifted_exp(_masked(capped.copy(), p, _WHOLE))
    weights /= _nonzero(total)
    dropped = weights if keep is None else weights * keep
    dv = dropped.swapaxes(-1, -2) @ g  # (..., m, d_v)
    dw = g @ p.v.swapaxes(-1, -2)  # (..., n, m)
    if keep is not None:
        dw *= keep
    ds = softmax_backward(dw, weights)
    if p.softcap is not None:
        ds *= 1.0 - (capped / p.softcap) ** 2  # the derivative of tanh
    if score_mod_grad is not None:
        ds *= _elementwise("score_mod_grad", score_mod_grad, capped, p.b, p.h, p.q_idx, p.kv_idx)
    ds *= p.scale
    dq = ds @ p.k  # (..., n, d_k)
    dk = ds.swapaxes(-1, -2) @ p.q  # (..., m, d_k)

    if enable_gqa:  # the query heads of a group add up in their key/value head
        dk, dv = dk.sum(axis=-3), dv.sum(axis=-3)
    dq = dq.reshape(*p.shape, *dq.shape[-2:])
    grads = zip((dq, dk, dv), (query, key, value), strict=True)
    dq, dk, dv = (_sum_to(grad, np.shape(x)).astype(p.dtype, copy=False) for grad, x in grads)
    return dq, dk, dv


def self_attention(x: Any, w_q: Any, w_k: Any, w_v: Any, **options: Any) -> Any:
    """Attend within one sequence: queries, keys and values are three projections of the same ``x``.

    Parameters
    ----------
    x : array_like, shape (..., n, d_model)
        The sequence, a row for each token.
    w_q, w_k : array_like, shape (d_model, d_k)
        Project to queries and keys, as ``x @ w_q``; a ``torch.nn.Linear`` stores the transpose.
    w_v : array_like, shape (d_model, d_v)
        Projects to values.
    **options
        Further arguments of ``scaled_dot_product_attention``, such as ``is_causal`` or ``return_weights``.

    Returns
    -------
    output : numpy.ndarray, shape (..., n, d_v)
        A mixture of the values of all tokens, for each token.
    weights : numpy.ndarray, shape (..., n, n)
        Only with ``return_weights=True``.

    Raises
    ------
    TypeError, ValueError
        If a matrix does not fit ``x``, and as in ``scaled_dot_product_attention``.

    See Also
    --------
    multi_head_attention : Several of these side by side, and an output projection.

    Notes
    -----
    Time O(n d_model (2 d_k + d_v) + n^2 (d_k + d_v)).

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> ag.self_attention(x, np.eye(2), np.eye(2), np.eye(2)).round(2)
    array([[0.8 , 0.6 ],
           [0.6 , 0.8 ],
           [0.75, 0.75]])
    """
    return cross_attention(x, x, w_q, w_k, w_v, **options)


def cross_attention(x: Any, context: Any, w_q: Any, w_k: Any, w_v: Any, **options: Any) -> Any:
    """Attend from one sequence to another: queries come from ``x``, keys and values from ``context``.

    Parameters
    ----------
    x : array_like, shape (..., n, d_model)
        The sequence that asks.
    context : array_like, shape (..., m, d_context)
        The sequence that is read.
    w_q : array_like, shape (d_model, d_k)
        Projects ``x`` to queries.
    w_k : array_like, shape (d_context, d_k)
        Projects ``context`` to keys.
    w_v : array_like, shape (d_context, d_v)
        Projects ``context`` to values.
    **options
        Further arguments of ``scaled_dot_product_attention``.

    Returns
    -------
    output : numpy.ndarray, shape (..., n, d_v)
        A mixture of the values of ``context`` for each token of ``x``.
    weights : numpy.ndarray, shape (..., n, m)
        Only with ``return_weights=True``.

    Raises
    ------
    TypeError, ValueError
        If a matrix does not fit its sequence, and as in ``scaled_dot_product_attention``.

    Notes
    -----
    Time O(n d_model d_k + m d_context (d_k + d_v) + n m (d_k + d_v)).

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.3.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> target, source = np.array([[0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> output, weights = ag.cross_attention(target, source, np.eye(2), np.eye(2), np.eye(2), return_weights=True)
    >>> weights.round(2)
    array([[0.05, 0.19, 0.77]])
    """
    q = _project("x", x, "w_q", w_q)
    k = _project("context", context, "w_k", w_k)
    v = _project("context", context, "w_v", w_v)
    return scaled_dot_product_attention(q, k, v, **options)


# ------------------------------------------------------------------------------- the parts of the formula

#: A piece of the scores: the leading index, then rows of queries and columns of keys.
_Block = tuple[tuple[int, ...], slice, slice]
_WHOLE: _Block = ((), slice(None), slice(None))


class _Problem(NamedTuple):
    """One call of attention, its arrays broadcast (as views) to the leading dimensions of the output.

    With grouped heads the dimension h is seen as (h_kv, h // h_kv) and each key/value head is broadcast over
    its group.
    """

    q: np.ndarray  # (*lead, n, d_k)
    k: np.ndarray  # (*lead, m, d_k)
    v: np.ndarray  # (*lead, m, d_v)
    b: np.ndarray  # (*lead, 1, 1)
    h: np.ndarray  # (*lead, 1, 1)
    bias: np.ndarray | None  # (*lead, n, m), added to the scores
    allowed: np.ndarray | None  # (*lead, n, m), True = may attend
    is_causal: bool
    scale: float
    softcap: float | None
    score_mod: ScoreMod | None
    shape: tuple[int, ...]  # leading dimensions of the output as the caller sees them: (..., h)
    dtype: np.dtype  # the caller's

    @property
    def lead(self) -> tuple[int, ...]:
        return self.q.shape[:-2]

    @property
    def q_idx(self) -> np.ndarray:  # (n, 1)
        return np.arange(self.q.shape[-2])[:, None]

    @property
    def kv_idx(self) -> np.ndarray:  # (1, m)
        return np.arange(self.k.shape[-2])[None, :]

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
    check_function("mask_mod", mask_mod, "b, h, q_idx, kv_idx")
    check_function("score_mod", score_mod, "score, b, h, q_idx, kv_idx")
    q, k, v = check_attention_inputs(query, key, value, enable_gqa=enable_gqa)
    dtype, compute = q.dtype, compute_dtype(q)
    n, m, h_kv = q.shape[-2], k.shape[-2], k.shape[-3] if enable_gqa else 1
    if enable_gqa:
        shape = (*np.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3]), q.shape[-3])
    else:
        shape = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])

    heads = shape[-1:]  # () where there is no head dimension
    h = np.arange(prod(heads)).reshape(*heads, 1, 1)
    b = np.arange(prod(shape[:-1])).reshape(*shape[:-1], *(1 for _ in heads), 1, 1)
    bias = allowed = None
    if attn_mask is not None:
        mask = as_mask("attn_mask", attn_mask, (*shape, n, m))
        bias, allowed = (None, mask) if mask.dtype == bool else (mask.astype(compute, copy=False), None)
    if mask_mod is not None:
        visible = mask_mod(b, h, np.arange(n)[:, None], np.arange(m)[None, :])
        visible = as_mask("mask_mod", visible, (*shape, n, m), boolean=True)
        allowed = visible if allowed is None else allowed & visible

    if enable_gqa:
        lead = (*shape[:-1], h_kv, shape[-1] // h_kv)
        q, b, h = (_group(x, h_kv) for x in (q, b, h))
        k, v = k[..., None, :, :], v[..., None, :, :]  # (..., h_kv, 1, m, d)
        bias, allowed = (None if x is None else _group(x, h_kv) for x in (bias, allowed))
    else:
        lead = shape

    def spread(x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, (*lead, *x.shape[-2:]))

    return _Problem(
        q=spread(q.astype(compute, copy=False)),
        k=spread(k.astype(compute, copy=False)),
        v=spread(v.astype(compute, copy=False)),
        b=spread(b),
        h=spread(h),
        bias=None if bias is None else spread(bias),
        allowed=None if allowed is None else spread(allowed),
        is_causal=bool(is_causal),
        scale=1.0 / sqrt(q.shape[-1]) if scale is None else check_finite("scale", scale),
        softcap=check_softcap(softcap, np.finfo(compute)),
        score_mod=score_mod,
        shape=shape,
        dtype=dtype,
    )


def _group(x: np.ndarray, h_kv: int) -> np.ndarray:
    """Return a view of (..., h, a, b) as (..., h_kv, h // h_kv, a, b); a head dimension of 1 stays 1."""
    if x.ndim < 3 or x.shape[-3] == 1:
        return x[..., None, :, :]
    return x.reshape(*x.shape[:-3], h_kv, x.shape[-3] // h_kv, *x.shape[-2:])


def _blocks(p: _Problem) -> Iterator[_Block]:
    """Cut the scores into blocks of about ``_BLOCK``.

    A small problem is one block. A large one goes head by head, then by rows of queries; causal rows stop at the
    last key that any of them may see.
    """
    lead, n, m = p.lead, p.q.shape[-2], p.k.shape[-2]
    fits = (i for i in range(len(lead) + 1) if prod(lead[i:]) * n * m <= _BLOCK)
    split = next(fits, len(lead))
    step = max(n if prod(lead[split:]) * n * m <= _BLOCK else _BLOCK // m, 16)
    for at in np.ndindex(lead[:split]):
        for start in range(0, n, step):
            stop = min(start + step, n)
            yield at, slice(start, stop), slice(0, min(stop, m) if p.is_causal else m)


def _capped(p: _Problem, block: _Block) -> np.ndarray:
    """Return a block of ``scale * q k^T``, soft-capped. The query is scaled: it is smaller than the scores."""
    at, rows, keys = block
    s = (p.q[at][..., rows, :] * p.q.dtype.type(p.scale)) @ p.k[at][..., keys, :].swapaxes(-1, -2)
    if p.softcap is not None:
        s /= p.softcap
        np.tanh(s, out=s)
        s *= p.softcap
    return s


def _masked(s: np.ndarray, p: _Problem, block: _Block) -> np.ndarray:
    """Apply score_mod, bias and masks to a block of scores; a forbidden cell gets -inf."""
    at, rows, keys = block
    q_idx, kv_idx = p.q_idx[rows], p.kv_idx[:, keys]  # (rows, 1), (1, keys)
    if p.score_mod is not None:
        s = _elementwise("score_mod", p.score_mod, s, p.b[at], p.h[at], q_idx, kv_idx)
    if p.bias is not None:
        bias = p.bias[at][..., rows, keys]
        np.copyto(s, -np.inf, where=bias == -np.inf)  # first, because inf - inf and NaN - inf are NaN
        s += bias
    if p.allowed is not None:
        np.copyto(s, -np.inf, where=~p.allowed[at][..., rows, keys])
    if p.is_causal:  # every row of the block may see the keys before its first row
        later = slice(rows.start, None)
        np.copyto(s[..., later], -np.inf, where=kv_idx[:, later] > q_idx)
    return s


def _elementwise(name: str, function: ScoreMod, s: np.ndarray, *index: np.ndarray) -> np.ndarray:
    """Return ``function(s, b, h, q_idx, kv_idx)`` as a new array of the shape and dtype of ``s``."""
    new = np.asarray(function(s, *index))
    if new.dtype.kind not in "fiu":
        raise TypeError(f"{name} returned dtype {new.dtype}; wanted real numbers")
    try:
        return np.broadcast_to(new, s.shape).astype(s.dtype)
    except ValueError:
        raise ValueError(f"{name} returned shape {new.shape}; wanted one that broadcasts to {s.shape}") from None


def _sum_to(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Add a gradient up over the dimensions along which an input of this shape was broadcast."""
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    return grad.sum(axis=tuple(i for i, size in enumerate(shape) if size == 1), keepdims=True)


def _project(name: str, x: Any, weight_name: str, weight: Any) -> np.ndarray:
    """Return ``x @ weight`` for x (..., length, d_in) and weight (d_in, d_out), or raise naming both."""
    a, w = as_float_array(name, x), as_float_array(weight_name, weight)
    check_ndim(name, a, 2, "(..., length, width)")
    if w.ndim != 2 or w.shape[0] != a.shape[-1]:
        raise ValueError(
            f"{weight_name} has shape {w.shape}; wanted ({a.shape[-1]}, width) for {name} of shape {a.shape}"
        )
    return a @ w


# ------------------------------------------------------------------------------------------------ dropout


def dropout(x: Any, p: float, rng: np.random.Generator) -> np.ndarray:
    """Set each entry to zero with probability ``p`` and divide the rest by ``1 - p``.

    Parameters
    ----------
    x : array_like, any shape
        Attention weights, or activations.
    p : float
        Probability of zero, in [0, 1].
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of ``x``. Its expectation is ``x``; with ``p=1`` it is 0.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers or ``rng`` is no Generator.
    ValueError
        If ``p`` is outside [0, 1].

    Notes
    -----
    The division keeps the expectation, so nothing has to change when dropout is turned off after training. It
    does not keep sums: a row of attention weights adds up to 1 only on average. Time and memory O(size of x).

    References
    ----------
    Srivastava et al. (2014), Dropout: A Simple Way to Prevent Neural Networks from Overfitting, section 10.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> weights = ag.dropout(np.full((2, 4), 0.25), 0.5, np.random.default_rng(0))
    >>> weights
    array([[0.5, 0.5, 0.5, 0. ],
           [0. , 0. , 0. , 0. ]])
    >>> weights.sum(axis=-1)
    array([1.5, 0. ])
    """
    z = as_float_array("x", x)
    keep = _keep("p", p, rng, z.shape, compute_dtype(z))
    return z.copy() if keep is None else (z * keep).astype(z.dtype)


def _keep(
    name: str, p: float, rng: np.random.Generator | None, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray | None:
    """Draw the factors of dropout: 0 with probability p and 1 / (1 - p) otherwise; None where p is 0."""
    p = check_probability(name, p)
    if p == 0.0:
        return None
    kept = check_rng("rng", rng).random(shape, dtype=np.float32) >= p
    return kept.astype(dtype) * dtype.type(1.0 / (1.0 - p) if p < 1.0 else 0.0)
