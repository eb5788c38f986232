"""Checkers for the exercises of chapter 3, multi-head attention."""

from __future__ import annotations

import numpy as np

from . import Answer, exercise

__all__: list[str] = []


@exercise(
    "3.1",
    name="merge",
    signature="(heads)",
    statement="""
    Undo ``split_heads``: from an array of shape (h, n, d) make one of shape (n, h d) in which the columns of head 0
    come first, then those of head 1, and so on.
    """,
    wrong={
        "reshapes without moving the heads next to the width": """
def merge(heads):
    h, n, d = heads.shape
    return heads.reshape(n, h * d)
""",
        "lets the heads take turns in the columns": """
def merge(heads):
    h, n, d = heads.shape
    return heads.transpose(1, 2, 0).reshape(n, h * d)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for h, n, d in [(1, 3, 2), (2, 3, 4), (3, 5, 2), (4, 1, 3)]:
        heads = rng.integers(-9, 10, size=(h, n, d)).astype(float)
        answer(heads).equals(np.hstack([heads[i] for i in range(h)]))
