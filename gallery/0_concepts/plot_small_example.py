"""
A small example, end to end
===========================

Three words, four features each. "Bank" asks for a kind of place, "river" answers best, and the new vector of "bank"
is mostly what "river" provides. The chapter follows the same numbers by hand.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

tokens = ["the", "river", "bank"]
# features: water, money, function word, place
x = np.array([[0, 0, 1, 0], [2, 0, 0, 1], [1, 1, 0, 1]], float)  # (n, d_model) = (3, 4)
w_q = np.array([[1, 0], [0, 1], [0, 0], [1, 0]], float)  # (d_model, d_k) = (4, 2)
w_k = np.array([[1, 0], [0, 1], [0, 0], [0, 0]], float)  # (d_model, d_k) = (4, 2)
w_v = np.eye(4, 3)  # (d_model, d_v) = (4, 3)

q, k, v = x @ w_q, x @ w_k, x @ w_v
scores = ag.attention_scores(q, k)  # (n, n), already divided by sqrt(d_k)
out, weights = ag.scaled_dot_product_attention(q, k, v, return_weights=True)

fig = plot.figure(
    "concepts-small-example",
    title=f"“bank” takes {weights[2, 1]:.0%} of its new vector from “river”",
    caption=(
        "Three tokens with `d_model = 4`, `d_k = 2`, `d_v = 3`; `ag.attention_scores` and "
        "`ag.scaled_dot_product_attention` on the numbers of the chapter. Rows are queries, columns keys."
    ),
    size=(4.8, 6.0),
)
plot.equation(
    fig.subplots(),
    [
        [
            plot.Matrix(q, "Q", "query", rows=tokens, fmt=".0f"),
            "×",
            plot.Matrix(k.T, "Kᵀ", "key", columns=tokens, fmt=".0f"),
            "÷ √2",
        ],
        [
            "=",
            plot.Matrix(scores, "scores", "scores", rows=tokens, columns=tokens),
            "→",
            plot.Matrix(weights, "weights", "weights", columns=tokens),
        ],
        ["×", plot.Matrix(v, "V", "value", rows=tokens, fmt=".0f"), "=", plot.Matrix(out, "output", "output")],
    ],
)
plot.describe(
    fig,
    "Three lines of matrices. Queries times keys gives 3 by 3 scores; the softmax of each row gives weights, which "
    "multiply the values. "
    + plot.describe_matrix(weights, tokens, tokens)
    + f" The output of bank is {out[2, 0]:.2f} water, {out[2, 1]:.2f} money, {out[2, 2]:.2f} function word.",
)
