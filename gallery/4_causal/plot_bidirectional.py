"""
Bidirectional and causal
========================

The same scores with and without a mask. The last row is the same in both: the last token may see everything anyway.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

tokens = ["the", "cat", "sat", "down"]
q = np.array([[0, 2, 1, 0], [1, 0, 2, 0], [0, 2, 1, 1], [0, 1, 2, 0]], float)  # (n, d_k) = (4, 4)
scores = ag.attention_scores(q, 2 * np.eye(4))  # (4, 4)
masks = {"bidirectional": ag.full, "causal": ag.causal}
weights = {name: ag.softmax(scores, where=mask.materialize(4)) for name, mask in masks.items()}
keys = {name: mask.materialize(4).sum(axis=1) for name, mask in masks.items()}

fig = plot.figure(
    "causal-bidirectional",
    title=f"“cat” gives “sat” {weights['bidirectional'][1, 2]:.0%} of its attention, unless it may not see ahead",
    caption=(
        "The scores of the chapter's example through `ag.softmax`, with every key (left) and with the keys of "
        "`ag.causal` (right). "
        f"Each bidirectional row sees {keys['bidirectional'][0]} keys; causal rows see "
        f"{', '.join(map(str, keys['causal']))}."
    ),
    size=(6.4, 3.2),
)
for ax, (name, mask) in zip(fig.subplots(1, 2), masks.items(), strict=True):
    plot.matrix(
        ax, weights[name], kind="weights", rows=tokens if name == "bidirectional" else None, columns=tokens,
        mask=mask.materialize(4), name=name, ink=plot.WEIGHTS,
    )  # fmt: skip
plot.describe(
    fig,
    " ".join(
        f"{name.capitalize()}: "
        + plot.describe_matrix(weights[name], tokens, tokens, mask=mask.materialize(4))
        + f" Keys per row: {', '.join(map(str, keys[name]))}."
        for name, mask in masks.items()
    ),
)
