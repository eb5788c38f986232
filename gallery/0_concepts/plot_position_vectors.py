"""
Position vectors that are added to the tokens
=============================================

One row for each position. Sines and cosines of many wavelengths count like the digits of a clock: the columns on the
left turn fast, those on the right hardly move. A learned table starts as noise and is trained like any other weight.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, d = 64, 64
sinusoidal = ag.sinusoidal_positions(n, d)  # (n, d_model)
learned = ag.init_learned_positions(n, d, rng=np.random.default_rng(0))  # (n, d_model), standard deviation 0.02

fig = plot.figure(
    "concepts-position-vectors",
    title="Sinusoidal vectors are given; learned ones start as noise",
    caption=(
        f"`ag.sinusoidal_positions({n}, {d})` and `ag.init_learned_positions({n}, {d})` with seed 0: position "
        "down, component "
        "across. Each matrix has its own colour range."
    ),
    size=(4.8, 3.4),
)
left, right = fig.subplots(1, 2)
for ax, matrix, name in ((left, sinusoidal, "sinusoidal"), (right, learned, "learned, untrained")):
    plot.matrix(ax, matrix, kind="values", name=name, annotate=False, axis_labels=("position", "component"))
turns = [float(n / (2 * np.pi * 10_000 ** (i / d))) for i in (0, d - 2)]
plot.describe(
    fig,
    f"Two {n} by {d} matrices. Sinusoidal: stripes whose wavelength grows from left to right; over {n} "
    "positions the first pair "
    f"of columns turns {turns[0]:.1f} times and the last {turns[1]:.4f} times. Learned: noise of standard "
    "deviation "
    f"{learned.std():.3f}.",
)
