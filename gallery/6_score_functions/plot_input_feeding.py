"""
Luong's decoder, with and without input feeding
===============================================

One step of the decoder as a flow, and the two training curves.
"""

from attn_guide import models, plot

fig = plot.figure(
    "scores-luong-flow",
    title="The state moves first, then it looks; input feeding hands the result on",
    caption=(
        "One step of Luong's decoder, as `attn_guide.models.Luong` takes it. Bahdanau's goes the other way round: it "
        "looks with the state before, and what it sees moves the state."
    ),
    size=(4.8, 5.6),
)
plot.flow(
    fig.subplots(),
    {
        "word": {"text": "word before"},
        "fed": {"text": "attentional vector", "detail": "fed from the step before", "role": "output"},
        "state": {"text": "state h", "detail": "after the LSTM", "role": "query"},
        "source": {"text": "source states", "role": "key"},
        "weights": {"text": "weights", "detail": "softmax of the score", "role": "weights"},
        "context": {"text": "context c", "role": "value"},
        "out": {"text": "attentional vector", "detail": "tanh of W [c; h]", "role": "output"},
        "next": {"text": "next word"},
    },
    [
        ("word", "state"), ("fed", "state"), ("state", "weights"), ("source", "weights"),
        ("weights", "context"), ("source", "context"), ("context", "out"), ("state", "out"), ("out", "next"),
    ],
    ["word fed", "state source", "weights .", "context .", "out .", "next ."],
)  # fmt: skip
plot.describe(
    fig,
    "A flow. The word before and, with input feeding, the attentional vector of the step before move the state h. The "
    "state and the source states give weights, these mix the source states to the context c, and c and h together give "
    "the attentional vector, from which the next word is chosen.",
)

runs = {"with input feeding": models.load("luong-general"), "without": models.load("luong-no-feeding")}
step = runs["without"].history["step"]
curves = {name: run.history["held_out"] for name, run in runs.items()}

fig = plot.figure(
    "scores-feeding",
    title="With and without input feeding: "
    + " and ".join(f"{r.results['held_out']:.1%}" for r in runs.values())
    + " right",
    caption=(
        "Exact match on 100 held-out numbers during training, general score, seed 0, one training each. The title has "
        "the exact match on all held-out numbers at the end."
    ),
    size=(5.2, 3.2),
)
plot.curve(fig.subplots(), step, curves, xlabel="steps of training", ylabel="exact match")
plot.describe(
    fig,
    "Line chart. "
    + " ".join(f"{name}: {a[2]:.0%} after {step[2]} steps, {a[-1]:.0%} at the end." for name, a in curves.items()),
)
