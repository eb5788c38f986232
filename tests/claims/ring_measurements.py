"""What four processes of a ring measure for the page on ring attention; ``measure()`` starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist

import attn_guide as ag
from attn_guide.torch.ring import connect, ring_attention, shard, unshard

PROCESSES = 4


@cache
def measure():
    """Run the three tasks below in ``PROCESSES`` processes on this machine; return what process 0 found."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={PROCESSES}"),
                *("--master-addr=127.0.0.1", f"--master-port={port}", __file__, str(out)),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
            capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return json.loads(out.read_text())


def tensors(*shapes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


# --------------------------------------------------------------------------------------------- the tasks


def exact(groups):
    """Largest difference from one process: output from the NumPy reference, gradients from autograd."""
    query, key, value, upstream = tensors((4, 256, 16), (2, 256, 16), (2, 256, 16), (4, 256, 16))
    found = {}
    for size, group in groups.items():
        for is_causal in (False, True):
            leaves = [x.clone().requires_grad_() for x in (query, key, value)]
            options = {"is_causal": is_causal, "enable_gqa": True}
            torch.nn.functional.scaled_dot_product_attention(*leaves, **options).backward(upstream)
            out = ag.scaled_dot_product_attention(*(x.numpy() for x in (query, key, value)), **options)
            expected = [torch.from_numpy(out), *(x.grad for x in leaves)]
            parts = [shard(x, group=group).requires_grad_() for x in (query, key, value)]
            ring_out = ring_attention(*parts, **options, group=group)
            ring_out.backward(shard(upstream, group=group))
            whole = [unshard(x, group=group) for x in (ring_out, *(part.grad for part in parts))]
            found[f"{size} {'causal' if is_causal else 'dense'}"] = [
                (x - y).abs().max().item() for x, y in zip(whole, expected, strict=True)
            ]
    return found


def sent(groups, n=1024, heads=8, kv_heads=2, width=64):
    """Bytes and messages that a process hands to torch.distributed to be sent, forward and backward."""
    found = {"n": n, "heads": heads, "kv_heads": kv_heads, "width": width}
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        for size, group in groups.items():
            whole = tensors((heads, n, width), (kv_heads, n, width), (kv_heads, n, width), dtype=dtype)
            leaves = [shard(x, group=group).requires_grad_() for x in whole]
            with watched(count := Counter()):
                out = ring_attention(*leaves, is_causal=True, enable_gqa=True, group=group)
            found[f"{name} {size} forward"] = dict(count)
            with watched(count := Counter()):
                out.sum().backward()
            found[f"{name} {size} backward"] = dict(count)
    return found


@contextmanager
def watched(count):
    original = dist.batch_isend_irecv

    def counting(operations):
        for operation in operations:
            if operation.op is dist.isend:
                count["bytes"] += operation.tensor.numel() * operation.tensor.element_size()
                count["messages"] += 1
        return original(operations)

    dist.batch_isend_irecv = counting
    try:
        yield
    finally:
        dist.batch_isend_irecv = original


def overlap(rounds=5, n=4096, heads=4, width=64):
    """Seconds of one forward pass over a link that takes as long as a step's computation, waited for late or at once.

    The loopback of one machine is too quick to be seen, so every message is held back by a fixed time.
    """
    parts = [shard(x) for x in tensors(*[(heads, n, width)] * 3, dtype=torch.float32)]

    def seconds(delay, at_once):
        dist.barrier()
        start = time.perf_counter()
        with slow_link(delay, at_once):
            ring_attention(*parts)
        dist.barrier()
        return time.perf_counter() - start

    seconds(0.0, False)
    free = min(seconds(0.0, False) for _ in range(rounds))
    delay = torch.tensor([free / dist.get_world_size()], dtype=torch.float64)
    dist.broadcast(delay, 0)
    delay = delay.item()
    pairs = [(seconds(delay, False), seconds(delay, True)) for _ in range(rounds)]
    hidden, exposed = (min(column) for column in zip(*pairs, strict=True))
    return {"free": free, "delay": delay, "hidden": hidden, "exposed": exposed, "rounds": rounds, "n": n}


class Late:
    """A transfer that does not end before a given time."""

    def __init__(self, work, due):
        self.work, self.due = work, due

    def wait(self):
        if self.work is not None:  # a transfer can be waited for once
            self.work.wait()
            self.work = None
        time.sleep(max(0.0, self.due - time.perf_counter()))


@contextmanager
def slow_link(delay, at_once):
    original = dist.batch_isend_irecv

    def slow(operations):
        works = [Late(work, time.perf_counter() + delay) for work in original(operations)]
        if at_once:
            for work in works:
                work.wait()
        return works

    dist.batch_isend_irecv = slow
    try:
        yield
    finally:
        dist.batch_isend_irecv = original


def main():
    torch.set_num_threads(1)
    with connect("gloo", timeout=120):
        rank = dist.get_rank()
        groups = {size: dist.new_group(range(size)) for size in (2, PROCESSES)}
        mine = {size: group for size, group in groups.items() if rank < size}
        found = {"exact": exact(mine), "sent": sent(mine), "overlap": overlap()}
        if rank == 0:
            Path(sys.argv[1]).write_text(json.dumps(found))
        dist.barrier()


if __name__ == "__main__":
    main()
