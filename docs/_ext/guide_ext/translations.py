r"""Pages in another language, with the numbers of the page that they translate.

A translator works on messages that hold ``{calc}`expression:format``` and ``\calc{expression:format}`` as they are
written, so a message does not change with a value. Sphinx extracts the messages and puts the translations in place;
what is added here surrounds that:

- a page that is extracted or translated keeps the calcs of its formulas (:func:`text_of`), and before Sphinx looks at
  the messages, ``{computed}`` becomes ``{calc}`` again in them (:class:`AsWritten`);
- a translation shows the values that the page has computed (:func:`calc_role`, :class:`Values`); it computes none;
- the description and the caption of a figure are written by the script that draws it, and their numbers are data: in
  their messages they are ``{1}``, ``{2}``, ... in the order of the text;
- a translation that loses, adds or changes a calc, a reference or a formula fails the build (:func:`differences`), with
  the line of the catalog.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from docutils import nodes
from sphinx.locale import _
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.i18n import docname_to_domain
from sphinx.util.nodes import is_translatable

from guide_ext import prose

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

logger = logging.getLogger(__name__)
TEMPLATES = "gettext"  # the builder that writes the messages of all pages
VALUES = "guide_values"  # of the page that is read: what each calc gave, by its expression
COMPUTED = re.compile(rf"\{{computed\}}(`+)[^`{prose.SEPARATOR}]*{prose.SEPARATOR}(.+?)(?<!`)\1(?!`)", re.DOTALL)


# ---------------------------------------------------------------------------------------------------------------------
# What a translation has to keep

SPAN = re.compile(r"(?:\{(?P<role>[\w:+-]+)\})?(?P<ticks>`+)(?P<content>.+?)(?<!`)(?P=ticks)(?!`)", re.DOTALL)
FORMULA = re.compile(r"(?<!\\)(?P<dollars>\${1,2})(?P<tex>.+?)(?<!\\)(?P=dollars)", re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
FIELD = re.compile(r"%(?:\(\w+\))?s")  # of the texts around the pages
SLOT = re.compile(r"\{\d+\}")
NUMBER = re.compile(r"(?<![A-Za-z_])\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
LARGE = 13  # as for the lint: a smaller integer is a word like another


def one_space(text: str) -> str:
    return " ".join(text.split())


def kept(message: str) -> Counter[str]:
    """What must stand in a translation as often as in its message: roles, code, formulas, links and slots."""
    found: Counter[str] = Counter()

    def span(match: re.Match[str]) -> str:
        content = one_space(match["content"])
        if match["role"] in (None, "calc", "given", "math"):
            target = content
        else:
            target = content.rpartition("<")[2].removesuffix(">") if content.endswith(">") else content
        if match["role"] == "term":
            target = target.lower()
        found[f"{{{match['role']}}}`{target}`" if match["role"] else f"`{target}`"] += 1
        return " "

    def formula(match: re.Match[str]) -> str:
        found[f"${one_space(match['tex'])}$"] += 1
        return " "

    rest = FORMULA.sub(formula, SPAN.sub(span, message))
    found.update(f"]({match['target']})" for match in LINK.finditer(rest))
    found.update(SLOT.findall(rest) + FIELD.findall(rest))
    return found


def numbers(message: str) -> set[str]:
    """The numbers that are typed into a message as text: decimals, and integers that are not small."""
    rest = SLOT.sub(" ", LINK.sub(" ", FORMULA.sub(" ", SPAN.sub(" ", message))))
    found = (match[0] for match in NUMBER.finditer(rest))
    return {number for number in found if not number.isdigit() or int(number) >= LARGE}


def differences(message: str, translation: str) -> list[str]:
    """What a translation lacks and what it adds, of all that it has to keep; empty if it is sound."""
    if is_formula(message):
        return [] if one_space(message) == one_space(translation) else ["a formula is translated as it is"]
    wanted, there = kept(message), kept(translation)
    found = [f"lacks {thing}" for thing in (wanted - there).elements()]
    found += [f"adds {thing}" for thing in (there - wanted).elements()]
    found += [f"adds the number {number}" for number in sorted(numbers(translation) - numbers(message))]
    return found


def is_formula(message: str) -> bool:
    """Whether a message is a formula that stands by itself; Sphinx gives its TeX without a mark."""
    return "\\" in message and not SPAN.search(message) and not FORMULA.search(message)


def unsound(catalog: Catalog) -> Iterator[tuple[int, str]]:
    """The messages of a catalog whose translation has other parts, as (line, what is wrong)."""
    for message in catalog:
        if message.id and message.string and not message.fuzzy:
            for difference in differences(str(message.id), str(message.string)):
                yield message.lineno or 0, f"the translation of {shortened(str(message.id))!r} {difference}"


def shortened(text: str, length: int = 60) -> str:
    text = one_space(text)
    return text if len(text) <= length else text[: length - 1] + "…"


# ---------------------------------------------------------------------------------------------------------------------
# Around Sphinx


def catalogs(env: BuildEnvironment, docname: str) -> list[Path]:
    """The catalogs of a page in the language of the build."""
    name = docname_to_domain(docname, env.config.gettext_compact) + ".po"
    folders = [Path(env.srcdir) / folder / env.config.language / "LC_MESSAGES" for folder in env.config.locale_dirs]
    return [folder / name for folder in folders if (folder / name).is_file()]


def extracts(env: BuildEnvironment) -> bool:
    return env._builder_cls.name == TEMPLATES


def concerns(env: BuildEnvironment, docname: str) -> bool:
    """Whether a page is translated in this build, or read for its messages."""
    return extracts(env) or bool(catalogs(env, docname))


def text_of(page: prose.Page, env: BuildEnvironment) -> str:
    """The text of a page with its values; if it is translated, with calcs that can be found again."""
    if not concerns(env, env.docname):
        return page.substituted()
    values = env.temp_data.setdefault(VALUES, {})
    for line, calc, value in page.calcs():
        if values.setdefault(one_space(calc.source), value) != value:
            fail(env, f"{calc.source} has two values on this page: give them two names", f"{page.path}:{line}")
    return page.substituted(reversible=True)


def fail(env: BuildEnvironment, message: str, place: str) -> None:
    """Report an error of a page or of its catalog; it fails the build, and the page is read again by the next one."""
    prose.failures(env).setdefault(env.docname, []).append((0, message))
    logger.error("%s", message, location=place, type="guide", subtype="translation")


class AsWritten(SphinxTransform):
    """Gives the messages of a page back the calcs that the page was written with, and checks its catalog."""

    default_priority = 15  # Sphinx looks up the translations at 20

    def apply(self, **kwargs: Any) -> None:
        if not concerns(self.env, self.env.docname):
            return
        for node in self.document.findall(is_translatable):
            if isinstance(node, nodes.image):
                node["numbers"] = NUMBER.findall(node["alt"])
                node["alt"] = with_slots(node["alt"])
            elif isinstance(node, nodes.caption) and node.get("drawn"):
                node["numbers"] = NUMBER.findall(node.rawsource)
                node.rawsource = with_slots(node.rawsource)
            elif isinstance(node, nodes.Element):
                node.rawsource = as_written(node.rawsource)
        if not extracts(self.env):
            for path in catalogs(self.env, self.env.docname):
                with path.open("rb") as file:
                    for line, message in unsound(read_po(file)):
                        fail(self.env, message, f"{path}:{line}")


def as_written(text: str) -> str:
    r"""``{computed}`value␟expression``` as the ``{calc}`expression``` that it was.

    >>> as_written("{computed}`0.67␟2 / 3:.2f` of it")
    '{calc}`2 / 3:.2f` of it'
    """
    return COMPUTED.sub(r"{calc}\1\2\1", text)


def with_slots(text: str) -> str:
    """A text with a slot for each number.

    >>> with_slots("n = 64: 0.148 ms. n = 128: 1e-05 ms.")
    'n = {1}: {2} ms. n = {3}: {4} ms.'
    """
    count = iter(range(1, len(text)))
    return NUMBER.sub(lambda match: f"{{{next(count)}}}", text)


def filled(text: str, found: list[str]) -> str:
    """A text with the numbers in its slots.

    >>> filled("{2} ms for {1}", ["64", "0.148"])
    '0.148 ms for 64'
    """
    return SLOT.sub(lambda match: dict(enumerate(found, 1)).get(int(match[0][1:-1]), "⚠"), text)


class Values(SphinxTransform):
    """Puts the values of a page into its formulas, translated or not, and the numbers into what describes pictures."""

    default_priority = 21

    def apply(self, **kwargs: Any) -> None:
        from guide_ext import claims

        if not concerns(self.env, self.env.docname) or extracts(self.env):
            return
        values = self.env.temp_data.get(VALUES, {})
        cited = claims.store(self.env).citations.get(self.env.docname, [])
        for tree in [self.document, *(copy for citation in cited for copy in citation.sentence)]:
            for node in tree.findall(lambda node: isinstance(node, nodes.math | nodes.math_block)):
                node.children = [nodes.Text(in_formula(node.astext(), values))]
                node.children[0].parent = node
        for node in self.document.findall(lambda node: isinstance(node, nodes.image | nodes.caption)):
            found = node.attributes.pop("numbers", [])
            if isinstance(node, nodes.image):
                node["alt"] = filled(node["alt"], found) if found else node["alt"]
            elif found and node.get("translated"):
                for text in list(node.findall(nodes.Text)):
                    text.parent.replace(text, nodes.Text(filled(text.astext(), found)))


def in_formula(tex: str, values: Mapping[str, str]) -> str:
    r"""A formula with its values.

    >>> in_formula(r"\calc{n:,} = 2^{\given{12}}", {"n:,": "4,096"})
    '4{,}096 = 2^{12}'
    """
    pieces, end = [], 0
    for found in re.finditer(r"\\(calc|given)\{", tex):
        close = prose.closing_brace(tex, found.end(), len(tex))
        if found.start() < end or close is None or prose.is_escaped(tex, found.start()):
            continue
        content = tex[found.end() : close]
        value = content if found[1] == "given" else values.get(one_space(content), "⚠")
        pieces += [tex[end : found.start()], prose.as_math(value)]
        end = close + 1
    return "".join(pieces) + tex[end:]


def calc_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """``{calc}`expression``` in a translation: the value that the page has for it."""
    env, expression = inliner.document.settings.env, one_space(text)
    value = env.temp_data.get(VALUES, {}).get(expression)
    if value is None:
        value = "⚠"
        if not concerns(env, env.docname):  # else the check of the catalog says so, with the line of the catalog
            fail(env, f"nothing computes {expression} here", f"{inliner.document['source']}:{lineno}")
    return [prose.computed(rawtext, prose.as_text(value), classes=["computed"], title=expression)], []


def own_address(app: Sphinx, config: Any) -> None:
    """A translation is published below the guide, in a folder that has the name of its language."""
    if config.language != "en":
        for name in ("html_baseurl", "ogp_site_url", "notfound_urls_prefix"):
            if config.values.get(name) and config[name]:
                config[name] += f"{config.language}/"


def translate_search(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The one text of the configuration that stands on every page, from the catalog ``sphinx`` like the theme's."""
    if "theme_search_bar_text" in context:
        context["theme_search_bar_text"] = _(context["theme_search_bar_text"])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("calc", calc_role)
    app.add_transform(AsWritten)
    app.add_transform(Values)
    app.connect("config-inited", own_address)
    app.connect("html-page-context", translate_search)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
