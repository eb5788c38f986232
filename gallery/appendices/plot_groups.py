"""
Who reads which key head
========================

Two ways to give 4 query heads 2 heads of keys and values.
"""

import numpy as np

from attn_guide import plot

heads, kv_heads = 4, 2
h = np.arange(heads)
readings = {"neighbours share": h // (heads // kv_heads), "every other one": h % kv_heads}
moved = int((readings["neighbours share"] != readings["every other one"]).sum())

fig = plot.figure(
    "appendix-groups",
    title=f"Loaded into the other layout, {moved} of {heads} query heads read the wrong keys",
    caption=(
        "Rows are query heads, columns key heads; a filled cell says which one is read. Left: `h // group`, as here, "
        "in PyTorch, JAX, ONNX, transformers and flash-attn. Right: `h % kv_heads`, as in x-transformers, and in the "
        "ONNX reference of version 1.18."
    ),
    size=(5.0, 3.2),
)
said = []
for ax, (name, read) in zip(fig.subplots(1, 2), readings.items(), strict=True):
    table = read[:, None] == np.arange(kv_heads)
    plot.matrix(
        ax, table, kind="mask", rows=[f"q{i}" for i in range(heads)], columns=[f"kv{j}" for j in range(kv_heads)],
        name=name, ink=plot.KEY,
    )  # fmt: skip
    said.append(f"{name.capitalize()}: query heads 0 to {heads - 1} read key heads {', '.join(map(str, read))}.")
plot.describe(fig, "Two small tables. " + " ".join(said))
