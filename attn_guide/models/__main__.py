"""Train, evaluate and draw the models: ``python -m attn_guide.models list``."""

from __future__ import annotations

import argparse
import sys

import numpy as np

from .._terminal import leave_with
from . import registry
from .train import CheckpointError, Trained, cache_folder, fit


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m attn_guide.models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the models, and which of them are trained")
    for command, about in {
        "train": "train models, or all of them",
        "evaluate": "print what was measured after training, training first where needed",
    }.items():
        sub = commands.add_parser(command, help=about)
        sub.add_argument("names", nargs="*", metavar="NAME", help="which; all where none is given")
        sub.add_argument("--seed", type=_natural, default=0, help="0 where it is not given")
        if command == "train":
            sub.add_argument("--fresh", action="store_true", help="train again even what is trained")
    draw = commands.add_parser("draw", help="print what a model attends to")
    draw.add_argument("name", metavar="NAME")
    draw.add_argument(
        "text", nargs="?", metavar="TEXT", help="what it reads, in quotes; an example where none is given"
    )
    draw.add_argument("--seed", type=_natural, default=0, help="0 where it is not given")
    return parser


def _natural(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; wanted a whole number of at least 0")
    return int(text)


def _list() -> None:
    width = max(map(len, registry.names()))
    for name in registry.names():
        trained = any(cache_folder().glob(f"{name}-[0-9]*.ckpt"))
        print(f"{name:{width}}  {'cached' if trained else '      '}  {registry.recipe(name).about}")
    print(f"\nkept in {cache_folder()}")


def _row(trained: Trained) -> str:
    found = ", ".join(f"{name} {value:.4g}" for name, value in trained.results.items())
    return f"{trained.name} (seed {trained.seed}, {trained.seconds:.0f} s): {found}"


def matrix_text(weights: np.ndarray, rows: list[str], columns: list[str]) -> str:
    """Return a matrix of weights as text: percentages, blank below one half."""
    width = max(3, *map(len, columns)) + 1
    label = max(map(len, rows))
    lines = [" " * label + "".join(f"{column:>{width}}" for column in columns)]
    for name, row in zip(rows, weights, strict=True):
        cells = "".join(f"{round(100 * w) or '':>{width}}" for w in row)
        lines.append(f"{name:>{label}}{cells}")
    return "\n".join(lines)


def _draw(trained: Trained, text: str | None) -> str:
    parts = [
        f"{found.title}, in percent\n{matrix_text(found.weights, found.rows, found.columns)}"
        for found in trained.experiment.maps(text)
    ]
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 1 after an error, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "list":
            _list()
        elif options.command == "draw":
            print(_draw(registry.load(options.name, options.seed), options.text))
        else:
            recipes = [registry.recipe(name) for name in options.names or registry.names()]
            total = 0.0
            for recipe in recipes:
                trained = fit(recipe, options.seed, fresh=getattr(options, "fresh", False))
                total += trained.seconds
                print(_row(trained), flush=True)
            print(f"{len(recipes)} models, {total:.0f} s of training")
    except BrokenPipeError:
        raise
    except (ValueError, CheckpointError, ModuleNotFoundError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, CheckpointError):
            print("  Train it again: python -m attn_guide.models train NAME --fresh", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    leave_with(main)
