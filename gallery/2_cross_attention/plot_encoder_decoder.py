"""
Where cross-attention sits
==========================

One block of an encoder and one of a decoder, and the single way that leads from the one to the other.
"""

from attn_guide import plot

fig = plot.figure(
    "cross-encoder-decoder",
    title="Cross-attention is the only way from the source to the target",
    caption=(
        "One block on each side; both are repeated. Every attention and every feed-forward layer is surrounded by a "
        "residual connection and a normalisation, which are left out. Drawn from the order of calls in "
        "`ag.encoder_layer` and `ag.decoder_layer`."
    ),
    size=(5.6, 6.0),
)
plot.flow(
    fig.subplots(),
    {
        "source": {"text": "source", "detail": "m tokens"},
        "encoder": {"text": "self-attention", "detail": "m × m, all pairs", "role": "weights"},
        "think": "feed-forward",
        "memory": {"text": "memory", "detail": "m states", "role": "key"},
        "target": {"text": "target so far", "detail": "n tokens"},
        "decoder": {"text": "self-attention", "detail": "n × n, causal", "role": "weights"},
        "cross": {"text": "cross-attention", "detail": "n × m, all pairs", "role": "weights"},
        "write": "feed-forward",
        "next": {"text": "next words", "detail": "n predictions", "role": "output"},
    },
    [
        ("source", "encoder"), ("encoder", "think"), ("think", "memory"), ("memory", "cross", "K, V"),
        ("target", "decoder"), ("decoder", "cross", "Q"), ("cross", "write"), ("write", "next"),
    ],
    ["source target", "encoder decoder", "think .", "memory cross", ". write", ". next"],
    groups={"encoder": ["encoder", "think"], "decoder": ["decoder", "cross", "write"]},
)  # fmt: skip
plot.describe(
    fig,
    "A flow in two columns. Left: the source goes through self-attention over all pairs and a feed-forward layer to "
    "the memory. Right: the target so far goes through causal self-attention, then cross-attention, whose keys and "
    "values come from the memory, then a feed-forward layer, to the predictions of the next words.",
)
