"""What the test of the installed package installs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tools import package_test

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_oldest_releases_are_the_lower_ends_of_the_ranges() -> None:
    pins = package_test.oldest(PROJECT)
    assert "numpy==1.26.*" in pins
    ranges = [*PROJECT["dependencies"], *(r for e in package_test.RUNTIME for r in PROJECT["optional-dependencies"][e])]
    named = {text.split(">=")[0] for text in ranges if ">=" in text}
    assert {pin.split("==")[0] for pin in pins} == named
    for pin in pins:
        name, _, version = pin.partition("==")
        assert f"{name}>={version.removesuffix('.*')}" in ranges


def test_every_test_of_the_package_runs_on_every_python() -> None:
    left_out = {text.removeprefix("--ignore=") for text in package_test.TESTS if text.startswith("--ignore=")}
    assert left_out == {"tests/claims", "tests/docs", "tests/site", "tests/test_setup.py"}
    assert all((ROOT / path).exists() for path in left_out)


def test_a_step_that_fails_stops_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="error: failed"):
        package_test.run(["false"])
    package_test.run(["true"])
    assert "$ true" in capfd.readouterr().out
