"""Figures: from the scripts of ``gallery/`` to the pages, and never older than the code that drew them.

In ``conf.py``::

    extensions = [..., "sphinx_gallery.gen_gallery", "guide_ext.figures"]
    sphinx_gallery_conf = guide_ext.figures.gallery_conf()

What happens in a build:

1. Before sphinx-gallery, :func:`forget_stale` compares each script's fingerprint (its text, the files of the package
   that it reaches, the versions of what draws) with that of the last build, and makes sphinx-gallery forget exactly
   the scripts that changed, with all that they left behind. Scripts that are gone lose their pages and figures.
2. sphinx-gallery runs those scripts; :func:`scrape` writes what they drew.
3. :func:`remember` notes the fingerprints of the scripts that succeeded and writes ``_build/figures/index.json``: for
   each figure its script, page and files.
4. ``gallery-figure`` puts a figure on a page::

       :::{gallery-figure} concepts-score-variance
       :::

   Options: ``class`` (added to the figure) and ``width`` (a CSS length, the most it may take). Content replaces the
   caption. A name that no script has drawn is a warning with the nearest names, and warnings fail the build. The
   anchor is ``fig-NAME``, and ``{ref}`fig-NAME``` links to it.

API pages list the gallery examples of a function with::

    ```{eval-rst}
    .. minigallery:: attn_guide.softmax
    ```
"""

from __future__ import annotations

import difflib
import html
import json
import posixpath
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.utils import new_document
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.locale import _
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import attn_guide

from . import freshness

logger = logging.getLogger(__name__)

#: The order of the gallery's sections is that of the guide.
SECTIONS = (
    "home",
    "0_concepts",
    "1_self_attention",
    "2_cross_attention",
    "3_multi_head",
    "4_causal",
    "5_sparse",
    "6_score_functions",
    "7_soft_hard",
    "appendices",
)

#: What draws and writes, beyond what a script names: a change here makes every figure stale.
MACHINERY = ("numpy", "matplotlib", "fonttools", "sphinx-gallery")

#: Figures wider than the column of text are shrunk no further than this on a narrow screen; then they scroll.
COLUMN = 615
LEAST_SCALE = 0.55

#: What stands before and after a script that is downloaded as a notebook. Nothing there shows a figure by itself.
NOTEBOOK_START = f"""\
# What this notebook needs. Where it is not installed, take away the second # and run this cell.
# %pip install "attn-guide[models,plot]=={attn_guide.__version__}\""""
NOTEBOOK_END = """\
for figure in plot.take():
    display(figure)"""


def gallery_conf(**changes: Any) -> dict[str, Any]:
    """The value of ``sphinx_gallery_conf``, with changes.

    Everything is given by name, so that the configuration can be pickled and a rebuild stays a rebuild.
    """
    conf: dict[str, Any] = {
        "examples_dirs": ["../gallery"],
        "gallery_dirs": ["gallery"],
        "filename_pattern": r"/plot_",
        "ignore_pattern": r"/_",
        "within_subsection_order": "FileNameSortKey",
        "subsection_order": "guide_ext.figures.section_order",
        "image_scrapers": ("guide_ext.figures.scrape",),
        "reset_modules": ("guide_ext.figures.reset",),
        "doc_module": ("attn_guide",),
        "backreferences_dir": "api/generated",
        "abort_on_example_error": False,
        "only_warn_on_example_error": False,
        "capture_repr": (),
        "min_reported_time": 5,
        "show_memory": False,
        "show_api_usage": False,
        "show_signature": False,
        "write_computation_times": False,
        "remove_config_comments": True,
        "download_all_examples": True,
        "first_notebook_cell": NOTEBOOK_START,
        "last_notebook_cell": NOTEBOOK_END,
        "nested_sections": True,
        "thumbnail_size": (400, 280),
        "copyfile_regex": r".*\.rst",
        "parallel": False,
    }
    conf.update(changes)
    return conf


def section_order(directory: str) -> tuple[int, str]:
    """Sort key of a section: the order of the guide, then the alphabet."""
    name = Path(str(directory).rstrip("/")).name
    return (SECTIONS.index(name) if name in SECTIONS else len(SECTIONS), name)


# ---------------------------------------------------------------------------------------------------------------------
# Running the scripts


#: Scripts whose figures could not be saved in this build, and why.
_unsaved: list[tuple[Path, str]] = []


def reset(conf: dict[str, Any], fname: Any) -> None:
    """Forget figures of an earlier script, such as one that failed halfway."""
    from attn_guide import plot

    plot.take()


def scrape(block: Any, block_vars: dict[str, Any], conf: dict[str, Any], **_: Any) -> str:
    """Write the figures that a block of a script has made; sphinx-gallery calls this after each block.

    A figure that cannot be saved, because nothing describes it or its texts overlap, fails the build at its end, when
    all such figures have been named.
    """
    from attn_guide import plot

    source, target = Path(block_vars["src_file"]), Path(block_vars["target_file"])
    figures, rst = plot.take(), ""
    if "formatted_exception" in block_vars:  # the script failed, which sphinx-gallery reports
        return rst
    for fig in figures:
        try:
            light, dark = plot.save(fig, target.parent / "images", script=_script_name(source, conf))
        except ValueError as error:
            _unsaved.append((target, f"{source}: {error}"))
            logger.warning("%s: %s", source, error, type="guide", subtype="figure")
            continue
        thumbnail = Path(next(block_vars["image_path_iterator"])).with_suffix(".svg")
        shutil.copyfile(light, thumbnail)
        shutil.copyfile(dark, thumbnail.with_name(thumbnail.stem + "-dark.svg"))
        rst += f"\n\n.. gallery-figure:: {fig.guide_name}\n   :own:\n\n"
    return rst


def _script_name(source: Path, conf: dict[str, Any]) -> str:
    """A script's path, from the folder that holds the gallery: ``gallery/0_concepts/plot_x.py``."""
    for directory in _as_list(conf["examples_dirs"]):
        root = (Path(conf["src_dir"]) / directory).resolve()
        if source.resolve().is_relative_to(root):
            return (Path(root.name) / source.resolve().relative_to(root)).as_posix()
    return source.name


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True)
class Script:
    """A gallery script and the page that sphinx-gallery makes of it."""

    source: Path
    target: Path
    name: str
    docname: str

    def fingerprint(self, package: Path) -> str:
        """A hash over the script, what it reaches of the package, and what draws; of a broken script, none."""
        try:
            reached = freshness.dependencies(self.source, package)
        except SyntaxError:  # sphinx-gallery says where
            return ""
        writers = freshness.dependencies_of("from attn_guide.plot import save", package) if package.is_dir() else set()
        return freshness.fingerprint({self.source, *reached, *writers}, extra=freshness.versions(*MACHINERY))

    def figures(self) -> list[Path]:
        """The sidecars of the figures that it has drawn."""
        return [path for path in _sidecars(self.target.parent / "images") if _read(path).get("script") == self.name]


def scripts(app: Sphinx) -> list[Script]:
    """The scripts of the gallery, in order."""
    conf = app.config.sphinx_gallery_conf
    found = []
    for examples, gallery in zip(_as_list(conf["examples_dirs"]), _as_list(conf["gallery_dirs"]), strict=True):
        root, out = (Path(app.srcdir) / examples).resolve(), Path(app.srcdir) / gallery
        for source in sorted(root.rglob("plot_*.py")):
            inside = source.relative_to(root)
            docname = (Path(gallery) / inside).with_suffix("").as_posix()
            found.append(Script(source, out / inside, (Path(root.name) / inside).as_posix(), docname))
    return found


def _sidecars(images: Path) -> list[Path]:
    return sorted(images.glob("*.json")) if images.is_dir() else []


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def _state(app: Sphinx) -> Path:
    return Path(app.confdir) / app.config.guide_figures_state


def _package(app: Sphinx) -> Path:
    return (Path(app.confdir) / app.config.guide_figures_package).resolve()


def _drawn(sidecar: Path) -> tuple[Path, Path]:
    return sidecar.with_suffix(".svg"), sidecar.with_name(sidecar.stem + "-dark.svg")


@freshness.unchanged()
def forget_stale(app: Sphinx) -> None:
    """Make sphinx-gallery run again exactly the scripts whose figures are not what they would draw today."""
    _unsaved.clear()
    if not app.config.sphinx_gallery_conf.get("plot_gallery", True):
        return
    known = _read(_state(app) / "fingerprints.json")
    present = scripts(app)
    _remove_orphans(app, {script.target for script in present})
    for script in present:
        was = known.get(script.name, {})
        sidecars = script.figures()
        complete = set(was.get("figures", ())) == {path.stem for path in sidecars} and all(
            file.is_file() for path in sidecars for file in _drawn(path)
        )
        if complete and was.get("fingerprint", "") == script.fingerprint(_package(app)) != "":
            continue
        script.target.with_name(script.target.name + ".md5").unlink(missing_ok=True)
        for path in sidecars:
            for file in (path, *_drawn(path)):
                file.unlink(missing_ok=True)


def _remove_orphans(app: Sphinx, targets: set[Path]) -> None:
    """Remove the page, downloads and figures of scripts that are gone."""
    for gallery in _as_list(app.config.sphinx_gallery_conf["gallery_dirs"]):
        for copy in (Path(app.srcdir) / gallery).rglob("plot_*.py"):
            if copy in targets:
                continue
            images = copy.parent / "images"
            name = (Path("gallery") / copy.relative_to(Path(app.srcdir) / gallery)).as_posix()
            left = [*copy.parent.glob(f"{copy.stem}.*"), *copy.parent.glob(f"{copy.stem}_codeobj*")]
            left += [*images.glob(f"sphx_glr_{copy.stem}_*"), *images.glob(f"thumb/sphx_glr_{copy.stem}_*")]
            left += [
                f for path in _sidecars(images) if _read(path).get("script") == name for f in (path, *_drawn(path))
            ]
            for path in left:
                path.unlink(missing_ok=True)


@freshness.unchanged()
def remember(app: Sphinx) -> None:
    """Note the fingerprints of the scripts that succeeded, and write the index of figures."""
    fingerprints: dict[str, Any] = {}
    index: dict[str, Any] = {}
    for target, _why in _unsaved:
        target.with_name(target.name + ".md5").unlink(missing_ok=True)
    for script in scripts(app):
        for path in script.figures():
            told, (light, dark) = _read(path), _drawn(path)
            if told["name"] in index:
                logger.warning(
                    "figure %r is drawn by %s and by %s", told["name"], index[told["name"]]["script"], script.name,
                    type="guide", subtype="figure",
                )  # fmt: skip
            files = {"sidecar": path, "light": light, "dark": dark}
            index[told["name"]] = {
                **told,
                "docname": script.docname,
                **{kind: file.relative_to(app.srcdir).as_posix() for kind, file in files.items()},
            }
        if script.target.with_name(script.target.name + ".md5").is_file():
            fingerprints[script.name] = {
                "fingerprint": script.fingerprint(_package(app)),
                "figures": [path.stem for path in script.figures()],
            }
    state = _state(app)
    state.mkdir(parents=True, exist_ok=True)
    for name, content in (("fingerprints", fingerprints), ("index", index)):
        text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        (state / f"{name}.json").write_text(text, encoding="utf-8")
    app.env.guide_figures = index  # type: ignore[attr-defined]


def fail_unsaved(app: Sphinx, exception: Exception | None) -> None:
    """Fail the build if a figure could not be saved."""
    problems, _unsaved[:] = [why for _, why in _unsaved], []
    if problems and exception is None:
        raise ExtensionError("figures could not be saved:\n" + "\n".join(problems))


# ---------------------------------------------------------------------------------------------------------------------
# On the page


class figure_frame(nodes.General, nodes.Element):
    """What scrolls when a figure is wider than the screen; also keeps the theme's rules from hiding the caption."""


class figure_image(nodes.image):
    """One of the two pictures of a figure."""


class GalleryFigure(SphinxDirective):
    """Put a figure of the gallery on a page."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"class": directives.class_option, "width": directives.unchanged, "own": directives.flag}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        index: dict[str, Any] = getattr(self.env, "guide_figures", {})
        if name not in index:
            near = difflib.get_close_matches(name, index, n=3, cutoff=0.4)
            hint = f"; near: {', '.join(near)}" if near else f"; the gallery has {len(index)} figures"
            logger.warning(
                "no script of the gallery draws a figure %r%s", name, hint, location=self.get_location(),
                type="guide", subtype="figure",
            )  # fmt: skip
            return []
        told = index[name]
        for kind in ("sidecar", "light", "dark"):
            self.env.note_dependency(str(Path(self.env.srcdir) / told[kind]))
        frame = figure_frame(name=name, title=told["title"], wide=told["width"] > COLUMN)
        for theme in ("light", "dark"):
            image = figure_image(
                uri=self._relative(told[theme]), alt=told["alt"], classes=[f"only-{theme}", "guide-figure-image"],
                theme=theme, px_width=told["width"], px_height=told["height"],
                most=self.options.get("width", ""),
            )  # fmt: skip
            frame += image
        text = "\n".join(self.content) or told["caption"]
        caption = nodes.caption(rawsource=text, drawn=not self.content)
        self.set_source_info(caption)
        caption += self._caption(text)
        if "own" not in self.options:
            caption["script"] = told["docname"]
        figure = nodes.figure("", frame, caption, classes=["guide-figure", *self.options.get("class", [])])
        figure["align"] = "default"
        self.set_source_info(figure)
        self._anchor(figure, f"fig-{name}", told["title"])
        return [figure]

    def _relative(self, path: str) -> str:
        """The path as an image of this page would be written: from the page's own folder."""
        return posixpath.relpath(path, posixpath.dirname(self.env.docname) or ".")

    def _caption(self, text: str) -> list[nodes.Node]:
        """The caption as Markdown, whatever format the page is in."""
        from myst_parser.parsers.sphinx_ import MystParser

        document = new_document(self.get_source_info()[0] or "caption", self.state.document.settings)
        MystParser().parse(text, document)
        inline: list[nodes.Node] = []
        for child in document.children:
            if isinstance(child, nodes.paragraph):
                inline += ([nodes.Text(" ")] if inline else []) + child.children
            elif not isinstance(child, nodes.system_message):
                logger.warning(
                    "the caption of a figure holds more than running text", location=self.get_location(),
                    type="guide", subtype="figure",
                )  # fmt: skip
        return inline

    def _anchor(self, figure: nodes.figure, anchor: str, title: str) -> None:
        """An id for links; the first page of the guide that shows a figure is where ``{ref}`` leads."""
        if anchor in self.state.document.ids:
            return
        figure["ids"].append(anchor)
        self.state.document.ids[anchor] = figure
        if "own" in self.options:
            return
        labels = self.env.domains.standard_domain.labels
        if anchor not in labels or labels[anchor][0] == self.env.docname:
            labels[anchor] = (self.env.docname, anchor, title)
            self.env.domains.standard_domain.anonlabels[anchor] = (self.env.docname, anchor)


class LinkScripts(SphinxTransform):
    """Ends each caption with a link to the script of its figure, after a translation may have taken its place."""

    default_priority = 22

    def apply(self, **kwargs: Any) -> None:
        for caption in self.document.findall(nodes.caption):
            if "script" in caption:
                caption += [nodes.Text(" "), self._link(caption.attributes.pop("script"))]

    def _link(self, docname: str) -> nodes.Node:
        reference = addnodes.pending_xref(
            "", refdoc=self.env.docname, refdomain="std", reftype="doc", reftarget=f"/{docname}", refexplicit=True,
            refwarn=True, classes=["guide-figure-link"],
        )  # fmt: skip
        reference += nodes.inline("", _("How it was made"), classes=["xref", "std", "std-doc"])
        return reference


def pair_thumbnails(app: Sphinx, doctree: nodes.document) -> None:
    """Give each thumbnail of a gallery its dark twin."""
    for image in list(doctree.findall(nodes.image)):
        found = re.search(r"thumb/sphx_glr_(.+)_thumb\.svg$", image.get("uri", ""))
        if not found or isinstance(image, figure_image):
            continue
        thumb = Path(app.env.relfn2path(image["uri"])[1])
        for light in sorted(thumb.parent.parent.glob(f"sphx_glr_{found[1]}_*[0-9].svg")):
            dark = light.with_name(f"{light.stem}-dark.svg")
            if dark.is_file() and thumb.is_file() and light.read_bytes() == thumb.read_bytes():
                twin = image.deepcopy()
                twin["uri"] = image["uri"][: found.start()] + dark.name
                image["classes"] += ["only-light"]
                twin["classes"] += ["only-dark"]
                image.parent.insert(image.parent.index(image) + 1, twin)
                break


def visit_frame_html(self: Any, node: figure_frame) -> None:
    scrolls = (
        f' tabindex="0" role="group" aria-label="{html.escape(node["title"], quote=True)}"' if node["wide"] else ""
    )
    self.body.append(f'<div class="guide-figure-frame" style="overflow-x:auto"{scrolls}>')


def depart_frame_html(self: Any, node: figure_frame) -> None:
    self.body.append("</div>\n")


def visit_image_html(self: Any, node: figure_image) -> None:
    """An ``img`` that keeps its place while it loads, and shrinks with the page but not into illegibility."""
    if self.builder.name == "epub" and node["theme"] == "dark":
        raise nodes.SkipNode
    uri = node["uri"]
    if uri in self.builder.images:
        uri = posixpath.join(self.builder.imgpath, quote(self.builder.images[uri]))
    width, height = node["px_width"], node["px_height"]
    css = "height:auto"
    if width > COLUMN:
        css += f";min-width:{LEAST_SCALE * width:.0f}px"
    if node["most"]:
        css += f";width:{node['most']}"
    classes = " ".join(node["classes"])
    self.body.append(
        f'<img class="{classes}" src="{html.escape(uri, quote=True)}" alt="{html.escape(node["alt"], quote=True)}" '
        f'width="{width}" height="{height}" loading="lazy" decoding="async" style="{css}">'
    )
    raise nodes.SkipNode


def visit_image_other(self: Any, node: figure_image) -> None:
    if node["theme"] == "dark":
        raise nodes.SkipNode
    self.visit_image(node)


def depart_image_other(self: Any, node: figure_image) -> None:
    self.depart_image(node)


def pass_by(self: Any, node: nodes.Element) -> None:
    """Formats that need no frame."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the two steps around sphinx-gallery's."""
    app.setup_extension("sphinx_gallery.gen_gallery")
    app.add_config_value("guide_figures_state", "_build/figures", "", types=frozenset({str}))
    app.add_config_value("guide_figures_package", "attn_guide", "", types=frozenset({str}))
    others = dict.fromkeys(("latex", "text", "man", "texinfo"), (pass_by, pass_by))
    app.add_node(figure_frame, html=(visit_frame_html, depart_frame_html), **others)  # type: ignore[arg-type]
    others = dict.fromkeys(("latex", "text", "man", "texinfo"), (visit_image_other, depart_image_other))
    app.add_node(figure_image, html=(visit_image_html, pass_by), **others)  # type: ignore[arg-type]
    app.add_directive("gallery-figure", GalleryFigure)
    app.add_transform(LinkScripts)
    app.connect("builder-inited", forget_stale, priority=400)  # sphinx-gallery runs at 500
    app.connect("builder-inited", remember, priority=600)
    app.connect("doctree-read", pair_thumbnails, priority=400)  # before Sphinx collects the images, at 500
    app.connect("build-finished", fail_unsaved)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
