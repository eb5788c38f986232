"""Sparse attention: growth of time and memory, and PyTorch's dense attention given the same mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F

import attn_guide as ag

from .common import Row, as_tensors, memory_exponent, paired_ratio, random_arrays, time_exponent

BLOCK = 64


def window(arrays):
    """A window of w = 256: 128 keys on each side of the query."""
    return ag.sliding_window_attention(*arrays, 128, 128)


def longformer(arrays):
    return ag.longformer_attention(*arrays, 256, range(16))


def bigbird(arrays):
    blocks = arrays[0].shape[-2] // BLOCK
    table = [[(i + step) % blocks for step in (5, 11, 17)] for i in range(blocks)]
    return ag.bigbird_attention(*arrays, BLOCK, random_blocks=table)


def blocks(arrays):
    return ag.block_sparse_attention(*arrays, ag.sliding_window(2, 2), BLOCK)


def run(quick: bool) -> list[Row]:
    rows = []
    for n, rounds in ((1024, 5),) if quick else ((4096, 10), (8192, 5)):
        arrays = random_arrays(n)
        tensors, mask = as_tensors(arrays), torch.from_numpy(ag.sliding_window(128, 128).materialize(n))
        rows.append(
            paired_ratio(
                "sparse",
                f"window w = 256, n = {n}, same mask",
                lambda a=arrays: window(a),
                lambda t=tensors, m=mask: F.scaled_dot_product_attention(*t, attn_mask=m),
                rounds=rounds,
                target=1.0,
            )
        )
    short, long = [1024, 2048, 4096], [2048, 4096, 8192, 16384]
    for name, function, sizes in (
        ("window w = 256", window, [*long, 32768, 65536]),
        ("longformer w = 256, g = 16", longformer, long),
        ("bigbird blocks of 64, 3 + 2 + 3", bigbird, long),
        ("blocks of 64, 5 wide", blocks, long),
    ):
        reached = short if quick else sizes

        def make(n, function=function):
            arrays = random_arrays(n)
            return lambda: function(arrays)

        label = f"{name}, n = {reached[0]} ... {reached[-1]}"
        rows.append(time_exponent("sparse", label, reached, make, rounds=2 if quick else 3, target=1.15))
        rows.append(memory_exponent("sparse", label, reached, make, target=1.15))
    return rows
