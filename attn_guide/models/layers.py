"""The Transformer's layers in PyTorch, with attention weights that can be looked at and heads that can be taken out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._checks import check_integer

__all__ = ["Block", "MultiHeadAttention", "rope", "sinusoidal"]


def sinusoidal(length: int, width: int) -> Tensor:
    """Return the sine and cosine position vectors, shape (length, width).

    Parameters
    ----------
    length : int
        Number of positions.
    width : int
        Even width of the vectors.

    Returns
    -------
    Tensor, shape (length, width)
        Sines at even places, cosines at odd ones.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.5.
    """
    angle = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def rope(x: Tensor, start: int = 0) -> Tensor:
    """Turn each pair of components by an angle that grows with the position.

    Parameters
    ----------
    x : Tensor, shape (..., n, d)
        Queries or keys of positions start, start + 1, ...; component i is paired with component i + d / 2.
    start : int
        Position of the first row.

    Returns
    -------
    Tensor, shape (..., n, d)
        Turned vectors, whose dot products depend on the distance of their positions alone.

    References
    ----------
    Su et al. (2021), RoFormer: Enhanced Transformer with Rotary Position Embedding, equations 14 and 15. The pairing
    in halves is that of GPT-NeoX.
    """
    n, half = x.shape[-2], x.shape[-1] // 2
    place = torch.arange(start, start + n, device=x.device, dtype=x.dtype)[:, None]
    angle = place * 10_000.0 ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in several heads.

    Parameters
    ----------
    width, heads : int
        Width of the model and number of heads, which divides it.
    rotary : bool
        Whether queries and keys are turned by their positions.

    Notes
    -----
    ``head_mask``, ones at first, multiplies what each head gives: a zero takes the head out (ablation). It is not
    trained and not saved.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.
    """

    head_mask: Tensor

    def __init__(self, width: int, heads: int, *, rotary: bool = False) -> None:
        super().__init__()
        check_integer("heads", heads, 1)
        if width % heads:
            raise ValueError(f"heads is {heads}; wanted a number that divides width {width}")
        self.heads, self.rotary = heads, rotary
        self.w_query, self.w_key, self.w_value, self.w_output = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.register_buffer("head_mask", torch.ones(heads, 1, 1), persistent=False)

    def split(self, x: Tensor) -> Tensor:
        """Return (b, n, width) as (b, heads, n, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """Return the keys and values (b, heads, n, width / heads) of states (b, n, width) from position ``start`` on.

        This is what a cache keeps.
        """
        k, v = self.split(self.w_key(x)), self.split(self.w_value(x))
        return (rope(k, start) if self.rotary else k), v

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], allowed: Tensor | None = None, start: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Let states look at keys and values.

        Parameters
        ----------
        x : Tensor, shape (b, n, width)
            States that ask, from position ``start`` on.
        keys_values : tuple of Tensor, shape (b, heads, m, width / heads)
            From ``keys_values``.
        allowed : Tensor of bool, optional
            Broadcasts to (b, heads, n, m); True = may attend.
        start : int
            Position of the first state.

        Returns
        -------
        output : Tensor, shape (b, n, width)
            The heads, joined and mapped.
        weights : Tensor, shape (b, heads, n, m)
            Rows sum to one.
        """
        k, v = keys_values
        q = self.split(self.w_query(x))
        q = rope(q, start) if self.rotary else q
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        weights = scores.softmax(dim=-1)
        heads = weights @ v * self.head_mask
        return self.w_output(heads.transpose(1, 2).flatten(-2)), weights


class Block(nn.Module):
    """Self-attention, then (for a decoder with a source) cross-attention, then a feed-forward layer.

    Parameters
    ----------
    width, heads : int
        Width of the model and number of heads.
    hidden : int
        Width of the feed-forward layer; 0 leaves it out.
    rotary : bool
        Whether self-attention uses rotary positions.
    cross : bool
        Whether there is attention to a source.
    dropout : float
        Share of each sub-layer's output that training drops.

    Notes
    -----
    Each sub-layer normalises what it reads and adds what it finds to what came (pre-norm, which trains without a long
    warm-up; the paper normalises after the addition).

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.1. Pre-norm: Xiong et al. (2020), On Layer
    Normalization in the Transformer Architecture, figure 1b.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, rotary: bool = False, cross: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = MultiHeadAttention(width, heads, rotary=rotary)
        self.cross_norm = nn.LayerNorm(width) if cross else None
        self.cross_attention = MultiHeadAttention(width, heads) if cross else None
        self.feed = (
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            if hidden
            else None
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        allowed: Tensor | None = None,
        *,
        past: tuple[Tensor, Tensor] | None = None,
        source: tuple[Tensor, Tensor] | None = None,
        source_allowed: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor | None]:
        """Apply the block to new states.

        Parameters
        ----------
        x : Tensor, shape (b, n, width)
            States of the new positions.
        allowed : Tensor of bool, optional
            Broadcasts to (b, heads, n, past + n).
        past : tuple of Tensor, optional
            Keys and values of the positions before, (b, heads, past, width / heads): the cache.
        source : tuple of Tensor, optional
            Keys and values of the source, from ``cross_attention.keys_values``.
        source_allowed : Tensor of bool, optional
            Broadcasts to (b, heads, n, m).

        Returns
        -------
        x : Tensor, shape (b, n, width)
            Next states.
        past : tuple of Tensor
            Keys and values of all positions so far.
        weights : Tensor, shape (b, heads, n, past + n)
            Self-attention.
        cross_weights : Tensor, shape (b, heads, n, m) or None
            Attention to the source.
        """
        start = past[0].shape[-2] if past is not None else 0
        normed = self.self_norm(x)
        new = self.self_attention.keys_values(normed, start)
        if past is not None:
            new = torch.cat([past[0], new[0]], dim=-2), torch.cat([past[1], new[1]], dim=-2)
        found, weights = self.self_attention(normed, new, allowed, start)
        x = x + self.dropout(found)
        cross_weights = None
        if self.cross_attention is not None and self.cross_norm is not None and source is not None:
            found, cross_weights = self.cross_attention(self.cross_norm(x), source, source_allowed)
            x = x + self.dropout(found)
        if self.feed is not None:
            x = x + self.dropout(self.feed(x))
        return x, new, weights, cross_weights
