"""
Split, attend, merge
====================

Every step of multi-head attention with its shape. Nothing flows from one head to another before W_O.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, d_model, h = 3, 4, 2
rng = np.random.default_rng(0)
x = rng.standard_normal((n, d_model))
params = ag.init_multi_head(d_model, h, rng=rng)
q, k, v = params.project(x, x, x)  # (h, n, d_k) each
heads, weights = ag.scaled_dot_product_attention(q, k, v, return_weights=True)
joined = ag.merge_heads(heads)
out = params.join(heads)


def shape(a: np.ndarray) -> str:
    return " × ".join(map(str, a.shape))


fig = plot.figure(
    "heads-steps",
    title="Heads part after the projections and meet again at the output projection",
    caption=(
        f"The shapes are those of a run with n = {n}, d_model = {d_model} and h = {h} heads, the sizes of the "
        f"example in "
        "the chapter."
    ),
    size=(5.0, 5.8),
)
plot.flow(
    fig.subplots(),
    {
        "x": {"text": "X", "detail": shape(x)},
        "q": {"text": "X$W_Q$", "detail": shape(x @ params.w_q), "role": "query"},
        "k": {"text": "X$W_K$", "detail": shape(x @ params.w_k), "role": "key"},
        "v": {"text": "X$W_V$", "detail": shape(x @ params.w_v), "role": "value"},
        "split": {"text": "split", "detail": f"three times {shape(q)}"},
        "head0": {"text": "head 0", "detail": shape(heads[0]), "role": "output"},
        "head1": {"text": "head 1", "detail": shape(heads[1]), "role": "output"},
        "merge": {"text": "merge", "detail": shape(joined), "role": "output"},
        "out": {"text": "output", "detail": shape(out), "role": "output"},
    },
    [
        ("x", "q"), ("x", "k"), ("x", "v"), ("q", "split"), ("k", "split"), ("v", "split"),
        ("split", "head0", "attend"), ("split", "head1", "attend"), ("head0", "merge"), ("head1", "merge"),
        ("merge", "out", "$W_O$"),
    ],
    [". x .", "q k v", ". split .", "head0 . head1", ". merge .", ". out ."],
)  # fmt: skip
plot.describe(
    fig,
    f"A flow from the tokens X ({shape(x)}) through three projections of the same shape to a box 'split', where each "
    f"becomes {shape(q)}. Two heads attend on their own, with weights {shape(weights[0])} each, and give "
    f"{shape(heads[0])} "
    f"each; merged they are {shape(joined)}, and W_O gives the output, {shape(out)}.",
)
