"""
What each score computes
========================

The six scores as flows, with the shapes of a run on three queries and four keys.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, m, d, d_a = 3, 4, 8, 5
q, k = rng.standard_normal((n, d)), rng.standard_normal((m, d))
w, w_q, w_k, v = (rng.standard_normal(s) for s in ((d, d), (d, d_a), (d, d_a), (d_a,)))
products = {
    "dot": ag.dot_score(q, k), "scaled dot": ag.scaled_dot_score(q, k), "general": ag.general_score(q, k, w),
    "cosine": ag.cosine_score(q, k),
}  # fmt: skip
hidden = np.tanh((q @ w_q)[:, None] + (k @ w_k)[None])
assert np.allclose(hidden @ v, ag.additive_score(q, k, w_q, w_k, v))


def shape(a):
    return " × ".join(map(str, a.shape))


def node(text, detail, role):
    return {"text": text, "detail": detail, "role": role}


fig = plot.figure(
    "scores-flow-products",
    title="Four scores are one matrix product, with at most one step before it",
    caption=(
        f"Flows of `ag.dot_score`, `ag.scaled_dot_score`, `ag.general_score` and `ag.cosine_score` with the shapes of "
        f"a run on {n} queries and {m} keys of width {d}."
    ),
    size=(5.4, 5.6),
)
ends = {"q": node("Q", shape(q), "query"), "k": node("K", shape(k), "key"),
        "s": node("scores", shape(products["dot"]), "scores")}  # fmt: skip
by_query = [("q", "q1"), ("q1", "s"), ("k", "s")], ["q k", "q1 .", "s ."]
middle = {
    "dot": ({}, [("q", "s"), ("k", "s")], ["q k", "s ."]),
    "scaled dot": ({"q1": node("Q / √dₖ", shape(q), "query")}, *by_query),
    "general": ({"q1": node("Q W", shape(q @ w), "query")}, *by_query),
    "cosine": (
        {"q1": node("Q / |q|", shape(q), "query"), "k1": node("K / |k|", shape(k), "key")},
        [("q", "q1"), ("k", "k1"), ("q1", "s"), ("k1", "s")],
        ["q k", "q1 k1", "s ."],
    ),
}
for ax, (name, (more, edges, grid)) in zip(fig.subplots(2, 2).flat, middle.items(), strict=True):
    plot.flow(ax, ends | more, edges, grid)
    ax.set_title(name, fontsize=11, color=plot.SCORES, loc="left")
plot.describe(
    fig,
    f"Four flows. In each, queries ({shape(q)}) and keys ({shape(k)}) meet in one product that gives scores "
    f"({shape(products['dot'])}). Dot has nothing else. Scaled dot divides the queries by the root of the width first, "
    "general multiplies them by W, and the cosine divides queries and keys by their lengths.",
)

fig = plot.figure(
    "scores-flow-additive",
    title=f"The additive score makes an array of {shape(hidden)} before it has {shape(hidden @ v)} scores",
    caption=(
        f"Flow of `ag.additive_score` with the shapes of a run: {n} queries and {m} keys of width {d}, hidden width "
        f"$d_a$ = {d_a}. `ag.concat_score` is the same flow, with the two projections kept in one matrix."
    ),
    size=(4.8, 5.0),
)
plot.flow(
    fig.subplots(),
    {
        "q": ends["q"], "k": ends["k"],
        "a": node("Q $W_Q$", shape(q @ w_q) + ", once a query", "query"),
        "b": node("K $W_K$", shape(k @ w_k) + ", once a key", "key"),
        "h": node("tanh of each sum", shape(hidden), "ink"),
        "s": ends["s"],
    },
    [("q", "a"), ("k", "b"), ("a", "h"), ("b", "h"), ("h", "s", "· v")],
    ["q k", "a b", "h .", "s ."],
)  # fmt: skip
plot.describe(
    fig,
    f"A flow. Queries ({shape(q)}) are projected once each to {shape(q @ w_q)}, keys ({shape(k)}) once each to "
    f"{shape(k @ w_k)}. Every query's row is added to every key's row and bent by tanh, an array of {shape(hidden)}. "
    f"The product with v leaves {shape(hidden @ v)} scores.",
)
