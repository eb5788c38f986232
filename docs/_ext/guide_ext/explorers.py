"""Explorers: the parts of a page that a reader moves.

``:::{explorer} masks`` puts one on a page. Its content introduces it; a figure of the gallery stands in its place until
``docs/_static/explorers/loader.js`` starts the module of that name, and stays where scripts do not run. The style and
the loader go to the pages that have an explorer, and to no others.

``:::{explorer-list}`` lists all of them, each with its page; one that no page has is a reference to nowhere, which
fails the build.

What an explorer needs to know of trained models is computed here, by :mod:`guide_ext.explorer_data`, when the code
behind it has changed, and lies as JSON beside the modules.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from . import explorer_data, freshness

logger = logging.getLogger(__name__)

FOLDER = "explorers"


@dataclass(frozen=True)
class Explorer:
    """What the pages must know of an explorer; what it does is in ``docs/_static/explorers/NAME.js``."""

    title: str
    figure: str  #: of the gallery, for readers without scripts
    moves: str  #: what the reader moves, for the list
    data: Callable[[], Any] | None = None


EXPLORERS: dict[str, Explorer] = {
    "one-picture": Explorer(
        "the one picture, with numbers of your own", "home-one-picture", "queries, keys, values and the temperature"
    ),
    "scaling": Explorer(
        "width, scale and temperature", "concepts-saturation", "the width of the vectors, the scale and the temperature"
    ),
    "five-steps": Explorer(
        "five steps on your sentence", "self-five-steps", "the sentence and the step", explorer_data.five_steps
    ),
    "alignment": Explorer(
        "a translator at work",
        "cross-bahdanau-alignment",
        "the number to translate and the step",
        explorer_data.alignment,
    ),
    "heads": Explorer(
        "the heads of trained models", "heads-matrices", "the head and what the model reads", explorer_data.heads
    ),
    "masks": Explorer("compose a mask", "causal-zoo", "masks and how they combine"),
    "patterns": Explorer("build a sparse pattern", "sparse-zoo", "the parts of a pattern, the layers and the length"),
    "flash": Explorer("FlashAttention, tile by tile", "sparse-flash", "the step and the size of the tiles"),
    "scores": Explorer(
        "six scores of one query",
        "scores-surfaces",
        "a query and four keys in the plane",
        explorer_data.score_parameters,
    ),
    "sampling": Explorer(
        "draw keys one by one", "soft-average-or-choose", "temperature, noise and the number of draws"
    ),
}


class explorer_node(nodes.General, nodes.Element):
    """An explorer on a page: its title, its introduction, its figure."""


class ExplorerDirective(SphinxDirective):
    """``:::{explorer} name``, with the introduction as content."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in EXPLORERS:
            near = difflib.get_close_matches(name, EXPLORERS, n=3, cutoff=0.4) or EXPLORERS
            logger.warning(
                "no explorer %r; there are: %s", name, ", ".join(near), location=self.get_location(),
                type="guide", subtype="explorer",
            )  # fmt: skip
            return []
        if not self.content:
            raise self.error(f"the explorer {name} has no introduction; wanted a sentence that says what to try")
        told = EXPLORERS[name]
        anchor = f"explorer-{name}"
        self.env.__dict__.setdefault("guide_explorers", {}).setdefault(self.env.docname, []).append(name)
        labels = self.env.domains.standard_domain
        labels.labels[anchor] = (self.env.docname, anchor, told.title)
        labels.anonlabels[anchor] = (self.env.docname, anchor)
        explorer = explorer_node(name=name, title=told.title, data=told.data is not None, ids=[anchor])
        explorer += nodes.container("", *self.parse_content_to_nodes(), classes=["ag-explorer-intro"])
        figure = self.parse_text_to_nodes(f":::{{gallery-figure}} {told.figure}\n:::")
        explorer += nodes.container("", *figure, classes=["ag-explorer-fallback"])
        self.set_source_info(explorer)
        return [explorer]


class ExplorerList(SphinxDirective):
    """``:::{explorer-list}``: every explorer and what it moves."""

    def run(self) -> list[nodes.Node]:
        rows = [f"| {{ref}}`explorer-{name}` | {told.moves} |" for name, told in EXPLORERS.items()]
        return self.parse_text_to_nodes("\n".join(["| Explorer | What the reader moves |", "|---|---|", *rows]))


def visit_explorer_html(self: Any, node: explorer_node) -> None:
    name = node["name"]
    data = " data-data" if node["data"] else ""
    self.body.append(
        f'<div class="ag-explorer" id="explorer-{name}" data-explorer="{name}"{data} role="group" '
        f'aria-labelledby="explorer-{name}-title">\n'
        f'<p class="ag-explorer-title" id="explorer-{name}-title">{self.encode(node["title"])}</p>\n'
    )


def depart_explorer_html(self: Any, node: explorer_node) -> None:
    self.body.append("</div>\n")


def pass_by(self: Any, node: explorer_node) -> None:
    """Formats without scripts have the figure."""


def _forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    getattr(env, "guide_explorers", {}).pop(docname, None)


def _merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    found = {name: used for name, used in getattr(other, "guide_explorers", {}).items() if name in docnames}
    env.__dict__.setdefault("guide_explorers", {}).update(found)


def _add_scripts(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    if getattr(app.env, "guide_explorers", {}).get(pagename):
        app.add_css_file(f"{FOLDER}/explorers.css")
        app.add_js_file(f"{FOLDER}/loader.js", type="module")


def write_data(name: str, state: Path) -> Path:
    """Compute what an explorer needs, if what it is computed from has changed, and return the file that holds it."""
    source = Path(explorer_data.__file__)
    compute = EXPLORERS[name].data
    assert compute is not None
    reached = freshness.function_dependencies(source, compute.__name__)
    text = freshness.function_source(source, compute.__name__)
    mark = freshness.fingerprint(reached, extra=text + freshness.versions("numpy", "torch"))
    file, note = state / f"{name}.json", state / f"{name}.fingerprint"
    if not (file.is_file() and note.is_file() and note.read_text(encoding="utf-8") == mark):
        state.mkdir(parents=True, exist_ok=True)
        told = json.dumps(compute(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        file.write_text(told, encoding="utf-8")
        note.write_text(mark, encoding="utf-8")
    return file


def _write_all(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    used = {name for names in getattr(app.env, "guide_explorers", {}).values() for name in names}
    folder = Path(app.outdir) / "_static" / FOLDER / "data"
    for name in sorted(name for name in used if EXPLORERS[name].data):
        made = write_data(name, Path(app.confdir) / "_build" / FOLDER).read_bytes()
        target = folder / f"{name}.json"
        if not target.is_file() or target.read_bytes() != made:
            folder.mkdir(parents=True, exist_ok=True)
            target.write_bytes(made)


def setup(app: Sphinx) -> dict[str, Any]:
    others = dict.fromkeys(("latex", "text", "man", "texinfo"), (pass_by, pass_by))
    app.add_node(explorer_node, html=(visit_explorer_html, depart_explorer_html), **others)  # type: ignore[arg-type]
    app.add_directive("explorer", ExplorerDirective)
    app.add_directive("explorer-list", ExplorerList)
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    app.connect("html-page-context", _add_scripts)
    app.connect("build-finished", _write_all)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
