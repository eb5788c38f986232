"""FlashAttention: exact softmax attention that never holds the n x m matrix of weights.

The softmax of a row needs its maximum and its sum, and both can be carried along while the keys pass by in
tiles: when a later tile raises the maximum, what was summed so far is scaled down by one factor. So a tile of
scores is made, used and forgotten, and the memory in use does not depend on the number of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import ceil, log, sqrt
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ._checks import (
    as_float_array,
    as_mask,
    check_attention_inputs,
    check_finite,
    check_function,
    check_integer,
    check_ndim,
    check_softcap,
    compute_dtype,
)
from ._pool import num_threads, parallel

__all__ = ["OnlineSoftmaxStep", "flash_attention", "flash_attention_backward", "online_softmax"]

_LN_2 = log(2.0)
_LOG2_E = 1.0 / _LN_2


# ---------------------------------------------------------------------------------------- online softmax


class OnlineSoftmaxStep(NamedTuple):
    """The state of an online softmax after one block of scores.

    Examples
    --------
    >>> import attn_guide as ag
    >>> step = next(ag.online_softmax([1.0, 2.0], block_size=2))
    >>> step._fields
    ('block', 'running_max', 'rescale', 'running_sum', 'result')
    """

    block: slice  #: the scores that this step took in
    running_max: np.ndarray  #: the largest score so far, (...)
    rescale: np.ndarray  #: exp(old maximum - new maximum): what the sums so far were multiplied by, (...)
    running_sum: np.ndarray  #: the sum of exp(score - running_max) so far, (...)
    result: np.ndarray  #: the softmax of the scores so far, times ``value``, (..., d_v)


def online_softmax(scores: Any, value: Any = None, *, block_size: int = 1) -> Iterator[OnlineSoftmaxStep]:
    """Compute a softmax block by block, showing what is carried from one block to the next.

    A softmax seems to need all its scores twice, once for the maximum and once for the sum. The online softmax
    reads them once: when a block brings a larger maximum, the sums so far are multiplied by one factor that puts
    them on the new footing. ``flash_attention`` is this loop over tiles of many rows.

    Parameters
    ----------
    scores : array_like, shape (..., m)
        The scores of one query, or of several; -inf marks a masked key.
    value : array_like, shape (..., m, d_v), optional
        The values to mix. Without them ``result`` holds the weights themselves, 0 for keys not read yet.
    block_size : int, default 1
        Scores per step; the last block may be shorter.

    Yields
    ------
    OnlineSoftmaxStep
        The state after each block. The last ``result`` is ``softmax(scores) @ value``; every earlier one is the
        same for the keys read so far.

    Raises
    ------
    ValueError
        If ``value`` has not one row for each score, or ``block_size`` is less than 1.
    TypeError
        If an array does not hold real numbers.

    Notes
    -----
    With the scores of one block :math:`s_j` the state :math:`(m, l, o)` becomes

    .. math::

        m' = \\max(m, \\max_j s_j), \\quad
        l' = e^{m - m'} l + \\textstyle\\sum_j e^{s_j - m'}, \\quad
        o' = e^{m - m'} o + \\textstyle\\sum_j e^{s_j - m'} v_j,

    and the result is :math:`o / l`. Time O(m d_v); the state is d_v + 2 numbers whatever m is.

    References
    ----------
    Milakov and Gimelshein (2018), Online normalizer calculation for softmax, algorithm 3.

    Examples
    --------
    >>> import attn_guide as ag
    >>> for step in ag.online_softmax([1.0, 3.0, 2.0]):
    ...     print(f"max {step.running_max:.0f}  rescale {step.rescale:.3f}  sum {step.running_sum:.3f}")
    max 1  rescale 0.000  sum 1.000
    max 3  rescale 0.135  sum 1.135
    max 3  rescale 1.000  sum 1.503
    >>> step.result.round(3)
    array([0.09 , 0.665, 0.245])
    >>> ag.softmax([1.0, 3.0, 2.0]).round(3)
    array([0.09 , 0.665, 0.245])
    """
    s = as_float_array("scores", scores)
    check_ndim("scores", s, 1, "(..., m)")
    dtype = compute_dtype(s)
    v = np.eye(s.shape[-1], dtype=dtype) if value is None else as_float_array("value", value)
    check_ndim("value", v, 2, "(..., m, d_v)")
    if v.shape[-2] != s.shape[-1]:
        raise ValueError(f"value has shape {v.shape}; wanted {s.shape[-1]} rows, one for each score")
    size = check_integer("block_size", block_size, least=1)
    return _online_softmax(s.astype(dtype), v.astype(dtype), size, s.dtype)


def _online_softmax(s: np.ndarray, v: np.ndarray, size: int, out: np.dtype) -> Iterator[OnlineSoftmaxStep]:
    top = np.full(s.shape[:-1], -np.inf, s.dtype)  # (...,) running maximum
    total = np.zeros(s.shape[:-1], s.dtype)  # (...,) running sum of exp(score - top)
    mixed = np.zeros((*s.shape[:-1], v.shape[-1]), s.dtype)  # (..., d_v) the same sum, of values
    for start in range(0, s.shape[-1], size):
        block = slice(start, min(start + size, s.shape[-1]))
        new_top = np.maximum(top, s[..., block].max(axis=-1))
        shift = np.where(new_top == -np.inf, 0.0, new_top)  # nothing allowed yet: keep exp(-inf) = 0
        rescale = np.exp(top - shift)
        e = np.exp(s[..., block] - shift[..., None])
        total = rescale * total + e.sum(axis=-1)
        mixed = rescale[..., None] * mixed + (e[..., None, :] @ v[..., block, :])[..., 0, :]
        top = new_top
        result = mixed / np.where(total == 0.0, 1.0, total)[..., None]
        yield OnlineSoftmaxStep(block, *(x.astype(out) for x in (top, rescale, total, result)))


# ---------------------------------------------------------------------------------------------- forward


def flash_attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    attn_mask: Any = None,
    is_causal: bool = False,
    mask_mod: Callable[..., Any] | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
    block_q: int | None = None,
    block_k: int | None = None,
    return_lse: bool = False,
) -> Any:
    """Attend exactly, one tile of scores at a time: memory grows with the length and not with its square.

    The result is that of ``scaled_dot_product_attention`` up to rounding. Tiles that a mask rules out entirely are
    not computed, so causal attention takes about half the time.

    Parameters
    ----------
    query : array_like, shape (..., h, n, d_k)
    key : array_like, shape (..., h_kv, m, d_k)
    value : array_like, shape (..., h_kv, m, d_v)
        Leading dimensions broadcast.
    attn_mask : array_like, broadcastable to (..., h, n, m), optional
        Booleans, True where a query may attend, or floats that are added to the scores.
    is_causal : bool, default False
        Let query i see keys 0 ... i only (aligned top-left, as PyTorch does).
    mask_mod : Mask or callable, optional
        ``(b, h, q_idx, kv_idx) -> bool``, evaluated tile by tile: no n x m mask is made. A ``Mask`` that is
        ``relative`` is evaluated once per offset.
    scale : float, optional
        Factor of the dot products, 1 / sqrt(d_k) unless given.
    enable_gqa : bool, default False
        Let query head i read key/value head ``i // (h // h_kv)``.
    softcap : float, optional
        Squash scores to ``softcap * tanh(score / softcap)`` before they are masked.
    block_q, block_k : int, default 256 and 512
        Rows and columns of a tile. 256 x 512 float32 scores are half a megabyte: they stay in a core's cache.
        Causal rows default to an eighth of n where that is less, since half of a tile on the diagonal is wasted;
        a tile of fewer rows has as many more columns.
    return_lse : bool, default False
        Return the log-sum-exp of each row too, which the backward pass needs.

    Returns
    -------
    out : numpy.ndarray, shape (..., h, n, d_v)
        In the dtype of the inputs; half precision is accumulated in float32. A row that may see nothing is 0.
    lse : numpy.ndarray, shape (..., h, n)
        Only with ``return_lse``: log of the sum of exp(score), -inf for a row that may see nothing; float64 for
        float64 inputs and float32 otherwise.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, head counts or block sizes do not fit, or ``attn_mask`` holds NaN or +inf.

    See Also
    --------
    scaled_dot_product_attention : The same with all the scores in memory.
    online_softmax : The loop over tiles, step by step.

    Notes
    -----
    Time O(h n m (d_k + d_v)). Beyond the output, memory O((n + m) (d_k + d_v) + block_q block_k) per thread. Heads run
    side by side on as many threads as NumPy's BLAS is set to use.

    References
    ----------
    Dao et al. (2022), FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness, algorithm 1;
    Dao (2023), FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning, algorithm 1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = rng.standard_normal((3, 2, 1000, 16))       # 2 heads, 1000 positions
    >>> out, lse = ag.flash_attention(query, key, value, is_causal=True, return_lse=True)
    >>> out.shape, lse.shape
    ((2, 1000, 16), (2, 1000))
    >>> np.allclose(out, ag.scaled_dot_product_attention(query, key, value, is_causal=True), rtol=1e-12)
    True
    """
    call = prepare(query, key, value, attn_mask, is_causal, mask_mod, scale, enable_gqa, softcap)
    block_q, block_k = _check_blocks(call, block_q, block_k)

    def open_head(at: tuple[int, ...]) -> Head:
        k, v = call.kv(at)
        tiles = cut_keys(k, v, block_k)
        return find_limits(call, k, v), lambda rows: _visible_tiles(call, tiles, at, rows)

    out, lse = attend_heads(call, block_q, open_head)
    return (out, lse) if return_lse else out


def _check_blocks(call: Call, block_q: int | None, block_k: int | None) -> tuple[int, int]:
    """Return the size of a tile, chosen here where it is not given."""
    if block_q is None:
        block_q = max(64, min(256, call.n // 8)) if call.is_causal else 256
    if block_k is None:
        block_k = max(512, 256 * 512 // check_integer("block_q", block_q, least=1))
    return check_integer("block_q", block_q, least=1), check_integer("block_k", block_k, least=1)


def attend_heads(
    call: Call, block_q: int, open_head: Callable[[tuple[int, ...]], Head], stride: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Run all heads on the thread pool; return the output (..., n, d_v) and log-sum-exp (..., n).

    ``open_head(at)`` gives the limits of head ``at`` and the function that lists the tiles a block of ``block_q``
    queries, ``stride`` apart, sees.
    """
    out = np.zeros((*call.lead, call.n, call.d_v), call.dtype)
    lse = np.full((*call.lead, call.n), -np.inf, call.compute)

    def attend_span(task: tuple[tuple[int, ...], range]) -> None:
        at, span = task
        limits, tiles_of = open_head(at)
        memory = Memory(call.compute)
        # What is done once for all rows of a span is not done once a block: threads meet between any two steps.
        q = call.scaled_query(at, slice(span.start, span.stop, span.step))  # (r, d_k)
        length = np.sqrt(np.einsum("nd,nd->n", q, q))  # (r,)
        sums = Sums.of_nothing(len(span), call.d_v, call.compute)
        for start, rows in zip(range(0, len(span), block_q), cut(span, block_q), strict=True):
            part = slice(start, start + block_q)
            safe = _safe_without_maximum(length[part], limits, call.softcap)
            attend_tiles(q[part], tiles_of(rows), sums.rows(part), call.softcap, memory, with_maximum=not safe)
        where = slice(span.start, span.stop, span.step)
        out[at][where], lse[at][where] = sums.finish()

    parallel(attend_span, _spans(call, block_q, stride))
    return out, lse


class Sums(NamedTuple):
    """What the rows of a span carry along from tile to tile."""

    top: np.ndarray  # (r,) the largest score so far, or 0 where none is looked for; scores are powers of two
    total: np.ndarray  # (r,) the sum of 2**(score - top)
    mixed: np.ndarray  # (r, d_v) the same sum, of values

    @classmethod
    def of_nothing(cls, r: int, d_v: int, dtype: np.dtype) -> Sums:
        return cls(np.zeros(r, dtype), np.zeros(r, dtype), np.zeros((r, d_v), dtype))

    def rows(self, part: slice) -> Sums:
        """Return views of some of the rows."""
        return Sums(self.top[part], self.total[part], self.mixed[part])

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs (r, d_v) and log-sum-exps (r,); a row that has seen nothing is 0 and -inf."""
        seen = self.total != 0.0
        lse = np.full_like(self.total, -np.inf)
        np.log(self.total, out=lse, where=seen)
        lse += _finite(self.top) * self.top.dtype.type(_LN_2)
        return np.divide(self.mixed, np.where(seen, self.total, 1.0)[:, None], out=self.mixed), lse


class Memory:
    """What the tiles of one thread are written into, one after the other: fresh memory for each is slower."""

    def __init__(self, dtype: np.dtype) -> None:
        self._scores, self._ones = np.empty(0, dtype), np.empty(0, dtype)

    def take(self, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return room for the scores (r, c) of a tile, and a vector (c,) of ones."""
        if self._scores.size < rows * columns:
            self._scores = np.empty(rows * columns, self._scores.dtype)
        if self._ones.size < columns:
            self._ones = np.ones(columns, self._ones.dtype)
        return self._scores[: rows * columns].reshape(rows, columns), self._ones[:columns]


def attend_tiles(
    q: np.ndarray, tiles: Iterable[Tile], sums: Sums, softcap: float | None, memory: Memory, *, with_maximum: bool
) -> None:
    """Let the rows of ``q`` attend to a stream of tiles, which are added to ``sums``.

    ``q`` (r, d_k) comes multiplied by ``scale * log2 e``, so that scores are powers of two: ``exp2`` is the
    cheapest exponential. The maximum may be left out where no score can overflow.
    """
    top, total, mixed = sums
    if with_maximum:
        top.fill(-np.inf)
    for tile in tiles:
        scratch, ones = memory.take(len(q), len(tile.value))
        s = _biased(_capped_scores(q, tile, softcap, scratch), tile)  # (r, c)
        if with_maximum:
            if tile.allowed is not None:
                np.copyto(tile.edge(s), -np.inf, where=~tile.allowed)
            new_top = np.maximum(top, s.max(axis=1))
            shift = _finite(new_top)
            s -= shift[:, None]
            rescale = np.exp2(top - shift)
            total *= rescale
            mixed *= rescale[:, None]
            top[:] = new_top
        p = np.exp2(s, out=s)
        if tile.allowed is not None and not with_maximum:
            edge = tile.edge(p)
            edge *= tile.allowed
        total += p @ ones
        mixed += p @ tile.value


def _capped_scores(q: np.ndarray, tile: Tile, softcap: float | None, out: np.ndarray | None = None) -> np.ndarray:
    """Return the scores (r, c) of one tile as powers of two, soft-capped."""
    s = np.matmul(q, tile.key_t, out=out)
    if softcap is not None:
        cap = q.dtype.type(softcap * _LOG2_E)
        s /= cap
        np.tanh(s, out=s)
        s *= cap
    return s


def _biased(s: np.ndarray, tile: Tile) -> np.ndarray:
    """Add the bias of the tile, which comes in units of e, to its scores."""
    if tile.bias is not None:
        s += tile.bias * s.dtype.type(_LOG2_E)
    return s


def _finite(top: np.ndarray) -> np.ndarray:
    """Return the maximum, and 0 for a row that has seen nothing, so that -inf - top stays -inf and not NaN."""
    return np.where(top == -np.inf, top.dtype.type(0.0), top)


def _safe_without_maximum(length: np.ndarray, limits: Limits, softcap: float | None) -> bool:
    """Say whether every score of queries of this ``length`` (r,) is so near zero that 2**score can be summed as it is.

    By Cauchy and Schwarz no score exceeds the longest query times the longest key. With p between 2**-32 and
    2**32, and values neither huge nor tiny, neither a sum nor a product leaves the range of float32. Then the
    two passes that find and subtract the maximum, a sixth of the time of a tile, change nothing. A NaN fails
    the comparison and takes the careful path.
    """
    bound = float(length.max(initial=0.0)) * limits.longest_key
    if softcap is not None:
        bound = min(bound, softcap * _LOG2_E)
    return bound <= 32.0 and limits.plain_values


# ---------------------------------------------------------------------------------------------- backward


def flash_attention_backward(
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    lse: Any,
    *,
    attn_mask: Any = None,
    is_causal: bool = False,
    mask_mod: Callable[..., Any] | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
    block_q: int | None = None,
    block_k: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of ``flash_attention``, making each tile of weights again from the log-sum-exp.

    Parameters
    ----------
    grad_out : array_like, shape (..., h, n, d_v)
        Gradient of the loss with respect to the output.
    query, key, value : array_like
        As given to ``flash_attention``.
    out, lse : array_like, shapes (..., h, n, d_v) and (..., h, n)
        What ``flash_attention`` returned with ``return_lse=True``.
    attn_mask, is_causal, mask_mod, scale, enable_gqa, softcap, block_q, block_k
        As given to ``flash_attention``.

    Returns
    -------
    grad_query, grad_key, grad_value : numpy.ndarray
        The shapes and dtypes of query, key and value. Where an input was broadcast, or one key/value head serves a
        group of query heads, the gradients add up. A query that may see nothing gets gradient 0.

    Raises
    ------
    ValueError, TypeError
        As in ``flash_attention``, and if ``grad_out``, ``out`` or ``lse`` has not the shape of the output.

    See Also
    --------
    scaled_dot_product_attention_backward : The same gradients from the whole matrix of weights.

    Notes
    -----
    The weights come back as :math:`P_{ij} = e^{S_{ij} - L_i}`. The softmax needs :math:`\\sum_k P_{ik} dP_{ik}` over
    *all* keys before the first tile is done; it equals :math:`D_i = \\sum_c dO_{ic} O_{ic}`, which is known:

    .. math::

        dV = P^\\top dO, \\quad dS_{ij} = P_{ij} \\bigl((dO\\, V^\\top)_{ij} - D_i\\bigr), \\quad
        dQ = dS\\, K / \\sqrt{d_k}, \\quad dK = dS^\\top Q / \\sqrt{d_k}.

    Five products per tile where the forward pass has two. Memory O(h (n + m) (d_k + d_v)).

    References
    ----------
    Dao (2023), FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning, algorithm 2.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> query, key, value, grad_out = rng.standard_normal((4, 100, 16))
    >>> out, lse = ag.flash_attention(query, key, value, return_lse=True)
    >>> grads = ag.flash_attention_backward(grad_out, query, key, value, out, lse)
    >>> dense = ag.scaled_dot_product_attention_backward(grad_out, query, key, value)
    >>> [bool(np.allclose(a, b, rtol=1e-10)) for a, b in zip(grads, dense)]
    [True, True, True]
    """
    call = prepare(query, key, value, attn_mask, is_causal, mask_mod, scale, enable_gqa, softcap)
    block_q, block_k = _check_blocks(call, block_q, block_k)
    shape = (*call.lead, call.n, call.d_v)
    g, o = (_saved(name, x, shape) for name, x in (("grad_out", grad_out), ("out", out)))
    log_sum = _saved("lse", lse, shape[:-1])
    dq = np.zeros(call.q.shape, call.compute)
    dk, dv = np.zeros(call.k.shape, call.compute), np.zeros(call.v.shape, call.compute)

    def differentiate_group(kv: tuple[int, ...]) -> None:
        for at in call.query_heads(kv):  # they share dk and dv, so one thread adds them up
            key_tiles = cut_keys(*call.kv(at), block_k)
            for rows in cut(range(call.n), block_q):
                q, tiles = call.scaled_query(at, rows), _visible_tiles(call, key_tiles, at, rows)
                g_r, o_r, lse_r = (x[at][rows].astype(call.compute, copy=False) for x in (g, o, log_sum))
                dq[at][rows] = _differentiate_rows(q, tiles, g_r, o_r, lse_r, call, dk[kv], dv[kv])

    parallel(differentiate_group, list(np.ndindex(call.k.shape[:-2])))
    inputs = (as_float_array(*x) for x in (("query", query), ("key", key), ("value", value)))
    dq_, dk_, dv_ = (_sum_to(d, x.shape).astype(x.dtype) for d, x in zip((dq, dk, dv), inputs, strict=True))
    return dq_, dk_, dv_


def _differentiate_rows(
    q: np.ndarray,
    tiles: Iterable[Tile],
    grad_out: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    call: Call,
    dk: np.ndarray,
    dv: np.ndarray,
) -> np.ndarray:
    """Return the gradient (r, d_k) of one block of queries, and add to those of the keys and values it saw."""
    dq = np.zeros_like(q)
    delta = np.einsum("nd,nd->n", grad_out, out)[:, None]  # (r, 1): the sum over all keys of p * dp
    log2_sum = _finite(lse)[:, None] * q.dtype.type(_LOG2_E)
    q_scaled = q * q.dtype.type(_LN_2)  # the factor log2 e belongs to the exponential, not to the scores
    for tile in tiles:
        s = _capped_scores(q, tile, call.softcap)  # (r, c)
        slope = None if call.softcap is None else 1.0 - np.square(s / q.dtype.type(call.softcap * _LOG2_E))
        s = _biased(s, tile) - log2_sum
        p = np.exp2(np.minimum(s, 0.0))  # a weight is at most 1; a masked score could be more, and overflow
        if tile.allowed is not None:
            edge = tile.edge(p)
            edge *= tile.allowed
        dv[tile.keys] += p.T @ grad_out
        ds = p * (grad_out @ tile.value.T - delta)  # (r, c): back through the softmax
        if slope is not None:
            ds *= slope
        dq += ds @ tile.key_t.T
        dk[tile.keys] += ds.T @ q_scaled
    return dq * q.dtype.type(call.scale)


def _saved(name: str, x: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of the forward pass after checking its shape."""
    array = as_float_array(name, x)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; wanted {shape}, as flash_attention returned it")
    return array


def _sum_to(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum over the dimensions along which an array of ``shape`` was broadcast."""
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    return x.sum(axis=tuple(i for i, size in enumerate(shape) if size != x.shape[i]), keepdims=True)


# ------------------------------------------------------------------------------------------------ tiles


class Tile(NamedTuple):
    """A run of keys as one block of queries sees it."""

    keys: Any  # slice or indices into the keys
    key_t: np.ndarray  # (d_k, c)
    value: np.ndarray  # (c, d_v)
    bias: np.ndarray | None = None  # (r, c), added to the scores
    allowed: np.ndarray | None = None  # (r, a) or (a,), True = may attend; the last a keys, all see those before

    def edge(self, s: np.ndarray) -> np.ndarray:
        """Return the columns (r, a) of a tile of scores that ``allowed`` is about."""
        assert self.allowed is not None
        return s[:, s.shape[1] - self.allowed.shape[-1] :]


class Limits(NamedTuple):
    """What bounds the scores and products of a head whatever the query is."""

    longest_key: float
    plain_values: bool


#: What ``open_head`` returns: the limits of a head, and rows -> the tiles that they see.
Head: TypeAlias = tuple[Limits, Callable[[slice], Iterable[Tile]]]


def find_limits(call: Call, k: np.ndarray, v: np.ndarray) -> Limits:
    """Return the length of the longest key, and whether each column of values is 0 or of ordinary size."""
    if call.bias is not None:
        return Limits(np.inf, False)  # a bias may take a score anywhere
    longest = float(np.sqrt(np.max(np.einsum("md,md->m", k, k), initial=0.0)))
    size = np.maximum(v.max(axis=0, initial=0.0), -v.min(axis=0, initial=0.0))  # (d_v,)
    return Limits(longest, bool(np.all((size == 0.0) | ((size > 1e-20) & (size < 1e20)))))


def cut(span: range, size: int) -> list[slice]:
    """Cut a range of positions into slices of ``size`` positions."""
    step = size * span.step
    return [slice(i, min(i + step, span.stop), span.step) for i in range(span.start, span.stop, step)]


def cut_keys(k: np.ndarray, v: np.ndarray, step: int) -> list[Tile]:
    """Cut the keys and values of a head into tiles, keys transposed so that products read them in order."""
    return [Tile(keys, np.ascontiguousarray(k[keys].T), v[keys]) for keys in cut(range(len(k)), step)]


def _visible_tiles(call: Call, tiles: list[Tile], at: tuple[int, ...], rows: slice) -> Iterator[Tile]:
    """Yield the tiles of which the query rows see anything, each with what masks it."""
    causal_only = call.bias is None and call.allowed is None and call.mask_mod is None
    for tile in tiles:
        if call.is_causal:
            if tile.keys.start >= rows.stop:
                return
            tile = _keys_before(tile, rows.stop)
        if not causal_only:
            masked = mask_tile(call, tile, at, rows)
            if masked is not None:
                yield masked
        elif call.is_causal:
            yield _mask_above_diagonal(tile, rows)
        else:
            yield tile


def _keys_before(tile: Tile, stop: int) -> Tile:
    """Cut off the keys from ``stop`` on."""
    start = tile.keys.start
    size = min(tile.keys.stop, stop) - start
    return Tile(slice(start, start + size, 1), tile.key_t[:, :size], tile.value[:size])


def _mask_above_diagonal(tile: Tile, rows: slice) -> Tile:
    """Mask the keys that some of the rows may not see: those after the first row, at the end of the tile if at all."""
    late = np.arange(max(tile.keys.start, rows.start + 1), tile.keys.stop)  # (a,)
    return tile._replace(allowed=np.arange(rows.start, rows.stop)[:, None] >= late) if late.size else tile


def mask_tile(call: Call, tile: Tile, at: tuple[int, ...], rows: slice) -> Tile | None:
    """Return the tile with its bias and mask added, or None if the rows see none of it."""
    bias, allowed = None, tile.allowed
    if call.bias is not None:
        bias = call.bias[at][rows, tile.keys]
        if bias.max() == -np.inf:
            return None
    for mask, cells in call.masks(at, rows, tile.keys):
        if not cells.any():
            return None
        if not cells.all():
            allowed = mask if allowed is None else allowed & mask
    return tile._replace(bias=bias, allowed=allowed)


def _spans(call: Call, block_q: int, stride: int = 1) -> list[tuple[tuple[int, ...], range]]:
    """Return the work as (head, query rows): whole heads, or parts of heads where there are few heads.

    Late causal rows see the most keys, so they go first and the short pieces fill the gaps at the end. With a
    ``stride`` each span holds every stride-th row.
    """
    heads = list(np.ndindex(call.lead))
    pieces = ceil(2 * num_threads() / max(1, len(heads) * stride))
    size = block_q * ceil(call.n / (pieces * block_q * stride)) * stride
    starts = reversed(range(0, call.n, max(1, size)))
    spans = [range(a + r, min(a + size, call.n), stride) for a in starts for r in range(stride)]
    return [(at, span) for span in spans for at in heads if span]


# ------------------------------------------------------------------------------------------ the arguments


class Call(NamedTuple):
    """The checked arguments of one call; arrays are views of what the caller passed."""

    q: np.ndarray  # (*lead, n, d_k)
    k: np.ndarray  # (*lead_kv, m, d_k)
    v: np.ndarray  # (*lead_kv, m, d_v)
    lead: tuple[int, ...]  # leading dimensions of the output, heads last
    group: int  # query heads per key/value head
    scale: float
    softcap: float | None
    bias: np.ndarray | None  # (*lead, n, m)
    allowed: np.ndarray | None  # (*lead, n, m)
    mask_mod: Callable[..., Any] | None
    is_causal: bool
    dtype: np.dtype  # the caller's
    compute: np.dtype

    @property
    def n(self) -> int:
        return self.q.shape[-2]

    @property
    def d_v(self) -> int:
        return self.v.shape[-1]

    def kv_at(self, at: tuple[int, ...]) -> tuple[int, ...]:
        """Return the key/value head that query head ``at`` reads."""
        return at if self.group == 1 else (*at[:-1], at[-1] // self.group)

    def query_heads(self, kv: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the query heads that read key/value head ``kv``."""
        return [(*kv[:-1], kv[-1] * self.group + i) for i in range(self.group)] if kv else [()]

    def kv(self, at: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys (m, d_k) and values (m, d_v) of query head ``at``."""
        kv = self.kv_at(at)
        return self.k[kv].astype(self.compute, copy=False), self.v[kv].astype(self.compute, copy=False)

    def scaled_query(self, at: tuple[int, ...], rows: slice) -> np.ndarray:
        """Return query rows (r, d_k) such that their products with keys are scores as powers of two."""
        return self.q[at][rows].astype(self.compute, copy=False) * self.compute.type(self.scale * _LOG2_E)

    def batch_and_head(self, at: tuple[int, ...]) -> tuple[int, int]:
        """Return the b and h that a ``mask_mod`` is called with: b counts through all dimensions before the heads."""
        b = int(np.ravel_multi_index(at[:-1], self.lead[:-1])) if len(at) > 1 else 0
        return b, at[-1] if at else 0

    def masks(self, at: tuple[int, ...], rows: slice, keys: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield each boolean mask of one tile: (r, c), and the cells that tell whether it is all True or all False.

        ``keys`` is a slice or an array of indices.
        """
        q_idx = np.arange(rows.start, rows.stop, rows.step)
        kv_idx = np.arange(keys.start, keys.stop, keys.step) if isinstance(keys, slice) else keys
        if self.is_causal and kv_idx[-1] > rows.start:
            mask = q_idx[:, None] >= kv_idx
            yield mask, mask
        if self.allowed is not None:
            mask = self.allowed[at][rows, keys]
            yield mask, mask
        if self.mask_mod is not None:
            b, h = self.batch_and_head(at)
            stride = rows.step if isinstance(keys, slice) and keys.step == rows.step else 0
            yield _evaluate(self.mask_mod, b, h, q_idx, kv_idx, stride)


def _is_relative(mask_mod: Any, q_idx: np.ndarray, kv_idx: np.ndarray) -> bool:
    """Say whether a predicate is known to depend on kv - q alone in this tile."""
    return getattr(mask_mod, "relative", False) and not (
        any(q_idx[0] <= row <= q_idx[-1] for row in mask_mod.special_rows)
        or any(kv_idx[0] <= key <= kv_idx[-1] for key in mask_mod.special_keys)
    )


def _evaluate(
    mask_mod: Callable[..., Any], b: int, h: int, q_idx: np.ndarray, kv_idx: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a predicate on one tile, as ``masks`` does; rows and keys are ``stride`` apart, or 0 where not."""
    if stride and _is_relative(mask_mod, q_idx, kv_idx):
        # The predicate depends on kv - q alone, so the first column, read upwards, and the first row fill the tile:
        # a window of c cells that slides along them holds one row after the other.
        q = np.concatenate([q_idx[::-1], np.full(kv_idx.size - 1, q_idx[0])])  # (r + c - 1,)
        kv = np.concatenate([np.full(q_idx.size, kv_idx[0]), kv_idx[1:]])
        edge = as_mask("mask_mod", mask_mod(b, h, q, kv), (1, q.size), boolean=True)
        return sliding_window_view(edge[0], kv_idx.size)[::-1], edge
    cells = mask_mod(b, h, q_idx[:, None], kv_idx[None, :])
    mask = as_mask("mask_mod", cells, (q_idx.size, kv_idx.size), boolean=True)
    return mask, mask


def prepare(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    is_causal: bool = False,
    mask_mod: Callable[..., Any] | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
) -> Call:
    check_function("mask_mod", mask_mod, "b, h, q_idx, kv_idx")
    q, k, v = check_attention_inputs(query, key, value, enable_gqa=enable_gqa)
    split = -3 if enable_gqa else -2
    lead = np.broadcast_shapes(*(x.shape[:split] for x in (q, k, v)))
    kv_lead = (*lead, k.shape[-3]) if enable_gqa else lead
    lead = (*lead, q.shape[-3]) if enable_gqa else lead
    n, m, compute = q.shape[-2], k.shape[-2], compute_dtype(q)
    bias = allowed = None
    if attn_mask is not None:
        mask = as_mask("attn_mask", attn_mask, (*lead, n, m))
        mask = np.broadcast_to(mask, (*lead, n, m))
        bias, allowed = (None, mask) if mask.dtype == bool else (mask, None)
    return Call(
        np.broadcast_to(q, (*lead, *q.shape[-2:])),
        np.broadcast_to(k, (*kv_lead, *k.shape[-2:])),
        np.broadcast_to(v, (*kv_lead, *v.shape[-2:])),
        lead,
        q.shape[-3] // k.shape[-3] if enable_gqa else 1,
        1.0 / sqrt(q.shape[-1]) if scale is None else check_finite("scale", scale),
        check_softcap(softcap, np.finfo(compute)),
        bias,
        allowed,
        mask_mod,
        bool(is_causal),
        q.dtype,
        compute,
    )
