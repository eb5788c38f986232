"""The table of what is often printed: its rows are tied to claims that hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from guide_ext import claims, errata, lint

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import pytest


@pytest.mark.claim("home-sum")
def test_sum(claim):
    claim.note(terms=1000)
    claim.check("sum", 1 + 1, expected=2)
"""

ROW = r"""
[[row]]
id = "home-one-and-one"
printed = 'One and one is $3$, in *many* guides.'
right = 'The sum of {calc}`measured("home-sum")["terms"]:,` terms is $\calc{measured("home-sum")["sum"]}$.'
claim = "home-sum"
ref = "a note of ours"
"""

PAGE = """# Home

:::{claim} home-sum
One and one is two.
:::

:::{errata-table}
:::
"""


@pytest.fixture
def guide(project):
    project.write("tests/claims/test_home.py", TESTS)
    project.write("docs/index.md", PAGE)
    project.write("docs/errata.toml", ROW)
    return project


def test_a_row_shows_what_is_printed_and_what_a_run_gives(guide):
    outcome = guide.build("-W", "-n")
    assert outcome.code == 0, outcome.output
    html = guide.html()
    table = html[html.index("ag-errata") :]
    assert "in <em>many</em> guides" in table
    assert ">1,000</span> terms is" in table
    assert "\\(2\\)" in table
    assert 'href="#claim-home-sum"' in table
    assert 'id="erratum-home-one-and-one"' in table
    assert "a note of ours" not in html


def test_rows_go_to_their_chapter(guide):
    guide.write("docs/index.md", PAGE.replace(":::{errata-table}\n", ":::{errata-table}\n:chapter: self\n"))
    assert guide.build("-W").code == 0
    assert "No row yet." in guide.html()
    guide.write("docs/errata.toml", ROW + ROW.replace("home-one-and-one", "self-one"))
    assert guide.build("-W").code == 0
    assert 'id="erratum-self-one"' in guide.html()
    assert 'id="erratum-home-one-and-one"' not in guide.html()


def test_a_row_may_be_all_that_cites_a_claim(guide):
    guide.write("docs/index.md", "# Home\n\n:::{errata-table}\n:::\n")
    outcome = guide.build("-W", "-n")
    assert outcome.code == 0, outcome.output
    assert 'href="https://example.org/blob/main/tests/claims/test_home.py"' in guide.html()


def test_the_page_is_read_again_when_the_file_changes(guide):
    assert guide.build().code == 0
    guide.write("docs/errata.toml", ROW.replace("One and one is $3$", "One and one is $4$"))
    assert guide.build().code == 0
    assert "\\(4\\)" in guide.html()


BROKEN = {
    "its claim has no test": (
        ROW.replace('claim = "home-sum"', 'claim = "home-some"'),
        "claim 'home-some' has no test",
    ),
    "its value is not recorded": (ROW.replace('["terms"]', '["term"]'), "records no 'term'; did you mean 'terms'"),
    "it repeats an id": (ROW + ROW, "errata.toml:9: a second row 'home-one-and-one'"),
    "it has no claim": (ROW.replace('claim = "home-sum"', ""), "errata.toml:2: missing ['claim']"),
    "it has an unknown field": (ROW + 'wright = "x"\n', "unknown ['wright']"),
    "it belongs to no chapter": (ROW.replace("home-one", "hoem-one"), "does not begin with a chapter"),
    "it is not TOML": ("[[row]]\nid = \n", "errata.toml: Invalid value"),
    "it is no row": ("[rows]\nid = 3\n", "unknown: rows"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_row_stops_the_build(guide, case):
    text, message = BROKEN[case]
    guide.write("docs/errata.toml", text)
    outcome = guide.build()
    assert outcome.code == 1
    assert message in outcome.output


def test_a_row_whose_check_fails_stops_the_build(guide):
    guide.write("tests/claims/test_home.py", TESTS.replace("expected=2", "expected=3"))
    guide.write("docs/index.md", "# Home\n\n:::{errata-table}\n:::\n")
    outcome = guide.build()
    assert outcome.code == 1
    assert "claim 'home-sum' fails: sum: measured 2, expected 3" in outcome.output


def test_the_rows_of_this_guide():
    rows = errata.load(ROOT / "docs" / "errata.toml")
    book = claims.Ledger(ROOT)
    assert [row.id for row in rows if row.claim not in book.tests] == []
    page = (ROOT / "docs" / "appendices" / "errata.md").read_text(encoding="utf-8")
    assert [row.id for row in rows if f":chapter: {row.chapter}\n" not in page] == []
    typed = [f"{row.id}: {finding.number}" for row in rows for finding in lint.check(row.right)]
    assert typed == [], "numbers typed where the claim knows them"
