"""
Splitting cuts columns, not rows
================================

Head i takes columns i d to (i + 1) d of every token. A reshape to the right shape without moving the axis gives each
head half of the tokens instead.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

tokens = ["the", "cat", "sat", "down"]
x = 10.0 * np.arange(4)[:, None] + np.arange(4)  # the number of the token, then that of the column
right = ag.split_heads(x, 2)  # (2, 4, 2)
wrong = x.reshape(2, 4, 2)  # the same shape

fig = plot.figure(
    "heads-split",
    title="Every head gets some columns of all tokens; a bare reshape gives it all columns of some",
    caption=(
        "Each number is ten times the token's index plus the column's. Right: `ag.split_heads(x, 2)`, a reshape to "
        "(n, h, d) and a swap of the first two axes. Wrong: `x.reshape(2, 4, 2)`, which has the same shape."
    ),
    size=(5.6, 5.4),
)
matrices = {"fmt": ".0f", "limits": (-40, 40)}
plot.equation(
    fig.subplots(),
    [
        [
            plot.Matrix(x, "X$W_Q$", "query", rows=tokens, **matrices), "→",
            plot.Matrix(right[0], "head 0", "query", **matrices), plot.Matrix(right[1], "head 1", "query", **matrices),
        ],
        [
            plot.Matrix(x, "X$W_Q$", "query", rows=tokens, **matrices), "→",
            plot.Matrix(wrong[0], "head 0", "query", **matrices), plot.Matrix(wrong[1], "head 1", "query", **matrices),
        ],
    ],
    labels=["right:\nsplit", "wrong:\nreshape"],
)  # fmt: skip
plot.describe(
    fig,
    f"Two lines of matrices. Above, a 4 by 4 array is split into two of 4 by 2: head 0 holds "
    f"{right[0].astype(int).tolist()}, "
    f"a row for every token. Below, the bare reshape gives head 0 {wrong[0].astype(int).tolist()}, which is "
    f"the first two "
    "tokens, cut in halves.",
)
