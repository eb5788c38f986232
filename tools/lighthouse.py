"""Let Lighthouse judge Home and every chapter: ``python -m tools.lighthouse _build/html``.

Lighthouse comes from npm, at the release named here, into ``_build/lighthouse``; it needs Node.js. The site is served
as hosts serve it: compressed, and with leave to be kept. Lighthouse loads each page as a middling telephone on a slow
network would, which it computes from the times on this machine. The numbers of a machine that is busy are too low, so a
page that misses a target is judged up to twice more, and its best judgement counts.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from .browser import HOW, find_chromium
from .serve import HOST, Handler, Server

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "lighthouse"
RELEASE = "13.5.0"
NODE = 22  # the oldest Node.js that this release of Lighthouse supports
TARGETS = {"performance": 0.95, "accessibility": 1.0, "best-practices": 1.0, "seo": 1.0}
TRIES = 3
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
TEXT = {".html", ".css", ".js", ".json", ".svg", ".txt", ".xml"}


class Compressed(Handler):
    """Static files as hosts send them."""

    protocol_version = "HTTP/1.1"  # one connection for many files, as hosts do

    def send_head(self) -> BytesIO | BinaryIO | None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if path.suffix not in TEXT or not path.is_file() or "gzip" not in self.headers.get("Accept-Encoding", ""):
            return super().send_head()
        body = packed(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return BytesIO(body)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "public, max-age=604800")
        super(Handler, self).end_headers()


@functools.cache
def packed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes())


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve the site compressed and give its address."""
    server: ThreadingHTTPServer = Server((HOST, 0), functools.partial(Compressed, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()


def pages(site: Path) -> list[str]:
    """Home and every chapter, as paths below the site."""
    return ["index.html", *sorted(p.relative_to(site).as_posix() for p in site.glob("chapters/[0-9]-*.html"))]


def installed() -> Path:
    """Return the program, installed where it is missing, or exit saying what is missing."""
    program = FOLDER / "node_modules" / ".bin" / "lighthouse"
    mark = FOLDER / "node_modules" / "lighthouse" / "package.json"
    if mark.is_file() and json.loads(mark.read_text())["version"] == RELEASE:
        return program
    if shutil.which("npm") is None:
        raise SystemExit(f"error: Lighthouse needs Node.js {NODE} or newer, and npm was not found.\n  Install Node.js.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), f"lighthouse@{RELEASE}"]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(f"error: npm could not install Lighthouse {RELEASE}.\n  Is the network there? See above.")
    return program


def judge(program: Path, address: str, chromium: str) -> dict[str, Any]:
    """The report of Lighthouse on a page."""
    command = [str(program), address, "--output=json", "--quiet", f"--chrome-flags={FLAGS}",
               f"--only-categories={','.join(TARGETS)}"]  # fmt: skip
    result = subprocess.run(
        command, env=os.environ | {"CHROME_PATH": chromium}, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"error: Lighthouse failed on {address}:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout)


def scores(report: dict[str, Any]) -> dict[str, float]:
    """The score of each category, from 0 to 1; nothing counts as 0."""
    return {name: report["categories"][name]["score"] or 0.0 for name in TARGETS}


def missed(report: dict[str, Any]) -> list[str]:
    """The targets that a report misses, each with the audits that took the points."""
    found = []
    for name, score in scores(report).items():
        if score >= TARGETS[name]:
            continue
        lost = [
            report["audits"][part["id"]]
            for part in report["categories"][name]["auditRefs"]
            if part["weight"] and (report["audits"][part["id"]]["score"] or 0) < 0.9
        ]
        reasons = "; ".join(f"{audit['id']} ({audit.get('displayValue') or audit['title']})" for audit in lost)
        found.append(f"{name} {100 * score:.0f}, wanted {100 * TARGETS[name]:.0f}: {reasons}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Judge the pages; the exit status is 1 where one misses a target."""
    parser = argparse.ArgumentParser(prog="make lighthouse", description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, nargs="?", default=ROOT / "_build" / "html")
    parser.add_argument("--page", action="append", help="a page below the site; Home and every chapter unless given")
    options = parser.parse_args(arguments)
    chromium = find_chromium()
    if chromium is None:
        print(HOW, file=sys.stderr)
        return 1
    program, faults = installed(), []
    print(f"{'page':34}{''.join(f'{name:>16}' for name in TARGETS)}")
    with served(options.site) as address:
        for page in options.page or pages(options.site):
            best = judge(program, f"{address}/{page}", chromium)
            for _ in range(TRIES - 1):
                if not missed(best):
                    break
                best = max(best, judge(program, f"{address}/{page}", chromium), key=lambda r: min(scores(r).values()))
            print(f"{page:34}{''.join(f'{100 * score:>16.0f}' for score in scores(best).values())}", flush=True)
            faults += [f"{page}: {fault}" for fault in missed(best)]
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
