"""
How many random features it takes
=================================

The error of random features falls as one over the root of their number, once there are enough of them. How many that is
depends on how long the vectors are.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, d, drawings = 96, 16, 4
features = np.array([16, 64, 256, 1024, 4096])
rng = np.random.default_rng(0)
errors = {}
for sd in (1.0, 0.5, 0.35):
    q, k, v = rng.standard_normal((3, n, d)) * np.array([sd, sd, 1.0])[:, None, None]
    exact = ag.scaled_dot_product_attention(q, k, v)
    errors[f"sd {sd:g}"] = [
        np.mean(
            [
                np.abs(ag.performer_attention(q, k, v, ag.random_feature_projection(d, int(m), rng=rng)) - exact).mean()
                for _ in range(drawings)
            ]
        )
        for m in features
    ]
slope = {name: ag.fit_exponent(features, e).exponent for name, e in errors.items()}

fig = plot.figure(
    "sparse-performer",
    title="Random features approach the softmax, fast for short vectors and slowly for long ones",
    caption=(
        f"Mean error of `ag.performer_attention`, {n} tokens of width {d}, {drawings} drawings, seed 0; queries "
        "and keys with "
        "normal components of the standard deviation printed at each line. Dashed: one over the root of the "
        "number of "
        f"features. Fitted exponents: {', '.join(f'−{-a:.2f}' for a in slope.values())}."
    ),
    size=(5.8, 3.8),
)
law = 0.6 * errors["sd 0.35"][0] * np.sqrt(features[0] / features)
ax = fig.subplots()
plot.curve(
    ax, features, errors, theory={"1/√m": law}, log="xy", ticks=features,
    colours={"sd 1": plot.SCORES, "sd 0.5": plot.QUERY, "sd 0.35": plot.KEY},
    xlabel="random features m", ylabel="mean error of the output",
)  # fmt: skip
plot.plain_numbers(ax)
ax.set_yticks([], minor=True)
plot.describe(
    fig,
    "Line chart on logarithmic axes. "
    + " ".join(
        f"{name}: {e[0]:.3f} at {features[0]} features, {e[-1]:.4f} at {features[-1]:,}." for name, e in errors.items()
    ),
)
