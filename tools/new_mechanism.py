"""Lay out the files of a new mechanism: ``make new-mechanism NAME=delayed CHAPTER=4``.

Makes a module, its test, a gallery script and a claim's test, each with what every one of them has and nothing that
could pass for finished: what is left to write fails until it is written. Then lists the places that no file stands for.
No file that exists is touched.
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from pathlib import Path
from typing import Any

from attn_guide import taxonomy

ROOT = Path(__file__).resolve().parent.parent
PREFIXES = ("concepts", "self", "cross", "heads", "causal", "sparse", "scores", "soft")  # of claims, by chapter

MODULE = '''\
"""TODO: what it is, in one sentence, and the idea behind it in two."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import as_float_array

__all__ = ["{name}"]


def {name}(x: Any) -> np.ndarray:
    """TODO: what it does, in one line.

    Parameters
    ----------
    x : array_like, shape (..., n, d)
        TODO: what it is.

    Returns
    -------
    numpy.ndarray, shape (..., n, d)
        TODO: what it is.

    Raises
    ------
    ValueError
        TODO: if what.

    Notes
    -----
    TODO: the formula, and what it costs in time and memory.

    References
    ----------
    TODO: authors (year), title, equation.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.{name}([[1.0, 2.0]])
    TODO: what that gives
    """
    x = as_float_array("x", x)
    raise NotImplementedError("{name} is not written yet")
'''

TEST = '''\
"""{name}: against what, independent of it?"""

from __future__ import annotations

import numpy as np
import pytest

import attn_guide as ag


def test_{name}_agrees_with_an_independent_computation() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 4))
    expected = NotImplemented  # TODO: another library, a closed form, a loop in plain Python
    np.testing.assert_allclose(ag.{name}(x), expected, rtol=1e-12)


@pytest.mark.parametrize(("x", "said"), [("no numbers", "x")])
def test_bad_input_gets_its_named_error(x: object, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        ag.{name}(x)
'''

SCRIPT = '''\
"""
TODO: the question that the figure answers
==========================================

TODO: what it shows, in a sentence or two.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

weights = ag.{name}(np.eye(4))

fig = plot.figure(
    "{prefix}-{dashed}",
    title="TODO: the answer",
    caption="TODO: how it was computed: inputs, seed, function.",
    size=(4.8, 3.6),
)
plot.matrix(fig.subplots(), weights, kind="weights")
plot.describe(fig, f"A matrix of {{weights.shape[0]}} by {{weights.shape[1]}}: TODO, from the data.")
'''

CLAIM = '''

@pytest.mark.claim("{prefix}-{dashed}")
def test_{name}(claim):
    """TODO: what the sentence on the page says."""
    x = claim.rng(0).standard_normal((5, 4))
    claim.check("TODO: what was measured", float(ag.{name}(x).max()), expected=NotImplemented, tolerance=0.0)
'''

LEFT = """\
What no file stands for, in this order:
  attn_guide/__init__.py     export {name}
  attn_guide/taxonomy.py     its leaf: name, year, paper, "{name}.{name}", {chapter}, "{prefix}-{dashed}"
  docs/refs.bib              the paper
  docs/chapters/{page}.md    the section, after a line ({prefix}-{dashed})=
  tests/claims/test_{folder}.py    add:
{claim}
  docs/develop/architecture.md, CHANGELOG.md    a line each
  tools/mutate.py            a fault that only its tests can notice
  attn_guide/torch/          the same on tensors, compared with the reference
"""


def files(name: str, chapter: int) -> tuple[dict[Path, str], str]:
    """Return the files to make, and what to print about the rest."""
    page = taxonomy.CHAPTERS[chapter][0]
    names: dict[str, Any] = {
        "name": name,
        "dashed": name.replace("_", "-"),
        "prefix": PREFIXES[chapter],
        "chapter": chapter,
        "page": page,
        "folder": page.replace("-", "_"),
    }
    made = {
        Path("attn_guide") / f"{name}.py": MODULE,
        Path("tests") / f"test_{name}.py": TEST,
        Path("gallery") / names["folder"] / f"plot_{name}.py": SCRIPT,
    }
    claim = "".join(f"    {line}".rstrip() + "\n" for line in CLAIM.strip().format(**names).splitlines())
    return {path: text.format(**names) for path, text in made.items()}, LEFT.format(**names, claim=claim.rstrip())


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="make new-mechanism", description="Lay out the files of a new mechanism.")
    parser.add_argument("name", help="the function, in lower case with underscores")
    parser.add_argument("chapter", help=f"the chapter that teaches it, 0 to {len(PREFIXES) - 1}")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", options.name) or keyword.iskeyword(options.name):
        print(f"error: NAME is {options.name!r}; wanted a function's name such as delayed_window", file=sys.stderr)
        return 1
    if options.chapter not in map(str, range(len(PREFIXES))):
        print(f"error: CHAPTER is {options.chapter!r}; wanted 0 to {len(PREFIXES) - 1}", file=sys.stderr)
        return 1
    made, left = files(options.name, int(options.chapter))
    there = [str(path) for path in made if (root / path).exists()]
    if there:
        print(f"error: {', '.join(there)} exists already; nothing was made", file=sys.stderr)
        return 1
    for path, text in made.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
        print(f"made {path}")
    print(f"\n{left}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
