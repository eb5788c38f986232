"""
When a softmax saturates
========================

The same three scores times a growing factor. The weights go from nearly even to one-hot, and what a gradient can get
through the softmax falls with them.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

scores = np.array([1.0, 2.0, 3.0])
factors = np.geomspace(0.1, 10, 81)
weights = ag.softmax(factors[:, None] * scores)  # (81, 3)
norms = np.linalg.norm(ag.softmax_jacobian(weights), axis=(1, 2))
at_one, at_ten = ag.softmax(scores), ag.softmax(10 * scores)

fig = plot.figure(
    "self-saturation",
    title=f"Ten times the scores: the largest weight goes from {at_one[2]:.2f} to {at_ten[2]:.5f}",
    caption=(
        "The softmax of 1, 2, 3 times a factor, and the Frobenius norm of its Jacobian (`ag.softmax`, "
        "`ag.softmax_jacobian`). The lines mark 1, 2, 3 and 10, 20, 30."
    ),
    size=(5.4, 5.2),
)
top, bottom = fig.subplots(2, 1, sharex=True)
plot.curve(
    top, factors, {f"score {s:.0f}": w for s, w in zip(scores, weights.T, strict=True)}, log="x", marks=False,
    ylabel="weight", colours={"score 3": plot.WEIGHTS, "score 2": plot.SCORES, "score 1": plot.KEY},
)  # fmt: skip
plot.curve(bottom, factors, {"norm": norms}, log="xy", marks=False, xlabel="factor", ylabel="norm of the Jacobian",
           colours={"norm": plot.QUERY})  # fmt: skip
for ax in (top, bottom):
    ax.axvline(1, color=plot.MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
    ax.axvline(10, color=plot.MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
plot.plain_numbers(bottom, "x")
plot.describe(
    fig,
    f"Two line charts against a factor from 0.1 to 10. At 1 the weights are {', '.join(f'{w:.2f}' for w in at_one)}; "
    "at 10 they are "
    f"{', '.join(f'{w:.2g}' for w in at_ten)}. The Jacobian's norm falls from {norms[40]:.3f} to {norms[-1]:.1e}.",
)
