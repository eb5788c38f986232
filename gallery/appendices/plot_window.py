"""
Windows that are all called three
=================================

The keys that a query in the middle sees, when "a window of 3" is what was asked for.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, query, around = 17, 8, 4
windows = {
    "itself counted": ag.sliding_window(2, 0),
    "itself not counted": ag.sliding_window(3, 0),
    "one on each side": ag.sliding_window(1, 1),
    "three on each side": ag.sliding_window(3, 3),
}
seen = np.stack([mask.materialize(n)[query] for mask in windows.values()])[:, query - around : query + around + 1]
counts = seen.sum(axis=1)

fig = plot.figure(
    "appendix-window",
    title=f"A window of 3 is {', '.join(map(str, counts[:-1]))} or {counts[-1]} keys",
    caption=(
        "Each row is one reading; a filled cell is a key that the query at 0 sees. From the top: `sliding_window=3` of "
        "Mistral in transformers; `ag.sliding_window(3, 0)`, and (3, 0) in JAX, ONNX and flash-attn; "
        "`ag.sliding_window(1, 1)`; and `local_window_size=3` in JAX."
    ),
    size=(5.6, 2.6),
)
ax = fig.subplots()
plot.matrix(
    ax, seen, kind="mask", rows=list(windows), columns=[f"{j:+d}".replace("-", "−") if j else "0" for j in
    range(-around, around + 1)], ink=plot.MASK,
)  # fmt: skip
plot.describe(
    fig,
    "A table of the keys that one query sees. "
    + " ".join(f"{name.capitalize()}: {count} keys." for name, count in zip(windows, counts, strict=True)),
)
