"""Find Chromium for the browser tests, or install it: ``python -m tools.browser``.

Debian's package is preferred where it can be installed, since it brings the libraries and fonts that a browser
needs; Playwright's own download is the way on other systems.
"""

from __future__ import annotations

import functools
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
HOW = """\
error: the browser tests need Chromium, and none was found or could be installed.
  Do one of these, then run the command again:
    Debian:          sudo apt-get install chromium
    other systems:   .venv/bin/python -m playwright install --with-deps chromium
    your own:        CHROMIUM=/path/to/chromium make test
  To run everything but the browser tests: .venv/bin/python -m pytest -m "not browser\""""


def works(executable: str) -> bool:
    """Whether it starts: a snap stub exists and does not run, and a download may lack system libraries."""
    try:
        result = subprocess.run([executable, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0


def playwright_chromium() -> str | None:
    """Return the path where Playwright keeps its own Chromium, whether it is installed or not."""
    program = (
        "from playwright.sync_api import sync_playwright\n"
        "with sync_playwright() as p: print(p.chromium.executable_path)"
    )
    # In a process of its own, since Playwright's synchronous interface cannot be started twice in one.
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return result.stdout.strip() or None


def candidates() -> Iterator[str]:
    for command in COMMANDS:
        if path := shutil.which(command):
            yield path
    yield from filter(os.path.exists, MAC_APPLICATIONS)
    path = playwright_chromium()
    if path and os.path.exists(path):
        yield path


@functools.cache
def find_chromium() -> str | None:
    """Return a Chromium that starts, or None: ``$CHROMIUM``, one on the path, or Playwright's own.

    ``$CHROMIUM`` is taken at its word: if it is set and does not start, no other is tried.
    """
    if chosen := os.environ.get("CHROMIUM"):
        path = shutil.which(chosen)
        return path if path and works(path) else None
    return next(filter(works, candidates()), None)


def distribution() -> str:
    """Return the name of the Linux distribution, or the empty string."""
    try:
        return platform.freedesktop_os_release().get("ID", "")
    except OSError:
        return ""


def ways_to_install() -> list[list[list[str]]]:
    """Return the ways to install Chromium here, best first; a way is a list of commands."""
    may_apt = os.geteuid() == 0 and shutil.which("apt-get") is not None
    apt = ["apt-get", "-q"]
    ways = []
    if may_apt and distribution() == "debian":  # Ubuntu's package of the same name is a stub for a snap
        ways.append([[*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", "chromium"]])
    with_libraries = ["--with-deps"] if may_apt else []
    ways.append([[sys.executable, "-m", "playwright", "install", *with_libraries, "chromium"]])
    return ways


def install() -> str | None:
    """Try each way in turn until a Chromium starts."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for way in ways_to_install():
        for command in way:
            print(f"No Chromium found; installing it: {shlex.join(command)}", flush=True)
            subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False)
        find_chromium.cache_clear()
        if path := find_chromium():
            return path
    return None


def main() -> int:
    path = find_chromium()
    if path is None and (chosen := os.environ.get("CHROMIUM")):
        print(f"error: CHROMIUM={chosen} does not start.\n  Correct it, or unset it.", file=sys.stderr)
        return 1
    path = path or install()
    if path is None:
        print(HOW, file=sys.stderr)
        return 1
    print(f"Chromium for the browser tests: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
