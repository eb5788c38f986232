"""
The same weights, used in three ways
====================================

One query has weights for five values. Soft attention mixes the values, a draw takes one of them, argmax always takes
the same.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

weights = np.array([0.1, 0.25, 0.35, 0.2, 0.1])  # (m,)
values = np.array([[1.0], [2], [3], [4], [5]])  # (m, d_v)
query, key = np.ones((5, 1)), np.log(weights)[:, None]  # scores are log weights
soft, row = ag.scaled_dot_product_attention(query[:1], key, values, scale=1.0, return_weights=True)
drawn, choice = ag.hard_attention(query, key, values, scale=1.0, rng=np.random.default_rng(0), return_weights=True)
best, top = ag.hard_attention(query[:1], key, values, scale=1.0, choose="argmax", return_weights=True)
used = np.vstack([row, choice, top])  # (7, 5)
outputs = np.vstack([soft, drawn, best])  # (7, 1)
names = ["soft", *(f"draw {i + 1}" for i in range(5)), "argmax"]

fig = plot.figure(
    "soft-average-or-choose",
    title=f"Soft attention returns {soft[0, 0]:.2f}, which is none of the values; a draw returns one of them",
    caption=(
        "One query, five values. Rows: what each value is multiplied by in `ag.scaled_dot_product_attention`, in five "
        'draws of `ag.hard_attention` (seed 0) and with `choose="argmax"`.'
    ),
    size=(6.4, 4.4),
)
plot.equation(
    fig.subplots(),
    [
        plot.Matrix(used, "weights used", "weights", rows=names, columns=list("12345"), fmt=".3g"), "×",
        plot.Matrix(values, "V", "value", fmt=".0f"), "=", plot.Matrix(outputs, "output", "output", fmt=".3g"),
    ],
)  # fmt: skip
plot.describe(
    fig,
    "Seven rows of weights for the values 1 to 5 and what they return. "
    + " ".join(
        f"{name.capitalize()}: {', '.join(f'{w:g}' for w in line.round(2))}; output {out:.2f}."
        for name, line, out in zip(names, used, outputs[:, 0], strict=True)
    ),
)
