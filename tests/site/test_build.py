"""The build: what is broken fails it, what is unchanged is not made again, and what it writes is complete."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from reading import build

import attn_guide

ROOT = Path(__file__).resolve().parents[2]
# Our configuration, without the parts that belong to this site alone: its gallery and its claims.
PLAIN = [
    option
    for setting in (
        "extensions=myst_parser,sphinxcontrib.bibtex,guide_ext.mathml",
        "bibtex_default_style=plain",
        "bibtex_reference_style=label",
    )
    for option in ("-D", setting)
]


FAULTS = {
    "page": ("See [the chapter](missing.md).", "missing"),
    "label": ("See {ref}`no-such-section`.", "no-such-section"),
    "document": ("See {doc}`/chapters/nowhere`.", "nowhere"),
    "paper": ("As shown {cite:p}`nobody1900`.", "nobody1900"),
    "command": (r"The root $\sqroot{x}$ is wrong.", r"unknown command \sqroot"),
    "brace": (r"$$\frac{1}{$$", "braces do not balance"),
    "fraction": (r"Half a fraction $\frac{1}$ here.", "<mfrac> has 1 parts instead of 2"),
    "image": ("![a figure](missing.svg)", "missing.svg"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A build of one page for each fault: a warning is an error, and the build goes on to find them all."""
    source = tmp_path_factory.mktemp("broken") / "docs"
    source.mkdir()
    toctree = "\n".join(["```{toctree}", *FAULTS, "```"])
    (source / "index.md").write_text(f"# Faults\n\n{toctree}\n", encoding="utf-8")
    for name, (line, _) in FAULTS.items():
        (source / f"{name}.md").write_text(f"# Title\n\nA sound paragraph, $x^2$.\n\n{line}\n", encoding="utf-8")
    return build(source, source.parent / "out", *PLAIN)


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_broken_fails_the_build_at_its_line(broken: subprocess.CompletedProcess[str], name: str) -> None:
    assert broken.returncode == 1, broken.stdout
    complaint = rf"/{name}\.md(:[45])?: WARNING: .*{re.escape(FAULTS[name][1])}"
    assert re.search(complaint, broken.stdout), broken.stdout


def test_the_same_page_without_the_fault_builds(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    text = "# Title\n\n(here)=\n## Section\n\nSound: $x^2$, {ref}`here`.\n\n"
    text += "$$y = \\Q \\K^\\top$$ (eq-y)\n\nSee {eq}`eq-y`.\n"
    (source / "index.md").write_text(text, encoding="utf-8")
    result = build(source, tmp_path / "out", *PLAIN)
    assert result.returncode == 0, result.stdout
    page = (tmp_path / "out" / "html" / "index.html").read_text(encoding="utf-8")
    assert page.count("<math") == 2
    assert '<span class="eqno">(1)' in page
    assert re.search(r'href="#equation-eq-y"[^>]*>(<span[^>]*>)?equation \(?1', page)


def test_an_unchanged_build_makes_nothing_again(html: Path, tmp_path: Path) -> None:
    """In a copy: other tests read the site at this time, and a build replaces what it shares, such as style sheets."""
    page = shutil.copytree(html, tmp_path / "html") / "index.html"
    before = page.stat().st_mtime_ns
    result = build(Path("docs"), tmp_path, "-d", "_build/doctrees")
    assert result.returncode == 0, result.stdout[-3000:]
    assert "reading sources... [" not in result.stdout, re.findall(r"reading sources.*", result.stdout)
    assert not re.search(r"successfully executed [1-9]", result.stdout)
    assert page.stat().st_mtime_ns == before


def test_no_page_names_a_script_or_style_of_another_host(html: Path, pages: list[str]) -> None:
    """The browser tests see what is asked for while they look; this sees what is written at all."""
    pattern = re.compile(
        r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*?\b(?:src|href)=[\"'](?:https?:)?//[^\"']+", re.I
    )
    canonical = re.compile(r"rel=[\"'](?:canonical|license)[\"']", re.I)
    found = [
        f"{path}: {tag[0][:150]}"
        for path in pages
        for tag in pattern.finditer((html / path).read_text(encoding="utf-8"))
        if not canonical.search(tag[0])
    ]
    assert not found, "\n".join(found)
    for sheet in (html / "_static").rglob("*.css"):
        assert not re.search(
            r"url\([\"']?(?:https?:)?//|@import\s+[\"'](?:https?:)?//", sheet.read_text(encoding="utf-8")
        )


def test_every_public_name_is_documented(html: Path) -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (html / "api" / "generated").glob("*.html"))
    missing = [
        name
        for name in attn_guide.__all__
        if callable(getattr(attn_guide, name)) and f'id="attn_guide.{name}"' not in pages
    ]
    assert not missing


def test_every_gallery_script_that_uses_a_function_is_shown_with_it(html: Path) -> None:
    users = [s for s in (ROOT / "gallery").rglob("plot_*.py") if "ag.softmax(" in s.read_text(encoding="utf-8")]
    assert users
    page = (html / "api" / "generated" / "core.html").read_text(encoding="utf-8")
    for script in users:
        assert script.with_suffix(".html").relative_to(ROOT).as_posix() in page
