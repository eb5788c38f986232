"""
Learning to translate lists
===========================

Exact match on lists that were held out, while three translators are trained.
"""

import numpy as np

from attn_guide import models, plot

names = {
    "fixed vector": "fixed-vector-lists", "Bahdanau": "bahdanau-lists", "Transformer": "transformer-lists",
}  # fmt: skip
runs = {label: models.load(name) for label, name in names.items()}
steps = max((run.history["step"] for run in runs.values()), key=len)
series = {}
for label, run in runs.items():
    assert (run.history["step"] == steps[: len(run.history["step"])]).all()  # some are trained longer than others
    series[label] = np.pad(run.history["held_out"], (0, len(steps) - len(run.history["step"])), constant_values=np.nan)
last = {label: run.results["held_out"] for label, run in runs.items()}

fig = plot.figure(
    "cross-training",
    title=f"Unseen lists: {last['Bahdanau']:.0%} right with attention, {last['fixed vector']:.0%} with one vector",
    caption=(
        "Lists of one to six numbers, English to German. Share of 100 held-out lists translated without any mistake, "
        f"measured every {steps[1]} steps of 64 lists; the title gives the share of all held-out lists. Seed 0."
    ),
    size=(6.4, 3.6),
)
plot.curve(
    fig.subplots(), steps, series, xlabel="training steps", ylabel="exact match",
    colours={"fixed vector": plot.MUTED, "Bahdanau": plot.WEIGHTS, "Transformer": plot.QUERY},
)  # fmt: skip
plot.describe(
    fig,
    "Exact match against training steps. "
    + " ".join(
        f"{label}: " + ", ".join(f"{y:.2f} at {s}" for s, y in zip(steps, values, strict=True) if np.isfinite(y)) + "."
        for label, values in series.items()
    ),
)
