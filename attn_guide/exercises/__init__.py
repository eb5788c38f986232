"""Checkers for the exercises of the guide: ``python -m attn_guide.exercises check 4.2 my_answer.py``.

Every numbered exercise of a chapter asks for a function. A checker calls the reader's function on several inputs,
drawn with a stated seed, and compares what comes with an independent truth: a definition written out by hand, or the
reference of this package where the exercise is not that very function. From a shell::

    python -m attn_guide.exercises list 4       # the exercises of chapter 4
    python -m attn_guide.exercises show 4.2     # one of them, with its function
    python -m attn_guide.exercises template 4.2 > my_answer.py
    python -m attn_guide.exercises check 4.2 my_answer.py

The answer runs in a process of its own, within a time limit and a memory limit: a loop without an end, a crash or a
``sys.exit()`` is reported. The exit status is 0 for a right answer, 1 for any other, and 2 for a wrong command.

**Registering a checker.** Chapter N has its checkers in ``attn_guide/exercises/chapter_N.py``, which is imported by
that name if it is there. A checker is a function that takes an ``Answer`` and a NumPy ``Generator``, under the
decorator ``exercise``::

    from __future__ import annotations

    import numpy as np

    import attn_guide as ag

    from . import Answer, exercise

    __all__: list[str] = []


    @exercise(
        "5.1",
        name="receptive_field",
        signature="(layers, window)",
        statement='''
        How many tokens, itself included, can a token depend on after that many layers,
        in each of which it sees the last ``window`` tokens?
        ''',
        wrong={
            "counts a token once per layer": '''
    def receptive_field(layers, window): return layers * window
    ''',
        },
    )
    def _(answer: Answer, rng: np.random.Generator) -> None:
        drawn = rng.integers(1, 9, size=(5, 2)).tolist()
        for layers, window in [(1, 1), (1, 4), (3, 4), *drawn]:
            mask = (ag.causal & ag.sliding_window(window - 1, 0)).materialize(100)
            paths = np.linalg.matrix_power(mask.astype(float), layers)[-1]  # the truth
            answer(layers, window).equals(int((paths > 0).sum()))

- ``answer(...)`` calls the reader's function, on copies of the arguments, and gives a ``Result``. If the call
  raises, changes an argument or runs too long, the reader is told, and the checker goes no further.
- ``.equals(wanted)`` compares: numbers and arrays to a relative tolerance of 1e-6 of the largest entry (give another as
  ``tolerance=``), shapes, ``bool``, strings, sequences, sets and dictionaries exactly. NaN where none is wanted is told
  as such. Arrays may come as lists, whole numbers as floats.
- ``.holds(condition, "why not")`` is for answers that are not unique; ``.array((n, d))`` and ``.number()`` give the
  value, checked to be a finite array of that shape or a finite number, to compute the condition with; ``.parts(2)``
  gives the two results of ``return a, b``.
- An exercise that forbids an n x n array makes its call within ``ag.peak_memory(lambda: ...)``, with a thousand tokens
  or so, and asks that the peak stays below what such an array takes. Larger inputs would only be slow.
- ``wrong`` maps a plausible mistake, in words, to the source of an answer that makes it (with ``np`` and ``ag`` at
  hand). At least one is required, and ``tests/test_exercises.py`` sees that the checker rejects each.
- ``statement`` says what each argument is, by its name, with shapes as (n, d): it is the docstring of the template.
- Keep inputs small, so that what came and what was wanted can be printed; and draw shapes whose sizes differ, so that
  a transposed answer fails. A check takes well under a second.

On the page, exercise 5.1 begins with ``**Exercise 5.1. A title.**`` (a form that the lint of numbers knows), names
the function with its signature in code font, ``receptive_field(layers, window)``, and has a dropdown titled
*Solution* after it, in which a ``python`` block or a ``>>>`` example defines that function. A reader copies it, so it
uses nothing but ``np``, ``ag``, and what the dropdown itself imports and defines with ``def``. The section opens with
a sentence that gives the command for the chapter. ``tests/test_exercises.py`` checks all of this, and that each
solution passes.
"""

from __future__ import annotations

from ._answer import Answer, Result, WrongAnswer
from ._registry import Exercise, Verdict, check, exercise, exercises, find, grade

__all__ = [
    "Answer",
    "Exercise",
    "Result",
    "Verdict",
    "WrongAnswer",
    "check",
    "exercise",
    "exercises",
    "find",
    "grade",
]
