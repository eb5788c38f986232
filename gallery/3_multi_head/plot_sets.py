"""
What a narrow head cannot single out
====================================

A query scores a set of keys above all others only if a plane cuts that set off. In few dimensions that is possible for
few sets, however the keys lie. Cover's formula counts them.
"""

from math import comb

import numpy as np

from attn_guide import plot

n = 8
widths = np.arange(1, n)
sets = [2 * sum(comb(n - 1, i) for i in range(d + 1)) for d in widths]
share = np.array(sets) / 2**n

fig = plot.figure(
    "heads-sets",
    title=f"Among {n} keys, a head of width 2 can single out {share[1]:.0%} of all sets, of width {n - 1} every set",
    caption=(
        f"For how many of the 2^{n} = {2**n} sets of {n} keys in general position some query gives each member "
        f"a higher "
        "score than each other key: Cover’s count (1965). The claim’s check confirms it with a linear program "
        "for each set."
    ),
    size=(5.2, 3.4),
)
plot.bars(fig.subplots(), [f"{d}" for d in widths], sets, fmt=".0f", colour=plot.KEY)
fig.axes[0].set_xlabel("width of a head, dₖ")
plot.describe(
    fig,
    "Bars, sets that can be singled out by width of the head: "
    + ", ".join(f"{s} at d_k = {d}" for d, s in zip(widths, sets, strict=True))
    + f"; {2**n} is all.",
)
