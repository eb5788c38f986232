"""
Cross-attention in one flow
===========================

Two sequences go in. The target gives the queries; the source gives the keys and the values.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, m, d_target, d_source, d_k, d_v = 3, 4, 3, 4, 4, 3
target, source = rng.standard_normal((n, d_target)), rng.standard_normal((m, d_source))
w_q, w_k, w_v = (rng.standard_normal(s) for s in ((d_target, d_k), (d_source, d_k), (d_source, d_v)))
out, weights = ag.cross_attention(target, source, w_q, w_k, w_v, return_weights=True)
shapes = {name: " × ".join(map(str, a.shape)) for name, a in {
    "target": target, "source": source, "q": target @ w_q, "k": source @ w_k, "v": source @ w_v, "weights": weights,
    "out": out,
}.items()}  # fmt: skip

fig = plot.figure(
    "cross-flow",
    title="The target asks; the source is compared and handed over",
    caption=(
        f"The shapes are those of a run of `ag.cross_attention` with n = {n} target and m = {m} source tokens: the "
        "sizes of the example in the chapter."
    ),
    size=(4.8, 5.4),
)
plot.flow(
    fig.subplots(),
    {
        "target": {"text": "target", "detail": f"n × d, {shapes['target']}"},
        "source": {"text": "source", "detail": f"m × d', {shapes['source']}"},
        "q": {"text": "Q", "detail": shapes["q"], "role": "query"},
        "k": {"text": "K", "detail": shapes["k"], "role": "key"},
        "v": {"text": "V", "detail": shapes["v"], "role": "value"},
        "scores": {"text": "scores", "detail": f"n × m, {shapes['weights']}", "role": "scores"},
        "weights": {"text": "weights", "detail": f"n × m, {shapes['weights']}", "role": "weights"},
        "out": {"text": "output", "detail": f"n × dᵥ, {shapes['out']}", "role": "output"},
    },
    [
        ("target", "q", "$W_Q$"), ("source", "k", "$W_K$"), ("source", "v", "$W_V$"), ("q", "scores"), ("k", "scores"),
        ("scores", "weights", "softmax"), ("weights", "out"), ("v", "out"),
    ],
    ["target . source", "q k v", "scores . .", "weights . .", "out . ."],
)  # fmt: skip
plot.describe(
    fig,
    f"A flow. The target ({shapes['target']}) goes through W_Q to queries ({shapes['q']}). The source "
    f"({shapes['source']}) goes through W_K to keys ({shapes['k']}) and through W_V to values ({shapes['v']}). Queries "
    f"and keys give scores ({shapes['weights']}), softmax gives weights, and these mix the values to the output "
    f"({shapes['out']}), which has one row for each target token.",
)
