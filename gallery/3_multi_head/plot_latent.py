"""
A latent cache
==============

Multi-head latent attention stores one narrow vector per token, and one rotated key that all heads share. Keys and
values of the heads are made from it, or never made at all.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
h, d_model = 4, 64
params = ag.init_multi_head_latent(d_model, h, d_c=16, d_nope=16, d_rope=8, rng=rng)
x = rng.standard_normal((9, d_model))
latent, rotated = params.compress(x, ag.apply_rope)
content, q_rotated = params.queries(x, ag.apply_rope)
stored = latent.shape[-1] + rotated.shape[-1]
full = h * (params.d_nope + params.d_rope + params.w_uv.shape[1] // h)

fig = plot.figure(
    "heads-latent",
    title=f"A latent cache keeps {stored} numbers per token instead of {full}",
    caption=(
        f"Multi-head latent attention with `d_model = {d_model}`, `h = {h}`, `d_c = 16`, `d_nope = d_v = 16` and "
        f"`d_rope = 8`, from "
        "`ag.init_multi_head_latent`. Widths per token; multi-head attention with heads of these widths would keep "
        f"{full}."
    ),
    size=(6.4, 5.6),
)
plot.flow(
    fig.subplots(),
    {
        "x": {"text": "token x", "detail": f"{d_model}"},
        "q": {"text": "queries", "detail": f"{h} × ({content.shape[-1]} + {q_rotated.shape[-1]})", "role": "query"},
        "c": {"text": "latent c", "detail": f"{latent.shape[-1]}", "role": "key"},
        "r": {"text": "rotated key", "detail": f"{rotated.shape[-1]}, for all heads", "role": "key"},
        "k": {"text": "keys", "detail": f"{h} × {params.d_nope}", "role": "key"},
        "v": {"text": "values", "detail": f"{h} × {params.w_uv.shape[1] // h}", "role": "value"},
        "weights": {"text": "weights", "detail": f"{h} heads", "role": "weights"},
        "out": {"text": "output", "detail": f"{d_model}", "role": "output"},
    },
    [
        ("x", "q"), ("x", "c"), ("x", "r"), ("c", "k", "$W_{UK}$"), ("c", "v", "$W_{UV}$"),
        ("q", "weights"), ("k", "weights"), ("r", "weights"), ("weights", "out"), ("v", "out", "$W_O$"),
    ],
    ["x . . .", "q r c .", ". . k v", "weights . . .", "out . . ."],
    groups={"cached": ["c", "r"]},
)  # fmt: skip
plot.describe(
    fig,
    f"A flow from a token of width {d_model}. It gives queries for {h} heads, a latent vector of "
    f"{latent.shape[-1]} numbers "
    f"and a rotated key of {rotated.shape[-1]}; a frame marks these two as cached. From the latent vector come "
    f"the keys and "
    f"the values of all {h} heads, which with the rotated key make weights and the output.",
)
