"""The map of the repository names what is there, and nothing that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "develop" / "architecture.md").read_text(encoding="utf-8")


def listed(text: str) -> set[str]:
    """The names at the beginning of each line of the first code block, as paths from the root."""
    block = re.search(r"^```\n(attn_guide/.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    names, folder = set(), ""
    for indent, name in re.findall(r"^( *)(\S+)", block[1], re.MULTILINE):
        folder = folder if indent else name
        names.add(folder + name if indent else name)
    return names


def test_everything_in_the_map_exists():
    assert {name for name in listed(PAGE) if not (ROOT / name).exists()} == set()


def test_every_module_of_the_package_is_in_the_map():
    package = ROOT / "attn_guide"
    modules = {f"attn_guide/{path.name}" for path in package.glob("*.py")} - {"attn_guide/__init__.py"}
    folders = {f"attn_guide/{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert (modules | folders) - listed(PAGE) == set()


def test_every_module_of_the_extension_is_in_the_table():
    modules = {path.stem for path in (ROOT / "docs" / "_ext" / "guide_ext").glob("*.py")} - {"__init__"}
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == modules


def test_imports_point_the_way_the_page_says():
    """``core`` below ``heads``, ``selection`` and ``experiments``; ``layers``, ``cache`` and ``sparse`` above."""
    found = {}
    for path in sorted((ROOT / "attn_guide").glob("[a-z]*.py")):
        text = path.read_text(encoding="utf-8")
        names = set(re.findall(r"^\s*from \.([a-z]\w*) import", text, re.MULTILINE))
        names |= set(re.findall(r"^\s*from \. import (\w+)", text, re.MULTILINE))
        if names:
            found[path.stem] = names
    assert found == {
        "heads": {"core"},
        "selection": {"core"},
        "experiments": {"core"},
        "layers": {"core", "heads"},
        "cache": {"core", "heads", "masks"},
        "sparse": {"masks", "flash"},
    }


@pytest.mark.parametrize("folder", ["torch", "models"])
def test_the_parts_on_torch_take_only_masks_and_checks(folder):
    taken = set()
    for path in (ROOT / "attn_guide" / folder).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        taken |= set(re.findall(r"^\s*from (?:attn_guide|\.)\.(\w+) import", text, re.MULTILINE)) - {"torch"}
        for names in re.findall(r"^\s*from attn_guide import (.*)", text, re.MULTILINE):
            taken |= set(re.findall(r"\w+", names))
    assert taken <= {"_checks", "_terminal", "masks"}
