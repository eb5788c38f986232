"""
The cache of published models
=============================

Keys and values in half precision against the length of the text, for six models with the sizes that were published.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

models = {  # layers, key/value heads, width of a head, longest text in training
    "GPT-3 175B": (96, 96, 128, 2048),
    "Llama 2 70B": (80, 8, 128, 4096),
    "Mistral 7B": (32, 8, 128, 8192),
    "BERT-large": (24, 16, 64, 512),
    "BERT-base": (12, 12, 64, 512),
    "GPT-2": (12, 12, 64, 1024),
}
lengths = 2 ** np.arange(7, 14)  # 128 ... 8192


def mib(layers: int, h_kv: int, d_k: int) -> np.ndarray:
    return np.array([ag.kv_cache_bytes(layers, h_kv, d_k, n=int(n)) / 2**20 for n in lengths])


curves = {name: mib(*sizes[:3]) for name, sizes in models.items()}
shown = {
    "GPT-3 175B": curves["GPT-3 175B"],
    "Llama 2 70B": curves["Llama 2 70B"],
    "Mistral 7B": curves["Mistral 7B"],
    "BERT-large": curves["BERT-large"],
    "GPT-2, BERT-base": curves["GPT-2"],
}
assert np.array_equal(curves["GPT-2"], curves["BERT-base"])
as_mha = mib(80, 64, 128)
saved = as_mha[-1] / curves["Llama 2 70B"][-1]

fig = plot.figure(
    "heads-cache",
    title=f"Grouped heads save Llama 2 70B {1 - 1 / saved:.0%} of its cache",
    caption=(
        "Bytes of keys and values of one sequence in half precision, from `ag.kv_cache_bytes` and published "
        "sizes. The grey "
        "line is Llama 2 70B if each of its 64 query heads had keys and values of its own. BERT reads a text "
        "at once and "
        "keeps nothing; its line is what keys and values of that shape take. Lines go on beyond the lengths trained on."
    ),
    size=(5.8, 4.4),
)
ax = fig.subplots()
plot.curve(
    ax, lengths, shown, theory={"70B as MHA": as_mha}, log="xy", ticks=lengths, xlabel="tokens", ylabel="MiB",
)  # fmt: skip
plot.plain_numbers(ax, fmt="{:,g}")
plot.describe(
    fig,
    "Line chart on logarithmic axes. At 4,096 tokens, in MiB: "
    + ", ".join(f"{name} {float(c[list(lengths).index(4096)]):,.0f}" for name, c in curves.items())
    + f", and Llama 2 70B with 64 key/value heads {float(as_mha[list(lengths).index(4096)]):,.0f}.",
)
