"""
NumPy beside PyTorch
====================

The time of this package's dense and tiled attention, in units of PyTorch's, from the last recorded benchmark.
"""

import json
from pathlib import Path

import numpy as np

import attn_guide as ag
from attn_guide import plot

root = Path(ag.__file__).parents[1]
recorded = {
    "flash": json.loads((root / "benchmarks/results/flash.json").read_text()),
    "dense": json.loads((root / "benchmarks/results/dense.json").read_text()),
}


def ratios(topic: str, mask: str) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (k,), and the lower quartile, median and upper quartile of the ratio at each, (3, k)."""
    rows = [row for row in recorded[topic]["rows"] if row["name"].endswith(mask) and row["quantity"] == "time / torch"]
    lengths = [int(row["name"].split("n = ")[1].split(",")[0]) for row in rows]
    return np.array(lengths), np.array([[row[key] for row in rows] for key in ("low", "value", "high")])


where = recorded["flash"]["machine"]
lengths, causal = ratios("flash", "causal")
_, plain = ratios("flash", "no mask")
target = recorded["flash"]["rows"][0]["target"]

fig = plot.figure(
    "appendix-flash-ratio",
    title=(
        f"Without a mask, {lengths[-1]:,} tokens take the tiled NumPy code {plain[1, -1]:.2f} times as long as PyTorch"
    ),
    caption=(
        f"Time of `ag.flash_attention` over the time of PyTorch's `scaled_dot_product_attention`, 8 heads of width 64, "
        f"single precision. Lines: medians of paired ratios; bands: quartiles. Dashed: the target, {target}. Taken on "
        f"{where['date']}, {where['cpu']}, {where['threads']} threads each."
    ),
    size=(5.2, 3.8),
)
ax = fig.subplots()
series = {"causal": causal[1], "no mask": plain[1]}
bands = {"causal": causal[[0, 2]], "no mask": plain[[0, 2]]}
colours = {"causal": plot.MASK, "no mask": plot.WEIGHTS}
plot.curve(
    ax, lengths, series, bands=bands, colours=colours, theory={"target": np.full(len(lengths), target)}, log="x",
    ticks=lengths, xlabel="tokens n", ylabel="time / PyTorch's time",
)  # fmt: skip
plot.describe(
    fig,
    "Line chart of ratios. "
    + " ".join(
        f"n = {n:,}: {a:.2f} without a mask, {b:.2f} causal."
        for n, a, b in zip(lengths, plain[1], causal[1], strict=True)
    )
    + f" The target is {target}.",
)
