"""
The variance of REINFORCE against its baseline
==============================================

Whatever number is subtracted from the loss, the estimate keeps its mean. Its variance is a parabola in that number.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

weights, values = np.array([0.1, 0.25, 0.35, 0.2, 0.1]), np.array([1.0, 2, 3, 4, 5])
loss, scores = (values - 3.5) ** 2, np.log(weights)
exact = ag.expected_reward_gradient(scores, loss)  # (5,)
squared = ((np.eye(5) - weights) ** 2).sum(axis=1)  # |gradient of log p_i|²
baseline = np.linspace(-2, 6, 81)
variance = ((loss - baseline[:, None]) ** 2 * squared) @ weights - exact @ exact  # (81,)
marked = {"no baseline": 0.0, "expected loss": weights @ loss, "best": (weights * squared) @ loss / (weights @ squared)}
found = {
    name: ag.reinforce_gradient(scores, loss, samples=100_000, rng=np.random.default_rng(i), baseline=b)
    for i, (name, b) in enumerate(marked.items())
}
total = {name: float(estimate.variance.sum()) for name, estimate in found.items()}

fig = plot.figure(
    "soft-baseline",
    title=f"The expected loss as baseline halves the variance: {total['expected loss']:.2f} and not "
    f"{total['no baseline']:.2f}",
    caption=(
        "Total variance of a single REINFORCE estimate for the example of the chapter. Line: the sum over all five "
        "choices. Points: `ag.reinforce_gradient`, 100,000 draws each, other draws than those of the claim "
        "`soft-baseline`."
    ),
    size=(5.6, 3.4),
)
ax = fig.subplots()
ax.plot(baseline, variance, color=plot.MUTED, linewidth=1.6)
places = {"no baseline": (8, 6, "left"), "expected loss": (-2, -20, "right"), "best": (4, 12, "left")}
for name, b in marked.items():
    ax.plot([b], [total[name]], marker="o", color=plot.WEIGHTS, markersize=7)
    dx, dy, side = places[name]
    ax.annotate(f"{name}: {total[name]:.2f}", (b, total[name]), (dx, dy), textcoords="offset points", ha=side,
                fontsize=9, color=plot.WEIGHTS)  # fmt: skip
ax.set_ylim(0)
ax.set_xlim(-2.2, 6.2)
ax.grid(True, axis="y")
ax.set_xlabel("baseline")
ax.set_title("variance of one draw", fontsize=9, color=plot.MUTED, loc="left")
plot.describe(
    fig,
    "A parabola of the variance against the baseline. "
    + " ".join(f"{name.capitalize()} ({b:.2f}): {total[name]:.2f} measured." for name, b in marked.items())
    + f" At -2 it is {variance[0]:.1f}, at 6 it is {variance[-1]:.1f}.",
)
