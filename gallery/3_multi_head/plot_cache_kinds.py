"""
What each kind of sharing stores
================================

The bytes that one token adds to the cache: a model of the size of Llama 2 70B with three numbers of key/value heads,
and a latent cache of the width of DeepSeek-V2's in as many layers.
"""

import attn_guide as ag
from attn_guide import plot

layers, h, d_k = 80, 64, 128
kib = {
    "MHA, 64 heads": ag.kv_cache_bytes(layers, h, d_k) / 1024,
    "GQA, 8 heads": ag.kv_cache_bytes(layers, 8, d_k) / 1024,
    "MLA, 512 + 64": ag.kv_cache_bytes(layers, 1, 512 + 64, 0) / 1024,
    "MQA, 1 head": ag.kv_cache_bytes(layers, 1, d_k) / 1024,
}
fig = plot.figure(
    "heads-cache-kinds",
    title="Sharing divides what a token costs; a latent cache costs as much as two groups and a quarter",
    caption=(
        f"KiB per token in half precision, from `ag.kv_cache_bytes`, for {layers} layers of {h} query heads of "
        f"width {d_k}. "
        "Llama 2 70B has the second. The third stores DeepSeek-V2's 512 + 64 numbers in each of the same layers."
    ),
    size=(5.2, 2.9),
)
plot.bars(fig.subplots(), list(kib), list(kib.values()), fmt=",.0f", horizontal=True, colour=plot.KEY)
plot.describe(fig, "Bars, KiB per token: " + ", ".join(f"{name}: {value:,.0f}" for name, value in kib.items()) + ".")
