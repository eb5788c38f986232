"""Explorers in the build: what the directive refuses, what is computed for them, and when it is computed again."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from guide_ext import explorer_data, explorers

ROOT = Path(__file__).resolve().parents[2]

CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_parser", "guide_ext.explorers"]
myst_enable_extensions = ["colon_fence"]
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a build says of a name that no explorer has, and of an explorer without an introduction."""
    folder = tmp_path_factory.mktemp("explorers")
    (folder / "conf.py").write_text(CONF.format(ext=str(ROOT / "docs" / "_ext")), encoding="utf-8")
    page = "# Page\n\n:::{explorer} msks\nTry it.\n:::\n\n:::{explorer} masks\n:::\n"
    (folder / "index.md").write_text(page, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-b", "html", str(folder), str(folder / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    return result.stderr


def test_a_name_that_no_explorer_has_is_refused_with_the_nearest(refused: str) -> None:
    assert "index.md:3: WARNING: no explorer 'msks'; there are: masks" in refused


def test_an_explorer_needs_an_introduction(refused: str) -> None:
    assert "the explorer masks has no introduction" in refused


def test_the_words_and_projections_are_those_of_the_chapter() -> None:
    """The first examples of chapter 1, run, give what the explorer is sent."""
    text = (ROOT / "docs" / "chapters" / "1-self-attention.md").read_text(encoding="utf-8")
    namespace: dict[str, object] = {}
    for example in doctest.DocTestParser().get_examples(text.replace("```", "\n")):
        if "w_v" in namespace:
            break
        exec(compile(example.source, "chapter 1", "single"), namespace)
    sent = explorer_data.five_steps()
    for name in ("w_q", "w_k", "w_v"):
        np.testing.assert_array_equal(sent[name], namespace[name])
    words = [sent["words"][token.lower()] for token in namespace["tokens"]]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(words, namespace["x"])


def test_no_word_is_listed_twice() -> None:
    listed = " ".join(explorer_data.VOCABULARY.values()).split()
    assert len(listed) == len(set(listed)) == len(explorer_data.five_steps()["words"])
    assert {len(features) for features in explorer_data.VOCABULARY} == {len(explorer_data.FEATURES)}


def unpack(text: str) -> np.ndarray:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    digits = np.array([letters.index(letter) for letter in text]).reshape(-1, 2)
    return (64 * digits[:, 0] + digits[:, 1]) / 4095


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_packed_weights_are_true_to_half_a_step(size: int) -> None:
    weights = np.random.default_rng(size).random(size)
    if size > 1:
        weights[:3] = 0, 1, 1.0000001
    assert len(explorer_data.pack(weights)) == 2 * size
    if size:
        np.testing.assert_allclose(unpack(explorer_data.pack(weights)), np.minimum(weights, 1), atol=0.5001 / 4095)


def test_alignments_are_of_unseen_numbers_and_their_rows_sum_to_one() -> None:
    sent = explorer_data.alignment()
    assert {item["test"] for item in sent["items"]} == {"held_out", "longer"}
    for item in sent["items"]:
        weights = unpack(item["weights"]).reshape(len(item["target"]), len(item["source"]))
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=len(item["source"]) / 4095)
    right = [item["target"][:-1] == item["reference"] for item in sent["items"] if item["test"] == "held_out"]
    assert np.mean(right) > 0.5
    assert 0 <= sent["accuracy"]["longer"] <= sent["accuracy"]["held_out"] <= 1


def test_heads_are_of_two_models_of_one_shape_and_their_rows_sum_to_one() -> None:
    sent = explorer_data.heads()
    assert len({(len(text["weights"]), len(text["weights"][0])) for text in sent}) == 1  # one set of buttons serves all
    for text in sent:
        n = len(text["tokens"])
        for packed in [head for layer in text["weights"] for head in layer]:
            weights = np.zeros((n, n))
            weights[np.tril_indices(n)] = unpack(packed)
            np.testing.assert_allclose(weights.sum(axis=1), 1, atol=n / 4095)


def test_data_is_computed_when_what_it_is_made_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def five_steps() -> dict[str, int]:
        calls.append(1)
        return {"call": len(calls)}

    told = explorers.Explorer("title", "figure", "moves", five_steps)
    monkeypatch.setitem(explorers.EXPLORERS, "five-steps", told)
    for _ in range(2):
        file = explorers.write_data("five-steps", tmp_path)
        assert json.loads(file.read_text(encoding="utf-8")) == {"call": 1}
    (tmp_path / "five-steps.fingerprint").write_text("what it was made of", encoding="utf-8")
    assert json.loads(explorers.write_data("five-steps", tmp_path).read_text(encoding="utf-8")) == {"call": 2}
    file.unlink()
    assert json.loads(explorers.write_data("five-steps", tmp_path).read_text(encoding="utf-8")) == {"call": 3}


def test_the_fingerprint_of_models_reaches_their_code() -> None:
    source = Path(explorer_data.__file__)
    for name, model in (("alignment", "bahdanau.py"), ("heads", "induction.py"), ("heads", "gpt.py")):
        reached = {path.name for path in explorers.freshness.function_dependencies(source, name)}
        assert model in reached
    assert not explorers.freshness.function_dependencies(source, "five_steps")
