"""The small guide as a fixture."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_guide import CONF, PYPROJECT, ROOT, Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty small guide: the tests write its pages and claims."""
    made = Project(tmp_path)
    made.write("conf.py", CONF)
    made.write("pyproject.toml", PYPROJECT)
    made.write("docs/index.md", "# Small\n")
    (tmp_path / "tests" / "claims").mkdir(parents=True)
    shutil.copy(ROOT / "conftest.py", tmp_path / "conftest.py")
    shutil.copy(ROOT / "tests" / "claims" / "conftest.py", tmp_path / "tests" / "claims" / "conftest.py")
    return made
