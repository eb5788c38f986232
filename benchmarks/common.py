"""Paired timing, the machine it ran on, and the table and file it ends in."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attn_guide as ag
from attn_guide import _pool

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One measurement: what was measured, the number, how far it scatters, and what was aimed at."""

    topic: str
    name: str
    quantity: str
    value: float
    low: float
    high: float
    target: float | None = None
    detail: str = ""

    @property
    def holds(self) -> bool | None:
        return None if self.target is None else self.value <= self.target


def timed(function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    function()
    return clock() - start


def paired_ratio(
    topic: str,
    name: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    *,
    rounds: int,
    target: float | None = None,
    against: str = "torch",
) -> Row:
    """Time the two in turn, one pair a round, each going first every other time; return the median of the ratios.

    Whatever else the machine does slows both halves of a pair alike, so the ratio holds still where times do not.
    ``low`` and ``high`` are the quartiles of the ratios.
    """
    ours(), theirs()  # once for the caches, the pool and whatever is made on first use
    pairs = []
    for i in range(rounds):
        if i % 2:
            b = timed(theirs)
            pairs.append((timed(ours), b))
        else:
            a = timed(ours)
            pairs.append((a, timed(theirs)))
    times = np.array(pairs)
    low, middle, high = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75])
    mine, other = 1e3 * np.median(times, axis=0)
    return Row(
        topic,
        name,
        f"time / {against}",
        float(middle),
        float(low),
        float(high),
        target,
        f"{mine:.1f} ms against {other:.1f} ms, {rounds} pairs",
    )


def time_exponent(
    topic: str,
    name: str,
    sizes: Sequence[int],
    make: Callable[[int], Callable[[], Any]],
    *,
    rounds: int,
    target: float | None = None,
) -> Row:
    """Fit the growth of the processor time over ``sizes``; ``low`` and ``high`` are two standard errors away.

    Processor time, summed over the threads, since another process on the machine makes a run wait and not work
    more. The sizes are visited in turn in each round, and the least time of each counts.
    """
    runs = [make(n) for n in sizes]
    for run in runs:
        run()
    best = np.min([[timed(run, time.process_time) for run in runs] for _ in range(rounds)], axis=0)
    return _exponent_row(topic, name, "time exponent", sizes, best, target, "ms", 1e3)


def memory_exponent(
    topic: str, name: str, sizes: Sequence[int], make: Callable[[int], Callable[[], Any]], *, target: float
) -> Row:
    """Fit the growth of the peak memory, result included and inputs not."""
    peaks = [ag.peak_memory(make(n)) for n in sizes]
    return _exponent_row(topic, name, "memory exponent", sizes, peaks, target, "MB", 1e-6)


def _exponent_row(
    topic: str,
    name: str,
    quantity: str,
    sizes: Sequence[int],
    measured: Any,
    target: float | None,
    unit: str,
    factor: float,
) -> Row:
    fit = ag.fit_exponent(sizes, measured)
    spread = 2 * fit.standard_error
    points = ", ".join(f"{n}: {factor * x:.1f}" for n, x in zip(sizes, measured, strict=True))
    return Row(
        topic, name, quantity, fit.exponent, fit.exponent - spread, fit.exponent + spread, target, f"{unit} at {points}"
    )


def random_arrays(n: int, heads: int = 8, d: int = 64, count: int = 3) -> list[np.ndarray]:
    """Return standard normal float32 arrays (heads, n, d), always the same ones."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((heads, n, d), dtype=np.float32) for _ in range(count)]


def as_tensors(arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Return the arrays as tensors (1, heads, n, d) that share their memory."""
    return [torch.from_numpy(x)[None] for x in arrays]


def machine() -> dict[str, Any]:
    """Describe what the numbers depend on, the load of the machine included."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": model,
        "cpus": _pool._cpus(),
        "threads": _pool.num_threads(),
        "torch threads": torch.get_num_threads(),
        "waiting threads": "asleep" if os.environ.get("OMP_WAIT_POLICY") == "passive" else "may spin",
        "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}, {_blas_kernel()}",
        "torch": torch.__version__,
        "attn_guide": ag.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _blas_kernel() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "kernel unknown"
    kernels = [x.get("architecture") for x in threadpool_info() if x["user_api"] == "blas"]
    return f"kernel {kernels[0]}" if kernels else "kernel unknown"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as lines of text, a column each for the number, its scatter and the target."""
    lines = [f"{'topic':<8} {'what':<44} {'quantity':<17} {'median':>7} {'low':>7} {'high':>7} {'target':>7}"]
    for row in rows:
        target = "" if row.target is None else f"{row.target:>7.2f}"
        verdict = {None: "", True: "holds", False: "MISSED"}[row.holds]
        lines.append(
            f"{row.topic:<8} {row.name:<44} {row.quantity:<17} {row.value:>7.3f} {row.low:>7.3f} {row.high:>7.3f}"
            f" {target:>7} {verdict:<6} {row.detail}"
        )
    return "\n".join(lines)


def save(topic: str, rows: Sequence[Row], where: dict[str, Any]) -> Path:
    """Write one topic's rows, with the machine they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{topic}.json"
    body = {"machine": where, "rows": [asdict(row) | {"holds": row.holds} for row in rows]}
    path.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    return path
