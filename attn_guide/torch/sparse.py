"""Sparse patterns by name. Each is a mask handed to ``scaled_dot_product_attention``, which skips its empty blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attn_guide import masks
from attn_guide._checks import check_integer
from attn_guide.masks import Mask

from ._checks import check_tensor
from .core import MaskMod
from .dispatch import scaled_dot_product_attention

__all__ = ["bigbird_attention", "block_sparse_attention", "longformer_attention", "sliding_window_attention"]


def _same(make: Callable[..., Mask], *args: Any) -> Mask:
    """Return ``make(*args)``, the same object for the same arguments, so that its blocks are found again."""
    return make(*args) if torch.compiler.is_compiling() else _kept(make, *args)


@lru_cache(maxsize=64)
def _kept(make: Callable[..., Mask], *args: Any) -> Mask:
    return make(*args)


def _dilated_longformer(window: int, indices: tuple[int, ...], dilation: int) -> Mask:
    return masks.longformer(window, indices, dilation=dilation)


def sliding_window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    left: int,
    right: int,
    *,
    dilation: int = 1,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
) -> Tensor:
    """Attend to the neighbourhood: query i sees the keys i - left ... i + right.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n, d_k)
    key : torch.Tensor, shape (..., h_kv, m, d_k)
    value : torch.Tensor, shape (..., h_kv, m, d_v)
        Leading dimensions broadcast.
    left, right : int
        Keys seen before and after the query's own position.
    dilation : int, default 1
        Distance between neighbouring keys of the window.
    scale, enable_gqa, softcap : various
        As in ``scaled_dot_product_attention``.

    Returns
    -------
    torch.Tensor, shape (..., h, n, d_v)

    Raises
    ------
    ValueError, TypeError
        If a window is negative, and as in ``scaled_dot_product_attention``.

    Notes
    -----
    Time O(h n (left + right + block) (d_k + d_v)) for long sequences.

    References
    ----------
    Beltagy, Peters and Cohan (2020), Longformer: The Long-Document Transformer, section 3.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> x = torch.eye(3)
    >>> at.sliding_window_attention(torch.zeros(3, 3), x, x, 1, 0)
    tensor([[1.0000, 0.0000, 0.0000],
            [0.5000, 0.5000, 0.0000],
            [0.0000, 0.5000, 0.5000]])
    """
    window, args = (masks.sliding_window, ()) if dilation == 1 else (masks.dilated_window, (dilation,))
    mask = _same(window, left, right, *args)
    return scaled_dot_product_attention(
        query, key, value, scale=scale, enable_gqa=enable_gqa, mask_mod=mask, softcap=softcap
    )


def longformer_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int,
    global_indices: int | Iterable[int] = (),
    *,
    dilation: int = 1,
    global_query: Tensor | None = None,
    global_key: Tensor | None = None,
    global_value: Tensor | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
) -> Tensor:
    """Attend within a window, and let a few global tokens see everything and be seen by everything.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n, d_k)
    key : torch.Tensor, shape (..., h_kv, n, d_k)
    value : torch.Tensor, shape (..., h_kv, n, d_v)
        Leading dimensions broadcast.
    window : int
        The paper's w, an even number: w / 2 keys on each side.
    global_indices : int or iterable of int, default ()
        Positions of the global tokens.
    dilation : int, default 1
        Distance between neighbouring keys of the window.
    global_query, global_key, global_value : torch.Tensor, optional
        Projections of their own for the rows of the global tokens, in the shapes of query, key and value.
    scale, enable_gqa, softcap : various
        As in ``scaled_dot_product_attention``.

    Returns
    -------
    torch.Tensor, shape (..., h, n, d_v)

    Raises
    ------
    ValueError, TypeError
        If query and key differ in length, ``window`` is odd or negative, or a global index is outside the sequence.

    References
    ----------
    Beltagy, Peters and Cohan (2020), Longformer: The Long-Document Transformer, section 3.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> x = torch.eye(4)
    >>> at.longformer_attention(torch.zeros(4, 4), x, x, 2, [0])[3]
    tensor([0.3333, 0.0000, 0.3333, 0.3333])
    """
    n = _one_length(query, key)
    listed = [global_indices] if isinstance(global_indices, int) else list(global_indices)
    chosen = sorted({check_integer("global_indices", index) for index in listed})
    if chosen and chosen[-1] >= n:
        raise ValueError(f"global_indices holds {chosen[-1]}; wanted positions 0 ... {n - 1}")
    options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa, "softcap": softcap}
    mask = _same(_dilated_longformer, window, tuple(chosen), dilation)
    out = scaled_dot_product_attention(query, key, value, mask_mod=mask, **options)
    given = (
        ("global_query", global_query, query),
        ("global_key", global_key, key),
        ("global_value", global_value, value),
    )
    if not chosen or all(own is None for _, own, _ in given):
        return out
    for name, own, local in given:
        if own is not None and (own.shape != local.shape or own.dtype != local.dtype):
            raise ValueError(
                f"{name} has shape {tuple(own.shape)} and dtype {own.dtype}; wanted {tuple(local.shape)} and"
                f" {local.dtype}, those of the local projection"
            )
    q, k, v = (local if own is None else own for _, own, local in given)
    index = torch.tensor(chosen, device=query.device)
    rows = scaled_dot_product_attention(q.index_select(-2, index), k, v, **options)
    return out.index_copy(-2, index, rows)


def block_sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_mask: Tensor | Mask,
    block: int,
    *,
    is_causal: bool = False,
    mask_mod: MaskMod | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
) -> Tensor:
    """Attend only where a pattern of whole blocks says so.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n, d_k)
    key : torch.Tensor, shape (..., h_kv, m, d_k)
    value : torch.Tensor, shape (..., h_kv, m, d_v)
        Leading dimensions broadcast.
    block_mask : torch.Tensor of bool (ceil(n / block), ceil(m / block)), or Mask
        True where a block of queries attends to a block of keys. A ``Mask`` is read in block indices.
    block : int
        Length of a block; the last one may be shorter.
    is_causal : bool, default False
        Also forbid keys after the query.
    mask_mod : Mask, optional
        A predicate on positions that must hold too.
    scale, enable_gqa, softcap : various
        As in ``scaled_dot_product_attention``.

    Returns
    -------
    torch.Tensor, shape (..., h, n, d_v)

    Raises
    ------
    ValueError, TypeError
        If the pattern does not have the blocks of the sequence, and as in ``scaled_dot_product_attention``.

    References
    ----------
    Child et al. (2019), Generating Long Sequences with Sparse Transformers, section 5.5.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> x = torch.eye(4)
    >>> at.block_sparse_attention(torch.zeros(4, 4), x, x, at.causal, 2)[0]
    tensor([0.5000, 0.5000, 0.0000, 0.0000])
    """
    block = check_integer("block", block, least=1)
    if isinstance(block_mask, Mask):
        pattern = _same(masks.blockwise, block_mask, block)
    else:
        wanted = tuple(-(-x.shape[-2] // block) for x in (query, key))
        if tuple(block_mask.shape) != wanted:
            raise ValueError(f"block_mask has shape {tuple(block_mask.shape)}; wanted {wanted}, one cell per block")
        pattern = masks.blockwise(masks.from_array(block_mask.cpu().numpy()), block)
    if mask_mod is not None:
        pattern = pattern & (mask_mod if isinstance(mask_mod, Mask) else Mask(mask_mod))
    return scaled_dot_product_attention(
        query, key, value, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa, mask_mod=pattern, softcap=softcap
    )


def bigbird_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block: int,
    *,
    window_blocks: int = 3,
    global_blocks: int = 2,
    random_blocks: int | np.ndarray = 3,
    rng: np.random.Generator | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
) -> Tensor:
    """Attend to a window of blocks, to global blocks and to random blocks.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n, d_k)
    key : torch.Tensor, shape (..., h_kv, n, d_k)
    value : torch.Tensor, shape (..., h_kv, n, d_v)
        Leading dimensions broadcast; n is a multiple of ``block``.
    block : int
        Length of a block.
    window_blocks, global_blocks : int
        As in ``bigbird``.
    random_blocks : int or numpy.ndarray of int (n / block, r), default 3
        Blocks drawn for each block of queries, or the drawn table. Draw it once, with ``bigbird_random_blocks``, and
        make the mask once, with ``bigbird``, where speed matters: a new draw is a new pattern.
    rng : numpy.random.Generator, optional
        Source of the draws. The pattern is drawn on the host, by the code that the NumPy reference draws with.
    scale, enable_gqa, softcap : various
        As in ``scaled_dot_product_attention``.

    Returns
    -------
    torch.Tensor, shape (..., h, n, d_v)

    Raises
    ------
    ValueError, TypeError
        As in ``bigbird`` and ``scaled_dot_product_attention``.

    References
    ----------
    Zaheer et al. (2020), Big Bird: Transformers for Longer Sequences, section 2 and appendix D.

    Examples
    --------
    >>> import numpy as np, torch, attn_guide.torch as at
    >>> x = torch.eye(8)
    >>> out = at.bigbird_attention(torch.zeros(8, 8), x, x, 1, random_blocks=1, rng=np.random.default_rng(0))
    >>> (out > 0).sum(dim=-1)
    tensor([8, 5, 6, 6, 6, 6, 5, 8])
    """
    pattern = masks.bigbird(
        _one_length(query, key),
        block,
        window_blocks=window_blocks,
        global_blocks=global_blocks,
        random_blocks=random_blocks,
        rng=rng,
    )
    return scaled_dot_product_attention(
        query, key, value, scale=scale, enable_gqa=enable_gqa, mask_mod=pattern, softcap=softcap
    )


def _one_length(query: Tensor, key: Tensor) -> int:
    """Return n, the one length of a pattern in which the same tokens are queries and keys."""
    n, m = check_tensor("query", query).shape[-2], check_tensor("key", key).shape[-2]
    if n != m:
        raise ValueError(f"key has length {m}; wanted the length of query, {n}: the pattern is of one sequence")
    return n
