"""
One vector for a whole sentence
===============================

The same recurrent translator with attention and without, on lists of two to twelve numbers.
"""

from attn_guide import models, plot

lengths = [2, 4, 6, 8, 10, 12]
names = {"fixed vector": "fixed-vector-lists", "attention": "bahdanau-lists"}
series = {label: [models.load(name).results[f"{n}_numbers"] for n in lengths] for label, name in names.items()}

with_attention, without = series["attention"][2], series["fixed vector"][2]

fig = plot.figure(
    "cross-by-length",
    title=f"Lists of six: {with_attention:.0%} right with attention, {without:.1%} without; beyond that, none",
    caption=(
        "Exact match on 300 held-out lists of each length. Both were trained on lists of one to six numbers: those of "
        "eight and more are longer than any that they have seen. Seed 0."
    ),
    size=(6.4, 3.6),
)
ax = fig.subplots()
plot.curve(
    ax, lengths, series, xlabel="numbers in the list", ylabel="exact match", ticks=lengths,
    colours={"fixed vector": plot.MUTED, "attention": plot.WEIGHTS},
)  # fmt: skip
ax.set_xscale("linear")
ax.set_xticks(lengths, [str(n) for n in lengths])
ax.axvspan(7, 12.3, color=plot.GRID, alpha=0.5, linewidth=0, zorder=0)
ax.annotate("longer than trained", (7.2, 0.93), fontsize=9.5, color=plot.MUTED)
plot.describe(
    fig,
    "Exact match against the length of a list. "
    + " ".join(
        f"With {label}: " + ", ".join(f"{y:.2f} for {n}" for n, y in zip(lengths, values, strict=True)) + "."
        for label, values in series.items()
    ),
)
