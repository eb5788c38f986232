"""
Time and memory against length
==============================

Every mechanism of this package that grows in step with the length, from the last recorded benchmark.
"""

import json
import re
from pathlib import Path

import numpy as np

import attn_guide as ag
from attn_guide import plot

root = Path(ag.__file__).parents[1]
recorded = [
    json.loads((root / "benchmarks/results/sparse.json").read_text()),
    json.loads((root / "benchmarks/results/linear.json").read_text()),
]
chosen = {"window": "window w", "Longformer": "longformer", "BigBird": "bigbird", "linear": "causal, chunked"}
lengths = np.array([2048, 4096, 8192])


def points(name: str, quantity: str) -> np.ndarray:
    """What was measured at the lengths: the details of a row say ``ms at 2048: 47.9, 4096: 82.7, ...``."""
    row = next(
        row for body in recorded for row in body["rows"] if row["name"].startswith(name) and row["quantity"] == quantity
    )
    found = {int(n): float(x) for n, x in re.findall(r"(\d+): ([\d.]+)", row["detail"])}
    return np.array([found[n] for n in lengths])


time = {name: points(start, "time exponent") for name, start in chosen.items()}
memory = {name: points(start, "memory exponent") for name, start in chosen.items()}
colours = {"window": plot.MASK, "Longformer": plot.KEY, "BigBird": plot.SCORES, "linear": plot.OUTPUT}
growth = {name: y[-1] / y[0] for name, y in time.items()}
step = lengths[-1] / lengths[0]

fig = plot.figure(
    "appendix-growth",
    title=f"{step:.0f} times the tokens take {min(growth.values()):.1f} to {max(growth.values()):.1f} times the time",
    caption=(
        "Left: processor time, summed over threads. Right: peak memory, result included. 8 heads of width 64, single "
        "precision; window 256, Longformer with 16 global tokens, BigBird with 3 window, 2 global and 3 random blocks "
        "of 64, linear attention causal and in chunks. Dashed: growth in step with n. Taken on "
        f"{recorded[0]['machine']['date']}, {recorded[0]['machine']['cpu']}."
    ),
    size=(6.2, 3.8),
)
for ax, series, label in zip(
    fig.subplots(1, 2), (time, memory), ("milliseconds of processor time", "megabytes"), strict=True
):
    least = min(y[0] for y in series.values())
    plot.curve(
        ax, lengths, series, colours=colours, theory={"n": 0.75 * least * lengths / lengths[0]}, log="xy",
        ticks=lengths, xlabel="tokens n", ylabel=label,
    )  # fmt: skip
    ax.set_yticks(
        [tick for tick in (5, 10, 20, 50, 100, 200, 500) if least / 2 < tick < 1.5 * max(map(max, series.values()))]
    )
    ax.minorticks_off()
    plot.plain_numbers(ax)
plot.describe(
    fig,
    "Two line charts on logarithmic axes. "
    + " ".join(
        f"{name} at {lengths[-1]:,} tokens: {time[name][-1]:.0f} ms and {memory[name][-1]:.0f} MB." for name in chosen
    ),
)
