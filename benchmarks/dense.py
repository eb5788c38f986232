"""The plain reference, scaled_dot_product_attention, against PyTorch's function of the same name."""

from __future__ import annotations

import torch.nn.functional as F

import attn_guide as ag

from .common import Row, as_tensors, paired_ratio, random_arrays


def run(quick: bool) -> list[Row]:
    rows = []
    for n, rounds in ((512, 5),) if quick else ((1024, 20), (2048, 10), (4096, 6)):
        arrays = random_arrays(n)
        tensors = as_tensors(arrays)
        for is_causal in (False, True):
            rows.append(
                paired_ratio(
                    "dense",
                    f"n = {n}, {'causal' if is_causal else 'no mask'}",
                    lambda a=arrays, c=is_causal: ag.scaled_dot_product_attention(*a, is_causal=c),
                    lambda t=tensors, c=is_causal: F.scaled_dot_product_attention(*t, is_causal=c),
                    rounds=rounds,
                    target=2.2,
                )
            )
    return rows
