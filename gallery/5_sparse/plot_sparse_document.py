"""
One question, a whole manual
============================

A global token at the front of the reference manual of Python asks for one word. Its row of weights, with projections of
its own and with those of the other tokens.
"""

import re
from math import sqrt
from pydoc_data.topics import topics

import numpy as np

import attn_guide as ag
from attn_guide import plot

asked, width = "lambda", 64
words = [asked, *re.findall(r"[a-z_]+", " ".join(topics[name] for name in sorted(topics)).lower())]
rng = np.random.default_rng(9)
kinds = sorted(set(words))
number = {word: i for i, word in enumerate(kinds)}
x = rng.standard_normal((len(kinds), width))[[number[word] for word in words]]  # (n, width)
w_q, w_k, _ = rng.standard_normal((3, width, width)) / sqrt(width)
rows = {
    "projections of its own: it finds the word": ag.softmax(2 * x[0] @ x.T / sqrt(width)),
    "the projections of the others: it finds nothing": ag.softmax(x[0] @ w_q @ (x @ w_k).T / sqrt(width)),
}
places = np.flatnonzero(np.array(words) == asked)
found = {name: row[places].sum() for name, row in rows.items()}
shares = list(found.values())

fig = plot.figure(
    "sparse-document",
    title=f"One global row sees {len(words):,} words and finds all {len(places) - 1} that it asks for",
    caption=(
        f"Weights of the token at position 0, “{asked}”, over every word of Python’s reference manual. Each kind "
        "of word "
        "has a random vector of its own (seed 9). Above: the global query is twice that vector, the global key "
        "is the "
        "vector. Below: random local projections. The share of weight on the word is printed above each."
    ),
    size=(6.4, 4.6),
)
for ax, (name, row) in zip(fig.subplots(2, 1, sharex=True), rows.items(), strict=True):
    largest = np.sort(np.argsort(row)[-400:])  # the rest is too small to be seen
    ax.vlines(largest, 0, row[largest], color=plot.WEIGHTS, linewidth=1.4)
    ax.set_title(f"{name} ({found[name]:.3%})", loc="left", fontsize=10, color=plot.MUTED)
    ax.set_ylim(0)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="y")
ax.set_xlabel("position in the manual")
ax.set_xticks(range(0, len(words), 10000), [f"{i:,}" for i in range(0, len(words), 10000)])
plot.describe(
    fig,
    f"Two charts of weights against position. With its own projections the token gives {shares[0]:.1%} of its "
    f"weight to the {len(places)} places of the word {asked}, at positions up to {places[-1]:,}; with the local ones "
    f"{shares[1]:.3%}.",
)
