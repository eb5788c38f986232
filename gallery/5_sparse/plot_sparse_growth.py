"""
Time and memory against the length
==================================

Six kinds of attention, measured on the machine that built this page.
"""

import json
import os
import subprocess
import sys

import numpy as np

import attn_guide as ag
from attn_guide import plot

# %%
# The clock runs in a process of its own with one thread: several threads wait for each other in a loop, and on a busy
# machine that waiting counts as processor time.

MEASURE = """
import json, time
import numpy as np
import attn_guide as ag

def bigbird(q, k, v):
    return ag.bigbird_attention(q, k, v, 64, rng=np.random.default_rng(0))

RUNS = {
    "dense": (lambda q, k, v: ag.scaled_dot_product_attention(q, k, v, return_weights=True), 4096),
    "flash": (lambda q, k, v: ag.flash_attention(q, k, v, block_q=128, block_k=128), 8192),
    "BigBird": (bigbird, 16384),
    "Longformer": (lambda q, k, v: ag.longformer_attention(q, k, v, 128, [0, 1]), 16384),
    "window": (lambda q, k, v: ag.sliding_window_attention(q, k, v, 64, 64), 16384),
    "linear": (ag.linear_attention, 16384),
}
found = {}
for name, (run, longest) in RUNS.items():
    seconds, peaks = [], []
    for n in (1024, 2048, 4096, 8192, 16384):
        if n > longest:
            continue
        x = np.random.default_rng(0).standard_normal((3, n, 32)).astype(np.float32)
        run(*x)
        taken = []
        for _ in range(2):
            start = time.process_time()
            run(*x)
            taken.append(time.process_time() - start)
        seconds.append(min(taken))
        peaks.append(ag.peak_memory(lambda: run(*x)))
    found[name] = [seconds, peaks]
print(json.dumps(found))
"""
one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ran = subprocess.run(
    [sys.executable, "-c", MEASURE], env={**os.environ, **one_thread}, capture_output=True, text=True, check=True
)
found = json.loads(ran.stdout)
lengths = np.array([1024, 2048, 4096, 8192, 16384])


def padded(values):
    return [*values, *[np.nan] * (len(lengths) - len(values))]


def slope(values):
    """The exponent over the three longest lengths."""
    return ag.fit_exponent(lengths[: len(values)][-3:], values[-3:]).exponent


times = {name: [1e3 * s for s in seconds] for name, (seconds, _) in found.items()}
peaks = {name: [p / 2**20 for p in memory] for name, (_, memory) in found.items()}
colours = {
    "dense": plot.SCORES, "flash": plot.WEIGHTS, "BigBird": plot.MASK, "Longformer": plot.QUERY, "window": plot.KEY,
    "linear": plot.OUTPUT,
}  # fmt: skip

fig = plot.figure(
    "sparse-growth",
    title="Flash saves the memory of dense attention, and not its work; patterns and linear attention save both",
    caption=(
        "One head of width 32, single precision, one thread: processor time of one call, the better of two after "
        "one to "
        "warm up, and peak memory (`ag.peak_memory`). Behind each name the exponent of n, fitted to its three "
        "longest lengths. "
        "Windows of 129 keys, two global tokens, blocks of 64, tiles of 128 by 128. Times differ from build to "
        "build; "
        "buffers of a fixed size flatten the memory of short sequences."
    ),
    size=(6.4, 7.0),
)
for ax, (what, series) in zip(
    fig.subplots(2, 1), {"milliseconds of processor time": times, "peak memory, MiB": peaks}.items(), strict=True
):
    names = {name: f"{name}, {slope(values):.1f}" for name, values in series.items()}
    plot.curve(
        ax, lengths, {names[name]: padded(values) for name, values in series.items()}, log="xy", ticks=lengths,
        colours={names[name]: colour for name, colour in colours.items()}, xlabel="tokens n", ylabel=what,
    )  # fmt: skip
    plot.plain_numbers(ax)
plot.describe(
    fig,
    " ".join(
        f"{name}: time grows as n to the {slope(times[name]):.1f}, memory as n to the {slope(peaks[name]):.1f}; "
        f"{times[name][2]:.0f} ms and {peaks[name][2]:.1f} MiB at 4,096."
        for name in found
    ),
)
