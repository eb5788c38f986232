"""
Bias and variance against the temperature
=========================================

Gumbel-softmax and straight-through Gumbel-softmax, measured against the exact gradient. What the temperature takes from
the bias it adds to the variance.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

weights, values, target = np.array([0.1, 0.25, 0.35, 0.2, 0.1]), np.array([1.0, 2, 3, 4, 5]), 3.5
scores, loss = np.log(weights), (values - target) ** 2
exact = ag.expected_reward_gradient(scores, loss)  # (5,)
temperatures = np.array([0.1, 0.2, 0.5, 1.0, 2.0, 4.0])
noise = ag.gumbel_noise((100_000, 5), np.random.default_rng(0))
bias = {"Gumbel-softmax": [], "straight-through": []}
variance = {"Gumbel-softmax": [], "straight-through": []}
for t in temperatures:
    soft = ag.softmax(scores + noise, temperature=t)  # (draws, 5)
    for name, output in (("Gumbel-softmax", soft @ values), ("straight-through", values[soft.argmax(axis=1)])):
        grad = ag.softmax_backward((2 * (output - target))[:, None] * values, soft, temperature=t)  # (draws, 5)
        bias[name].append(np.linalg.norm(grad.mean(axis=0) - exact))
        variance[name].append(grad.var(axis=0).sum())
reinforce = ag.reinforce_gradient(scores, loss, samples=100_000, rng=np.random.default_rng(1), baseline="expected")
level = float(reinforce.variance.sum())
colours = {"Gumbel-softmax": plot.WEIGHTS, "straight-through": plot.KEY}

fig = plot.figure(
    "soft-bias-variance",
    title=f"From τ = 1 to 0.1 Gumbel-softmax loses {1 - bias['Gumbel-softmax'][0] / bias['Gumbel-softmax'][3]:.0%} of "
    f"its bias and gains {variance['Gumbel-softmax'][0] / variance['Gumbel-softmax'][3]:.0f} times the variance",
    caption=(
        "100,000 single-draw gradients at each temperature, seed 0, against `ag.expected_reward_gradient`. Bias: "
        "length of the mean error. Dashed: length of the exact gradient (top), which is the bias of an estimate that "
        "is always zero; variance of REINFORCE with the expected loss as baseline (bottom), whose bias is zero."
    ),
    size=(6.4, 5.6),
)
top, bottom = fig.subplots(2, 1)
length = np.full(6, np.linalg.norm(exact))
plot.curve(top, temperatures, bias, colours=colours, theory={"length of the gradient": length}, log="x",
           ticks=temperatures, ylabel="bias")  # fmt: skip
top.set_ylim(0)
plot.curve(bottom, temperatures, variance, colours=colours, theory={"REINFORCE": np.full(6, level)}, log="xy",
           ticks=temperatures, ylabel="variance of one draw", xlabel="temperature τ")  # fmt: skip
plot.plain_numbers(bottom)
plot.describe(
    fig,
    "Two line charts against the temperature. "
    + " ".join(
        f"{name}, at {t:g}: bias {b:.2f}, variance {v:.2f}."
        for name in bias
        for t, b, v in zip(temperatures, bias[name], variance[name], strict=True)
    )
    + f" REINFORCE with a baseline: bias 0, variance {level:.2f}.",
)
