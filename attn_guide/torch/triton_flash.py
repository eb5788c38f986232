# mypy: disable-error-code="no-untyped-def"
# (the arguments of a kernel are pointers and tiles, for which Python has no types)
"""FlashAttention as three Triton kernels: forward, gradient of keys and values, gradient of queries.

One program makes one tile of the result and walks over the tiles of the other side that it can see. No matrix of
scores is ever stored. The kernels run on a GPU, and on a CPU in Triton's interpreter, which is slow and exact: set
``TRITON_INTERPRET=1`` before anything imports triton.

Heads and batches are one dimension here, b. Query head ``i`` reads key/value head ``i // GROUP``. The mask is a
band: query ``i`` sees the keys ``i - left ... i + right``. Causal attention is the band with ``right = 0``.
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from .._checks import check_finite, check_integer, check_positive

__all__ = ["flash_attention"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)


# ------------------------------------------------------------------------------------- parts of the kernels


@triton.jit
def _load(start, rows, n, width: tl.constexpr, WIDTH: tl.constexpr):
    """Return rows of a matrix (n, width) as a tile (rows, WIDTH), zero past its end."""
    columns = tl.arange(0, WIDTH)
    inside = (rows < n)[:, None] & (columns < width)[None, :]
    pointers = start + rows[:, None] * width + columns[None, :]
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def _store(start, tile, rows, n, width: tl.constexpr, WIDTH: tl.constexpr):
    """Write a tile (rows, WIDTH) into a matrix (n, width)."""
    columns = tl.arange(0, WIDTH)
    inside = (rows < n)[:, None] & (columns < width)[None, :]
    pointers = start + rows[:, None] * width + columns[None, :]
    tl.store(pointers, tile.to(start.dtype.element_ty), mask=inside)


@triton.jit
def _limits(first, last, before, after, n, BLOCK: tl.constexpr):
    """Return where the keys of rows first ... last begin, are full, no longer, and end.

    Row i sees i - before ... i + after, within 0 ... n - 1. In tiles between the middle
    two every row sees everything, so that no mask is needed there.
    """
    end = tl.minimum(last + after + 1, n)
    start = tl.maximum(first - before, 0) // BLOCK * BLOCK
    start = tl.minimum(start, tl.maximum(end, 0))
    full_start = (tl.maximum(last - before, 0) + BLOCK - 1) // BLOCK * BLOCK
    full_end = tl.maximum(tl.minimum(first + after + 1, n), 0) // BLOCK * BLOCK
    full_start = tl.minimum(full_start, tl.maximum(full_end, start))
    return start, full_start, tl.maximum(full_end, full_start), end


@triton.jit
def _scores(a, b, scale, softcap, SOFTCAP: tl.constexpr):
    """Return scores in units of log2, and their slope under the soft cap."""
    s = tl.dot(a, tl.trans(b), input_precision="ieee")
    if SOFTCAP:
        # tanh(s * scale / softcap), by way of the sigmoid
        t = 2.0 * tl.sigmoid(s * (2.0 * scale / softcap)) - 1.0
        return t * (softcap * _LOG2_E), 1.0 - t * t
    else:
        return s * (scale * _LOG2_E), 1.0


@triton.jit
def _visible(rows, keys, n, m, left, right):
    """Return the band on one tile; rows and keys spread along a dimension each."""
    return (keys >= rows - left) & (keys <= rows + right) & (rows < n) & (keys < m)


# --------------------------------------------------------------------------------------------------- forward


@triton.jit
def _forward_tile(
    mixed, total, top, q, K, V, start, rows, n, m, scale, softcap, left, right,
    d_k: tl.constexpr, d_v: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr,
    BLOCK_K: tl.constexpr, SOFTCAP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax: take in one tile of keys and values."""
    keys = start + tl.arange(0, BLOCK_K)
    k = _load(K, keys, m, d_k, D_K)
    v = _load(V, keys, m, d_v, D_V)
    s, _ = _scores(q, k, scale, softcap, SOFTCAP)  # (BLOCK_Q, BLOCK_K)
    if MASKED:
        visible = _visible(rows[:, None], keys[None, :], n, m, left, right)
        s = tl.where(visible, s, -float("inf"))
    new_top = tl.maximum(top, tl.max(s, 1))
    # Where nothing has been seen yet, exp2(-inf) is to stay 0.
    shift = tl.where(new_top == -float("inf"), 0.0, new_top)
    p = tl.exp2(s - shift[:, None])
    rescale = tl.exp2(top - shift)
    total = total * rescale + tl.sum(p, 1)
    mixed = tl.dot(p.to(v.dtype), v, mixed * rescale[:, None], input_precision="ieee")
    return mixed, total, new_top


@triton.jit
def _forward(
    Q, K, V, Out, Lse, n, m, scale, softcap, left, right,
    d_k: tl.constexpr, d_v: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Make BLOCK_Q rows of the output of one head."""
    # The last rows see most under a causal mask: begin with them.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)  # b n d may not fit 32 bits
    K += head // GROUP * m * d_k
    V += head // GROUP * m * d_v
    rows = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    q = _load(Q + head * n * d_k, rows, n, d_k, D_K)  # (BLOCK_Q, D_K), kept on the chip

    top = tl.full([BLOCK_Q], -float("inf"), tl.float32)  # the largest score of each row
    total = tl.zeros([BLOCK_Q], tl.float32)  # the sum of exp2(score - top)
    mixed = tl.zeros([BLOCK_Q, D_V], tl.float32)  # the same sum, of values

    first, last = block * BLOCK_Q, tl.minimum(block * BLOCK_Q + BLOCK_Q, n) - 1
    start, full_start, full_end, end = _limits(first, last, left, right, m, BLOCK_K)
    for at in range(start, full_start, BLOCK_K):
        mixed, total, top = _forward_tile(
            mixed, total, top, q, K, V, at, rows, n, m, scale, softcap, left, right,
            d_k, d_v, D_K, D_V, BLOCK_K, SOFTCAP, True,
        )  # fmt: skip
    for at in range(full_start, full_end, BLOCK_K):
        mixed, total, top = _forward_tile(
            mixed, total, top, q, K, V, at, rows, n, m, scale, softcap, left, right,
            d_k, d_v, D_K, D_V, BLOCK_K, SOFTCAP, False,
        )  # fmt: skip
    for at in range(full_end, end, BLOCK_K):
        mixed, total, top = _forward_tile(
            mixed, total, top, q, K, V, at, rows, n, m, scale, softcap, left, right,
            d_k, d_v, D_K, D_V, BLOCK_K, SOFTCAP, True,
        )  # fmt: skip

    empty = total == 0.0  # a row that may see nothing gives 0
    total = tl.where(empty, 1.0, total)
    _store(Out + head * n * d_v, mixed / total[:, None], rows, n, d_v, D_V)
    lse = tl.where(empty, -float("inf"), (top + tl.log2(total)) * _LN_2)
    tl.store(Lse + head * n + rows, lse, mask=rows < n)


# -------------------------------------------------------------------------------------------------- backward


@triton.jit
def _gradient_tile(
    a, b, c, d, lse, delta, visible, scale, softcap,
    SOFTCAP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Return the weights of one tile, and the gradient of its raw scores.

    With (a, b, c, d) = (q, k, dout, v) the tile has queries down and keys across; with
    (k, q, v, dout) it is the transpose. lse and delta spread along the queries in both.
    """
    s, slope = _scores(a, b, scale, softcap, SOFTCAP)
    p = tl.exp2(s - lse * _LOG2_E)  # the weights again, with no online softmax
    if MASKED:
        p = tl.where(visible, p, 0.0)
    dp = tl.dot(c, tl.trans(d), input_precision="ieee")
    return p, p * (dp - delta) * slope


@triton.jit
def _key_value_tile(
    dk, dv, k, v, Q, DOut, Lse, Delta, start, keys, n, m, scale, softcap, left, right,
    d_k: tl.constexpr, d_v: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, SOFTCAP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Add what one tile of queries asks of these keys and values."""
    rows = start + tl.arange(0, BLOCK_Q)
    q = _load(Q, rows, n, d_k, D_K)
    dout = _load(DOut, rows, n, d_v, D_V)
    lse = tl.load(Lse + rows, mask=rows < n, other=0.0)[None, :]
    delta = tl.load(Delta + rows, mask=rows < n, other=0.0)[None, :]
    visible = _visible(rows[None, :], keys[:, None], n, m, left, right)
    p, ds = _gradient_tile(  # both (BLOCK_K, BLOCK_Q)
        k, q, v, dout, lse, delta, visible, scale, softcap, SOFTCAP, MASKED,
    )  # fmt: skip
    dv = tl.dot(p.to(dout.dtype), dout, dv, input_precision="ieee")
    dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def _backward_key_value(
    Q, K, V, DOut, Lse, Delta, DK, DV, n, m, scale, softcap, left, right,
    d_k: tl.constexpr, d_v: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Make BLOCK_K rows of the gradients of one key/value head, from all its query heads."""
    block, kv_head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    keys = block * BLOCK_K + tl.arange(0, BLOCK_K)
    k = _load(K + kv_head * m * d_k, keys, m, d_k, D_K)
    v = _load(V + kv_head * m * d_v, keys, m, d_v, D_V)
    dk = tl.zeros([BLOCK_K, D_K], tl.float32)
    dv = tl.zeros([BLOCK_K, D_V], tl.float32)

    # Key j is seen by the queries j - right ... j + left: the band from the other side.
    first, last = block * BLOCK_K, tl.minimum(block * BLOCK_K + BLOCK_K, m) - 1
    start, full_start, full_end, end = _limits(first, last, right, left, n, BLOCK_Q)
    for head in range(kv_head * GROUP, kv_head * GROUP + GROUP):
        q, dout = Q + head * n * d_k, DOut + head * n * d_v
        lse, delta = Lse + head * n, Delta + head * n
        for at in range(start, full_start, BLOCK_Q):
            dk, dv = _key_value_tile(
                dk, dv, k, v, q, dout, lse, delta, at, keys, n, m, scale, softcap,
                left, right, d_k, d_v, D_K, D_V, BLOCK_Q, SOFTCAP, True,
            )  # fmt: skip
        for at in range(full_start, full_end, BLOCK_Q):
            dk, dv = _key_value_tile(
                dk, dv, k, v, q, dout, lse, delta, at, keys, n, m, scale, softcap,
                left, right, d_k, d_v, D_K, D_V, BLOCK_Q, SOFTCAP, False,
            )  # fmt: skip
        for at in range(full_end, end, BLOCK_Q):
            dk, dv = _key_value_tile(
                dk, dv, k, v, q, dout, lse, delta, at, keys, n, m, scale, softcap,
                left, right, d_k, d_v, D_K, D_V, BLOCK_Q, SOFTCAP, True,
            )  # fmt: skip
    _store(DK + kv_head * m * d_k, dk * scale, keys, m, d_k, D_K)
    _store(DV + kv_head * m * d_v, dv, keys, m, d_v, D_V)


@triton.jit
def _query_tile(
    dq, q, dout, lse, delta, K, V, start, rows, n, m, scale, softcap, left, right,
    d_k: tl.constexpr, d_v: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr,
    BLOCK_K: tl.constexpr, SOFTCAP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Add what one tile of keys asks of these queries."""
    keys = start + tl.arange(0, BLOCK_K)
    k = _load(K, keys, m, d_k, D_K)
    v = _load(V, keys, m, d_v, D_V)
    visible = _visible(rows[:, None], keys[None, :], n, m, left, right)
    _, ds = _gradient_tile(  # (BLOCK_Q, BLOCK_K)
        q, k, dout, v, lse, delta, visible, scale, softcap, SOFTCAP, MASKED,
    )  # fmt: skip
    return tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")


@triton.jit
def _backward_query(
    Q, K, V, DOut, Lse, Delta, DQ, n, m, scale, softcap, left, right,
    d_k: tl.constexpr, d_v: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Make BLOCK_Q rows of the gradient of the queries of one head."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    K += head // GROUP * m * d_k
    V += head // GROUP * m * d_v
    rows = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    q = _load(Q + head * n * d_k, rows, n, d_k, D_K)
    dout = _load(DOut + head * n * d_v, rows, n, d_v, D_V)
    lse = tl.load(Lse + head * n + rows, mask=rows < n, other=0.0)[:, None]
    delta = tl.load(Delta + head * n + rows, mask=rows < n, other=0.0)[:, None]
    dq = tl.zeros([BLOCK_Q, D_K], tl.float32)

    first, last = block * BLOCK_Q, tl.minimum(block * BLOCK_Q + BLOCK_Q, n) - 1
    start, full_start, full_end, end = _limits(first, last, left, right, m, BLOCK_K)
    for at in range(start, full_start, BLOCK_K):
        dq = _query_tile(
            dq, q, dout, lse, delta, K, V, at, rows, n, m, scale, softcap, left, right,
            d_k, d_v, D_K, D_V, BLOCK_K, SOFTCAP, True,
        )  # fmt: skip
    for at in range(full_start, full_end, BLOCK_K):
        dq = _query_tile(
            dq, q, dout, lse, delta, K, V, at, rows, n, m, scale, softcap, left, right,
            d_k, d_v, D_K, D_V, BLOCK_K, SOFTCAP, False,
        )  # fmt: skip
    for at in range(full_end, end, BLOCK_K):
        dq = _query_tile(
            dq, q, dout, lse, delta, K, V, at, rows, n, m, scale, softcap, left, right,
            d_k, d_v, D_K, D_V, BLOCK_K, SOFTCAP, True,
        )  # fmt: skip
    _store(DQ + head * n * d_k, dq * scale, rows, n, d_k, D_K)


# ------------------------------------------------------------------------------------------------- the call


def flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    is_causal: bool = False,
    window: tuple[int, int] | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    softcap: float | None = None,
    block_q: int = 64,
    block_k: int = 64,
    return_lse: bool = False,
) -> Any:
    """Attend exactly in one kernel, and differentiate in two, without a matrix of scores in memory.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n, d_k)
    key : torch.Tensor, shape (..., h_kv, m, d_k)
    value : torch.Tensor, shape (..., h_kv, m, d_v)
        float16, bfloat16 or float32, with the same leading dimensions.
    is_causal : bool, default False
        Let query i see keys 0 ... i only (aligned top-left, as PyTorch does).
    window : tuple of int, optional
        ``(left, right)``: let query i see keys i - left ... i + right only, as ``sliding_window`` counts.
    scale : float, optional
        Factor of the dot products, 1 / sqrt(d_k) unless given.
    enable_gqa : bool, default False
        Let query head i read key/value head ``i // (h // h_kv)``, which is not repeated in memory.
    softcap : float, optional
        Squash scores to ``softcap * tanh(score / softcap)`` before they are masked.
    block_q, block_k : int, default 64
        Rows and columns of a tile: powers of two, 16 or more.
    return_lse : bool, default False
        Return the log-sum-exp of each row too; it carries no gradient.

    Returns
    -------
    out : torch.Tensor, shape (..., h, n, d_v)
        In the dtype of the inputs, accumulated in float32. A row that may see nothing is 0.
    lse : torch.Tensor, shape (..., h, n)
        Only with ``return_lse``: float32, -inf for a row that may see nothing.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, head counts or block sizes do not fit.
    RuntimeError
        If the tensors are on a CPU and Triton does not run in its interpreter.

    Notes
    -----
    Time O(b h n m (d_k + d_v)), or O(b h n (left + right) (d_k + d_v)) with a window. Memory beyond inputs and
    outputs: one float32 per row forward, two backward.

    References
    ----------
    Dao (2023), FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning, algorithms 1 and 2.
    """
    _check(query, key, value, enable_gqa)
    before, after = _band(query.shape[-2], key.shape[-2], is_causal, window)
    scale = 1.0 / sqrt(query.shape[-1]) if scale is None else check_finite("scale", scale)
    cap = 0.0 if softcap is None else check_positive("softcap", softcap)
    blocks = _block("block_q", block_q), _block("block_k", block_k)
    interpreted = not isinstance(_forward, triton.runtime.JITFunction)
    if query.device.type == "cpu" and not interpreted:
        raise RuntimeError(
            "query is on the CPU, where Triton runs in its interpreter only: set TRITON_INTERPRET=1 in the environment "
            "before anything imports triton"
        )
    if interpreted and query.dtype == torch.bfloat16:  # triton 3.9.0: its interpreter multiplies their bits as integers
        raise TypeError(
            "query has dtype torch.bfloat16, whose products Triton's interpreter gets wrong; wanted another"
        )
    q, k, v = (x.reshape(prod(x.shape[:-2]), *x.shape[-2:]).contiguous() for x in (query, key, value))
    out, lse = _FlashAttention.apply(q, k, v, scale, cap, before, after, blocks)
    out = out.reshape(*query.shape[:-1], value.shape[-1])
    return (out, lse.reshape(query.shape[:-1])) if return_lse else out


class _FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,  # (b, n, d_k)
        k: torch.Tensor,  # (b / GROUP, m, d_k)
        v: torch.Tensor,  # (b / GROUP, m, d_v)
        *call: Any,  # scale, softcap, left, right, (block_q, block_k)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out = q.new_empty((*q.shape[:2], v.shape[2]))
        lse = q.new_empty(q.shape[:2], dtype=torch.float32)
        (b, n), (block_q, _) = q.shape[:2], call[-1]
        _forward[triton.cdiv(n, block_q), b](q, k, v, out, lse, *_arguments(q, k, v, call), **_tiling(q, k, v, call))
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.call = call
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: torch.Tensor, _: Any) -> tuple[Any, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        dout, (block_q, block_k) = dout.contiguous(), ctx.call[-1]
        delta = (dout.float() * out.float()).sum(-1)  # (b, n): the mean that softmax's gradient subtracts
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        arguments, tiling = _arguments(q, k, v, ctx.call), _tiling(q, k, v, ctx.call)
        read = q, k, v, dout, lse, delta
        _backward_key_value[triton.cdiv(k.shape[1], block_k), k.shape[0]](*read, dk, dv, *arguments, **tiling)
        _backward_query[triton.cdiv(q.shape[1], block_q), q.shape[0]](*read, dq, *arguments, **tiling)
        return dq, dk, dv, *[None] * len(ctx.call)


def _arguments(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what every kernel is told after its tensors: sizes, and the scores and band that were asked for."""
    scale, softcap, before, after, _ = call
    return q.shape[1], k.shape[1], scale, softcap, before, after


def _tiling(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: tuple[Any, ...]) -> dict[str, Any]:
    """Return what a kernel is compiled for."""
    _, softcap, _, _, (block_q, block_k) = call
    d_k, d_v = q.shape[2], v.shape[2]
    wide = max(d_k, d_v) > 64
    return {
        "d_k": d_k,
        "d_v": d_v,
        "D_K": max(16, triton.next_power_of_2(d_k)),  # a tile's sides are powers of two, and 16 at least for tl.dot
        "D_V": max(16, triton.next_power_of_2(d_v)),
        "GROUP": q.shape[0] // k.shape[0],
        "BLOCK_Q": block_q,
        "BLOCK_K": block_k,
        "SOFTCAP": softcap > 0.0,
        "num_warps": 8 if wide else 4,
        "num_stages": 2 if wide else 3,
    }


def _band(n: int, m: int, is_causal: bool, window: tuple[int, int] | None) -> tuple[int, int]:
    """Return how many keys before and after its own position a query sees at most."""
    before, after = n, m  # more than there are
    if window is not None:
        try:
            left, right = window
        except (TypeError, ValueError):
            raise ValueError(f"window is {window!r}; wanted (left, right)") from None
        before = min(before, check_integer("window[0]", left))
        after = min(after, check_integer("window[1]", right))
    return before, 0 if is_causal else after


def _block(name: str, size: int) -> int:
    if check_integer(name, size, least=16) & (size - 1):
        raise ValueError(f"{name} is {size}; wanted a power of two")
    return size


def _check(q: Any, k: Any, v: Any, enable_gqa: bool) -> None:
    """Raise an error that names the argument, what came and what was wanted."""
    least = 3 if enable_gqa else 2
    for name, x in {"query": q, "key": k, "value": v}.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{name} is a {type(x).__name__}; wanted a torch.Tensor")
        if x.dtype not in _DTYPES:
            raise TypeError(f"{name} has dtype {x.dtype}; wanted one of {', '.join(map(str, _DTYPES))}")
        if x.ndim < least:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; wanted (..., {'heads, ' * (least - 2)}length, width)")
        if x.dtype != q.dtype or x.device != q.device:
            raise TypeError(f"{name} is {x.dtype} on {x.device} and query {q.dtype} on {q.device}; wanted the same")
    if 0 in (*q.shape, *k.shape, *v.shape):
        raise ValueError(f"shapes are {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}; wanted no empty dimension")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"key has width {k.shape[-1]}; wanted {q.shape[-1]}, the width of query")
    if k.shape[:-1] != v.shape[:-1]:
        raise ValueError(f"value has shape {tuple(v.shape)}; wanted {tuple(k.shape[:-1])} before the width, as key has")
    if q.shape[:-least] != k.shape[:-least]:
        raise ValueError(
            f"key has shape {tuple(k.shape)}; wanted the leading dimensions {tuple(q.shape[:-least])} of query"
        )
    if enable_gqa and q.shape[-3] % k.shape[-3]:
        raise ValueError(f"query has {q.shape[-3]} heads; wanted a multiple of the {k.shape[-3]} heads of key")
