"""
Where a trained translator looks
================================

Bahdanau's translator, trained on 2,000 numbers, on two that it has not seen. German says the units before the tens.
"""

from attn_guide import models, plot

run = models.load("bahdanau")
held_out = run.experiment.pairs.tests["held_out"]
turned = next((s, t) for s, t in held_out if len(s) == 7 and t[-2] == "und")
straight = next((s, t) for s, t in held_out if len(s) == 6 and len(t) == 5)
tens = turned[1][6]
found = [run.experiment.align(" ".join(s), " ".join(t)) for s, t in (turned, straight)]

fig = plot.figure(
    "cross-bahdanau-alignment",
    title=f"“{tens}” is written last, and the model goes back to read “{turned[0][5]}”",
    caption=(
        'Weights of `models.load("bahdanau")` on two held-out numbers, both translated '
        f"{'rightly' if all(a.is_right for a in found) else 'with a mistake'}. Rows are labelled by the word that is "
        f"predicted. For the units, “{turned[1][4]}”, the weight on “{turned[0][6]}” is {found[0].weights[4, 6]:.2f} "
        f"and that on “{turned[0][5]}” {found[0].weights[4, 5]:.2f}; for the tens they are "
        f"{found[0].weights[6, 6]:.2f} and {found[0].weights[6, 5]:.2f}. Exact match on all {len(held_out)} held-out "
        f"numbers: {run.results['held_out']:.1%}, seed {run.seed}."
    ),
    size=(6.4, 4.4),
)
axes = fig.subplots(1, 2, width_ratios=[8, 7])
said = []
for ax, a in zip(axes, found, strict=True):
    rows = [w.replace("<stop>", "‹stop›") for w in a.target]
    columns = [w.replace("<stop>", "‹stop›") for w in a.source]
    plot.matrix(ax, a.weights, kind="weights", rows=rows, columns=columns, annotate=False,
                axis_labels=("predicted", "read"))  # fmt: skip
    said.append(plot.describe_matrix(a.weights, rows, columns))
plot.describe(fig, "Two matrices of weights. " + " ".join(said))
