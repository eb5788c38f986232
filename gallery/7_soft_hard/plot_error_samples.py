"""
The error against the number of draws
=====================================

An average of N draws loses its variance as N grows, and keeps its bias. A biased estimate wins while draws are few.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

weights, values, target = np.array([0.1, 0.25, 0.35, 0.2, 0.1]), np.array([1.0, 2, 3, 4, 5]), 3.5
scores, loss = np.log(weights), (values - target) ** 2
exact = ag.expected_reward_gradient(scores, loss)  # (5,)
rng = np.random.default_rng(0)
counts, repeats = 4 ** np.arange(6), 100  # 1 ... 1024
drawn = rng.choice(5, size=(repeats, counts[-1]), p=weights)  # (repeats, draws)
noise = ag.gumbel_noise((repeats, int(counts[-1]), 5), rng)
score = np.eye(5)[drawn] - weights  # (repeats, draws, 5): gradient of log p


def relaxed(temperature):
    soft = ag.softmax(scores + noise, temperature=temperature)
    return ag.softmax_backward((2 * (soft @ values - target))[..., None] * values, soft, temperature=temperature)


estimates = {
    "REINFORCE": loss[drawn][..., None] * score,
    "with baseline": (loss[drawn] - weights @ loss)[..., None] * score,
    "Gumbel, τ = 1": relaxed(1.0),
    "Gumbel, τ = 0.1": relaxed(0.1),
    "straight-through": ag.softmax_backward(
        (2 * (values[drawn] - target))[..., None] * values, np.broadcast_to(weights, noise.shape)
    ),
}


def error(draws, n):
    """Root mean square error of means of n draws, over all groups of n."""
    groups = draws.reshape(-1, n, 5).mean(axis=1)
    return float(np.sqrt(((groups - exact) ** 2).sum(axis=1).mean()))


rms = {name: [error(draws, int(n)) for n in counts] for name, draws in estimates.items()}
colours = dict(zip(rms, (plot.MUTED, plot.QUERY, plot.WEIGHTS, plot.SCORES, plot.KEY), strict=True))

fig = plot.figure(
    "soft-error-samples",
    title=f"With one draw Gumbel-softmax at τ = 1 errs least ({rms['Gumbel, τ = 1'][0]:.2f}); with 1,024 its bias is "
    "all that is left",
    caption=(
        f"Root mean square distance of the mean of N estimates from the exact gradient, over {repeats * counts[-1]:,} "
        f"draws in groups of N, seed 0. The exact gradient is {np.linalg.norm(exact):.2f} long (dashed): so much is "
        "the error of an estimate that is always zero."
    ),
    size=(6.0, 4.0),
)
ax = fig.subplots()
plot.curve(ax, counts, rms, colours=colours, theory={"exact gradient": np.full(6, np.linalg.norm(exact))}, log="xy",
           ticks=counts, xlabel="draws N", ylabel="error")  # fmt: skip
plot.plain_numbers(ax)
plot.describe(
    fig,
    "Line chart on logarithmic axes. "
    + " ".join(
        f"{name}: {e[0]:.2f} with one draw, {e[2]:.2f} with 16, {e[-1]:.3f} with 1024." for name, e in rms.items()
    ),
)
