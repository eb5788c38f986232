"""
The five steps
==============

"The cat sat", from three rows of features to three rows of output, with every number on the way.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

tokens = ["The", "cat", "sat"]
# features: determiner, noun, verb, living
x = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]], float)  # (n, d_model) = (3, 4)
w_q = np.array([[1, 0], [0, 2], [2, 1], [1, 0]], float)  # (d_model, d_k) = (4, 2)
w_k = np.array([[-1, 0], [1, 0], [0, 2], [1, 0]], float)  # (d_model, d_k) = (4, 2)
w_v = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 2], [0, 2, 0]], float)  # (d_model, d_v) = (4, 3)

q, k, v = x @ w_q, x @ w_k, x @ w_v
raw = ag.attention_scores(q, k, scale=1.0)  # (n, n)
scores = ag.attention_scores(q, k)  # (n, n), divided by the root of d_k
out, weights = ag.self_attention(x, w_q, w_k, w_v, return_weights=True)

fig = plot.figure(
    "self-five-steps",
    title=f"In five steps “sat” finds its subject: {weights[2, 1]:.0%} of its attention goes to “cat”",
    caption=(
        "1 project, 2 compare, 3 scale by 1/√2, 4 decide by the softmax of each row, 5 mix. The numbers are those of "
        "the chapter, from `ag.attention_scores` and `ag.self_attention`. Rows are the tokens; in scores and weights "
        "they are queries, and the columns are keys."
    ),
    size=(5.2, 10.8),
)
plot.equation(
    fig.subplots(),
    [
        [
            plot.Matrix(q, "$Q = X W_Q$", "query", rows=tokens, fmt=".0f"), "",
            plot.Matrix(k, "$K = X W_K$", "key", fmt=".0f"), "",
            plot.Matrix(v, "$V = X W_V$", "value", fmt=".0f"),
        ],
        [
            plot.Matrix(q, "Q", "query", rows=tokens, fmt=".0f"), "×",
            plot.Matrix(k.T, "Kᵀ", "key", columns=tokens, fmt=".0f"), "=",
            plot.Matrix(raw, "Q Kᵀ", "scores", columns=tokens, fmt=".0f"),
        ],
        [
            plot.Matrix(scores, "scores", "scores", rows=tokens, columns=tokens, fmt=".1f"), "→",
            plot.Matrix(weights, "weights", "weights", columns=tokens),
        ],
        [
            plot.Matrix(weights, "weights", "weights", rows=tokens, columns=tokens), "×",
            plot.Matrix(v, "V", "value", fmt=".0f"),
        ],
        ["=", plot.Matrix(out, "output", "output", rows=tokens)],
    ],
    labels=["1", "2", "3, 4", "5", ""],
)  # fmt: skip
plot.describe(
    fig,
    "Five lines of matrices: queries, keys and values; queries times keys; the scaled scores and their softmax, row by "
    "row; the weights times the values; and the output. "
    + plot.describe_matrix(weights, tokens, tokens)
    + f" The output of sat is {', '.join(f'{a:.2f}' for a in out[2])}.",
)
