"""
What the mask alone gives the first token
=========================================

Row i shares its attention among i + 1 keys. With equal scores everywhere, early tokens collect much more than late
ones, before anything has been learned.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n = 64
rng = np.random.default_rng(0)
mask = ag.causal.materialize(n)
tied = ag.softmax(np.zeros((n, n)), where=mask).sum(axis=0)  # (n,)
random = ag.softmax(rng.standard_normal((n, n)), where=mask).sum(axis=0)  # (n,)

fig = plot.figure(
    "causal-first-token",
    title=f"The first of {n} tokens receives {tied[0]:.1f} rows’ worth of attention, the last {tied[-1]:.2f}",
    caption=(
        "Sums down the columns of causal attention weights. Dashed: equal scores, which give 1/(j + 1) + ... + 1/n. "
        "Line: one matrix of standard normal scores, seed 0. `ag.softmax` under `ag.causal`."
    ),
    size=(5.6, 3.4),
)
ax = fig.subplots()
plot.curve(
    ax, np.arange(n), {"random scores": random}, theory={"equal scores": tied}, colours={"random scores": plot.KEY},
    xlabel="position of the key", ylabel="attention received", marks=False,
)  # fmt: skip
plot.describe(
    fig,
    "Line chart of the attention that each position receives. "
    + " ".join(
        f"Position {j}: {tied[j]:.2f} with equal scores, {random[j]:.2f} with random ones." for j in (0, 1, 8, 32, 63)
    ),
)
