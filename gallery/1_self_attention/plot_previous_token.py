"""
A head that looks one word back
===============================

With positions in its queries and keys, a head can attend by place. Here the query matrix turns each position into the
one before it.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, d = 8, 64
back = np.zeros((d, d))  # takes the vector of position t to that of t - 1
for i in range(d // 2):
    c, s = np.cos(10_000 ** (-2 * i / d)), np.sin(10_000 ** (-2 * i / d))
    back[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, s], [-s, c]]
x = np.hstack([ag.sinusoidal_positions(n, d), rng.standard_normal((n, 32))])  # (n, 96): positions, then content
w_q, w_k = np.zeros((96, d)), np.zeros((96, d))
w_q[:d], w_k[:d] = 16.0 * back, np.eye(d)  # neither reads the content
weights = ag.softmax(ag.attention_scores(x @ w_q, x @ w_k))  # (n, n)
before = weights[np.arange(1, n), np.arange(n - 1)]

fig = plot.figure(
    "self-previous-token",
    title=f"With positions, a head can look one word back: {before.min():.2f} or more goes there",
    caption=(
        "Eight tokens of random content with sinusoidal positions, `ag.sinusoidal_positions`. `W_Q` turns position t "
        "into t − 1 and multiplies by 16; `W_K` reads the position. The first token has no word before it."
    ),
    size=(4.8, 5.0),
)
plot.matrix(
    fig.subplots(),
    weights,
    kind="weights",
    rows=[str(i) for i in range(n)],
    columns=[str(i) for i in range(n)],
    axis_labels=True,
)
plot.describe(
    fig,
    f"Attention weights of {n} queries to {n} keys. Each token from 1 on gives between {before.min():.2f} and "
    f"{before.max():.2f} to the one "
    f"before it; token 0 gives {weights[0, 0]:.2f} to itself.",
)
