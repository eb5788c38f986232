"""Attention on tensors: one call that finds the fastest kernel which is right for it, and says which it took.

Four backends compute the same thing. SDPA (``torch.nn.functional.scaled_dot_product_attention``) is PyTorch's fused
kernels; FlexAttention compiles a kernel for a pattern and skips its empty blocks; tiles skip them with one fused call
for each tile of queries and nothing to compile; the explicit path writes scores and weights out. ``explain`` takes the
arguments of a call and returns the choice with its reason.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attn_guide._checks import check_choice, check_probability, check_softcap
from attn_guide.masks import Mask, causal

from . import core, flex, tiles
from ._checks import check_attention_inputs, check_finite, check_mask, check_tensor, compute_dtype
from .core import MaskMod, ScoreMod

__all__ = ["Choice", "attention", "cross_attention", "explain", "scaled_dot_product_attention", "self_attention"]

BACKENDS = ("sdpa", "flex", "tiles", "explicit")

#: Score cells (n m) from which FlexAttention is chosen. Compiling a pattern takes about 20 s on a CPU and a few
#: seconds on a GPU, so shorter calls are answered by a kernel that exists already.
FLEX_CELLS = {"cpu": 4096 * 4096, "cuda": 1024 * 1024}
#: Score cells from which an empty block is worth looking for, and the share of blocks below which it was.
TILE_CELLS, TILE_SHARE = 512 * 512, 0.6


class Choice(NamedTuple):
    """The backend of a call, and why it was chosen.

    Parameters
    ----------
    backend : str
        "sdpa", "flex", "tiles" or "explicit".
    reason : str
        One sentence.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> q = torch.zeros(1, 2, 8, 4)
    >>> at.explain(q, q, q, mask_mod=at.causal)
    Choice(backend='sdpa', reason='the mask is what the is_causal flag says, so nothing is written out')
    """

    backend: str
    reason: str


_PLAIN = Choice("sdpa", "no mask: one fused kernel")
_CAUSAL = Choice("sdpa", "causal is a flag of the fused kernel, so no mask is written out")
_MASKED = Choice("sdpa", "the mask tensor goes to the fused kernel")
_COMBINED = Choice("sdpa", "the masks are combined into one tensor for the fused kernel")
_FLAG = Choice("sdpa", "the mask is what the is_causal flag says, so nothing is written out")
_ALL = Choice("sdpa", "the mask allows every pair, so none is needed")
_WRITTEN = Choice("sdpa", "the pattern is short: written out as booleans, it costs less than compiling a kernel for it")
_UNTILED = Choice("sdpa", "the pattern is written out as booleans: only a Mask, outside a compiled graph, is tiled")
_DENSE = Choice("sdpa", "the pattern leaves few blocks out, so it is written out as booleans for the fused kernel")
_TILES = Choice("tiles", "a sparse pattern: each tile of queries meets only the blocks of keys that it sees")
_FLEX = Choice("flex", "a long pattern: a compiled kernel skips its empty blocks")
_FLEX_SCORES = Choice("flex", "long scores with a score_mod or soft-cap: a compiled kernel never writes them out")
_WEIGHTS = Choice("explicit", "the weights are wanted, and no fused kernel keeps them")
_GENERATOR = Choice("explicit", "dropout with a generator of its own, which no fused kernel takes")
_SCORES = Choice("explicit", "score_mod or soft-cap on short scores: writing them out costs less than compiling")
_UNFLEXED_SCORES = Choice("explicit", "score_mod or soft-cap, where FlexAttention cannot serve this call")


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    softcap: float | None = None,
    generator: torch.Generator | None = None,
    return_weights: bool = False,
    backend: str | None = None,
) -> Any:
    """Mix the values by how well each query matches each key, with the fastest kernel that is right for the call.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n, d_k)
        What each of the n positions looks for.
    key : torch.Tensor, shape (..., h_kv, m, d_k)
        What each of the m positions offers to be found by.
    value : torch.Tensor, shape (..., h_kv, m, d_v)
        What each of the m positions hands over. All three share one dtype and device; leading dimensions broadcast.
    attn_mask : torch.Tensor, optional
        Broadcasts to (..., h, n, m). Booleans: True says "may attend". Floats are added to the scores.
    dropout_p : float
        Probability with which each weight is set to zero.
    is_causal : bool
        Query i sees the keys j <= i, aligned top-left. Unlike in PyTorch it combines with the other masks.
    scale : float, optional
        Multiplies the dot products; ``1 / sqrt(d_k)`` unless given.
    enable_gqa : bool
        Query head i reads key/value head ``i // (h // h_kv)``. Nothing is repeated in memory.
    mask_mod : Mask or callable, optional
        ``mask_mod(b, h, q_idx, kv_idx)`` says who may attend to whom; every ``Mask`` of the NumPy package is one.
    score_mod : callable, optional
        ``score_mod(score, b, h, q_idx, kv_idx)`` returns the score to use instead, elementwise.
    softcap : float, optional
        Replaces a score s by ``softcap * tanh(s / softcap)``, before ``score_mod``.
    generator : torch.Generator, optional
        Source of the dropout; torch's default generator unless given.
    return_weights : bool
        Also return the weights that multiplied the values, after dropout.
    backend : {"sdpa", "flex", "tiles", "explicit"}, optional
        Take this one, or raise if it cannot serve the call. ``explain`` says which is taken otherwise.

    Returns
    -------
    output : torch.Tensor, shape (..., h, n, d_v)
        In the dtype of the inputs. A query that may attend to nothing gets 0, and gradients of 0.
    weights : torch.Tensor, shape (..., h, n, m)
        Only if ``return_weights``.

    Raises
    ------
    TypeError
        If an argument is no tensor of real numbers, dtypes differ, or ``mask_mod`` does not return booleans.
    ValueError
        If shapes, devices or head counts do not fit, a mask on the CPU holds NaN or +inf, ``dropout_p`` is outside
        [0, 1], ``scale`` is not finite, ``softcap`` is not above 0, or ``backend`` cannot serve the call.

    See Also
    --------
    explain : Which backend a call takes, and why.

    Notes
    -----
    A causal mask is passed on as a flag and never written out, also where a ``Mask`` merely amounts to one. Other
    patterns skip their empty blocks: on a GPU with FlexAttention, where the scores are large enough to pay for
    compiling a kernel, and otherwise tile by tile. Short or nearly full ones become booleans for SDPA. FlexAttention
    does not serve float64, or gradients on the CPU.

    In a ``score_mod`` torch makes ``0.1 * q_idx`` a float32, also where the scores are float64.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, equation 1; Dao et al. (2022), FlashAttention; Dong et al.
    (2024), Flex Attention.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> q = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> at.scaled_dot_product_attention(q, 4 * q, torch.tensor([[1.0], [2.0]]), mask_mod=at.causal)
    tensor([[1.0000],
            [1.9442]])
    """
    shape = check_attention_inputs(query, key, value, enable_gqa)
    if dropout_p:
        check_probability("dropout_p", dropout_p)
    if scale is not None:
        check_finite("scale", scale)
    softcap = check_softcap(softcap, torch.finfo(compute_dtype(query)))
    if attn_mask is not None:
        attn_mask = check_mask("attn_mask", attn_mask, (*shape, query.shape[-2], key.shape[-2]))
    name, _ = _choose(
        query, key, value, attn_mask, dropout_p, is_causal, mask_mod, score_mod, softcap, generator, return_weights,
        backend, shape,
    )  # fmt: skip
    if name == "explicit":
        p = core.prepare(query, key, value, attn_mask, is_causal, scale, enable_gqa, mask_mod, score_mod, softcap)
        return core.attend(p, dropout_p, generator, return_weights)

    if name == "sdpa" and mask_mod is not None:
        said = flex.flag(mask_mod, query.shape[-2], key.shape[-2])
        if said is not None:
            is_causal, mask_mod = is_causal or said == "causal", None
    plain = _is_plain(query, key, value, enable_gqa)
    q, k, v = (query, key, value) if plain else _four(query, key, value, shape, enable_gqa)
    if name in ("flex", "tiles") and is_causal:
        mask_mod = causal if mask_mod is None else _both(mask_mod, causal)
    if name == "tiles" and isinstance(mask_mod, Mask):
        out = tiles.attend(q, k, v, mask_mod, dropout_p, scale, enable_gqa)
    elif name == "flex":
        out = flex.attend(
            q, k, v, scale=scale, enable_gqa=enable_gqa, mask_mod=mask_mod, score_mod=score_mod, softcap=softcap
        )
    else:
        mask = _tensor_mask(attn_mask, is_causal, mask_mod, q, k, shape)
        is_causal = is_causal and mask is None
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    return out if plain else out.reshape(*shape, *out.shape[-2:])


#: The short name of ``scaled_dot_product_attention``.
attention = scaled_dot_product_attention


def explain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    softcap: float | None = None,
    generator: torch.Generator | None = None,
    return_weights: bool = False,
    backend: str | None = None,
) -> Choice:
    """Return which backend ``scaled_dot_product_attention`` takes for these arguments, and why.

    Parameters
    ----------
    query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa : various
        As in ``scaled_dot_product_attention``.
    mask_mod, score_mod, softcap, generator, return_weights, backend : various
        As in ``scaled_dot_product_attention``.

    Returns
    -------
    Choice
        The very decision that the call makes; nothing is computed.

    Raises
    ------
    TypeError, ValueError
        As in ``scaled_dot_product_attention``.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> q = torch.zeros(1, 2, 8, 4)
    >>> at.explain(q, q, q, return_weights=True).reason
    'the weights are wanted, and no fused kernel keeps them'
    >>> long = torch.zeros(1, 1, 4096, 16)
    >>> at.explain(long, long, long, mask_mod=at.sliding_window(256, 0)).backend
    'tiles'
    """
    shape = check_attention_inputs(query, key, value, enable_gqa)
    softcap = check_softcap(softcap, torch.finfo(compute_dtype(query)))
    return _choose(
        query, key, value, attn_mask, dropout_p, is_causal, mask_mod, score_mod, softcap, generator, return_weights,
        backend, shape,
    )  # fmt: skip


def _choose(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    mask_mod: MaskMod | None,
    score_mod: ScoreMod | None,
    softcap: float | None,
    generator: torch.Generator | None,
    return_weights: bool,
    backend: str | None,
    shape: tuple[int, ...],
) -> Choice:
    scored = score_mod is not None or softcap is not None
    if backend is not None:
        return _forced(backend, query, key, value, attn_mask, dropout_p, mask_mod, scored, generator, return_weights)
    if return_weights:
        return _WEIGHTS
    if generator is not None and dropout_p:
        return _GENERATOR
    if not scored and mask_mod is None:
        return (_CAUSAL if is_causal else _PLAIN) if attn_mask is None else _COMBINED if is_causal else _MASKED
    n, m = query.shape[-2], key.shape[-2]
    if not scored and attn_mask is None and mask_mod is not None:
        said = flex.flag(mask_mod, n, m)
        if said is not None:
            return _FLAG if said == "causal" else _CAUSAL if is_causal else _ALL
    compiling = torch.compiler.is_compiling()
    able = n * m >= FLEX_CELLS.get(query.device.type, 1 << 62) and not (compiling and mask_mod is not None)
    obstacle = _flex_obstacle(query, key, value, attn_mask, dropout_p) if able else None
    if scored:
        return _SCORES if not able else _FLEX_SCORES if obstacle is None else _UNFLEXED_SCORES
    if able and obstacle is None and query.device.type == "cuda":
        return _FLEX
    if attn_mask is not None:
        return _COMBINED
    if n * m < TILE_CELLS:
        return _WRITTEN
    if compiling or not isinstance(mask_mod, Mask):
        return _UNTILED
    pattern = _intersection(mask_mod, causal) if is_causal else mask_mod
    b, h = prod(shape[:-1]), prod(shape[-1:])
    return _TILES if tiles.share(pattern, b, h, n, m, query.device) < TILE_SHARE else _DENSE


def _forced(
    backend: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    mask_mod: MaskMod | None,
    scored: bool,
    generator: torch.Generator | None,
    return_weights: bool,
) -> Choice:
    """Return the backend the caller asks for, or raise with what it lacks."""
    check_choice("backend", backend, BACKENDS)
    lacks = None
    if backend != "explicit" and return_weights:
        lacks = "return the weights"
    elif backend != "explicit" and generator is not None and dropout_p:
        lacks = "draw from a generator"
    elif backend == "sdpa" and scored:
        lacks = "take a score_mod or a softcap"
    elif backend == "tiles" and (scored or attn_mask is not None or not isinstance(mask_mod, Mask)):
        lacks = "do without a Mask, or take a mask tensor, a score_mod or a softcap"
    elif backend == "flex":
        lacks = _flex_obstacle(query, key, value, attn_mask, dropout_p)
    if lacks is not None:
        raise ValueError(f"backend is {backend!r}, which cannot {lacks}; wanted another, or None to let it be chosen")
    return Choice(backend, "the caller asked for it")


def _flex_obstacle(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float) -> str | None:
    """Return what FlexAttention cannot do that this call needs, or None."""
    if attn_mask is not None:
        return "take a mask tensor (pass a mask_mod, e.g. from_array)"
    if dropout_p:
        return "drop weights out"
    if query.dtype == torch.float64:
        return "compute in float64"
    if query.numel() == 0 or key.numel() == 0 or value.numel() == 0:
        return "compute with empty tensors"
    if query.device.type != "cuda":
        if query.device.type != "cpu":
            return f"run on {query.device.type}"
        if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
            return "give gradients on the CPU"
    return None


def _is_plain(query: Tensor, key: Tensor, value: Tensor, gqa: bool) -> bool:
    """Return whether all three are (b, h, length, width) as they stand."""
    if not query.dim() == key.dim() == value.dim() == 4:
        return False
    lead = 1 if gqa else 2
    return query.shape[:lead] == key.shape[:lead] == value.shape[:lead]


def _four(query: Tensor, key: Tensor, value: Tensor, shape: tuple[int, ...], gqa: bool) -> tuple[Tensor, ...]:
    """Return views with exactly the dimensions (b, h, length, width), which is what the fused kernels take."""
    batch = shape[:-1]
    out = []
    for x in (query, key, value):
        heads = (x.shape[-3],) if gqa else shape[-1:]
        x = x.expand(*(batch if shape else ()), *heads, *x.shape[-2:])
        out.append(x.reshape(prod(batch), prod(heads), *x.shape[-2:]))
    return tuple(out)


def _tensor_mask(
    attn_mask: Tensor | None, is_causal: bool, mask_mod: MaskMod | None, q: Tensor, k: Tensor, shape: tuple[int, ...]
) -> Tensor | None:
    """Return everything that hides keys as one tensor, or None where the is_causal flag says it all."""
    if attn_mask is None and mask_mod is None:
        return None
    n, m = q.shape[-2], k.shape[-2]
    mask = None
    if attn_mask is not None:
        mask = attn_mask if attn_mask.dtype in (torch.bool, q.dtype) else attn_mask.to(q.dtype)
        if mask.dim() > 2:  # (b, h, n, m), as q is
            mask = mask.reshape(*(1 for _ in range(len(shape) + 2 - mask.dim())), *mask.shape)
            if len(shape) == 1:
                mask = mask[None]
            elif len(shape) > 2:
                mask = mask.expand(*shape[:-1], *mask.shape[-3:]).flatten(0, len(shape) - 2)
    allowed = None
    if mask_mod is not None:
        allowed = flex.written(mask_mod, (q.shape[0], q.shape[1], n, m), q.device)
    if is_causal:
        triangle = flex.written(causal, (1, 1, n, m), q.device)
        allowed = triangle if allowed is None else allowed & triangle
    if mask is None or allowed is None:
        return allowed if mask is None else mask
    return mask & allowed if mask.dtype == torch.bool else mask.masked_fill(~allowed, -torch.inf)


def _both(one: MaskMod, two: Mask) -> MaskMod:
    if isinstance(one, Mask):
        return _intersection(one, two)
    return lambda b, h, q_idx, kv_idx: one(b, h, q_idx, kv_idx) & two(b, h, q_idx, kv_idx)


def _intersection(one: Mask, two: Mask) -> Mask:
    """Return ``one & two``, the same object for the same masks, so that its blocks are found again."""
    known = flex.facts(one)
    if two not in known.with_others:
        known.with_others[two] = one & two
    return known.with_others[two]


def self_attention(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, **options: Any) -> Any:
    """Attend within one sequence: queries, keys and values are three projections of ``x``.

    Parameters
    ----------
    x : torch.Tensor, shape (..., n, d_model)
        One vector per token.
    w_q, w_k : torch.Tensor, shape (d_model, d_k)
        Project to queries and keys.
    w_v : torch.Tensor, shape (d_model, d_v)
        Projects to values.
    **options
        Further arguments of ``scaled_dot_product_attention``.

    Returns
    -------
    output : torch.Tensor, shape (..., n, d_v)
        And the weights (..., n, n) with ``return_weights=True``.

    Raises
    ------
    TypeError, ValueError
        If a matrix does not fit, and as in ``scaled_dot_product_attention``.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.self_attention(torch.eye(2), torch.eye(2), torch.eye(2), torch.eye(2))
    tensor([[0.6698, 0.3302],
            [0.3302, 0.6698]])
    """
    return cross_attention(x, x, w_q, w_k, w_v, **options)


def cross_attention(x: Tensor, context: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, **options: Any) -> Any:
    """Attend from one sequence to another: queries come from ``x``, keys and values from ``context``.

    Parameters
    ----------
    x : torch.Tensor, shape (..., n, d_model)
        The sequence that asks.
    context : torch.Tensor, shape (..., m, d_context)
        The sequence that is read.
    w_q : torch.Tensor, shape (d_model, d_k)
        Projects ``x`` to queries.
    w_k : torch.Tensor, shape (d_context, d_k)
        Projects ``context`` to keys.
    w_v : torch.Tensor, shape (d_context, d_v)
        Projects ``context`` to values.
    **options
        Further arguments of ``scaled_dot_product_attention``.

    Returns
    -------
    output : torch.Tensor, shape (..., n, d_v)
        And the weights (..., n, m) with ``return_weights=True``.

    Raises
    ------
    TypeError, ValueError
        If a matrix does not fit its sequence, and as in ``scaled_dot_product_attention``.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.3.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.cross_attention(torch.ones(1, 2), torch.eye(2), torch.eye(2), torch.eye(2), torch.eye(2))
    tensor([[0.5000, 0.5000]])
    """
    q, k, v = (
        _project(*pair)
        for pair in (("x", x, "w_q", w_q), ("context", context, "w_k", w_k), ("context", context, "w_v", w_v))
    )
    return scaled_dot_product_attention(q, k, v, **options)


def _project(name: str, x: Tensor, weight_name: str, weight: Tensor) -> Tensor:
    a, w = check_tensor(name, x), check_tensor(weight_name, weight)
    if a.dim() < 2:
        raise ValueError(f"{name} has shape {tuple(a.shape)}; wanted (..., length, width)")
    if w.dim() != 2 or w.shape[0] != a.shape[-1]:
        raise ValueError(
            f"{weight_name} has shape {tuple(w.shape)}; wanted ({a.shape[-1]}, width)"
            f" for {name} of shape {tuple(a.shape)}"
        )
    return a @ w
