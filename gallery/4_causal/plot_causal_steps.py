"""
Causal attention in four steps
==============================

Compare, mask, decide, mix: the example of the chapter with every number on the way.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

tokens = ["the", "cat", "sat", "down"]
q = np.array([[0, 2, 1, 0], [1, 0, 2, 0], [0, 2, 1, 1], [0, 1, 2, 0]], float)  # (n, d_k) = (4, 4)
k = 2 * np.eye(4)  # (m, d_k) = (4, 4)
v = np.array([[0, 0], [2, 0], [0, 2], [1, 1]], float)  # (m, d_v) = (4, 2)
mask = ag.causal.materialize(4)
scores = ag.attention_scores(q, k)  # (4, 4)
out, weights = ag.scaled_dot_product_attention(q, k, v, is_causal=True, return_weights=True)  # (4, 2), (4, 4)

fig = plot.figure(
    "causal-steps",
    title=f"“sat” divides its attention among three words and gives “cat” {weights[2, 1]:.0%}",
    caption=(
        "Computed with `ag.attention_scores` and `ag.scaled_dot_product_attention(..., is_causal=True)`; `d_k = 4`, so "
        "products are divided by 2. Hatched pairs are forbidden."
    ),
    size=(6.4, 9.6),
)
plot.equation(
    fig.subplots(),
    [
        [
            plot.Matrix(q, "Q", "query", rows=tokens, fmt=".0f"), "×",
            plot.Matrix(k.T, "Kᵀ", "key", columns=tokens, fmt=".0f"), "÷ 2",
        ],
        [
            plot.Matrix(scores, "scores", "scores", rows=tokens, columns=tokens, fmt=".0f"), "→",
            plot.Matrix(scores, "masked scores", "scores", columns=tokens, mask=mask, fmt=".0f"),
        ],
        [
            plot.Matrix(scores, "masked scores", "scores", rows=tokens, mask=mask, fmt=".0f"), "→",
            plot.Matrix(weights, "weights", "weights", mask=mask),
        ],
        [
            plot.Matrix(weights, "weights", "weights", rows=tokens, mask=mask), "×",
            plot.Matrix(v, "V", "value", fmt=".0f"), "=", plot.Matrix(out, "output", "output"),
        ],
    ],
    labels=["1\ncompare", "2\nmask", "3\ndecide", "4\nmix"],
)  # fmt: skip
plot.describe(
    fig,
    "Four lines of matrices: queries times keys divided by two, the scores masked above the diagonal, the softmax of "
    "each row, the product with the values. "
    + plot.describe_matrix(weights, tokens, tokens, mask=mask)
    + " Outputs: "
    + "; ".join(f"{t} ({a:.2f}, {b:.2f})" for t, (a, b) in zip(tokens, out, strict=True))
    + ".",
)
