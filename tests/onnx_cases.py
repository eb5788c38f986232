"""The test cases that the ONNX standard publishes for its operators, as arrays to compare with."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import onnx


class Case(NamedTuple):
    name: str
    attributes: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def cases(module: str) -> list[Case]:
    """Return the cases of ``onnx.backend.test.case.node.<module>``, whose export methods hand them to ``expect``."""
    source = importlib.import_module(f"onnx.backend.test.case.node.{module}")
    found: list[Case] = []

    def expect(node: Any, inputs: Any, outputs: Any, name: str, **_: Any) -> None:
        found.append(
            Case(
                name,
                {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
                dict(zip([i for i in node.input if i], inputs, strict=True)),
                dict(zip([o for o in node.output if o], outputs, strict=True)),
            )
        )

    with mock.patch.object(source, "expect", expect):
        state = np.random.get_state()  # noqa: NPY002 - the published cases draw from NumPy's global state
        np.random.seed(0)  # noqa: NPY002
        for owner in [x for x in vars(source).values() if isinstance(x, type) and x.__module__ == source.__name__]:
            for method in sorted(n for n in vars(owner) if n.startswith("export")):
                getattr(owner, method)()
        np.random.set_state(state)  # noqa: NPY002
    return found
