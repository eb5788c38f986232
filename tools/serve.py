"""Serve the built site on this machine: ``python -m tools.serve --port 8000 _build/html``."""

from __future__ import annotations

import argparse
import errno
import functools
import sys
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"


class Handler(SimpleHTTPRequestHandler):
    """Static files as a documentation host serves them: no listings, and the site's own page for a 404."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # a rebuilt page must not be hidden by yesterday's
        super().end_headers()

    def list_directory(self, path: object) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        page = Path(self.directory) / "404.html"
        if code != HTTPStatus.NOT_FOUND or not page.is_file():
            super().send_error(code, message, explain)
            return
        body = page.read_bytes()
        self.log_error("404 %s", self.path)
        self.send_response(HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Stay silent about what went well; errors are still logged."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        # A browser that leaves a page closes its connections; that is no error of the server.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def make_server(directory: Path, port: int) -> Server:
    """Return a server bound to ``port`` (0: a free one), or exit saying why it cannot be."""
    try:
        return Server((HOST, port), functools.partial(Handler, directory=str(directory)))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SystemExit(
                f"error: port {port} is in use by another program.\n"
                f"  Choose another, or let the system choose: make serve PORT={port + 1}, make serve PORT=0"
            ) from None
        if error.errno == errno.EACCES:
            raise SystemExit(
                f"error: port {port} is reserved for the administrator.\n  Choose one above 1023: make serve PORT=8000"
            ) from None
        raise


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("_build/html"))
    parser.add_argument("--port", type=port_number, default=8000, help="0 takes a free port")
    parser.add_argument("--check", action="store_true", help="only see whether the port is free")
    options = parser.parse_args(arguments)

    if not options.check and not (options.directory / "index.html").is_file():
        raise SystemExit(f"error: {options.directory} holds no built site.\n  Build it first: make html")
    with make_server(options.directory, options.port) as server:
        if options.check:
            return
        address = f"http://{HOST}:{server.server_port}/"
        try:  # from the moment the address stands there, an interrupt is a wish to stop
            print(f"Serving {options.directory} at {address}  (Ctrl-C stops)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nStopped.")


if __name__ == "__main__":
    main()
