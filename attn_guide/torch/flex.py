"""Masks on their way to a kernel: what they depend on, whether a flag says the same, and their blocks.

FlexAttention skips the blocks of a pattern that hold nothing and looks no closer at those that are full. Which they
are is found here a row of blocks at a time, so that a mask for a long sequence is never written out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from attn_guide._checks import check_integer
from attn_guide.masks import Mask, causal, full

from .core import MaskMod, ScoreMod, _visible

__all__ = ["block_mask"]

#: Cells of a mask that are evaluated at once.
_CELLS = 1 << 22
#: Bytes of written-out masks that are kept for the next call.
_KEPT_BYTES = 1 << 26


class _TouchedError(Exception):
    """Somebody computed with an index that was to be left alone."""


class _Untouched:
    """An index that tells on whoever computes with it."""

    def _tell(self, *_: Any) -> Any:
        raise _TouchedError

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = _tell
    __mod__ = __rmod__ = __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __getitem__ = _tell
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __index__ = __len__ = __neg__ = _tell
    __hash__ = object.__hash__
    __array_ufunc__ = None  # NumPy leaves its operators to ours


class _Facts:
    """What is known about a mask, found out once."""

    def __init__(self, mask: MaskMod) -> None:
        self.uses_b = _uses(mask, 0)
        self.uses_h = _uses(mask, 1)
        self.flags: dict[tuple[int, int], str | None] = {}
        self.blocks: OrderedDict[tuple[Any, ...], BlockMask] = OrderedDict()
        self.written: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()
        self.tiles: OrderedDict[tuple[Any, ...], list[Any]] = OrderedDict()
        self.with_others: WeakKeyDictionary[Mask, Mask] = WeakKeyDictionary()


_FACTS: WeakKeyDictionary[Mask, _Facts] = WeakKeyDictionary()


def facts(mask: MaskMod) -> _Facts:
    """Return what is known about a mask; only a ``Mask`` is remembered, since a function may change its mind."""
    if not isinstance(mask, Mask):
        return _Facts(mask)
    known = _FACTS.get(mask)
    if known is None:
        known = _FACTS[mask] = _Facts(mask)
    return known


def _uses(mask: MaskMod, position: int) -> bool:
    """Return whether a predicate looks at the batch item (position 0) or the head (1)."""
    index: list[Any] = [0, 0, torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)]
    index[position] = _Untouched()
    try:
        mask(*index)
    except Exception:  # whatever a function makes of a stranger, it has looked
        return True
    return False


def flag(mask: MaskMod, n: int, m: int) -> str | None:
    """Return "full" or "causal" where a mask of n queries and m keys says no more than that, else None.

    A relative mask is read along one line of offsets kv_idx - q_idx, n + m - 1 cells in place of n m.
    """
    if not isinstance(mask, Mask) or not mask.relative or mask.special_rows or mask.special_keys or n * m == 0:
        return None
    if torch.compiler.is_compiling():  # the line is read in NumPy, which a graph cannot decide by
        return "causal" if mask is causal else "full" if mask is full else None
    known = facts(mask)
    if known.uses_b or known.uses_h:
        return None
    if (n, m) not in known.flags:
        mask._lengths(n, m)
        offset = np.arange(1 - n, m)
        q_idx = np.maximum(0, -offset)
        seen = np.broadcast_to(mask(0, 0, q_idx, q_idx + offset), offset.shape)
        known.flags[n, m] = "full" if seen.all() else "causal" if np.array_equal(seen, offset <= 0) else None
    return known.flags[n, m]


def written(mask: MaskMod, shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
    """Return a mask as booleans (b or 1, h or 1, n, m): a dimension that it does not look at stays 1."""
    if torch.compiler.is_compiling():
        return _write(mask, *shape[:2], device, shape)
    known = facts(mask)
    b, h = (shape[0] if known.uses_b else 1), (shape[1] if known.uses_h else 1)
    key = (b, h, *shape[2:], device)
    if key not in known.written:
        array = _write(mask, b, h, device, shape)
        if array.numel() > _KEPT_BYTES:
            return array
        known.written[key] = array
        if sum(x.numel() for x in known.written.values()) > _KEPT_BYTES:
            known.written.popitem(last=False)
    return known.written[key]


def _write(mask: MaskMod, b: int, h: int, device: torch.device, shape: tuple[int, int, int, int]) -> Tensor:
    n, m = shape[2:]
    batch = torch.arange(b, device=device)[:, None, None, None]
    heads = torch.arange(h, device=device)[:, None, None]
    rows, columns = torch.arange(n, device=device)[:, None], torch.arange(m, device=device)
    return _visible(mask, batch, heads, rows, columns, shape)


def block_mask(
    mask_mod: MaskMod, b: int, h: int, n: int, m: int, *, block: int = 128, device: Any = "cpu"
) -> BlockMask:
    """Return a mask as FlexAttention wants it: which blocks hold something, and which are full.

    Parameters
    ----------
    mask_mod : Mask or callable
        Who may attend to whom. The blocks of a ``Mask`` are kept for the next call.
    b, h : int
        Batch items and heads. A mask that does not look at one of them is stored once for all of it.
    n, m : int
        Number of queries and of keys.
    block : int, default 128
        Queries and keys per block.
    device : torch.device or str, default "cpu"
        Where the mask is to be used.

    Returns
    -------
    torch.nn.attention.flex_attention.BlockMask

    Raises
    ------
    ValueError, TypeError
        If a size is below 1, the mask is not defined for it, or the predicate does not return booleans.

    Notes
    -----
    O(n m) evaluations of the predicate, once; O(block m) memory while it runs, and O(n m / block^2) for the result.
    ``torch.nn.attention.flex_attention.create_block_mask`` writes all n m cells out.

    References
    ----------
    Dong et al. (2024), Flex Attention: A Programming Model for Generating Optimized Attention Kernels, section 4.

    Examples
    --------
    >>> import attn_guide.torch as at
    >>> at.block_mask(at.sliding_window(128, 0), 1, 1, 1024, 1024).sparsity()
    76.5625
    """
    b, h, n, m, block = (
        check_integer(name, x, least=1) for name, x in (("b", b), ("h", h), ("n", n), ("m", m), ("block", block))
    )
    known = facts(mask_mod)
    device = torch.device(device)
    b, h = (b if known.uses_b else 1), (h if known.uses_h else 1)
    key = (b, h, n, m, block, device)
    if key not in known.blocks:
        known.blocks[key] = _blocks(mask_mod, b, h, n, m, block, device)
        if len(known.blocks) > 16:
            known.blocks.popitem(last=False)
    return known.blocks[key]


def _blocks(mask_mod: MaskMod, b: int, h: int, n: int, m: int, block: int, device: torch.device) -> BlockMask:
    down, across = -(-n // block), -(-m // block)
    some = torch.zeros(b, h, down, across, dtype=torch.bool, device=device)
    every = torch.zeros_like(some)
    columns = torch.arange(m, device=device)
    batch = torch.arange(b, device=device)[:, None, None, None]
    heads = torch.arange(h, device=device)[:, None, None]
    step = max(1, _CELLS // (b * h * block * m))
    for start in range(0, down, step):
        rows = torch.arange(start * block, min((start + step) * block, n), device=device)
        seen = _visible(mask_mod, batch, heads, rows[:, None], columns, (b, h, len(rows), m)).expand(b, h, -1, -1)
        pad = (0, across * block - m, 0, -len(rows) % block)  # cells beyond the sequence are in no block
        tiles = torch.nn.functional.pad(seen, pad).unflatten(-1, (across, block)).unflatten(-3, (-1, block))
        some[:, :, start : start + step] = tiles.any(dim=-1).any(dim=-2)
        every[:, :, start : start + step] = tiles.all(dim=-1).all(dim=-2)
    partial = some & ~every
    return BlockMask.from_kv_blocks(
        *_ordered(partial), *_ordered(every), BLOCK_SIZE=block, mask_mod=mask_mod, seq_lengths=(n, m)
    )


def _ordered(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many blocks each row has, and their numbers first in each row."""
    order = torch.argsort(chosen.to(torch.int8), dim=-1, descending=True, stable=True)
    return chosen.sum(dim=-1).to(torch.int32), order.to(torch.int32)


@lru_cache(maxsize=64)
def capped(softcap: float, score_mod: ScoreMod | None) -> ScoreMod:
    """Return a score_mod that caps a score before ``score_mod`` sees it; the same object each time."""

    def cap(score: Tensor, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Tensor:
        score = softcap * torch.tanh(score / softcap)
        return score if score_mod is None else score_mod(score, b, h, q_idx, kv_idx)

    return cap


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None,
    enable_gqa: bool,
    mask_mod: MaskMod | None,
    score_mod: ScoreMod | None,
    softcap: float | None,
) -> Tensor:
    """Attend with FlexAttention: q (b, h, n, d_k), k (b, h_kv, m, d_k), v (b, h_kv, m, d_v)."""
    if softcap is not None:
        score_mod = capped(softcap, score_mod)
    blocks = None
    if mask_mod is not None:
        blocks = block_mask(mask_mod, q.shape[0], q.shape[1], q.shape[2], k.shape[2], device=q.device)
    options: dict[str, Any] = {"block_mask": blocks, "scale": scale, "enable_gqa": enable_gqa}
    if torch.compiler.is_compiling():
        return flex_attention(q, k, v, score_mod, **options)
    # One kernel per pattern and shape: the default limit of 8 would silently leave the ninth uncompiled.
    with torch._dynamo.config.patch(recompile_limit=256):
        return _compiled()(q, k, v, score_mod, **options)
