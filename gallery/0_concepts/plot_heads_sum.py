"""
Joining heads and projecting is adding up heads
===============================================

W_O has a block of rows for each head. Joined heads times W_O is the same as every head times its own block, added up.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(1)
n, d_model, h, d_v = 3, 4, 2, 2
x = rng.standard_normal((n, d_model))
w_o = rng.integers(-2, 3, (h * d_v, d_model)).astype(float)
heads = [ag.self_attention(x, *(rng.standard_normal((3, d_model, d_v)))) for _ in range(h)]  # each (n, d_v)
blocks = [w_o[:d_v], w_o[d_v:]]
joined = np.concatenate(heads, axis=-1)  # (n, h * d_v)
output = joined @ w_o
assert np.allclose(output, sum(head @ block for head, block in zip(heads, blocks, strict=True)))

fig = plot.figure(
    "concepts-heads-sum",
    title="The output projection gives every head its own matrix and adds the results",
    caption=(
        f"Two heads of a random layer with `n = {n}`, `d_model = {d_model}`, `d_v = {d_v}`, seed 1. Joining the "
        "heads and adding them up give the same output."
    ),
    size=(4.4, 8.4),
)
plot.equation(
    fig.subplots(),
    [
        [
            plot.Matrix(joined, "head 0 | head 1", "output", fmt=".1f"), "×",
            plot.Matrix(w_o, "$W_O$", fmt=".0f"),
        ],
        ["=", plot.Matrix(output, "output", "output", fmt=".1f")],
        [
            "=", plot.Matrix(heads[0], "head 0", "output", fmt=".1f"), "×",
            plot.Matrix(blocks[0], "rows 0, 1", fmt=".0f"),
        ],
        [
            "+", plot.Matrix(heads[1], "head 1", "output", fmt=".1f"), "×",
            plot.Matrix(blocks[1], "rows 2, 3", fmt=".0f"),
        ],
    ],
)  # fmt: skip
plot.describe(
    fig,
    f"Four lines of matrices. Above, the two heads side by side ({n} by {h * d_v}) times W_O ({h * d_v} by "
    f"{d_model}) give the output "
    f"({n} by {d_model}). Below, each head ({n} by {d_v}) times its own {d_v} rows of W_O, added: the largest "
    "difference from the "
    f"output is {np.abs(output - sum(a @ b for a, b in zip(heads, blocks, strict=True))).max():.0e}.",
)
