"""Collects the prose: each example of a page of ``docs/``, of the README and of a docstring is a test."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from guide_ext import prose
from guide_ext.claims import Ledger, quoted
from sybil import Document, Sybil
from sybil.integration.pytest import SybilFile

ROOT = Path(__file__).resolve().parent


@cache
def refreshed(*ids: str) -> Ledger:
    """The ledger after the stale tests of these claims have run, as they must in a fresh clone."""
    ledger = Ledger(ROOT)
    _, output = ledger.refresh(ids)
    assert not output, output
    return ledger


class ProsePage(prose.Page):
    """A page as pytest runs it."""

    @classmethod
    def parse(cls, path: str, *parsers: Any, encoding: str = "utf-8") -> Document:
        text = Path(path).read_text(encoding=encoding)
        return prose.parse(text, path, lambda id: refreshed(*dict.fromkeys([*quoted(text), id])).measured(id))


pages = Sybil(
    parsers=[],  # ProsePage brings its own
    patterns=["docs/**/*.md", "docs/*.md"],
    filenames=["README.md"],
    document_types={".md": ProsePage},
)
docstrings = Sybil(
    parsers=[],  # Docstrings brings its own
    patterns=["attn_guide/**/*.py", "attn_guide/*.py"],
    document_types={".py": prose.Docstrings},
)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    for sybil in (pages, docstrings):
        if sybil.should_parse(file_path):
            return SybilFile.from_parent(parent, path=file_path, sybils=[sybil])
    return None


def turn(item: pytest.Item) -> int:
    """When a test runs: claims before the pages that quote them, and what waits for the site's build after all else."""
    path = item.path.relative_to(ROOT) if item.path.is_relative_to(ROOT) else item.path
    if path.parts[:2] == ("tests", "claims"):
        return 0
    if path.parts[:2] == ("tests", "site"):
        # One process builds the site while the others do what does not need it; the walks over all pages take longest.
        return {"test_build.py": 1, "test_pages.py": 4, "test_pages_made_from_code.py": 4}.get(path.name, 5)
    return 2 if path.parts[0] == "tests" else 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order; in a parallel run a process takes a file at a time, in this order."""
    items.sort(key=turn)
