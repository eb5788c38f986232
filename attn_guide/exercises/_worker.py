"""The process in which an answer runs: it reads what to check, and reports each event as a line of JSON."""

from __future__ import annotations

import contextlib
import json
import linecache
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ._answer import kind, what_was_raised
from ._registry import find, grade

MEMORY = 8 * 2**30


def main() -> None:
    order = json.loads(sys.stdin.read())
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the answer prints is for the reader, not a report
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 (stands for standard input from now on)
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard < 0 else min(MEMORY, hard), hard))

    def tell(**event: Any) -> None:
        print(json.dumps(event), file=reports, flush=True)

    one = find(order["number"])
    tell(ready=True)
    function, problem = read(order["source"], order["path"], one.name)
    if problem:
        tell(passed=False, cases=0, message=problem)
        return
    calls = [one.number]

    def watch(call: str) -> None:
        calls.append(call)
        tell(call=call)

    try:
        verdict = grade(one.number, function, order["seed"], watch)
    except Exception as error:  # a value so strange that the checker stumbled over it
        tell(passed=False, cases=len(calls) - 1, message=f"{calls[-1]}\ngave what cannot be judged: {error!r}")
        return
    tell(passed=verdict.passed, cases=verdict.cases, message=verdict.message)


def read(source: str, path: str, name: str) -> tuple[Any, str]:
    """Run the source of an answer and return the function it defines, or why there is none."""
    if Path(path).is_file():
        sys.path.insert(0, str(Path(path).resolve().parent))
    lines = source.splitlines(keepends=True)
    linecache.cache[path] = (len(source), None, lines, path)  # so that a traceback can show a line from `-`
    module = ModuleType("answer")
    module.__file__ = path
    sys.modules["answer"] = module
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except SyntaxError as error:
        line = f": {error.text.strip()}" if error.text and error.text.strip() else ""
        return None, f"{path} is not Python: {error.msg}, in line {error.lineno}{line}"
    except ValueError as error:  # null bytes
        return None, f"{path} is not Python: {error}"
    except (Exception, SystemExit) as error:
        return None, f"{path} could not be run: {what_was_raised(error)}"
    if name not in vars(module):
        others = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        instead = f"; it defines {', '.join(others)}" if others else ""
        return None, f"{path} defines no function {name}{instead}"
    function = vars(module)[name]
    if not callable(function):
        return None, f"{name} in {path} is {kind(function)}; wanted a function"
    return function, ""


if __name__ == "__main__":
    main()
