"""Arbitrary input: the targets of ``make fuzz`` under hypothesis, and what they have found.

FUZZ_EXAMPLES=2000 .venv/bin/python -m pytest tests/test_fuzz.py      more of it
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attn_guide as ag
from attn_guide.models import CheckpointError, fit, read_checkpoint
from attn_guide.models import __main__ as models_program
from tools import fuzz

#: What a target costs decides how many examples it gets where nothing is set.
EXAMPLES = {"checkpoint": 40, "models-command-line": 30}


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_target_finds_nothing(target: str) -> None:
    count = int(os.environ.get("FUZZ_EXAMPLES", EXAMPLES.get(target, 80)))

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(min_size=8, max_size=120))
    def run(data: bytes) -> None:
        fuzz.TARGETS[target](data)

    run()


# --- the targets themselves would notice -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda x, *_, **__: np.full(np.shape(x), 0.4), "sum to"),
        (lambda x, *_, **__: np.full(np.shape(x), np.nan), "NaN"),
        (lambda x, *_, **__: {}["x"], "x"),
    ],
    ids=["sum", "nan", "error"],
)
def test_a_broken_softmax_is_noticed(monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Any], said: str) -> None:
    fuzz.softmax(bytes([2, 2, 2]))
    monkeypatch.setattr(ag, "softmax", broken)
    with pytest.raises((AssertionError, KeyError), match=said):
        fuzz.softmax(bytes([2, 2, 2]))


def test_tiled_attention_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes([3, 3, 2, 2, 1])  # the rest are zeros, the usual arguments
    fuzz.attention(data)
    right = ag.flash_attention
    monkeypatch.setattr(ag, "flash_attention", lambda *a, **o: right(*a, **o) + 1)
    with pytest.raises(AssertionError, match="tolerance"):
        fuzz.attention(data)


def _raise(_: list[str]) -> int:
    raise KeyError("x")


def _two_messages(_: list[str]) -> int:
    print("error: one\nerror: two", file=sys.stderr)
    return 1


def _surrogates(_: list[str]) -> int:
    print("\ud800")
    return 0


@pytest.mark.parametrize("main", [_raise, _two_messages, _surrogates, lambda _: 1, lambda _: 0, lambda _: 3])
def test_a_bad_command_line_is_noticed(main: Callable[[list[str]], int]) -> None:
    with pytest.raises((AssertionError, KeyError, UnicodeEncodeError)):
        fuzz.check_command(main, [])


# --- what was found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("temperature", [1e-300, 5e-324])
def test_a_temperature_below_the_range_of_the_dtype_chooses_the_largest(dtype: Any, temperature: float) -> None:
    weights = ag.softmax(np.array([1, 3, 2], dtype), temperature=temperature)
    np.testing.assert_array_equal(weights, [0, 1, 0])


@pytest.mark.parametrize("attend", [ag.scaled_dot_product_attention, ag.flash_attention])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_soft_cap_outside_the_range_of_the_dtype(attend: Callable[..., np.ndarray], dtype: Any) -> None:
    q, k, v = (np.random.default_rng(seed).normal(size=(4, 4)).astype(dtype) for seed in range(3))
    k[0] = 0
    np.testing.assert_array_equal(attend(q, k, v, softcap=1e300), attend(q, k, v))
    uniform = np.broadcast_to(v.astype(np.float32).mean(axis=0), v.shape)
    np.testing.assert_allclose(attend(q, k, v, softcap=1e-300), uniform, rtol=0, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_a_number_beyond_all_floats_is_refused_as_others_are(number: int) -> None:
    x = np.ones((2, 2))
    for call in (
        lambda: ag.softmax(x, temperature=number),
        lambda: ag.scaled_dot_product_attention(x, x, x, scale=number),
        lambda: ag.scaled_dot_product_attention(x, x, x, softcap=number),
        lambda: ag.scaled_dot_product_attention(x, x, x, dropout_p=number, rng=np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match="wanted"):
            call()


@pytest.mark.parametrize("attend", [ag.scaled_dot_product_attention, ag.flash_attention])
def test_a_predicate_that_cannot_be_called_is_named_even_with_nothing_to_compute(attend: Callable[..., Any]) -> None:
    for n in (0, 2):
        x = np.ones((n, 2))
        with pytest.raises(TypeError, match=r"mask_mod is 'no' of type str; wanted a function mask_mod\(b, h, "):
            attend(x, x, x, mask_mod="no")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The checkpoint of a small model."""
    fit(fuzz.small_recipe(), folder=tmp_path, progress=None)
    return next(tmp_path.glob("*.ckpt"))


def resigned(raw: bytes, payload: bytes | None = None, **changes: Any) -> bytes:
    """A checkpoint with other tensors or entries, and the right checksum."""
    magic, head, old = raw.split(b"\n", 2)
    payload = old if payload is None else payload
    manifest = json.loads(head) | {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()} | changes
    return b"\n".join([magic, json.dumps(manifest).encode(), payload])


@pytest.mark.parametrize("payload", [b"", b"PK", b"nonsense", b"\x80\x02N.", b"\x80\x02]."])
def test_tensors_that_are_none_are_refused(small: Path, payload: bytes) -> None:
    small.write_bytes(resigned(small.read_bytes(), payload))
    with pytest.raises(CheckpointError, match="holds something other than tensors"):
        read_checkpoint(small)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_tensors_that_are_damaged_and_signed_are_refused(small: Path, cut: float) -> None:
    payload = small.read_bytes().split(b"\n", 2)[2]
    small.write_bytes(resigned(small.read_bytes(), payload[: int(cut * len(payload))]))
    with pytest.raises(CheckpointError, match="holds something other than tensors"):
        read_checkpoint(small)


def test_a_description_without_an_end_is_refused(small: Path) -> None:
    magic, _, payload = small.read_bytes().split(b"\n", 2)
    small.write_bytes(b"\n".join([magic, b"[" * 100_000, payload]))
    with pytest.raises(CheckpointError, match="its description is damaged"):
        read_checkpoint(small)


@pytest.mark.parametrize(
    "changes",
    [
        {"results": 3}, {"results": {"slope": "x"}}, {"history": []}, {"history": [1]}, {"history": [{}]},
        {"history": [{"step": 0}, {"loss": 0}]}, {"history": None}, {"seconds": "x"}, {"step": -1}, {"step": 9},
        {"step": "x"}, {"step": True}, {"steps": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_description_of_another_training_is_refused(small: Path, changes: dict[str, Any]) -> None:
    small.write_bytes(resigned(small.read_bytes(), **changes))
    with pytest.raises(CheckpointError, match="its description is damaged") as refused:
        fit(fuzz.small_recipe(), folder=small.parent, progress=None)
    assert str(small) in str(refused.value)


@pytest.mark.parametrize("change", ["model", "loss", "parameter", "shape", "unfinished"])
def test_tensors_of_another_model_are_refused(small: Path, change: str) -> None:
    import io

    import torch

    manifest, tensors = read_checkpoint(small)
    if change in ("model", "loss"):
        del tensors[change]
    elif change == "parameter":
        tensors["model"] = dict(list(tensors["model"].items())[:1])
    elif change == "shape":
        tensors["loss"] = torch.zeros(9)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    results = {} if change == "unfinished" else manifest["results"]  # then the state of the optimiser is missed
    small.write_bytes(resigned(small.read_bytes(), buffer.getvalue(), results=results))
    with pytest.raises(CheckpointError, match="holds the tensors of another model"):
        fit(fuzz.small_recipe(), folder=small.parent, progress=None)


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATTN_GUIDE_MODELS", str(tmp_path / "file"))
    monkeypatch.setattr(models_program.registry, "_RECIPES", {"line": fuzz.small_recipe()})
    assert models_program.main(["train", "line"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "command",
    ["attn_guide taxonomy", "attn_guide.exercises list", "attn_guide.exercises template 3.1", "attn_guide.models list"],
)
@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signal")
def test_a_reader_that_has_gone_is_no_error(command: str) -> None:
    """As ``| head -0``: the pipe is closed before the program writes to it."""
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert result.stderr == ""
    assert result.returncode == 141  # what a shell says of a program that this ends
