"""
What more heads cost
====================

At a fixed width, the number of heads changes neither the parameters nor the multiplications. The exponentials and the
memory of the scores are proportional to it.
"""

import numpy as np
from matplotlib.ticker import NullLocator

import attn_guide as ag
from attn_guide import plot

n = d_model = 512
heads = 2 ** np.arange(7)  # 1 ... 64
costs = [ag.attention_flops(n, d_model, num_heads=int(h)) for h in heads]
scores = np.array([ag.attention_bytes(n, d_model // int(h), num_heads=int(h)).scores for h in heads])
relative = {
    "exponentials": np.array([c.exponentials for c in costs]) / costs[0].exponentials,
    "multiply-adds": np.array([c.macs for c in costs]) / costs[0].macs,
    "parameters": np.array([ag.mha_param_count(d_model, int(h)) for h in heads]) / ag.mha_param_count(d_model, 1),
}
assert np.array_equal(scores / scores[0], relative["exponentials"])
assert np.array_equal(relative["multiply-adds"], relative["parameters"])

fig = plot.figure(
    "heads-cost",
    title="Eight heads: the same parameters and products, eight times the exponentials",
    caption=(
        f"Relative to one head, for `d_model = n = {n}` and `d_k = d_v = d_model / h`: `ag.attention_flops`, "
        "`ag.attention_bytes` and `ag.mha_param_count`."
    ),
    size=(5.4, 3.6),
)
ax = fig.subplots()
plot.curve(
    ax, heads,
    {"exponentials,\nscore memory": relative["exponentials"], "multiply-adds,\nparameters": relative["parameters"]},
    colours={"exponentials,\nscore memory": plot.WEIGHTS, "multiply-adds,\nparameters": plot.QUERY},
    log="xy", ticks=heads, xlabel="heads h", ylabel="relative to one head",
)  # fmt: skip
ax.set_yticks(heads[::2])
ax.yaxis.set_minor_locator(NullLocator())
plot.plain_numbers(ax)
plot.describe(
    fig,
    f"Line chart on logarithmic axes, h from 1 to {heads[-1]}. Exponentials and score memory rise in proportion, to "
    f"{relative['exponentials'][3]:.0f} times at h = 8 ({costs[3].exponentials:,} exponentials, "
    f"{scores[3] / 2**20:.0f} MiB) "
    f"and {relative['exponentials'][-1]:.0f} times at h = {heads[-1]}. Multiply-adds and parameters stay at 1.",
)
