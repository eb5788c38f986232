"""Block-sparse attention with nothing to compile: each tile of queries meets only the blocks of keys that it sees.

FlexAttention does this in one kernel, but has to compile it first and gives no gradients on a CPU. Here every tile is
one call of the fused kernel on a slice of the keys, so time and memory follow the pattern, and autograd works.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attn_guide.masks import Mask

from . import flex
from .core import _visible

__all__: list[str] = []

#: Queries per tile and keys per block, unless the mask itself is made of blocks that are somewhat smaller.
BLOCK = 128


class Tile(NamedTuple):
    """Queries that are answered together, the keys that any of them sees, and which of those pairs are allowed."""

    rows: slice
    keys: slice | Tensor  # a slice, which copies nothing, where the blocks are neighbours
    mask: Tensor | None  # (b or 1, h or 1, rows, keys); None where all are allowed


def share(mask: Mask, b: int, h: int, n: int, m: int, device: torch.device) -> float:
    """Return the share of the blocks of n queries and m keys that have to be computed."""
    return float(_needed(mask, b, h, n, m, device).float().mean())


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout_p: float, scale: float | None, enable_gqa: bool
) -> Tensor:
    """Attend tile by tile: q (b, h, n, d_k), k (b, h_kv, m, d_k), v (b, h_kv, m, d_v)."""
    out = []
    for tile in _plan(mask, q.shape[0], q.shape[1], q.shape[2], k.shape[2], q.device):
        if isinstance(tile.keys, slice):
            near_k, near_v = k[:, :, tile.keys], v[:, :, tile.keys]
        else:
            near_k, near_v = k.index_select(2, tile.keys), v.index_select(2, tile.keys)
        out.append(
            F.scaled_dot_product_attention(
                q[:, :, tile.rows], near_k, near_v, tile.mask, dropout_p, scale=scale, enable_gqa=enable_gqa
            )
        )
    return torch.cat(out, dim=2)


def _block(mask: Mask) -> int:
    """Return the side of a block: the mask's own where it is near ``BLOCK``, so that no block is partly empty."""
    return mask.block if BLOCK // 4 <= mask.block <= BLOCK else BLOCK


def _needed(mask: Mask, b: int, h: int, n: int, m: int, device: torch.device) -> Tensor:
    """Return which blocks any head of any batch item needs: booleans (n / block, m / block)."""
    dense = flex.block_mask(mask, b, h, n, m, block=_block(mask), device=device).to_dense()
    return dense.bool().flatten(0, 1).any(dim=0)


def _plan(mask: Mask, b: int, h: int, n: int, m: int, device: torch.device) -> list[Tile]:
    """Return the tiles of a pattern, kept for the next call."""
    known = flex.facts(mask)
    b, h = (b if known.uses_b else 1), (h if known.uses_h else 1)
    key = (b, h, n, m, device)
    if key in known.tiles:
        return known.tiles[key]
    block, tiles = _block(mask), list[Tile]()
    for i, row in enumerate(_needed(mask, b, h, n, m, device).cpu()):
        blocks = row.nonzero()[:, 0].tolist()
        rows = slice(i * block, min((i + 1) * block, n))
        first, last = (blocks[0], blocks[-1] + 1) if blocks else (0, 0)
        if len(blocks) == last - first:
            keys: slice | Tensor = slice(first * block, min(last * block, m))
            kv_idx = torch.arange(first * block, min(last * block, m), device=device)
        else:
            kv_idx = torch.cat([torch.arange(j * block, min((j + 1) * block, m)) for j in blocks]).to(device)
            keys = kv_idx
        allowed = _visible(
            mask,
            torch.arange(b, device=device)[:, None, None, None],
            torch.arange(h, device=device)[:, None, None],
            torch.arange(rows.start, rows.stop, device=device)[:, None],
            kv_idx,
            (b, h, rows.stop - rows.start, len(kv_idx)),
        )
        kept: Tensor | None = allowed
        if bool(allowed.all()):
            kept = None
        elif tiles and tiles[-1].mask is not None and torch.equal(tiles[-1].mask, allowed):
            kept = tiles[-1].mask  # a pattern that repeats along the sequence is stored once
        tiles.append(Tile(rows, keys, kept))
    if sum({id(t.mask): t.mask.numel() for t in tiles if t.mask is not None}.values()) <= flex._KEPT_BYTES:
        known.tiles[key] = tiles
        if len(known.tiles) > 8:
            known.tiles.popitem(last=False)
    return tiles
