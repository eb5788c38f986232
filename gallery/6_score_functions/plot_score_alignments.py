"""
One task, seven scores
======================

Luong's decoder trained seven times, with nothing changed but the score, and Bahdanau's, on the same unseen number.
"""

from attn_guide import models, plot

names = {
    "dot": "dot", "scaled": "scaled dot", "general": "general", "concat": "concat", "additive": "additive",
    "cosine": "cosine, learned scale", "bare-cosine": "cosine alone",
}  # fmt: skip
runs = {name: models.load(f"luong-{name}") for name in names} | {"bahdanau": models.load("bahdanau")}
names["bahdanau"] = "additive, Bahdanau's"
held_out = runs["dot"].experiment.pairs.tests["held_out"]
source, target = next((s, t) for s, t in held_out if len(s) == 7 and t[-2] == "und")
found = {name: run.experiment.align(" ".join(source), " ".join(target)) for name, run in runs.items()}
accuracy = {name: run.results["held_out"] for name, run in runs.items()}
right = sum(a.is_right for a in found.values())
maps = [a.weights for a in found.values() if a.is_right]
apart = min(abs(a - b).max() for i, a in enumerate(maps) for b in maps[:i])

fig = plot.figure(
    "scores-alignments",
    title=f"All get {min(accuracy.values()):.1%} or more right, with unlike maps",
    caption=(
        "Weights of `luong-dot` and its six relatives, and of `bahdanau`, whose decoder looks before it "
        "moves; seed 0, "
        f"on a held-out number, translated correctly by {right} of {len(found)}. Rows: the word predicted; columns: "
        "the word read. Below each name stands the exact match on "
        f"{len(held_out)} held-out numbers. Any two of the "
        f"maps that are right differ by {apart:.2f} or more in some weight. All panels have the colours of 0 to 1."
    ),
    size=(4.8, 9.6),
)
said = []
for i, (ax, (name, a)) in enumerate(zip(fig.subplots(4, 2).flat, found.items(), strict=True)):
    rows, columns = ([w.replace("<stop>", "‹stop›") for w in words] for words in (a.target, a.source))
    plot.matrix(ax, a.weights, kind="weights", rows=rows if i % 2 == 0 else None, columns=columns if i < 2 else None,
                annotate=False, limits=(0, 1))  # fmt: skip
    ax.set_title(f"{names[name]}\n{accuracy[name]:.1%} right", fontsize=10.5, color=plot.INK, loc="left")
    said.append(f"{names[name]}, accuracy {accuracy[name]:.1%}: " + plot.describe_matrix(a.weights, rows, columns))
plot.describe(fig, "Eight matrices of weights. " + " ".join(said))
