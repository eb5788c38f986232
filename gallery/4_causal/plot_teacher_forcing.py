"""
One sequence, as many examples as tokens
========================================

Each row of a causal mask is a training example: a prefix, and the token to predict from it.
"""

import attn_guide as ag
from attn_guide import plot

text = ["the", "cat", "sat", "down", "and", "slept"]
inputs, targets = text[:-1], text[1:]
mask = ag.causal.materialize(len(inputs))

fig = plot.figure(
    "causal-training",
    title=f"One pass over {len(inputs)} tokens asks {len(inputs)} questions, each from its own prefix",
    caption=(
        "`ag.causal` over the inputs. A row sees the filled cells, and the word that it is asked for stands to its "
        "right: the input, moved by one place."
    ),
    size=(5.0, 3.6),
)
ax = fig.subplots()
plot.matrix(ax, mask, kind="mask", rows=inputs, columns=inputs, name="inputs", ink=plot.MASK)
for i, word in enumerate(targets):
    ax.annotate(
        f"→ {word}", (len(inputs) - 0.5, i), (8, -3.5), textcoords="offset points", color=plot.OUTPUT,
        annotation_clip=False, va="baseline",
    )  # fmt: skip
ax.annotate(
    "predict", (len(inputs) - 0.5, -0.5), (8, 5), textcoords="offset points", color=plot.MUTED, annotation_clip=False,
    va="baseline", fontsize=10,
)  # fmt: skip
plot.describe(
    fig,
    plot.describe_mask(mask, "Causal mask")
    + " "
    + "; ".join(f"from “{' '.join(inputs[: i + 1])}” predict “{word}”" for i, word in enumerate(targets))
    + ".",
)
