"""
A state of fixed size forgets
=============================

Pairs of a key and a value are stored, and each is asked for again. Softmax attention keeps them all; a state is a
matrix of a fixed size.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

d, trials = 32, 20
rng = np.random.default_rng(0)
counts = np.array([2, 4, 8, 16, 32, 64, 128])
kinds = ("softmax", "delta rule", "sum")


def recall(kind, pairs):
    right = 0
    for _ in range(trials):
        keys = rng.standard_normal((pairs, d))
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        values = np.sign(rng.standard_normal((pairs, 16)))
        if kind == "softmax":
            found = ag.scaled_dot_product_attention(keys, keys, values, scale=20.0)
        else:  # store all pairs, then ask; what is written while asking is nothing
            q = np.concatenate([keys, keys])
            k, v = (np.concatenate([a, 0 * a]) for a in (keys, values))
            if kind == "sum":
                found = ag.linear_attention(q, k, v, feature_map="identity", is_causal=True, normalize=False)[pairs:]
            else:
                found = ag.delta_rule_attention(q, k, v, np.repeat([1.0, 0.0], pairs), form="chunked")[pairs:]
        right += (np.sign(found) == values).all(axis=1).sum()
    return right / (trials * pairs)


shares = {kind: [recall(kind, int(c)) for c in counts] for kind in kinds}

fig = plot.figure(
    "sparse-recall",
    title=f"A state of {d} rows holds a few pairs; all keys hold as many as there are",
    caption=(
        "Share of values (16 signs each) that are found again exactly by their keys, random directions of width "
        f"{d}, "
        f"{trials} trials, seed 0: `ag.scaled_dot_product_attention` with scale 20, `ag.linear_attention` with "
        "the identity "
        "as its map, and `ag.delta_rule_attention`. The vertical line is the width."
    ),
    size=(5.8, 3.8),
)
ax = fig.subplots()
plot.curve(
    ax, counts, shares, log="x", ticks=counts,
    colours={"softmax": plot.WEIGHTS, "delta rule": plot.QUERY, "sum": plot.KEY},
    xlabel="pairs stored", ylabel="share found again",
)  # fmt: skip
ax.axvline(d, color=plot.MUTED, linewidth=1.2)
ax.set_ylim(0, 1.05)
plot.describe(
    fig, "Line chart. " + " ".join(f"{kind}: {', '.join(f'{a:.0%}' for a in shares[kind])}." for kind in kinds)
)
