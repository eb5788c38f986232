"""
Reading an attention matrix
===========================

One row says where a token looks; one column says who looks at a token. Rows sum to one because each went through
its own softmax. Columns have no such rule.
"""

import numpy as np
from matplotlib.patches import Rectangle

import attn_guide as ag
from attn_guide import plot

tokens = ["money", "flows", "past", "the", "river", "bank"]
# features: water, money, function word, place
x = np.array(
    [[0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [2, 0, 0, 1], [1, 1, 0, 1]], float
)  # (n, d_model) = (6, 4)
w_q = np.array([[1, 0], [0, 1], [0, 0], [1, 0]], float)
w_k = np.array([[1, 0], [0, 1], [0, 0], [0, 0]], float)
weights = ag.softmax(ag.attention_scores(x @ w_q, x @ w_k))  # (6, 6)

received = weights.sum(axis=0)
fig = plot.figure(
    "concepts-annotated-matrix",
    title="A row is one query’s choice and sums to 1; a column sums to whatever it gets",
    caption=(
        "Six tokens through the projections of the small example. Entry (i, j) is query i attending to key j, both "
        "counted from 0. Outlined: the row of “bank”, what it attends to, and the column of “river”, who "
        "attends to it. Below: the sum of each column, the attention that a token receives."
    ),
    size=(5.6, 5.4),
)
top, bottom = fig.subplots(2, 1, height_ratios=[5, 1.5])
plot.matrix(
    top, weights, kind="weights", rows=tokens, columns=tokens, row_sums=True, axis_labels=True,
)  # fmt: skip
top.add_patch(Rectangle((-0.5, 4.5), 6, 1, fill=False, edgecolor=plot.QUERY, linewidth=2.5, zorder=5))  # row of bank
top.add_patch(Rectangle((3.5, -0.5), 1, 6, fill=False, edgecolor=plot.KEY, linewidth=2.5, zorder=5))  # column of river
plot.bars(bottom, [f"{word}\n{j}" for j, word in enumerate(tokens)], received, colour=plot.KEY)
bottom.set_title(
    "column sums: the attention that each token receives", loc="left", color=plot.MUTED, fontsize=10, pad=14
)
plot.describe(
    fig,
    plot.describe_matrix(weights, tokens, tokens)
    + " Every row sums to 1. The columns sum to "
    + ", ".join(f"{word} {total:.2f}" for word, total in zip(tokens, received, strict=True))
    + ".",
)
