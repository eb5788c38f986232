"""The built site, served, and a browser to read it with."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from guide_ext.hosting import MOVED
from playwright.sync_api import Browser, Page, sync_playwright
from reading import ROOT, Trouble, build

from tools.browser import HOW, find_chromium
from tools.serve import make_server

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
