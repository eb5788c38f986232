"""
Dot products spread with the square root of their width
=======================================================

The dot product of two random vectors is a sum of d_k terms, so its standard deviation is the square root of d_k.
Dividing by that number puts every width on the same curve.
"""

import numpy as np

from attn_guide import plot

rng = np.random.default_rng(0)
samples = 20_000
widths = (16, 64, 256, 512)
products = {}
for d_k in widths:
    q, k = rng.standard_normal((2, samples, d_k), dtype=np.float32)
    products[d_k] = np.einsum("ij,ij->i", q, k)  # (samples,)


def normal(x):
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


fig = plot.figure(
    "concepts-score-distribution",
    title="Before scaling the spread grows as √dₖ; after it, every dₖ has the same",
    caption=(
        f"{samples:,} dot products of two vectors with independent standard normal components for each width, "
        "seed 0. "
        "Left as they are, right divided by √dₖ; the vertical lines mark two measured standard deviations, the dashed "
        "curve is "
        "the standard normal density."
    ),
    size=(5.2, 6.4),
)
axes = fig.subplots(len(widths), 2)
deviations = {}
for row, d_k in zip(axes, widths, strict=True):
    _, before = plot.distribution(row[0], products[d_k], limits=(-105, 105), sigmas=())
    _, after = plot.distribution(row[1], products[d_k] / np.sqrt(d_k), limits=(-7, 7), sigmas=(), density=normal)
    deviations[d_k] = before, after
    for ax, deviation, name in zip(row, (before, after), (f"dₖ = {d_k}", "scaled"), strict=True):
        ax.set_title(f"{name}: ±2σ is ±{2 * deviation:.1f}", color=plot.SCORES, fontweight="bold")
        for side in (-2, 2):
            ax.axvline(side * deviation, color=plot.INK, linewidth=1.0, linestyle=(0, (2, 2)))
plot.describe(
    fig,
    "Histograms of dot products, before and after division by the square root of d_k. "
    + " ".join(f"dₖ = {d}: standard deviation {a:.1f} before, {b:.2f} after." for d, (a, b) in deviations.items()),
)
