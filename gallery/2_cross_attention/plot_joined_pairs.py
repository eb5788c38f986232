"""
Three attentions inside one square
==================================

All pairs of a joined source and target, and which of them an encoder-decoder computes.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

m, n = 6, 4
source, target = [f"s{j}" for j in range(1, m + 1)], [f"t{i}" for i in range(1, n + 1)]
encoder, decoder, cross = ag.full.count(m), ag.causal.count(n), ag.full.count(n, m)
separate = np.block([
    [ag.full.materialize(m), np.zeros((m, n), bool)],
    [ag.full.materialize(n, m), ag.causal.materialize(n)],
])  # fmt: skip

fig = plot.figure(
    "cross-pairs",
    title=f"{encoder} + {cross} + {decoder} = {separate.sum()} pairs: cross-attention is one block of three",
    caption=(
        f"A source of {m} and a target of {n} tokens, counted from the masks. Encoder (top left), cross-attention "
        "(bottom left), causal decoder (bottom right). Hatched pairs do not meet. The allowed pairs are exactly those "
        f"of `ag.prefix({m})` over the joined sequence."
    ),
    size=(4.8, 5.2),
)
assert (separate == ag.prefix(m).materialize(m + n)).all()
ax = fig.subplots()
plot.matrix(ax, separate, kind="mask", rows=source + target, columns=source + target, axis_labels=True)
ax.axhline(m - 0.5, color=plot.INK, linewidth=1.4)
ax.axvline(m - 0.5, color=plot.INK, linewidth=1.4)
for x, y, text in (
    ((m - 1) / 2, (m - 1) / 2, f"encoder\n{encoder}"), ((m - 1) / 2, m + (n - 1) / 2, f"cross\n{cross}"),
    (m + 1.1, m + n - 1.2, f"decoder\n{decoder}"),
):  # fmt: skip
    ax.text(x, y, text, ha="center", va="center", fontsize=11, fontweight="bold", color=plot.INK,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": plot.BACKGROUND, "edgecolor": "none"})  # fmt: skip
plot.describe(fig, plot.describe_mask(separate, "Joined source and target"))
