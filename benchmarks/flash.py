"""FlashAttention against PyTorch's scaled_dot_product_attention, and the memory it takes."""

from __future__ import annotations

import torch.nn.functional as F

import attn_guide as ag

from .common import Row, as_tensors, memory_exponent, paired_ratio, random_arrays


def run(quick: bool) -> list[Row]:
    rows = []
    for n, rounds in ((512, 5),) if quick else ((1024, 40), (2048, 20), (4096, 12), (8192, 6)):
        arrays = random_arrays(n)
        tensors = as_tensors(arrays)
        for is_causal in (False, True):
            rows.append(
                paired_ratio(
                    "flash",
                    f"n = {n}, {'causal' if is_causal else 'no mask'}",
                    lambda a=arrays, c=is_causal: ag.flash_attention(*a, is_causal=c),
                    lambda t=tensors, c=is_causal: F.scaled_dot_product_attention(*t, is_causal=c),
                    rounds=rounds,
                    target=1.3,
                )
            )

    def make(n):
        arrays = random_arrays(n)
        return lambda: ag.flash_attention(*arrays)

    sizes = [512, 1024, 2048] if quick else [2048, 4096, 8192, 16384]
    growth = memory_exponent("flash", f"n = {sizes[0]} ... {sizes[-1]}", sizes, make, target=1.15)
    peak = ag.peak_memory(make(sizes[-1])) / 1e6
    return [*rows, growth, Row("flash", f"peak at n = {sizes[-1]}, output included", "MB", peak, peak, peak, 64.0)]
