"""Collects the prose: each example of a page of ``docs/``, of the README and of a docstring is a test."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from guide_ext import prose
from guide_ext.claims import Ledger
from sybil import Document, Sybil
from sybil.integration.pytest import SybilFile

ROOT = Path(__file__).resolve().parent


@cache
def ledger() -> Ledger:
    return Ledger(ROOT)


@cache
def measured(id: str) -> Mapping[str, Any]:
    """What a claim recorded; its test runs first if it is stale, as in a fresh clone."""
    book = ledger()
    _, output = book.refresh([id])
    assert not output, output
    return book.measured(id)


class ProsePage(prose.Page):
    """A page as pytest runs it."""

    @classmethod
    def parse(cls, path: str, *parsers: Any, encoding: str = "utf-8") -> Document:
        return prose.parse(Path(path).read_text(encoding=encoding), path, measured)


pages = Sybil(
    parsers=[],
    patterns=["docs/**/*.md", "docs/*.md"],
    filenames=["README.md"],
    document_types={".md": ProsePage, ".py": prose.Docstrings},
)
docstrings = Sybil(
    parsers=[],
    patterns=["attn_guide/**/*.py", "attn_guide/*.py"],
    document_types={".py": prose.Docstrings},
)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    for sybil in (pages, docstrings):
        if sybil.should_parse(file_path):
            return SybilFile.from_parent(parent, path=file_path, sybils=[sybil])
    return None
