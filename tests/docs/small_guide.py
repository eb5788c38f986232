"""A small guide in a folder of its own, built by Sphinx and tested by pytest as the real one is."""

from __future__ import annotations

import gettext
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from sphinx import locale
from sphinx.cmd.build import main as sphinx_build

ROOT = Path(__file__).resolve().parents[2]

CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "docs" / "_ext")!r})
extensions = ["myst_parser", "guide_ext.prose", "guide_ext.claims", "guide_ext.errata"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
project = "small guide"
html_theme = "basic"
guide_repository = "https://example.org/blob/main/"
"""

PYPROJECT = f"""
[tool.pytest.ini_options]
pythonpath = [{str(ROOT / "docs" / "_ext")!r}]
markers = ["claim(id): a claim"]
addopts = ["--strict-markers"]
"""


@dataclass
class Outcome:
    """How a command ended, and all that it printed."""

    code: int
    output: str


@dataclass
class Project:
    """A folder with ``docs/``, ``tests/claims/`` and ``conf.py``."""

    root: Path

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def build(self, *options: str, builder: str = "html") -> Outcome:
        """Build the pages, by default without ``-W``: an error must fail the build even then."""
        folders = ["-c", str(self.root), str(self.root / "docs"), str(self.root / "_build" / builder)]
        locale.translators.clear()  # catalogs of an earlier build in this process
        gettext._translations.clear()
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = sphinx_build(["-N", "-b", builder, *options, *folders])
        return Outcome(code, said.getvalue())

    def pytest(self, *arguments: str) -> Outcome:
        """Run pytest in the folder, in a process of its own."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        environment |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "xdist.plugin", *arguments]
        result = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        return Outcome(result.returncode, result.stdout + result.stderr)

    def html(self, name: str = "index") -> str:
        return (self.root / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8")
