"""
Time against length
===================

Processor time of one self-attention on the machine that built this page. Short sequences pay for the projections and
for the calls; from a few hundred tokens on, the square takes over.
"""

import json
import os
import subprocess
import sys

import numpy as np

import attn_guide as ag
from attn_guide import plot

d = 64
lengths = np.array([64, 128, 256, 512, 1024, 2048, 4096])

# %%
# The clock runs in a process of its own with one thread. Several threads wait for each other in a loop, and on a busy
# machine that waiting is counted as processor time and hides the work.

MEASURE = f"""
import json, sys, time
import numpy as np
from {ag.self_attention.__module__} import self_attention

d, *lengths = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
weights = (rng.standard_normal((3, d, d)) / np.sqrt(d)).astype(np.float32)
seconds = []
for n in lengths:
    x = rng.standard_normal((n, d), dtype=np.float32)
    repeats, taken = max(1, 1024 // n), []
    for _ in range(4):
        start = time.process_time()
        for _ in range(repeats):
            self_attention(x, *weights)
        taken.append((time.process_time() - start) / repeats)
    seconds.append(min(taken[1:]))  # the first warms up
print(json.dumps(seconds))
"""
one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
command = [sys.executable, "-c", MEASURE, str(d), *map(str, lengths)]
ran = subprocess.run(command, env={**os.environ, **one_thread}, capture_output=True, text=True, check=True)
seconds = json.loads(ran.stdout)
milliseconds = 1e3 * np.array(seconds)
fitted = lengths >= 512
exponent, error, coefficient = ag.fit_exponent(lengths[fitted], milliseconds[fitted])

fig = plot.figure(
    "self-time",
    title=f"From 512 tokens on, time grows as n to the power {exponent:.1f}",
    caption=(
        f"Processor time of `ag.self_attention`, one head, `d_model = d_k = d_v = {d}`, single precision, one thread; "
        "the best of three runs, after one to warm up, on the machine that built this page. Dashed: the power law "
        f"fitted from 512 tokens on, exponent {exponent:.2f} ± {error:.2f} (standard error). Times differ "
        "from build to build."
    ),
    size=(5.0, 4.0),
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
