"""From scripts to pages in a small project of its own: what runs, what runs again, what fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = '''
"""
Figure {name}
=============

What it shows.
"""
from pathlib import Path

import {package} as tp
from attn_guide import plot

Path({log!r}).open("a").write("{name}\\n")
fig = plot.figure("demo-{name}", title="The value is {name}", caption="By `tp.{function}`, *once*.", size=(3, 2))
plot.bars(fig.subplots(), ["a"], [tp.{function}()])
plot.describe(fig, f"One bar of height {{tp.{function}():.1f}} and no other.")
'''

CONF = """
import sys
sys.path[:0] = [{ext!r}, {here!r}]
from guide_ext import figures
project = "demo"
extensions = ["myst_parser", "guide_ext.figures"]
myst_enable_extensions = ["colon_fence"]
nitpicky = True
exclude_patterns = ["gallery/**/*.ipynb", "gallery/**/*.py"]
sphinx_gallery_conf = figures.gallery_conf(doc_module=("tinypkg",))
guide_figures_package = "tinypkg"
"""

PAGE = """
# Demo

:::{gallery-figure} demo-alpha
:::

:::{gallery-figure} demo-beta
:class: wide
:width: 10rem

Another *caption*.
:::

See {ref}`fig-demo-alpha`.

```{toctree}
gallery/index
```
"""


class Project:
    """A documentation project with two scripts, each using one of two modules of a package."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("tinypkg/__init__.py", "from .a import alpha\nfrom .b import beta\n")
        self.write("tinypkg/a.py", "def alpha(): return 1.0\n")
        self.write("tinypkg/b.py", "def beta(): return 2.0\n")
        self.write("conf.py", CONF.format(ext=str(ROOT / "docs" / "_ext"), here=str(root)))
        self.write("docs/index.md", PAGE)
        self.write("gallery/GALLERY_HEADER.rst", "Gallery\n=======\n\nAll.\n")
        self.write("gallery/0_concepts/GALLERY_HEADER.rst", "Concepts\n--------\n\nSome.\n")
        for name, function in (("alpha", "alpha"), ("beta", "beta")):
            self.script(name, function)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"), encoding="utf-8")

    def script(self, name: str, function: str) -> None:
        log = str(self.root / "ran.txt")
        self.write(
            f"gallery/0_concepts/plot_{name}.py",
            SCRIPT.format(name=name, function=function, package="tinypkg", log=log),
        )

    def build(self) -> tuple[int, str, list[str]]:
        """Exit status, what was said, and which scripts ran."""
        log = self.root / "ran.txt"
        log.unlink(missing_ok=True)
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "sphinx",
                "-n",
                "-W",
                "--keep-going",
                "-b",
                "html",
                "-c",
                ".",
                "docs",
                "out",
                "-d",
                "trees",
            ],
            cwd=self.root,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"},
        )
        ran = log.read_text().split() if log.exists() else []
        return result.returncode, result.stdout + result.stderr, ran

    def images(self) -> dict[str, bytes]:
        folder = self.root / "docs" / "gallery" / "0_concepts" / "images"
        return {p.name: p.read_bytes() for p in folder.glob("demo-*")}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("demo"))
    status, said, ran = made.build()
    assert status == 0, said
    assert ran == ["alpha", "beta"]
    return made


def test_an_unchanged_build_runs_nothing_and_writes_no_page_anew(project):
    status, said, ran = project.build()
    assert status == 0, said
    assert ran == []
    assert re.search(r"0 added, 0 changed, 0 removed", said)


def test_a_change_to_a_module_runs_exactly_the_scripts_that_use_it(project):
    before = project.images()
    project.write("tinypkg/b.py", "def beta(): return 3.0\n")
    status, said, ran = project.build()
    assert status == 0, said
    assert ran == ["beta"]
    after = project.images()
    assert {n for n in after if after[n] != before[n]} == {"demo-beta.svg", "demo-beta-dark.svg", "demo-beta.json"}
    page = (project.root / "out" / "index.html").read_text(encoding="utf-8")
    assert "One bar of height 3.0" in page
    assert "One bar of height 2.0" not in page


def test_a_change_to_the_exports_alone_runs_nothing(project):
    project.write("tinypkg/__init__.py", "from .b import beta\nfrom .a import alpha\nmore = 1\n")
    assert project.build()[2] == []


def test_a_lost_picture_is_drawn_again_with_the_same_bytes(project):
    before = project.images()
    (project.root / "docs/gallery/0_concepts/images/demo-alpha-dark.svg").unlink()
    status, said, ran = project.build()
    assert status == 0, said
    assert ran == ["alpha"]
    assert project.images() == before


def test_the_page_shows_a_pair_with_its_text_and_the_way_it_was_made(project):
    page = (project.root / "out" / "index.html").read_text(encoding="utf-8")
    figure = re.search(r'<figure[^>]*id="fig-demo-alpha".*?</figure>', page, re.S)[0]
    images = re.findall(r"<img[^>]+>", figure)
    assert [re.search(r'class="(only-\w+)', i)[1] for i in images] == ["only-light", "only-dark"]
    for image, name in zip(images, ("demo-alpha.svg", "demo-alpha-dark.svg"), strict=True):
        source = re.search(r'src="([^"]+)"', image)[1]
        assert source == f"_images/{name}"
        assert (project.root / "out" / source).is_file()
        assert 'alt="One bar of height 1.0 and no other."' in image
        assert 'width="288" height="192" loading="lazy"' in image
    assert (
        '<code class="docutils literal notranslate"><span class="pre">tp.alpha</span></code>, <em>once</em>.' in figure
    )
    assert re.search(r'href="gallery/0_concepts/plot_alpha.html"[^>]*>\s*<span[^>]*>How it was made', figure)
    assert 'href="#fig-demo-alpha"' in page
    # the theme hides a figcaption that follows a dark picture in the same parent
    assert re.search(r"</div>\s*<figcaption>", figure)


def test_options_and_content_change_what_is_shown(project):
    page = (project.root / "out" / "index.html").read_text(encoding="utf-8")
    figure = re.search(r'<figure[^>]*id="fig-demo-beta".*?</figure>', page, re.S)[0]
    assert "wide" in re.search(r'<figure class="([^"]+)"', figure)[1].split()
    assert "width:10rem" in figure
    assert "Another <em>caption</em>." in figure


def test_the_script_page_shows_its_own_figure_without_a_link_to_itself(project):
    page = (project.root / "out/gallery/0_concepts/plot_alpha.html").read_text(encoding="utf-8")
    figure = re.search(r'<figure[^>]*id="fig-demo-alpha".*?</figure>', page, re.S)[0]
    assert "How it was made" not in figure
    assert '<span class="pre">tp.alpha</span>' in figure  # the caption is Markdown on this page too
    assert "plot_alpha.ipynb" in page


def test_the_gallery_has_a_thumbnail_of_each(project):
    page = (project.root / "out/gallery/index.html").read_text(encoding="utf-8")
    assert set(re.findall(r"sphx_glr_plot_(\w+)_thumb\.svg", page)) == {"alpha", "beta"}
    for name in ("alpha", "beta"):
        light, dark = re.findall(rf'<img[^>]*src="[^"]*sphx_glr_plot_{name}_[^"]*"[^>]*>', page)
        assert "only-light" in light
        assert "only-dark" in dark
        for image in (light, dark):
            assert (project.root / "out/gallery" / re.search(r'src="([^"]+)"', image)[1]).is_file()


def test_the_index_of_figures(project):
    index = json.loads((project.root / "_build/figures/index.json").read_text(encoding="utf-8"))
    assert set(index) == {"demo-alpha", "demo-beta"}
    assert index["demo-alpha"]["docname"] == "gallery/0_concepts/plot_alpha"
    assert index["demo-alpha"]["script"] == "gallery/0_concepts/plot_alpha.py"
    assert str(project.root) not in json.dumps(index)


def test_api_pages_can_list_the_examples_of_a_function(project):
    listed = (project.root / "docs/api/generated/tinypkg.alpha.examples").read_text(encoding="utf-8")
    assert "plot_alpha" in listed
    assert "plot_beta" not in listed


# --- what fails; each on a project of its own -----------------------------------------------------------------------


def test_a_script_that_raises_fails_the_build_and_stays_stale(tmp_path):
    made = Project(tmp_path)
    script = tmp_path / "gallery/0_concepts/plot_beta.py"
    good = script.read_text()
    script.write_text(good + "raise RuntimeError('no such luck')\n", encoding="utf-8")
    status, said, ran = made.build()
    assert status != 0
    assert "no such luck" in said
    assert ran == ["alpha", "beta"]
    status, said, ran = made.build()
    assert status != 0
    assert ran == ["beta"]
    script.write_text(good + "this is no Python", encoding="utf-8")
    status, said, ran = made.build()
    assert status != 0
    assert "SyntaxError" in said
    assert ran == []
    script.write_text(good, encoding="utf-8")
    status, said, ran = made.build()
    assert status == 0, said
    assert ran == ["beta"]


def test_figures_that_cannot_be_read_fail_the_build_all_at_once(tmp_path):
    made = Project(tmp_path)
    for name in ("alpha", "beta"):
        script = tmp_path / f"gallery/0_concepts/plot_{name}.py"
        extra = 'fig.axes[0].text(0, 0.5, "one")\nfig.axes[0].text(0, 0.5, "two")\n'
        script.write_text(script.read_text() + (extra if name == "alpha" else 'fig.guide_alt = ""\n'), encoding="utf-8")
    status, said, _ = made.build()
    assert status != 0
    assert "demo-alpha: 'one' and 'two' overlap" in said
    assert "demo-beta: has no alternative text" in said
    assert made.build()[2] == ["alpha", "beta"]


def test_an_unknown_name_fails_the_build_and_names_the_nearest(tmp_path):
    made = Project(tmp_path)
    made.write("docs/index.md", PAGE.replace("{gallery-figure} demo-alpha", "{gallery-figure} demo-alfa"))
    status, said, _ = made.build()
    assert status != 0
    assert re.search(
        r"index\.md:\d+: WARNING: no script of the gallery draws a figure 'demo-alfa'; near: demo-alpha", said
    )


def test_what_a_removed_script_left_is_removed(tmp_path):
    made = Project(tmp_path)
    assert made.build()[0] == 0
    (tmp_path / "gallery/0_concepts/plot_beta.py").unlink()
    made.write("docs/index.md", re.sub(r":::\{gallery-figure\} demo-beta.*?\n:::\n", "", PAGE, flags=re.S))
    status, said, ran = made.build()
    assert status == 0, said
    assert ran == []
    assert not list((tmp_path / "docs/gallery").rglob("*beta*"))


def test_two_builds_from_nothing_give_the_same_pictures(tmp_path):
    pictures = []
    for name in ("one", "two"):
        made = Project(tmp_path / name)
        assert made.build()[0] == 0
        pictures.append({n: b for n, b in made.images().items() if n.endswith(".svg")})
    assert len(pictures[0]) == 4
    assert pictures[0] == pictures[1]


def test_sections_stand_in_the_order_of_the_guide():
    from guide_ext.figures import SECTIONS, section_order

    folders = sorted(p.name for p in (ROOT / "gallery").iterdir() if (p / "GALLERY_HEADER.rst").is_file())
    assert sorted(folders, key=section_order) == list(SECTIONS)
    assert sorted(["zz", "5_sparse", "home"], key=section_order) == ["home", "5_sparse", "zz"]
