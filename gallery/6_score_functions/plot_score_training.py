"""
How soon each score learns
==========================

Exact match on unseen numbers early in the training of Luong's decoder, one training for each score.
"""

from attn_guide import models, plot

names = {
    "general": "general", "additive": "additive", "concat": "concat", "cosine": "cosine, learned scale",
    "scaled": "scaled dot", "dot": "dot", "bare-cosine": "cosine alone",
}  # fmt: skip
runs = {label: models.load(f"luong-{name}") for name, label in names.items()}
step = runs["dot"].history["step"]
at = int((step >= 75).argmax())
early = {label: float(run.history["held_out"][at]) for label, run in runs.items()}
best, worst = max(early, key=early.get), min(early, key=early.get)

fig = plot.figure(
    "scores-training",
    title=f"After {step[at]} steps {best} gets {early[best]:.0%} right, {worst} {early[worst]:.0%}",
    caption=(
        f"Exact match on 100 held-out numbers after {step[at]} of {len(runs['dot'].loss)} steps; one training for each "
        "score, seed 0, the same data and settings. At the end all are at "
        f"{min(r.results['held_out'] for r in runs.values()):.1%} or more of all held-out numbers. A "
        "single training of each is no ranking."
    ),
    size=(5.2, 3.3),
)
plot.bars(fig.subplots(), list(early), list(early.values()), fmt=".0%", horizontal=True, colour=plot.SCORES)
plot.describe(
    fig, f"Bar chart of the exact match after {step[at]} steps. " + " ".join(f"{a}: {b:.0%}." for a, b in early.items())
)
