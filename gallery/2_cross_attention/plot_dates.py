"""
A date turned round
===================

American dates into Hungarian ones: weekday, month, day, year becomes year, month, day, weekday.
"""

from attn_guide import models, plot

run = models.load("bahdanau-dates")
source, target = run.experiment.pairs.tests["held_out"][0]
a = run.experiment.align(" ".join(source), " ".join(target))
rows = [w.replace("<stop>", "‹stop›") for w in a.target]
columns = [w.replace("<stop>", "‹stop›") for w in a.source]

fig = plot.figure(
    "cross-dates",
    title="The year is read first and the weekday last, though they stand the other way round",
    caption=(
        f'Weights of `models.load("bahdanau-dates")` on a held-out date, translated '
        f"{'rightly' if a.is_right else 'with a mistake'}. Rows are labelled by the word that is predicted. Exact "
        f"match on all {len(run.experiment.pairs.tests['held_out'])} held-out dates: {run.results['held_out']:.1%}."
    ),
    size=(4.8, 5.0),
)
plot.matrix(fig.subplots(), a.weights, kind="weights", rows=rows, columns=columns, axis_labels=("predicted", "read"))
plot.describe(fig, plot.describe_matrix(a.weights, rows, columns))
