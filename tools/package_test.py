"""Test the package as it is installed: ``make package-test [RELEASES=pinned|oldest|newest]``.

First its wheel, in an environment that holds NumPy and nothing else. Then its tests, in an environment of their own:
with the releases that constraints.txt pins, with the oldest that pyproject.toml allows the package, or with the newest
there are. The environments are made in ``_build`` and removed when all went well.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: The extras whose packages the package itself imports; what tests and builds need may be new.
RUNTIME = ("torch", "plot", "models")
TESTS = ["tests", "attn_guide", *(f"--ignore=tests/{name}" for name in ("claims", "docs", "site", "test_setup.py"))]
#: What a reader does first, in a folder without the sources.
FIRST_STEPS = (
    ["-m", "attn_guide", "info"],
    ["-m", "attn_guide", "draw", "causal & sliding_window(2, 0)", "-n", "6"],
    ["-m", "attn_guide.exercises", "list", "1"],
    ["-c", "import attn_guide as ag; print(ag.flash_attention([[1.0]], [[1.0]], [[2.0]]))"],
)


def oldest(project: dict) -> list[str]:
    """Return pins to the oldest releases that the ranges of the package allow."""
    ranges = list(project["dependencies"])
    for extra in RUNTIME:
        ranges += project["optional-dependencies"][extra]
    found = [re.fullmatch(r"([\w.-]+)>=([\d.]+)(;.*)?", text.replace(" ", "")) for text in ranges]
    return [f"{match[1]}=={match[2]}.*" for match in found if match]


def run(command: list[str], folder: Path = ROOT) -> None:
    print("$", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
        raise SystemExit(f"error: failed: {' '.join(command)}")


def environment(name: str) -> tuple[Path, str]:
    """Make an environment; return its folder and its Python."""
    folder = ROOT / "_build" / f"package-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(folder)])
    return folder, str(folder / "bin" / "python")


def test_wheel() -> None:
    """Build the wheel, and take the first steps with NumPy alone."""
    folder, python = environment("wheel")
    with tempfile.TemporaryDirectory() as empty:
        run([python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", empty, str(ROOT)])
        (wheel,) = Path(empty).glob("*.whl")
        run([python, "-m", "pip", "install", "-q", str(wheel)])
        for step in FIRST_STEPS:
            run([python, *step], Path(empty))
    shutil.rmtree(folder)


def test_package(releases: str) -> None:
    """Run the package's own tests with these releases."""
    folder, python = environment(releases)
    command = [python, "-m", "pip", "install", "-q", "-e", ".[test]"]
    if releases == "pinned":
        command += ["-c", "constraints.txt"]
    elif releases == "oldest":
        pins = folder / "oldest.txt"
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        pins.write_text("\n".join(oldest(project)) + "\n", encoding="utf-8")
        print(pins.read_text())
        command += ["-c", str(pins)]
    run(command)
    run([python, "-m", "pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", *TESTS])
    shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.package_test", description="Test the package as installed.")
    parser.add_argument("releases", nargs="?", default="pinned", choices=["pinned", "oldest", "newest"])
    options = parser.parse_args()
    test_wheel()
    test_package(options.releases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
