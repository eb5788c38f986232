"""The taxonomy promises only what exists, and what it still owes is listed here and nowhere forgotten."""

import re
from pathlib import Path

import pytest

from attn_guide import taxonomy
from attn_guide.taxonomy import AXES, CHAPTERS, EVENTS, MECHANISMS

ROOT = Path(__file__).parents[1]

#: Promised by the taxonomy or the timeline and not written yet. Whoever writes one takes its line out here.
OWED: set[str] = set()


def test_what_is_owed_is_exactly_what_is_listed():
    assert set(taxonomy.pending()) == OWED


@pytest.mark.parametrize("entry", [*MECHANISMS, *EVENTS], ids=lambda entry: entry.name)
def test_a_written_entry_names_a_documented_callable(entry):
    target = entry.resolve()
    if entry.function in OWED:
        assert target is None
    else:
        assert callable(target)
        assert target.__doc__
        assert target.__doc__.strip()


def test_names_are_unique_and_axes_known():
    names = [mechanism.name for mechanism in MECHANISMS]
    assert len(set(names)) == len(names)
    assert {mechanism.axis for mechanism in MECHANISMS} == set(AXES)
    assert {mechanism.chapter for mechanism in MECHANISMS} == set(CHAPTERS)


def test_the_timeline_is_in_order_of_years():
    years = [event.year for event in EVENTS]
    assert years == sorted(years)


@pytest.mark.parametrize("entry", [*MECHANISMS, *EVENTS], ids=lambda entry: entry.name)
def test_every_paper_is_in_the_bibliography(entry):
    keys = re.findall(r"^@\w+\{([^,]+),", (ROOT / "docs/refs.bib").read_text(), flags=re.M)
    assert entry.paper in keys


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda mechanism: mechanism.name)
def test_every_leaf_has_its_section(mechanism):
    page = ROOT / "docs/chapters" / f"{CHAPTERS[mechanism.chapter][0]}.md"
    assert f"({mechanism.section})=" in page.read_text().splitlines()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="name is 'soft'; wanted one of Self-attention, Cross-attention"):
        taxonomy.find("soft")
