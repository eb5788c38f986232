"""
Three families of models, as masks
==================================

A source and a target, written as one sequence: who may see whom.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

source, target = ["s1", "s2", "s3", "s4"], ["t1", "t2", "t3", "t4"]
m, n = len(source), len(target)
both = source + target
encoder_decoder = np.block([
    [ag.full.materialize(m), np.zeros((m, n), bool)],
    [ag.full.materialize(n, m), ag.causal.materialize(n)],
])  # fmt: skip
masks = {
    "encoder-decoder": encoder_decoder,
    "prefix-LM": ag.prefix(m).materialize(m + n),
    "decoder-only": ag.causal.materialize(m + n),
}

fig = plot.figure(
    "causal-families",
    title="A prefix-LM lets the same pairs meet as an encoder-decoder; a decoder-only model does not",
    caption=(
        "A source of four tokens and a target of four. Encoder-decoder: the encoder (top left), cross-attention "
        "(bottom left) and the causal decoder (bottom right) are three attentions with weights of their own. "
        f"`ag.prefix({m})` and `ag.causal` are one attention each."
    ),
    size=(6.4, 2.9),
)
for ax, (name, mask) in zip(fig.subplots(1, 3), masks.items(), strict=True):
    plot.matrix(
        ax, mask, kind="mask", rows=both if name == "encoder-decoder" else None, columns=both, name=name, ink=plot.MASK
    )
    ax.axhline(m - 0.5, color=plot.INK, linewidth=1.2)
    ax.axvline(m - 0.5, color=plot.INK, linewidth=1.2)
plot.describe(fig, " ".join(plot.describe_mask(mask, name.capitalize()) for name, mask in masks.items()))
