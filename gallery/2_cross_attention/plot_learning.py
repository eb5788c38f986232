"""
An alignment is learned
=======================

The same number, before the first step of training and after the last.
"""

import torch

from attn_guide import models, plot

recipe = models.recipe("bahdanau")
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    fresh = recipe.start(recipe.settings, 0)
fresh.model.eval()
run = models.load("bahdanau")
pairs = run.experiment.pairs
source, target = next((s, t) for s, t in pairs.tests["held_out"] if len(s) == 7 and t[-2] == "und")
words, right = pairs.source.encode([source]), pairs.target.encode([target])
panels = {}
for name, model in (("before training", fresh.model), (f"after {len(run.loss)} steps", run.model)):
    with torch.no_grad():
        panels[name] = model(words, right)[1][0].numpy()
before = panels["before training"]

fig = plot.figure(
    "cross-learning",
    title=f"Before training every word is read alike: no weight is above {before.max() + 0.005:.2f}",
    caption=(
        "Bahdanau's translator of seed 0 with its first weights and with its last, on one held-out number. The right "
        "German words are given, so that both have the same rows, which are labelled by the word to be predicted."
    ),
    size=(6.4, 4.2),
)
said = []
rows, columns = [*target, "‹stop›"], [*source, "‹stop›"]
for i, (ax, (name, weights)) in enumerate(zip(fig.subplots(1, 2), panels.items(), strict=True)):
    plot.matrix(ax, weights, kind="weights", rows=rows if i == 0 else None, columns=columns, annotate=False, name=name,
                ink=plot.WEIGHTS, limits=(0, 1))  # fmt: skip
    said.append(f"{name.capitalize()}: " + plot.describe_matrix(weights, rows, columns))
plot.describe(fig, " ".join(said))
