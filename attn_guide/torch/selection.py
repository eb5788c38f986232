"""Choosing instead of mixing: hard and top-k attention, Gumbel, straight-through, REINFORCE, sparsemax and entmax."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attn_guide._checks import check_choice, check_integer, check_positive

from . import core
from ._checks import check_attention_inputs, check_axis, check_generator, check_tensor, compute_dtype

__all__ = [
    "ReinforceEstimate",
    "entmax",
    "expected_reward_gradient",
    "gumbel_noise",
    "gumbel_softmax",
    "hard_attention",
    "reinforce_gradient",
    "reinforce_loss",
    "sparsemax",
    "straight_through",
    "top_k_attention",
]


def hard_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    choose: str = "sample",
    scale: float | None = None,
    generator: torch.Generator | None = None,
    differentiable: bool = False,
    return_weights: bool = False,
) -> Any:
    """Let each query read exactly one value.

    Parameters
    ----------
    query : torch.Tensor, shape (..., n, d_k)
    key : torch.Tensor, shape (..., m, d_k)
    value : torch.Tensor, shape (..., m, d_v)
    attn_mask : torch.Tensor, optional
        Broadcasts to (..., n, m): True where a query may attend, or numbers to add to the scores.
    choose : {"sample", "argmax"}, default "sample"
        Draw the key with the softmax weights as probabilities, or take the first of the largest.
    scale : float, optional
        1 / sqrt(d_k) unless given.
    generator : torch.Generator, optional
        Source of the draws; required by ``choose="sample"``.
    differentiable : bool, default False
        Give the scores the straight-through gradient: that of the softmax weights. Else only the values get one,
        and the scores are for ``reinforce_loss`` to train.
    return_weights : bool, default False
        Return the choices as well.

    Returns
    -------
    output : torch.Tensor, shape (..., n, d_v)
        The value chosen by each query; 0 where a query may attend to nothing.
    choice : torch.Tensor, shape (..., n, m)
        One-hot rows, only with ``return_weights``.

    Raises
    ------
    TypeError, ValueError
        If ``choose="sample"`` comes without a Generator, shapes do not fit or ``choose`` is unknown.

    References
    ----------
    Xu et al. (2015), Show, Attend and Tell: Neural Image Caption Generation with Visual Attention, section 4.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> value = torch.tensor([[10.0], [20.0], [30.0]])
    >>> at.hard_attention(torch.ones(1, 1), torch.tensor([[0.0], [2.0], [1.0]]), value, choose="argmax")
    tensor([[20.]])
    """
    check_choice("choose", choose, ("sample", "argmax"))
    check_attention_inputs(query, key, value)
    compute = compute_dtype(query)
    scores = core.attention_scores(query.to(compute), key.to(compute), attn_mask, scale=scale)  # (..., n, m)
    noisy = scores
    if choose == "sample":
        check_generator("generator", generator)
        noisy = scores + gumbel_noise(tuple(scores.shape), generator, dtype=compute)
    choice = _one_hot(_argmax(noisy), scores) * (scores > -torch.inf).any(dim=-1, keepdim=True)
    if differentiable:
        choice = _StraightThrough.apply(core.softmax(scores), choice)
    output = (choice @ value.to(compute)).to(query.dtype)
    return (output, choice.to(query.dtype)) if return_weights else output


def top_k_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    k: int,
    attn_mask: Tensor | None = None,
    *,
    scale: float | None = None,
    return_weights: bool = False,
) -> Any:
    """Let each query attend to its k best keys and to no other.

    Parameters
    ----------
    query : torch.Tensor, shape (..., n, d_k)
    key : torch.Tensor, shape (..., m, d_k)
    value : torch.Tensor, shape (..., m, d_v)
    k : int
        How many keys a query keeps; of equal scores at the border the first ones.
    attn_mask : torch.Tensor, optional
        Broadcasts to (..., n, m).
    scale : float, optional
        1 / sqrt(d_k) unless given.
    return_weights : bool, default False
        Return the weights as well.

    Returns
    -------
    output : torch.Tensor, shape (..., n, d_v)
    weights : torch.Tensor, shape (..., n, m)
        Only with ``return_weights``; entries of keys not kept are exactly 0.

    Raises
    ------
    TypeError, ValueError
        If ``k`` is below 1 or shapes do not fit.

    References
    ----------
    Zhao et al. (2019), Explicit Sparse Transformer: Concentrated Attention Through Explicit Selection, equation 4.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> keys, values = torch.tensor([[0.0], [2.0], [1.0]]), torch.tensor([[10.0], [20.0], [30.0]])
    >>> at.top_k_attention(torch.ones(1, 1), keys, values, 2, return_weights=True)[1]
    tensor([[0.0000, 0.7311, 0.2689]])
    """
    check_attention_inputs(query, key, value)
    kept = check_integer("k", k, least=1)
    compute = compute_dtype(query)
    scores = core.attention_scores(query.to(compute), key.to(compute), attn_mask, scale=scale)
    order = torch.argsort(scores, dim=-1, descending=True, stable=True)[..., :kept]
    allowed = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, True)
    weights = core.softmax(scores, where=allowed)
    output = (weights @ value.to(compute)).to(query.dtype)
    return (output, weights.to(query.dtype)) if return_weights else output


# ------------------------------------------------------------------------------------------------ Gumbel


def gumbel_noise(
    shape: tuple[int, ...], generator: torch.Generator | None, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw standard Gumbel noise, ``-log(e)`` of an exponential e.

    Parameters
    ----------
    shape : tuple of int
        Shape of the noise.
    generator : torch.Generator
        Source of the draws; the noise is on its device.
    dtype : torch.dtype, optional
        torch's default unless given.

    Returns
    -------
    torch.Tensor

    Raises
    ------
    TypeError
        If ``generator`` is not a torch Generator.

    References
    ----------
    Maddison, Tarlow and Minka (2014), A* Sampling, section 2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> noise = at.gumbel_noise((100_000,), torch.Generator().manual_seed(0))
    >>> bool(abs(noise.mean() - 0.5772) < 0.02)
    True
    """
    source = check_generator("generator", generator)
    draws = torch.empty(shape, dtype=dtype or torch.get_default_dtype(), device=source.device)
    return -draws.exponential_(generator=source).log()


def gumbel_softmax(
    logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None, axis: int = -1
) -> Tensor:
    """Draw a relaxed one-hot vector, ``softmax((logits + Gumbel noise) / temperature)``; gradients reach the logits.

    Parameters
    ----------
    logits : torch.Tensor, shape (..., k)
        Unnormalised log-probabilities; -inf for an entry that may not be drawn.
    temperature : float, default 1.0
        Towards 0 the draws become one-hot and their gradients wild.
    generator : torch.Generator
        Source of the noise; required.
    axis : int, default -1
        The axis of the choices.

    Returns
    -------
    torch.Tensor
        Of the shape and dtype of ``logits``.

    Raises
    ------
    TypeError, ValueError
        If ``generator`` is not a Generator or ``temperature`` is not above zero.

    References
    ----------
    Jang, Gu and Poole (2016), Categorical Reparameterization with Gumbel-Softmax, equation 2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> draw = at.gumbel_softmax(torch.zeros(4), temperature=0.1, generator=torch.Generator().manual_seed(0))
    >>> draw.sum()
    tensor(1.)
    """
    compute = compute_dtype(check_tensor("logits", logits))
    noise = gumbel_noise(tuple(logits.shape), generator, dtype=compute)
    return core.softmax(logits.to(compute) + noise, axis, temperature=temperature).to(logits.dtype)


class _StraightThrough(torch.autograd.Function):
    """Forward the choice, backward as if it had been the soft weights."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, choice: Tensor) -> Tensor:
        return choice.to(soft.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def straight_through(soft: Tensor) -> Tensor:
    """Round a soft choice to the one-hot vector of its largest entry, and pass gradients as if it had not been.

    Parameters
    ----------
    soft : torch.Tensor, shape (..., k)
        Weights, or a draw of ``gumbel_softmax``.

    Returns
    -------
    torch.Tensor, shape (..., k)
        One-hot, the first of equals. Its gradient goes to ``soft`` unchanged.

    Raises
    ------
    TypeError, ValueError
        If ``soft`` is no tensor of real numbers or has no choices.

    References
    ----------
    Bengio, Léonard and Courville (2013), Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation, section 4.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.straight_through(torch.tensor([0.2, 0.5, 0.3]))
    tensor([0., 1., 0.])
    """
    if check_tensor("soft", soft).dim() < 1:
        raise ValueError(f"soft has shape {tuple(soft.shape)}; wanted (..., k)")
    return _StraightThrough.apply(soft, _one_hot(_argmax(soft.detach()), soft))


def _one_hot(index: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter(-1, index[..., None], 1.0)


def _argmax(x: Tensor) -> Tensor:
    """Return the index of the largest entry, the first of equals (``torch.argmax`` promises no order)."""
    if x.shape[-1] == 0:
        raise ValueError(f"key has length 0 (scores of shape {tuple(x.shape)}); wanted at least one key to choose")
    return (x == x.amax(dim=-1, keepdim=True)).to(torch.int8).argsort(dim=-1, descending=True, stable=True)[..., 0]


# ------------------------------------------------------------------------------------------------ REINFORCE


class ReinforceEstimate(NamedTuple):
    """What ``reinforce_gradient`` measured.

    Parameters
    ----------
    gradient : torch.Tensor, shape (k,)
        Mean of the single-draw estimates.
    standard_error : torch.Tensor, shape (k,)
        Its standard error.
    variance : torch.Tensor, shape (k,)
        Variance of one single-draw estimate.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> options = {"samples": 4, "baseline": "expected", "generator": torch.Generator().manual_seed(0)}
    >>> at.reinforce_gradient(torch.zeros(2), torch.tensor([1.0, 3.0]), **options).gradient
    tensor([-0.5000,  0.5000])
    """

    gradient: Tensor
    standard_error: Tensor
    variance: Tensor


def expected_reward_gradient(logits: Tensor, reward: Tensor) -> Tensor:
    """Return the exact gradient of the expected reward, by enumerating the choices.

    Parameters
    ----------
    logits : torch.Tensor, shape (k,)
    reward : torch.Tensor, shape (k,)

    Returns
    -------
    torch.Tensor, shape (k,)
        ``p (reward - sum_i p_i reward_i)``.

    Raises
    ------
    TypeError, ValueError
        If the two shapes differ.

    References
    ----------
    Williams (1992), Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.expected_reward_gradient(torch.zeros(2), torch.tensor([1.0, 3.0]))
    tensor([-0.5000,  0.5000])
    """
    p = _policy(logits, reward)
    return p * (reward - p @ reward)


def reinforce_loss(logits: Tensor, choice: Tensor, reward: Tensor, *, baseline: str | float = "none") -> Tensor:
    """Return a loss whose gradient is the score-function estimate of minus the gradient of the expected reward.

    Parameters
    ----------
    logits : torch.Tensor, shape (..., k)
        Unnormalised log-probabilities, such as attention scores.
    choice : torch.Tensor of int, shape (...)
        The choice that was drawn for each row.
    reward : torch.Tensor, shape (...)
        The reward of each row; it is not differentiated.
    baseline : {"none", "mean"} or float, default "none"
        Subtracted from the reward: nothing, the mean reward of the *other* rows, or a number of yours.

    Returns
    -------
    torch.Tensor, shape ()
        The mean of ``-(reward - baseline) * log p(choice)``. Minimise it to raise the reward.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, ``baseline`` is unknown, or it is "mean" with fewer than two rows.

    Notes
    -----
    Only its gradient means something, its value does not. Where the reward depends on parameters of its own, add its
    gradient: that is the reward itself, minimised or maximised as usual.

    References
    ----------
    Williams (1992), Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning,
    theorem 1; Xu et al. (2015), Show, Attend and Tell, equation 12.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> logits = torch.zeros(2, requires_grad=True)
    >>> at.reinforce_loss(logits, torch.tensor(1), torch.tensor(3.0)).backward()
    >>> logits.grad
    tensor([ 1.5000, -1.5000])
    """
    log_p = torch.log_softmax(check_tensor("logits", logits), dim=-1)
    if choice.shape != logits.shape[:-1] or reward.shape != logits.shape[:-1]:
        raise ValueError(
            f"choice has shape {tuple(choice.shape)} and reward {tuple(reward.shape)};"
            f" wanted that of logits without its last, {tuple(logits.shape[:-1])}"
        )
    chosen = log_p.gather(-1, choice[..., None])[..., 0]
    reward = reward.detach()
    if isinstance(baseline, str):
        check_choice("baseline", baseline, ("none", "mean"))
        if baseline == "mean":
            if reward.numel() < 2:
                raise ValueError("baseline is 'mean' and there is one reward; wanted at least two")
            reward = reward - (reward.sum() - reward) / (reward.numel() - 1)
    else:
        reward = reward - baseline
    return -(reward * chosen).mean()


def reinforce_gradient(
    logits: Tensor, reward: Tensor, *, samples: int, generator: torch.Generator, baseline: str | float = "none"
) -> ReinforceEstimate:
    """Estimate the gradient of the expected reward from draws alone (the score-function estimator).

    Parameters
    ----------
    logits : torch.Tensor, shape (k,)
    reward : torch.Tensor, shape (k,)
        Reward of each choice; only those of drawn choices are used, and by "expected" for its baseline.
    samples : int
        Number of draws, at least 2.
    generator : torch.Generator
        Source of the draws.
    baseline : {"none", "mean", "expected"} or float, default "none"
        Subtracted from the reward: nothing, the mean reward of the other draws, the expected reward, or a constant.

    Returns
    -------
    ReinforceEstimate

    Raises
    ------
    TypeError, ValueError
        If shapes differ, ``samples`` is below 2 or ``baseline`` is unknown.

    References
    ----------
    Williams (1992), Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning,
    theorem 1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> logits, reward = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([1.0, 0.0, 2.0])
    >>> g = torch.Generator().manual_seed(0)
    >>> estimate = at.reinforce_gradient(logits, reward, samples=50_000, generator=g, baseline="mean")
    >>> error = (estimate.gradient - at.expected_reward_gradient(logits, reward)).abs()
    >>> bool((error < 4 * estimate.standard_error).all())
    True
    """
    p = _policy(logits, reward)
    count = check_integer("samples", samples, least=2)
    drawn = torch.multinomial(p, count, replacement=True, generator=check_generator("generator", generator))
    got = reward[drawn]
    if not isinstance(baseline, str):
        got = got - float(baseline)
    elif check_choice("baseline", baseline, ("none", "mean", "expected")) == "mean":
        got = got - (got.sum() - got) / (count - 1)
    elif baseline == "expected":
        got = got - p @ reward
    estimates = got[:, None] * (torch.eye(len(p), dtype=p.dtype, device=p.device)[drawn] - p)
    variance = estimates.var(dim=0)
    return ReinforceEstimate(estimates.mean(dim=0), (variance / count).sqrt(), variance)


def _policy(logits: Tensor, reward: Tensor) -> Tensor:
    if check_tensor("logits", logits).dim() != 1 or logits.numel() == 0:
        raise ValueError(f"logits has shape {tuple(logits.shape)}; wanted (k,) with k of at least 1")
    if check_tensor("reward", reward).shape != logits.shape:
        raise ValueError(f"reward has shape {tuple(reward.shape)}; wanted the shape of logits, {tuple(logits.shape)}")
    return torch.softmax(logits, dim=0)


# ------------------------------------------------------------------------------------------------ sparsemax, entmax


class _Entmax(torch.autograd.Function):
    """Weights ``max((alpha - 1) z - tau, 0) ** (1 / (alpha - 1))`` along the last axis, and their gradient."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, alpha: float) -> Tensor:
        top = z.amax(dim=-1, keepdim=True)
        z = z - torch.where(top == -torch.inf, 0.0, top)  # largest at 0
        p = _sparsemax(z) if alpha == 2.0 else _bisect(z, alpha)
        total = p.sum(dim=-1, keepdim=True)
        p = p / torch.where(total > 0, total, 1.0)
        ctx.alpha = alpha
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        inside = p > 0
        s = torch.where(inside, torch.where(inside, p, 1.0) ** (2.0 - ctx.alpha), 0.0)
        total = s.sum(dim=-1, keepdim=True)
        mean = (s * grad).sum(dim=-1, keepdim=True) / torch.where(total > 0, total, 1.0)
        return s * (grad - mean), None


def _sparsemax(z: Tensor) -> Tensor:
    ordered = z.sort(dim=-1, descending=True).values
    summed = torch.where(ordered > -torch.inf, ordered, 0.0).cumsum(dim=-1)
    rank = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    support = (1.0 + rank * ordered > summed).sum(dim=-1, keepdim=True).clamp_min(1)  # how many are above zero
    tau = (summed.gather(-1, support - 1) - 1.0) / support
    return (z - tau).clamp_min(0.0)


def _bisect(z: Tensor, alpha: float) -> Tensor:
    z, power = (alpha - 1.0) * z, 1.0 / (alpha - 1.0)
    low = torch.full_like(z[..., :1], -1.0)  # the largest score alone has weight 1 here
    high = torch.full_like(low, -(float(z.shape[-1]) ** (1.0 - alpha)))  # and every weight is at most 1 / m here
    for _ in range(64 if z.dtype == torch.float64 else 32):  # the interval is at most 1 long: past the last digit
        tau = (low + high) / 2
        enough = ((z - tau).clamp_min(0.0) ** power).sum(dim=-1, keepdim=True) >= 1.0
        low, high = torch.where(enough, tau, low), torch.where(enough, high, tau)
    return (z - low).clamp_min(0.0) ** power


def sparsemax(x: Tensor, axis: int = -1, *, where: Tensor | None = None) -> Tensor:
    """Project scores onto the probability simplex: weights that sum to one, many of them exactly zero.

    Parameters
    ----------
    x : torch.Tensor
        Scores.
    axis : int, default -1
        Axis along which the weights sum to one.
    where : torch.Tensor of bool, optional
        True for scores that take part.

    Returns
    -------
    torch.Tensor
        Weights, of the shape and dtype of ``x``; 0 throughout where nothing takes part.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is not of real numbers, or ``axis`` or ``where`` does not fit.

    Notes
    -----
    O(m log m) forward, O(m) backward.

    References
    ----------
    Martins and Astudillo (2016), From Softmax to Sparsemax, algorithm 1 and equation 14.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.sparsemax(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.7500, 0.2500, 0.0000])
    """
    return entmax(x, 2.0, axis, where=where)


def entmax(x: Tensor, alpha: float = 1.5, axis: int = -1, *, where: Tensor | None = None) -> Tensor:
    """Map scores to weights with an adjustable taste for zeros: alpha = 1 is softmax, alpha = 2 sparsemax.

    Parameters
    ----------
    x : torch.Tensor
        Scores.
    alpha : float, default 1.5
        At least 1. The larger, the sparser.
    axis : int, default -1
        Axis along which the weights sum to one.
    where : torch.Tensor of bool, optional
        True for scores that take part.

    Returns
    -------
    torch.Tensor
        Weights, of the shape and dtype of ``x``; 0 throughout where nothing takes part.

    Raises
    ------
    TypeError, ValueError
        If ``alpha`` is below 1 or not finite, ``x`` is not of real numbers, or ``axis`` or ``where`` does not fit.

    Notes
    -----
    With ``s = p ** (2 - alpha)`` on the support, the gradient is ``s (g - (s . g) / (s . 1))``.

    References
    ----------
    Peters, Niculae and Martins (2019), Sparse Sequence-to-Sequence Models, equation 10, algorithm 1, proposition 2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.entmax(torch.tensor([1.0, 0.5, -1.0]), alpha=1.5)
    tensor([0.6740, 0.3260, 0.0000])
    """
    order = check_positive("alpha", alpha)
    if order < 1.0:
        raise ValueError(f"alpha is {alpha!r}; wanted a finite number of at least 1")
    if order == 1.0:
        return core.softmax(x, axis, where=where)
    check_axis("axis", axis, check_tensor("x", x))
    z = core._scores_to_weigh(x, axis, where).movedim(axis, -1)
    if z.shape[-1] == 0:
        return x
    return _Entmax.apply(z, order).movedim(-1, axis).to(x.dtype)
