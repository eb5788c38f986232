"""What is here, the taxonomy, a mask drawn as text, and how fast this machine is: ``python -m attn_guide``."""

from __future__ import annotations

import argparse
import ast
import platform
import sys
import time
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from . import __version__, _pool, flash, masks, measure, taxonomy
from ._terminal import leave_with
from .core import scaled_dot_product_attention

PROGRAM = "python -m attn_guide"
#: What a mask expression may name: everything of ``attn_guide.masks`` that is a mask or makes one.
NAMES = sorted(set(masks.__all__) - {"Mask", "PathLengths", "bigbird_random_blocks", "connected_components",
                                     "path_lengths", "reachability", "receptive_field"})  # fmt: skip
OPERATORS = {ast.BitAnd: lambda a, b: a & b, ast.BitOr: lambda a, b: a | b}
#: Sizes beyond these fill a screen, or the memory.
MOST_CELLS, MOST_CHARACTERS = 1 << 16, 1000


class ExpressionError(ValueError):
    """What is wrong with a mask that was typed."""


def read_mask(text: str) -> masks.Mask:
    """Read a mask as one would write it in Python: names, calls with plain arguments, ``&``, ``|`` and ``~``.

    Parameters
    ----------
    text : str
        Such as ``"causal & (sliding_window(3, 0) | sinks(1))"``. A seed stands for ``rng``.

    Returns
    -------
    Mask
        Nothing but the functions of ``attn_guide.masks`` is called to make it.

    Raises
    ------
    ExpressionError
        If it is anything else; the message says what and where.
    """
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"the mask has {len(text)} characters; wanted at most {MOST_CHARACTERS}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte, before Python 3.12
        raise ExpressionError(f"{text!r} cannot be read: {getattr(error, 'msg', error)}") from None
    except (RecursionError, MemoryError):
        raise ExpressionError("the mask is nested too deeply") from None
    try:
        found = _evaluate(tree.body)
    except RecursionError:
        raise ExpressionError("the mask is nested too deeply") from None
    if not isinstance(found, masks.Mask):
        raise ExpressionError(f"{text!r} is a {type(found).__name__}; wanted a mask, such as causal")
    return found


def _evaluate(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        if node.id not in NAMES:
            raise ExpressionError(f"no mask is named {node.id!r}; wanted one of {', '.join(NAMES)}")
        return getattr(masks, node.id)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_mask(node.left), _mask(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        return ~_mask(node.operand)
    if isinstance(node, ast.Call):
        make = _evaluate(node.func)
        if isinstance(make, masks.Mask) or not callable(make):
            raise ExpressionError(f"{ast.unparse(node.func)} takes no arguments")
        options = {keyword.arg: _argument(keyword.value) for keyword in node.keywords if keyword.arg}
        try:
            if "rng" in options:
                options["rng"] = np.random.default_rng(options["rng"])
            return make(*map(_argument, node.args), **options)
        except (ValueError, TypeError) as error:
            raise ExpressionError(f"{ast.unparse(node)}: {error}") from None
    raise ExpressionError(f"{ast.unparse(node)!r} is no mask; wanted names, calls, &, | and ~")


def _mask(node: ast.expr) -> masks.Mask:
    found = _evaluate(node)
    if not isinstance(found, masks.Mask):
        raise ExpressionError(f"{ast.unparse(node)} needs its arguments, such as {ast.unparse(node)}(...)")
    return found


def _argument(node: ast.expr) -> Any:
    """A number, a list of numbers, or a mask."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        value = None
    if value is not None:
        if isinstance(value, int) and abs(value) > MOST_CELLS:
            raise ExpressionError(f"{value} is too large; wanted at most {MOST_CELLS:,}")
        return value
    if isinstance(node, ast.List | ast.Tuple):
        return [_argument(item) for item in node.elts]
    return _evaluate(node)


def drawing(mask: masks.Mask, n: int, m: int | None = None) -> str:
    """Return a mask as lines of text: a row for each query, a block for a key that it sees, a dot for one it does not.

    Parameters
    ----------
    mask : Mask
    n, m : int
        Queries, and keys if there are not as many.

    Returns
    -------
    str
        The rows, what the mask says in words, and the share of the pairs that it allows.
    """
    allowed = mask.materialize(n, m)
    rows = ["".join("██" if cell else " ·" for cell in row) for row in allowed]
    return "\n".join([*rows, "", mask.describe(), f"{allowed.sum():,} of {allowed.size:,} pairs, {allowed.mean():.1%}"])


def _info() -> str:
    extras = {"torch": "attn_guide.torch", "matplotlib": "attn_guide.plot", "num2words": "attn_guide.models"}
    lines = [
        f"attn_guide {__version__}, Python {platform.python_version()}, NumPy {np.__version__}",
        f"threads of the tiled kernels: {_pool.num_threads()}",
        f"mechanisms: {len(taxonomy.MECHANISMS)} in {len(taxonomy.CHAPTERS)} chapters",
    ]
    for package, serves in extras.items():
        lines.append(f"{package}: {'found' if find_spec(package) else 'not installed'}, for {serves}")
    return "\n".join(lines)


def _taxonomy(chapter: int | None) -> str:
    lines = []
    for axis, question in taxonomy.AXES.items():
        found = [x for x in taxonomy.MECHANISMS if x.axis == axis and chapter in (None, x.chapter)]
        if found:
            lines += ["", f"{axis}: {question}"]
            lines += [f"  {x.name:<28} {x.year}  chapter {x.chapter}  attn_guide.{x.function}" for x in found]
    return "\n".join(lines[1:])


def _bench(n: int) -> str:
    """Time flash attention beside attention with all scores in memory, once each after a first run."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((8, n, 64), dtype=np.float32) for _ in range(3))
    lines = [f"8 heads of width 64, n = {n}, float32, {_pool.num_threads()} threads"]
    for name, attend in (("dense", scaled_dot_product_attention), ("flash", flash.flash_attention)):
        attend(query, key, value)
        start = time.perf_counter()
        attend(query, key, value)
        seconds = time.perf_counter() - start
        peak = measure.peak_memory(partial(attend, query, key, value))
        lines.append(f"{name}  {1e3 * seconds:8.1f} ms  {peak / 2**20:8.1f} MiB at the most")
    lines.append("benchmarks beside PyTorch: `make bench` in the repository")
    return "\n".join(lines)


def _size(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= MOST_CELLS:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; wanted a whole number from 1 to {MOST_CELLS:,}")
    return int(text)


def _chapter(text: str) -> int:
    if not text.isdecimal() or int(text) not in taxonomy.CHAPTERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no chapter; wanted 0 to {max(taxonomy.CHAPTERS)}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Attention mechanisms as a NumPy reference.",
        epilog="More: python -m attn_guide.exercises, python -m attn_guide.models.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="versions, and which parts can be used here")
    tree = commands.add_parser("taxonomy", help="every mechanism: its year, its chapter, its function")
    tree.add_argument("chapter", nargs="?", type=_chapter, metavar="CHAPTER", help="0 to 7; all unless given")
    draw = commands.add_parser("draw", help="draw a mask as text")
    draw.add_argument("mask", metavar="MASK", help='in quotes: "causal & (sliding_window(3, 0) | sinks(1))"')
    draw.add_argument("-n", type=_size, default=16, help="queries, 16 unless given")
    draw.add_argument("-m", type=_size, default=None, help="keys; as many as queries unless given")
    bench = commands.add_parser("bench", help="time flash and dense attention on this machine")
    bench.add_argument("-n", type=_size, default=2048, help="length of the sequence, 2048 unless given")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 after an error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "info":
            print(_info())
        elif options.command == "taxonomy":
            print(_taxonomy(options.chapter))
        elif options.command == "bench":
            print(_bench(options.n))
        else:
            m = options.n if options.m is None else options.m
            if options.n * m > MOST_CELLS:
                raise ExpressionError(f"{options.n} x {m} cells are too many to draw; wanted at most {MOST_CELLS:,}")
            print(drawing(read_mask(options.mask), options.n, options.m))
    except (ExpressionError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        print("error: not enough memory; take a smaller -n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    leave_with(main)
