"""The ledger: what a claim records, what is stale, and what stops a build."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from docutils import nodes
from guide_ext import claims, prose

ROOT = Path(__file__).resolve().parents[2]

PASSING = '''
import numpy as np
import pytest

SIZE = 1000


def mean(rng):
    return rng.standard_normal(SIZE).mean()


@pytest.mark.claim("home-mean")
def test_mean(claim):
    """The mean of a thousand normal numbers."""
    rng = claim.rng(7)
    claim.note(samples=SIZE, kind="normal")
    claim.check("mean", mean(rng), expected=0, tolerance=4 / SIZE**0.5, why="four standard errors")
    claim.require("finite", True)


@pytest.mark.claim("home-two")
def test_two(claim):
    claim.check("one and one", 1 + 1, expected=2)
'''

PAGE = """
# Home

:::{claim} home-mean
The mean of *normal* numbers is near $0$.
:::

:::{claim} home-two
One and one is two.
:::

From {calc}`measured("home-mean")["samples"]:,` samples: {calc}`measured("home-mean")["mean"]:.4f`.
"""


def records(project) -> dict:
    return json.loads((project.root / "_build/claims/ledger.json").read_text(encoding="utf-8"))


@pytest.fixture
def guide(project):
    """A small guide with two claims that hold."""
    project.write("tests/claims/test_home.py", PASSING)
    project.write("docs/index.md", PAGE)
    return project


# -- recording


def test_a_claim_records_plain_numbers():
    claim = claims.Claim("home-x")
    rng = claim.rng(3)
    assert rng.integers(1000) == np.random.default_rng(3).integers(1000)
    claim.note(samples=np.int64(10), shape=(np.int32(2), 3), name="x", table={"a": np.float32(0.5)})
    claim.check("value", np.float64(0.5), expected=np.float32(0.5))
    claim.check("array", np.array([1.0, 2.0]), expected=[1, 2])
    claim.check("all alike", np.ones(3), expected=1)
    claim.check("relative", 101.0, expected=100, tolerance=0.01, relative=True)
    claim.check("infinite", -np.inf, expected=-np.inf)
    claim.below("small", np.array([0.1, 0.2]), 0.3)
    claim.above("large", 4, 3, why="counted")
    claim.require("true", np.bool_(True))
    assert claim.seeds == [3]
    assert claim.notes == {"samples": 10, "shape": [2, 3], "name": "x", "table": {"a": 0.5}}
    assert json.loads(json.dumps(claim.checks)) == claim.checks
    assert [check["passed"] for check in claim.checks] == [True] * 8
    assert claim.checks[1]["measured"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (
            lambda c: c.check("v", 0.5, expected=0.4, tolerance=0.09, why="rounding"),
            "measured 0.5, expected 0.4 ± 0.09",
        ),
        (lambda c: c.check("v", 0.5, expected=0.4), "measured 0.5, expected 0.4"),
        (lambda c: c.check("v", [1.0, 2.0], expected=[1.0, 2.1], tolerance=0.05), "expected [1, 2.1] ± 0.05"),
        (lambda c: c.check("v", [1.0, 1.0], expected=[1.0, 1.0, 1.0]), "expected [1, 1, 1]"),
        (lambda c: c.check("v", 102.0, expected=100, tolerance=0.01, relative=True), "expected 100 ± 1 %"),
        (lambda c: c.check("v", float("nan"), expected=0, tolerance=1e9), "measured nan"),
        (lambda c: c.check("v", "row", expected="column"), "measured row, expected column"),
        (lambda c: c.below("v", 0.3, 0.3), "measured 0.3, expected below 0.3"),
        (lambda c: c.above("v", [4, 2], 3), "measured [4, 2], expected above 3"),
        (lambda c: c.require("v", False), "does not hold"),
        (lambda c: c.require("v", np.False_), "does not hold"),
    ],
)
def test_a_check_that_fails_is_recorded_before_it_raises(judge, message):
    claim = claims.Claim("home-x")
    with pytest.raises(AssertionError, match=re.escape(message)):
        judge(claim)
    (check,) = claim.checks
    assert check["passed"] is False


def test_a_name_is_recorded_once_and_only_small_plain_values():
    claim = claims.Claim("home-x")
    claim.note(samples=3)
    with pytest.raises(ValueError, match="twice"):
        claim.check("samples", 3, expected=3)
    with pytest.raises(ValueError, match="at most 100"):
        claim.note(array=np.ones(101))
    with pytest.raises(TypeError, match="object"):
        claim.note(thing=object())
    with pytest.raises(TypeError, match=r"\.all\(\)"):
        claim.require("array", np.array([True, True]))


def test_a_list_of_one_number_is_shown_once():
    assert claims.shown([2048] * 4) == "2,048 (all 4)"
    assert claims.shown([2048] * 3) == "[2,048, 2,048, 2,048]"
    assert claims.shown([1, 1, 1, 2]) == "[1, 1, 1, 2]"


def test_measured_names_what_is_near():
    found = claims.Measured(
        {"id": "home-x", "notes": {"samples": 10}, "checks": [{"name": "mean", "measured": [0.5, 1]}]}
    )
    assert found["samples"] == 10
    assert found["mean"].tolist() == [0.5, 1.0]
    assert sorted(found) == ["mean", "samples"]
    with pytest.raises(KeyError, match="did you mean 'samples'"):
        found["sample"]


# -- the ledger under pytest


def test_pytest_writes_the_ledger(guide):
    outcome = guide.pytest("tests/claims")
    assert outcome.code == 0, outcome.output
    record = records(guide)["home-mean"]
    expected = np.random.default_rng(7).standard_normal(1000).mean()
    assert record["status"] == "passed"
    assert record["test"] == "tests/claims/test_home.py::test_mean"
    assert record["docstring"] == "The mean of a thousand normal numbers."
    assert record["seeds"] == [7]
    assert record["notes"] == {"samples": 1000, "kind": "normal"}
    assert record["checks"][0]["measured"] == expected
    assert record["checks"][0]["tolerance"] == pytest.approx(4 / 1000**0.5)
    assert PASSING.splitlines()[record["line"] - 1].startswith("def test_mean")


def test_workers_write_one_ledger(project):
    tests = "import pytest\n\n" + "\n".join(
        f"@pytest.mark.claim('home-{n}')\ndef test_{n}(claim):\n    claim.check('n', {n}, expected={n})\n"
        for n in range(40)
    )
    project.write("tests/claims/test_home.py", tests)
    outcome = project.pytest("tests/claims", "-n", "2", "--dist", "load")
    assert outcome.code == 0, outcome.output
    found = records(project)
    assert {found[f"home-{n}"]["checks"][0]["measured"] for n in range(40)} == set(range(40))
    assert {record["status"] for record in found.values()} == {"passed"}
    assert not list((project.root / "_build/claims").rglob("*.part"))


def test_a_run_of_one_test_keeps_the_records_of_the_others(guide):
    guide.pytest("tests/claims")
    guide.pytest("tests/claims", "-k", "test_two")
    assert {id: r["status"] for id, r in records(guide).items()} == {"home-mean": "passed", "home-two": "passed"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("claim.note(samples=3)", "checks nothing"),
        ("claim.check('v', 1, expected=2)", "measured 1, expected 2"),
        ("claim.check('v', 1, expected=1)\n    raise RuntimeError('broken')", "broken"),
    ],
)
def test_a_failing_test_is_in_the_ledger_as_failed(project, body, message):
    project.write(
        "tests/claims/test_home.py",
        f"import pytest\n\n\n@pytest.mark.claim('home-x')\ndef test_x(claim):\n    {body}\n",
    )
    outcome = project.pytest("tests/claims")
    assert outcome.code == 1
    record = records(project)["home-x"]
    assert record["status"] == "failed"
    assert message in record["message"]


def test_a_fixture_without_a_mark_fails(project):
    project.write("tests/claims/test_home.py", "def test_x(claim):\n    pass\n")
    outcome = project.pytest("tests/claims")
    assert outcome.code == 1
    assert "is for a test marked with" in outcome.output


def test_prose_tests_run_the_claims_they_quote(guide):
    outcome = guide.pytest("docs")
    assert outcome.code == 0, outcome.output
    assert {id: r["status"] for id, r in records(guide).items()} == {"home-mean": "passed", "home-two": "never-run"}


def test_prose_tests_name_a_claim_that_is_not_there(guide):
    guide.write("docs/index.md", '{calc}`measured("home-meen")["mean"]:.2f`\n')
    outcome = guide.pytest("docs")
    assert outcome.code == 1
    assert "no claim 'home-meen'; did you mean 'home-mean'" in outcome.output


# -- what is stale


def stale(project) -> list[str]:
    return claims.Ledger(project.root).stale()


def test_only_what_changed_is_stale(guide):
    guide.write("attn_guide/__init__.py", "from attn_guide.core import half\nfrom attn_guide.masks import full\n")
    guide.write("attn_guide/core.py", "def half(x):\n    return x / 2\n")
    guide.write("attn_guide/masks.py", "def full():\n    return 1\n")
    uses = PASSING + (
        "\n\nimport attn_guide as ag\n\n\n@pytest.mark.claim('home-half')\ndef test_half(claim):\n"
        "    claim.check('half', ag.half(3.0), expected=1.5)\n"
    )
    guide.write("tests/claims/test_home.py", uses)
    assert stale(guide) == ["home-mean", "home-two", "home-half"]
    assert guide.pytest("tests/claims").code == 0
    assert stale(guide) == []
    guide.write("attn_guide/masks.py", "def full():\n    return 2\n")
    assert stale(guide) == []
    guide.write("attn_guide/core.py", "def half(x):\n    return 0.5 * x\n")
    assert stale(guide) == ["home-half"]
    guide.write("tests/claims/test_home.py", uses.replace("SIZE = 1000", "SIZE = 2000"))
    assert stale(guide) == ["home-mean", "home-half"]
    guide.write("tests/claims/test_home.py", "# a comment\n" + uses.replace("1 + 1", "2 * 1"))
    assert stale(guide) == ["home-two", "home-half"]


def test_refresh_runs_what_is_stale_and_then_nothing(guide):
    book = claims.Ledger(guide.root)
    assert book.refresh(["home-two"]) == (["home-two"], "")
    assert book.refresh() == (["home-mean"], "")
    assert book.refresh() == ([], "")
    assert book.measured("home-two")["one and one"] == 2


def test_measured_refuses_what_has_not_run(guide):
    with pytest.raises(LookupError, match=r"has not run: run `pytest tests/claims/test_home\.py`"):
        claims.Ledger(guide.root).measured("home-mean")


def test_many_claims_run_in_processes_of_their_own(guide, monkeypatch):
    """A file a process, all of them recorded, and what fails in one is told whatever the others do."""
    for name in ("self", "cross", "heads"):
        text = (
            PASSING.replace("home-", f"{name}-")
            .replace("import numpy as np", "import os\n\nimport numpy as np", 1)
            .replace('claim.require("finite", True)', "claim.note(process=os.getpid())")
        )
        guide.write(f"tests/claims/test_{name}.py", text)
    monkeypatch.setattr(claims, "MANY", 2)
    monkeypatch.setattr(claims, "processors", lambda: 2)
    ran, output = claims.Ledger(guide.root).refresh()
    assert (len(ran), output) == (8, "")
    found = records(guide)
    assert {record["status"] for record in found.values()} == {"passed"}
    assert len({found[f"{name}-mean"]["notes"]["process"] for name in ("self", "cross", "heads")}) == 3
    path = guide.root / "tests/claims/test_self.py"
    guide.write("tests/claims/test_self.py", path.read_text().replace("expected=2", "expected=3"))
    guide.write("tests/claims/test_cross.py", (guide.root / "tests/claims/test_cross.py").read_text() + "\n# moved\n")
    ran, output = claims.Ledger(guide.root).refresh()
    assert ran == ["self-two"]
    assert "measured 2, expected 3" in output


# -- the build


def test_the_build_runs_the_checks_once_and_shows_them(guide):
    first = guide.build("-W", "-n")
    assert first.code == 0, first.output
    assert "claims: ran 2 of 2 checks" in first.output
    html = guide.html()
    mean = np.random.default_rng(7).standard_normal(1000).mean()
    assert 'From <span class="computed"' in html
    assert f">{prose.as_text(f'{mean:.4f}')}</span>" in html
    assert '<div class="ag-claim ag-claim-passed" id="claim-home-mean">' in html
    details = re.search(r"<details class=\"ag-claim-check\">.*?</details>", html, re.DOTALL)[0]
    assert "<summary" in details
    assert "checked" in details
    assert claims.shown(float(mean)) in details
    assert "four standard errors" in details
    assert "seed 7" in details
    assert "samples = 1,000" in details
    assert "The mean of a thousand normal numbers." in details
    assert 'href="https://example.org/blob/main/tests/claims/test_home.py"' in details
    second = guide.build("-W", "-n")
    assert second.code == 0, second.output
    assert "claims: 2 checks, none to run" in second.output
    assert "0 added, 0 changed, 0 removed" in second.output


def test_a_page_is_read_again_when_its_claim_measures_something_else(guide):
    guide.write("docs/other.md", "---\norphan: true\n---\n# Other\n")
    assert guide.build().code == 0
    guide.write("tests/claims/test_home.py", PASSING.replace("claim.rng(7)", "claim.rng(8)"))
    outcome = guide.build()
    assert outcome.code == 0, outcome.output
    assert "claims: ran 1 of 2 checks" in outcome.output
    assert "0 added, 1 changed, 0 removed" in outcome.output
    mean = np.random.default_rng(8).standard_normal(1000).mean()
    assert f">{prose.as_text(f'{mean:.4f}')}</span>" in guide.html()


def test_other_formats_have_the_measurement_in_the_text(guide):
    outcome = guide.build("-W", builder="text")
    assert outcome.code == 0, outcome.output
    text = " ".join((guide.root / "_build/text/index.txt").read_text(encoding="utf-8").split())
    assert "One and one is two. *Checked: one and one: measured 2, expected 2*" in text
    outcome = guide.build("-W", builder="latex")
    assert outcome.code == 0, outcome.output
    (latex,) = (guide.root / "_build/latex").glob("smallguide.tex")
    assert "Checked: one and one: measured 2, expected 2" in latex.read_text(encoding="utf-8")


BROKEN = {
    "a claim whose check fails": (
        PASSING.replace("expected=2", "expected=3"),
        PAGE,
        [
            ("docs/index.md", ":::{claim} home-two"),
            "claim 'home-two' fails: one and one: measured 2, expected 3",
            "test_home.py::test_two",
        ],
    ),
    "a claim without a test": (
        PASSING,
        PAGE + "\n:::{claim} home-tow\nTow.\n:::\n",
        [("docs/index.md", ":::{claim} home-tow"), "claim 'home-tow' has no test; did you mean 'home-two'"],
    ),
    "a claim whose test is skipped": (
        PASSING.replace("def test_two(claim):", "def test_two(claim):\n    pytest.skip('no GPU here')"),
        PAGE,
        [("docs/index.md", ":::{claim} home-two"), "claim 'home-two' has not run", "no GPU here"],
    ),
    "a claim whose file cannot be imported": (
        PASSING.replace("import numpy as np", "import numpy as np\nimport no_such_module"),
        PAGE,
        ["claim 'home-two' has not run", "No module named 'no_such_module'"],
    ),
    "a check that no page cites": (
        PASSING + "\n\n@pytest.mark.claim('home-more')\ndef test_more(claim):\n    claim.require('it', True)\n",
        PAGE,
        ["no page cites claim 'home-more'", ("tests/claims/test_home.py", "def test_more(claim):")],
    ),
    "two tests of one claim": (
        PASSING + "\n\n@pytest.mark.claim('home-two')\ndef test_more(claim):\n    claim.require('it', True)\n",
        PAGE,
        ["claim 'home-two' has another test, in line 22", ("tests/claims/test_home.py", "def test_more(claim):")],
    ),
    "a claim made twice": (
        PASSING,
        PAGE + "\n:::{claim} home-two\nAgain.\n:::\n",
        [("docs/index.md", ":::{claim} home-two"), "claim 'home-two' is made in index already"],
    ),
    "a claim of no chapter": (
        PASSING.replace("home-two", "two"),
        PAGE.replace("home-two", "two"),
        ["claim 'two' does not begin with its chapter"],
    ),
    "a number that no claim records": (
        PASSING,
        PAGE + '\n{calc}`measured("home-mean")["median"]:.2f`\n',
        [
            ("docs/index.md", '{calc}`measured("home-mean")["median"]:.2f`'),
            "claim 'home-mean' records no 'median'; did you mean 'mean'",
        ],
    ),
    "a number of a claim that is not there": (
        PASSING,
        PAGE + '\n{calc}`measured("home-meen")["mean"]:.2f`\n',
        [
            ("docs/index.md", '{calc}`measured("home-meen")["mean"]:.2f`'),
            "no claim 'home-meen'; did you mean 'home-mean'",
        ],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_stops_a_build(project, case):
    tests, page, messages = BROKEN[case]
    project.write("tests/claims/test_home.py", tests)
    project.write("docs/index.md", page.lstrip())
    outcome = project.build()
    assert outcome.code == 1
    for message in messages:
        if isinstance(message, tuple):  # a file and a line of it: where the error is
            name, line = message
            lines = (project.root / name).read_text(encoding="utf-8").splitlines()
            message = f"{name}:{len(lines) - lines[::-1].index(line)}: ERROR"
        assert message in outcome.output


def test_a_build_that_failed_fails_again_until_it_is_mended(guide):
    broken = PASSING.replace("expected=2", "expected=3")
    guide.write("tests/claims/test_home.py", broken)
    assert guide.build().code == 1
    again = guide.build()
    assert again.code == 1
    assert "claim 'home-two' fails" in again.output
    assert "ag-claim-failed" in guide.html()
    guide.write("tests/claims/test_home.py", PASSING)
    mended = guide.build("-W")
    assert mended.code == 0, mended.output
    assert "ag-claim-failed" not in guide.html()


def test_the_list_has_every_claim_with_a_link_to_its_page(guide):
    head = "---\norphan: true\n---\n# Claims\n"
    lists = [f"\n## {title}\n\n:::{{claims-list}}\n:chapter: {title.lower()}\n:::\n" for title in ("Home", "Self")]
    guide.write("docs/claims.md", head + "".join(lists))
    assert guide.build("-W", "-n").code == 0
    html = guide.html("claims")
    assert 'href="index.html#claim-home-mean"' in html
    assert 'href="index.html#claim-home-two"' in html
    assert "The mean of <em>normal</em> numbers" in html
    assert "one and one: measured 2, expected 2" in html
    assert html.index("home-mean") < html.index("home-two")
    assert "No claims yet." in html
    guide.write("tests/claims/test_home.py", PASSING.replace("1 + 1, expected=2", "1 + 2, expected=3"))
    assert guide.build("-W").code == 0
    assert "one and one: measured 3, expected 3" in guide.html("claims")
    page = guide.root / "docs" / "index.md"
    guide.write("docs/index.md", page.read_text().replace("The mean of *normal*", "The average of *normal*"))
    assert guide.build("-W").code == 0
    assert "The average of <em>normal</em> numbers" in guide.html("claims")
    guide.write("docs/claims.md", head + lists[0].replace(": home", ": hoem"))
    wrong = guide.build()
    assert "no chapter 'hoem'; did you mean 'home'" in wrong.output


def test_a_claim_can_be_linked_to(guide):
    guide.write("docs/index.md", PAGE + "\nSee {ref}`the sum <claim-home-two>`.\n")
    outcome = guide.build("-W", "-n")
    assert outcome.code == 0, outcome.output
    assert 'href="#claim-home-two"' in guide.html()


# -- this guide


def pages() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for pattern in ("docs/*.md", "docs/chapters/*.md", "docs/appendices/*.md")
        for path in sorted(ROOT.glob(pattern))
    }


def test_every_claim_of_the_guide_has_a_test_and_every_test_a_claim():
    book = claims.Ledger(ROOT)
    assert book.problems() == []
    made = re.compile(r"^[ \t]*(?::{3,}|`{3,})\{claim\} *(\S+)", re.MULTILINE)
    cited = {id: name for name, text in pages().items() for id in made.findall(text)}
    errata = (ROOT / "docs" / "errata.toml").read_text(encoding="utf-8")
    used = {id for text in [*pages().values(), errata] for id in claims.quoted(text)} | set(cited)
    used |= set(re.findall(r"^claim = [\"']([\w-]+)", errata, re.MULTILINE))
    assert used - set(book.tests) == set(), "claims without a test"
    assert set(book.tests) - used == set(), "tests that no page cites"


def test_stacked_tables_are_marked_and_the_style_sheet_has_words_for_their_cells():
    made = [nodes.paragraph("", "before"), claims.table(["a", "b"], [["1", "2"]], classes=["own"])]
    paragraph, table = claims.stacked(made, "ag-results")
    assert table["classes"] == ["own", "ag-stacked", "ag-results"]
    assert paragraph["classes"] == []
    style = (Path(__file__).parents[2] / "docs" / "_static" / "guide.css").read_text(encoding="utf-8")
    for name, words in (
        ("ag-results", ["Quantity", "Measured", "Target", "Behind it"]),
        ("ag-conventions", ["Answer", "Called as", "Run"]),
    ):
        assert re.findall(rf'table\.{name} td:.*?content: "(.*?): "', style) == words
