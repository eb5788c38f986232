"""
When a transfer hides behind the computation
============================================

One step of a ring computes the square of the tokens per process and sends their first power. Where the lines cross, the
link just keeps up; to the right of that the transfer is hidden.
"""

import numpy as np

from attn_guide import plot

heads, kv_heads, width, item = 32, 8, 128, 2  # a layer with grouped queries, in bfloat16
rate = 400e12  # floating-point operations per second that attention reaches on one device
links = {"400 GB/s": 400e9, "50 GB/s": 50e9, "5 GB/s": 5e9}
tokens = np.logspace(2, 5.5, 60)

computing = 4 * tokens**2 * heads * width / rate  # two products, each a multiplication and an addition
sending = {name: 2 * tokens * kv_heads * width * item / speed for name, speed in links.items()}
crossing = {name: item * kv_heads * rate / (2 * heads * speed) for name, speed in links.items()}

fig = plot.figure(
    "sparse-ring-crossing",
    title="The slower the link, the more tokens each process must hold",
    caption=(
        f"Milliseconds of one dense step of a ring against tokens per process, from the model of the text: {heads} "
        f"query heads, {kv_heads} key/value heads of width {width}, {item} bytes a number, {rate / 1e12:.0f} Tflop/s. "
        "The rates are assumptions, not measurements. Dots: where a link just keeps up."
    ),
    size=(6.4, 3.8),
)
ax = fig.subplots()
plot.curve(
    ax,
    tokens,
    {"computing": 1e3 * computing} | {name: 1e3 * y for name, y in sending.items()},
    log="xy",
    xlabel="tokens per process",
    ylabel="milliseconds of one step",
)
plot.plain_numbers(ax, "x", "{:,g}")
plot.plain_numbers(ax, "y", "{:,g}")
for c in crossing.values():
    ax.plot(c, 1e3 * np.interp(c, tokens, computing), "o", color=plot.INK, markersize=5, zorder=5)
plot.describe(
    fig,
    "Line chart on logarithmic axes. Computing grows with the square of the tokens per process, sending in proportion. "
    + " ".join(f"At {name} they cross at {c:,.0f} tokens." for name, c in crossing.items()),
)
