"""The built site, served, and a browser to read it with."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from guide_ext.hosting import MOVED
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tools.browser import HOW, find_chromium
from tools.serve import make_server

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "_build"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def build(source: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run sphinx as the Makefile does; the tests' own environment does not reach the checks that the build runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV_"))}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-c", ".", "-d", f"{out}/doctrees", *options]
    return subprocess.run(
        [*command, "-b", "html", str(source), f"{out}/html"],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def once(request: pytest.FixtureRequest, name: str) -> Iterator[bool]:
    """Let one process of a parallel run do something; the others wait, then are told that it is done."""
    run = getattr(request.config, "workerinput", {}).get("testrunuid", str(os.getpid()))
    BUILD.mkdir(exist_ok=True)
    mark = BUILD / f".{name}"
    with (BUILD / f".{name}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not (mark.exists() and mark.read_text() == run)
        mark.write_text(run)


@pytest.fixture(scope="session")
def html(request: pytest.FixtureRequest) -> Path:
    """The folder of the site: built if it is not up to date, or the one that $GUIDE_SITE names, taken as it is."""
    if built := os.environ.get("GUIDE_SITE"):
        return Path(built).resolve()
    with once(request, "site-tests") as first:
        if first:
            result = build(Path("docs"), Path("_build"))
            assert result.returncode == 0, f"the site does not build:\n{result.stdout[-6000:]}"
    return BUILD / "html"


@pytest.fixture(scope="session")
def pages(html: Path) -> list[str]:
    """Every page of the site, as a path below its root; not those that only lead to another."""
    paths = (path.relative_to(html) for path in html.rglob("*.html"))
    return sorted(path.as_posix() for path in paths if path.parts[0] not in {"_static", *MOVED})


@pytest.fixture(scope="session")
def address(html: Path) -> Iterator[str]:
    """Where the site is served, without a slash at the end."""
    server = make_server(html, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=FLAGS)


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


@pytest.fixture
def trouble(address: str) -> Trouble:
    return Trouble(urlsplit(address).netloc)


@pytest.fixture
def page(browser: Browser, address: str, trouble: Trouble) -> Iterator[Page]:
    """A fresh tab on a wide screen; what it must not do fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=address, color_scheme="light")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    trouble.watch(tab)
    yield tab
    context.close()
    assert not trouble.found
