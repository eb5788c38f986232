"""
Two heads in one sentence
=========================

"Cat chased mouse": the verb asks one head for the animal before it and the other for the animal after it. W_O adds up
what the two hand over, and its third column tells who did it.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

tokens = ["cat", "chased", "mouse"]
x = np.array([[2.0, 0, 0, -1], [0, 0, 1, 0], [0, 2, 0, 1]])  # cat, mouse, verb, place
params = ag.MultiHeadParams(
    w_q=np.array([[0.0, 0, 0, 0], [0, 0, 0, 0], [-2, 1, 2, 1], [0, 0, 0, 0]]),
    w_k=np.array([[0.0, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0]]),
    w_v=np.array([[1.0, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]),
    w_o=np.array([[1.0, 0, 1, 0], [0, 1, -1, 0], [1, 0, -1, 0], [0, 1, 1, 0]]),
    num_heads=2,
)
out, weights = ag.multi_head_attention(x, x, x, params, return_weights=True)  # (3, 4), (2, 3, 3)
values = ag.split_heads(x @ params.w_v, 2)  # (2, 3, 2)
heads = weights @ values  # (2, 3, 2)
joined = ag.merge_heads(heads)  # (3, 4)
labels = {"rows": tokens, "columns": tokens}

fig = plot.figure(
    "heads-example",
    title="One head finds the animal before the verb, the other the animal after it",
    caption=(
        "The worked example of the chapter, computed with `ag.multi_head_attention`: `d_model = 4`, `h = 2`, "
        "`d_k = d_v = 2`. "
        "In the output the third column is the one that tells who chases whom."
    ),
    size=(6.4, 7.6),
)
plot.equation(
    fig.subplots(),
    [
        [
            plot.Matrix(weights[0], "weights 0", "weights", **labels), "×",
            plot.Matrix(values[0], "V 0", "value", fmt=".0f"), "=",
            plot.Matrix(heads[0], "head 0", "output", fmt=".1f", limits=(-3.5, 3.5)),
        ],
        [
            plot.Matrix(weights[1], "weights 1", "weights", **labels), "×",
            plot.Matrix(values[1], "V 1", "value", fmt=".0f"), "=",
            plot.Matrix(heads[1], "head 1", "output", fmt=".1f", limits=(-3.5, 3.5)),
        ],
        [
            plot.Matrix(joined, "head 0 | head 1", "output", rows=tokens, limits=(-3.5, 3.5)), "×",
            plot.Matrix(params.w_o, "$W_O$", fmt=".0f"), "=",
            plot.Matrix(out, "output", "output", fmt=".1f", limits=(-3.5, 3.5)),
        ],
    ],
)  # fmt: skip
plot.describe(
    fig,
    f"Three lines of matrices. In head 0 'chased' gives {weights[0, 1, 0]:.2f} to 'cat' and receives "
    f"({heads[0, 1, 0]:.2f}, {heads[0, 1, 1]:.2f}); in head 1 it gives {weights[1, 1, 2]:.2f} to 'mouse' and receives "
    f"({heads[1, 1, 0]:.2f}, {heads[1, 1, 1]:.2f}). Side by side and times W_O the output of 'chased' is "
    f"({', '.join(f'{value:.2f}' for value in out[1])}).",
)
