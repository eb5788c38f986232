"""Where a token stands: sinusoids to add, rotations of queries and keys, and biases on the scores."""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor

from attn_guide._checks import check_integer, check_positive

from ._checks import broadcast_shape, check_tensor, compute_dtype

__all__ = [
    "alibi_bias",
    "alibi_slopes",
    "apply_rope",
    "rope_tables",
    "sinusoidal_positions",
    "t5_relative_bias",
    "t5_relative_bucket",
]


def sinusoidal_positions(
    positions: int | Tensor,
    d_model: int,
    *,
    base: float = 10000.0,
    device: Any = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the sinusoids that the Transformer adds to its embeddings.

    Parameters
    ----------
    positions : int or torch.Tensor, shape (..., n)
        A count n means the positions 0 ... n - 1; a tensor holds the positions.
    d_model : int
        Width, even.
    base : float
        Sets the longest wave.
    device, dtype : optional
        Of the result; torch's defaults unless given.

    Returns
    -------
    torch.Tensor, shape (..., n, d_model)
        Column 2i is a sine and column 2i + 1 the cosine of the same angle. Computed in float64 and then rounded.

    Raises
    ------
    TypeError, ValueError
        If ``d_model`` is odd or below 2, or ``base`` is not above 0.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.5.

    Examples
    --------
    >>> import attn_guide.torch as at
    >>> at.sinusoidal_positions(2, 4)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    cos, sin = rope_tables(positions, _even("d_model", d_model), base, device=device)
    return torch.stack([sin, cos], dim=-1).flatten(-2).to(dtype or torch.get_default_dtype())


def rope_tables(positions: int | Tensor, d: int, base: float = 10000.0, *, device: Any = None) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines that rotary position embedding turns pairs of numbers by.

    Parameters
    ----------
    positions : int or torch.Tensor, shape (..., n)
        A count n means the positions 0 ... n - 1; a tensor holds the positions, fractions allowed.
    d : int
        Number of components that turn; even.
    base : float
        Sets the slowest frequency.
    device : optional
        Of the tables of a count.

    Returns
    -------
    cos, sin : torch.Tensor, shape (..., n, d / 2)
        In float64: an angle of thousands of radians leaves float32 few digits of its fraction.

    Raises
    ------
    TypeError, ValueError
        If ``d`` is odd or below 2, or ``base`` is not above 0.

    References
    ----------
    Su et al. (2021), RoFormer: Enhanced Transformer with Rotary Position Embedding, equation 15.

    Examples
    --------
    >>> import attn_guide.torch as at
    >>> at.rope_tables(3, 4)[0].round(decimals=2)
    tensor([[ 1.0000,  1.0000],
            [ 0.5400,  1.0000],
            [-0.4200,  1.0000]], dtype=torch.float64)
    """
    if not isinstance(positions, Tensor):
        positions = torch.arange(check_integer("positions", positions), device=device)
    steps = torch.arange(0, _even("d", d), 2, dtype=torch.float64, device=positions.device)
    angles = positions.to(torch.float64)[..., None] * check_positive("base", base) ** (-steps / d)
    return torch.cos(angles), torch.sin(angles)


def apply_rope(
    x: Tensor,
    positions: int | Tensor | None = None,
    *,
    base: float = 10000.0,
    rotary_dim: int | None = None,
    interleaved: bool = False,
    tables: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Turn queries or keys by angles that grow with their positions.

    Parameters
    ----------
    x : torch.Tensor, shape (..., n, d)
        Queries or keys.
    positions : int or torch.Tensor, optional
        An integer is the position of the first row; a tensor broadcasts to (..., n). 0, 1, 2, ... unless given.
    base : float
        As in ``rope_tables``.
    rotary_dim : int, optional
        Turn only the first ``rotary_dim`` components; all unless given.
    interleaved : bool
        False pairs component i with i + rotary_dim / 2 (Llama); True pairs 2i with 2i + 1 (the paper).
    tables : pair of torch.Tensor, optional
        Cosines and sines (max_length, rotary_dim / 2) to look integer positions up in.

    Returns
    -------
    torch.Tensor, shape (..., n, d)
        In the dtype of ``x``.

    Raises
    ------
    TypeError, ValueError
        If ``rotary_dim`` is odd or larger than d, ``positions`` does not broadcast, or ``tables`` has another width.

    Notes
    -----
    A pair :math:`(a, b)` at position :math:`t` becomes
    :math:`(a \\cos t\\theta - b \\sin t\\theta,\\; a \\sin t\\theta + b \\cos t\\theta)`. Time and memory O(n d).

    References
    ----------
    Su et al. (2021), RoFormer: Enhanced Transformer with Rotary Position Embedding, equations 15 and 34.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.apply_rope(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    tensor([[1.0000, 0.0000],
            [0.5403, 0.8415]])
    """
    if check_tensor("x", x).dim() < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; wanted (..., n, d)")
    n, d = x.shape[-2:]
    turned = d if rotary_dim is None else rotary_dim
    if _even("rotary_dim" if rotary_dim is not None else "width d of x", turned) > d:
        raise ValueError(f"rotary_dim is {turned}; wanted at most the width of x, {d}")
    if not isinstance(positions, Tensor):
        first = 0 if positions is None else check_integer("positions", positions)
        positions = torch.arange(first, first + n, device=x.device)
    if broadcast_shape(positions.shape, x.shape[:-1]) != tuple(x.shape[:-1]):
        raise ValueError(
            f"positions has shape {tuple(positions.shape)}; wanted one that broadcasts to {tuple(x.shape[:-1])},"
            " x without its width"
        )
    if tables is None:
        cos, sin = rope_tables(positions, turned, base)
    else:
        if any(table.dim() != 2 or table.shape[1] != turned // 2 for table in tables):
            came = " and ".join(str(tuple(table.shape)) for table in tables)
            raise ValueError(f"tables have shapes {came}; wanted twice (max_length, {turned // 2})")
        cos, sin = (table[positions] for table in tables)
    compute = compute_dtype(x)
    cos, sin = cos.to(compute), sin.to(compute)  # (..., n, turned / 2)
    head, rest = x[..., :turned].to(compute), x[..., turned:]
    if interleaved:
        a, b = head[..., 0::2], head[..., 1::2]
        out = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
    else:
        a, b = head.chunk(2, dim=-1)
        out = torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
    return torch.cat([out.to(x.dtype), rest], dim=-1)


def alibi_slopes(h: int, *, device: Any = None) -> Tensor:
    """Return the slope of each head of attention with linear biases.

    Parameters
    ----------
    h : int
        Number of heads.
    device : optional
        Of the result.

    Returns
    -------
    torch.Tensor, shape (h,)
        In float64. For a power of two a geometric series from ``2 ** (-8 / h)``; else as in the released code.

    Raises
    ------
    TypeError, ValueError
        If ``h`` is no integer of at least 1.

    References
    ----------
    Press, Smith and Lewis (2022), Train Short, Test Long, section 3.

    Examples
    --------
    >>> import attn_guide.torch as at
    >>> at.alibi_slopes(4)
    tensor([0.2500, 0.0625, 0.0156, 0.0039], dtype=torch.float64)
    """
    h = check_integer("h", h, least=1)
    power = 1 << (h.bit_length() - 1)

    def geometric(count: int) -> Tensor:
        return 2.0 ** (-8.0 * torch.arange(1, count + 1, dtype=torch.float64, device=device) / count)

    return torch.cat([geometric(power), geometric(2 * power)[::2][: h - power]])


def alibi_bias(
    h: int, n: int, m: int | None = None, *, offset: int = 0, device: Any = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Return the penalty of attention with linear biases: it grows with the distance, at each head's own rate.

    Parameters
    ----------
    h : int
        Number of heads.
    n : int
        Number of queries.
    m : int, optional
        Number of keys; ``n`` unless given.
    offset : int
        Position of the first query; ``m - n`` while decoding with a cache of m keys.
    device, dtype : optional
        Of the result; torch's defaults unless given.

    Returns
    -------
    torch.Tensor, shape (h, n, m)
        To pass as ``attn_mask``. Entry (head, i, j) is ``-slope * abs(i + offset - j)``.

    Raises
    ------
    TypeError, ValueError
        If a count is no integer, ``h`` is below 1 or another count below 0.

    References
    ----------
    Press, Smith and Lewis (2022), Train Short, Test Long, section 3.

    Examples
    --------
    >>> import attn_guide.torch as at
    >>> at.alibi_bias(8, 3)[0]
    tensor([[-0.0000, -0.5000, -1.0000],
            [-0.5000, -0.0000, -0.5000],
            [-1.0000, -0.5000, -0.0000]])
    """
    slopes = alibi_slopes(h, device=device)
    bias = -slopes[:, None, None] * _relative(n, m, offset, device).abs()
    return bias.to(dtype or torch.get_default_dtype())


def t5_relative_bucket(
    relative_position: Tensor, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> Tensor:
    """Return the bucket of each distance between a query and a key, as T5 shares biases between distances.

    Parameters
    ----------
    relative_position : torch.Tensor of int
        Position of the key minus position of the query.
    bidirectional : bool
        True gives half of the buckets to keys after the query; False puts all of those into bucket 0.
    num_buckets : int
        Number of buckets; even if ``bidirectional``.
    max_distance : int
        Distances from here on share the last bucket.

    Returns
    -------
    torch.Tensor of int64
        The shape of ``relative_position``.

    Raises
    ------
    TypeError, ValueError
        If positions are no integers, or the numbers leave no exact bucket.

    References
    ----------
    Raffel et al. (2020), Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
    section 2.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.t5_relative_bucket(torch.tensor([0, -1, -7, -8, -64, -1000, 1, 1000]))
    tensor([ 0,  1,  7,  8, 14, 15, 17, 31])
    """
    if not isinstance(relative_position, Tensor) or relative_position.is_floating_point():
        raise TypeError("relative_position wanted a torch.Tensor of integers")
    buckets = check_integer("num_buckets", num_buckets, 4 if bidirectional else 2)
    if bidirectional and buckets % 2:
        raise ValueError(f"num_buckets is {num_buckets}; wanted an even number, half for each direction")
    buckets //= 2 if bidirectional else 1
    exact = buckets // 2  # distances 0 ... exact - 1 have a bucket of their own
    if check_integer("max_distance", max_distance) <= exact:
        raise ValueError(f"max_distance is {max_distance}; wanted more than {exact}, the distances kept apart")
    distance = relative_position.to(torch.int64)
    side = torch.where(distance > 0, buckets, 0) if bidirectional else torch.zeros_like(distance)
    distance = distance.abs() if bidirectional else (-distance).clamp_min(0)
    # In float32 as in the released models: a rounded logarithm decides on which side of a boundary a distance falls.
    ratio = torch.log(distance.clamp_min(1).to(torch.float32) / exact) / log(max_distance / exact)
    shared = (exact + (ratio * (buckets - exact)).to(torch.int64)).clamp_max(buckets - 1)
    return side + torch.where(distance < exact, distance, shared)


def t5_relative_bias(
    table: Tensor, n: int, m: int | None = None, *, offset: int = 0, bidirectional: bool = True, max_distance: int = 128
) -> Tensor:
    """Return the trained bias of T5 for each head, query and key.

    Parameters
    ----------
    table : torch.Tensor, shape (num_buckets, h)
        A trained number for each bucket and head; gradients reach it.
    n : int
        Number of queries.
    m : int, optional
        Number of keys; ``n`` unless given.
    offset : int
        Position of the first query.
    bidirectional, max_distance : various
        As in ``t5_relative_bucket``.

    Returns
    -------
    torch.Tensor, shape (h, n, m)
        To pass as ``attn_mask``. T5 does not scale its dot products: pass ``scale=1.0`` for what it computes.

    Raises
    ------
    TypeError, ValueError
        If ``table`` is no matrix of real numbers, and as in ``t5_relative_bucket``.

    References
    ----------
    Raffel et al. (2020), Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
    section 2.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.t5_relative_bias(torch.arange(32.0)[:, None], 3)[0]
    tensor([[ 0., 17., 18.],
            [ 1.,  0., 17.],
            [ 2.,  1.,  0.]])
    """
    if check_tensor("table", table).dim() != 2:
        raise ValueError(f"table has shape {tuple(table.shape)}; wanted (num_buckets, h)")
    buckets = t5_relative_bucket(
        _relative(n, m, offset, table.device),
        bidirectional=bidirectional,
        num_buckets=table.shape[0],
        max_distance=max_distance,
    )
    return table[buckets].movedim(-1, 0)


def _even(name: str, d: int) -> int:
    if check_integer(name, d, 2) % 2:
        raise ValueError(f"{name} is {d}; wanted an even number")
    return d


def _relative(n: int, m: int | None, offset: int, device: Any) -> Tensor:
    """Return the position of key j minus that of query i, which is offset + i: (n, m)."""
    n = check_integer("n", n)
    m = n if m is None else check_integer("m", m)
    rows = torch.arange(n, device=device) + check_integer("offset", offset)
    return torch.arange(m, device=device) - rows[:, None]
