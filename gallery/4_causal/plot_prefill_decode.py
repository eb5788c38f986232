"""
Prefill and decode
==================

What a decoder computes for one new token when the keys and values of the others are kept.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
prompt, d = 5, 4
q, k, v = rng.standard_normal((3, 1, prompt + 1, d))
cache = ag.KVCache()
cache.append(k[:, :prompt], v[:, :prompt])
out, weights = cache.attend(q[:, prompt:], k[:, prompt:], v[:, prompt:], return_weights=True)


def shape(a):
    return " × ".join(map(str, a.shape[1:]))


fig = plot.figure(
    "causal-cache",
    title="A new token brings one row of each; the cache has the rest",
    caption=(
        f"Shapes of a run of `ag.KVCache` with one head of width {d}, after a prompt of {prompt} tokens. The key and "
        "the value of the new token join the cache before its query is compared."
    ),
    size=(5.6, 5.4),
)
plot.flow(
    fig.subplots(),
    {
        "new": {"text": "new token", "detail": f"1 × {d}"},
        "q": {"text": "q", "detail": shape(q[:, prompt:]), "role": "query"},
        "k": {"text": "k", "detail": shape(k[:, prompt:]), "role": "key"},
        "v": {"text": "v", "detail": shape(v[:, prompt:]), "role": "value"},
        "keys": {"text": "cached keys", "detail": f"{prompt} × {d} → {shape(cache.key)}", "role": "key"},
        "values": {"text": "cached values", "detail": f"{prompt} × {d} → {shape(cache.value)}", "role": "value"},
        "weights": {"text": "weights", "detail": shape(weights), "role": "weights"},
        "out": {"text": "output", "detail": shape(out), "role": "output"},
    },
    [
        ("new", "q"), ("new", "k"), ("new", "v"), ("k", "keys", "append"), ("v", "values", "append"),
        ("q", "weights"), ("keys", "weights"), ("weights", "out"), ("values", "out"),
    ],
    [". new .", "q k v", ". keys values", "weights . .", ". out ."],
)  # fmt: skip
plot.describe(
    fig,
    f"A flow: the new token gives a query, a key and a value of one row each. Key and value join {prompt} cached rows, "
    f"which makes {prompt + 1}. The query meets {prompt + 1} keys: weights of shape {shape(weights)}, which mix "
    f"{prompt + 1} values to one output of shape {shape(out)}.",
)
