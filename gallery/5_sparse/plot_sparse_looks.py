"""
What is computed, and what only looks sparse
============================================

The same window by three functions with the same result, and how many scores each of them multiplies out.
"""

import numpy as np

import attn_guide as ag
from attn_guide import core, flash, plot

lengths = np.array([1024, 2048, 4096, 8192])
half = 64
mask = ag.sliding_window(half, half)

# %%
# The two places where this package multiplies queries by keys are wrapped in a counter: a block of the dense function,
# and a tile of all others.

counted = []


def counting(function):
    def wrapped(*args, **options):
        scores = function(*args, **options)
        counted.append(scores.size)
        return scores

    return wrapped


def scores_of(run, n):
    counted.clear()
    run(*np.random.default_rng(0).standard_normal((3, n, 8), dtype=np.float32))
    return sum(counted)


ways = {
    "dense + mask": lambda q, k, v: ag.scaled_dot_product_attention(q, k, v, mask_mod=mask),
    "flash + mask": lambda q, k, v: ag.flash_attention(q, k, v, mask_mod=mask, block_q=128, block_k=128),
    "window": lambda q, k, v: ag.sliding_window_attention(q, k, v, half, half),
}
originals = core._capped, flash._capped_scores
try:
    core._capped, flash._capped_scores = map(counting, originals)
    computed = {name: [scores_of(run, int(n)) for n in lengths] for name, run in ways.items()}
finally:
    core._capped, flash._capped_scores = originals
pairs = [mask.count(int(n)) for n in lengths]
ratio = computed["dense + mask"][-1] / computed["window"][-1]

fig = plot.figure(
    "sparse-looks",
    title=f"One window, one result: a mask on all pairs does {ratio:.0f} times the work",
    caption=(
        f"Scores multiplied out for a window of {2 * half + 1} keys, counted inside "
        "`ag.scaled_dot_product_attention` and "
        "`ag.flash_attention` under the mask, and `ag.sliding_window_attention`. Dashed: the pairs of the pattern."
    ),
    size=(6.0, 3.8),
)
ax = fig.subplots()
plot.curve(
    ax, lengths, computed, theory={"pairs of the pattern": pairs}, log="xy", ticks=lengths,
    colours={"dense + mask": plot.SCORES, "flash + mask": plot.WEIGHTS, "window": plot.KEY},
    xlabel="tokens n", ylabel="scores computed",
)  # fmt: skip
plot.plain_numbers(ax, fmt="{:,.0f}")
plot.describe(
    fig,
    "Line chart on logarithmic axes. "
    + " ".join(f"{name}: {a[0]:,} to {a[-1]:,}." for name, a in computed.items())
    + f" Pairs of the pattern: {pairs[0]:,} to {pairs[-1]:,}.",
)
