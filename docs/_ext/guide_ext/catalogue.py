"""The taxonomy and the timeline as lists of links, made from ``attn_guide.taxonomy``.

- ``:::{taxonomy-list}`` gives every mechanism, branch by branch: its section, its code, its paper.
- ``:::{timeline-list}`` gives the systems of the timeline in order, each with the code here that runs it.

What has no code yet says so; ``tests/test_taxonomy.py`` counts what is owed.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

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

    def lines(self) -> list[str]:
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


class TimelineList(Catalogue):
    """Every system of the timeline, in order."""

    def lines(self) -> list[str]:
        return ["| Year | System | What was new | Code here |", "|---|---|---|---|"] + [
            f"| {event.year} | {event.name} {{cite:p}}`{event.paper}` | {event.contribution} | {code_link(event)} |"
            for event in taxonomy.EVENTS
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("taxonomy-list", TaxonomyList)
    app.add_directive("timeline-list", TimelineList)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
