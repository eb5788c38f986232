"""What a script, a page or a test reaches of the package, found without running it."""

from __future__ import annotations

import textwrap

import pytest
from guide_ext import freshness


@pytest.fixture
def package(tmp_path):
    """A package with the shapes of ours: re-exports, a subpackage with its own, a chain of imports."""
    files = {
        "__init__.py": """
            from . import masks
            from .core import softmax
            from .flash import flash_attention as flash
            from .heads import MultiHead, split
            __version__ = "1"
            __all__ = ["softmax", "flash", "MultiHead", "masks"]
            """,
        "_checks.py": "def check(x): ...",
        "core.py": "from ._checks import check\ndef softmax(x): ...",
        "masks.py": "def causal(): ...",
        "flash.py": "def flash_attention():\n    from .core import softmax\n    from .tiles import tile",
        "tiles.py": "size = 4",
        "heads.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .flash import x\ndef split(): ...\n"
        "class MultiHead: ...",
        "taxonomy.py": "from . import masks",
        "plot/__init__.py": "from .charts import bars\nfrom .cells import matrix\nINK = '#000'",
        "plot/charts.py": "from .ink import QUERY",
        "plot/cells.py": "from . import ink\nfrom ..masks import causal",
        "plot/ink.py": "QUERY = 1",
    }
    for name, text in files.items():
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).strip() + "\n", encoding="utf-8")
    return tmp_path / "pkg"


def reached(source, package, **kwargs):
    found = freshness.dependencies_of(textwrap.dedent(source), package, **kwargs)
    return {path.relative_to(package).as_posix() for path in found}


EVERY = {
    "__init__.py", "_checks.py", "core.py", "masks.py", "flash.py", "tiles.py", "heads.py", "taxonomy.py",
    "plot/__init__.py", "plot/charts.py", "plot/cells.py", "plot/ink.py",
}  # fmt: skip
CORE = {"core.py", "_checks.py"}
PLOT = {"plot/__init__.py", "plot/charts.py", "plot/cells.py", "plot/ink.py", "masks.py"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", set()),
        ("import pkg as ag", set()),
        ("import numpy as np\nnp.softmax(1)", set()),
        ("import pkg as ag\nag.softmax(1)", CORE),
        ("import pkg\npkg.softmax(1)", CORE),
        ("import pkg as ag\ndef f():\n    return [ag.softmax(i) for i in x]", CORE),
        ("def f():\n    import pkg as ag\n    return ag.softmax", CORE),
        ("from pkg import softmax", CORE),
        ("from pkg import softmax as s\ns(1)", CORE),
        ("from pkg.core import softmax", CORE),
        ("import pkg.core\npkg.core.softmax(1)", CORE),
        ("import pkg.core as c\nc.softmax(1)", CORE),
        ("from pkg import core\ncore.softmax(1)", CORE),
        ("import pkg as ag\nag.core.softmax(1)", CORE),
        ("import pkg as ag\nag.masks.causal()", {"masks.py"}),
        ("import pkg as ag\nag.MultiHead()", {"heads.py"}),  # what only a type checker imports does not count
        ("import pkg as ag\nag.flash()", {"flash.py", "tiles.py", *CORE}),  # imports inside functions count
        ("from pkg import taxonomy", {"taxonomy.py", "masks.py"}),
        ("from pkg import plot", set()),
        ("from pkg import plot\nplot.bars()", {"plot/charts.py", "plot/ink.py"}),
        ("import pkg as ag\nag.plot.matrix()", {"plot/cells.py", "plot/ink.py", "masks.py"}),
        ("from pkg.plot import matrix", {"plot/cells.py", "plot/ink.py", "masks.py"}),
        ("from pkg import plot\nplot.INK", PLOT),
        ("from pkg import plot\nplot.unknown", PLOT),
        ("import pkg as ag\nf(ag)", EVERY),
        ("import pkg as ag\ngetattr(ag, name)", EVERY),
        ("import pkg as ag\nother = ag\nother.softmax", EVERY),
        ("import pkg as ag\nag.not_there", EVERY),
        ("from pkg import *", EVERY),
        ("import importlib\nimportlib.import_module('pkg.core')", EVERY),
    ],
)  # fmt: skip
def test_what_a_source_reaches(package, source, expected):
    assert reached(source, package) == expected


def test_a_script_reaches_the_helpers_beside_it(package, tmp_path):
    (tmp_path / "plot_x.py").write_text("import _helper\nimport json\n", encoding="utf-8")
    (tmp_path / "_helper.py").write_text("from pkg import softmax\n", encoding="utf-8")
    found = freshness.dependencies(tmp_path / "plot_x.py", package)
    assert {p.relative_to(tmp_path).as_posix() for p in found} == {"_helper.py", "pkg/core.py", "pkg/_checks.py"}


def test_a_new_export_elsewhere_makes_nothing_stale(package, tmp_path):
    script = tmp_path / "plot_x.py"
    script.write_text("import pkg as ag\nag.softmax(1)\n", encoding="utf-8")
    before = freshness.fingerprint(freshness.dependencies(script, package))
    init = package / "__init__.py"
    init.write_text(init.read_text() + "from .tiles import size\n", encoding="utf-8")
    assert freshness.fingerprint(freshness.dependencies(script, package)) == before
    init.write_text(
        init.read_text().replace("from .core import softmax", "from .masks import softmax"), encoding="utf-8"
    )
    assert freshness.fingerprint(freshness.dependencies(script, package)) != before


def test_in_this_package():
    names = {
        p.relative_to(freshness.PACKAGE).as_posix() for p in freshness.dependencies_of("from attn_guide import softmax")
    }
    assert "core.py" in names
    assert not any(name.startswith("plot/") for name in names)
    assert "taxonomy.py" not in names
    bars = {p.name for p in freshness.dependencies_of("from attn_guide import plot\nplot.bars")}
    assert {"charts.py", "palette.py", "figures.py"} <= bars
    assert not {"routing.py", "diagrams.py", "core.py"} & bars


# --- one function ----------------------------------------------------------------------------------------------------

TESTS = """
import pytest
import pkg as ag
from pkg import plot
from pkg.masks import causal

LIMIT = 3
OTHER = plot.INK

def helper(x):
    return ag.softmax(x) + LIMIT

@pytest.fixture
def heads():
    return ag.MultiHead()

@pytest.fixture(autouse=True)
def quiet():
    yield ag.flash

def test_one():
    assert helper(1)

def test_two(heads):
    assert heads

class TestThree:
    def test_four(self):
        causal()

@pytest.mark.usefixtures("heads")
def test_five(): ...
"""


@pytest.fixture
def tests(tmp_path):
    path = tmp_path / "test_x.py"
    path.write_text(TESTS, encoding="utf-8")
    return path


FLASH = {"flash.py", "tiles.py", *CORE}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_one", FLASH),
        ("test_two", {"heads.py", *FLASH}),
        ("TestThree.test_four", {"masks.py", *FLASH}),
        ("test_five", {"heads.py", *FLASH}),
    ],
)
def test_what_one_function_reaches(package, tests, name, expected):
    found = freshness.function_dependencies(tests, name, package)
    assert {p.relative_to(package).as_posix() for p in found} == expected


def test_the_source_of_a_function_holds_what_it_uses_and_no_more(tests):
    source = freshness.function_source(tests, "test_one")
    assert "def helper" in source
    assert "LIMIT = 3" in source
    assert "import pkg as ag" in source
    assert "def quiet" in source
    assert "test_two" not in source
    assert "OTHER" not in source
    tests.write_text(TESTS.replace("def test_two(heads):", "def test_two(heads, x):"), encoding="utf-8")
    assert freshness.function_source(tests, "test_one") == source
    tests.write_text(TESTS.replace("LIMIT = 3", "LIMIT = 4"), encoding="utf-8")
    assert freshness.function_source(tests, "test_one") != source


def test_a_function_that_is_not_there(tests):
    with pytest.raises(LookupError, match="has no function 'test_nine'"):
        freshness.function_dependencies(tests, "test_nine")


# --- fingerprints ----------------------------------------------------------------------------------------------------


def test_fingerprints_follow_content_name_and_extra(tmp_path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("a", encoding="utf-8")
    two.write_text("b", encoding="utf-8")
    first = freshness.fingerprint([one, two])
    assert first == freshness.fingerprint([two, one, one])
    assert first != freshness.fingerprint([one])
    assert first != freshness.fingerprint([one, two], extra="numpy=2")
    one.write_text("b", encoding="utf-8")
    two.write_text("a", encoding="utf-8")
    assert first != freshness.fingerprint([one, two])
    one.unlink()
    assert freshness.fingerprint([one, two]) != first


def test_versions_name_what_is_missing():
    text = freshness.versions("numpy", "no-such-distribution-here")
    assert text.startswith("numpy=")
    assert text.endswith("no-such-distribution-here=absent")


def test_a_data_file_that_is_named_by_its_path_is_a_dependency(package):
    results = package.parent / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "flash.json").write_text("1")
    names = "'benchmarks/results/flash.json', 'benchmarks/results/gone.json', 'flash.json'"
    source = f"import pkg as ag\nread({names})"
    found = freshness.dependencies_of(source, package)
    assert found == {results / "flash.json"}
    script = package.parent / "plot_x.py"
    script.write_text(source)
    assert freshness.dependencies(script, package) == {results / "flash.json"}
    before = freshness.fingerprint(found)
    (results / "flash.json").write_text("2")
    assert freshness.fingerprint(found) != before
    (results / "gone.json").write_text("3")  # a file that appears makes the script stale too
    assert freshness.dependencies_of(source, package) == {results / "flash.json", results / "gone.json"}


def test_the_figures_of_the_numbers_page_depend_on_the_results():
    for name in ("plot_flash_ratio.py", "plot_growth.py"):
        reached = freshness.dependencies(freshness.ROOT / "gallery/appendices" / name)
        assert sum(path.parent.name == "results" for path in reached) == 2
