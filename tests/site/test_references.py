"""The bibliography: every entry can be found by a reader, and every paper that the package names has one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from guide_ext.site import AuthorYearLabels, ByLabel
from pybtex.database import parse_file

from attn_guide import taxonomy

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENTRIES = parse_file(DOCS / "refs.bib").entries


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_says_who_what_when_and_where(key: str) -> None:
    entry = ENTRIES[key]
    assert entry.persons["author"]
    assert entry.fields["title"]
    assert re.fullmatch(r"(19|20)\d\d", entry.fields["year"])
    assert {"eprint", "doi", "journal", "booktitle", "institution", "note"} & set(entry.fields)
    if "eprint" in entry.fields:
        found = re.fullmatch(r"(\d\d)(0[1-9]|1[0-2])\.\d{4,5}", entry.fields["eprint"])
        assert found is not None
        assert len(entry.fields["eprint"]) == (9 if int(found[1]) < 15 else 10)
        assert int(entry.fields["year"]) - (2000 + int(found[1])) in (0, 1), "year and arXiv number disagree"


def test_a_key_is_the_first_author_and_the_year() -> None:
    for key, entry in ENTRIES.items():
        assert key.endswith(entry.fields["year"])


def test_no_paper_is_listed_twice() -> None:
    titles = [re.sub(r"\W", "", entry.fields["title"]).lower() for entry in ENTRIES.values()]
    assert len(titles) == len(set(titles))
    numbers = [entry.fields["eprint"] for entry in ENTRIES.values() if "eprint" in entry.fields]
    assert len(numbers) == len(set(numbers))


def test_every_paper_of_the_taxonomy_is_listed() -> None:
    named = {entry.paper for entry in (*taxonomy.MECHANISMS, *taxonomy.EVENTS)}
    assert named <= set(ENTRIES)


def test_the_bibliography_goes_by_first_author_and_year() -> None:
    ordered = ByLabel().sort(ENTRIES.values())
    labels = [AuthorYearLabels._label(entry) for entry in ordered]
    assert labels.index("Dao 2023") < labels.index("DeepSeek-AI 2024") < labels.index("Gemma Team 2024")
    assert labels.index("Bengio et al. 1994") < labels.index("Bengio et al. 2013")
    assert labels[-1].startswith("Zh")


def test_the_glossary_has_no_term_twice() -> None:
    lines = (DOCS / "appendices" / "glossary.md").read_text(encoding="utf-8").splitlines()
    inside = lines[lines.index(":::{glossary}") + 2 : -1]
    terms = [line.lower() for line in inside if line and not line.startswith(" ")]
    assert terms == list(dict.fromkeys(terms))
