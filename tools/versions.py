"""Put the versions of the site together: ``python -m tools.versions _build/html _build/releases _build/pages``.

The newest site goes to the top of the last folder. Each ``site-VERSION.zip`` of the second one goes below, in a folder
named VERSION. All of them get the same list of versions, so that the menu of an old version also leads to the new one.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

SITE = re.compile(r"site-(\d+(?:\.\d+)*)\.zip")


def number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def assemble(newest: Path, releases: Path, out: Path) -> list[dict[str, Any]]:
    """Write the folder to publish, and return its list of versions, the newest first."""
    if out.exists():
        raise SystemExit(f"error: {out} exists.\n  Remove it, or name another folder to write to")
    shutil.copytree(newest, out)
    (current,) = json.loads((newest / "_static" / "switcher.json").read_text(encoding="utf-8"))
    versions = [{**current, "preferred": True}]
    found = {match[1]: file for file in releases.glob("site-*.zip") if (match := SITE.fullmatch(file.name))}
    found.pop(current["version"], None)  # the newest site is that version, and perhaps corrected since
    older = sorted(found, key=number, reverse=True)
    for version in older:
        with zipfile.ZipFile(found[version]) as packed:
            packed.extractall(out / version)
        versions.append({"name": version, "version": version, "url": f"{current['url']}{version}/"})
    for site in [out, *(out / version for version in older)]:
        text = json.dumps(versions, indent=1) + "\n"
        (site / "_static" / "switcher.json").write_text(text, encoding="utf-8")
    return versions


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.versions", description=__doc__)
    parser.add_argument("newest", type=Path)
    parser.add_argument("releases", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    for version in assemble(options.newest, options.releases, options.out):
        print(f"{version['name']:20} {version['url']}")


if __name__ == "__main__":
    main()
