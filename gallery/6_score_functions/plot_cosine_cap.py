"""
The cap of a cosine
===================

The largest weight that one of n keys can get when all scores lie between −s and s.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

lengths = 2 ** np.arange(1, 13)
caps = {}
for scale in (1, 2, 5, 10):
    row = []
    for n in lengths:
        k = np.array([[1.0, 0]] + [[-1.0, 0]] * (n - 1))  # one along the query, all others against it
        row.append(ag.softmax(ag.cosine_score([[1.0, 0]], k, scale=scale))[0, 0])
    caps[f"scale {scale}"] = np.array(row)

fig = plot.figure(
    "scores-cosine-cap",
    title=f"A bare cosine cannot give one of {lengths[8]} keys more than {caps['scale 1'][8]:.1%}",
    caption=(
        "The weight of a key that points along the query when all others point against it: `ag.softmax` of "
        "`ag.cosine_score` with four scales. No arrangement of keys gives more. The axis of the "
        "number of keys is logarithmic."
    ),
    size=(5.2, 3.6),
)
ax = fig.subplots()
plot.curve(ax, lengths, caps, log="x", ticks=lengths[::2], xlabel="keys n", ylabel="largest weight possible")
ax.set_ylim(0, 1.05)
plot.describe(
    fig,
    "Line chart against the number of keys. "
    + " ".join(
        f"{name}: {a[0]:.2f} for 2 keys, {a[6]:.3f} for {lengths[6]}, {a[-1]:.4f} for {lengths[-1]:,}."
        for name, a in caps.items()
    ),
)
