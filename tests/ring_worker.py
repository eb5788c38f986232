"""What each process of the ring tests does: ``torchrun ... tests/ring_worker.py TASK OUT.json``.

Process 0 writes what was found. The tests, in one process, judge it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

import attn_guide as ag
from attn_guide.torch.ring import connect, ring_attention, shard, unshard

TIMEOUT = 60.0


def tensors(seed, *shapes, dtype=torch.float64):
    """The same in every process."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


CASES = {
    # name: (query, key, value), what ring_attention is told
    "dense": (((2, 3, 16, 8),) * 3, {}),
    "causal": (((2, 3, 16, 8),) * 3, {"is_causal": True}),
    "causal, parts in order": (((2, 3, 16, 8),) * 3, {"is_causal": True, "zigzag": False}),
    "dense, parts in order": (((2, 3, 16, 8),) * 3, {"zigzag": False}),
    "no heads": (((16, 8),) * 3, {"is_causal": True}),
    "a scale": (((2, 16, 8),) * 3, {"is_causal": True, "scale": 1.5}),
    "grouped queries": (((2, 6, 16, 8), (2, 2, 16, 8), (2, 2, 16, 8)), {"is_causal": True, "enable_gqa": True}),
    "one key head": (((4, 24, 8), (1, 24, 8), (1, 24, 8)), {"is_causal": True, "enable_gqa": True}),
    "wide values": (((2, 16, 8), (2, 16, 8), (2, 16, 12)), {"is_causal": True}),
    "wide values, grouped": (((4, 16, 8), (2, 16, 8), (2, 16, 12)), {"enable_gqa": True}),
    "wide values, parts in order": (((2, 16, 8), (2, 16, 8), (2, 16, 12)), {"is_causal": True, "zigzag": False}),
    "more keys than queries": (((2, 8, 8), (2, 32, 8), (2, 32, 8)), {}),
    "fewer keys than queries": (((2, 32, 8), (2, 8, 8), (2, 8, 8)), {}),
    "large scores": (((2, 16, 8),) * 3, {"is_causal": True, "scale": 300.0}),
}
HALF = {f"causal in {str(dtype)[6:]}": dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}


def whole(query, key, value, upstream, options):
    """Output by the NumPy reference and gradients by autograd, in one process and double precision."""
    given = {name: option for name, option in options.items() if name != "zigzag"}
    out = ag.scaled_dot_product_attention(*(x.double().numpy() for x in (query, key, value)), **given)
    leaves = [x.double().clone().requires_grad_() for x in (query, key, value)]
    torch.nn.functional.scaled_dot_product_attention(*leaves, **given).backward(upstream.double())
    return [torch.from_numpy(out), *(x.grad for x in leaves)]


def around(query, key, value, upstream, options):
    """The same around the ring: every process with its own part, the parts then put together."""
    cut = {"zigzag": options.get("zigzag", True)}
    leaves = [shard(x, **cut).requires_grad_() for x in (query, key, value)]
    out = ring_attention(*leaves, **options)
    out.backward(shard(upstream, **cut))
    assert all(x.dtype == query.dtype for x in (out, *(leaf.grad for leaf in leaves)))
    return [unshard(x, **cut) for x in (out, *(leaf.grad for leaf in leaves))]


def difference(shapes, options, dtype=torch.float64):
    query, key, value = tensors(0, *shapes, dtype=dtype)
    (upstream,) = tensors(1, (*query.shape[:-1], value.shape[-1]), dtype=dtype)
    kept = [x.clone() for x in (query, key, value, upstream)]
    expected = whole(query, key, value, upstream, options)
    found = around(query, key, value, upstream, options)
    assert all(torch.equal(x, y) for x, y in zip(kept, (query, key, value, upstream), strict=True))
    pairs = zip(("out", "dq", "dk", "dv"), found, expected, strict=True)
    # Of the largest entry, or of one: the gradients of saturated weights are the small difference of large numbers.
    return {name: ((x - y).abs().max() / y.abs().max().clamp(min=1)).item() for name, x, y in pairs}


def refusals():
    """Every way to give the processes different arguments, and what each of them then says."""
    rank = dist.get_rank()
    x = torch.zeros(2, 8, 4)
    attempts = {
        "another length": lambda: ring_attention(*[x if rank else x[:, :4]] * 3),
        "another mask": lambda: ring_attention(x, x, x, is_causal=bool(rank)),
        "another dtype": lambda: ring_attention(*[x if rank else x.double()] * 3),
        "another scale": lambda: ring_attention(x, x, x, scale=1.0 + rank),
        "one refused": lambda: ring_attention(x, x[..., :3] if rank else x, x),
        "a length that does not divide": lambda: shard(torch.zeros(2, 7, 4)),
    }
    return {name: message(attempt) for name, attempt in attempts.items()}


def message(attempt):
    try:
        attempt()
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


@contextmanager
def counted():
    """Count what is handed to torch.distributed to be sent: bytes and messages."""
    seen, original = Counter(), dist.batch_isend_irecv

    def counting(operations):
        for operation in operations:
            if operation.op is dist.isend:
                seen["bytes"] += operation.tensor.numel() * operation.tensor.element_size()
                seen["messages"] += 1
        return original(operations)

    dist.batch_isend_irecv = counting
    try:
        yield seen
    finally:
        dist.batch_isend_irecv = original


def traffic(h, h_kv, n, width, dtype):
    """Bytes and messages that one process sends, forward and backward."""
    query, key, value = tensors(0, (h, n, width), (h_kv, n, width), (h_kv, n, width), dtype=dtype)
    leaves = [shard(x).requires_grad_() for x in (query, key, value)]
    with counted() as forward:
        out = ring_attention(*leaves, is_causal=True, enable_gqa=True)
    with counted() as backward:
        out.sum().backward()
    return {"forward": forward, "backward": backward}


def exact():
    found = {
        "errors": {name: difference(*case) for name, case in CASES.items()},
        "half": {name: difference(((2, 32, 16),) * 3, {"is_causal": True}, dtype) for name, dtype in HALF.items()},
        "traffic": {
            "float32": traffic(4, 2, 64, 8, torch.float32),
            "bfloat16": traffic(4, 2, 64, 8, torch.bfloat16),
        },
        "size": dist.get_world_size(),
        "alone": alone(),
    }
    said = [None] * dist.get_world_size()
    dist.all_gather_object(said, refusals())
    return {**found, "refusals": said}


def alone():
    """A group of one process inside a larger world sends nothing and waits for nobody."""
    groups = [dist.new_group([rank]) for rank in range(dist.get_world_size())]
    mine = groups[dist.get_rank()]
    query, key, value = tensors(dist.get_rank(), *[(2, 8, 4)] * 3)
    out = ring_attention(query, key, value, is_causal=True, group=mine)
    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return (out - plain).abs().max().item()


def lost(how):
    """Process 1 ends, or stops answering, after the first step of a ring; what process 0 says, and how soon."""
    query, key, value = (shard(x) for x in tensors(0, *[(2, 32, 8)] * 3))
    ring_attention(query, key, value)  # a first round in which all is well
    if dist.get_rank() == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3 * TIMEOUT_LOST)
        os._exit(0)
    start = time.monotonic()
    said = message(lambda: ring_attention(query, key, value))
    return {"said": said, "seconds": time.monotonic() - start}


TIMEOUT_LOST = 4.0


def main():
    task, out = sys.argv[1:]
    torch.set_num_threads(1)
    with connect("gloo", timeout=TIMEOUT if task == "exact" else TIMEOUT_LOST) as device:
        assert device.type == "cpu"
        found = exact() if task == "exact" else lost(task)
        if dist.get_rank() == 0:
            Path(out).write_text(json.dumps(found))
        if task != "exact":
            os._exit(0)  # the other process is gone: there is no group left to close


if __name__ == "__main__":
    main()
