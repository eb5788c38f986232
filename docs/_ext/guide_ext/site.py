"""The parts of the site that belong to no single page.

- Roles that colour a word as the figures colour the thing: ``{query}`queries```, ``{weights}`weights```.
- One API page per module of the package, written before Sphinx reads, with the gallery examples of each function.
- ``{func}`ag.softmax``` finds ``attn_guide.softmax``: prose may use the alias that its code uses.
- ``:::{chapter-mechanisms} 2``: the mechanisms of a chapter, with their papers and what code stands behind them.
- "Edit this page" leads to the file a page was made from: a gallery script, a module, a Markdown page.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pybtex.plugin
import sphinxcontrib.bibtex.plugin
from docutils import nodes
from docutils.parsers.rst.states import Inliner
from pybtex.richtext import Text
from pybtex.style.formatting.unsrt import Style as UnsrtStyle
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.sorting import BaseSortingStyle
from pybtex.style.template import field, sentence
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import NoUri
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

import attn_guide
from attn_guide import taxonomy
from guide_ext.catalogue import code_link
from guide_ext.claims import stacked

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[3]
GENERATED = Path("api/generated")

# --- coloured words -------------------------------------------------------------------------------------------------

COLOURED = ("query", "key", "value", "scores", "weights", "output")


def _coloured_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Inliner, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    return [nodes.inline(rawtext, text, classes=[f"ag-{name}"])], []


# --- API pages ------------------------------------------------------------------------------------------------------


def public_modules() -> list[ModuleType]:
    """Every public module that says what it exports, in the order of its name; a package that does is one of them."""
    return list(_modules_of(attn_guide))


def _modules_of(package: ModuleType) -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        try:
            module = importlib.import_module(f"{package.__name__}.{info.name}")
        except ImportError as error:
            logger.warning("%s.%s cannot be imported: %s", package.__name__, info.name, error, type="guide")
            continue
        exported = set(getattr(module, "__all__", ()))
        if exported:
            yield module
        # Of a package, also the modules with something that it does not hand on itself; plot hands on all it offers.
        if info.ispkg and info.name != "plot":
            yield from (inner for inner in _modules_of(module) if set(inner.__all__) - exported)


def public_name(module: ModuleType, name: str) -> str:
    """The shortest dotted name a reader can write: ``attn_guide.softmax`` rather than ``attn_guide.core.softmax``."""
    same = getattr(attn_guide, name, None) is getattr(module, name)
    home = _home(getattr(module, name))
    package = sys.modules[module.__name__.rpartition(".")[0]]
    handed_on = name in getattr(package, "__all__", ()) and getattr(package, name) is getattr(module, name)
    if not same and handed_on:
        return f"{package.__name__}.{name}"
    if not same and home.startswith("attn_guide") and not home.startswith(module.__name__):
        return f"{home}.{name}"
    return f"attn_guide.{name}" if same else f"{module.__name__}.{name}"


def own_members(cls: type) -> list[str]:
    """The public methods and properties that a class defines itself, with a docstring; not what a base class adds."""
    found = []
    for name, member in vars(cls).items():
        function = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
        if not name.startswith("_") and getattr(function, "__module__", "") == cls.__module__ and function.__doc__:
            found.append(name)
    return found


def _home(thing: Any) -> str:
    """The module that defines something; an instance such as a mask tells only where its class lives."""
    return getattr(thing, "__module__", None) or type(thing).__module__


def api_page(module: ModuleType, examples: Path) -> str:
    """The reStructuredText of one module's page; ``examples`` holds what sphinx-gallery knows of who uses what."""
    title = module.__name__
    names = [name for name in module.__all__ if hasattr(module, name)]
    for name in set(module.__all__) - set(names):
        logger.warning("%s exports %r, which it does not define", module.__name__, name, type="guide")
    lines = [
        f".. _api-{short_name(module)}:",
        "",
        title,
        "=" * len(title),
        "",
        f".. automodule:: {module.__name__}",
        "",
    ]
    names = [name for name in names if not inspect.ismodule(getattr(module, name))]  # a module has a page of its own
    callables = [name for name in names if is_code(getattr(module, name))]
    if len(callables) > 1:
        lines += [".. list-table::", "   :class: ag-summary", "   :widths: auto", ""]
        for name in callables:
            lines += [
                f"   * - :py:obj:`~{public_name(module, name)}`",
                f"     - {summary(getattr(module, name), name)}",
            ]
        lines += [""]
    for name in names:
        target, full = getattr(module, name), public_name(module, name)
        owner = full.rpartition(".")[0]
        here = _home(target).startswith(module.__name__) if owner == "attn_guide" else owner == module.__name__
        if is_code(target) and not here:
            continue  # another page describes it; the table above leads there
        if inspect.isclass(target):
            kind = "autoexception" if issubclass(target, Exception) else "autoclass"
            members = ", ".join(own_members(target))
            lines += [f".. {kind}:: {full}", *([f"   :members: {members}"] if members else []), ""]
        elif inspect.isroutine(target):
            lines += [f".. autofunction:: {full}", ""]
        else:
            lines += [f".. py:data:: {name}", f"   :module: {owner if is_code(target) else module.__name__}"]
            lines += [f"   :value: {target!r}"] if isinstance(target, str) else []
            lines += ["", *(f"   {line}".rstrip() for line in comment(target, name)), ""]
        if is_code(target):
            lines += _figures(dict.fromkeys((full, f"{module.__name__}.{name}")), examples)
    return "\n".join(lines)


def is_code(thing: Any) -> bool:
    """Whether it is a function, a class, or a mask, which is called like a function; not a colour or a table."""
    ours = callable(thing) and type(thing).__module__.startswith("attn_guide")
    return inspect.isroutine(thing) or inspect.isclass(thing) or ours


def short_name(module: ModuleType) -> str:
    return module.__name__.removeprefix("attn_guide.")


def summary(thing: Any, name: str = "") -> str:
    """The first paragraph on a thing, on one line: of its docstring, or of the comment above an instance's name."""
    documented = inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isroutine(thing)
    text = (inspect.getdoc(thing) or "") if documented else "\n".join(comment(thing, name))
    return text.strip().partition("\n\n")[0].replace("\n", " ")


def comment(thing: Any, name: str) -> list[str]:
    """The ``#:`` comment above a name, in whichever module of the package gives the thing that name."""
    for home in [module for key, module in sorted(sys.modules.items()) if key.startswith("attn_guide.")]:
        if vars(home).get(name) is thing:
            comments = ModuleAnalyzer.for_module(home.__name__).find_attr_docs()
            if ("", name) in comments:
                return "\n".join(comments["", name]).strip().split("\n")
    logger.warning("%s has no comment that begins with #:, to say what it is", name, type="guide")
    return []


def _figures(names: Iterable[str], examples: Path) -> list[str]:
    """The figures that use a function, under whichever name, as the last part of its description."""
    used = [name for name in names if (file := examples / f"{name}.examples").is_file() and file.stat().st_size]
    if not used:
        return []
    lists = "".join((examples / f"{name}.examples").read_text(encoding="utf-8") for name in used)
    scripts = set(re.findall(r"sphx_glr_(\w+)_thumb", lists))
    return [
        f"   .. drawn by {', '.join(sorted(scripts))}",  # so that the page is read again when the list changes
        "",
        "   .. rubric:: Figures that use it",
        "",
        f"   .. minigallery:: {' '.join(used)}",
        "",
    ]


def _write_api_pages(app: Sphinx) -> None:
    """Write the pages that changed and remove those whose module is gone, so that an unchanged build reads none."""
    folder = Path(app.srcdir) / GENERATED
    folder.mkdir(parents=True, exist_ok=True)
    pages = {f"{short_name(module)}.rst": api_page(module, folder) for module in public_modules()}
    for stale in set(folder.glob("*.rst")) - {folder / name for name in pages}:
        stale.unlink()
    for name, text in pages.items():
        page = folder / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


class ApiModules(SphinxDirective):
    """``:::{api-modules}``: the modules of the package, each with what its docstring says first."""

    def run(self) -> list[nodes.Node]:
        for source in sorted(Path(attn_guide.__path__[0]).rglob("*.py")):
            self.env.note_dependency(str(source))
        rows = ["| Module | What it holds |", "|---|---|"]
        rows += [f"| {{ref}}`{short_name(m)} <api-{short_name(m)}>` | {_plain(summary(m))} |" for m in public_modules()]
        return self.parse_text_to_nodes("\n".join(rows))


def _plain(text: str) -> str:
    """Docstring markup as Markdown, in a cell of a table."""
    return text.replace("``", "`").replace("|", "\\|")


def _resolve_alias(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, contnode: nodes.Element
) -> nodes.Element | None:
    """Resolve ``ag.name``, ``attn_guide.module.name`` and a bare ``name`` to where the object is documented."""
    if node.get("refdomain") != "py":
        return None
    path = node.get("reftarget", "").removeprefix("ag.").removeprefix("attn_guide.")
    exact, fuzzy = 0, 1
    for candidate, mode in (
        (f"attn_guide.{path}", exact),
        (f"attn_guide.{path.rpartition('.')[2]}", exact),
        (re.sub(r"\.\w+(\.\w+)$", r"\1", f"attn_guide.{path}"), exact),  # a package hands on what a module of it has
        (path, fuzzy),
    ):
        found = {entry.node_id: (name, entry) for name, entry in _find(env, candidate, mode)}
        if len(found) == 1:
            name, entry = found.popitem()[1]
            try:
                uri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
            except NoUri:
                return None
            reference = nodes.reference("", "", internal=True, refuri=f"{uri}#{entry.node_id}", reftitle=name)
            reference += contnode
            return reference
    return None


def _find(env: BuildEnvironment, name: str, mode: int) -> list[tuple[str, Any]]:
    return env.domains.python_domain.find_obj(env, "", "", name, "obj", mode)


# --- what stands behind a chapter -----------------------------------------------------------------------------------


class ChapterMechanisms(SphinxDirective):
    """``:::{chapter-mechanisms} 2``: the mechanisms a chapter teaches, each with its paper and its code.

    What has no code yet says so, and stops saying so on the day the code is written.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        number = int(self.arguments[0])
        for source in sorted(Path(attn_guide.__path__[0]).rglob("*.py")):
            self.env.note_dependency(str(source))
        rows = [
            f"| {mechanism.name} | {{cite:t}}`{mechanism.paper}` | {code_link(mechanism)} |"
            for mechanism in taxonomy.MECHANISMS
            if mechanism.chapter == number
        ]
        if not rows:
            raise self.error(f"the taxonomy has no mechanism in chapter {number}")
        lines = ["| Mechanism | Paper | Code |", "|---|---|---|", *rows]
        return stacked(self.parse_text_to_nodes("\n".join(lines)), "ag-mechanisms")


# --- code ---------------------------------------------------------------------------------------------------------


def _trim_code(app: Sphinx, doctree: nodes.document) -> None:
    """Drop the blank lines that end a block of code: doctests need one before a fence, readers do not."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext()
        if text != text.rstrip() and len(block.children) == 1 and isinstance(block.children[0], nodes.Text):
            block.replace(block.children[0], nodes.Text(text.rstrip()))
            block.rawsource = text.rstrip()  # where the two differ, Sphinx does not highlight


# --- the gallery's small pictures -----------------------------------------------------------------------------------


def _pair_thumbnails(app: Sphinx, doctree: nodes.document) -> None:
    """Show the dark drawing on a dark page, in the gallery too, instead of a light one that the theme dims."""
    for image in list(doctree.findall(nodes.image)):
        thumbnail = re.fullmatch(r"(.*images/)thumb/(sphx_glr_\w+)_thumb\.svg", image.get("uri", ""))
        if thumbnail is None:
            continue
        uri = f"{thumbnail[1]}{thumbnail[2]}_001-dark.svg"
        if not (Path(app.srcdir) / uri.lstrip("/")).is_file():
            image["classes"].append("dark-light")
            continue
        dark = image.copy()
        dark["uri"] = uri
        image["classes"].append("only-light")
        dark["classes"].append("only-dark")
        image.parent.insert(image.parent.index(image) + 1, dark)


# --- the contents on every page -------------------------------------------------------------------------------------


def _rewrite_when_contents_change(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Every page shows the contents of the whole book, so a new page, title or layout makes every page new.

    The pages of source code too: Sphinx writes these again only when the code is newer.
    """
    layout = [Path(app.confdir) / "conf.py", *sorted((Path(app.srcdir) / "_templates").glob("*.html"))]
    titles = sorted((doc, title.astext()) for doc, title in env.titles.items())
    texts = [file.read_text(encoding="utf-8") for file in layout]
    contents = repr((sorted(env.toctree_includes.items()), titles, texts))
    changed = getattr(env, "guide_contents", "") != contents
    env.guide_contents = contents  # type: ignore[attr-defined]
    if changed:
        shutil.rmtree(Path(app.outdir) / "_modules", ignore_errors=True)
    return sorted(env.found_docs) if changed else []


# --- links to sources -----------------------------------------------------------------------------------------------


def source_of(pagename: str, srcdir: Path) -> str | None:
    """The file in the repository that a page is made from, as a path from its root; None for pages made from none."""
    parts = Path(pagename).parts
    if parts[0] == "gallery":
        script = ROOT / Path(*parts).with_suffix(".py")
        if script.exists():
            return script.relative_to(ROOT).as_posix()
        for header in ("README.rst", "README.txt", "GALLERY_HEADER.rst", "README.md"):
            if (ROOT / Path(*parts[:-1]) / header).exists():
                return (Path(*parts[:-1]) / header).as_posix()
        return None
    if Path(pagename).parent == GENERATED:
        module = ROOT / "attn_guide" / Path(*parts[-1].split("."))
        source = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        return source.relative_to(ROOT).as_posix() if source.exists() else None
    for suffix in (".md", ".rst"):
        if (srcdir / f"{pagename}{suffix}").exists() and pagename != "sg_execution_times":
            return f"docs/{pagename}{suffix}"
    return None


def _edit_link(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    source = source_of(pagename, Path(app.srcdir))
    if source is None:
        context["theme_use_edit_page_button"] = False
        return
    user, repository, branch = (context[f"github_{part}"] for part in ("user", "repo", "version"))
    url = f"https://github.com/{user}/{repository}/edit/{branch}/{source}"
    context["get_edit_provider_and_url"] = lambda: ("GitHub", url)


def _mend_roles(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """An entry of the bibliography is an item of its list; the role that docutils gives it is deprecated."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


# --- bibliography ---------------------------------------------------------------------------------------------------


class AuthorYearLabels(BaseLabelStyle):
    """Labels that say who and when, ``Vaswani et al. 2017``, with a letter where two would be the same."""

    def format_labels(self, sorted_entries: list[Any]) -> Iterator[str]:
        labels = [self._label(entry) for entry in sorted_entries]
        for index, label in enumerate(labels):
            letter = chr(ord("a") + labels[:index].count(label)) if labels.count(label) > 1 else ""
            yield label + letter

    @staticmethod
    def _label(entry: Any) -> str:
        people = [" ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]]
        people = [str(Text.from_latex(name)) for name in people]
        names = people[0] if len(people) == 1 else " & ".join(people) if len(people) == 2 else f"{people[0]} et al."
        return f"{names} {entry.fields['year']}"


class ByLabel(BaseSortingStyle):
    """Entries in the order of their labels, so that braces and accents of a name do not move it."""

    def sorting_key(self, entry: Any) -> tuple[str, str]:
        label = unicodedata.normalize("NFKD", AuthorYearLabels._label(entry))
        plain = "".join(letter for letter in label if not unicodedata.combining(letter))
        return plain.casefold(), entry.fields["title"]


class GuideStyle(UnsrtStyle):
    """Plain entries with readable labels, sorted by first author and year."""

    default_label_style = AuthorYearLabels
    default_sorting_style = "label"

    def format_title(self, e: Any, which_field: str, as_sentence: bool = True) -> Any:
        """Titles keep their capitals."""
        title = field(which_field)
        return sentence[title] if as_sentence else title


def _round_brackets() -> BracketStyle:
    return BracketStyle(left="(", right=")")


@dataclasses.dataclass
class RoundAuthorYear(AuthorYearReferenceStyle):
    """Cite as (Vaswani et al., 2017), the way running text does."""

    bracket_parenthetical: BracketStyle = dataclasses.field(default_factory=_round_brackets)
    bracket_textual: BracketStyle = dataclasses.field(default_factory=_round_brackets)
    bracket_author: BracketStyle = dataclasses.field(default_factory=_round_brackets)
    bracket_label: BracketStyle = dataclasses.field(default_factory=_round_brackets)
    bracket_year: BracketStyle = dataclasses.field(default_factory=_round_brackets)


pybtex.plugin.register_plugin("pybtex.style.formatting", "guide", GuideStyle)
pybtex.plugin.register_plugin("pybtex.style.sorting", "label", ByLabel)
sphinxcontrib.bibtex.plugin.register_plugin(
    "sphinxcontrib.bibtex.style.referencing", "author_year_round", RoundAuthorYear
)


def setup(app: Sphinx) -> dict[str, Any]:
    for name in COLOURED:
        app.add_role(name, _coloured_role)
    app.add_directive("chapter-mechanisms", ChapterMechanisms)
    app.add_directive("api-modules", ApiModules)
    app.connect("builder-inited", _write_api_pages, priority=700)  # when the gallery knows which script uses what
    app.connect("doctree-read", _trim_code)
    app.connect("doctree-read", _pair_thumbnails, priority=400)  # before Sphinx collects the images of a page
    app.connect("env-updated", _rewrite_when_contents_change)
    app.connect("missing-reference", _resolve_alias)
    app.connect("html-page-context", _edit_link, priority=900)
    app.connect("html-page-context", _mend_roles)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
