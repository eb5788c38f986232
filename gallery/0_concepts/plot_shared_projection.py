"""
One projection for queries and keys, or two
===========================================

If queries and keys are the same vectors, score (i, j) equals score (j, i), and a token scores highest against
itself. The softmax works row by row, so the weights are not symmetric all the same.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, d = 5, 16
x = rng.standard_normal((n, d))  # (n, d_model)
w_q, w_k = rng.standard_normal((2, d, d)) / np.sqrt(d)
labels = [str(i) for i in range(n)]

panels = {"shared, K = Q": (x @ w_q, x @ w_q), "separate": (x @ w_q, x @ w_k)}
scores = {name: ag.attention_scores(q, k) for name, (q, k) in panels.items()}
weights = {name: ag.softmax(s) for name, s in scores.items()}
diagonal = {name: float(np.trace(w)) / n for name, w in weights.items()}
apart = float(np.abs(weights["shared, K = Q"] - weights["shared, K = Q"].T).max())

fig = plot.figure(
    "concepts-shared-projection",
    title="Shared projections make scores symmetric and weights selfish, not symmetric",
    caption=(
        f"{n} random tokens, `d_model = dₖ = {d}`, seed 0. With one projection the scores are symmetric, the "
        "weights "
        f"differ by up to {apart:.2f} across the diagonal, and a token gives itself "
        f"{diagonal['shared, K = Q']:.2f} on average; "
        f"with two projections, {diagonal['separate']:.2f}."
    ),
    size=(5.2, 5.8),
)
axes = fig.subplots(2, 2)
limit = max(float(np.abs(s).max()) for s in scores.values())
for row, name in zip(axes, panels, strict=True):
    plot.matrix(row[0], scores[name], kind="scores", rows=labels, columns=labels, fmt=".1f", limits=(-limit, limit),
                name=f"scores, {name}", ink=plot.SCORES)  # fmt: skip
    plot.matrix(row[1], weights[name], kind="weights", rows=labels, columns=labels, limits=(0, 1),
                name="weights", ink=plot.WEIGHTS, outline=[(i, i) for i in range(n)])  # fmt: skip
plot.describe(
    fig,
    f"Four {n} by {n} matrices. Above, queries and keys are the same vectors: scores symmetric, weights not "
    "(largest "
    f"difference across the diagonal {apart:.2f}), mean weight on the diagonal "
    f"{diagonal['shared, K = Q']:.2f}. Below, two "
    f"projections: neither is symmetric, mean weight on the diagonal {diagonal['separate']:.2f}.",
)
