"""The benchmarks work, though no test judges a time: pairs, exponents, the table, and the harness for a GPU."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from benchmarks import common, gpu
from benchmarks.__main__ import TOPICS, main


def test_a_pair_is_judged_by_the_ratio_of_its_halves() -> None:
    row = common.paired_ratio("t", "n", lambda: time.sleep(0.004), lambda: time.sleep(0.001), rounds=4, target=1.0)
    assert row.low <= row.value <= row.high
    assert row.value > 1.0
    assert row.holds is False
    assert "4 pairs" in row.detail


def test_memory_that_grows_as_the_square_has_exponent_two() -> None:
    row = common.memory_exponent("t", "n", [256, 512, 1024], lambda n: lambda: bytearray(n * n), target=1.1)
    assert row.value == pytest.approx(2.0, abs=0.02)
    assert row.holds is False


def test_without_a_target_nothing_is_judged() -> None:
    row = common.Row("t", "n", "MB", 1.0, 1.0, 1.0)
    assert row.holds is None
    assert "holds" not in common.table([row])


def test_the_results_that_are_kept_say_where_they_were_measured() -> None:
    kept = sorted(path.stem for path in common.RESULTS.glob("*.json"))
    assert set(kept) <= set(TOPICS)
    assert set(kept) | {"gpu"} == set(TOPICS)  # results of a GPU are kept once there is one
    for name in kept:
        result = json.loads((common.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        assert {"cpu", "threads", "python", "numpy", "torch", "date"} <= result["machine"].keys()
        for row in result["rows"]:
            judged = common.Row(**{key: value for key, value in row.items() if key != "holds"})
            assert judged.holds == row["holds"]
            assert judged.low <= judged.value <= judged.high


def test_the_harness_for_a_gpu_goes_all_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BURST", 1e-9)  # one call a burst
    rows = gpu.run(quick=True)
    assert all(math.isfinite(row.value) and row.value > 0 for row in rows)
    names = [row.name for row in rows]
    for case in ("dense, n = 128, d = 64, forward", "causal, n = 128, d = 64, forward"):
        kernels = {name.partition(": ")[2] for name in names if name.startswith(case)}
        assert {"dispatch", "SDPA flash"} <= kernels
        assert any(kernel.startswith("FlexAttention") for kernel in kernels)
    assert any("backward" in name for name in names)
    assert any(name.startswith("window") for name in names)
    assert any(name.startswith("one token") for name in names)


def test_a_dry_run_judges_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setattr(gpu, "ON_GPU", False)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(
        gpu, "run", lambda quick: [gpu._ratio("n", "x", {"a": np.array([2.0]), "b": np.array([1.0])}, "a", "b", 1.0)]
    )
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu"])
    assert main() == 0
    said = capsys.readouterr().out
    assert "nothing is saved" in said
    assert "0 missed" in said
    assert not list(tmp_path.iterdir())


def test_a_topic_that_does_not_exist_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "flesh"])
    with pytest.raises(SystemExit):
        main()
    assert "unknown topic 'flesh'" in capsys.readouterr().err
