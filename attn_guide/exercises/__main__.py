"""List and show the exercises of the guide, and check an answer: ``python -m attn_guide.exercises check 4.2 FILE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .._terminal import leave_with
from . import Exercise, check, exercises, find
from ._registry import CHAPTERS, SECONDS

PROGRAM = "python -m attn_guide.exercises"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="The exercises of the guide, and whether an answer is right."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the exercises of a chapter, or of all")
    listing.add_argument("chapter", nargs="?", type=_chapter, metavar="CHAPTER", help="0 to 7")
    for command, about in {
        "show": "what an exercise asks for",
        "template": "print a file to start from",
        "check": "say whether an answer is right",
    }.items():
        sub = commands.add_parser(command, help=about)
        sub.add_argument("number", metavar="NUMBER", help="chapter and place, such as 4.2")
        if command == "check":
            sub.add_argument(
                "file", metavar="FILE", help="a Python file that defines the function; - reads standard input"
            )
            sub.add_argument("--seed", type=_natural, default=0, help="of the random inputs; 0 where it is not given")
            sub.add_argument(
                "--seconds",
                type=_positive,
                default=SECONDS,
                help=f"how long it may run; {SECONDS:g} where it is not given",
            )
    return parser


def _chapter(word: str) -> int:
    if word not in map(str, CHAPTERS):
        raise argparse.ArgumentTypeError(f"{word!r} is no chapter; wanted a number from 0 to {CHAPTERS[-1]}")
    return int(word)


def _natural(word: str) -> int:
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is no seed; wanted a whole number of at least 0")
    return int(word)


def _positive(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{word!r} is no time; wanted seconds, above 0")
    return seconds


def _list(chapter: int | None) -> int:
    found = exercises(chapter)
    if not found:
        print("there is no exercise here yet", file=sys.stderr)
        return 1
    for one in found:
        print(f"{one.number:4}  {one.name}{one.signature}")
    return 0


def _show(one: Exercise) -> int:
    print(
        f"Exercise {one.number}, on the page {one.page}\n\n{one.told(80)}\n\n    def {one.name}{one.signature}: ...\n"
    )
    print(f"{PROGRAM} template {one.number} > my_answer.py\n{PROGRAM} check {one.number} my_answer.py")
    return 0


def _check(one: Exercise, file: str, seed: int, seconds: float) -> int:
    try:
        source = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        print(f"{file} cannot be read: {reason}", file=sys.stderr)
        return 1
    verdict = check(one.number, source, "<standard input>" if file == "-" else file, seed, seconds)
    calls = f"{verdict.cases} call{'s' if verdict.cases != 1 else ''}"
    if verdict.passed:
        print(f"Exercise {one.number}, {one.name}: passed ({calls}, random inputs with seed {seed})")
        return 0
    count = f" (call {verdict.cases}, seed {seed})" if verdict.cases else ""
    print(f"Exercise {one.number}, {one.name}: not right yet{count}\n{verdict.message}")
    return 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 0, 1 for an answer that is not right, 2 for a wrong command."""
    told = _parser().parse_args(arguments)
    if told.command == "list":
        return _list(told.chapter)
    try:
        one = find(told.number)
    except LookupError as error:
        print(error, file=sys.stderr)
        return 1
    if told.command == "show":
        return _show(one)
    if told.command == "template":
        print(one.template, end="")
        return 0
    return _check(one, told.file, told.seed, told.seconds)


if __name__ == "__main__":
    leave_with(main)
