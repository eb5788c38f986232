"""
What has to be kept
===================

Bytes of one layer against the length: the weights of all pairs, those of a window, and everything else.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

heads, width = 32, 128
lengths = np.array([2**i for i in range(10, 21)])
dense = [ag.attention_bytes(int(n), width, num_heads=heads).scores for n in lengths]
window = [2 * heads * ag.sliding_window(64, 64).count(int(n)) for n in lengths]
linear = [ag.attention_bytes(int(n), width, num_heads=heads).linear for n in lengths]

fig = plot.figure(
    "sparse-wall",
    title="All pairs pass every memory; a window stays below its own inputs",
    caption=(
        f"Bytes in half precision, one sequence, one layer of {heads} heads of width {width}: the weights if they "
        "are "
        "kept (`ag.attention_bytes`), the weights of a window of 129 keys (`ag.sliding_window(64, 64).count`), and "
        "queries, keys, values and output, which is what FlashAttention keeps."
    ),
    size=(6.0, 4.2),
)
ax = fig.subplots()
plot.curve(
    ax, lengths, {"all pairs": dense, "window": window, "inputs, output": linear}, log="xy", ticks=lengths[::2],
    marks=False, xlabel="tokens n",
    colours={"all pairs": plot.SCORES, "window": plot.KEY, "inputs, output": plot.VALUE},
)  # fmt: skip
ax.set_xticks(lengths[::2], [f"{n // 1024} Ki" for n in lengths[::2]])
ax.set_yticks([2.0**i for i in (20, 30, 40)], ["1 MiB", "1 GiB", "1 TiB"])
for name, size in {"a laptop, 16 GB": 16e9, "a data-centre GPU, 80 GB": 80e9}.items():
    ax.axhline(size, color=plot.INK, linewidth=1)
    ax.text(lengths[0], size * 1.15, name, ha="left", va="bottom", fontsize=10)
plot.describe(
    fig,
    f"Line chart on logarithmic axes, n from {lengths[0]:,} to {lengths[-1]:,}. "
    + " ".join(
        f"{name}: {b[0] / 2**20:,.0f} MiB to {b[-1] / 2**30:,.0f} GiB."
        for name, b in (("All pairs", dense), ("A window", window), ("Inputs and output", linear))
    ),
)
