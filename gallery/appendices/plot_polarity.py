"""
A mask read the other way round
===============================

One array of booleans, given to a function for which True lets see, and to one for which True hides.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n = 5
given = ag.causal.materialize(n)  # (n, n), True where a query may see
read = {"True lets see": given, "True hides": ~given}
future = np.triu(np.ones((n, n), dtype=bool), 1)

fig = plot.figure(
    "appendix-polarity",
    title=f"Read the other way round, a causal mask shows all {int((read['True hides'] & future).sum())} future keys",
    caption=(
        "The same array, `ag.causal`, as PyTorch's function reads it (left) and as PyTorch's module does (right). Rows "
        "are queries, columns keys, hatched pairs forbidden. On the right every query sees its future and nothing "
        "else, and the last sees nothing."
    ),
    size=(5.6, 3.2),
)
labels = [str(i) for i in range(n)]
for ax, (name, mask) in zip(fig.subplots(1, 2), read.items(), strict=True):
    plot.matrix(ax, mask, kind="mask", rows=labels, columns=labels, name=name, ink=plot.MASK)
plot.describe(fig, " ".join(plot.describe_mask(mask, name) for name, mask in read.items()))
