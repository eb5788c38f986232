"""
The cross-attention of a trained Transformer
============================================

Two blocks of four heads on one unseen number. Some follow the words, some look elsewhere.
"""

from attn_guide import models, plot

run = models.load("transformer")
held_out = run.experiment.pairs.tests["held_out"]
source, target = next((s, t) for s, t in held_out if len(s) == 7 and t[-2] == "und")
a = run.experiment.align(" ".join(source), " ".join(target))
layers, heads, n, m = a.weights.shape
most = a.weights.argmax(axis=-1)  # (layers, heads, n)
turning = int(((most[..., 4] == 6) & (most[..., 6] == 5)).sum())  # units read for the units, tens for the tens
rows = [w.replace("<stop>", "‹stop›") for w in a.target]
columns = [w.replace("<stop>", "‹stop›") for w in a.source]

fig = plot.figure(
    "cross-transformer-heads",
    title=f"{turning} of {layers * heads} heads read “{source[6]}” for “{target[4]}”, “{source[5]}” for “{target[6]}”",
    caption=(
        f'Cross-attention of `models.load("transformer")` on “{" ".join(source)}”. Rows are labelled by the word '
        f"that is predicted: the query stands one position before it. Exact match on all {len(held_out)} held-out "
        f"numbers: {run.results['held_out']:.1%}, seed {run.seed}."
    ),
    size=(6.4, 9.0),
)
said = []
for (layer, head), ax in zip(
    [(i, j) for i in range(layers) for j in range(heads)], fig.subplots(heads, layers).T.flat, strict=True
):
    plot.matrix(
        ax, a.weights[layer, head], kind="weights", rows=rows if layer == 0 else None,
        columns=columns if head == 0 else None, annotate=False, limits=(0, 1),
        name=f"block {layer + 1}, head {head + 1}", ink=plot.WEIGHTS,
    )  # fmt: skip
    looked = ", ".join(f"{rows[i]}: {columns[j]}" for i, j in enumerate(most[layer, head]))
    said.append(f"Block {layer + 1}, head {head + 1} looks most at, by row: {looked}.")
plot.describe(fig, " ".join(said))
