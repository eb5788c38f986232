"""Tables of what libraries do where the conventions of attention differ.

``:::{convention-table} alignment`` lays out the answers to one question. Those of the installed libraries come from the
claim ``appendix-alignment``, whose test runs the probes of ``tests/claims/convention_probes.py``. Those of others come
from ``docs/conventions.toml``, with the version and the date of the run.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from guide_ext import claims

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sphinx.application import Sphinx

NAMES = {
    "attn-guide": "this package",
    "torch": "PyTorch",
    "onnx": "ONNX reference",
    "onnxruntime": "ONNX Runtime",
    "jax": "JAX",
    "keras": "Keras",
}
SOURCES = {"run": "{}", "documentation": "its README, {}"}


@dataclass(frozen=True)
class Row:
    """One answer: which library, called how, in which version, and how it is known."""

    question: str
    package: str
    version: str
    call: str
    answer: str
    date: str
    source: str  # "run" or "documentation"; "build" where the claim of this build measured it

    @property
    def known(self) -> str:
        if self.source == "build":
            return "this build"
        day = date.fromisoformat(self.date)
        return SOURCES[self.source].format(f"{day.day} {day:%b %Y}".replace(" ", "\N{NO-BREAK SPACE}"))


def load(path: Path) -> list[Row]:
    """Read the rows of libraries that are not installed here.

    Raises
    ------
    ValueError
        If a row lacks a field or has an unknown one, its date is none, or its source is neither "run" nor
        "documentation".
    """
    rows = []
    for number, entry in enumerate(tomllib.loads(path.read_text(encoding="utf-8"))["row"], 1):
        try:
            row = Row(**entry)
            date.fromisoformat(row.date)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, row {number}: {error}") from None
        if row.source not in SOURCES:
            raise ValueError(f"{path}, row {number}: source is {row.source!r}; wanted one of {', '.join(SOURCES)}")
        rows.append(row)
    return rows


def measured(question: str, record: Mapping[str, Any]) -> list[Row]:
    """The answers in a claim's record: checks named ``package: call``, and notes with the version of each library."""
    rows = []
    for check in record["checks"]:
        package, separator, call = check["name"].partition(": ")
        if separator and package in record["notes"]:
            version = record["notes"][package]
            rows.append(Row(question, package, version, call, str(check["measured"]), "", "build"))
    return rows


class ConventionTable(SphinxDirective):
    """``:::{convention-table} question``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        question = self.arguments[0]
        path = Path(self.env.srcdir) / "conventions.toml"
        self.env.note_dependency(str(path))
        id = "appendix-" + question.replace(" ", "-")
        claims.note_use(self.env, self.env.docname, [id])
        record = claims.ledger(self.config).records.get(id)
        rows = measured(question, record) if record else []
        try:
            rows += [row for row in load(path) if row.question == question]
        except (ValueError, OSError) as error:
            raise self.error(str(error)) from None
        if not rows:
            raise self.error(f"no answers to {question!r}: no claim {id!r} has run, and {path.name} has none")
        lines = ["| Library | Answer | Called as | Run |", "|---|---|---|---|"]
        for row in rows:
            version = row.version.split("+")[0]
            name = f"{NAMES.get(row.package, row.package)} {version}"
            lines.append(f"| {name} | {row.answer} | `{row.call}` | {row.known} |")
        return claims.stacked(self.parse_text_to_nodes("\n".join(lines)), "ag-conventions")


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("guide_ext.claims")
    app.add_directive("convention-table", ConventionTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
