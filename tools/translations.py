"""Keep the catalogs of translations: ``python -m tools.translations refresh|start|check``.

``make gettext`` has written the messages of every page into ``_build/gettext``; here they are merged into the catalogs
of ``docs/locale/<language>/LC_MESSAGES``, where translators work. A message whose text has changed a little keeps its
translation, marked as fuzzy: it is not used until someone has looked at it. One that is gone is kept at the end.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from babel import Locale, UnknownLocaleError
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from guide_ext.translations import unsound  # type: ignore[import-not-found]  # noqa: E402

TEMPLATES = ROOT / "_build" / "gettext"
LOCALES = ROOT / "docs" / "locale"


def catalogs(locales: Path, language: str = "*") -> Iterator[tuple[str, str, Path]]:
    """Every catalog, as (language, page, file)."""
    for path in sorted(locales.glob(f"{language}/LC_MESSAGES/**/*.po")):
        language, _, *page = path.relative_to(locales).with_suffix("").parts
        yield language, "/".join(page), path


def read(path: Path, language: str) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=language)


def refreshed(catalog: Catalog, template: Catalog, page: str) -> Catalog:
    """A catalog with the messages that the page has now."""
    catalog.update(template, update_creation_date=False)
    for message in catalog:
        if message.id:
            message.locations = [(f"docs/{page}.md", 0)]
    return catalog


def written(catalog: Catalog) -> bytes:
    """A catalog as text: a message a line, and no line numbers, which would change with every edit of the page."""
    for message in catalog:
        message.flags -= {"python-format", "python-brace-format"}  # guesses of Babel: no message is a Python format
    out = io.BytesIO()
    write_po(out, catalog, width=0, include_lineno=False)
    return out.getvalue()


def new_catalog(template: Catalog, language: str, page: str) -> Catalog:
    catalog = Catalog(
        locale=language,
        version="",
        msgid_bugs_address="",
        project="Attention Mechanisms: A Visual Guide",
        copyright_holder="The attn_guide authors",
        last_translator="The attn_guide authors",
        language_team=str(Locale.parse(language).get_display_name("en")),
        creation_date=template.creation_date,
        fuzzy=False,
        header_comment=f"# {page} of Attention Mechanisms: A Visual Guide, in {Locale.parse(language).english_name}.",
    )
    return refreshed(catalog, template, page)


def refresh(templates: Path, locales: Path) -> int:
    """Merge the messages of the pages into all catalogs that there are."""
    for language, page, path in catalogs(locales):
        template = templates / f"{page}.pot"
        if not template.is_file():
            if page != "sphinx":  # what stands around the pages; it is kept by hand
                print(f"{path}: there is no page {page} any more")
            continue
        new = written(refreshed(read(path, language), read(template, language), page))
        if new != path.read_bytes():
            path.write_bytes(new)
            print(f"refreshed {path}")
    return 0


def start(templates: Path, locales: Path, language: str, pages: list[str]) -> int:
    """Make an empty catalog for each of some pages."""
    try:
        Locale.parse(language)
    except (ValueError, UnknownLocaleError) as error:
        print(f"error: {error}; wanted a language such as hi or pt_BR", file=sys.stderr)
        return 2
    for page in pages:
        template, path = templates / f"{page}.pot", locales / language / "LC_MESSAGES" / f"{page}.po"
        if not template.is_file():
            print(f"error: no page {page}; wanted one such as chapters/1-self-attention", file=sys.stderr)
            return 2
        if path.exists():
            print(f"{path} is there already")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(written(new_catalog(read(template, language), language, page)))
        print(f"started {path}")
    return 0


def check(locales: Path, language: str = "*") -> int:
    """Say how much of each catalog is translated, and what is wrong in it."""
    wrong, found = 0, False
    for code, page, path in catalogs(locales, language):
        found, catalog = True, read(path, code)
        messages: list[Message] = [message for message in catalog if message.id]
        done = sum(bool(message.string) and not message.fuzzy for message in messages)
        print(f"{code} {page}: {done} of {len(messages)} messages translated")
        for line, problem in unsound(catalog):
            wrong += 1
            print(f"{path}:{line}: {problem}", file=sys.stderr)
    if not found:
        print(f"error: no catalog in {locales}/{language}", file=sys.stderr)
    return 0 if found and not wrong else 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.translations", description="Keep the catalogs.")
    parser.add_argument("--templates", type=Path, default=TEMPLATES)
    parser.add_argument("--locales", type=Path, default=LOCALES)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("refresh", help="merge what make gettext has written into the catalogs")
    starting = commands.add_parser("start", help="make the catalogs of some pages in a language")
    starting.add_argument("language")
    starting.add_argument("pages", nargs="+")
    checking = commands.add_parser("check", help="say how much is translated, and what is wrong")
    checking.add_argument("language", nargs="?", default="*")
    told = parser.parse_args(arguments)
    if told.command == "refresh":
        return refresh(told.templates, told.locales)
    if told.command == "start":
        return start(told.templates, told.locales, told.language, told.pages)
    return check(told.locales, told.language)


if __name__ == "__main__":
    sys.exit(main())
