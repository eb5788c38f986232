"""
Self-attention in one flow
==========================

One sequence goes in three times, through three matrices. Queries meet keys; what comes of it decides how the values
are mixed.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, d_model, d_k, d_v = 3, 4, 2, 3
x = rng.standard_normal((n, d_model))
w_q, w_k, w_v = (
    rng.standard_normal((d_model, d_k)),
    rng.standard_normal((d_model, d_k)),
    rng.standard_normal((d_model, d_v)),
)
out, weights = ag.self_attention(x, w_q, w_k, w_v, return_weights=True)
shapes = {name: " × ".join(map(str, a.shape)) for name, a in {
    "x": x, "q": x @ w_q, "k": x @ w_k, "v": x @ w_v, "weights": weights, "out": out,
}.items()}  # fmt: skip

fig = plot.figure(
    "self-overview",
    title="Queries, keys and values are three views of one sequence",
    caption=(
        f"The shapes are those of a run of `ag.self_attention` with `n = {n}`, `d_model = {d_model}`, "
        f"`d_k = {d_k}` and `d_v = {d_v}`: the sizes of the example in the chapter."
    ),
    size=(4.8, 5.2),
)
plot.flow(
    fig.subplots(),
    {
        "x": {"text": "X", "detail": f"tokens, {shapes['x']}"},
        "q": {"text": "Q", "detail": shapes["q"], "role": "query"},
        "k": {"text": "K", "detail": shapes["k"], "role": "key"},
        "v": {"text": "V", "detail": shapes["v"], "role": "value"},
        "scores": {"text": "scores", "detail": f"Q Kᵀ ÷ √dₖ, {shapes['weights']}", "role": "scores"},
        "weights": {"text": "weights", "detail": shapes["weights"], "role": "weights"},
        "out": {"text": "output", "detail": shapes["out"], "role": "output"},
    },
    [
        ("x", "q", "$W_Q$"), ("x", "k", "$W_K$"), ("x", "v", "$W_V$"), ("q", "scores"), ("k", "scores"),
        ("scores", "weights", "softmax"), ("weights", "out"), ("v", "out"),
    ],
    [". x .", "q k v", ". scores .", ". weights .", ". out ."],
)  # fmt: skip
plot.describe(
    fig,
    f"A flow from the tokens X ({shapes['x']}) through W_Q, W_K and W_V to queries ({shapes['q']}), keys "
    f"({shapes['k']}) and values ({shapes['v']}). Queries and keys give scores ({shapes['weights']}), softmax gives "
    "weights, and these mix the "
    f"values to the output ({shapes['out']}).",
)
