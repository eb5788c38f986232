"""
How much of the first word arrives
==================================

The gradient of an output with respect to the first token, by distance. A random recurrent layer loses it
exponentially; attention with random weights shares it out among n tokens; attention that has found the token keeps it.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

d, seeds = 32, 20
distances = np.array([1, 2, 4, 8, 16, 32, 64])


def recurrent(rng, rotation, size):
    """Return the norms of d state_t / d token_0 at the distances, for tokens of standard deviation ``size``."""
    w_x, w_h = rng.standard_normal((2, d, d)) / np.sqrt(d)
    if rotation:
        w_h, r = np.linalg.qr(w_h)
        w_h = w_h * np.sign(np.diag(r))
    states = ag.recurrent_layer(size * rng.standard_normal((distances[-1] + 1, d)), w_x, w_h)
    return np.linalg.norm(ag.recurrent_jacobian(states, w_x, w_h), axis=(1, 2))[distances]


def attention(rng, t, match):
    """Return the norm of d output_t / d token_0 in causal self-attention, with the query set to match key 0 or not."""
    w_q, w_k, w_v = rng.standard_normal((3, d, d)) / np.sqrt(d)
    x = rng.standard_normal((t + 1, d))
    q, k, v = x[-1:] @ w_q, x @ w_k, x @ w_v
    if match:
        q = 2.0 * np.sqrt(d) * k[:1] / np.linalg.norm(k[0])
    weights = ag.softmax(ag.attention_scores(q, k))[0]
    through_key = np.outer(v[0] - weights @ v, q[0] @ w_k.T) / np.sqrt(d)
    return np.linalg.norm(weights[0] * (w_v.T + through_key))


norms = {
    "attention, match": np.array(
        [[attention(np.random.default_rng(s), t, True) for t in distances] for s in range(seeds)]
    ),
    "attention, random": np.array(
        [[attention(np.random.default_rng(s), t, False) for t in distances] for s in range(seeds)]
    ),
    "RNN, linear range": np.array([recurrent(np.random.default_rng(s), True, 1e-3) for s in range(seeds)]),
    "RNN, rotation": np.array([recurrent(np.random.default_rng(s), True, 1.0) for s in range(seeds)]),
    "RNN, random": np.array([recurrent(np.random.default_rng(s), False, 1.0) for s in range(seeds)]),
}
inks = dict(zip(norms, (plot.WEIGHTS, plot.QUERY, plot.VALUE, plot.SCORES, plot.KEY), strict=True))
logs = {name: np.log(a) for name, a in norms.items()}
mean = {name: np.exp(a.mean(axis=0)) for name, a in logs.items()}
bands = {name: np.exp(a.mean(axis=0) + np.array([[-1], [1]]) * a.std(axis=0, ddof=1)) for name, a in logs.items()}

fig = plot.figure(
    "self-gradient",
    title="A random RNN forgets exponentially; attention divides by n, or not at all",
    caption=(
        f"Frobenius norm of the derivative of output t with respect to token 0, width {d}, tanh; geometric mean over "
        f"{seeds} seeds, band: one standard deviation of the logarithm. “Match”: the query of token t is twice the key "
        "of token 0, at typical length. “Rotation”: an orthogonal recurrent matrix; “linear range”: the same with "
        "tokens a thousandth as large. From `ag.recurrent_jacobian` and the derivative of attention."
    ),
    size=(5.4, 4.8),
)
ax = fig.subplots()
plot.curve(
    ax, distances, mean, bands=bands, colours=inks, log="xy", ticks=distances,
    xlabel="distance t", ylabel="norm of d output t / d token 0",
)  # fmt: skip
ax.set_ylim(1e-15, 30)
plot.describe(
    fig,
    "Line chart on logarithmic axes. Norm at distances 8, 32 and 64: "
    + "; ".join(f"{name} {a[3]:.2g}, {a[5]:.2g}, {a[6]:.2g}" for name, a in mean.items())
    + ".",
)
