"""The exercises as data, and what becomes of an answer."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from ._answer import Answer, WrongAnswer

CHAPTERS = range(8)
PAGES = (
    "0-concepts", "1-self-attention", "2-cross-attention", "3-multi-head", "4-causal", "5-sparse", "6-score-functions",
    "7-soft-hard",
)  # fmt: skip
SECONDS = 10.0
START = 120.0  # seconds within which an interpreter starts, however busy the machine is

Checker = Callable[[Answer, np.random.Generator], None]


@dataclass(frozen=True)
class Exercise:
    """An exercise with its checker.

    Attributes
    ----------
    number : str
        Chapter and place, as "4.2".
    name, signature : str
        Of the function that is asked for.
    statement : str
        What the function does.
    wrong : dict of str to str
        A plausible mistake in words, and the source of an answer that makes it.
    checker : callable
        Takes an ``Answer`` and a NumPy ``Generator``.
    """

    number: str
    name: str
    signature: str
    statement: str
    wrong: Mapping[str, str] = field(repr=False)
    checker: Checker = field(repr=False)

    @property
    def chapter(self) -> int:
        """The chapter it belongs to."""
        return int(self.number.partition(".")[0])

    @property
    def page(self) -> str:
        """The page it stands on, relative to the folder ``docs``, without an ending."""
        return f"chapters/{PAGES[self.chapter]}"

    def told(self, width: int) -> str:
        """The statement, in lines of at most so many characters."""
        paragraphs = [" ".join(paragraph.split()) for paragraph in self.statement.split("\n\n")]
        return "\n\n".join(textwrap.fill(paragraph, width, break_on_hyphens=False) for paragraph in paragraphs)

    @property
    def template(self) -> str:
        """A file to start from."""
        body = textwrap.indent(self.told(76), "    ")
        return (
            "import numpy as np\n\nimport attn_guide as ag\n\n\n"
            f'def {self.name}{self.signature}:\n    """Exercise {self.number}.\n\n{body}\n    """\n'
            "    raise NotImplementedError  # your answer\n"
        )


@dataclass(frozen=True)
class Verdict:
    """What became of an answer.

    Attributes
    ----------
    passed : bool
        Whether it is right.
    cases : int
        How many calls of the function were judged.
    message : str
        Why it is not right; empty if it is.
    """

    passed: bool
    cases: int
    message: str = ""


_registered: dict[str, Exercise] = {}


def exercise(
    number: str, name: str, signature: str, statement: str, wrong: Mapping[str, str]
) -> Callable[[Checker], Checker]:
    """Register a checker: a decorator.

    Parameters
    ----------
    number : str
        Chapter and place, as "4.2".
    name, signature : str
        Of the function that is asked for, as ``"receptive_field"`` and ``"(layers, window)"``.
    statement : str
        What the function takes and gives, in a few sentences; indented as the source is.
    wrong : dict of str to str
        At least one plausible mistake in words, each with the source of an answer that makes it.

    Raises
    ------
    ValueError
        If the number is taken or not of that form, or there is no wrong answer.
    """
    if not re.fullmatch(r"[0-7]\.[1-9]\d?", number):
        raise ValueError(f"number is {number!r}; wanted chapter and place, such as '4.2'")
    if not wrong:
        raise ValueError(f"exercise {number} has no wrong answer; wanted at least one that its checker rejects")

    def register(checker: Checker) -> Checker:
        if number in _registered:
            raise ValueError(f"number is {number!r}, which has a checker already: {_registered[number].name}")
        _registered[number] = Exercise(number, name, signature, inspect.cleandoc(statement), dict(wrong), checker)
        return checker

    return register


def exercises(chapter: int | None = None) -> list[Exercise]:
    """Return the exercises of one chapter, or of all, in the order of their numbers."""
    for each in CHAPTERS:
        module = f"{__package__}.chapter_{each}"
        if importlib.util.find_spec(module):
            importlib.import_module(module)
    found = sorted(_registered.values(), key=lambda e: [int(part) for part in e.number.split(".")])
    return [e for e in found if chapter is None or e.chapter == chapter]


def find(number: str) -> Exercise:
    """Return the exercise of that number.

    Raises
    ------
    LookupError
        If there is none; the message lists those of the chapter.
    """
    every = exercises()
    for one in every:
        if one.number == number:
            return one
    near = [e.number for e in every if e.number.partition(".")[0] == number.partition(".")[0]]
    numbers = f"chapter {near[0][0]} has {', '.join(near)}" if near else "`list` names them all"
    raise LookupError(f"there is no exercise {number}; {numbers}")


def grade(
    number: str, function: Callable[..., Any], seed: int = 0, watch: Callable[[str], None] | None = None
) -> Verdict:
    """Check a function in this very process, without limits.

    Parameters
    ----------
    number : str
        Of the exercise.
    function : callable
        The answer.
    seed : int
        What random inputs are drawn with.
    watch : callable, optional
        Is told every call, as text, before it is made.

    Returns
    -------
    Verdict
        With the first call that goes wrong, if one does.

    Examples
    --------
    >>> import numpy as np
    >>> from attn_guide import exercises
    >>> verdict = exercises.grade("3.1", lambda heads: heads.reshape(heads.shape[1], -1))
    >>> verdict.passed
    False
    >>> exercises.grade("3.1", lambda heads: np.concatenate(list(heads), axis=-1)).passed
    True
    """
    one = find(number)
    answer = Answer(one.name, function, watch)
    try:
        with np.errstate(all="ignore"):
            one.checker(answer, np.random.default_rng(seed))
    except WrongAnswer as error:
        return Verdict(False, answer.cases, str(error))
    return Verdict(True, answer.cases)


def check(number: str, source: str, path: str = "<answer>", seed: int = 0, seconds: float = SECONDS) -> Verdict:
    """Check the source of an answer in a process of its own, within limits of time and memory.

    Parameters
    ----------
    number : str
        Of the exercise.
    source : str
        Python source that defines the function.
    path : str
        Where the source is from, for messages; modules beside it can be imported.
    seed : int
        What random inputs are drawn with.
    seconds : float
        How long the answer may take, from the moment the process is ready.

    Returns
    -------
    Verdict
        Right or not; whatever the answer does, it does not raise.
    """
    find(number)
    process = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}._worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,  # of the worker; what the answer prints goes to standard error
        start_new_session=os.name == "posix",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(process.stdout, events), daemon=True).start()
    calls, doing = 0, "while the file was being read, before any call"
    deadline = time.monotonic() + START
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as orders:
            orders.write(json.dumps({"number": number, "source": source, "path": path, "seed": seed}).encode())
        while event := events.get(timeout=max(0.0, deadline - time.monotonic())):
            if "ready" in event:
                deadline = time.monotonic() + seconds
            elif "call" in event:
                calls, doing = calls + 1, f"in this call:\n{event['call']}"
            else:
                return Verdict(**event)
    except queue.Empty:
        return Verdict(False, calls, f"still running after {seconds:g} s, {doing}")
    finally:
        _end(process)
    code = process.returncode
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return Verdict(False, calls, f"the program of the answer ended without a result ({how}), {doing}")


def _listen(stream: IO[bytes], events: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Hand on what a worker reports, and None when it has ended."""
    with stream:
        for line in stream:
            events.put(json.loads(line))
    events.put(None)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and those it started, if it does not end by itself at once."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.2)
    if process.poll() is None:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
