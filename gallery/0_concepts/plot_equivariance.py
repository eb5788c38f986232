"""
Attention without positions cannot see the order
================================================

The same three words in another order give the same three output vectors in that other order. Nothing in the output of
"bank" says whether it stood first or last.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

tokens = ["the", "river", "bank"]
x = np.array([[0, 0, 1, 0], [2, 0, 0, 1], [1, 1, 0, 1]], float)  # (n, d_model)
w_q = np.array([[1, 0], [0, 1], [0, 0], [1, 0]], float)
w_k = np.array([[1, 0], [0, 1], [0, 0], [0, 0]], float)
w_v = np.eye(4, 3)
order = [2, 0, 1]

out = ag.self_attention(x, w_q, w_k, w_v)  # (n, d_v)
moved = ag.self_attention(x[order], w_q, w_k, w_v)
words = [tokens[i] for i in order]
causal, causal_moved = (ag.self_attention(a, w_q, w_k, w_v, is_causal=True) for a in (x, x[order]))

fig = plot.figure(
    "concepts-equivariance",
    title="Reorder the words and attention reorders its outputs; under a causal mask they change",
    caption=(
        "The small example in two orders. Each output row keeps its word; only under the causal mask do its "
        "numbers change."
    ),
    size=(4.8, 5.2),
)
plot.equation(
    fig.subplots(),
    [
        [
            plot.Matrix(out, "output", "output", rows=tokens), "",
            plot.Matrix(moved, "output, reordered", "output", rows=words),
        ],
        [
            plot.Matrix(causal, "causal output", "output", rows=tokens), "",
            plot.Matrix(causal_moved, "causal, reordered", "output", rows=words),
        ],
    ],
)  # fmt: skip
same, other = (np.abs(a[order] - b).max() for a, b in ((out, moved), (causal, causal_moved)))
plot.describe(
    fig,
    f"Four matrices. Outputs for the orders {', '.join(tokens)} and {', '.join(words)}: word by word they "
    "differ by "
    f"{same:.0e}. With a causal mask they differ by up to {other:.2f}.",
)
