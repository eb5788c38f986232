"""The exercises: what each checker lets through, what it rejects, and what the reader is told."""

from __future__ import annotations

import ast
import doctest
import io
import json
import re
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attn_guide as ag
from attn_guide import exercises
from attn_guide.exercises import Answer, Result, WrongAnswer, __main__, grade
from attn_guide.exercises._registry import CHAPTERS, PAGES, _registered

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXTS = {chapter: (DOCS / "chapters" / f"{PAGES[chapter]}.md").read_text(encoding="utf-8") for chapter in CHAPTERS}
EVERY = exercises.exercises()
COMMAND = "python -m attn_guide.exercises"


# ---------------------------------------------------------------------------------------------------------------------
# The pages


def section(chapter: int) -> str:
    found = re.search(r"^## Exercises\n(.*?)(?=^## |\Z)", TEXTS[chapter], re.MULTILINE | re.DOTALL)
    assert found, f"the page of chapter {chapter} has no section of exercises"
    return found[1]


def on_page(chapter: int) -> dict[str, str]:
    """The exercises of a page by number, each with its question and its dropdown."""
    pieces = re.split(r"^\*\*Exercise (\d+\.\d+)\. [^*\n]+\*\*", section(chapter), flags=re.MULTILINE)
    assert len(set(pieces[1::2])) == len(pieces[1::2]), "a number stands twice on the page"
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def solution(text: str) -> dict[str, Any]:
    """What the dropdown of an exercise defines: its functions and imports, run with ``np`` and ``ag`` at hand."""
    dropdown = re.search(r"^(:{3,})\{dropdown\} Solution\n(.*?)^\1$", text, re.MULTILINE | re.DOTALL)
    assert dropdown, "no dropdown 'Solution'"
    source = []
    for block in re.findall(r"^```python\n(.*?)^```", dropdown[2], re.MULTILINE | re.DOTALL):
        examples = doctest.DocTestParser().get_examples(block) if ">>>" in block else []
        source += [example.source for example in examples] or [block]
    tree = ast.parse("\n".join(source))
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    tree.body = [node for node in tree.body if isinstance(node, kinds)]
    names: dict[str, Any] = {"np": np, "ag": ag}
    exec(compile(tree, "<solution>", "exec"), names)
    return names


SOLVED = [(number, text) for chapter in CHAPTERS for number, text in on_page(chapter).items()]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_checked_exercises_and_says_how_to_run_them(chapter):
    checked = [one.number for one in exercises.exercises(chapter)]
    assert len(checked) >= 5
    assert list(on_page(chapter)) == checked == [f"{chapter}.{i + 1}" for i in range(len(checked))]
    opening = " ".join(section(chapter).partition("**")[0].split())
    assert f"`{COMMAND} check {chapter}.1 my_answer.py`" in opening


@pytest.mark.parametrize(("number", "text"), SOLVED, ids=[number for number, _ in SOLVED])
def test_the_solution_on_the_page_passes(number, text):
    one = exercises.find(number)
    question = " ".join(text.partition(":::")[0].split())
    assert f"`{one.name}{one.signature}`" in question, "the question does not name the function"
    answer = solution(text)[one.name]
    for seed in range(5):
        verdict = grade(number, answer, seed)
        assert verdict.passed, verdict.message
        assert verdict.cases >= 3


# ---------------------------------------------------------------------------------------------------------------------
# The checkers


WRONG = [(one, mistake) for one in EVERY for mistake in one.wrong]


@pytest.mark.parametrize(("one", "mistake"), WRONG, ids=[f"{one.number}: {mistake}" for one, mistake in WRONG])
def test_a_plausible_mistake_is_rejected(one, mistake):
    names: dict[str, Any] = {"np": np, "ag": ag}
    exec(one.wrong[mistake], names)
    for seed in range(3):
        verdict = grade(one.number, names[one.name], seed)
        assert not verdict.passed, f"seed {seed}"
        assert verdict.message.startswith(f"{one.name}(")
        assert "raised" not in verdict.message, "a mistake that only crashes shows nothing about the comparison"


@pytest.mark.parametrize("one", EVERY, ids=[one.number for one in EVERY])
def test_a_strange_answer_is_rejected_in_words(one):
    """Whatever comes, the checker itself does not fail."""
    for value in [None, "word", -1.5, float("nan"), [], {}, np.zeros((7, 1)), [[1], [2, 3]], (None, None), object()]:
        assert not grade(one.number, lambda *args, value=value, **named: value).passed


@pytest.mark.parametrize("one", EVERY, ids=[one.number for one in EVERY])
def test_the_template_asks_for_the_function_and_nothing_more(one):
    names: dict[str, Any] = {}
    exec(one.template, names)
    assert names[one.name].__doc__
    assert "raised NotImplementedError" in grade(one.number, names[one.name]).message
    called = ast.parse(f"def {one.name}{one.signature}: ...").body[0]
    assert isinstance(called, ast.FunctionDef)
    for argument in called.args.args:
        assert re.search(rf"\b{argument.arg}\b", one.statement), f"the statement does not say what {argument.arg} is"


def test_a_number_is_taken_once_and_needs_a_wrong_answer():
    with pytest.raises(ValueError, match=r"'4\.x'; wanted chapter and place"):
        exercises.exercise("4.x", "f", "()", "", {"a": "b"})
    with pytest.raises(ValueError, match="no wrong answer"):
        exercises.exercise("4.99", "f", "()", "", {})
    with pytest.raises(ValueError, match="has a checker already: merge"):
        exercises.exercise("3.1", "f", "()", "", {"a": "b"})(lambda answer, rng: None)
    assert "4.99" not in _registered


def test_exercises_come_in_the_order_of_their_numbers():
    numbers = [tuple(map(int, one.number.split("."))) for one in EVERY]
    assert all(a < b for a, b in pairwise(numbers))


# ---------------------------------------------------------------------------------------------------------------------
# Comparing


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (3, 3), (3.0, 3), (np.int64(3), 3), (np.float64(0.1), 0.1), (np.array(2.0), 2.0), (0.1 + 1e-8, 0.1),
        (1e9 + 1, 1e9), (float("inf"), float("inf")), (True, True), (np.bool_(False), False), (None, None), ("a", "a"),
        ([[1, 2], [3, 4]], np.array([[1.0, 2], [3, 4]])), (np.array([1, 0]), np.array([True, False])),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan])), ((1, "a"), (1, "a")), ([1, 2], (1, 2)),
        (np.array([1, 2]), [1, 2]), ({1, 2}, {2, 1}), ({"a": 1.0}, {"a": 1}), (np.zeros((0, 2)), np.zeros((0, 2))),
        (np.array([-np.inf, 1]), np.array([-np.inf, 1])),
    ],
)  # fmt: skip
def test_what_is_equal(got, wanted):
    Result("f()", got).equals(wanted)


@pytest.mark.parametrize(
    ("got", "wanted", "why"),
    [
        (4, 3, "4 is not 3"),
        (3.0001, 3, "3.0001 is not 3"),
        (0.1 + 1e-5, 0.1, "0.10001 is not 0.1"),
        (None, 3, "nothing (None) came; wanted a number"),
        (True, 1, "True or False came; wanted a number"),
        ("3", 3, "a string came; wanted a number"),
        (1 + 2j, 1, "a complex number came; wanted a number"),
        (float("nan"), 1.0, "NaN came"),
        (1, True, "a number came; wanted True or False"),
        (np.array([True, True]), True, "an array of shape (2,) and type bool came; wanted True or False"),
        (3, None, "a number came; wanted nothing (None)"),
        ("b", "a", "'b' is not 'a'"),
        ([1, 2, 3], [1, 2], "3 values came; wanted 2"),
        ("ab", ["a", "b"], "a string came; wanted a list of 2"),
        (((1, 2), (3, 5)), ((1, 2), (3, 4)), "at [1][1]: 5 is not 4"),
        ([1, 2], {1, 2}, "a list came; wanted a set"),
        ({1}, {1, 2}, "the sets differ"),
        ({"a": 1}, {"b": 1}, "the keys are ['a']; wanted ['b']"),
        ({"a": 1}, {"a": 2}, "at ['a']: 1 is not 2"),
        (7, np.zeros(2), "a number came; wanted an array of shape (2,)"),
        ([[1], [2, 3]], np.zeros((2, 2)), "a list came; wanted an array of shape (2, 2)"),
        (np.zeros((2, 3)), np.zeros((3, 2)), "an array of shape (2, 3) came; wanted shape (3, 2)"),
        (np.array([1, np.nan]), np.ones(2), "NaN came at [1]"),
        (np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 2], [3, 5]]), "1 of 4 entries differ, the first at [1, 1]"),
        (np.array([True, True]), np.array([True, False]), "the first at [1]: True came, wanted False"),
        (np.array([1j, 0]), np.zeros(2), "the array holds complex numbers"),
        (np.array([np.inf, 1]), np.array([-np.inf, 1]), "the first at [0]: inf came, wanted -inf"),
        (np.array([2.000001, 1]), np.array([2, 1]), "1 of 2 entries differ"),
    ],
)  # fmt: skip
def test_what_is_not_equal_and_why(got, wanted, why):
    with pytest.raises(WrongAnswer) as caught:
        Result("f()", got).equals(wanted)
    message = str(caught.value)
    assert message.startswith("f()\n  came ")
    assert "\n  wanted " in message
    assert why in message.splitlines()[-1]


def test_what_cannot_be_compared_is_the_checkers_fault():
    with pytest.raises(TypeError, match="cannot compare"):
        Result("f()", 1).equals(object())


def test_values_to_compute_with_are_checked():
    assert Result("f()", [[1, 2]]).array((1, 2)).tolist() == [[1.0, 2.0]]
    assert Result("f()", np.float32(2)).number() == 2.0
    assert [part.value for part in Result("f()", (1, 2)).parts(2)] == [1, 2]
    for get, why in [
        (lambda: Result("f()", "a").array((1,)), "a string came; wanted an array of real numbers of shape (1,)"),
        (lambda: Result("f()", [1, 2]).array((3,)), "an array of shape (2,) came; wanted shape (3,)"),
        (lambda: Result("f()", [1, np.inf]).array((2,)), "the array holds NaN or infinity"),
        (lambda: Result("f()", True).number(), "True or False came; wanted a finite number"),
        (lambda: Result("f()", np.nan).number(), "a number came; wanted a finite number"),
        (lambda: Result("f()", 3).parts(2), "a number came; wanted 2 values"),
        (lambda: Result("f()", 3).holds(False, "it is odd"), "it is odd"),
    ]:
        with pytest.raises(WrongAnswer) as caught:
            get()
        assert str(caught.value).splitlines()[-1].startswith(why)


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        (np.zeros(2), lambda a: a.fill(1)),
        ([1, 2], lambda a: a.append(3)),
        ({"a": 1}, lambda a: a.clear()),
        ({1}, lambda a: a.clear()),
        ([np.zeros(2)], lambda a: a[0].fill(1)),
        (ag.init_multi_head(4, 2, rng=np.random.default_rng(0)), lambda a: a.w_q.fill(0)),
    ],
)
def test_a_changed_argument_is_told_and_the_checkers_own_stays(argument, change):
    before = str(argument)
    with pytest.raises(WrongAnswer, match="changed its argument 1"):
        Answer("f", change)(argument)
    with pytest.raises(WrongAnswer, match="changed its argument a"):
        Answer("f", change)(a=argument)
    assert str(argument) == before
    Answer("f", lambda a: a)(argument).holds(True, "")


def test_a_call_is_shown_small():
    function = Answer("f", lambda *args, **named: None)
    assert function(np.eye(2), 0.1, [1, (2,)], x="a").call == "f([[1., 0.], [0., 1.]], 0.1, [1, (2,)], x='a')"
    assert function(np.zeros((20, 30)), np.float32(2), np.array(3)).call == "f(<array (20, 30)>, 2, 3)"
    assert function(np.random.default_rng(0), grade).call == "f(rng, grade)"
    assert len(function(list(range(10_000))).call) < 500


# ---------------------------------------------------------------------------------------------------------------------
# The command line


RIGHT = "import numpy as np\ndef merge(heads): return np.hstack(list(heads))\n"
TOLD = {
    "right": (RIGHT, ["Exercise 3.1, merge: passed (4 calls, random inputs with seed 0)"]),
    "wrong": ("def merge(h): return h.reshape(h.shape[1], -1)", ["not right yet (call 2, seed 0)", "entries differ"]),
    "wrong shape": ("def merge(heads): return heads", ["an array of shape (1, 3, 2) came; wanted shape (3, 2)"]),
    "nothing": ("def merge(heads): heads.copy()", ["nothing (None) came; wanted an array"]),
    "argument": ("def merge(heads):\n    heads += 1\n    return heads", ["changed its argument 1"]),
    "raises": ("def merge(heads):\n    return heads.first", ["raised AttributeError", "in line 2: return heads.first"]),
    "endless": ("def merge(heads):\n    while True: pass", ["still running after 2 s, in this call:\nmerge([[["]),
    "endless file": ("while True: pass", ["still running after 0.5 s, while the file was being read"]),
    "exit": ("def merge(heads): raise SystemExit", ["raised SystemExit", "return the result instead"]),
    "dies": ("import os\ndef merge(heads): os._exit(3)", ["ended without a result (exit status 3), in this call"]),
    "memory": ("def merge(heads): return bytearray(10**12)", ["raised MemoryError"]),
    "no function": ("def join(heads): return heads", ["defines no function merge; it defines join"]),
    "no callable": ("merge = 3", ["merge in", "is a number; wanted a function"]),
    "no Python": ("def merge(heads:", ["is not Python: '(' was never closed, in line 1: def merge(heads:"]),
    "broken file": ("1 / 0", ["could not be run: ZeroDivisionError: division by zero", "in line 1: 1 / 0"]),
    "prints": ("print('loading')\n" + RIGHT, ["passed (4 calls"]),
    "neighbour": ("from helper_of_mine import merge", ["passed (4 calls"]),
}


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "attn_guide.exercises", *arguments]
    return subprocess.run(words, input=given, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", TOLD)
def test_what_the_reader_is_told(name, tmp_path, capsys):
    if name == "memory" and sys.platform != "linux":
        pytest.skip("no limit of memory on this system")
    source, wanted = TOLD[name]
    file = tmp_path / "my_answer.py"
    file.write_text(source, encoding="utf-8")
    (tmp_path / "helper_of_mine.py").write_text(RIGHT, encoding="utf-8")
    seconds = {"endless": "2", "endless file": "0.5"}.get(name, "60")
    status = __main__.main(["check", "3.1", str(file), "--seconds", seconds])
    out = capsys.readouterr().out
    assert all(piece in out for piece in wanted), out
    assert ("passed" in out) == (status == 0)
    assert status in (0, 1)


def test_an_answer_from_standard_input(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(RIGHT))
    assert __main__.main(["check", "3.1", "-", "--seed", "7"]) == 0
    assert "passed (4 calls, random inputs with seed 7)" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("merge = None.x"))
    assert __main__.main(["check", "3.1", "-"]) == 1
    assert "<standard input> could not be run: AttributeError" in capsys.readouterr().out


def test_what_is_not_there(tmp_path, capsys):
    assert __main__.main(["check", "3.1", str(tmp_path / "none.py")]) == 1
    assert "none.py cannot be read: No such file" in capsys.readouterr().err
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    assert __main__.main(["check", "3.1", str(tmp_path / "bytes.py")]) == 1
    assert "bytes.py cannot be read: it is not text in UTF-8" in capsys.readouterr().err
    for command in ("show", "template"):
        assert __main__.main([command, "3.99"]) == 1
        assert "there is no exercise 3.99; chapter 3 has 3.1, 3.2," in capsys.readouterr().err
    assert __main__.main(["check", "nine", "x.py"]) == 1
    assert "there is no exercise nine; `list` names them all" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["list", "9"],
        ["check", "3.1"],
        ["check", "3.1", "a", "--seconds", "0"],
        ["check", "3.1", "a", "--seed", "x"],
    ],
)
def test_a_wrong_command_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        __main__.main(words)
    assert caught.value.code == 2
    assert "usage: python -m attn_guide.exercises" in capsys.readouterr().err


def test_list_and_show(capsys):
    assert __main__.main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(EVERY)
    assert __main__.main(["list", "3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("3.1   merge(heads)\n")
    assert {line[0] for line in out.splitlines()} == {"3"}
    assert __main__.main(["show", "3.1"]) == 0
    out = capsys.readouterr().out
    assert "Undo ``split_heads``" in out
    assert "def merge(heads): ..." in out
    assert f"{COMMAND} check 3.1 my_answer.py" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_commands_of_the_page_in_a_shell(tmp_path):
    template = run("template", "3.1")
    assert template.returncode == 0
    answer = template.stdout.replace("raise NotImplementedError  # your answer", "return np.hstack(list(heads))")
    file = tmp_path / "my_answer.py"
    file.write_text(answer, encoding="utf-8")
    checked = run("check", "3.1", str(file))
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == "Exercise 3.1, merge: passed (4 calls, random inputs with seed 0)\n"
    file.write_text(template.stdout, encoding="utf-8")
    checked = run("check", "3.1", str(file))
    assert checked.returncode == 1
    assert "raised NotImplementedError" in checked.stdout
    assert run("check").returncode == 2


def test_the_checkers_need_numpy_only():
    program = textwrap.dedent("""
        import json, sys
        from attn_guide.exercises import exercises
        exercises()
        print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
    """)
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "matplotlib", "scipy", "sklearn"} & set(json.loads(loaded))
