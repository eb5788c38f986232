"""Sparse attention that costs what its pattern costs: sliding window, Longformer, BigBird and blocks.

Each function is a plan: which keys a block of neighbouring queries reads. The plan is handed to the loop over tiles
of ``flash.py``, so nothing outside the plan is ever multiplied and no n x n array exists. Every result equals dense
attention under the mask of the same name in ``masks.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from . import masks
from ._checks import as_float_array, as_mask, check_integer, check_rng
from .flash import Call, Head, Tile, attend_heads, cut, find_limits, flash_attention, mask_tile, prepare

__all__ = [
    "bigbird_attention",
    "block_sparse_attention",
    "longformer_attention",
    "sliding_window_attention",
]

#: The most keys that one tile holds: with 256 queries a tile of scores takes half a megabyte in float32.
_TILE_KEYS = 512


# ---------------------------------------------------------------------------------------- sliding window


def sliding_window_attention(
    query: Any,
    key: Any,
    value: Any,
    left: int,
    right: int,
    *,
    dilation: int = 1,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
    return_lse: bool = False,
) -> Any:
    """Let query i attend to keys i - left ... i + right, in time and memory that grow as n.

    Parameters
    ----------
    query : array_like, shape (..., h, n, d_k)
    key : array_like, shape (..., h_kv, m, d_k)
    value : array_like, shape (..., h_kv, m, d_v)
        Leading dimensions broadcast.
    left, right : int
        Keys before and after the query's own position, as in the mask ``sliding_window``; ``right=0`` is causal.
    dilation : int, default 1
        Distance between neighbouring keys of the window.
    scale, enable_gqa, softcap, return_lse
        As in ``flash_attention``.

    Returns
    -------
    out : numpy.ndarray, shape (..., h, n, d_v)
        In the dtype of the inputs. A query whose window holds no key, possible when n > m, gives 0.
    lse : numpy.ndarray, shape (..., h, n)
        Only with ``return_lse``, as in ``flash_attention``.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit, ``left`` or ``right`` is negative or ``dilation`` less than 1.

    See Also
    --------
    sliding_window : The same pattern as a mask, for any other function.

    Notes
    -----
    With w = left + right the queries go in blocks of r = min(max(w, 64), 256), and each block reads r + w keys:
    time O(h n (r + w) (d_k + d_v)), memory O(n d_v + r (r + w)) beyond the inputs.

    References
    ----------
    Beltagy et al. (2020), Longformer: The Long-Document Transformer, section 3.1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> query, key, value = np.random.default_rng(0).standard_normal((3, 5000, 16))
    >>> out = ag.sliding_window_attention(query, key, value, left=100, right=0)
    >>> dense = ag.flash_attention(query, key, value, mask_mod=ag.sliding_window(100, 0))
    >>> np.allclose(out, dense, rtol=1e-12)
    True
    """
    window = masks.dilated_window(left, right, dilation)
    call = prepare(query, key, value, mask_mod=window, scale=scale, enable_gqa=enable_gqa, softcap=softcap)
    out, lse = _attend_windows(call, left, right, dilation, np.empty(0, np.intp))
    return (out, lse) if return_lse else out


def _attend_windows(
    call: Call, left: int, right: int, dilation: int, everywhere: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Attend each query to its window and to the keys ``everywhere``; ``call.mask_mod`` is the window.

    The r queries of a block, ``dilation`` apart, read r + left + right keys, as far apart, of which each query uses
    left + right + 1: with r of about left + right that is half.
    """
    m = call.k.shape[-2]
    block_q = max(64, min(256, left + right))
    elsewhere = np.ones(m, bool)
    elsewhere[everywhere] = False  # a key that all see must not count twice where a window has it too

    def open_head(at: tuple[int, ...]) -> Head:
        k, v = call.kv(at)
        shared = Tile(everywhere, np.ascontiguousarray(k[everywhere].T), v[everywhere])

        def tiles_of(rows: slice) -> Iterator[Tile]:
            if everywhere.size:
                yield shared
            first = max(rows.start % dilation, rows.start - left * dilation)
            last = range(rows.start, rows.stop, rows.step)[-1] + right * dilation
            for keys in cut(range(first, min(m, last + 1), dilation), _TILE_KEYS):
                once = None if elsewhere[keys].all() else elsewhere[keys]  # (c,), the same for all rows
                tile = mask_tile(call, Tile(keys, k[keys].T, v[keys], None, once), at, rows)
                if tile is not None:
                    yield tile

        return find_limits(call, k, v), tiles_of

    return attend_heads(call, block_q, open_head, stride=dilation)


# -------------------------------------------------------------------------------------------- Longformer


def longformer_attention(
    query: Any,
    key: Any,
    value: Any,
    window: int,
    global_indices: int | Iterable[int] = (),
    *,
    dilation: int = 1,
    global_query: Any = None,
    global_key: Any = None,
    global_value: Any = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
) -> np.ndarray:
    """Attend within a window, and let a few global tokens see everything and be seen by everything.

    Parameters
    ----------
    query : array_like, shape (..., h, n, d_k)
    key : array_like, shape (..., h_kv, n, d_k)
    value : array_like, shape (..., h_kv, n, d_v)
        Leading dimensions broadcast.
    window : int
        The paper's w, an even number: w / 2 keys on each side, so an interior query sees w + 1 keys.
    global_indices : int or iterable of int, default ()
        Positions of the global tokens.
    dilation : int, default 1
        Distance between neighbouring keys of the window.
    global_query, global_key, global_value : array_like, optional
        Projections of their own for what the global tokens attend to, in the shapes of query, key and value: a
        global token's row is computed from them. How other tokens see a global token is computed from ``key`` and
        ``value``. Each is the local projection unless given.
    scale, enable_gqa, softcap
        As in ``flash_attention``.

    Returns
    -------
    numpy.ndarray, shape (..., h, n, d_v)
        In the dtype of the inputs. Without separate projections it equals attention under the mask
        ``longformer(window, global_indices, dilation=dilation)``.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit, query and key differ in length, ``window`` is odd or negative, or a global
        index is outside the sequence.

    Notes
    -----
    With g global tokens: time O(h n (w + g) (d_k + d_v)), memory O(n (d_k + d_v)).

    References
    ----------
    Beltagy et al. (2020), Longformer: The Long-Document Transformer, section 3.1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> query, key, value = np.random.default_rng(0).standard_normal((3, 500, 16))
    >>> out = ag.longformer_attention(query, key, value, 32, [0, 1])
    >>> dense = ag.scaled_dot_product_attention(query, key, value, mask_mod=ag.longformer(32, [0, 1]))
    >>> np.allclose(out, dense, rtol=1e-12)
    True
    """
    half = _half_window(window)
    local = masks.dilated_window(half, half, dilation)
    call = prepare(query, key, value, mask_mod=local, scale=scale, enable_gqa=enable_gqa, softcap=softcap)
    n = _self_attention_length(call)
    chosen = _check_global_indices(global_indices, n)
    out, _ = _attend_windows(call, half, half, dilation, chosen)
    if chosen.size:  # the rows of the global tokens: g x n scores
        q, k, v = (
            _global_projection(*x)
            for x in (
                ("global_query", global_query, query),
                ("global_key", global_key, key),
                ("global_value", global_value, value),
            )
        )
        out[..., chosen, :] = flash_attention(
            q[..., chosen, :], k, v, scale=scale, enable_gqa=enable_gqa, softcap=softcap
        )
    return out


def _half_window(window: int) -> int:
    if check_integer("window", window) % 2:
        raise ValueError(f"window is {window}; wanted an even number, half of it on each side")
    return window // 2


def _self_attention_length(call: Call) -> int:
    """Return n, the one length of a pattern in which the same tokens are queries and keys."""
    m = call.k.shape[-2]
    if call.n != m:
        raise ValueError(f"key has length {m}; wanted the length of query, {call.n}: the pattern is of one sequence")
    return m


def _check_global_indices(indices: int | Iterable[int], n: int) -> np.ndarray:
    """Return the positions of the global tokens (g,), sorted and each once."""
    listed = [indices] if isinstance(indices, int | np.integer) else list(indices)
    chosen = sorted({check_integer("global_indices", index) for index in listed})
    if chosen and chosen[-1] >= n:
        raise ValueError(f"global_indices holds {chosen[-1]}; wanted positions 0 ... {n - 1}")
    return np.array(chosen, np.intp)


def _global_projection(name: str, given: Any, local: Any) -> np.ndarray:
    """Return the separate projection of the global tokens, or the local one where none is given."""
    wanted = as_float_array(name, local)
    if given is None:
        return wanted
    array = as_float_array(name, given)
    if array.shape != wanted.shape or array.dtype != wanted.dtype:
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; wanted {wanted.shape} and {wanted.dtype},"
            " those of the local projection"
        )
    return array


# ------------------------------------------------------------------------------------------------ blocks


def block_sparse_attention(
    query: Any,
    key: Any,
    value: Any,
    block_mask: Any,
    block: int,
    *,
    is_causal: bool = False,
    mask_mod: Callable[..., Any] | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
    return_lse: bool = False,
) -> Any:
    """Attend only where a pattern of whole blocks says so.

    Parameters
    ----------
    query : array_like, shape (..., h, n, d_k)
    key : array_like, shape (..., h_kv, m, d_k)
    value : array_like, shape (..., h_kv, m, d_v)
        Leading dimensions broadcast.
    block_mask : array_like of bool, broadcastable to (..., h, ceil(n / block), ceil(m / block)), or Mask
        True where a block of queries attends to a block of keys. A ``Mask`` is read in block indices: ``mask``
        here is ``blockwise(mask, block)`` elsewhere.
    block : int
        Length of a block; the last one may be shorter.
    is_causal : bool, default False
        Also forbid keys after the query.
    mask_mod : Mask or callable, optional
        A predicate on positions that must hold too, evaluated in the chosen blocks only.
    scale, enable_gqa, softcap, return_lse
        As in ``flash_attention``.

    Returns
    -------
    out : numpy.ndarray, shape (..., h, n, d_v)
        In the dtype of the inputs. A query with no key gives 0.
    lse : numpy.ndarray, shape (..., h, n)
        Only with ``return_lse``, as in ``flash_attention``.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit or ``block`` is less than 1.

    Notes
    -----
    With s blocks seen by each block of queries: time O(h n s block (d_k + d_v)). All ``block`` keys of a seen
    block are read: a pattern saves what it leaves out in whole blocks.

    References
    ----------
    Child et al. (2019), Generating Long Sequences with Sparse Transformers, section 5.5.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> query, key, value = np.random.default_rng(0).standard_normal((3, 500, 16))
    >>> neighbours = ag.sliding_window(1, 1)                            # in blocks: own, previous, next
    >>> out = ag.block_sparse_attention(query, key, value, neighbours, 64)
    >>> mask = ag.blockwise(neighbours, 64)                             # the same, in positions
    >>> np.allclose(out, ag.scaled_dot_product_attention(query, key, value, mask_mod=mask), rtol=1e-12)
    True
    """
    call = prepare(
        query,
        key,
        value,
        is_causal=is_causal,
        mask_mod=mask_mod,
        scale=scale,
        enable_gqa=enable_gqa,
        softcap=softcap,
    )
    block = check_integer("block", block, least=1)
    rows, columns = -(-call.n // block), -(-call.k.shape[-2] // block)
    if isinstance(block_mask, masks.Mask):
        row = np.arange(columns)

        def blocks_of(at: tuple[int, ...], i: int) -> np.ndarray:
            seen = as_mask("block_mask", block_mask(*call.batch_and_head(at), i, row), (1, columns), boolean=True)
            return np.flatnonzero(seen)

    else:
        shape = (*call.lead, rows, columns)
        table = np.broadcast_to(as_mask("block_mask", block_mask, shape, boolean=True), shape)

        def blocks_of(at: tuple[int, ...], i: int) -> np.ndarray:
            return np.flatnonzero(table[(*at, i)])

    out, lse = _attend_blocks(call, block, blocks_of)
    return (out, lse) if return_lse else out


def _attend_blocks(
    call: Call, block: int, blocks_of: Callable[[tuple[int, ...], int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Attend block i of the queries of head ``at`` to the key blocks ``blocks_of(at, i)``, and to no other."""
    m = call.k.shape[-2]
    per_tile = max(1, _TILE_KEYS // block)

    def open_head(at: tuple[int, ...]) -> Head:
        k, v = call.kv(at)

        def tiles_of(rows: slice) -> Iterator[Tile]:
            seen = blocks_of(at, rows.start // block)
            for some in (seen[i : i + per_tile] for i in range(0, len(seen), per_tile)):
                keys = (some[:, None] * block + np.arange(block)).ravel()  # positions, (c,)
                keys = keys[keys < m]  # the last block may be short
                tile = mask_tile(call, Tile(keys, k[keys].T, v[keys]), at, rows)
                if tile is not None:
                    yield tile

        return find_limits(call, k, v), tiles_of

    return attend_heads(call, block, open_head)


# ----------------------------------------------------------------------------------------------- BigBird


def bigbird_attention(
    query: Any,
    key: Any,
    value: Any,
    block: int,
    *,
    window_blocks: int = 3,
    global_blocks: int = 2,
    random_blocks: Any = 3,
    rng: np.random.Generator | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
) -> np.ndarray:
    """Attend to a window of blocks, a few global blocks and a few random ones.

    Parameters
    ----------
    query : array_like, shape (..., h, n, d_k)
    key : array_like, shape (..., h_kv, n, d_k)
    value : array_like, shape (..., h_kv, n, d_v)
        Leading dimensions broadcast.
    block : int
        Length of a block; it divides n.
    window_blocks : int, default 3
        Blocks in the window, an odd number: the query's own and as many on each side.
    global_blocks : int, default 2
        Blocks that see and are seen by all, from both ends: 2 means the first and the last block.
    random_blocks : int or array_like of int, shape (..., n / block, r), default 3
        Blocks drawn for each block of queries, the same for all heads, or the drawn table itself, whose leading
        dimensions broadcast to (..., h).
    rng : numpy.random.Generator, optional
        The source of randomness; needed unless ``random_blocks`` is 0 or a table.
    scale, enable_gqa, softcap
        As in ``flash_attention``.

    Returns
    -------
    numpy.ndarray, shape (..., h, n, d_v)
        In the dtype of the inputs. It equals attention under the mask ``bigbird`` drawn from the same ``rng``.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit, query and key differ in length, ``block`` does not divide it,
        ``window_blocks`` is even, there are too few blocks to draw from, or ``rng`` is needed and missing.

    Notes
    -----
    With s = window_blocks + global_blocks + r: time O(h n s block (d_k + d_v)). A block that is chosen twice, at
    random and by the window, counts once.

    References
    ----------
    Zaheer et al. (2020), Big Bird: Transformers for Longer Sequences, section 2 and appendix D.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> query, key, value = np.random.default_rng(0).standard_normal((3, 640, 16))
    >>> out = ag.bigbird_attention(query, key, value, 32, rng=np.random.default_rng(1))
    >>> mask = ag.bigbird(640, 32, rng=np.random.default_rng(1))
    >>> np.allclose(out, ag.scaled_dot_product_attention(query, key, value, mask_mod=mask), rtol=1e-12)
    True
    """
    call = prepare(query, key, value, scale=scale, enable_gqa=enable_gqa, softcap=softcap)
    n, block = _self_attention_length(call), check_integer("block", block, least=1)
    if n % block:
        raise ValueError(f"query has length {n}; wanted a multiple of block, {block}")
    count = n // block
    half = masks._check_odd("window_blocks", window_blocks) // 2
    anchors = masks._global_block_indices(count, global_blocks)
    table = _random_block_table(call, count, random_blocks, window_blocks, global_blocks, rng)

    def blocks_of(at: tuple[int, ...], i: int) -> np.ndarray:
        if i in anchors:
            return np.arange(count)
        window = range(max(0, i - half), min(count, i + half + 1))
        return np.array(sorted({*window, *anchors, *table[(*at, i)].tolist()}))

    return _attend_blocks(call, block, blocks_of)[0]


def _random_block_table(
    call: Call, count: int, random_blocks: Any, window_blocks: int, global_blocks: int, rng: Any
) -> np.ndarray:
    """Return the random blocks (*lead, count, r): drawn once for all heads, or the caller's, per head or not."""
    if np.ndim(random_blocks) == 0:
        r = check_integer("random_blocks", random_blocks)
        table = np.empty((count, 0), np.int64)
        if r:
            table = masks.bigbird_random_blocks(
                count, r, window_blocks=window_blocks, global_blocks=global_blocks, rng=check_rng("rng", rng)
            )
    else:
        table = np.asarray(random_blocks)
        if table.dtype.kind not in "iu":
            raise TypeError(f"random_blocks has dtype {table.dtype}; wanted a number or a table of integers")
        if table.size and (table.min() < 0 or table.max() >= count):
            raise ValueError(f"random_blocks holds {table.min()} ... {table.max()}; wanted blocks 0 ... {count - 1}")
    try:
        return np.broadcast_to(table, (*call.lead, count, table.shape[-1]))
    except (ValueError, IndexError):
        raise ValueError(
            f"random_blocks has shape {table.shape}; wanted (..., {count}, r), one row per block of queries"
        ) from None
