"""
A global token leaks
====================

Two patterns that look alike. In the first the first token sees everything; in the second everything sees the first
token. Change the last token and see what moves two layers later.
"""

from math import sqrt

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, d = 8, 16
x = rng.standard_normal((n, d))
other = x.copy()
other[-1] = rng.standard_normal(d)  # the last token, replaced
blocks = [
    ag.EncoderLayerParams(
        ag.init_multi_head(d, 2, rng=rng), rng.standard_normal((d, 4 * d)) / sqrt(d),
        rng.standard_normal((4 * d, d)) / sqrt(4 * d),
    )
    for _ in range(2)
]  # fmt: skip


def model(tokens, mask):
    for params in blocks:
        tokens = ag.encoder_layer(tokens, params, mask_mod=mask, norm_first=True, rope=ag.apply_rope)
    return tokens


window = ag.causal & ag.sliding_window(1, 0)
masks = {"global token": ag.global_tokens([0]) | window, "sink": ag.sinks(1) | window}
moved = {name: np.abs(model(other, mask) - model(x, mask)).max(axis=1) for name, mask in masks.items()}

fig = plot.figure(
    "causal-global-leak",
    title="A global token carries the future to everyone; a sink, seen by all, carries nothing back",
    caption=(
        "Left: `ag.global_tokens([0]) | window` and `ag.sinks(1) | window`, with a causal window of two keys. Right: "
        "how far each output of two blocks with random weights moves when the last token, position 7, is replaced "
        "(seed 0)."
    ),
    size=(6.4, 5.2),
)
axes = fig.subplots(2, 2, width_ratios=[1, 1.6])
for (left, right), (name, mask) in zip(axes, masks.items(), strict=True):
    plot.matrix(left, mask.materialize(n), kind="mask", name=name, ink=plot.MASK)
    plot.bars(right, [str(i) for i in range(n)], moved[name], colour=[plot.SCORES] * (n - 1) + [plot.MUTED], fmt=".2f")
    right.set_ylim(0, 1.25 * max(a.max() for a in moved.values()))
    right.set_title("change of each output", loc="left", color=plot.MUTED, fontsize=10)
plot.describe(
    fig,
    " ".join(
        f"With a {name} the outputs 0 to {n - 2} move by {', '.join(f'{a:.3f}' for a in moved[name][:-1])} when the "
        f"last token is replaced, and the last by {moved[name][-1]:.2f}."
        for name in masks
    ),
)
