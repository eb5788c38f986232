"""The package as an installed thing: its metadata, and what importing it costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import attn_guide as ag

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def fresh(program: str) -> str:
    """Run a program in a new interpreter and return what it prints."""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return result.stdout


def test_the_version_is_the_same_everywhere():
    assert ag.__version__ == PROJECT["version"] == metadata.version("attn-guide")
    assert f"version: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_needs_only_numpy():
    required = [r for r in metadata.requires("attn-guide") or [] if "extra ==" not in r]
    assert [re.match(r"[A-Za-z0-9_.-]+", r)[0] for r in required] == ["numpy"]  # type: ignore[index]
    assert set(PROJECT["optional-dependencies"]) == {"torch", "models", "plot", "docs", "test"}


def test_the_package_is_marked_as_typed():
    assert (Path(ag.__file__).parent / "py.typed").is_file()


def test_every_public_name_exists_once():
    assert len(ag.__all__) == len(set(ag.__all__))
    assert all(hasattr(ag, name) for name in ag.__all__)


def test_importing_brings_numpy_and_nothing_else_from_outside():
    program = "import attn_guide, sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    before = "import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    brought = set(json.loads(fresh(program))) - set(json.loads(fresh(before)))
    # numpy_distutils-like helpers of an editable install start with a double underscore.
    outside = {name for name in brought - sys.stdlib_module_names if not name.startswith("__editable__")}
    assert outside == {"attn_guide", "numpy"}


def test_importing_takes_under_a_fifth_of_a_second_beyond_numpy():
    """Processor time, the smallest of five runs: other programs on the machine must not decide this test."""
    program = "import numpy, time; t = time.process_time(); import attn_guide; print(time.process_time() - t)"
    assert min(float(fresh(program)) for _ in range(5)) < 0.2


def test_the_citation_file_is_what_its_format_asks_for():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert [author["name"] for author in citation["authors"]] == [a["name"] for a in PROJECT["authors"]]
    assert str(citation["version"]) == PROJECT["version"]
