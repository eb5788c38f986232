"""The drawing language of the guide: every figure is made of these parts (``from attn_guide import plot``).

A figure states its answer in its title (:func:`figure`), tells in words what it shows (:func:`describe`) and exists
for a light and a dark page (:func:`save`). The parts draw arrays and know no mechanism.
"""

from .charts import bars, curve, distribution, plain_numbers
from .diagrams import Matrix, equation, flow, timeline, to_scale, tree
from .figures import Drawing, describe, figure, take
from .matrices import describe_mask, describe_matrix, masks, matrix
from .palette import (
    BACKGROUND,
    DARK,
    DIVERGING,
    GRID,
    INK,
    KEY,
    MASK,
    MUTED,
    OUTPUT,
    QUERY,
    QUIET,
    ROLES,
    SCORES,
    SEQUENTIAL,
    VALUE,
    WEIGHTS,
)
from .save import overlaps, save

__all__ = [
    "BACKGROUND",
    "DARK",
    "DIVERGING",
    "GRID",
    "INK",
    "KEY",
    "MASK",
    "MUTED",
    "OUTPUT",
    "QUERY",
    "QUIET",
    "ROLES",
    "SCORES",
    "SEQUENTIAL",
    "VALUE",
    "WEIGHTS",
    "Drawing",
    "Matrix",
    "bars",
    "curve",
    "describe",
    "describe_mask",
    "describe_matrix",
    "distribution",
    "equation",
    "figure",
    "flow",
    "masks",
    "matrix",
    "overlaps",
    "plain_numbers",
    "save",
    "take",
    "timeline",
    "to_scale",
    "tree",
]
