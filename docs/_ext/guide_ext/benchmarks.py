"""The benchmarks as tables, from what ``python -m benchmarks`` wrote into ``benchmarks/results``.

- ``:::{benchmark-table} flash`` gives a topic's measurements, each with its scatter and its target, met or missed, and
  says on which machine, with which versions and when they were taken. Where a topic has no file, it says that no figure
  has been taken yet.
- ``:::{benchmark-misses}`` lists every measurement of every topic that missed its target.

Pages with these are read again when a file of results changes, appears or goes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from guide_ext.claims import stacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

NBSP = "\N{NO-BREAK SPACE}"
LABELS = {
    "cpu": "processor",
    "cpus": "cores",
    "system": "on",
    "python": "Python",
    "numpy": "NumPy",
    "blas": "BLAS",
    "torch": "PyTorch",
    "torch threads": "threads of PyTorch",
    "gpu": "GPU",
    "gpu memory": "memory of the GPU",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
}
TOPIC_FIELDS = {"topic", "name", "quantity", "value", "low", "high", "target", "detail", "holds"}


def results(root: Path) -> Path:
    """Where the results of a repository are."""
    return root / "benchmarks" / "results"


def load(root: Path, topic: str) -> dict[str, Any] | None:
    """A topic's file: ``{"machine": {...}, "rows": [{...}]}``; None where nothing has been measured.

    Raises
    ------
    ValueError
        If the file is not of this form.
    """
    path = results(root) / f"{topic}.json"
    if not path.is_file():
        return None
    body = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(body, dict) or not isinstance(body.get("machine"), dict) or not body.get("rows"):
        raise ValueError(f"{path.name}: wanted a machine and rows")
    for row in body["rows"]:
        if missing := TOPIC_FIELDS - set(row):
            raise ValueError(f"{path.name}: a row lacks {', '.join(sorted(missing))}")
    return body


def machine(where: Mapping[str, Any]) -> str:
    """The machine and the versions in words; the date last."""
    facts = [
        f"{LABELS.get(name, name)} {value}" for name, value in where.items() if name != "date" and value is not None
    ]
    return f"Taken on {where['date']}: {'; '.join(facts)}."


def measured(row: Mapping[str, Any]) -> str:
    """The median with its quartiles, or a fit with two standard errors to each side, or one number."""
    digits = 1 if abs(row["value"]) >= 10 else 2 if abs(row["value"]) >= 0.2 else 3
    value, low, high = (f"{row[name]:.{digits}f}" for name in ("value", "low", "high"))
    return value if low == high == value else f"{value} ({low} to {high})".replace(" ", NBSP)


def verdict(row: Mapping[str, Any]) -> str:
    """The target, and whether it was met."""
    if row["target"] is None:
        return "none"
    return f"≤{NBSP}{row['target']:.4g},{NBSP}{'met' if row['holds'] else '**missed**'}"


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as a MyST table."""
    lines = ["| What | Quantity | Measured | Target | Behind it |", "|---|---|---:|---|---|"]
    for row in rows:
        name, quantity, detail = (str(row[key]).replace("|", r"\|") for key in ("name", "quantity", "detail"))
        name = name.replace(" = ", f"{NBSP}={NBSP}")
        lines.append(f"| {name} | {quantity} | {measured(row)} | {verdict(row)} | {detail} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# Sphinx


def digest(root: Path) -> str:
    """A hash of all results, by file."""
    total = hashlib.sha256()
    for path in sorted(results(root).glob("*.json")):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def seen(env: BuildEnvironment) -> dict[str, str]:
    """The digest that each page with results was read with."""
    if not hasattr(env, "guide_benchmarks"):
        env.guide_benchmarks = {}  # type: ignore[attr-defined]
    return env.guide_benchmarks  # type: ignore[attr-defined]


class Results(SphinxDirective):
    """What both directives share: where the files are, and that the page depends on them."""

    def root(self) -> Path:
        root = Path(self.config.guide_root)
        seen(self.env)[self.env.docname] = digest(root)
        return root

    def load(self, root: Path, topic: str) -> dict[str, Any] | None:
        try:
            return load(root, topic)
        except ValueError as error:
            raise self.error(str(error)) from None


class BenchmarkTable(Results):
    """``:::{benchmark-table} topic``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        topic = self.arguments[0]
        found = self.load(self.root(), topic)
        if found is None:
            return [nodes.paragraph("", "No figure has been taken yet.", classes=["ag-no-result"])]
        facts = nodes.paragraph("", machine(found["machine"]), classes=["ag-machine"])
        return [*stacked(self.parse_text_to_nodes(table(found["rows"])), "ag-results"), facts]


class BenchmarkMisses(Results):
    """``:::{benchmark-misses}``."""

    def run(self) -> list[nodes.Node]:
        root = self.root()
        missed = []
        for path in sorted(results(root).glob("*.json")):
            found = self.load(root, path.stem)
            missed += [
                {**row, "name": f"{path.stem}: {row['name']}"} for row in (found or {})["rows"] if row["holds"] is False
            ]
        if not missed:
            return [nodes.paragraph("", "None: every measurement met its target.")]
        return stacked(self.parse_text_to_nodes(table(missed)), "ag-results")


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    now = digest(Path(app.config.guide_root))
    return [docname for docname, then in seen(env).items() if then != now and docname in env.found_docs]


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    seen(env).update({name: value for name, value in seen(other).items() if name in docnames})


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("guide_ext.claims")  # which knows where the repository is
    app.add_directive("benchmark-table", BenchmarkTable)
    app.add_directive("benchmark-misses", BenchmarkMisses)
    app.connect("env-get-outdated", outdated)
    app.connect("env-purge-doc", lambda app, env, docname: seen(env).pop(docname, None))
    app.connect("env-merge-info", merge)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
