"""
"I am a student", from English to Hindi
=======================================

Three words are written from four. The verb, second in English, is read last.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

words = ["I", "am", "a", "student"]
asked = ["‹start›", "main", "chhatr"]  # what has been written last when each row asks
written = ["main", "chhatr", "hoon"]  # what each row predicts
source = np.array([[2, 0, 0, 0], [1, 2, 0, 0], [0, 0, 1, 1], [0, 0, 2, 0]], float)  # (m, d_source)
target = np.eye(3)  # (n, d_target)
w_q = np.array([[3, 0, 0, 0], [-1, 0, 3, 0], [1, 3, -1, 0]], float)  # (d_target, d_k)
w_k = np.eye(4)  # (d_source, d_k)
w_v = np.array([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0, 0, 0]])  # (d_source, d_v)
q, k, v = target @ w_q, source @ w_k, source @ w_v
scores = ag.attention_scores(q, k)  # (n, m)
out, weights = ag.cross_attention(target, source, w_q, w_k, w_v, return_weights=True)  # (n, d_v), (n, m)

fig = plot.figure(
    "cross-example",
    title=f"“hoon” is written while “am” is read, with a weight of {weights[2, 1]:.2f}",
    caption=(
        "The example of the chapter, computed with `ag.attention_scores` and `ag.cross_attention`. Rows are labelled "
        f"by the word that was written last; they predict {', '.join(written)}. `d_k = 4`: products are divided by 2."
    ),
    size=(6.4, 7.6),
)
plot.equation(
    fig.subplots(),
    [
        [
            plot.Matrix(q, "Q", "query", rows=asked, fmt=".0f"), "×",
            plot.Matrix(k.T, "Kᵀ", "key", columns=words, fmt=".0f"), "÷ 2",
        ],
        [
            plot.Matrix(scores, "scores", "scores", rows=asked, columns=words, fmt=".1f"), "→",
            plot.Matrix(weights, "weights", "weights", columns=words),
        ],
        [
            plot.Matrix(weights, "weights", "weights", rows=asked), "×",
            plot.Matrix(v, "V", "value", fmt=".1f"), "=", plot.Matrix(out, "output", "output"),
        ],
    ],
    labels=["1\ncompare", "2\ndecide", "3\nmix"],
)  # fmt: skip
plot.describe(
    fig,
    "Three lines of matrices: 3 queries times 4 keys divided by two, the softmax of each row, the product with the "
    "values. " + plot.describe_matrix(weights, asked, words),
)
