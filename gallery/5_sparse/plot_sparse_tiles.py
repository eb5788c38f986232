"""
What tiles can skip
===================

Three patterns with as many keys, and the tiles that hold any of them. A tile is computed whole or not at all.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, block, keys = 48, 8, 16
patterns = {
    "blocks": ag.blockwise(ag.sliding_window(1, 0), block),
    "window": ag.sliding_window(keys // 2, keys // 2 - 1),
    "random": ag.random_keys(keys, n, rng=np.random.default_rng(0)),
}
used, drawn = {}, {}
for name, mask in patterns.items():
    seen = mask.materialize(n)
    touched = seen.reshape(n // block, block, n // block, block).any(axis=(1, 3)).repeat(block, 0).repeat(block, 1)
    used[name] = seen.sum() / touched.sum()
    drawn[name] = (np.where(seen, 1.0, 0.3), touched)

fig = plot.figure(
    "sparse-tiles",
    title="A pattern is paid for in whole tiles",
    caption=(
        f"{n} tokens, tiles of {block} by {block}. Dark: pairs of the pattern, about {keys} keys each. Pale: "
        "pairs that are "
        "computed with them, because they lie in the same tile. Hatched: tiles that are skipped. Below: the share of "
        "computed pairs that is used."
    ),
    size=(6.4, 3.0),
)
for ax, (name, (a, touched)) in zip(fig.subplots(1, 3), drawn.items(), strict=True):
    plot.matrix(
        ax, a, kind="weights", mask=touched, annotate=False, limits=(0, 1.5), name=name, ink=plot.MASK,
        below=f"{used[name]:.0%} used",
    )  # fmt: skip
plot.describe(
    fig,
    " ".join(f"{name.capitalize()}: {a:.0%} of the computed pairs belong to the pattern." for name, a in used.items()),
)
