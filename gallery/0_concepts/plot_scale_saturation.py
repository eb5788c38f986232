"""
What the scale does to the weights
==================================

Without scaling, wide queries and keys make nearly one-hot weights. Divided by d_k itself, they make nearly uniform
ones. Divided by the square root, the weights look the same whatever the width.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, rows = 10, 1000
widths = np.array([4, 8, 16, 32, 64, 128, 256, 512])
scales = {"no scaling": lambda d: 1.0, "1/√dₖ": lambda d: d**-0.5, "1/dₖ": lambda d: 1.0 / d}
inks = {"no scaling": plot.KEY, "1/√dₖ": plot.QUERY, "1/dₖ": plot.VALUE}

top = {name: [] for name in scales}
entropy = {name: [] for name in scales}
gradient = {name: [] for name in scales}  # median over the rows
for d_k in widths:
    q = rng.standard_normal((rows, 1, d_k), dtype=np.float32)
    k = rng.standard_normal((rows, n, d_k), dtype=np.float32)
    raw = (q @ k.swapaxes(1, 2))[:, 0].astype(np.float64)  # (rows, n)
    for name, scale in scales.items():
        weights = ag.softmax(raw * scale(float(d_k)))
        top[name].append(weights.max(axis=-1).mean())
        entropy[name].append(ag.attention_entropy(weights).mean() / np.log(n))
        gradient[name].append(np.median(np.linalg.norm(ag.softmax_jacobian(weights), axis=(1, 2))))

fig = plot.figure(
    "concepts-saturation",
    title="Only 1/√dₖ keeps the weights alike at every width",
    caption=(
        f"{rows:,} rows of n = {n} random scores for each width, seed 0. Top: mean largest weight. Middle: "
        "mean entropy as a "
        "share of log n, the most there can be. Bottom: median Frobenius norm of the softmax Jacobian "
        "`ag.softmax_jacobian`."
    ),
    size=(4.8, 6.8),
)
axes = fig.subplots(3, 1, sharex=True)
for ax, values, what in zip(
    axes, (top, entropy, gradient), ("largest weight", "entropy / log n", "Jacobian norm, median"), strict=True
):
    plot.curve(
        ax, widths, values, colours=inks, log="x", ticks=widths, ylabel=what, xlabel="dₖ" if ax is axes[-1] else ""
    )
    ax.set_ylim(0, None)
plot.describe(
    fig,
    "Three line charts against dₖ from 4 to 512. "
    + " ".join(
        f"{name}: at dₖ = 512 the largest weight is {top[name][-1]:.2f}, entropy {entropy[name][-1]:.2f} of "
        "its maximum, "
        f"median Jacobian norm {gradient[name][-1]:.4f}."
        for name in scales
    ),
)
