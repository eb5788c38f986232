"""
The cost of one more token
==========================

Multiply-adds, counted, and processor time, measured, for one new token after n, with the cache and without.
"""

import time

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
heads, d = 8, 64
lengths = np.array([128, 256, 512, 1024, 2048])
cached, again = [], []
for n in lengths:
    q, k, v = rng.standard_normal((3, heads, n, d)).astype(np.float32)
    cache = ag.KVCache(capacity=int(n) + 64)
    cache.append(k[:, :-1], v[:, :-1])
    taken = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(10):
            cache.attend(q[:, -1:], k[:, -1:], v[:, -1:])
        taken.append((time.process_time() - start) / 10)
    cached.append(min(taken))
    taken = []
    for _ in range(2):
        start = time.process_time()
        ag.scaled_dot_product_attention(q, k, v, is_causal=True)
        taken.append(time.process_time() - start)
    again.append(min(taken))
macs = {
    "recomputed": [heads * 2 * int(n) ** 2 * d for n in lengths],
    "with a cache": [heads * 2 * int(n) * d for n in lengths],
}
milliseconds = {"recomputed": 1e3 * np.array(again), "with a cache": 1e3 * np.array(cached)}
colours = {"recomputed": plot.SCORES, "with a cache": plot.KEY}

fig = plot.figure(
    "causal-decode-cost",
    title=f"After {lengths[-1]:,} tokens the cache makes the next one {again[-1] / cached[-1]:.0f} times faster",
    caption=(
        f"Attention of {heads} heads of width {d} for one new token after n, without projections. Left: multiply-adds, "
        "2 n d for each head with a cache and 2 n² d without. Right: processor time of `ag.KVCache.attend` and of "
        "`ag.scaled_dot_product_attention` over the whole prefix, single precision, on the machine that built this "
        "page; times differ from build to build, and the causal run skips the half that is masked."
    ),
    size=(6.4, 3.6),
)
left, right = fig.subplots(1, 2)
for ax, series, label in ((left, macs, "multiply-adds"), (right, milliseconds, "milliseconds")):
    plot.curve(ax, lengths, series, colours=colours, log="xy", ticks=lengths, xlabel="tokens n", ylabel=label)
plot.describe(
    fig,
    "Two line charts on logarithmic axes. "
    + " ".join(
        f"After {n:,} tokens: {a:.2g} ms recomputed, {b:.2g} ms with a cache."
        for n, a, b in zip(lengths, milliseconds["recomputed"], milliseconds["with a cache"], strict=True)
    )
    + " The multiply-adds differ by a factor of n.",
)
