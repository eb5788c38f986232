"""
What "it" means
===============

Two sentences that differ in their last word only. In the second of two layers of self-attention, "it" attends to the
ball if what "it" is was hard, and to the window if it was thin.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

# features: thing, pronoun, quality, hard, thin
features = {
    "ball": [1, 0, 0, 1, 0], "window": [1, 0, 0, 0, 1],
    "it": [0, 1, 0, 0, 0],
    "hard": [0, 0, 1, 1, 0], "thin": [0, 0, 1, 0, 1],
}  # fmt: skip
start = ["The", "ball", "broke", "the", "window", "because", "it", "was"]

ask, found, hand_over = np.zeros((5, 1)), np.zeros((5, 1)), np.zeros((5, 5))
ask[1], found[2] = 5.0, 1.0  # layer 1: a pronoun asks for a quality,
hand_over[3, 3] = hand_over[4, 4] = 1.0  # and takes over what it says
w_q, w_k = np.zeros((5, 3)), np.zeros((5, 3))
w_q[[3, 4, 1], [0, 1, 2]] = 6.0  # layer 2: it asks for what is hard or thin, and for a thing
w_k[[3, 4, 0, 2], [0, 1, 2, 2]] = 1.0, 1.0, 1.0, -1.0

first, second = {}, {}
for last in ("hard", "thin"):
    x = np.array([features.get(word, [0] * 5) for word in [*start, last]], float)  # (n, d_model) = (9, 5)
    out, weights = ag.self_attention(x, ask, found, hand_over, return_weights=True)
    first[last] = weights[start.index("it")]
    second[last] = ag.self_attention(x + out, w_q, w_k, np.eye(5), return_weights=True)[1][start.index("it")]

fig = plot.figure(
    "self-it",
    title="Change the last word, and “it” looks at another noun",
    caption=(
        "The row of “it” in two layers of self-attention on “The ball broke the window because it was hard” and “… "
        "was thin”, with five chosen features for each word and chosen weights. The first layer brings the last word "
        "to “it”; the second uses it."
    ),
    size=(4.8, 4.6),
)
for ax, layer, name in zip(
    fig.subplots(2, 1), (first, second), ("layer 1: the row of “it”", "layer 2: the row of “it”"), strict=True
):
    plot.matrix(
        ax, np.stack(list(layer.values())), kind="weights", rows=["“hard”", "“thin”"],
        columns=[*start, "last word"], name=name, ink=plot.WEIGHTS,
    )  # fmt: skip
plot.describe(
    fig,
    "Two matrices with two rows each, one row for each sentence. "
    + " ".join(
        f"If the last word is {last}, “it” gives {first[last][-1]:.2f} to it in layer 1; in layer 2, "
        f"{second[last][1]:.2f} to ball and {second[last][4]:.2f} to window."
        for last in first
    ),
)
