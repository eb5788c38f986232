"""Run gallery scripts by themselves, outside Sphinx: ``python -m tools.gallery [PATH ...]``.

Each runs in a process of its own, in its own folder, with nothing cached, as a reader who downloaded it would run
it. The figures are drawn and thrown away; the site build is what keeps them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(script: Path) -> tuple[Path, float, str | None]:
    """Return the script, its seconds, and the error it ended with, if it did."""
    environment = {**os.environ, "MPLBACKEND": "agg"}
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, script.name], cwd=script.parent, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return script, time.perf_counter() - start, result.stdout if result.returncode else None


def main(arguments: list[str]) -> int:
    places = [Path(argument).resolve() for argument in arguments] or [ROOT / "gallery"]
    scripts = sorted(s for p in places for s in ([p] if p.is_file() else p.rglob("plot_*.py")))
    if not scripts:
        print(f"error: no plot_*.py under {', '.join(map(str, places))}", file=sys.stderr)
        return 1
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for script, seconds, error in pool.map(run, scripts):
            state = "ok" if error is None else "failed"
            print(f"{state:6} {seconds:5.1f} s  {os.path.relpath(script, ROOT)}", flush=True)
            if error is not None:
                failed += 1
                print(error)
    print(f"{len(scripts)} scripts, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
