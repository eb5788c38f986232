"""
A pointer is a softmax over positions
=====================================

Trained by likelihood to point to the nearest of five numbers: the weights for three lists.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot


def features(x):
    return np.stack([np.ones_like(x), x, x**2], axis=-1)


rng = np.random.default_rng(0)
w = np.zeros((3, 3))  # a general score, q W k
for _ in range(100):
    wanted, numbers = rng.uniform(-1, 1, (64, 1)), rng.uniform(-1, 1, (64, 5))
    q, k = features(wanted), features(numbers)  # (64, 1, 3), (64, 5, 3)
    p = ag.softmax((q @ w @ k.swapaxes(1, 2))[:, 0])  # (64, 5)
    right = np.eye(5)[np.abs(numbers - wanted).argmin(axis=1)]
    w -= 10 * np.einsum("bi,bj,bjd->id", q[:, 0], p - right, k) / 64
numbers = np.array([[0.9, -0.3, 0.2, -0.8, 0.5]])
asked = np.array([[0.15], [-0.7], [0.7]])  # three questions to one list
weights = ag.softmax(features(asked)[:, 0] @ w @ features(numbers)[0].T)  # (3, 5)
rows = [f"near {a:g}".replace("-", "\N{MINUS SIGN}") for a in asked[:, 0]]
columns = [f"{x:g}".replace("-", "\N{MINUS SIGN}") for x in numbers[0]]

fig = plot.figure(
    "soft-pointer",
    title=f"Asked for {asked[0, 0]:g}, the pointer gives {weights[0, 2]:.0%} to 0.2; for 0.7 it hesitates between two",
    caption=(
        "Weights over the positions of a list. The 3 × 3 matrix of a general score was trained by likelihood on 100 "
        "batches of 64 random lists (seed 0). Rows: the number asked for. Columns: the numbers in the list."
    ),
    size=(5.6, 3.0),
)
plot.matrix(
    fig.subplots(), weights, kind="weights", rows=rows,
    columns=columns, row_sums=True, ink=plot.WEIGHTS, name="where it points",
)  # fmt: skip
plot.describe(fig, plot.describe_matrix(weights, rows, columns))
