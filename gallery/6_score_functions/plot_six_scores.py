"""
One query, three keys, six scores
=================================

The example of the chapter. The vectors are drawn to scale; beside them stands what each score makes of them.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

q = np.array([[2.0, 1]])
keys = {"a": (2.0, 1), "b": (4.0, -1), "c": (-1.0, 2)}
k = np.array(list(keys.values()))
half, v = 0.5 * np.eye(2), np.array([2.0, 1])
scores = {
    "dot": ag.dot_score(q, k),
    "scaled dot": ag.scaled_dot_score(q, k),
    "cosine": ag.cosine_score(q, k),
    "general": ag.general_score(q, k, [[0.0, 1], [-1, 0]]),
    "additive": ag.additive_score(q, k, half, half, v),
    "concat": ag.concat_score(q, k, np.concatenate([half, half]), v),
}
weights = np.concatenate([ag.softmax(s) for s in scores.values()])
winners = {name: list(keys)[int(s.argmax())] for name, s in scores.items()}

fig = plot.figure(
    "scores-example",
    title=f"Dot picks {winners['dot']}, cosine picks {winners['cosine']}, general picks {winners['general']}",
    caption=(
        "Left: the query q and the keys a, b and c; the key a is the same vector as q. Right: the softmax of the "
        "scores of `ag.dot_score` and its five relatives, one row a score, with the parameters of the example."
    ),
    size=(5.4, 3.4),
)
left, right = fig.subplots(1, 2, width_ratios=[1.25, 1])
for name, end, ink, offset in (
    ("q, a", k[0], plot.QUERY, (4, 6)),
    ("b", k[1], plot.KEY, (-4, -14)),
    ("c", k[2], plot.KEY, (-10, 4)),
):
    left.annotate(
        "", end, (0, 0), arrowprops={"arrowstyle": "-|>", "color": ink, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
    )
    left.annotate(name, end, offset, textcoords="offset points", color=ink, fontsize=12, weight="bold")
left.axhline(0, color=plot.GRID, linewidth=1, zorder=0)
left.axvline(0, color=plot.GRID, linewidth=1, zorder=0)
left.set(xlim=(-1.9, 4.6), ylim=(-2.2, 3.2), aspect="equal", xticks=range(-1, 5), yticks=range(-2, 4))
plot.matrix(right, weights, kind="weights", rows=list(scores), columns=list(keys), annotate=True, name="weights",
            ink=plot.WEIGHTS)  # fmt: skip
plot.describe(
    fig,
    "Left, a plane with the query (2, 1) and the keys a = (2, 1), b = (4, -1) and c = (-1, 2). Right, weights. "
    + plot.describe_matrix(weights, list(scores), list(keys)),
)
