"""
Saturated rows have heavy-tailed gradients
==========================================

A saturated softmax passes almost no gradient in most rows and a large one in a few, wherever two scores happen to
be close. In long rows the unscaled gradients are not even smaller on average.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(11)  # the draws of the claim whose table stands beside the figure
cases = {(10, 512): 4000, (512, 64): 500}  # (n, d_k): rows
norms = {}
for (n, d_k), rows in cases.items():
    raw = np.stack([rng.standard_normal((n, d_k)) @ rng.standard_normal(d_k) for _ in range(rows)])  # (rows, n)
    for name, scale in (("no scaling", 1.0), ("1/√dₖ", d_k**-0.5)):
        w = ag.softmax(raw * scale)
        square = w**2  # the Jacobian is diag(w) - w wᵀ: its norm without building it
        beside = square * (square.sum(axis=-1, keepdims=True) - square)
        norms[n, d_k, name] = np.sqrt((square * (1 - w) ** 2 + beside).sum(axis=-1))  # (rows,)

fig = plot.figure(
    "concepts-gradient-tails",
    title="Without scaling most gradients of short rows are tiny, and those of long rows are large",
    caption=(
        "Share of rows whose softmax Jacobian has a Frobenius norm below x; the dots mark the means. "
        f"{cases[10, 512]:,} rows for n = 10, dₖ = 512 and {cases[512, 64]:,} for n = 512, dₖ = 64, seed 11, "
        "as in the table."
    ),
    size=(4.8, 5.6),
)
axes = fig.subplots(2, 1, sharex=True)
for ax, (n, d_k) in zip(axes, cases, strict=True):
    for name, ink in (("no scaling", plot.KEY), ("1/√dₖ", plot.QUERY)):
        values = np.sort(norms[n, d_k, name])
        share = np.arange(1, len(values) + 1) / len(values)
        ax.plot(values, share, color=ink)
        mean, median = values.mean(), np.median(values)
        ax.plot(mean, np.interp(mean, values, share), "o", color=ink, markersize=7)
        at = (0.03, 0.95) if name == "no scaling" else (0.03, 0.8)
        ax.text(*at, f"{name}: mean {mean:.3f}, median {median:.2g}", transform=ax.transAxes, va="top", color=ink)
    ax.set(xscale="log", xlim=(1e-6, 1), ylim=(0, 1.02), yticks=[0, 0.5, 1], yticklabels=["0", "half", "all"])
    ax.grid(True, axis="y")
    ax.spines["left"].set_visible(False)
    ax.set_title(f"n = {n}, dₖ = {d_k}: share of rows below x", fontweight="bold")
axes[-1].set_xlabel("x, norm of the softmax Jacobian of a row")
plot.describe(
    fig,
    "Histograms of the softmax Jacobian norm per row. "
    + " ".join(
        f"n = {n}, dₖ = {d_k}, {name}: mean {values.mean():.3f}, median {np.median(values):.2g}, "
        f"{np.mean(values < 0.01):.0%} of rows below 0.01."
        for (n, d_k, name), values in norms.items()
    ),
)
