"""
Paths through random keys
=========================

The mean number of layers that information needs from one position to another, against the length.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

lengths = np.array([64, 128, 256, 512, 1024])


def mean_path(make, graphs=2):
    return [
        float(np.mean([ag.path_lengths(make(int(n), np.random.default_rng(s)), int(n)).mean for s in range(graphs)]))
        for n in lengths
    ]


random = mean_path(lambda n, rng: ag.random_keys(3, n, rng=rng, symmetric=True))
both = mean_path(lambda n, rng: ag.sliding_window(3, 3) | ag.random_keys(1, n, rng=rng))
short = lengths <= 256
window = [
    ag.path_lengths(ag.sliding_window(3, 3), int(n)).mean if s else np.nan for n, s in zip(lengths, short, strict=True)
]
slope, start = np.polyfit(np.log2(lengths), random, 1)
straight = lengths / 9 + 0.45  # a third of the length, three at a time

fig = plot.figure(
    "sparse-random-paths",
    title=f"Doubling the length adds {slope:.1f} layers to random paths, and doubles those of a window",
    caption=(
        "Mean shortest path over ordered pairs (`ag.path_lengths`), two graphs each, seeds 0 and 1: 3 random "
        "keys for each "
        "query, with edges that count both ways; a window of 7 keys; the window and one random key. Dashed: a "
        "straight "
        "line in log n fitted to the random graphs, under whose line it lies, and n/9."
    ),
    size=(6.2, 4.0),
)
ax = fig.subplots()
plot.curve(
    ax, lengths, {"3 random": random, "window + 1 random": both, "window": window},
    theory={"n/9": straight, "log n": start + slope * np.log2(lengths)}, log="xy", ticks=lengths,
    colours={"3 random": plot.QUERY, "window + 1 random": plot.VALUE, "window": plot.KEY},
    xlabel="tokens n", ylabel="layers from one token to another, mean",
)  # fmt: skip
ax.set_yticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
ax.set_yticks([], minor=True)
plot.describe(
    fig,
    "Line chart on logarithmic axes. "
    + " ".join(
        f"n = {n}: random {a:.1f}, window and one random key {b:.1f}"
        + (f", window {c:.1f}." if np.isfinite(c) else ".")
        for n, a, b, c in zip(lengths, random, both, window, strict=True)
    ),
)
