"""Argument checks shared by every module.

An error names the argument, what came, and what was wanted, so that a reader who made a mistake can mend it
without opening the source.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__: list[str] = []

#: Floating types a caller may pass. Half precision is accumulated in float32 and given back as it came.
_FLOATS = {"float16", "bfloat16", "float32", "float64"}


def as_float_array(name: str, x: Any) -> np.ndarray:
    """Return ``x`` as a floating array without copying one that already is; integers become float64."""
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(f"{name} is {x!r}; wanted a rectangular array of real numbers") from None
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    if array.dtype.name not in _FLOATS:
        raise TypeError(
            f"{name} has dtype {array.dtype}; wanted real numbers (float16, bfloat16, float32, float64 or integers)"
        )
    return array


def compute_dtype(*arrays: np.ndarray) -> np.dtype:
    """Return the type to compute in: the widest of the inputs, and float32 for half-precision ones."""
    names = {array.dtype.name for array in arrays}
    return np.dtype(np.float64 if "float64" in names else np.float32)


def same_float_dtype(**arrays: np.ndarray) -> np.dtype:
    """Return the dtype that all ``arrays`` share, or raise a TypeError that lists what came."""
    if len({array.dtype for array in arrays.values()}) > 1:
        came = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{', '.join(arrays)} must share one dtype; got {came}")
    return next(iter(arrays.values())).dtype


def check_ndim(name: str, x: np.ndarray, least: int, wanted: str) -> None:
    """Raise unless ``x`` has at least ``least`` dimensions; ``wanted`` spells the shape, as '(..., n, d_k)'."""
    if x.ndim < least:
        raise ValueError(f"{name} has shape {x.shape}; wanted {wanted}")


def check_axis(name: str, axis: int, x: np.ndarray) -> int:
    """Return ``axis`` counted from the front or raise if ``x`` has no such axis."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{name} is {axis!r} of type {type(axis).__name__}; wanted an integer")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{name} is {axis}; wanted an axis of an array of shape {x.shape}")
    return int(axis) % x.ndim


def as_condition(name: str, where: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return ``where`` as a boolean view of ``shape`` or raise."""
    array = np.asarray(where)
    if array.dtype != bool:
        raise TypeError(f"{name} has dtype {array.dtype}; wanted booleans")
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}; wanted one that broadcasts to {shape}") from None


def _as_float(x: Any) -> float:
    """Return ``x`` as a float; an integer that no float can hold counts as infinite."""
    try:
        return float(x)
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")


def check_probability(name: str, p: float) -> float:
    """Return ``p`` as a float in [0, 1] or raise."""
    if isinstance(p, bool) or not isinstance(p, (int, float, np.number)):
        raise TypeError(f"{name} is {p!r} of type {type(p).__name__}; wanted a number in [0, 1]")
    if not 0.0 <= _as_float(p) <= 1.0:  # also refuses NaN
        raise ValueError(f"{name} is {p!r}; wanted a number in [0, 1]")
    return float(p)


def check_positive(name: str, x: float) -> float:
    """Return ``x`` as a finite float above zero or raise."""
    if isinstance(x, bool) or not isinstance(x, (int, float, np.number)):
        raise TypeError(f"{name} is {x!r} of type {type(x).__name__}; wanted a positive number")
    if not (0.0 < _as_float(x) < float("inf")):
        raise ValueError(f"{name} is {x!r}; wanted a finite number above 0")
    return float(x)


def check_finite(name: str, x: float) -> float:
    """Return ``x`` as a finite float or raise."""
    if isinstance(x, bool) or not isinstance(x, (int, float, np.number)):
        raise TypeError(f"{name} is {x!r} of type {type(x).__name__}; wanted a finite number")
    if not np.isfinite(_as_float(x)):
        raise ValueError(f"{name} is {x!r}; wanted a finite number")
    return float(x)


def check_function(name: str, function: Any, arguments: str) -> None:
    """Raise unless ``function`` is None or can be called; ``arguments`` spells what it is called with."""
    if function is not None and not callable(function):
        raise TypeError(
            f"{name} is {function!r} of type {type(function).__name__}; wanted a function {name}({arguments})"
        )


def check_softcap(softcap: float | None, limits: Any) -> float | None:
    """Return ``softcap`` within the ``limits`` (a finfo) of the type to compute in, or None where it bounds nothing."""
    if softcap is None:
        return None
    cap = check_positive("softcap", softcap)
    if cap > limits.max / 2:  # half, since tiled attention measures scores in powers of two
        return None
    return max(cap, float(limits.tiny))


def check_integer(name: str, x: int, least: int = 0) -> int:
    """Return ``x`` as an int of at least ``least`` or raise."""
    if isinstance(x, bool) or not isinstance(x, (int, np.integer)):
        raise TypeError(f"{name} is {x!r} of type {type(x).__name__}; wanted an integer of at least {least}")
    if x < least:
        raise ValueError(f"{name} is {x}; wanted an integer of at least {least}")
    return int(x)


def check_choice(name: str, x: str, choices: tuple[str, ...]) -> str:
    """Return ``x`` if it is one of ``choices`` or raise with the list of them."""
    if x not in choices:
        raise ValueError(f"{name} is {x!r}; wanted one of {', '.join(map(repr, choices))}")
    return x


def check_rng(name: str, rng: Any) -> np.random.Generator:
    """Return ``rng`` if it is a NumPy Generator; randomness is never drawn from a hidden source."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"{name} is {rng!r}; wanted a numpy.random.Generator, e.g. numpy.random.default_rng(0)")
    return rng


def as_mask(name: str, mask: Any, shape: tuple[int, ...], *, boolean: bool = False) -> np.ndarray:
    """Return an attention mask with its last two dimensions spread to those of ``shape`` = (..., n, m).

    True in a boolean mask says "may attend"; a float mask is added to the scores and may hold -inf but neither
    NaN nor +inf, which no softmax survives. The leading dimensions are left as they came, to broadcast later.
    """
    array = np.asarray(mask)
    if array.dtype != bool:
        if boolean or array.dtype.name not in _FLOATS:
            wanted = "booleans (True = may attend)" + ("" if boolean else " or floats to add to the scores")
            raise TypeError(f"{name} has dtype {array.dtype}; wanted {wanted}")
        top = array.max(initial=-np.inf)
        if np.isnan(top):
            raise ValueError(f"{name} holds NaN; wanted finite numbers, or -inf for a forbidden cell")
        if top == np.inf:
            raise ValueError(f"{name} holds +inf; wanted finite numbers, or -inf for a forbidden cell")
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}; wanted one that broadcasts to {shape}") from None
    lead = array.shape[:-2]
    return np.broadcast_to(array, (*lead, *shape[-2:]))


def check_attention_inputs(
    query: Any, key: Any, value: Any, *, enable_gqa: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return query (..., h, n, d_k), key (..., h_kv, m, d_k), value (..., h_kv, m, d_v) as arrays that fit.

    Leading dimensions broadcast. Without ``enable_gqa`` the head dimension is a leading dimension like any
    other; with it, the third dimension from the end holds heads and h must be a multiple of h_kv.
    """
    q, k, v = as_float_array("query", query), as_float_array("key", key), as_float_array("value", value)
    same_float_dtype(query=q, key=k, value=v)
    least = 3 if enable_gqa else 2
    head = "h, " if enable_gqa else ""
    check_ndim("query", q, least, f"(..., {head}n, d_k)")
    check_ndim("key", k, least, f"(..., {head}m, d_k)")
    check_ndim("value", v, least, f"(..., {head}m, d_v)")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"key has width {k.shape[-1]} (shape {k.shape}); wanted the width of query, {q.shape[-1]} (shape {q.shape})"
        )
    if q.shape[-1] == 0:
        raise ValueError(f"query has shape {q.shape}; wanted a width d_k of at least 1")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"value has length {v.shape[-2]} (shape {v.shape}); "
            f"wanted the length of key, {k.shape[-2]} (shape {k.shape})"
        )
    if enable_gqa:
        h, h_kv = q.shape[-3], k.shape[-3]
        if v.shape[-3] != h_kv:
            raise ValueError(f"value has {v.shape[-3]} heads; wanted the {h_kv} heads of key")
        if h_kv == 0 or h % h_kv:
            raise ValueError(f"query has {h} heads and key {h_kv}; wanted a number of query heads that h_kv divides")
    lead = -3 if enable_gqa else -2
    try:
        np.broadcast_shapes(q.shape[:lead], k.shape[:lead], v.shape[:lead])
    except ValueError:
        raise ValueError(
            f"leading dimensions of query {q.shape}, key {k.shape} and value {v.shape} do not broadcast"
            + ("" if enable_gqa else "; for fewer key/value heads than query heads pass enable_gqa=True")
        ) from None
    return q, k, v
