"""
BigBird, part by part
=====================

A window, two global blocks and random blocks, and all of them together.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, block, r = 32, 2, 2
table = ag.bigbird_random_blocks(n // block, r, rng=np.random.default_rng(3))
parts = {
    "window": ag.bigbird(n, block, global_blocks=0, random_blocks=0),
    "global": ag.bigbird(n, block, window_blocks=1, global_blocks=2, random_blocks=0),
    "random": ag.bigbird(n, block, window_blocks=1, global_blocks=0, random_blocks=table),
    "BigBird": ag.bigbird(n, block, random_blocks=table),
}

fig = plot.figure(
    "sparse-bigbird",
    title="BigBird is a window, global blocks and random blocks in one row of keys",
    caption=(
        f"`ag.bigbird` at {n} tokens in blocks of {block}: a window of 3 blocks, the first and the last block "
        f"global, {r} "
        "random blocks for each other block (seed 3). In the second and third panel the window is the block itself."
    ),
    size=(6.4, 6.6),
)
plot.masks(
    fig.subplots(2, 2).flat,
    {name: mask.materialize(n) for name, mask in parts.items()},
    below={name: f"{mask.count(n)} pairs" for name, mask in parts.items()},
)
plot.describe(
    fig, " ".join(f"{name[0].upper() + name[1:]}: {mask.count(n)} of {n * n} pairs." for name, mask in parts.items())
)
