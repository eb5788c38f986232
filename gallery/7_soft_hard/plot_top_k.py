"""
Top-k on its way to soft attention
==================================

The more keys are kept, the nearer the output comes to that of soft attention.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, problems = 32, 100
q, k, v = (
    rng.standard_normal((problems, 1, 16)),
    rng.standard_normal((problems, n, 16)),
    rng.standard_normal((problems, n, 8)),
)
sizes = np.array([1, 2, 4, 8, 16, 32])
sharp = {"scores as they are": 0.25, "scores four times as large": 1.0}  # 1 / sqrt(d_k), and four times that
distance, kept = {}, {}
for name, scale in sharp.items():
    soft, weights = ag.scaled_dot_product_attention(q, k, v, scale=scale, return_weights=True)
    best = -np.sort(-weights[:, 0], axis=1)  # (problems, n), largest first
    distance[name] = [
        float(np.linalg.norm(ag.top_k_attention(q, k, v, k=int(size), scale=scale) - soft, axis=-1).mean())
        for size in sizes
    ]
    kept[name] = [float(best[:, :size].sum(axis=1).mean()) for size in sizes]
colours = dict(zip(sharp, (plot.WEIGHTS, plot.KEY), strict=True))
a, b = sharp

fig = plot.figure(
    "soft-top-k",
    title=f"Eight of {n} keys hold {kept[a][3]:.0%} of the weight, or {kept[b][3]:.0%} with scores four times as large",
    caption=(
        f"{problems} random problems with {n} keys of width 16, seed 0. Top: share of the soft weights that the best k "
        "keys hold. Bottom: distance of `ag.top_k_attention` from soft attention."
    ),
    size=(6.4, 5.2),
)
top, bottom = fig.subplots(2, 1)
plot.curve(top, sizes, kept, colours=colours, log="x", ticks=sizes, ylabel="weight of the best k")
top.set_ylim(0)
plot.curve(bottom, sizes, distance, colours=colours, log="x", ticks=sizes, ylabel="distance from soft attention",
           xlabel="keys kept, k")  # fmt: skip
bottom.set_ylim(0)
plot.describe(
    fig,
    "Two line charts against k. "
    + " ".join(
        f"{name.capitalize()}, k = {size}: weight {w:.2f}, distance {d:.2f}."
        for name in sharp
        for size, w, d in zip(sizes, kept[name], distance[name], strict=True)
    ),
)
