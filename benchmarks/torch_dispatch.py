"""The torch path beside the kernels it chooses from: what choosing costs, and what empty blocks save."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import attn_guide as ag
import attn_guide.torch as at

from .common import Row, paired_ratio, time_exponent

TOPIC = "torch_dispatch"


def run(quick: bool) -> list[Row]:
    rows = [_overhead(name, ours, theirs, 200 if quick else 4000) for name, ours, theirs in _tiny()]
    for n in (512,) if quick else (512, 1024, 2048):
        for name, options in (("dense", {}), ("causal", {"is_causal": True})):
            q, k, v = _inputs(n)
            rows.append(
                paired_ratio(
                    TOPIC,
                    f"{name}, n = {n}",
                    lambda q=q, k=k, v=v, o=options: at.attention(q, k, v, **o),
                    lambda q=q, k=k, v=v, o=options: F.scaled_dot_product_attention(q, k, v, **o),
                    rounds=5 if quick else 41,
                    target=1.05,
                    against="direct",
                )
            )
    n = 1024 if quick else 4096
    q, k, v = _inputs(n, heads=4)
    masks = {
        "window of 256": ag.sliding_window(255, 0),
        "Longformer, w = 256, 2 global": ag.longformer(256, [0, 1]),
        "BigBird, blocks of 64": ag.bigbird(n, 64, rng=np.random.default_rng(0)),
        "documents of 512": ag.document(np.arange(n) // 512),
    }
    for name, mask in masks.items():
        rows.append(
            paired_ratio(
                TOPIC,
                f"{name}, n = {n}, density {mask.density(n):.3f}",
                lambda mask=mask: at.attention(q, k, v, mask_mod=mask),
                lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                rounds=3 if quick else 11,
                target=1.0,
                against="causal dense",
            )
        )
    sizes = (1024, 1536, 2048) if quick else (2048, 4096, 8192, 16384)
    window = ag.sliding_window(255, 0)

    def windowed(n: int) -> Callable[[], Any]:
        q, k, v = _inputs(n, heads=1)
        return lambda: at.attention(q, k, v, mask_mod=window)

    rows.append(time_exponent(TOPIC, "window of 256", sizes, windowed, rounds=2 if quick else 5, target=1.15))
    return rows


def _inputs(n: int, heads: int = 8) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, heads, n, 64, generator=g) for _ in range(3))


def _tiny() -> list[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """Calls so small that choosing is most of them: ours, and the call that it comes down to."""
    q, k, v = (x[:, :1, :4, :8].contiguous() for x in _inputs(8))
    window = ag.sliding_window(2, 0)
    written = torch.from_numpy(window.materialize(4))
    direct = F.scaled_dot_product_attention
    return [
        ("no mask", lambda: at.attention(q, k, v), lambda: direct(q, k, v)),
        ("causal flag", lambda: at.attention(q, k, v, is_causal=True), lambda: direct(q, k, v, is_causal=True)),
        ("causal Mask", lambda: at.attention(q, k, v, mask_mod=ag.causal), lambda: direct(q, k, v, is_causal=True)),
        ("mask tensor", lambda: at.attention(q, k, v, written), lambda: direct(q, k, v, written)),
        ("window Mask", lambda: at.attention(q, k, v, mask_mod=window), lambda: direct(q, k, v, written)),
    ]


def _overhead(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], calls: int) -> Row:
    """Return the microseconds that a call takes beyond the direct one: the median over pairs of single calls."""
    extra = []
    ours(), theirs()
    for _ in range(calls):
        start = time.perf_counter()
        ours()
        middle = time.perf_counter()
        theirs()
        extra.append(1e6 * (2 * middle - start - time.perf_counter()))
    low, median, high = np.percentile(extra, [25, 50, 75])
    return Row(TOPIC, f"choosing, {name}", "microseconds more", float(median), float(low), float(high), 20.0)
