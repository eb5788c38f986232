"""How the tests of the site build it, and what they hold against a page."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, Request

ROOT = Path(__file__).resolve().parents[2]


def build(source: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run sphinx as the Makefile does; the tests' own environment does not reach the checks that the build runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV_"))}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-c", ".", "-d", f"{out}/doctrees", *options]
    return subprocess.run(
        [*command, "-b", "html", str(source), f"{out}/html"],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


@dataclass
class Trouble:
    """What a page does that no page may do: it accuses itself through its console and its requests."""

    host: str
    found: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.found.append(f"script error: {error}"))
        page.on("console", lambda m: self.found.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("request", self._request)
        page.on("requestfailed", self._failed)
        page.on("response", lambda r: self.found.append(f"{r.status}: {r.url}") if r.status >= 400 else None)

    def _request(self, request: Request) -> None:
        place = urlsplit(request.url)
        if place.scheme not in ("data", "blob") and place.netloc != self.host:
            self.found.append(f"asks another host: {request.url}")

    def _failed(self, request: Request) -> None:
        # A page that is left while something still loads gives it up; that is no fault of either.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.found.append(f"failed: {request.url} ({request.failure})")

    def take(self) -> list[str]:
        found, self.found = self.found, []
        return found
