"""What the package holds, as lists of links and a table: made from ``attn_guide.taxonomy``, and by running all of it.

- ``:::{taxonomy-list}`` gives every mechanism, branch by branch: its section, its code, its paper.
- ``:::{timeline-list}`` gives the systems of the timeline in order, each with the code here that runs it.
- ``:::{timeline-entry} NAME`` gives one of them: its paper, what was new, and links to its code, its section, its test
  and its figure. The options ``:section:``, ``:test:`` and ``:figure:`` are all needed, and each must exist.

- ``:::{parity-table}`` compares the torch path with the reference, as :mod:`guide_ext.parity` measures it.

What has no code yet says so; ``tests/test_taxonomy.py`` counts what is owed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import attn_guide
from attn_guide import taxonomy


def code_link(entry: taxonomy.Mechanism | taxonomy.Event) -> str:
    """Return a link to the API of the code behind ``entry``, or the words that say there is none yet."""
    if entry.is_written:
        return f"{{py:obj}}`{entry.function.rpartition('.')[2]} <attn_guide.{entry.function}>`"
    return f"`{entry.function}` *(not written yet)*"


class Catalogue(SphinxDirective):
    """A list made from the package: read again whenever a module of the package changes."""

    def run(self) -> list[nodes.Node]:
        for source in sorted(Path(attn_guide.__path__[0]).rglob("*.py")):
            self.env.note_dependency(str(source))
        return self.parse_text_to_nodes("\n".join(self.lines()))

    def lines(self) -> Iterable[str]:
        raise NotImplementedError


class TaxonomyList(Catalogue):
    """Every mechanism, grouped as the tree is."""

    def lines(self) -> list[str]:
        lines = []
        for axis, mechanisms in groupby(taxonomy.MECHANISMS, key=lambda mechanism: mechanism.axis):
            lines += ["", f"**{axis.capitalize()}.** {taxonomy.AXES[axis]}", ""]
            for mechanism in mechanisms:
                where = f"{{ref}}`{mechanism.name} <{mechanism.section}>`"
                lines.append(f"- {where}: {code_link(mechanism)}, from {{cite:t}}`{mechanism.paper}`")
        return lines


class ParityTable(Catalogue):
    """Both paths, number by number."""

    def lines(self) -> Iterator[str]:
        from . import parity  # and with it torch, which takes longer than the rest of a build that has nothing to do

        self.env.note_dependency(parity.__file__)
        return parity.table()


class TimelineList(Catalogue):
    """Every system of the timeline, in order."""

    def lines(self) -> list[str]:
        return ["| Year | System | What was new | Code here |", "|---|---|---|---|"] + [
            f"| {event.year} | {event.name} {{cite:p}}`{event.paper}` | {event.contribution} | {code_link(event)} |"
            for event in taxonomy.EVENTS
        ]


def find_test(root: Path, node: str) -> str:
    """The file of ``tests/test_x.py::test_y``.

    Raises
    ------
    ValueError
        If there is no such file, or no such test in it.
    """
    file, _, name = node.partition("::")
    path = root / file
    if not path.is_file():
        raise ValueError(f"test is {node!r}: there is no {file}")
    names = [f.name for f in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(f, ast.FunctionDef)]
    if not name.startswith("test_") or name not in names:
        raise ValueError(f"test is {node!r}: {file} has no test of that name")
    return file


class TimelineEntry(Catalogue):
    """One system of the timeline, with everything that stands behind it."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = dict.fromkeys(("section", "test", "figure"), str.strip)

    def lines(self) -> list[str]:
        name = self.arguments[0]
        event = next((event for event in taxonomy.EVENTS if event.name == name), None)
        if event is None:
            raise self.error(f"no event {name!r}; there are {', '.join(event.name for event in taxonomy.EVENTS)}")
        missing = {"section", "test", "figure"} - set(self.options)
        if missing:
            raise self.error(f"{name}: {', '.join(sorted(missing))} not given")
        try:
            file = find_test(Path(self.config.guide_root), self.options["test"])
        except ValueError as error:
            raise self.error(f"{name}: {error}") from None
        test = self.options["test"].partition("::")[2]
        return [
            f"{{cite:t}}`{event.paper}`, {event.year}: {event.contribution}.",
            "",
            f"- Code: {code_link(event)}.",
            f"- In this guide: {{ref}}`{self.options['section']}`.",
            f"- Figure: {{ref}}`fig-{self.options['figure']}`.",
            f"- Test: [`{test}`]({self.config.guide_repository}/{file}) in `{file}`.",
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("parity-table", ParityTable)
    app.add_directive("taxonomy-list", TaxonomyList)
    app.add_directive("timeline-entry", TimelineEntry)
    app.add_directive("timeline-list", TimelineList)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
