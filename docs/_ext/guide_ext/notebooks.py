"""Chapters as notebooks: each page of ``chapters/`` is also written as ``chapters/NAME.ipynb``, to be downloaded.

The notebook is made of the finished page, so that its numbers, references and tables are those of the page:

- prose becomes Markdown, with links and figures by their address on the site;
- a ``python`` block becomes code cells, one for each output, with the prompts taken away; the outputs of the page
  stand there until the reader runs the cell;
- solutions of exercises are closed: the prose in ``<details>``, the code in a cell whose source is hidden.

Blocks that a reader of the page does not see are left out. They fetch what the build has measured, and the prose has
those values already; :mod:`tools.notebooks` runs the notebooks and so shows that nothing else is needed.
"""

from __future__ import annotations

import ast
import doctest
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from attn_guide.plot import ROLES

from . import mathml, slim
from .claims import claim_block, claim_details, claim_short
from .explorers import explorer_node

logger = logging.getLogger(__name__)

FOLDER = "chapters/"

#: What the code of a page may import beyond NumPy, and the part of the package's extras that brings it.
EXTRAS = {
    "torch": "torch",
    "attn_guide.torch": "torch",
    "attn_guide.models": "models",
    "attn_guide.plot": "plot",
    "matplotlib": "plot",
}
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}

Cell = dict[str, Any]


# --- code ------------------------------------------------------------------------------------------------------------


def code_cells(source: str, closed: bool = False) -> list[Cell]:
    """The cells of a block of code: of examples with prompts one for each output, else one."""
    if ">>>" not in source:
        return [code_cell(source, "", closed)]
    cells: list[Cell] = []
    text, end = "", 0
    for example in doctest.DocTestParser().get_examples(source):
        if text and (example.lineno > end or is_compound(text) or is_compound(example.source)):
            text += "\n"
        text += example.source
        end = example.lineno + example.source.count("\n") + example.want.count("\n")
        if example.want:
            cells.append(code_cell(shown(text) if not example.exc_msg else text, example.want, closed))
            text = ""
    return cells + ([code_cell(text, "", closed)] if text else [])


def shown(source: str) -> str:
    """Code whose last value a notebook shows: one inside a block, which only a prompt shows, is printed."""
    last = inner = ast.parse(source).body[-1]
    while isinstance(inner, ast.With | ast.For | ast.While | ast.If):
        inner = inner.body[-1]
    if inner is last or not isinstance(inner, ast.Expr) or is_print(inner):
        return source
    lines = source.splitlines(keepends=True)
    begin, end = inner.lineno - 1, (inner.end_lineno or inner.lineno) - 1
    # Columns are counted in bytes. The end goes first, since on one line the beginning would move it.
    for row, column, text in ((end, inner.end_col_offset or 0, "))"), (begin, inner.col_offset, "print(repr(")):
        line = lines[row].encode("utf-8")
        lines[row] = (line[:column] + text.encode("utf-8") + line[column:]).decode("utf-8")
    return "".join(lines)


def is_compound(source: str) -> bool:
    """Whether code ends with a function, a loop or another statement that has lines of its own."""
    return hasattr(ast.parse(source).body[-1], "body")


def is_print(statement: ast.stmt) -> bool:
    """Whether a statement prints, and so has no value of its own to show."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"


def code_cell(source: str, want: str, closed: bool = False) -> Cell:
    """A cell with the output that the page shows; a cell that is to fail does not stop the ones after it."""
    metadata: dict[str, Any] = {}
    if closed:
        metadata = {"collapsed": True, "jupyter": {"outputs_hidden": True, "source_hidden": True}, "tags": ["solution"]}
    found = output(source, want)
    if found and found["output_type"] == "error":
        metadata["tags"] = [*metadata.get("tags", ()), "raises-exception"]
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": metadata,
        "outputs": [found] if found else [],
        "source": source.strip("\n"),
    }


def output(source: str, want: str) -> Cell | None:
    """What a notebook keeps of an output: an error, the value of the last line, or what was printed."""
    if not want:
        return None
    text = re.sub(r"^<BLANKLINE>$", "", want.removesuffix("\n"), flags=re.MULTILINE)
    if want.startswith("Traceback "):
        kind, _, message = text.splitlines()[-1].partition(": ")
        return {"output_type": "error", "ename": kind, "evalue": message, "traceback": text.split("\n")}
    last = ast.parse(source).body[-1]
    if isinstance(last, ast.Expr) and not is_print(last):
        return {
            "output_type": "execute_result",
            "data": {"text/plain": text},
            "execution_count": None,
            "metadata": {},
        }
    return {"output_type": "stream", "name": "stdout", "text": text + "\n"}


def requirement(code: str, version: str) -> str:
    """What to install for a page's code, as pip names it."""
    modules = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    extras = sorted({EXTRAS[name] for name in modules if name in EXTRAS})
    return f"attn-guide[{','.join(extras)}]=={version}" if extras else f"attn-guide=={version}"


# --- prose -----------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Running text whose characters mean nothing in Markdown, on one line."""
    return re.sub(r"([\\`*\[\]<$|])|(?<!\w)(_)|(_)(?!\w)", r"\\\1\2\3", " ".join(text.split("\n")))


def formula(source: str, display: bool = False) -> str:
    """A formula with the guide's macros replaced, since notebooks know none of them, and with its colours."""
    tex = mathml._expand(" ".join(source.split()), mathml.MACROS)
    while found := re.search(r"\\class\{ag-(\w+)\}", tex):
        content, end = mathml._argument(tex, found.end(), found[0])
        # The braces outside end the colour where the command is a switch, those inside where it takes an argument.
        tex = f"{tex[: found.start()]}{{\\color{{{ROLES[found[1]]}}}{{{content}}}}}{tex[end:]}"
    if display and r"\\" in tex and r"\begin{" not in tex:
        environment = "aligned" if "&" in tex else "gathered"
        tex = rf"\begin{{{environment}}} {tex} \end{{{environment}}}"
    return tex


class Writer:
    """A page as cells. ``address`` is where the page is on the site; ``images`` names the site's copies of images."""

    def __init__(self, address: str, images: dict[str, str]) -> None:
        self.address = address
        self.images = images
        self.cells: list[Cell] = []
        self.paragraphs: list[str] = []  # of the cell that is being written
        self.level = 0
        self.code: list[str] = []

    # -- cells

    def close(self) -> None:
        if text := "\n\n".join(filter(None, self.paragraphs)):
            self.cells.append({"cell_type": "markdown", "metadata": {}, "source": text})
        self.paragraphs = []

    def add_code(self, node: nodes.literal_block, closed: bool) -> None:
        self.close()
        cells = code_cells(node.astext(), closed)
        self.code += [cell["source"] for cell in cells]
        self.cells += cells

    def page(self, document: nodes.Node) -> list[Cell]:
        self.walk(document.children)
        self.close()
        return self.cells

    def walk(self, children: Iterable[nodes.Node], closed: bool = False) -> None:
        """Write blocks into cells; what holds code is opened up, so that its code can be a cell."""
        for node in children:
            if isinstance(node, nodes.section):
                self.level += 1
                self.walk(node.children)
                self.level -= 1
            elif isinstance(node, nodes.title):
                self.close()
                self.paragraphs.append(f"{'#' * self.level} {self.inline(node)}")
            elif is_code(node):
                self.add_code(node, closed)
            elif type(node).__name__ == "dropdown_main" and any(map(is_code, node.findall(nodes.literal_block))):
                self.solution(node)
            elif isinstance(node, nodes.container) and any(map(is_code, node.findall(nodes.literal_block))):
                self.walk(node.children, closed)
            else:
                self.paragraphs.append(self.block(node))

    def solution(self, node: nodes.Element) -> None:
        """A closed box with code in it: its prose stays closed, and its code is in cells whose source is hidden."""
        title, *body = node.children
        said = self.inline(title)
        self.close()
        shut: list[str] = []
        for child in contents(body):
            if is_code(child):
                self.paragraphs.append(self.details(said, shut or ["In the hidden cells below."]))
                self.add_code(child, closed=True)
                said, shut = "Solution, continued", []
            elif text := self.block(child):
                shut.append(text)
        if shut:
            self.paragraphs.append(self.details(said, shut))

    @staticmethod
    def details(title: str, body: list[str]) -> str:
        return "\n\n".join([f"<details><summary>{title}</summary>", *body, "</details>"])

    # -- blocks

    def blocks(self, children: Iterable[nodes.Node]) -> str:
        return "\n\n".join(filter(None, map(self.block, children)))

    def block(self, node: nodes.Node) -> str:
        """A block as Markdown; nothing for what only a site needs."""
        if isinstance(node, nodes.comment | nodes.target | nodes.raw | claim_details | claim_short):
            return ""
        if isinstance(node, nodes.paragraph):
            return re.sub(r"^([#+>-]|\d+[.)])(?=\s)", r"\\\1", self.inline(node))
        if isinstance(node, nodes.rubric):
            return f"**{self.inline(node)}**"
        if isinstance(node, nodes.math_block):
            tag = rf" \tag{{{node['number']}}}" if node.get("number") else ""
            return f"$$\n{formula(node.astext(), display=True)}{tag}\n$$"
        if isinstance(node, nodes.literal_block | nodes.doctest_block):
            return f"```{node.get('language', '')}\n{node.astext().rstrip()}\n```"
        if isinstance(node, nodes.bullet_list | nodes.enumerated_list):
            return self.listed(node)
        if isinstance(node, nodes.definition_list):
            return "\n".join(
                f"- **{self.inline(i[0])}**: {indented(self.blocks(i[-1].children))}" for i in node.children
            )
        if isinstance(node, nodes.table):
            return self.table(node)
        if isinstance(node, nodes.figure):
            return self.figure(node)
        if isinstance(node, nodes.image):
            return self.image(node)
        if isinstance(node, claim_block):
            at = node["ids"][0] if node["ids"] else ""
            return quoted(f"{self.blocks(node.children)}\n\n[What was measured]({self.address}#{at})")
        if isinstance(node, nodes.admonition):
            title, *body = node.children
            return quoted(f"**{self.inline(title)}**\n\n{self.blocks(body)}")
        if isinstance(node, nodes.block_quote):
            return quoted(self.blocks(node.children))
        if isinstance(node, explorer_node):
            at = f"{self.address}#explorer-{node['name']}"
            return f"**Explorer: [{escaped(node['title'])}]({at})**\n\n{self.blocks(node.children)}"
        if type(node).__name__ == "dropdown_main":
            title, *body = node.children
            return self.details(self.inline(title), [self.blocks(body)])
        if isinstance(node, nodes.container | nodes.compound | nodes.section):
            return self.blocks(node.children)
        logger.warning("a notebook cannot show <%s>", type(node).__name__, location=node, type="guide")
        return ""

    def listed(self, node: nodes.Element) -> str:
        items = []
        for number, item in enumerate(node.children, node.get("start", 1)):
            mark = f"{number}. " if isinstance(node, nodes.enumerated_list) else "- "
            items.append(mark + indented(self.blocks(item.children), " " * len(mark)))
        return "\n".join(items)

    def table(self, node: nodes.table) -> str:
        """A table with pipes: the head if there is one, and a line for each row."""
        rows = [[self.cell(entry) for entry in row.findall(nodes.entry)] for row in node.findall(nodes.row)]
        if next(iter(node.findall(nodes.thead)), None) is None:
            rows.insert(0, [""] * len(rows[0]))
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|" + "---|" * len(rows[0]))
        title = next(iter(node.findall(nodes.title)), None)
        return (f"**{self.inline(title)}**\n\n" if title is not None else "") + "\n".join(lines)

    def cell(self, entry: nodes.entry) -> str:
        """A cell on one line, in which no pipe may stand that does not separate."""
        text = "<br>".join(filter(None, map(self.block, entry.children))).replace("\n\n", "<br>").replace("\n", " ")
        text = re.sub(r"\$[^$]*\$", lambda found: re.sub(r"\\?\|", bar, found[0]), text)
        return re.sub(r"(?<!\\)\|", r"\\|", text)

    def figure(self, node: nodes.figure) -> str:
        images = [image for image in node.findall(nodes.image) if image.get("theme") != "dark"]
        caption = next(iter(node.findall(nodes.caption)), None)
        lines = [self.image(image) for image in images]
        return "\n\n".join([*lines, *([f"*Figure.* {self.inline(caption)}"] if caption is not None else [])])

    def image(self, node: nodes.image) -> str:
        name = self.images.get(node["uri"])
        where = urljoin(self.address, f"../_images/{name}") if name else urljoin(self.address, node["uri"])
        return f"![{escaped(node.get('alt', ''))}]({where})"

    # -- running text

    def inline(self, parent: nodes.Node) -> str:
        return "".join(map(self.text, parent.children)).strip()

    def text(self, node: nodes.Node) -> str:
        """A part of a sentence as Markdown."""
        if isinstance(node, nodes.Text):
            return escaped(node.astext())
        if isinstance(node, nodes.literal):
            said = node.astext()
            fence = "``" if "`" in said else "`"
            return f"{fence} {said} {fence}" if "`" in said else f"`{said}`"
        if isinstance(node, nodes.math):
            return f"${formula(node.astext())}$"
        if isinstance(node, nodes.image):
            return self.image(node)
        if isinstance(node, nodes.target | nodes.comment | nodes.raw):
            return ""
        inside = "".join(map(self.text, node.children))
        if isinstance(node, nodes.reference):
            where = node.get("refuri") or f"#{node['refid']}"
            return f"[{inside}]({urljoin(self.address, where)})"
        if isinstance(node, nodes.emphasis | nodes.strong) and inside.strip():
            mark = "*" if isinstance(node, nodes.emphasis) else "**"
            return f"{mark}{inside.strip()}{mark}"
        return inside


def bar(found: re.Match[str]) -> str:
    return r"\Vert " if found[0] == r"\|" else r"\vert "


def contents(body: Iterable[nodes.Node]) -> Iterable[nodes.Node]:
    """The blocks of a box, without the containers that only lay it out."""
    for node in body:
        if isinstance(node, nodes.container):
            yield from contents(node.children)
        else:
            yield node


def is_code(node: nodes.Node) -> bool:
    """Whether it is code that runs; a comment above it may say that it does not."""
    if not isinstance(node, nodes.literal_block) or node.get("language") != "python":
        return False
    before = node.parent[node.parent.index(node) - 1] if node.parent and node.parent.index(node) else None
    return not (isinstance(before, nodes.comment) and before.astext().startswith("skip"))


def quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def indented(text: str, by: str = "  ") -> str:
    return re.sub(r"\n(?=.)", f"\n{by}", text)


# --- the file --------------------------------------------------------------------------------------------------------


def notebook(cells: list[Cell], title: str) -> str:
    """The file, in the fourth major version of the format and the order of keys that Jupyter writes."""
    numbered = [{"id": f"cell-{number:03d}", **cell} for number, cell in enumerate(cells, 1)]
    for cell in numbered:
        cell["source"] = cell["source"].splitlines(keepends=True)
    whole = {"cells": numbered, "metadata": {**KERNEL, "title": title}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def introduced(cells: list[Cell], address: str, wanted: str, project: str) -> list[Cell]:
    """The cells of a chapter, of which the first says where it is from and what its code needs."""
    said = (
        f"*From [{project}]({address}). The page has more than a notebook can: figures for dark screens, explorers, "
        "and behind each claim what was measured.*\n\n"
        f'The code needs Python 3.11 or newer, and the package: `pip install "{wanted}"`. If it is not installed where '
        "this notebook runs, take away the `#` in the cell below and run it."
    )
    title, _, rest = cells[0]["source"].partition("\n\n")
    first = {**cells[0], "source": "\n\n".join(filter(None, [title, said, rest]))}
    return [first, code_cell(f'# %pip install "{wanted}"', ""), *cells[1:]]


def write(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Write the notebook of a chapter when its page is written."""
    if app.builder.name != "html" or not docname.startswith(FOLDER):
        return
    address = urljoin(app.config.html_baseurl, f"{docname}.html")
    writer = Writer(address, {uri: name for uri, (_, name) in app.env.images.items()})
    cells = writer.page(doctree)
    wanted = requirement("\n".join(writer.code), app.config.release)
    title = next(iter(doctree.findall(nodes.title))).astext()
    text = notebook(introduced(cells, address, wanted, app.config.project), title)
    slim.replace(Path(app.outdir) / f"{docname}.ipynb", text.encode("utf-8"))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", write, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
