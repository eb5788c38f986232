"""
Two alignments
==============

With as many queries as keys there is one causal mask. With fewer queries there are two, and libraries differ in which
they mean.
"""

import attn_guide as ag
from attn_guide import plot

shapes = {"3 queries, 5 keys": (3, 5), "5 queries, 3 keys": (5, 3)}

fig = plot.figure(
    "causal-alignment",
    title="The triangle starts at the first key or ends at the last: same name, other mask",
    caption=(
        "Top: `ag.causal`, aligned at the top left. Bottom: `ag.causal_lower_right(n, m)`, aligned at the bottom "
        "right. Rows are queries, columns keys, hatched pairs forbidden. A row that is hatched throughout sees nothing."
    ),
    size=(5.6, 5.4),
)
said = []
for row, name in zip(fig.subplots(2, 2), ("top-left", "bottom-right"), strict=True):
    for ax, (label, (n, m)) in zip(row, shapes.items(), strict=True):
        mask = (ag.causal if name == "top-left" else ag.causal_lower_right(n, m)).materialize(n, m)
        plot.matrix(
            ax, mask, kind="mask", rows=[f"q{i}" for i in range(n)], columns=[f"k{j}" for j in range(m)], name=name,
            ink=plot.MASK,
        )  # fmt: skip
        said.append(plot.describe_mask(mask, f"{name.capitalize()}, {label}"))
plot.describe(fig, " ".join(said))
