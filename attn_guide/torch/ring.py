"""Ring attention: exact attention over a sequence that no single machine holds.

Each process keeps the queries of its own part of the sequence. The keys and values travel: in every step a process
attends to the part it holds, passes it on to its neighbour and receives the next one from the other side. After as
many steps as there are processes everyone has seen everything, and an online softmax has put the partial results
together. The transfer of the next part runs while the present one is computed.

    torchrun --nproc-per-node 4 my_script.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import prod, sqrt
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from .._checks import check_finite, check_integer, check_positive

__all__ = ["connect", "ring_attention", "ring_tile", "shard", "unshard"]

#: What ``ring_attention`` agrees on before it starts, in this order.
_TERMS = ("batch", "group", "length", "d_k", "keys", "d_v", "dtype", "is_causal", "zigzag", "scale")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


# ------------------------------------------------------------------------------------------- the processes


@contextmanager
def connect(backend: str | None = None, *, timeout: float = 60.0) -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` has started, and leave them when the block ends.

    Parameters
    ----------
    backend : str, optional
        "nccl" where every process has a GPU of its own and "gloo" otherwise, unless given.
    timeout : float, default 60
        Seconds to wait for another process, at the start and in every transfer, before giving up with an error.

    Yields
    ------
    torch.device
        The device of this process.

    Raises
    ------
    RuntimeError
        If the process was not started by ``torchrun``, or the others do not come in time.

    Examples
    --------
    A script that ``torchrun --nproc-per-node 4`` starts four times:

    >>> def main():
    ...     with connect() as device:
    ...         query, key, value = (shard(x.to(device)) for x in load())
    ...         out = ring_attention(query, key, value, is_causal=True)
    """
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"{', '.join(missing)} not set; start the script with torchrun, e.g. torchrun --nproc-per-node 4 script.py"
        )
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    local_rank, local_size = (int(os.environ.get(f"LOCAL_{x}", y)) for x, y in (("RANK", rank), ("WORLD_SIZE", size)))
    on_gpu = (
        torch.cuda.is_available() and torch.cuda.device_count() >= local_size if backend is None else backend != "gloo"
    )
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    wait = timedelta(seconds=check_positive("timeout", timeout))
    try:
        dist.init_process_group(backend or ("nccl" if on_gpu else "gloo"), timeout=wait)
    except RuntimeError as error:
        raise RuntimeError(
            f"process {rank} of {size} did not find all the others at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} in {timeout:g} s; are {size} processes running?"
        ) from error
    try:
        yield device
    finally:
        dist.destroy_process_group()


class _Ring:
    """The neighbours of this process, and transfers from one to the other."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.group = group
        self.rank, self.size = _place(group)

    def _peer(self, step: int) -> int:
        at = (self.rank + step) % self.size
        return dist.get_global_rank(self.group, at) if self.group is not None else at

    def rotate(self, buffer: torch.Tensor, tag: int) -> _Transfer:
        """Begin to send ``buffer`` to the next process and to receive the like of it from the previous one."""
        received = torch.empty_like(buffer)
        with _explained(self, "sending"):
            works = dist.batch_isend_irecv(
                [
                    dist.P2POp(dist.isend, buffer, self._peer(+1), self.group, tag),
                    dist.P2POp(dist.irecv, received, self._peer(-1), self.group, tag),
                ]
            )
        return _Transfer(self, works, buffer, received)

    def agree(self, terms: list[float] | None, device: torch.device) -> None:
        """Raise in every process if they do not all bring the same ``terms``; None says that this one has failed.

        Without it a process with another shape would leave its neighbours waiting, or be read as noise.
        """
        mine = torch.tensor(
            [float("nan")] * len(_TERMS) if terms is None else terms, dtype=torch.float64, device=device
        )
        every = [torch.empty_like(mine) for _ in range(self.size)]
        with _explained(self, "comparing shapes"):
            dist.all_gather(every, mine, group=self.group)
        table = torch.stack(every).cpu()  # (size, terms)
        if terms is None:
            return
        for rank, row in enumerate(table):
            if row.isnan().any():
                raise ValueError(f"process {rank} was given arguments that ring_attention refuses; see its error")
            if (differs := (row != table[self.rank]).nonzero()).numel():
                term = int(differs[0])
                raise ValueError(
                    f"{_TERMS[term]} is {_shown(term, table[self.rank])} in process {self.rank} and "
                    f"{_shown(term, row)} in process {rank}; wanted the same in all {self.size}"
                )


class _Transfer:
    """A buffer on its way out and one on its way in."""

    def __init__(self, ring: _Ring, works: list[Any], sent: torch.Tensor, received: torch.Tensor) -> None:
        self._ring, self._works, self._received = ring, works, received
        self._sent = sent  # kept alive until it has left

    def wait(self) -> torch.Tensor:
        """Return what has arrived, after what was sent has left."""
        with _explained(self._ring, "waiting for"):
            for work in self._works:
                work.wait()
        return self._received


@contextmanager
def _explained(ring: _Ring, doing: str) -> Iterator[None]:
    """Say in the error which process lost which."""
    try:
        yield
    except RuntimeError as error:  # of every backend: a closed connection, a timeout, an abort
        before, after = (ring.rank - 1) % ring.size, (ring.rank + 1) % ring.size
        raise RuntimeError(
            f"process {ring.rank} of {ring.size} lost the ring while {doing} its neighbours {before} and {after}; "
            "one of the processes has ended, or did not answer within the timeout"
        ) from error


def _place(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """Return (rank, size): (0, 1) where no process group has been set up, a ring of one."""
    return (dist.get_rank(group), dist.get_world_size(group)) if dist.is_initialized() else (0, 1)


def _shown(term: int, row: torch.Tensor) -> str:
    value = row[term].item()
    return str(_DTYPES[int(value)]) if _TERMS[term] == "dtype" else f"{value:g}"


# ------------------------------------------------------------------------------------ cutting the sequence


def shard(
    x: torch.Tensor, *, dim: int = -2, zigzag: bool = True, group: dist.ProcessGroup | None = None
) -> torch.Tensor:
    """Return this process's part of a sequence.

    Parameters
    ----------
    x : torch.Tensor, shape (..., n, width)
        The whole sequence, the same in every process.
    dim : int, default -2
        The dimension of positions.
    zigzag : bool, default True
        Cut 2 p pieces for p processes and give process r the pieces r and 2 p - 1 - r, an early and a late one, so
        that causal attention is the same work for everyone. Otherwise one piece each, in order.
    group : ProcessGroup, optional
        The processes that share the sequence; all of them unless given.

    Returns
    -------
    torch.Tensor, shape (..., n / p, width)

    Raises
    ------
    ValueError
        If the length does not divide into equal pieces.

    Examples
    --------
    With one process there is one part. Its positions, as rotary embeddings need them:

    >>> import torch
    >>> from attn_guide.torch.ring import shard
    >>> shard(torch.arange(6), dim=0)
    tensor([0, 1, 2, 3, 4, 5])
    """
    rank, size = _place(group)
    pieces = 2 * size if zigzag else size
    n = x.shape[dim]
    if n % pieces:
        raise ValueError(
            f"x has length {n}; wanted a multiple of {pieces}, {'twice ' if zigzag else ''}the number of processes"
        )
    chunks = x.chunk(pieces, dim)
    return torch.cat([chunks[i] for i in _pieces(rank, size, zigzag)], dim)


def unshard(
    x: torch.Tensor, *, dim: int = -2, zigzag: bool = True, group: dist.ProcessGroup | None = None
) -> torch.Tensor:
    """Return the whole sequence from the parts that ``shard`` made; gradients do not flow through it.

    Parameters
    ----------
    x : torch.Tensor, shape (..., n / p, width)
        This process's part.
    dim, zigzag, group
        As in ``shard``.

    Returns
    -------
    torch.Tensor, shape (..., n, width)

    Examples
    --------
    >>> import torch
    >>> from attn_guide.torch.ring import shard, unshard
    >>> unshard(shard(torch.arange(6), dim=0), dim=0)
    tensor([0, 1, 2, 3, 4, 5])
    """
    ring = _Ring(group)
    if ring.size == 1:
        return x.detach()
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(ring.size)]
    with _explained(ring, "gathering from"):
        dist.all_gather(parts, x, group=group)
    pieces = {
        i: piece
        for rank, part in enumerate(parts)
        for i, piece in zip(_pieces(rank, ring.size, zigzag), part.chunk(2 if zigzag else 1, dim), strict=True)
    }
    return torch.cat([pieces[i] for i in sorted(pieces)], dim)


def _pieces(rank: int, size: int, zigzag: bool) -> tuple[int, ...]:
    return (rank, 2 * size - 1 - rank) if zigzag else (rank,)


def ring_tile(
    rank: int, source: int, length: int, *, is_causal: bool, zigzag: bool = True
) -> tuple[range, range, bool] | None:
    """Return what the queries of process ``rank`` see of the keys of process ``source``.

    Parameters
    ----------
    rank, source : int
        Whose queries and whose keys.
    length : int
        Positions per process.
    is_causal : bool
        Whether a query sees only keys up to its own position.
    zigzag : bool, default True
        How ``shard`` has cut the sequence.

    Returns
    -------
    rows, keys : range
        The queries and keys, counted within the two parts, that have to be computed.
    diagonal : bool
        Whether a causal mask is left inside; everywhere else all rows see all keys.
        None stands for the whole answer if no query sees any key.

    Notes
    -----
    This is all the causal mask that a ring needs. Zigzag parts are in ascending order, so a process's own keys are
    an ordinary causal square. An earlier process holds an early piece, before all of one's own queries, and a late
    piece, after all of them: half the keys. A later one holds pieces that lie between one's own two: half the
    queries.

    Examples
    --------
    >>> from attn_guide.torch.ring import ring_tile
    >>> ring_tile(1, 0, 8, is_causal=True)
    (range(0, 8), range(0, 4), False)
    >>> ring_tile(0, 1, 8, is_causal=True)
    (range(4, 8), range(0, 8), False)
    >>> ring_tile(0, 1, 8, is_causal=True, zigzag=False) is None
    True
    """
    everything = range(check_integer("length", length))
    if not is_causal or source == rank:
        return everything, everything, is_causal
    if not zigzag:
        return (everything, everything, False) if source < rank else None
    early, late = everything[: length // 2], everything[length // 2 :]
    return (everything, early, False) if source < rank else (late, everything, False)


# ----------------------------------------------------------------------------------------------- the ring


def ring_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    zigzag: bool = True,
    group: dist.ProcessGroup | None = None,
) -> torch.Tensor:
    """Attend over a sequence that is cut into one part per process, exactly.

    Every process calls it with its own part and gets the output of its own queries. Gradients flow back around the
    same ring, to every process's own part.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n / p, d_k)
    key : torch.Tensor, shape (..., h_kv, m / p, d_k)
    value : torch.Tensor, shape (..., h_kv, m / p, d_v)
        This process's part, as ``shard`` cuts it; p is the number of processes.
    is_causal : bool, default False
        Let each query see the keys up to its own position in the whole sequence only.
    scale : float, optional
        Factor of the dot products, 1 / sqrt(d_k) unless given.
    enable_gqa : bool, default False
        Let query head i read key/value head ``i // (h // h_kv)``. Fewer key/value heads are fewer bytes to send.
    zigzag : bool, default True
        How the parts were cut. Of no account without ``is_causal``, where any cut gives the same result.
    group : ProcessGroup, optional
        The processes that share the sequence; all of them unless given.

    Returns
    -------
    torch.Tensor, shape (..., h, n / p, d_v)

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit, or differ between processes.
    RuntimeError
        If another process has ended or does not answer within the timeout of the group.

    Notes
    -----
    A process computes O(n m (d_k + d_v) / p), half of it if causal, and holds O((n + m) (d_k + d_v) / p). It sends
    (p - 1) / p of all keys and values going forward. Going backward it sends these once more, and with them their
    gradients, all the way round: p / p, in the precision they are summed in.

    References
    ----------
    Liu, Zaharia and Abbeel (2023), Ring Attention with Blockwise Transformers for Near-Infinite Context, algorithm 1.

    Examples
    --------
    A ring of one process, as it is without ``torchrun``:

    >>> import torch
    >>> from attn_guide.torch.ring import ring_attention
    >>> query, key, value = torch.randn(3, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    >>> out = ring_attention(query, key, value, is_causal=True)
    >>> plain = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    >>> torch.allclose(out, plain, atol=1e-6)
    True
    """
    ring = _Ring(group)
    try:
        _check(query, key, value, is_causal, enable_gqa, zigzag)
        scale = 1.0 / sqrt(query.shape[-1]) if scale is None else check_finite("scale", scale)
    except (TypeError, ValueError):
        if ring.size > 1:
            ring.agree(None, query.device if isinstance(query, torch.Tensor) else torch.device("cpu"))
        raise
    # Heads that share keys stand side by side in dimension 1, where one key/value head is enough for all of them.
    heads = key.shape[-3] if enable_gqa else 1
    lead = prod(query.shape[:-3]) if enable_gqa else prod(query.shape[:-2])
    q = query.reshape(lead * heads, -1 if enable_gqa else 1, *query.shape[-2:])  # (b, g, n, d_k)
    k = key.reshape(lead * heads, 1, *key.shape[-2:])  # (b, 1, m, d_k)
    v = value.reshape(lead * heads, 1, *value.shape[-2:])  # (b, 1, m, d_v)
    if ring.size > 1:
        shapes = [*q.shape, *v.shape[-2:], _DTYPES.index(q.dtype)]
        ring.agree([*shapes, is_causal, zigzag and is_causal, scale], q.device)
    out = _RingAttention.apply(q, k, v, bool(is_causal), scale, bool(zigzag), ring)
    return out.reshape(*query.shape[:-1], value.shape[-1])


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        is_causal: bool,
        scale: float,
        zigzag: bool,
        ring: _Ring,
    ) -> torch.Tensor:
        compute = _compute_dtype(q)
        out = q.new_zeros((*q.shape[:-1], v.shape[-1]), dtype=compute)  # (b, g, n, d_v)
        lse = q.new_full(q.shape[:-1], float("-inf"), dtype=compute)  # (b, g, n)
        kv = _pack(k, v)
        for step in range(ring.size):
            source = (ring.rank - step) % ring.size  # whose keys and values these are
            transfer = ring.rotate(kv, tag=0) if step < ring.size - 1 else None
            tile = ring_tile(ring.rank, source, q.shape[-2], is_causal=is_causal, zigzag=zigzag)
            if tile is not None:
                rows, keys = _slices(tile, k.shape[-2])
                k_part, v_part = (x[..., keys, :] for x in _unpack(kv, k, v))
                part, part_lse = _attend(q[..., rows, :], k_part, v_part, tile[2], scale)
                _merge(out[..., rows, :], lse[..., rows], part, part_lse)
            if transfer is not None:
                kv = transfer.wait()
        result = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, result, lse)
        ctx.call = is_causal, scale, zigzag, ring
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        is_causal, scale, zigzag, ring = ctx.call
        compute = lse.dtype
        dq = torch.zeros_like(q, dtype=compute)
        kv, travelling = _pack(k, v), None  # the gradients of keys and values travel one step behind them
        for step in range(ring.size):
            source = (ring.rank - step) % ring.size
            transfer = ring.rotate(kv, tag=0) if step < ring.size - 1 else None
            tile = ring_tile(ring.rank, source, q.shape[-2], is_causal=is_causal, zigzag=zigzag)
            grads = None
            if tile is not None:
                rows, keys = _slices(tile, k.shape[-2])
                k_part, v_part = (x[..., keys, :] for x in _unpack(kv, k, v))
                g_part, q_part, out_part = (x[..., rows, :] for x in (grad, q, out))
                grads = _attend_backward(g_part, q_part, out_part, lse[..., rows], k_part, v_part, tile[2], scale)
            dkv = torch.zeros_like(kv, dtype=compute) if travelling is None else travelling.wait()
            if grads is not None:
                dq[..., rows, :] += grads[0]
                for total, x in zip(_unpack(dkv, k, v), grads[1:], strict=True):
                    total[..., keys, :] += x.sum(1, keepdim=True)  # over the query heads that share the keys
            travelling = ring.rotate(dkv, tag=1) if ring.size > 1 else None
            if transfer is not None:
                kv = transfer.wait()
        dk, dv = _unpack(dkv if travelling is None else travelling.wait(), k, v)  # home again
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None, None


def _pack(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return keys and values as one buffer: one message a step, not two."""
    return torch.cat([k.reshape(-1), v.reshape(-1)])


def _unpack(buffer: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return views of a buffer in the shapes of ``k`` and ``v``."""
    return buffer[: k.numel()].view(k.shape), buffer[k.numel() :].view(v.shape)


def _slices(tile: tuple[range, range, bool], m: int) -> tuple[slice, slice]:
    rows, keys, _ = tile
    whole = keys == rows  # without a causal mask keys and queries may differ in number
    return slice(rows.start, rows.stop), slice(0, m) if whole else slice(keys.start, keys.stop)


def _merge(out: torch.Tensor, lse: torch.Tensor, part: torch.Tensor, part_lse: torch.Tensor) -> None:
    """Fold the attention to one more set of keys into what has been gathered so far, in place.

    Each is a mean of values, and the weight of a mean is the sum of exponentials behind it, exp(lse).
    """
    total = torch.logaddexp(lse, part_lse)
    out.mul_((lse - total).exp()[..., None]).add_(part * (part_lse - total).exp()[..., None])
    lse.copy_(total)


# --------------------------------------------------------------------------------------- within one process


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attention of q (b, g, n, d_k) to k and v (b, 1, m, d), and its log-sum-exp (b, g, n)."""
    aten, shared = torch.ops.aten, [x.expand(-1, q.shape[1], -1, -1) for x in (k, v)]
    if _has_kernel(q, v, "cpu"):
        return aten._scaled_dot_product_flash_attention_for_cpu(q, *shared, 0.0, is_causal, scale=scale)
    if _has_kernel(q, v, "cuda"):
        return aten._scaled_dot_product_flash_attention(q, *shared, 0.0, is_causal, False, scale=scale)[:2]
    scores = _scores(q, k, is_causal, scale)  # (b, g, n, m)
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp() @ v.to(scores.dtype), lse


def _attend_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    is_causal: bool,
    scale: float,
) -> Sequence[torch.Tensor]:
    """Return what these keys contribute to dq, dk and dv, the last two for each query head.

    ``out`` and ``lse`` are those of the whole sequence: with them the weights come out as their share of the whole,
    and the parts of the gradients simply add up.
    """
    aten, shared = torch.ops.aten, [x.expand(-1, q.shape[1], -1, -1) for x in (k, v)]
    if _has_kernel(q, v, "cpu"):
        kernel = aten._scaled_dot_product_flash_attention_for_cpu_backward
        return kernel(grad, q, *shared, out, lse, 0.0, is_causal, scale=scale)
    if _has_kernel(q, v, "cuda"):
        kernel, seed = aten._scaled_dot_product_flash_attention_backward, q.new_zeros(2, dtype=torch.int64)
        sizes = None, None, q.shape[-2], k.shape[-2]
        return kernel(
            grad.contiguous(), q, *shared, out.contiguous(), lse.contiguous(), *sizes, 0.0, is_causal, seed, seed[:0],
            scale=scale,
        )  # fmt: skip
    grad, out, keys, values = (x.to(lse.dtype) for x in (grad, out, k, v))
    weights = (_scores(q, k, is_causal, scale) - lse[..., None]).exp()  # (b, g, n, m)
    d_scores = weights * (grad @ values.mT - (grad * out).sum(-1, keepdim=True)) * scale
    return d_scores @ keys, d_scores.mT @ q.to(lse.dtype), weights.mT @ grad


def _scores(q: torch.Tensor, k: torch.Tensor, is_causal: bool, scale: float) -> torch.Tensor:
    compute = _compute_dtype(q)
    scores = q.to(compute) @ k.to(compute).mT * scale
    if is_causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores.masked_fill_(future, float("-inf"))
    return scores


def _has_kernel(q: torch.Tensor, v: torch.Tensor, device: str) -> bool:
    """Say whether torch's flash kernel for ``device`` can take these; what it can not is computed with all scores."""
    if q.device.type != device or q.shape[-1] != v.shape[-1]:
        return False
    return device == "cpu" or (q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0)


def _compute_dtype(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _check(q: Any, k: Any, v: Any, is_causal: bool, enable_gqa: bool, zigzag: bool) -> None:
    """Raise an error that names the argument, what came and what was wanted."""
    named = {"query": q, "key": k, "value": v}
    least = 3 if enable_gqa else 2
    for name, x in named.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{name} is a {type(x).__name__}; wanted a torch.Tensor")
        if x.dtype not in _DTYPES:
            raise TypeError(f"{name} has dtype {x.dtype}; wanted one of {', '.join(map(str, _DTYPES))}")
        if x.ndim < least:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; wanted (..., {'heads, ' * (least - 2)}length, width)")
        if x.dtype != q.dtype or x.device != q.device:
            raise TypeError(f"{name} is {x.dtype} on {x.device} and query {q.dtype} on {q.device}; wanted the same")
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
    if is_causal and q.shape[-2] != k.shape[-2]:
        raise ValueError(f"key has length {k.shape[-2]}; wanted {q.shape[-2]}, the length of query, where is_causal")
    if is_causal and zigzag and q.shape[-2] % 2:
        raise ValueError(f"query has length {q.shape[-2]}; wanted an even one: a zigzag part has two pieces")
