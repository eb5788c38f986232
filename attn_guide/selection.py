"""Choosing instead of averaging: hard attention, the estimators that train it, and the sparse softmaxes between.

Soft attention returns the weighted mean of the values. Hard attention returns one value, drawn with the weights as
probabilities, and a draw has no derivative. What stands here are the ways around that (REINFORCE, Gumbel-softmax,
straight-through) and the ground between the two (top-k, sparsemax, entmax).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._checks import (
    as_float_array,
    check_attention_inputs,
    check_choice,
    check_integer,
    check_ndim,
    check_positive,
    check_rng,
    compute_dtype,
)
from .core import attention_scores, softmax, softmax_backward

__all__ = [
    "ReinforceEstimate",
    "entmax",
    "entmax_backward",
    "expected_reward_gradient",
    "gumbel_noise",
    "gumbel_softmax",
    "hard_attention",
    "reinforce_gradient",
    "sparsemax",
    "sparsemax_backward",
    "straight_through",
    "straight_through_backward",
    "top_k_attention",
]


# ------------------------------------------------------------------------------------------------ hard attention


def _one_hot(index: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return an array of the shape of ``like`` with a one at ``index`` along the last axis."""
    out = np.zeros_like(like)
    np.put_along_axis(out, index[..., None], 1.0, axis=-1)
    return out


def hard_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    *,
    choose: str = "sample",
    scale: float | None = None,
    rng: np.random.Generator | None = None,
    return_weights: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Let each query read exactly one value.

    Parameters
    ----------
    query : array_like, shape (..., n, d_k)
        Queries.
    key : array_like, shape (..., m, d_k)
        Keys.
    value : array_like, shape (..., m, d_v)
        Values.
    attn_mask : array_like of bool or float, shape broadcastable to (..., n, m), optional
        True where a query may attend; or numbers to add to the scores.
    choose : {"sample", "argmax"}, default "sample"
        Draw the key with the softmax weights as probabilities, or take the key of the largest weight (the first of
        equals). These are two mechanisms: sampling is what training needs, argmax is what is often used after it.
    scale : float, optional
        What the dot products are multiplied by; 1 / sqrt(d_k) where it is not given.
    rng : numpy.random.Generator, optional
        Source of the draws; required by ``choose="sample"``.
    return_weights : bool, default False
        Return the choices as well.

    Returns
    -------
    output : ndarray, shape (..., n, d_v)
        The value chosen by each query; 0 where a query may attend to nothing.
    choice : ndarray, shape (..., n, m)
        One-hot rows, only with ``return_weights``; a row of zeros where a query may attend to nothing.

    Raises
    ------
    TypeError
        If ``choose="sample"`` comes without a Generator.
    ValueError
        If shapes do not fit or ``choose`` is unknown.

    Notes
    -----
    All n m scores are still computed: what is saved is the mixing, n m d_v multiply-adds, not the comparing. A draw
    is taken by the Gumbel-max identity, argmax(scores + noise), so a score need not be turned into a probability.

    References
    ----------
    Xu et al. (2015), Show, Attend and Tell: Neural Image Caption Generation with Visual Attention, section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from attn_guide import hard_attention
    >>> value = np.array([[10.0], [20.0], [30.0]])
    >>> hard_attention([[1.0]], [[0.0], [2.0], [1.0]], value, choose="argmax")
    array([[20.]])
    >>> draws = [hard_attention([[1.0]], [[0.0], [2.0], [1.0]], value, rng=np.random.default_rng(s)) for s in range(5)]
    >>> sorted({float(draw[0, 0]) for draw in draws} - {10.0, 20.0, 30.0})
    []
    """
    check_choice("choose", choose, ("sample", "argmax"))
    q, k, v = check_attention_inputs(query, key, value)
    scores = attention_scores(q, k, attn_mask=attn_mask, scale=scale)
    noise = gumbel_noise(scores.shape, check_rng("rng", rng)) if choose == "sample" else 0.0
    index = _argmax(scores + noise)  # (..., n)
    allowed = np.any(scores > -np.inf, axis=-1, keepdims=True)  # nothing allowed, nothing chosen
    lead = np.broadcast_shapes(index.shape[:-1], v.shape[:-2])
    # One value is read for each query: the others are not even multiplied by zero.
    chosen = np.take_along_axis(
        np.broadcast_to(v, (*lead, *v.shape[-2:])), np.broadcast_to(index, (*lead, index.shape[-1]))[..., None], axis=-2
    )
    output = np.where(allowed, chosen, 0.0).astype(q.dtype, copy=False)  # (..., n, d_v)
    return (output, (_one_hot(index, scores) * allowed).astype(q.dtype, copy=False)) if return_weights else output


def _argmax(x: np.ndarray) -> np.ndarray:
    if x.shape[-1] == 0:
        raise ValueError(f"key has length 0 (scores of shape {x.shape}); wanted at least one key to choose")
    return x.argmax(axis=-1)


def top_k_attention(
    query: Any,
    key: Any,
    value: Any,
    k: int,
    attn_mask: Any = None,
    *,
    scale: float | None = None,
    return_weights: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Let each query attend to its k best keys and to no other.

    Parameters
    ----------
    query : array_like, shape (..., n, d_k)
        Queries.
    key : array_like, shape (..., m, d_k)
        Keys.
    value : array_like, shape (..., m, d_v)
        Values.
    k : int
        How many keys a query keeps. Of equal scores at the border the first ones are kept, so exactly
        ``min(k, m)`` keys take part (some libraries keep all of the equals).
    attn_mask : array_like of bool or float, shape broadcastable to (..., n, m), optional
        True where a query may attend; or numbers to add to the scores.
    scale : float, optional
        What the dot products are multiplied by; 1 / sqrt(d_k) where it is not given.
    return_weights : bool, default False
        Return the weights as well.

    Returns
    -------
    output : ndarray, shape (..., n, d_v)
        Attention over the keys kept.
    weights : ndarray, shape (..., n, m)
        Only with ``return_weights``; rows sum to one, entries of keys not kept are exactly 0.

    Raises
    ------
    ValueError
        If ``k`` is below 1 or shapes do not fit.

    Notes
    -----
    Masking before the softmax and renormalising after it are the same: softmax weights keep their ratios. With
    ``k >= m`` this is soft attention, with ``k = 1`` it is hard attention by argmax. All n m scores are computed.

    References
    ----------
    Zhao et al. (2019), Explicit Sparse Transformer: Concentrated Attention Through Explicit Selection, equation 4.

    Examples
    --------
    >>> from attn_guide import top_k_attention
    >>> keys, values = [[0.0], [2.0], [1.0]], [[10.0], [20.0], [30.0]]
    >>> output, weights = top_k_attention([[1.0]], keys, values, k=2, return_weights=True)
    >>> weights
    array([[0.        , 0.73105858, 0.26894142]])
    """
    q, key_, v = check_attention_inputs(query, key, value)
    kept = check_integer("k", k, least=1)
    scores = attention_scores(q, key_, attn_mask=attn_mask, scale=scale)
    # A stable sort of the negated scores puts the first of equals first.
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :kept]
    allowed = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(allowed, order, True, axis=-1)
    weights = softmax(scores, where=allowed)
    output = (weights @ v).astype(q.dtype, copy=False)
    return (output, weights.astype(q.dtype, copy=False)) if return_weights else output


# ------------------------------------------------------------------------------------------------ Gumbel


def gumbel_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw standard Gumbel noise, ``-log(-log(u))``.

    Parameters
    ----------
    shape : tuple of int
        Shape of the noise.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray, shape ``shape``
        Independent draws; mean 0.5772 (Euler's constant), variance pi^2 / 6.

    Notes
    -----
    The argmax of ``logits + noise`` is a draw from softmax(logits): the noise turns a maximum into a sample.

    References
    ----------
    Maddison, Tarlow and Minka (2014), A* Sampling, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from attn_guide import gumbel_noise
    >>> noise = gumbel_noise((100_000,), np.random.default_rng(0))
    >>> bool(abs(noise.mean() - np.euler_gamma) < 0.02)
    True
    """
    return check_rng("rng", rng).gumbel(size=shape)


def gumbel_softmax(
    logits: Any, *, temperature: float = 1.0, rng: np.random.Generator | None = None, axis: int = -1
) -> np.ndarray:
    """Draw a relaxed one-hot vector, ``softmax((logits + Gumbel noise) / temperature)``.

    Parameters
    ----------
    logits : array_like, shape (..., k)
        Unnormalised log-probabilities; -inf for an entry that may not be drawn.
    temperature : float, default 1.0
        Towards 0 the draws become one-hot and their gradients wild; towards infinity uniform, and their gradients
        tame but about another function.
    rng : numpy.random.Generator
        Source of the noise; required.
    axis : int, default -1
        The axis of the choices.

    Returns
    -------
    ndarray
        Of the shape and dtype of ``logits``; positive, summing to one along ``axis``.

    Raises
    ------
    TypeError
        If ``rng`` is not a Generator.
    ValueError
        If ``temperature`` is not above zero.

    Notes
    -----
    The noise is drawn apart from the logits, so the draw is a differentiable function of them (the
    reparameterisation): its backward pass is ``softmax_backward`` with the same temperature. ``straight_through``
    gives the one-hot forward pass.

    References
    ----------
    Jang, Gu and Poole (2016), Categorical Reparameterization with Gumbel-Softmax, equation 2. Maddison, Mnih and
    Teh (2016), The Concrete Distribution, equation 10.

    Examples
    --------
    >>> import numpy as np
    >>> from attn_guide import gumbel_softmax
    >>> draw = gumbel_softmax([0.0, 1.0, 2.0], temperature=0.1, rng=np.random.default_rng(0))
    >>> draw.argmax(), draw.sum()
    (np.int64(2), np.float64(1.0))
    """
    z = as_float_array("logits", logits)
    noise = gumbel_noise(z.shape, check_rng("rng", rng))
    return softmax(z.astype(compute_dtype(z)) + noise, axis, temperature=temperature).astype(z.dtype, copy=False)


def straight_through(soft: Any) -> np.ndarray:
    """Round a soft choice to the one-hot vector of its largest entry: the forward half of straight-through.

    Parameters
    ----------
    soft : array_like, shape (..., k)
        Weights, or a draw of ``gumbel_softmax`` (then the one-hot vector is a draw too).

    Returns
    -------
    ndarray, shape (..., k)
        One-hot, the first of equals.

    Notes
    -----
    Forward, the choice is hard; backward, ``straight_through_backward`` pretends it was not made. The gradient is
    therefore biased, and by how much is measured in chapter 7.

    References
    ----------
    Bengio, Léonard and Courville (2013), Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation, section 4.

    Examples
    --------
    >>> from attn_guide import straight_through
    >>> straight_through([0.2, 0.5, 0.3])
    array([0., 1., 0.])
    """
    p = as_float_array("soft", soft)
    check_ndim("soft", p, 1, "(..., k)")
    return _one_hot(_argmax(p), p)


def straight_through_backward(grad: Any, soft: Any, *, temperature: float = 1.0) -> np.ndarray:
    """Return the straight-through gradient: the one the soft choice would have had.

    Parameters
    ----------
    grad : array_like, shape (..., k)
        Gradient of the loss with respect to the one-hot vector.
    soft : array_like, shape (..., k)
        The soft choice that was rounded.
    temperature : float, default 1.0
        The temperature the soft choice was made with.

    Returns
    -------
    ndarray, shape (..., k)
        Gradient with respect to the logits.

    References
    ----------
    Bengio, Léonard and Courville (2013), Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation, section 4.

    Examples
    --------
    >>> from attn_guide import straight_through_backward
    >>> straight_through_backward([1.0, 0.0], [0.5, 0.5])
    array([ 0.25, -0.25])
    """
    return softmax_backward(grad, soft, temperature=temperature)


# ------------------------------------------------------------------------------------------------ REINFORCE


class ReinforceEstimate(NamedTuple):
    """What ``reinforce_gradient`` measured.

    Parameters
    ----------
    gradient : ndarray, shape (k,)
        Mean of the single-draw estimates.
    standard_error : ndarray, shape (k,)
        Its standard error.
    variance : ndarray, shape (k,)
        Variance of one single-draw estimate.

    Examples
    --------
    >>> import numpy as np
    >>> from attn_guide import reinforce_gradient
    >>> rng = np.random.default_rng(0)
    >>> estimate = reinforce_gradient([0.0, 0.0], [1.0, 3.0], samples=4, baseline="expected", rng=rng)
    >>> estimate.gradient
    array([-0.5,  0.5])
    """

    gradient: np.ndarray
    standard_error: np.ndarray
    variance: np.ndarray


def expected_reward_gradient(logits: Any, reward: Any) -> np.ndarray:
    """Return the exact gradient of the expected reward, by enumerating the choices.

    Parameters
    ----------
    logits : array_like, shape (k,)
        Unnormalised log-probabilities of the choices.
    reward : array_like, shape (k,)
        Reward of each choice.

    Returns
    -------
    ndarray, shape (k,)
        Gradient of ``sum_i p_i reward_i`` with respect to the logits, ``p (reward - sum_i p_i reward_i)``.

    Raises
    ------
    ValueError
        If the two shapes differ.

    Notes
    -----
    O(k). This is what every estimator of this module is measured against.

    Examples
    --------
    >>> from attn_guide import expected_reward_gradient
    >>> expected_reward_gradient([0.0, 0.0], [1.0, 3.0])
    array([-0.5,  0.5])
    """
    p, r = _policy(logits, reward)
    return p * (r - p @ r)


def _policy(logits: Any, reward: Any) -> tuple[np.ndarray, np.ndarray]:
    z, r = as_float_array("logits", logits), as_float_array("reward", reward)
    if z.ndim != 1 or z.size == 0:
        raise ValueError(f"logits has shape {z.shape}; wanted (k,) with k of at least 1")
    if r.shape != z.shape:
        raise ValueError(f"reward has shape {r.shape}; wanted the shape of logits, {z.shape}")
    return softmax(z.astype(np.float64)), r.astype(np.float64)


def reinforce_gradient(
    logits: Any,
    reward: Any,
    *,
    samples: int,
    rng: np.random.Generator,
    baseline: str | float = "none",
) -> ReinforceEstimate:
    """Estimate the gradient of the expected reward from draws alone (the score-function estimator).

    Parameters
    ----------
    logits : array_like, shape (k,)
        Unnormalised log-probabilities of the choices.
    reward : array_like, shape (k,)
        Reward of each choice; only the rewards of drawn choices are used, and by ``"expected"`` and ``"optimal"``
        for their baseline.
    samples : int
        Number of draws, at least 2 so that an error can be stated.
    rng : numpy.random.Generator
        Source of the draws.
    baseline : {"none", "mean", "expected", "optimal"} or float, default "none"
        What is subtracted from the reward: nothing; the mean reward of the *other* draws (so the estimate stays
        unbiased); the exact expected reward; the constant of least total variance; or a constant of yours.

    Returns
    -------
    ReinforceEstimate
        Gradient with respect to the logits, its standard error, and the variance of a single draw.

    Raises
    ------
    ValueError
        If shapes differ, ``samples`` is below 2 or ``baseline`` is unknown.

    Notes
    -----
    One draw i estimates ``(reward_i - b) (one_hot_i - p)``: the reward may be anything, it is never differentiated.
    Where the reward itself depends on the parameters, its own gradient is to be added. A baseline b that does not
    depend on the draw leaves the mean as it is, because ``one_hot_i - p`` has mean zero. O(samples k).

    References
    ----------
    Williams (1992), Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning,
    theorem 1. Optimal baseline: Greensmith, Bartlett and Baxter (2004), Variance Reduction Techniques for Gradient
    Estimates in Reinforcement Learning, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from attn_guide import expected_reward_gradient, reinforce_gradient
    >>> logits, reward = [0.0, 1.0, 0.5], [1.0, 0.0, 2.0]
    >>> estimate = reinforce_gradient(logits, reward, samples=50_000, rng=np.random.default_rng(0), baseline="mean")
    >>> error = np.abs(estimate.gradient - expected_reward_gradient(logits, reward))
    >>> bool(np.all(error < 4 * estimate.standard_error))
    True
    """
    p, r = _policy(logits, reward)
    count = check_integer("samples", samples, least=2)
    drawn = check_rng("rng", rng).choice(p.size, size=count, p=p)
    drawn_reward = r[drawn]  # (samples,)
    score = np.eye(p.size)[drawn] - p  # (samples, k): gradient of log p_drawn
    advantage = drawn_reward - _baseline(baseline, p, r, drawn_reward)
    estimates = advantage[:, None] * score
    variance = estimates.var(axis=0, ddof=1)
    return ReinforceEstimate(estimates.mean(axis=0), np.sqrt(variance / count), variance)


def _baseline(baseline: str | float, p: np.ndarray, r: np.ndarray, drawn_reward: np.ndarray) -> np.ndarray | float:
    if not isinstance(baseline, str):
        return float(as_float_array("baseline", baseline))
    check_choice("baseline", baseline, ("none", "mean", "expected", "optimal"))
    if baseline == "mean":
        return (drawn_reward.sum() - drawn_reward) / (drawn_reward.size - 1)
    if baseline == "expected":
        return float(p @ r)
    if baseline == "optimal":
        squared = p * ((np.eye(p.size) - p) ** 2).sum(axis=1)  # p_i |grad log p_i|^2
        return float(squared @ r / squared.sum()) if squared.sum() > 0 else float(p @ r)
    return 0.0


# ------------------------------------------------------------------------------------------------ sparsemax, entmax


def sparsemax(x: Any, axis: int = -1, *, where: Any = None) -> np.ndarray:
    """Project scores onto the probability simplex: weights that sum to one, many of them exactly zero.

    Parameters
    ----------
    x : array_like
        Scores.
    axis : int, default -1
        Axis along which the weights sum to one.
    where : array_like of bool, optional
        True for scores that take part; the others get weight 0.

    Returns
    -------
    ndarray
        Weights, of the shape and dtype of ``x``; 0 throughout where nothing takes part.

    Raises
    ------
    TypeError
        If ``x`` is not of real numbers.

    Notes
    -----
    The weights are ``max(x - tau, 0)`` with the one tau for which they sum to one. Sorting finds it exactly:
    O(m log m) for m scores.

    References
    ----------
    Martins and Astudillo (2016), From Softmax to Sparsemax, algorithm 1.

    Examples
    --------
    >>> from attn_guide import softmax, sparsemax
    >>> sparsemax([1.0, 0.5, -1.0])
    array([0.75, 0.25, 0.  ])
    >>> softmax([1.0, 0.5, -1.0])
    array([0.57409699, 0.34820743, 0.07769558])
    """
    z, out_dtype = _prepare(x, axis, where)
    ordered = -np.sort(-z, axis=-1)  # descending
    cumulated = np.cumsum(np.where(ordered > -np.inf, ordered, 0.0), axis=-1)
    rank = np.arange(1, z.shape[-1] + 1)
    support = np.sum(1.0 + rank * ordered > cumulated, axis=-1, keepdims=True)  # how many weights are above zero
    total = np.take_along_axis(cumulated, np.maximum(support - 1, 0), axis=-1) if z.shape[-1] else cumulated
    tau = (total - 1.0) / np.maximum(support, 1)
    return _finish(np.maximum(z - tau, 0.0), axis, out_dtype)


def _prepare(x: Any, axis: int, where: Any) -> tuple[np.ndarray, np.dtype]:
    """Return the scores with ``axis`` last and the largest at 0, forbidden ones at -inf; and the dtype to give back."""
    z = as_float_array("x", x)
    check_ndim("x", z, 1, "at least one dimension")
    out_dtype = z.dtype
    z = z.astype(compute_dtype(z), copy=False)
    if where is not None:
        z = np.where(where, z, -np.inf)
    z = np.moveaxis(z, axis, -1)
    top = z.max(axis=-1, keepdims=True, initial=-np.inf)
    return z - np.where(top == -np.inf, 0.0, top), out_dtype


def _finish(p: np.ndarray, axis: int, out_dtype: np.dtype) -> np.ndarray:
    """Make the sums one to the last digit, leave empty rows at zero, and put the axis back."""
    total = p.sum(axis=-1, keepdims=True)
    return np.moveaxis(np.divide(p, total, out=np.zeros_like(p), where=total > 0), -1, axis).astype(out_dtype)


def sparsemax_backward(grad: Any, weights: Any, axis: int = -1) -> np.ndarray:
    """Carry the gradient of a loss from sparsemax weights back to the scores.

    Parameters
    ----------
    grad : array_like
        Gradient with respect to the weights.
    weights : array_like
        What ``sparsemax`` gave.
    axis : int, default -1
        Its axis.

    Returns
    -------
    ndarray
        Gradient with respect to the scores: inside the support the gradient less its mean there, outside it 0.

    Notes
    -----
    O(m). The Jacobian is symmetric, so this is its product with ``grad`` from either side.

    References
    ----------
    Martins and Astudillo (2016), From Softmax to Sparsemax, equation 14.

    Examples
    --------
    >>> from attn_guide import sparsemax_backward
    >>> sparsemax_backward([1.0, 0.0, 5.0], [0.75, 0.25, 0.0])
    array([ 0.5, -0.5,  0. ])
    """
    return entmax_backward(grad, weights, 2.0, axis)


def entmax(x: Any, alpha: float = 1.5, axis: int = -1, *, where: Any = None) -> np.ndarray:
    """Map scores to weights with an adjustable taste for zeros: alpha = 1 is softmax, alpha = 2 sparsemax.

    Parameters
    ----------
    x : array_like
        Scores.
    alpha : float, default 1.5
        At least 1. The larger, the sparser.
    axis : int, default -1
        Axis along which the weights sum to one.
    where : array_like of bool, optional
        True for scores that take part; the others get weight 0.

    Returns
    -------
    ndarray
        Weights, of the shape and dtype of ``x``; 0 throughout where nothing takes part.

    Raises
    ------
    ValueError
        If ``alpha`` is below 1 or not finite.

    Notes
    -----
    The weights are ``max((alpha - 1) x - tau, 0) ** (1 / (alpha - 1))`` with the one tau for which they sum to one,
    found by halving an interval until no number lies between its ends: O(m) a step, about as many steps as the dtype
    has binary digits. They maximise ``p . x`` plus Tsallis's entropy of order alpha.

    References
    ----------
    Peters, Niculae and Martins (2019), Sparse Sequence-to-Sequence Models, equation 10 and algorithm 1.

    Examples
    --------
    >>> from attn_guide import entmax
    >>> entmax([1.0, 0.5, -1.0], alpha=1.5)
    array([0.67399264, 0.32600736, 0.        ])
    """
    order = check_positive("alpha", alpha)
    if order < 1.0:
        raise ValueError(f"alpha is {alpha!r}; wanted a finite number of at least 1")
    if order == 1.0:
        return softmax(x, axis, where=where)
    if order == 2.0:
        return sparsemax(x, axis, where=where)
    z, out_dtype = _prepare(x, axis, where)
    z = (order - 1.0) * z  # largest at 0
    power = 1.0 / (order - 1.0)
    # With tau = -1 the largest score alone has weight 1, so the sum is at least one; with the upper end every
    # weight is at most 1/m, so it is at most one.
    low = np.full((*z.shape[:-1], 1), -1.0, z.dtype)
    high = np.full_like(low, -(float(max(z.shape[-1], 1)) ** (1.0 - order)))
    while True:
        tau = (low + high) / 2
        if np.all((tau <= low) | (tau >= high)):  # no number lies between the two ends
            break
        enough = np.sum(np.maximum(z - tau, 0.0) ** power, axis=-1, keepdims=True) >= 1.0
        low, high = np.where(enough, tau, low), np.where(enough, high, tau)
    return _finish(np.maximum(z - low, 0.0) ** power, axis, out_dtype)


def entmax_backward(grad: Any, weights: Any, alpha: float = 1.5, axis: int = -1) -> np.ndarray:
    """Carry the gradient of a loss from entmax weights back to the scores.

    Parameters
    ----------
    grad : array_like
        Gradient with respect to the weights.
    weights : array_like
        What ``entmax`` gave.
    alpha : float, default 1.5
        The alpha they were made with.
    axis : int, default -1
        Their axis.

    Returns
    -------
    ndarray
        Gradient with respect to the scores; 0 outside the support.

    Raises
    ------
    ValueError
        If ``alpha`` is below 1 or the shapes differ.

    Notes
    -----
    With ``s = p ** (2 - alpha)`` on the support, the product is ``s (g - (s . g) / (s . 1))``: for alpha = 1 that of
    softmax, for alpha = 2 that of sparsemax. O(m).

    References
    ----------
    Peters, Niculae and Martins (2019), Sparse Sequence-to-Sequence Models, proposition 2.

    Examples
    --------
    >>> from attn_guide import entmax_backward
    >>> entmax_backward([1.0, 0.0], [0.5, 0.5], alpha=1.0)
    array([ 0.25, -0.25])
    """
    order = check_positive("alpha", alpha)
    if order < 1.0:
        raise ValueError(f"alpha is {alpha!r}; wanted a finite number of at least 1")
    g, p = as_float_array("grad", grad), as_float_array("weights", weights)
    if g.shape != p.shape:
        raise ValueError(f"grad has shape {g.shape}; wanted the shape of weights, {p.shape}")
    s = np.power(p, 2.0 - order, out=np.zeros_like(p), where=p > 0)
    total = s.sum(axis=axis, keepdims=True)
    mean = np.divide(np.sum(s * g, axis=axis, keepdims=True), total, out=np.zeros_like(total), where=total > 0)
    return s * (g - mean)
