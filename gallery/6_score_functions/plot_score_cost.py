"""
Counted work and measured time
==============================

Multiplications for all pairs, and the processor time that they take. The two tell different stories.
"""

import time

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, d = 512, 64
work = {
    "dot": n * n * d,
    "cosine": n * n * d + 4 * n * d,
    "general": n * d * d + n * n * d,
    "dot of projections": 2 * n * d * d + n * n * d,
    "additive": 2 * n * d * d + n * n * d,
    "additive, projected for each pair": n * n * (2 * d * d + d),
}

fig = plot.figure(
    "scores-cost",
    title=f"Projecting for every pair costs {list(work.values())[-1] / work['additive']:.0f} times as much as once",
    caption=(
        f"Millions of multiplications for all pairs of n = m = {n} queries and keys of width d = {d}, as counted in "
        "the check of the claim `scores-cost`. The additive score also takes n² d = "
        f"{n * n * d / 1e6:.1f} million tanh."
    ),
    size=(5.2, 3.3),
)
plot.bars(
    fig.subplots(), [name.replace(" for", "\nfor") for name in work], np.array(list(work.values())) / 1e6,
    fmt=",.1f", horizontal=True, colour=plot.SCORES, highlight=5,
)  # fmt: skip
plot.describe(
    fig,
    "Bar chart, millions of multiplications. "
    + " ".join(f"{name}: {count / 1e6:,.1f}." for name, count in work.items()),
)

rng = np.random.default_rng(0)
w, w_q, w_k = (rng.standard_normal((3, d, d)) / np.sqrt(d)).astype(np.float32)
v = rng.standard_normal(d).astype(np.float32)
lengths = np.array([64, 128, 256, 512, 1024])
milliseconds = {name: [] for name in ("additive", "cosine", "dot of projections", "dot")}
functions = {
    "dot": ag.dot_score,
    "cosine": ag.cosine_score,
    "dot of projections": lambda q, k: ag.dot_score(q @ w_q, k @ w_k),
    "additive": lambda q, k: ag.additive_score(q, k, w_q, w_k, v),
}
for length in lengths:
    q, k = rng.standard_normal((2, length, d)).astype(np.float32)
    for name, function in functions.items():
        repeat, taken = max(1, 512 // int(length)), []
        for _ in range(4):
            start = time.process_time()
            for _ in range(repeat):
                function(q, k)
            taken.append((time.process_time() - start) / repeat)
        milliseconds[name].append(1e3 * min(taken))

fig = plot.figure(
    "scores-time",
    title="As many multiplications, many times the time",
    caption=(
        f"Processor time of each score for n queries and n keys of width {d}, single precision, best of 4, on the "
        "machine that built this page; times differ from build to build. “Additive” and “dot of "
        "projections” do exactly the "
        "same number of multiplications. Both axes are logarithmic."
    ),
    size=(5.2, 3.8),
)
ax = fig.subplots()
plot.curve(
    ax, lengths, milliseconds, log="xy", ticks=lengths, xlabel="queries and keys n", ylabel="milliseconds",
    colours={"additive": plot.VALUE, "cosine": plot.OUTPUT, "dot of projections": plot.KEY, "dot": plot.SCORES},
)  # fmt: skip
plot.plain_numbers(ax)
plot.describe(
    fig,
    f"Line chart on logarithmic axes. At n = {lengths[-1]:,}: "
    + ", ".join(f"{name} {row[-1]:.2g} ms" for name, row in milliseconds.items())
    + ".",
)
