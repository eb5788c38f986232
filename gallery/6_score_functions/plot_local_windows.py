"""
Windows of local attention
==========================

Global, local-m and local-p attention of trained decoders on one unseen number. Hatched words are outside the window.
"""

from attn_guide import models, plot

names = {"luong-general": "global", "luong-local-m": "local-m", "luong-local-p": "local-p"}
runs = {name: models.load(name) for name in names}
held_out = runs["luong-general"].experiment.pairs.tests["held_out"]
candidates = [(s, t) for s, t in held_out if len(s) == 7 and t[-2] == "und"]
source, target = next(
    (s, t) for s, t in candidates if all(r.experiment.align(" ".join(s), " ".join(t)).is_right for r in runs.values())
)
found = {name: run.experiment.align(" ".join(source), " ".join(target)) for name, run in runs.items()}
window = models.recipe("luong-local-m").settings["window"]

fig = plot.figure(
    "scores-local",
    title=f"Local attention sees {2 * window + 1} of {len(source) + 1} words at a time",
    caption=(
        f"Weights on a held-out number of `luong-general`, `luong-local-m` and `luong-local-p`, seed 0, D = {window}. "
        "Hatched: outside the window, a weight of exactly 0. Exact match on all held-out numbers: "
        + ", ".join(f"{label} {runs[name].results['held_out']:.1%}" for name, label in names.items())
        + ". The rows of local-p do not sum to one."
    ),
    size=(6.4, 3.3),
)
said = []
for i, (ax, (name, a)) in enumerate(zip(fig.subplots(1, 3), found.items(), strict=True)):
    rows, columns = ([w.replace("<stop>", "‹stop›") for w in words] for words in (a.target, a.source))
    seen = a.weights > 0
    plot.matrix(ax, a.weights, rows=rows if i == 0 else None, columns=columns, mask=seen, annotate=False,
                limits=(0, 1), name=names[name], ink=plot.WEIGHTS)  # fmt: skip
    said.append(f"{names[name]}: " + plot.describe_matrix(a.weights, rows, columns, mask=seen))
plot.describe(fig, "Three matrices of weights. " + " ".join(said))
