"""
A list that is too long
=======================

Bahdanau's translator was trained on lists of up to six numbers. Here it reads eight.
"""

from attn_guide import models, plot

run = models.load("bahdanau-lists")
source, target = min(run.experiment.pairs.tests["8_numbers"], key=lambda pair: len(pair[0]) + len(pair[1]))
a = run.experiment.align(" ".join(source), " ".join(target))
rows = [w.replace("<stop>", "‹stop›") for w in a.target]
columns = [w.replace("<stop>", "‹stop›") for w in a.source]
right = next(i for i, (x, y) in enumerate(zip([*a.target, ""], [*target, " "], strict=False)) if x != y)
numbers = " ".join(a.target[:-1]).count(",") + 1

fig = plot.figure(
    "cross-longer",
    title=f"Of eight numbers it writes {numbers}: where “{target[right]}” belongs it puts “{rows[right]}”",
    caption=(
        'Weights of `models.load("bahdanau-lists")`, trained on lists of one to six numbers, on the shortest of 300 '
        f"lists of eight. Right would be “{' '.join(target)}”. The first {right} words are; the outlined row is the "
        "first mistake."
    ),
    size=(6.4, 5.6),
)
plot.matrix(
    fig.subplots(), a.weights, kind="weights", rows=rows, columns=columns, annotate=False,
    axis_labels=("predicted", "read"), outline=[(right, int(a.weights[right].argmax()))],
)  # fmt: skip
plot.describe(fig, plot.describe_matrix(a.weights, rows, columns))
