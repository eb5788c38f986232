"""
Time against length
===================

Processor time of one self-attention on the machine that built this page. Short sequences pay for the projections and
for the calls; from a few hundred tokens on, the square takes over.
"""

import time

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
d = 64
w_q, w_k, w_v = (rng.standard_normal((3, d, d)) / np.sqrt(d)).astype(np.float32)
lengths = np.array([64, 128, 256, 512, 1024, 2048, 4096])
seconds = []
for n in lengths:
    x = rng.standard_normal((n, d), dtype=np.float32)
    repeats = max(1, 1024 // int(n))
    taken = []
    for _ in range(3):
        start = time.process_time()
        for _ in range(repeats):
            ag.self_attention(x, w_q, w_k, w_v)
        taken.append((time.process_time() - start) / repeats)
    seconds.append(min(taken[1:]))  # the first warms up
milliseconds = 1e3 * np.array(seconds)
fitted = lengths >= 512
exponent, error, coefficient = ag.fit_exponent(lengths[fitted], milliseconds[fitted])

fig = plot.figure(
    "self-time",
    title=f"From 512 tokens on, time grows as n to the power {exponent:.1f}",
    caption=(
        f"Processor time of `ag.self_attention`, one head, d_model = d_k = d_v = {d}, single precision; the better of "
        "two runs, after one to warm up, on the machine that built this page. Dashed: the power law fitted from 512 "
        f"tokens on, exponent {exponent:.2f} ± {error:.2f} (standard error). Times differ from build to build."
    ),
    size=(5.6, 4.0),
)
ax = fig.subplots()
plot.curve(
    ax, lengths, {"measured": milliseconds}, theory={"fit": coefficient * lengths.astype(float) ** exponent}, log="xy",
    ticks=lengths, colours={"measured": plot.WEIGHTS}, xlabel="tokens n", ylabel="milliseconds of processor time",
)  # fmt: skip
plot.plain_numbers(ax)
plot.describe(
    fig,
    "Line chart on logarithmic axes. "
    + " ".join(f"n = {n:,}: {t:.3g} ms." for n, t in zip(lengths, milliseconds, strict=True))
    + f" The slope from 512 on is {exponent:.2f}.",
)
