"""Throw arbitrary input at the package: it answers, or says what is wrong. ``python -m tools.fuzz``.

    python -m tools.fuzz                     each target for FUZZ_SECONDS (60 unless set), with atheris
    python -m tools.fuzz softmax draw        these targets
    python -m tools.fuzz softmax crash-1234  once, with input that a run has kept

A target takes bytes, decodes them into arguments, and raises where the package breaks its word: an exception that is
not documented, weights that do not sum to one, NaN from finite numbers, a command line that ends in a traceback.
Atheris changes the bytes so that they reach ever more lines of the package; ``tests/test_fuzz.py`` gives the same
targets to hypothesis, a few dozen inputs each, and is run with more of them where atheris cannot be installed.

Each target runs in a process of its own. Input that breaks it is kept in ``_build/fuzz/TARGET`` and named; what reached
new lines is kept beside it, and the next run starts from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np

import attn_guide as ag
from attn_guide import __main__ as guide

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "fuzz"
DOCUMENTED = (ValueError, TypeError)

T = TypeVar("T")


class Bytes:
    """Decodes bytes into values; where they end, the rest are zeros."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        self.at += count
        return self.data[self.at - count : self.at].ljust(count, b"\0")

    def below(self, stop: int) -> int:
        """A whole number from 0 to ``stop - 1``."""
        return self.take(1)[0] % stop

    def flag(self) -> bool:
        return self.below(2) == 1

    def one_of(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def mostly(self, usual: T, strange: Sequence[Any]) -> T | Any:
        """The usual value seven times of eight."""
        return self.one_of(strange) if self.below(8) == 7 else usual

    def array(self, shape: tuple[int, ...], dtype: Any, extreme: bool) -> np.ndarray:
        """Numbers from -8 to 8, and now and then one that is hard."""
        count = int(np.prod(shape))
        raw = np.frombuffer(self.take(count), np.int8).astype(np.float64) / 16
        if extreme:
            for at in range(0, count, 3):
                raw[at] = self.one_of(HARD)
        with np.errstate(all="ignore"):
            return raw.reshape(shape).astype(dtype)


HARD = (0.0, -0.0, 1e-300, -1e-45, 1e30, -1e30, 6e4, 1e308, -1e308, np.inf, -np.inf, np.nan)
FLOATS = (np.float64, np.float32, np.float16)
ODD_DTYPES = (np.int64, np.int8, np.bool_, np.complex128, object, "U3", "datetime64[s]")
ODD_NUMBERS = (0.0, -1.0, 1e-300, 1e300, np.inf, np.nan, 5e-324, "1", None, 1j, True, np.float32(0.5), 10**400)
ODD_INTEGERS = (-(2**63), -1, 0, 2**63, 1.0, "1", None, True, np.int64(1))


def _answer(function: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
    """The result, or None after a documented error. Overflow may warn."""
    with np.errstate(all="ignore"):
        try:
            return function(*arguments, **options)
        except DOCUMENTED as error:
            if not str(error):
                raise AssertionError(f"{function.__name__} raises {type(error).__name__} and says nothing") from error
            return None


def _are_weights(weights: np.ndarray, axis: int = -1) -> None:
    assert not np.isnan(weights).any(), "weights hold NaN"
    assert (weights >= 0).all(), "weights are negative"
    total = weights.astype(np.float64).sum(axis=axis)
    slack = 16 * np.finfo(weights.dtype).eps * max(weights.shape[axis], 1)
    assert ((total == 0) | (abs(total - 1) <= slack)).all(), f"weights sum to {total}"


def softmax(data: bytes) -> None:
    """``ag.softmax``, and ``ag.log_sum_exp`` of the same scores."""
    source = Bytes(data)
    shape = tuple(source.below(4) for _ in range(source.below(4)))
    extreme = source.flag()
    x = source.array(shape, source.mostly(source.one_of(FLOATS), ODD_DTYPES), extreme)
    axis = source.mostly(-1, (*range(-4, 4), *ODD_INTEGERS))
    temperature = source.mostly(1.0, (0.01, 100.0, *ODD_NUMBERS))
    where = source.mostly(None, (True, x == x, x[..., :1] == 0 if x.ndim else False, np.ones(7, bool), [1, 0], "no"))
    weights = _answer(ag.softmax, x, axis, temperature=temperature, where=where)
    _answer(ag.log_sum_exp, x, axis, where=where)
    if weights is None:
        return
    assert weights.shape == x.shape
    assert weights.dtype == (x.dtype if x.dtype.kind == "f" else np.float64)
    if np.isfinite(x).all() and x.size:
        _are_weights(weights, axis)


def gives_numbers(*_: Any) -> int:
    """A predicate that is none."""
    return 3


def attention(data: bytes) -> None:
    """Dense and tiled attention: both answer alike, or both refuse."""
    source = Bytes(data)
    n, m, d, d_v, heads = (source.below(stop) for stop in (6, 6, 4, 4, 4))
    kv_heads = source.mostly(heads, (1, 2, 0))
    lead = source.one_of(((), (2,), (1,)))
    dtype = source.one_of(FLOATS)
    extreme = source.below(4) == 3
    query = source.array((*lead, heads, n, d), source.mostly(dtype, ODD_DTYPES), extreme)
    key = source.array((*lead, kv_heads, m, source.mostly(d, (0, 1, 5))), dtype, extreme)
    value = source.array((kv_heads, source.mostly(m, (0, 1, 7)), d_v), source.mostly(dtype, ODD_DTYPES), extreme)
    cut = source.below(4)
    query, key, value = (x[(0,) * cut] if cut > 1 and x.size else x for x in (query, key, value))
    options = {
        "attn_mask": source.mostly(
            None, (np.tri(n, m, dtype=bool), np.zeros((n, m), dtype), np.full((n, m), -np.inf, dtype), np.nan, "no",
                   np.ones((n, m), int), np.ones((9, 9), bool), [[True], [False, True]])
        ),
        "is_causal": source.flag(),
        "scale": source.mostly(None, ODD_NUMBERS),
        "enable_gqa": source.flag(),
        "softcap": source.mostly(None, (2.0, *ODD_NUMBERS)),
        "mask_mod": source.mostly(
            None, (ag.causal, ag.sliding_window(1, 0), ~ag.causal, ag.causal_lower_right(n, m), gives_numbers,
                   lambda b, h, q, k: q >= k, "no")
        ),
    }  # fmt: skip
    blocks = {name: source.mostly(None, (1, 2, 3, *ODD_INTEGERS)) for name in ("block_q", "block_k")}
    dense = _answer(ag.scaled_dot_product_attention, query, key, value, **options, return_weights=True)
    tiled = _answer(ag.flash_attention, query, key, value, **options, **blocks)
    if dense is None:
        # Tiled attention asks a predicate only where cells are left to decide, and may never see that it gives numbers.
        numbers = options["mask_mod"] is gives_numbers
        assert tiled is None or numbers, "dense attention refuses what tiled attention takes"
        return
    assert tiled is not None or blocks != {"block_q": None, "block_k": None}, "tiled attention alone refuses"
    out, weights = dense
    if extreme or options["scale"] in (1e300, 1e-300, 5e-324, np.inf):
        return  # scores may overflow, and inf - inf is NaN
    assert not np.isnan(out).any(), "dense attention makes NaN from finite numbers"
    if weights.size:
        _are_weights(weights)
    if tiled is not None:
        assert tiled.shape == out.shape
        assert tiled.dtype == out.dtype
        np.testing.assert_allclose(tiled.astype(float), out.astype(float), rtol=0, atol=100 * np.finfo(out.dtype).eps)


_MASK_WORDS = (
    *guide.NAMES, *"()()()[],,,&|~-", *"0123456789", "16", "True", "None", "rng=", "0", "=", ".", "'a'", "65536", "1e9",
    "lambda: 0", "*", "**", "causal", "left=1", "\n", "\\", "#", "{", "\u00b2", " ", "\ud800",
)  # fmt: skip


def _mask_text(source: Bytes) -> str:
    """A call with plausible arguments, or words of the language of masks in any order."""
    if source.flag():
        arguments = ", ".join(source.one_of(("1", "2", "4", "0", "-1", "8", "[0, 1]", "causal", "rng=1", "2.5"))
                              for _ in range(source.below(5)))  # fmt: skip
        return f"{source.one_of(guide.NAMES)}({arguments}){source.one_of(('', ' & causal', ' | ~sinks(1)'))}"
    return "".join(source.one_of(_MASK_WORDS) for _ in range(source.below(24)))


def draw(data: bytes) -> None:
    """``read_mask`` and ``drawing``: a mask or a reason."""
    source = Bytes(data)
    text, n, m = _mask_text(source), source.below(12) + 1, source.below(12) + 1
    mask = _answer(guide.read_mask, text)
    if mask is not None:
        assert isinstance(mask, ag.Mask), text
        picture = _answer(guide.drawing, mask, n, source.one_of((None, m)))
        assert picture is None or picture.splitlines()[-1].endswith("%")


@contextlib.contextmanager
def _terminal() -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    """Standard output and error as the interpreter opens them: what cannot be written is an error, or spelled out."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="surrogateescape", newline="\n")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", newline="\n")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode("utf-8", "replace")


def check_command(main: Callable[[list[str]], int], arguments: list[str]) -> tuple[int, str, str]:
    """Run a command line; it must give 0 and an answer, or 1 or 2 and one message."""
    with _terminal() as (out, err):
        try:
            status = main(arguments)
        except SystemExit as end:  # of argparse
            status = end.code if isinstance(end.code, int) else -1
    answer, said = _written(out), _written(err)
    assert status in (0, 1, 2), f"{arguments}: exit status {status}"
    if status == 0:
        assert answer, f"{arguments}: succeeds and says nothing"
        assert not said, f"{arguments}: succeeds and complains: {said}"
    else:
        assert (said or answer).strip(), f"{arguments}: fails and says nothing"
        assert "Traceback" not in said + answer
        assert said.count("error:") <= 1, f"{arguments}: more than one message: {said}"
    return status, answer, said


def _arguments(source: Bytes, commands: Sequence[str], words: Sequence[str]) -> list[str]:
    """A command and a few words, each now and then a strange one."""
    strange = ("", "-", "--", "-h", "\udcff", "\u0663", "\u00b2", "9" * 5000, "-1", "1e3", "nan", "x\ny", "\x1b[0m",
               "../..", "--se", "%s", "{}")  # fmt: skip
    first = source.mostly(source.one_of(commands), (*strange, *words))
    return [first, *(source.mostly(source.one_of(words), strange) for _ in range(source.below(5)))]


def command_line(data: bytes) -> None:
    """``python -m attn_guide``; timings are left out."""
    source = Bytes(data)
    words = ("-n", "-m", "4", "0", "65536", "7", "causal", "sinks(1)", _mask_text(source))
    arguments = _arguments(source, ("info", "taxonomy", "draw", "draw", "draw", "bench"), words)
    with mock.patch.object(guide, "_bench", lambda n: f"n = {n}"):
        status, _, said = check_command(guide.main, arguments)
    if status == 1:
        assert said.startswith("error: ")


def exercises_command_line(data: bytes) -> None:
    """``python -m attn_guide.exercises``; answers are read, not run."""
    from attn_guide.exercises import Verdict, exercises
    from attn_guide.exercises import __main__ as program

    source = Bytes(data)
    words = (
        exercises()[0].number,
        "3.1",
        "3",
        "8",
        "--seed",
        "--seconds",
        "5",
        "0.5",
        "-",
        __file__,
        "no.py",
        os.curdir,
    )
    arguments = _arguments(source, ("list", "show", "template", "check", "check"), words)

    def judge(number: str, *_: Any) -> Verdict:
        return Verdict(True, 1)

    with mock.patch.object(program, "check", judge), mock.patch("sys.stdin", io.StringIO("x = 1")):
        check_command(program.main, arguments)


def models_command_line(data: bytes) -> None:
    """``python -m attn_guide.models``, with one model of two parameters and an empty cache."""
    from attn_guide.models import __main__ as program
    from attn_guide.models import registry

    source = Bytes(data)
    words = ("line", "circle", "--seed", "0", "3", "--fresh", "a text")
    arguments = _arguments(source, ("list", "train", "evaluate", "draw"), words)
    line = small_recipe()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {"ATTN_GUIDE_MODELS": folder}),
        mock.patch.object(registry, "_RECIPES", {"line": line}),
        mock.patch.object(program, "fit", _quiet(program.fit)),
        mock.patch.object(registry, "fit", _quiet(registry.fit)),
    ):
        check_command(program.main, arguments)


def _quiet(fit: Callable[..., T]) -> Callable[..., T]:
    return lambda *arguments, **options: fit(*arguments, **options, progress=None)


def small_recipe() -> Any:
    """A model of two parameters, trained for two steps."""
    import torch

    from attn_guide.models import Experiment, Recipe

    class Line(Experiment):
        """Fit a line through the origin."""

        def __init__(self) -> None:
            self.model = torch.nn.Linear(1, 1)

        def loss(self, generator: torch.Generator) -> torch.Tensor:
            x = torch.randn(4, 1, generator=generator)
            return ((self.model(x) - x) ** 2).mean()

        def evaluate(self) -> dict[str, float]:
            return {"slope": float(next(self.model.parameters()).detach()[0, 0])}

    return Recipe("line", "A line.", lambda settings, seed: Line(), {"steps": 2, "lr": 0.1})


_VALUES: tuple[Any, ...] = (
    None,
    -1,
    0,
    1,
    2**70,
    1.5,
    "",
    "x",
    [],
    {},
    [[1]],
    True,
    {"step": 0},
    [{"step": 0}],
    [{}],
    "0" * 64,
)


def changed_checkpoint(raw: bytes, source: Bytes) -> bytes:
    """A checkpoint with something changed in its description, its tensors, or anywhere; its checksum may be mended."""
    magic, head, payload = raw.split(b"\n", 2)
    manifest, how = json.loads(head), source.below(4)
    if how == 0:  # anywhere
        changed = bytearray(raw)
        for _ in range(source.below(4) + 1):
            at = int.from_bytes(source.take(2), "little") % len(changed)
            changed[at : at + source.below(3)] = source.take(source.below(3))
        return bytes(changed)
    if how == 1:  # another description
        text = source.one_of(("[" * 10_000, "{}", "[]", "3", "null", '"a"', '{"bytes": 1e400}', "\x00", "NaN", "\xff"))
        return b"\n".join([magic, text.encode("latin-1"), payload])
    if how == 2:  # other entries
        for _ in range(source.below(3) + 1):
            manifest[source.one_of(sorted(manifest))] = source.one_of(_VALUES)
            manifest.pop(source.mostly("", sorted(manifest)), None)
    else:  # other tensors, rightly signed
        changed = bytearray(payload)
        for _ in range(source.below(4) + 1):
            at = int.from_bytes(source.take(2), "little") % len(changed)
            changed[at : at + source.below(3)] = source.take(source.below(3))
        payload = source.mostly(bytes(changed), (b"", b"PK", payload[:50], b"\x80\x02.", b"\x80\x02N.", b"\x80\x02]."))
        manifest |= {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    return b"\n".join([magic, json.dumps(manifest).encode(), payload])


@cache
def small_checkpoint() -> tuple[str, bytes]:
    """The name and the bytes of a whole checkpoint."""
    from attn_guide.models import fit

    with tempfile.TemporaryDirectory() as folder:
        fit(small_recipe(), folder=folder, progress=None)
        path = next(Path(folder).glob("*.ckpt"))
        return path.name, path.read_bytes()


def checkpoint(data: bytes) -> None:
    """``read_checkpoint`` and ``fit`` on a checkpoint that was changed: both use it, or refuse it and say why."""
    from attn_guide.models import CheckpointError, fit, read_checkpoint

    def used_or_refused(use: Callable[[], T]) -> T | None:
        try:
            return use()
        except CheckpointError as error:
            if str(path) not in str(error):
                raise AssertionError("the file is not named") from error
            return None

    recipe = small_recipe()
    with tempfile.TemporaryDirectory() as folder:
        name, whole = small_checkpoint()
        path = Path(folder) / name
        path.write_bytes(changed_checkpoint(whole, Bytes(data)))
        if (read := used_or_refused(lambda: read_checkpoint(path))) is not None:
            assert all(isinstance(part, dict) for part in read)
        if (trained := used_or_refused(lambda: fit(recipe, folder=folder, progress=None))) is not None:
            assert trained.loss.shape == (2,)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "softmax": softmax,
    "attention": attention,
    "draw": draw,
    "checkpoint": checkpoint,
    "command-line": command_line,
    "models-command-line": models_command_line,
    "exercises-command-line": exercises_command_line,
}

#: Atheris follows the lines of what is imported under its eyes, so a process starts with it.
_CHILD = """
import sys, atheris
with atheris.instrument_imports(include=["attn_guide"]):
    from tools import fuzz
atheris.Setup(sys.argv, fuzz.TARGETS[sys.argv.pop(1)])
atheris.Fuzz()
"""


def run_with_atheris(target: str, seconds: int) -> bool:
    """Fuzz one target for so long; say whether nothing broke it."""
    corpus = FOLDER / target / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    child = [sys.executable, "-c", _CHILD, target, str(corpus), f"-max_total_time={seconds}", "-max_len=200",
             f"-artifact_prefix={FOLDER / target}{os.sep}", "-print_final_stats=1", "-verbosity=0"]  # fmt: skip
    found = subprocess.run(child, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    counts = re.findall(r"stat::number_of_executed_units:\s*(\d+)", found.stderr)
    print(f"{target}: {counts[-1] if counts else 'an unknown number of'} inputs in {seconds} s", flush=True)
    if found.returncode:
        print(found.stderr[-4000:], file=sys.stderr)
        print(f"  Once more: python -m tools.fuzz {target} FILE, with a FILE of {FOLDER / target}", file=sys.stderr)
    return found.returncode == 0


def main(arguments: Sequence[str]) -> int:
    """Run the targets named, or all; the exit status is 1 where one was broken."""
    words = list(arguments)
    if len(words) == 2 and words[0] in TARGETS and words[1] not in TARGETS:
        TARGETS[words[0]](Path(words[1]).read_bytes())
        print(f"{words[0]}: nothing found with {words[1]}")
        return 0
    if unknown := [word for word in words if word not in TARGETS]:
        print(f"error: no target {unknown[0]!r}; wanted some of {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    targets = words or list(TARGETS)
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    if find_spec("atheris") is None:
        print("atheris is not installed; hypothesis makes the inputs, which takes no account of the lines they reach")
        chosen = " or ".join(f"finds_nothing[{target}]" for target in targets)
        test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_fuzz.py", "-k", chosen]
        return subprocess.run(test, cwd=ROOT, env=os.environ | {"FUZZ_EXAMPLES": "3000"}, check=False).returncode
    broken = [target for target in targets if not run_with_atheris(target, seconds)]
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
