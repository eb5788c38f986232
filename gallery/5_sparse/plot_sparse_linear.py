"""
Softmax weights and linear weights
==================================

The same queries and keys under both. Making the queries longer sharpens a softmax; linear weights stay broad.
"""

from math import sqrt

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, d = 16, 8
rng = np.random.default_rng(0)
q, k = rng.standard_normal((2, n, d))
panels = {}
for factor in (1, 5):
    panels[f"softmax, queries × {factor}"] = ag.softmax(factor * q @ k.T / sqrt(d))
    panels[f"linear, queries × {factor}"] = ag.linear_attention(
        factor * q, k, np.eye(n)
    )  # unit values show the weights
top = {name: w.max(axis=1).mean() for name, w in panels.items()}

fig = plot.figure(
    "sparse-linear",
    title="Linear attention cannot point: its weights stay broad however long the queries are",
    caption=(
        f"Weights of {n} random queries and keys of width {d} (seed 0): `ag.softmax` of scaled dot products, and "
        "`ag.linear_attention` with `elu(x) + 1` and a unit matrix for values. Below each, the largest weight of "
        "a row on "
        "average; an even share is " + f"{1 / n:.2f}."
    ),
    size=(6.4, 6.8),
)
for ax, (name, w) in zip(fig.subplots(2, 2).flat, panels.items(), strict=True):
    plot.matrix(
        ax, w, kind="weights", annotate=False, limits=(0, 1), name=name, ink=plot.WEIGHTS,
        below=f"largest {top[name]:.2f}",
    )  # fmt: skip
plot.describe(
    fig, " ".join(f"{name.capitalize()}: the largest weight of a row is {a:.2f} on average." for name, a in top.items())
)
