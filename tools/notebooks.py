"""Run notebooks as a reader would who downloaded them: ``python -m tools.notebooks [PATH ...]``.

Each runs in a process of its own, in an empty folder, top to bottom; nothing but what it imports is there. Every output
must be the one that stands in the notebook, to the digits that are printed. Jupyter itself is not needed: the cells are
plain Python, and the value of a cell's last line is what Jupyter would show.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from guide_ext.prose import OPTIONS, NumberChecker  # type: ignore[import-not-found]  # noqa: E402

REQUIRED = {"markdown": {"id", "cell_type", "metadata", "source"}}
REQUIRED["code"] = REQUIRED["markdown"] | {"execution_count", "outputs"}
OUTPUTS = {
    "stream": {"output_type", "name", "text"},
    "execute_result": {"output_type", "data", "metadata", "execution_count"},
    "error": {"output_type", "ename", "evalue", "traceback"},
}


def is_text(value: Any) -> bool:
    """A text of the format: one string, or its lines."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value))


def joined(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def faults(notebook: Any) -> Iterator[str]:
    """What a notebook has that version 4.5 of the format does not allow."""
    if not isinstance(notebook, dict) or set(notebook) != {"cells", "metadata", "nbformat", "nbformat_minor"}:
        yield "the keys are not those of a notebook"
        return
    if (notebook["nbformat"], notebook["nbformat_minor"]) != (4, 5):
        yield f"the format is {notebook['nbformat']}.{notebook['nbformat_minor']}, not 4.5"
    if not {"name", "display_name"} <= set(notebook["metadata"].get("kernelspec", ())):
        yield "no kernel is named"
    seen = set()
    for number, cell in enumerate(notebook["cells"], 1):
        kind = cell.get("cell_type")
        if set(cell) != REQUIRED.get(kind, set()):
            yield f"cell {number}: a {kind} cell with the keys {', '.join(sorted(cell))}"
            continue
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"]) or cell["id"] in seen:
            yield f"cell {number}: the id {cell['id']!r} is malformed or taken"
        seen.add(cell["id"])
        if not is_text(cell["source"]) or not isinstance(cell["metadata"], dict):
            yield f"cell {number}: its source is no text or its metadata no dictionary"
        for output in cell.get("outputs", ()):
            if set(output) != OUTPUTS.get(output.get("output_type"), set()):
                yield f"cell {number}: an output with the keys {', '.join(sorted(output))}"


def run_cell(source: str, names: dict[str, Any], number: int) -> str:
    """Run a cell and return what it would show: what it prints, then the value of its last line, or its error."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith("%")]
    tree = ast.parse("\n".join(lines))
    last = tree.body[-1] if tree.body else None
    value = None
    said = io.StringIO()
    with redirect_stdout(said):
        try:
            if isinstance(last, ast.Expr):
                tree.body.pop()
            exec(compile(tree, f"<cell {number}>", "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), f"<cell {number}>", "eval"), names)
            if value is not None:
                print(repr(value))
        except Exception as error:
            return f"{said.getvalue()}{type(error).__name__}: {error}"
    return said.getvalue()


def wanted(cell: dict[str, Any]) -> str:
    """The output that stands in a cell, as :func:`run_cell` gives it."""
    text = ""
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            text += joined(output["text"])
        elif output["output_type"] == "error":
            text += f"{output['ename']}: {output['evalue']}".removesuffix(": ")
        else:
            text += joined(output["data"]["text/plain"]) + "\n"
    return text


def run(path: Path) -> Iterator[str]:
    """Run a notebook in this process; what differs from what stands in it.

    A notebook without outputs, such as one of the gallery, must run without an error and may show what it likes.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    shown: list[Any] = []
    names: dict[str, Any] = {"__name__": "__main__", "display": shown.append}  # as Jupyter names them
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    compares = any(cell["outputs"] for cell in cells)
    for number, cell in enumerate(cells, 1):
        source = joined(cell["source"])
        got = run_cell(source, names, number)
        failed = "raises-exception" not in cell["metadata"].get("tags", ()) and re.search(r"^\w+Error: ", got, re.M)
        if failed and not compares:
            yield f"code cell {number}: {got.strip().splitlines()[-1]}"
            return
        if compares and not NumberChecker().check_output(wanted(cell), got, OPTIONS):
            yield f"code cell {number}:\n{source}\nwanted: {wanted(cell)}\ngot:    {got}"
    if not compares:
        pictures = [thing for thing in shown if hasattr(thing, "_repr_png_")]
        if not pictures or not all(thing._repr_png_()[0].startswith(b"\x89PNG") for thing in pictures):
            yield "it shows no figure"


def in_a_process(path: Path) -> tuple[float, list[str]]:
    """Run a notebook as :func:`run` does, in a new process and an empty folder; its seconds and its faults."""
    start = time.perf_counter()
    program = "import json, pathlib, sys; from tools.notebooks import run; path = pathlib.Path(sys.argv[1])"
    command = [sys.executable, "-c", f"{program}; print(json.dumps(list(run(path))))", str(path.resolve())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as empty:
        result = subprocess.run(
            command, cwd=empty, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    found = json.loads(result.stdout) if result.returncode == 0 else [result.stderr.strip()]
    return time.perf_counter() - start, found


def main(arguments: list[str]) -> int:
    places = [Path(argument) for argument in arguments] or [ROOT / "_build" / "html" / "chapters"]
    paths = sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*.ipynb")))
    if not paths:
        print(f"error: no notebook under {', '.join(map(str, places))}\n  Build them first: make html", file=sys.stderr)
        return 1
    failed = 0
    for path in paths:
        seconds, found = in_a_process(path)
        print(f"{'failed' if found else 'ok':6} {seconds:5.1f} s  {path}", flush=True)
        print("".join(f"{fault}\n" for fault in found), end="")
        failed += bool(found)
    print(f"{len(paths)} notebooks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
