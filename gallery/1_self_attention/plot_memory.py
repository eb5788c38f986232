"""
The quadratic wall
==================

Bytes of the n × n weights in half precision, if they are kept, beside the memories of real machines.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

lengths = np.array([2**i for i in range(7, 18)])
series = {
    "32 layers": [32 * ag.attention_bytes(int(n), 128, num_heads=32).scores for n in lengths],
    "1 layer": [ag.attention_bytes(int(n), 128, num_heads=32).scores for n in lengths],
    "1 head": [ag.attention_bytes(int(n), 128).scores for n in lengths],
}
linear = [ag.attention_bytes(int(n), 128).linear for n in lengths]
memories = {"laptop, 16 GB": 16e9, "data-centre GPU, 80 GB": 80e9}

fig = plot.figure(
    "self-memory",
    title="Twice the length, four times the memory, if the weights are kept",
    caption=(
        "`ag.attention_bytes`: the n × n weights of one sequence in half precision, for one head, a layer of 32 heads "
        "and 32 such layers. Dashed: queries, keys, values and output of one head of width 128, which is all that "
        "tiled kernels such as FlashAttention keep."
    ),
    size=(5.2, 4.8),
)
ax = fig.subplots()
plot.curve(
    ax, lengths, series, theory={"tiled": linear}, log="xy", ticks=lengths[1::3], marks=False, xlabel="tokens n",
    colours={"32 layers": plot.KEY, "1 layer": plot.QUERY, "1 head": plot.WEIGHTS},
)  # fmt: skip
ax.set_yticks([2.0**i for i in (20, 30, 40)], ["1 MiB", "1 GiB", "1 TiB"])
ax.set_ylim(2**13, None)
for name, size in memories.items():
    ax.axhline(size, color=plot.INK, linewidth=1)
    ax.text(lengths[0], size * 1.2, name, ha="left", va="bottom", fontsize=10)
plot.describe(
    fig,
    f"Line chart on logarithmic axes, n from {lengths[0]} to {lengths[-1]:,}. "
    + " ".join(f"{name}: {b[0] / 2**20:,.3g} MiB to {b[-1] / 2**30:,.0f} GiB." for name, b in series.items())
    + f" Without the weights, one head needs {linear[-1] / 2**20:.0f} MiB at {lengths[-1]:,}. "
    + " ".join(f"A {name} is marked." for name in memories),
)
