"""
Three causal triangles
======================

Five queries, three keys, and the word "causal" in three libraries.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, m = 5, 3
lower_right = ag.causal_lower_right(n, m).materialize(n, m)
empty = ~lower_right.any(axis=1, keepdims=True)
readings = {
    "top-left": ag.causal.materialize(n, m),
    "bottom-right": lower_right,
    "opened": lower_right | empty,
}
one, two, three = (int(mask[0].sum()) for mask in readings.values())

fig = plot.figure(
    "appendix-alignments",
    title=f"The first query sees {one}, {two} or {three} keys, and each library calls it causal",
    caption=(
        "Five queries of three keys. Left: PyTorch's `is_causal`, JAX, Keras, ONNX without a past, and `ag.causal`. "
        "Middle: flash-attn since 2.1, PyTorch's and `ag.causal_lower_right`. Right: x-transformers, where a query "
        "before the first key sees everything. Which library does what was measured: see the table beside the figure "
        "in the appendix on conventions."
    ),
    size=(5.6, 3.4),
)
for ax, (name, mask) in zip(fig.subplots(1, 3), readings.items(), strict=True):
    plot.matrix(
        ax, mask, kind="mask", rows=[str(i) for i in range(n)], columns=[str(j) for j in range(m)], name=name,
        ink=plot.MASK,
    )  # fmt: skip
assert np.array_equal(readings["opened"][~empty[:, 0]], lower_right[~empty[:, 0]])
plot.describe(fig, " ".join(plot.describe_mask(mask, name.capitalize()) for name, mask in readings.items()))
