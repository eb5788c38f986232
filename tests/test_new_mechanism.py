"""The files of a new mechanism: in place, well formed, and failing until they are written."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from attn_guide import taxonomy
from tools import new_mechanism

ROOT = Path(__file__).resolve().parent.parent


def test_the_files_answer_to_the_names_of_the_chapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_mechanism.main(["delayed_window", "4"], tmp_path) == 0
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.py"))
    assert made == [
        "attn_guide/delayed_window.py",
        "gallery/4_causal/plot_delayed_window.py",
        "tests/test_delayed_window.py",
    ]
    for path in made:
        ast.parse((tmp_path / path).read_text())
    said = capsys.readouterr().out
    assert '"causal-delayed-window"' in said
    assert "docs/chapters/4-causal.md" in said
    assert "tests/claims/test_4_causal.py" in said


@pytest.mark.parametrize("chapter", taxonomy.CHAPTERS)
def test_every_chapter_has_its_places(chapter: int) -> None:
    made, left = new_mechanism.files("something_new", chapter)
    folders = {path.parent for path in made}
    assert all((ROOT / folder).is_dir() for folder in folders)
    assert f"docs/chapters/{taxonomy.CHAPTERS[chapter][0]}.md" in left
    assert new_mechanism.PREFIXES[chapter] in left


def test_what_is_laid_out_fails_until_it_is_written(tmp_path: Path) -> None:
    new_mechanism.main(["delayed_window", "4"], tmp_path)
    code = "import attn_guide as ag, runpy; ag.delayed_window = lambda x: x; "
    for path in ("tests/test_delayed_window.py",):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / path)]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 1, result.stdout
    ran = subprocess.run(
        [sys.executable, "-c", code + f"runpy.run_path({str(tmp_path / 'gallery/4_causal/plot_delayed_window.py')!r})"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr  # the script itself is sound: with a function it draws


def test_nothing_that_exists_is_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "tests" / "test_delayed_window.py"
    there.parent.mkdir()
    there.write_text("mine")
    assert new_mechanism.main(["delayed_window", "4"], tmp_path) == 1
    assert "exists already" in capsys.readouterr().err
    assert there.read_text() == "mine"
    assert [path.name for path in tmp_path.rglob("*.py")] == [there.name]


@pytest.mark.parametrize(
    ("name", "chapter", "said"),
    [
        ("Delayed", "4", "NAME"),
        ("for", "4", "NAME"),
        ("../x", "4", "NAME"),
        ("delayed", "8", "CHAPTER"),
        ("delayed", "x", "CHAPTER"),
    ],
)
def test_a_bad_name_or_chapter_is_named(
    name: str, chapter: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_mechanism.main([name, chapter], tmp_path) == 1
    assert f"error: {said} is" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
