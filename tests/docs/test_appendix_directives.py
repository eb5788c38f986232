"""The appendices that are made from data: benchmarks, conventions and the timeline."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from guide_ext import benchmarks, catalogue, conventions, prose

from attn_guide import taxonomy

ROOT = Path(__file__).resolve().parents[2]

NBSP = "\N{NO-BREAK SPACE}"
ROW = {
    "topic": "flash", "name": "n = 1024", "quantity": "time / torch", "value": 1.234, "low": 1.1, "high": 1.4,
    "target": 1.3, "detail": "12.3 ms against 10.0 ms", "holds": True,
}  # fmt: skip
MACHINE = {"cpu": "a processor", "threads": 2, "load before": None, "date": "2026-01-02 03:04 UTC"}


# ---------------------------------------------------------------------------------------------- benchmarks


@pytest.fixture
def guide(project):
    conf = project.root / "conf.py"
    text = conf.read_text(encoding="utf-8")
    added = 'extensions += ["guide_ext.benchmarks", "guide_ext.conventions"]\n'
    conf.write_text(text + added, encoding="utf-8")
    return project


def save(project, topic, *rows):
    body = json.dumps({"machine": MACHINE, "rows": list(rows)})
    return project.write(f"benchmarks/results/{topic}.json", body)


def test_a_result_is_shown_with_its_scatter_its_target_and_its_machine(guide):
    save(guide, "flash", ROW, {**ROW, "name": "n = 2048", "value": 21.5, "low": 21.5, "high": 21.5, "holds": False})
    guide.write(
        "docs/index.md", "# Home\n\n:::{benchmark-table} flash\n:::\n\n## Missed\n\n:::{benchmark-misses}\n:::\n"
    )
    outcome = guide.build("-W", "-n")
    assert outcome.code == 0, outcome.output
    table, missed = guide.html().split("<h2>Missed")
    for shown in (
        "1.23 (1.10 to 1.40)".replace(" ", NBSP),
        f"≤{NBSP}1.3,{NBSP}met",
        "12.3 ms against 10.0 ms",
        "21.5</p>",
        "<strong>missed",
    ):
        assert shown in table
    assert "Taken on 2026-01-02 03:04 UTC: processor a processor; threads 2." in table
    assert f"flash: n{NBSP}={NBSP}2048" in missed
    assert f"n{NBSP}={NBSP}1024" not in missed


def test_without_a_file_the_page_says_so_and_follows_the_file_when_it_comes(guide):
    save(guide, "flash", ROW)
    guide.write("docs/index.md", "# Home\n\n:::{benchmark-table} gpu\n:::\n\n:::{benchmark-misses}\n:::\n")
    assert guide.build("-W").code == 0
    assert "No figure has been taken yet." in guide.html()
    assert "None: every measurement met its target." in guide.html()
    unchanged = guide.build("-W").output
    assert "0 added, 0 changed" in unchanged
    save(guide, "gpu", {**ROW, "target": None, "holds": None})
    assert guide.build("-W").code == 0
    assert "No figure has been taken yet." not in guide.html()
    assert "1.23 (1.10 to 1.40)".replace(" ", NBSP) in guide.html()


@pytest.mark.parametrize(
    "body", ['{"machine": {}, "rows": []}', '{"rows": [1]}', '{"machine": {"date": "x"}, "rows": [{}]}']
)
def test_a_file_of_another_form_is_an_error(guide, body):
    guide.write("benchmarks/results/flash.json", body)
    guide.write("docs/index.md", "# Home\n\n:::{benchmark-table} flash\n:::\n")
    outcome = guide.build("-W")
    assert outcome.code != 0
    assert "flash.json" in outcome.output


def test_every_recorded_topic_stands_on_the_page():
    page = (ROOT / "docs/appendices/numbers.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\{benchmark-table\} (\w+)", page))
    recorded = {path.stem for path in benchmarks.results(ROOT).glob("*.json")}
    assert recorded <= shown
    assert "gpu" in shown
    for topic in recorded:
        found = benchmarks.load(ROOT, topic)
        assert found is not None
        assert {"date", "cpu", "torch"} <= set(found["machine"])
        for row in found["rows"]:
            assert row["low"] <= row["value"] <= row["high"]
            assert row["holds"] is (None if row["target"] is None else row["value"] <= row["target"])


# ---------------------------------------------------------------------------------------------- conventions

CLAIM = """
import pytest


@pytest.mark.claim("appendix-two-words")
def test_it(claim):
    claim.note(**{"torch": "9.9.9+cpu", "samples": 3})
    claim.check("torch: f(x)", "this", expected="this")
    claim.check("something else", 1, expected=1)
"""

RECORDED = """
[[row]]
question = 'two words'
package = 'jax'
version = '1.2.3'
call = 'g(x)'
answer = 'that'
date = '2026-03-04'
source = 'run'
"""

PAGE = "# Home\n\n:::{claim} appendix-two-words\nThis.\n:::\n\n:::{convention-table} two words\n:::\n"


def test_a_table_has_what_was_measured_here_and_what_was_recorded(guide):
    guide.write("tests/claims/test_appendices.py", CLAIM)
    guide.write("docs/conventions.toml", RECORDED)
    guide.write("docs/index.md", PAGE)
    outcome = guide.build("-W", "-n")
    assert outcome.code == 0, outcome.output
    table = guide.html().rpartition("<table")[2]
    rows = [re.sub(r"<[^>]+>|\s+", " ", row).split() for row in table.split("<tr")[2:]]
    text = [" ".join(word for word in row if "class" not in word) for row in rows]
    assert len(text) == 2
    assert "9.9.9 this f(x) this build" in text[0]
    assert "1.2.3 that g(x) 4 Mar 2026" in text[1]
    assert "PyTorch" in text[0]
    assert "JAX" in text[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RECORDED.replace("answer = 'that'\n", ""), "answer"),
        (RECORDED.replace("'run'", "'hearsay'"), "hearsay"),
        (RECORDED.replace("2026-03-04", "spring"), "spring"),
        (RECORDED + "more = 1\n", "more"),
    ],
)
def test_a_record_that_does_not_say_how_it_is_known_is_refused(tmp_path, text, message):
    path = tmp_path / "conventions.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"row 1: .*{message}"):
        conventions.load(path)


def test_a_question_without_answers_fails_the_build(guide):
    guide.write("docs/conventions.toml", RECORDED)
    guide.write("docs/index.md", "# Home\n\n:::{convention-table} polarity\n:::\n")
    outcome = guide.build("-W")
    assert outcome.code != 0
    assert "no answers to 'polarity'" in outcome.output


def test_every_recorded_answer_is_to_a_question_that_the_page_asks():
    page = (ROOT / "docs/appendices/conventions.md").read_text(encoding="utf-8")
    asked = set(re.findall(r"\{convention-table\} (.+)", page))
    rows = conventions.load(ROOT / "docs/conventions.toml")
    assert {row.question for row in rows} <= asked


def test_recorded_answers_are_what_an_installed_library_of_that_version_says(probes):
    """Nothing to compare in the usual environment, where none of these libraries is; where one is, its answers hold."""
    known = {(p.question, p.package, p.call): p for p in probes.PROBES}
    compared = 0
    for row in conventions.load(ROOT / "docs/conventions.toml"):
        if row.source == "run":
            assert (row.question, row.package, row.call) in known, f"no probe asks {row.package} for {row.call}"
            if installed(row.package) == row.version:
                compared += 1
                assert known[row.question, row.package, row.call]() == row.answer
    print(f"compared {compared} recorded answers")


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@pytest.fixture
def probes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests/claims"))
    import convention_probes

    return convention_probes


def test_a_record_can_be_read_back(probes):
    rows = tomllib.loads(probes.record(["attn-guide"]))["row"]
    assert len(rows) == sum(p.package == "attn-guide" for p in probes.PROBES)
    assert {"question", "package", "version", "call", "answer", "date", "source"} == set(rows[0])


def test_the_probes_tell_answers_apart(probes):
    """Each classifier is shown a function that answers otherwise."""
    import numpy as np

    import attn_guide as ag

    here = ag.scaled_dot_product_attention
    assert probes._polarity(lambda q, k, v, mask: here(q, k, v, ~mask)) == "True hides"
    opened = lambda q, k, v: here(q, k, v, mask_mod=ag.causal_lower_right(q.shape[-2], k.shape[-2]))  # noqa: E731
    assert probes._alignment(opened) == "bottom-right"
    assert probes._empty_row(lambda q, k, v, mask: here(q * 0, k, v)) == "the mean of all values"
    assert probes._empty_row(lambda q, k, v, mask: here(q, k, v)) == "3.493"
    assert probes._empty_row(lambda q, k, v, mask: np.full((1, 2, 1), np.nan)) == "NaN"
    assert probes._soft_cap(
        lambda q, k, v, b: ag.softmax(2 * np.tanh((q @ k.swapaxes(-1, -2) + b) / 2)) @ v
    ) == "bias, then cap"  # fmt: skip
    assert probes._scale(lambda q, k, v: here(q, k, v, scale=1.0)) == "one"
    assert probes._groups(lambda q, k, v: here(q, np.tile(k, (2, 1, 1)), np.tile(v, (2, 1, 1)))) == "0, 1, 0, 1"
    assert probes._window(lambda q, k, v: here(q, k, v, mask_mod=ag.sliding_window(1, 1))).startswith("3: 1 before")
    assert probes._dropped(np.full(5, 1 / probes.KEYS)) == "untouched"


# ---------------------------------------------------------------------------------------------- the timeline

SECTION = re.compile(r"^## (?P<year>\d{4}): (?P<name>.+)\n(?P<body>(?:(?!^## ).*\n)*)", re.MULTILINE)

#: What a section may call instead of the function itself: a trained model, or the object in its short form.
STANDS_FOR = {
    "models.bahdanau.Bahdanau": 'models.load("bahdanau")',
    "models.luong.Luong": 'models.load("luong-general")',
}


def timeline():
    text = (ROOT / "docs/appendices/timeline.md").read_text(encoding="utf-8")
    return [m.groupdict() for m in SECTION.finditer(text)]


def test_the_page_has_every_event_in_order():
    sections = timeline()
    assert [(int(s["year"]), s["name"]) for s in sections] == [(event.year, event.name) for event in taxonomy.EVENTS]
    for section in sections:
        assert f":::{{timeline-entry}} {section['name']}\n" in section["body"]


@pytest.mark.parametrize("event", taxonomy.EVENTS, ids=lambda event: event.name)
def test_the_code_of_an_event_calls_what_the_timeline_names(event):
    body = next(s["body"] for s in timeline() if s["name"] == event.name)
    page = prose.parse(body, "timeline.md")
    calls = [node for node in ast.walk(ast.parse(page.code)) if isinstance(node, ast.Call)]
    wanted = STANDS_FOR.get(event.function, event.function.rpartition(".")[2] + "(").replace("'", '"')
    assert any(wanted in ast.unparse(call).replace("'", '"') for call in calls) or wanted in page.code


@pytest.mark.parametrize("event", taxonomy.EVENTS, ids=lambda event: event.name)
def test_the_test_of_an_event_exists(event):
    body = next(s["body"] for s in timeline() if s["name"] == event.name)
    found = re.search(r"^:test: (.+)$", body, re.MULTILINE)
    assert found
    assert (ROOT / catalogue.find_test(ROOT, found[1])).is_file()


@pytest.mark.parametrize("node", ["tests/test_gone.py::test_x", "tests/test_core.py::test_gone", "tests/test_core.py"])
def test_a_test_that_is_not_there_is_named(node):
    with pytest.raises(ValueError, match=r"test is .*: (there is no|tests/test_core.py has no test)"):
        catalogue.find_test(ROOT, node)
