"""What is often printed about attention, against what a run gives.

``docs/errata.toml`` holds the rows. Each is tied to a claim, so that a row cannot stand when its check fails, and its
right-hand side quotes what the check measured with the same ``{calc}`` as a page.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from sphinx.locale import _
from sphinx.util.docutils import SphinxDirective

from guide_ext import claims, prose, translations

if TYPE_CHECKING:
    from sphinx.application import Sphinx


@dataclass(frozen=True)
class Row:
    """One erratum.

    Attributes
    ----------
    id : str
        Its name, beginning with the chapter's prefix; the anchor is ``erratum-<id>``.
    printed : str
        What is often printed, as MyST text.
    right : str
        What a run gives, as MyST text with calcs.
    claim : str
        The claim whose check measures it.
    ref : str
        An optional reference of the authors' own.
    line : int
        Where the row begins in the file.
    """

    id: str
    printed: str
    right: str
    claim: str
    ref: str = ""
    line: int = 0

    @property
    def chapter(self) -> str:
        return self.id.split("-")[0]


class ErrataError(ValueError):
    """A row of the file that cannot stand as it is; the message begins with ``file:line``."""


def load(path: Path) -> list[Row]:
    """Read the rows.

    Raises
    ------
    ErrataError
        If the file is not TOML, or a row lacks a field, has an unknown one, or repeats an id.
    """
    text = path.read_text(encoding="utf-8")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ErrataError(f"{path}: {error}") from None
    if unknown := set(tables) - {"row"}:
        raise ErrataError(f"{path}: a row begins with [[row]]; unknown: {', '.join(sorted(unknown))}")
    starts = [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*row\s*\]\]", line)]
    rows: list[Row] = []
    for line, entry in zip(starts, tables.get("row", []), strict=True):
        where = f"{path}:{line}"
        missing = [name for name in ("id", "printed", "right", "claim") if not str(entry.get(name, "")).strip()]
        unknown = set(entry) - {"id", "printed", "right", "claim", "ref"}
        if missing or unknown:
            raise ErrataError(f"{where}: missing {missing or 'nothing'}, unknown {sorted(unknown) or 'nothing'}")
        row = Row(**{name: str(value).strip() for name, value in entry.items()}, line=line)
        if row.chapter not in claims.CHAPTERS:
            raise ErrataError(f"{where}: the id {row.id!r} does not begin with a chapter: {', '.join(claims.CHAPTERS)}")
        if any(row.id == other.id for other in rows):
            raise ErrataError(f"{where}: a second row {row.id!r}")
        rows.append(row)
    return rows


class ErrataTableDirective(SphinxDirective):
    """``:::{errata-table}``, with ``:chapter:`` for the rows of one chapter."""

    option_spec: ClassVar[dict[str, Any]] = {"chapter": lambda text: text.strip()}

    def run(self) -> list[nodes.Node]:
        chapter = self.options.get("chapter", "")
        if chapter and chapter not in claims.CHAPTERS:
            raise self.error(f"no chapter {chapter!r}; {claims.near(chapter, claims.CHAPTERS)}")
        path = Path(self.env.srcdir) / "errata.toml"
        self.env.note_dependency(str(path))
        try:
            rows = [row for row in load(path) if not chapter or row.chapter == chapter]
        except (ErrataError, OSError) as error:
            self._problem(str(error), self.get_location())
            return []
        if not rows:
            return [nodes.paragraph("", "No row yet.")]
        body = [
            [
                self.parse_text_to_nodes(row.printed),
                [nodes.target("", "", ids=[f"erratum-{row.id}"]), *self.parse_text_to_nodes(self._right(row, path))],
                [
                    nodes.paragraph(
                        "", "", claims.claim_reference("", "", nodes.literal("", row.claim), claim=row.claim)
                    )
                ],
            ]
            for row in rows
        ]
        return [claims.table([_("often printed"), _("what a run gives"), _("check")], body, classes=["ag-errata"])]

    def _right(self, row: Row, path: Path) -> str:
        book = claims.ledger(self.config)
        page = prose.parse(row.right, str(path), book.measured).run()
        for _line, message in page.failures:
            self._problem(f"{row.id}: {message}", f"{path}:{row.line}")
        claims.note_use(self.env, self.env.docname, {row.claim, *page.measured_ids})
        return translations.text_of(page, self.env)

    def _problem(self, message: str, location: str) -> None:
        prose.failures(self.env).setdefault(self.env.docname, []).append((self.lineno, message))
        prose.logger.error("%s", message, location=location, type="guide", subtype="errata")


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("guide_ext.prose")
    app.add_directive("errata-table", ErrataTableDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
