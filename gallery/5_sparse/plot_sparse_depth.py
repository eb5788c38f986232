"""
Reach against depth
===================

How many inputs the output in the middle of a sequence depends on after each layer, for patterns with three or four keys
a query.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, depth = 243, 8
middle = n // 2


def reach(masks):
    """Inputs that the middle output depends on after each of the layers' masks."""
    reached, found = np.eye(n, dtype=np.float32), []
    for mask in masks:
        reached = (mask.materialize(n).astype(np.float32) @ reached > 0).astype(np.float32)
        found.append(int(reached[middle].sum()))
    return found


window = ag.sliding_window(1, 1)
series = {
    "global token": reach([ag.longformer(2, [0])] * depth),
    "dilation ×3 each layer": reach([ag.dilated_window(1, 1, 3 ** min(i, 4)) for i in range(depth)]),
    "one random key": reach([window | ag.random_keys(1, n, rng=np.random.default_rng(0))] * depth),
    "window": reach([window] * depth),
    "strided": reach([ag.strided(n // 3)] * depth),
}

fig = plot.figure(
    "sparse-depth",
    title="With as few keys, a pattern reaches all, a little, or never more",
    caption=(
        f"Inputs that the middle output of {n} depends on after each layer (boolean products of the masks). "
        "Window of 3 "
        "keys; the same and one global token; the same and one random key (seed 0); a dilated window of 3 keys with "
        f"dilations 1, 3, 9, 27, 81 and then 81; stride {n // 3}."
    ),
    size=(6.2, 4.0),
)
ax = fig.subplots()
plot.curve(
    ax, np.arange(1, depth + 1), series, log="y", xlabel="layers", ylabel="inputs that the middle output depends on",
    colours={"global token": plot.OUTPUT, "dilation ×3 each layer": plot.QUERY, "one random key": plot.VALUE,
             "window": plot.KEY, "strided": plot.SCORES},
)  # fmt: skip
ax.set_yticks([3, 10, 30, 100, n], ["3", "10", "30", "100", str(n)])
ax.set_yticks([], minor=True)
plot.describe(
    fig,
    "Line chart. "
    + " ".join(f"{name}: {', '.join(map(str, a))} after 1 to {depth} layers." for name, a in series.items()),
)
