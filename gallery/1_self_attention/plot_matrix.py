"""
Reading the matrix of "The cat sat"
===================================

A row is one token's choice, a column is what one token receives. The matrix need not be symmetric, and the diagonal
need not be large.
"""

import numpy as np
from matplotlib.patches import Rectangle

import attn_guide as ag
from attn_guide import plot

tokens = ["The", "cat", "sat"]
x = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]], float)  # determiner, noun, verb, living
w_q = np.array([[1, 0], [0, 2], [2, 1], [1, 0]], float)
w_k = np.array([[-1, 0], [1, 0], [0, 2], [1, 0]], float)
weights = ag.softmax(ag.attention_scores(x @ w_q, x @ w_k))  # (n, n)
received = weights.sum(axis=0)

fig = plot.figure(
    "self-matrix",
    title="Each row says where one word looks; the rows need not agree",
    caption=(
        "The weights of the example. Outlined: the row of “sat”, and the two cells between “The” and “cat”, which "
        "differ: attention has a direction. Below: the sum of each column."
    ),
    size=(4.8, 5.6),
)
top, bottom = fig.subplots(2, 1, height_ratios=[4, 1.2])
plot.matrix(
    top, weights, kind="weights", rows=tokens, columns=tokens, row_sums=True, axis_labels=True, outline=[(0, 1), (1, 0)]
)
top.add_patch(Rectangle((-0.5, 1.5), 3, 1, fill=False, edgecolor=plot.QUERY, linewidth=2.5, zorder=5))  # row of sat
plot.bars(bottom, tokens, received, colour=plot.KEY)
bottom.set_title("column sums: attention received", loc="left", color=plot.MUTED, fontsize=10, pad=14)
plot.describe(
    fig,
    plot.describe_matrix(weights, tokens, tokens)
    + f" The gives {weights[0, 1]:.2f} to cat, cat gives {weights[1, 0]:.2f} to The. Columns sum to "
    + ", ".join(f"{word} {total:.2f}" for word, total in zip(tokens, received, strict=True))
    + ".",
)
