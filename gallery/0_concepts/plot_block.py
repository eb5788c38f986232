"""
Attention beside the feed-forward layer
=======================================

One Transformer layer. Attention is the only place where tokens meet; the feed-forward layer works on each alone.
Both add to the vectors that pass by them, and both see those vectors normalised.
"""

import attn_guide as ag
from attn_guide import plot

d = 768
attention = ag.mha_param_count(d, 12, bias=False)
feed_forward = ag.feed_forward_param_count(d, bias=False)
fig = plot.figure(
    "concepts-block",
    title="Tokens meet in attention; the feed-forward layer sees each alone",
    caption=(
        f"A layer in the pre-norm order of GPT-2. Weights for `d_model = {d}`: {attention:,} in the four "
        "projections, "
        f"{feed_forward:,} in a feed-forward layer of width {4 * d:,}."
    ),
    size=(4.8, 5.6),
)
plot.flow(
    fig.subplots(),
    {
        "x": {"text": "x", "detail": "n × d", "plain": True},
        "norm1": {"text": "layer norm", "detail": "each token alone"},
        "attention": {"text": "attention", "detail": "tokens meet", "role": "weights"},
        "plus1": {"text": "+"},
        "norm2": {"text": "layer norm", "detail": "each token alone"},
        "ffn": {"text": "feed-forward", "detail": "each token alone", "role": "output"},
        "plus2": {"text": "+"},
        "y": {"text": "y", "detail": "n × d", "plain": True},
    },
    [
        ("x", "norm1"), ("norm1", "attention"), ("attention", "plus1"), ("x", "plus1"),
        ("plus1", "norm2"), ("norm2", "ffn"), ("ffn", "plus2"), ("plus1", "plus2"), ("plus2", "y"),
    ],
    ["x .", ". norm1", "plus1 attention", ". norm2", "plus2 ffn", "y ."],
)  # fmt: skip
plot.describe(
    fig,
    "A flow from x at the top to y at the bottom. A branch leaves x, passes a layer norm and attention, and is "
    "added back; a "
    f"second branch passes a layer norm and the feed-forward layer, and is added back. Attention has "
    f"{attention:,} weights, the "
    f"feed-forward layer {feed_forward:,}.",
)
