"""
Attention in one picture
========================

Three words, from queries, keys and values to the output, each matrix with its numbers. The example is the one whose
code stands beside the picture on the home page.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

words = ["The", "cat", "sat"]
query = np.array([[1.0, 0.0], [0.0, 2.0], [2.0, 1.0]])  # (n, d_k)
key = np.array([[1.0, 1.0], [0.0, 2.0], [2.0, 0.0]])  # (m, d_k)
value = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # (m, d_v)

scores = ag.attention_scores(query, key)  # (n, m), already divided by the root of d_k
output, weights = ag.scaled_dot_product_attention(query, key, value, return_weights=True)

# %%
# The first line compares, the second decides, the third mixes. They share one size of cell, so shapes can be
# compared by eye.

fig = plot.figure(
    "home-one-picture",
    title="Attention compares queries with keys and mixes values by the result",
    caption=(
        "Computed from three queries, keys and values of width two. Scores are dot products divided by the root of "
        "the width; each row of weights is the softmax of a row of scores and sums to one."
    ),
    size=(4.8, 6.4),
)
plot.equation(
    fig.subplots(),
    [
        [
            plot.Matrix(query, "Q", "query", rows=words, shape="n × dₖ", fmt=".0f"),
            "×",
            plot.Matrix(key.T, "Kᵀ", "key", columns=words, shape="dₖ × m", fmt=".0f"),
            "÷ √dₖ",
        ],
        [
            "=",
            plot.Matrix(scores, "scores", "scores", rows=words, columns=words, shape="n × m", fmt=".1f"),
            "→",
            plot.Matrix(weights, "softmax(scores)", "weights", columns=words, shape="n × m"),
        ],
        [
            "×",
            plot.Matrix(value, "V", "value", rows=words, shape="m × dᵥ", fmt=".0f"),
            "=",
            plot.Matrix(output, "output", "output", rows=words, shape="n × dᵥ"),
        ],
    ],
    labels=["compare", "decide", "mix"],
)
plot.describe(
    fig,
    "Three lines of matrices. First, queries times transposed keys over the root of the width gives scores. "
    + plot.describe_matrix(weights, words, words)
    + f" Weights times values give the output; the row of cat is {output[1, 0]:.2f} and {output[1, 1]:.2f}.",
)
