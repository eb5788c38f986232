"""
Ways to give attention the order of its tokens
==============================================

Six matrices, query positions down and key positions across: what each scheme adds to a score, or does to it. Vectors
added to the tokens act through their products; biases are added as they are; RoPE turns queries and keys; and a
causal mask removes the future.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, d = 32, 64
sinusoidal = ag.sinusoidal_positions(n, d)  # (n, d)
learned = ag.learned_positions(ag.init_learned_positions(n, d, rng=rng, std=1.0), n)  # (n, d), as before training
t5_table = rng.standard_normal((32, 1))  # a bias for each bucket of distances, as before training
query = np.ones((n, d)) / np.sqrt(d)  # the same content everywhere, so that only the position differs

panels = {
    "sinusoidal, P·Pᵀ": sinusoidal @ sinusoidal.T,
    "learned, P·Pᵀ": learned @ learned.T,
    "T5 relative bias": ag.t5_relative_bias(t5_table, n, max_distance=32)[0],
    "ALiBi, first of 8 heads": ag.alibi_bias(8, n)[0],
    "RoPE, q·k of equal contents": ag.attention_scores(ag.apply_rope(query), ag.apply_rope(query), scale=1.0),
}
causal = np.tril(np.ones((n, n), bool))

fig = plot.figure(
    "concepts-positions",
    title="All but the learned table depend on the offset alone",
    caption=(
        f"Query positions down, key positions across; n = {n}, d = {d}. A constant diagonal means that only "
        "the offset counts. The learned table and the T5 biases are random draws (seed 0), as before training; a "
        "trained learned table is free to do anything. Each matrix has its own colour range, centred on 0. The "
        "causal mask "
        "shows which keys each query may see."
    ),
    size=(4.8, 7.2),
)
axes = fig.subplots(3, 2)
for ax, (name, matrix) in zip(axes.flat, panels.items(), strict=False):
    plot.matrix(ax, matrix, kind="scores", name=name, annotate=False)
plot.matrix(axes.flat[-1], causal, kind="mask", name="causal mask")
for ax in axes.flat:
    ax.set_title(ax.get_title(loc="left"), loc="left", fontsize=10, color=plot.SCORES, fontweight="bold")


def offset_only(matrix):
    """How far the entries of one diagonal differ, at most."""
    return max(np.ptp(np.diagonal(matrix, k)) for k in range(-n + 1, n))


plot.describe(
    fig,
    f"Six {n} by {n} matrices. "
    + " ".join(
        f"{name}: entries of one diagonal differ by "
        f"{'nothing' if offset_only(m) < 1e-9 else f'up to {offset_only(m):.1f}'}."
        for name, m in panels.items()
    )
    + f" The causal mask allows {int(causal.sum())} of {n * n} pairs, those on and below the diagonal.",
)
