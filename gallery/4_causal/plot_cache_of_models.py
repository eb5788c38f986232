"""
What the cache costs
====================

The memory of the cache against the length of the text, for four published models.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

lengths = 2 ** np.arange(8, 16)  # 256 ... 32768
models = {
    "Llama 2 7B": {"layers": 32, "h_kv": 32, "d_k": 128},
    "Llama 2 70B": {"layers": 80, "h_kv": 8, "d_k": 128},
    "Mistral 7B": {"layers": 32, "h_kv": 8, "d_k": 128, "window": 4096},
    "GPT-2": {"layers": 12, "h_kv": 12, "d_k": 64},
}
gib = {name: [ag.kv_cache_bytes(**m, n=int(n)) / 2**30 for n in lengths] for name, m in models.items()}
at = int(np.flatnonzero(lengths == 4096)[0])

fig = plot.figure(
    "causal-cache-bytes",
    title=f"At 4,096 tokens Llama 2 7B keeps {gib['Llama 2 7B'][at]:.0f} GiB of keys and values for one text",
    caption=(
        "`ag.kv_cache_bytes` for one sequence in half precision. The lines go on beyond the lengths that some of these "
        "models were trained for. The 70B model shares each key head among eight query heads. A window of 4,096 stops "
        "the growth in Mistral."
    ),
    size=(5.6, 3.8),
)
ax = fig.subplots()
plot.curve(ax, lengths, gib, log="xy", ticks=lengths, xlabel="tokens", ylabel="GiB")
plot.plain_numbers(ax)
plot.describe(
    fig,
    "Line chart on logarithmic axes, in GiB. "
    + " ".join(
        f"{name}: {g[0]:.2g} at {lengths[0]}, {g[at]:.2g} at 4,096, {g[-1]:.2g} at {lengths[-1]:,} tokens."
        for name, g in gib.items()
    ),
)
