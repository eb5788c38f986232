"""The built site as a zip that is read from the file system: ``python -m tools.bundle _build/html``.

A browser shows a page of a ``file:`` address, but refuses it what a server would give: no ``fetch``, no modules. So
in the copy that goes into the zip

- search shows titles without an extract of each page, for which it would have to fetch the pages;
- the modules of the explorers are one classic script, and their data are scripts as well;
- what only a web server or a search engine reads is left out, and pages do not ask a browser to enforce rules that
  are written for a server's address.

The same site gives the same bytes: files are sorted and have one date. The zip is written beside its place and then
moved there, so that an interrupted run leaves no half of one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import attn_guide

#: What only a server, a search engine or the next build reads.
FOR_SERVERS = {"404.html", "robots.txt", "sitemap.xml", ".buildinfo", "objects.inv", "_headers", ".nojekyll"}
EXPLORERS = "_static/explorers/"
DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold
TEXT = {".html", ".js", ".css", ".svg", ".txt", ".md", ".rst", ".json", ".ipynb", ".py", ".xml"}


class BundleError(ValueError):
    """The site holds something that this module cannot make readable from the file system; the message says what."""


# --- modules as one script -------------------------------------------------------------------------------------------

_IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"\./([\w-]+)\.js";', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|let|function|async function|class) ([A-Za-z_$][\w$]*))", re.MULTILINE)
_DEFAULT = re.compile(r"^export default ", re.MULTILINE)
_LEFT = re.compile(r"^(?:[ \t]*(?:import|export)\b|.*\bimport\s*\(|.*\bimport\.meta\b).*$", re.MULTILINE)

START = """\
// The explorers and their loader as one classic script, since modules are not loaded from the file system.
"use strict";
(() => {
const place = document.currentScript.src;
const told = (window.agExplorerData = {});
const fetch = (url) =>
  new Promise((answered, failed) => {
    const name = /([\\w-]+)\\.json$/.exec(String(url))[1];
    const script = document.createElement("script");
    script.src = new URL(`data/${name}.js`, place);
    script.onload = () => answered({ ok: true, status: 200, json: async () => told[name] });
    script.onerror = () => failed(new Error(`no data for the explorer ${name}`));
    document.head.append(script);
  });
const made = {}, modules = {};
const load = (name) => (made[name] ??= modules[name]());
"""


def classic(modules: dict[str, str], entry: str = "loader") -> str:
    """One script that does what the modules do, by name; each runs once, when it is first asked for.

    It knows the few forms in which the modules of this site import and export; another is a `BundleError`.
    """
    parts = [START]
    for name, source in sorted(modules.items()):
        exported = [found[1] for found in _EXPORT.finditer(source)]
        code = _IMPORT.sub(lambda m: f"const {{{_renamed(m[1])}}} = load({json.dumps(m[2])});", source)
        code = _EXPORT.sub("", code)
        if _DEFAULT.search(code):
            code = _DEFAULT.sub("const theDefault = ", code)
            exported.append("default: theDefault")
        code = re.sub(r"\bimport\(`\./\$\{(\w+)\}\.js`\)", r"Promise.resolve(\1).then(load)", code)
        code = code.replace("import.meta.url", "place")
        if unknown := _LEFT.search(code):
            raise BundleError(f"{EXPLORERS}{name}.js: cannot make a classic script of the line {unknown[0].strip()!r}")
        parts.append(f"modules[{json.dumps(name)}] = () => {{\n{code}\nreturn {{ {', '.join(exported)} }};\n}};\n")
    parts.append(f"load({json.dumps(entry)});\n}})();\n")
    return "".join(parts)


def _renamed(names: str) -> str:
    """``a as b`` of an import is ``a: b`` where an object is taken apart."""
    return re.sub(r"(\w+)\s+as\s+(\w+)", r"\1: \2", names)


# --- the files -------------------------------------------------------------------------------------------------------


def page(text: str, name: str = "") -> str:
    """A page as it is read from the file system."""
    text = re.sub(r'[ \t]*<meta\b[^>]*http-equiv="Content-Security-Policy"[^>]*>\n?', "", text, flags=re.IGNORECASE)
    text = re.sub(
        rf'<script\b[^>]*\bsrc="([^"]*{re.escape(EXPLORERS)})loader\.js[^"]*"[^>]*></script>',
        r'<script defer src="\1offline.js"></script>',
        text,
    )
    if module := re.search(r'<script\b[^>]*type="module"[^>]*>|<link\b[^>]*rel="modulepreload"[^>]*>', text):
        if "modulepreload" not in module[0]:
            raise BundleError(f"{name}: a module that is no explorer: {module[0]}")
        text = re.sub(r'[ \t]*<link\b[^>]*rel="modulepreload"[^>]*>\n?', "", text)
    return text


def contents(site: Path) -> Iterator[tuple[str, bytes]]:
    """The files of the bundle in order, each with its path below the top."""
    made: dict[str, bytes] = {}
    modules: dict[str, str] = {}
    for file in sorted(site.rglob("*")):
        name = file.relative_to(site).as_posix()
        if not file.is_file() or name in FOR_SERVERS:
            continue
        content = file.read_bytes()
        if name.startswith(EXPLORERS) and file.suffix == ".js":
            modules[file.stem] = content.decode("utf-8")
        elif name.startswith(EXPLORERS) and file.suffix == ".json":
            data = f"window.agExplorerData[{json.dumps(file.stem)}] = {content.decode('utf-8')};\n"
            made[name.removesuffix("on")] = data.encode("utf-8")
        elif name.endswith(".html"):
            made[name] = page(content.decode("utf-8"), name).encode("utf-8")
        elif name == "_static/documentation_options.js":
            made[name] = content.replace(b"SHOW_SEARCH_SUMMARY: true", b"SHOW_SEARCH_SUMMARY: false")
        else:
            made[name] = content
    if modules:
        made[f"{EXPLORERS}offline.js"] = classic(modules).encode("utf-8")
    yield from sorted(made.items())


def write(site: Path, target: Path) -> Path:
    """Write the zip of a site, whole or not at all; everything in it lies in one folder that has the zip's name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as beside:
        try:
            with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bundle:
                for name, content in contents(site):
                    entry = zipfile.ZipInfo(f"{target.stem}/{name}", DATE)
                    entry.external_attr = 0o644 << 16
                    entry.create_system = 3
                    plain = Path(name).suffix not in TEXT  # pictures and fonts are compressed already
                    entry.compress_type = zipfile.ZIP_STORED if plain else zipfile.ZIP_DEFLATED
                    bundle.writestr(entry, content)
            beside.close()
            os.chmod(beside.name, 0o644)
            os.replace(beside.name, target)
        except BaseException:
            beside.close()
            Path(beside.name).unlink(missing_ok=True)
            raise
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bundle", description="Pack the built site into a zip.")
    parser.add_argument("site", type=Path, nargs="?", default=Path("_build/html"))
    parser.add_argument("--to", type=Path, default=Path("_build/offline"), help="the folder for the zip")
    options = parser.parse_args(arguments)
    if not (options.site / "index.html").is_file():
        print(f"error: {options.site} holds no built site.\n  Build it first: make html", file=sys.stderr)
        return 1
    try:
        bundle = write(options.site, options.to / f"attn-guide-{attn_guide.__version__}-site.zip")
    except (BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{bundle}  {bundle.stat().st_size / 1e6:.1f} MB; unpack it and open index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
