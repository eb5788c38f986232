"""
A hidden key that comes back
============================

The weight of a key that is hidden by minus infinity, where a soft cap comes after the mask.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

caps = np.array([1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0])
rng = np.random.default_rng(0)
scores = rng.standard_normal((1000, 16))  # rows of 16 keys
bias = np.where(np.arange(16) < 8, 0.0, -np.inf)  # the second half is hidden
before, after = [], []
for cap in caps:
    before.append(ag.softmax(cap * np.tanh(scores / cap) + bias)[:, 8:].sum(axis=1).mean())
    after.append(ag.softmax(cap * np.tanh((scores + bias) / cap))[:, 8:].sum(axis=1).mean())
assert max(before) == 0.0

fig = plot.figure(
    "appendix-soft-cap",
    title=f"Capped after the mask, hidden keys get {after[1]:.0%} of the weight at a cap of {caps[1]:.0f}",
    caption=(
        "Mean weight that goes to 8 hidden keys of 16, over 1000 rows of standard normal scores (seed 0). Capped "
        "first, hidden keys get nothing. Capped after the mask, they get what a score of minus the cap gets. Gemma 2 "
        "caps at 50, where the leak is too small to see; nothing in the formula says that a cap must be large."
    ),
    size=(5.0, 3.4),
)
ax = fig.subplots()
series = {"bias, then cap": np.array(after), "cap, then bias": np.array(before)}
colours = {"bias, then cap": plot.SCORES, "cap, then bias": plot.WEIGHTS}
plot.curve(ax, caps, series, colours=colours, log="x", ticks=caps, xlabel="soft cap", ylabel="weight on hidden keys")
plot.describe(
    fig,
    "Line chart over the soft cap. Capped after the mask: "
    + " ".join(f"cap {c:.0f}: {a:.3g}." for c, a in zip(caps, after, strict=True))
    + " Capped first, the weight is 0 for every cap.",
)
