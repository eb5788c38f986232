"""The command line of the package, and what it makes of a mask that someone typed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attn_guide as ag
from attn_guide.__main__ import ExpressionError, drawing, main, read_mask


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("causal", ag.causal),
        (" causal & sliding_window(3, 0)", ag.causal & ag.sliding_window(3, 0)),
        ("causal & (sliding_window(left=2, right=0) | sinks(1))", ag.causal & (ag.sliding_window(2, 0) | ag.sinks(1))),
        ("~causal", ~ag.causal),
        ("document([0] + [1])", None),
        ("document([0, 0, 1, 1, 2, 2, 2, 2])", ag.document([0, 0, 1, 1, 2, 2, 2, 2])),
        ("per_head([causal, causal])", ag.per_head([ag.causal, ag.causal])),
        ("random_keys(2, 8, rng=3)", ag.random_keys(2, 8, rng=np.random.default_rng(3))),
    ],
)
def test_a_mask_is_read_as_python_reads_it(text: str, mask: ag.Mask | None) -> None:
    if mask is None:
        with pytest.raises(ExpressionError):
            read_mask(text)
    else:
        np.testing.assert_array_equal(read_mask(text).materialize(8), mask.materialize(8))


def test_every_name_that_is_offered_is_a_mask_or_makes_one() -> None:
    arguments = {
        "bigbird": "16, 2, rng=0", "block_local": "4", "blockwise": "causal, 4", "causal_lower_right": "16, 16",
        "dilated_window": "2, 0, 2", "document": f"{[0] * 16}", "from_array": "[[True, False]]", "global_tokens": "0",
        "longformer": "4, 0", "on_head": "0", "per_head": "[causal]", "prefix": "3", "random_keys": "2, 16, rng=0",
        "sinks": "1", "sliding_window": "2, 0", "sparse_transformer_fixed": "4, 1", "sparse_transformer_strided": "4",
        "strided": "4",
    }  # fmt: skip
    from attn_guide.__main__ import NAMES

    for name in NAMES:
        text = name if name in ("causal", "full") else f"{name}({arguments[name]})"
        n, m = (1, 2) if name == "from_array" else (16, 16)
        assert read_mask(text).materialize(n, m).shape[-2:] == (n, m), text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("causal &", "cannot be read"),
        ("casual", "no mask is named 'casual'"),
        ("Mask", "no mask is named 'Mask'"),
        ("__import__('os').system('true')", "is no mask"),
        ("causal.__class__", "is no mask"),
        ("(lambda: causal)()", "is no mask"),
        ("causal(3)", "takes no arguments"),
        ("sliding_window", "wanted a mask"),
        ("causal & sliding_window", "sliding_window(...)"),
        ("prefix(-1)", "length is -1"),
        ("prefix(99999999999)", "too large"),
        ("prefix(2, 3)", "prefix(2, 3)"),
        ("random_keys(2, 8, rng='x')", "random_keys"),
        ("causal + causal", "is no mask"),
        ("3", "is no mask"),
        ("~" * 900 + "causal", "nested too deeply"),
        ("(" * 500, "cannot be read"),
        ("causal & " * 200 + "causal", "characters"),
        ("\0", "cannot be read"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        read_mask(text)
    assert said in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text("causal()&|~ ,0123[]sink", max_size=40))
def test_no_text_does_anything_but_give_a_mask_or_a_reason(text: str) -> None:
    try:
        found = read_mask(text)
    except ExpressionError:
        return
    assert isinstance(found, ag.Mask)


def test_a_drawing_shows_every_pair() -> None:
    assert drawing(ag.causal, 3).splitlines()[:3] == ["██ · ·", "████ ·", "██████"]
    assert drawing(ag.causal, 3).endswith("6 of 9 pairs, 66.7%")
    assert drawing(ag.full, 1, 4).splitlines()[0] == "█" * 8


def test_the_commands_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert f"attn_guide {ag.__version__}" in capsys.readouterr().out
    assert main(["taxonomy"]) == 0
    everything = capsys.readouterr().out
    assert all(mechanism.function in everything for mechanism in ag.taxonomy.MECHANISMS)
    assert main(["taxonomy", "7"]) == 0
    seventh = capsys.readouterr().out
    assert "selection.sparsemax" in seventh
    assert "masks.causal" not in seventh
    assert main(["draw", "causal", "-n", "2"]) == 0
    assert "██ ·\n████\n" in capsys.readouterr().out
    assert main(["bench", "-n", "64"]) == 0
    assert "flash" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["draw", "causal", "-n", "0"], ["draw", "causal", "-n", "x"], ["taxonomy", "9"], [], ["drew"]]
)
def test_bad_usage_exits_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "arguments",
    [["draw", "casual"], ["draw", "causal", "-n", "60000"], ["draw", "document([0, 1])", "-n", "3"]],
)
def test_a_mistake_exits_with_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_it_needs_numpy_alone() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'matplotlib', 'scipy', 'sphinx'): sys.modules[name] = None\n"
        "from attn_guide.__main__ import main\n"
        "sys.exit(main(['draw', 'causal', '-n', '3']) or main(['taxonomy']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
