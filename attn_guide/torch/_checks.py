"""Argument checks on tensors, worded as those of the NumPy reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__: list[str] = []

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(name: str, x: Any) -> Tensor:
    """Return ``x`` if it is a tensor of real floating numbers or raise."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is {type(x).__name__}; wanted a torch.Tensor (torch.as_tensor makes one)")
    if x.dtype not in FLOATS:
        raise TypeError(f"{name} has dtype {x.dtype}; wanted float16, bfloat16, float32 or float64")
    return x


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type to compute in: float32 for half precision, else the tensor's own."""
    return x.dtype if x.dtype == torch.float64 else torch.float32


def check_finite(name: str, x: float) -> float:
    """Return ``x`` as a finite float or raise; without NumPy, so that a compiler can trace it."""
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        raise TypeError(f"{name} is {x!r} of type {type(x).__name__}; wanted a finite number")
    if not -float("inf") < float(x) < float("inf"):
        raise ValueError(f"{name} is {x!r}; wanted a finite number")
    return float(x)


def check_axis(name: str, axis: int, x: Tensor) -> int:
    """Return ``axis`` or raise if ``x`` has no such axis."""
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise TypeError(f"{name} is {axis!r} of type {type(axis).__name__}; wanted an integer")
    if not -x.dim() <= axis < x.dim():
        raise ValueError(f"{name} is {axis}; wanted an axis of a tensor of shape {tuple(x.shape)}")
    return axis


def check_generator(name: str, generator: Any) -> torch.Generator:
    """Return ``generator`` if it is one; randomness is never drawn from a hidden source."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"{name} is {generator!r}; wanted a torch.Generator, e.g. torch.Generator().manual_seed(0)")
    return generator


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...] | None:
    """Return the shape that all broadcast to, or None."""
    try:
        return tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        return None


def check_attention_inputs(query: Any, key: Any, value: Any, enable_gqa: bool = False) -> tuple[int, ...]:
    """Return the leading shape (..., h) of the output of attention, or raise naming what does not fit.

    Query is (..., h, n, d_k), key (..., h_kv, m, d_k) and value (..., h_kv, m, d_v). Leading dimensions broadcast;
    with ``enable_gqa`` h may be a multiple of h_kv.
    """
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_tensor(name, x)
    qs, ks, vs = query.shape, key.shape, value.shape
    if not query.dtype == key.dtype == value.dtype:
        raise TypeError(
            f"query, key, value must share one dtype; got query {query.dtype}, key {key.dtype}, value {value.dtype}"
        )
    if not query.device == key.device == value.device:
        raise ValueError(
            f"query, key, value must be on one device; got {query.device}, {key.device} and {value.device}"
        )
    least = 3 if enable_gqa else 2
    head = "h, " if enable_gqa else ""
    for name, shape, tail in (("query", qs, "n, d_k"), ("key", ks, "m, d_k"), ("value", vs, "m, d_v")):
        if len(shape) < least:
            raise ValueError(f"{name} has shape {tuple(shape)}; wanted (..., {head}{tail})")
    if qs[-1] != ks[-1]:
        raise ValueError(
            f"key has width {ks[-1]} (shape {tuple(ks)}); wanted the width of query, {qs[-1]} (shape {tuple(qs)})"
        )
    if qs[-1] == 0:
        raise ValueError(f"query has shape {tuple(qs)}; wanted a width d_k of at least 1")
    if ks[-2] != vs[-2]:
        raise ValueError(
            f"value has length {vs[-2]} (shape {tuple(vs)}); wanted the length of key, {ks[-2]} (shape {tuple(ks)})"
        )
    if enable_gqa:
        h, h_kv = qs[-3], ks[-3]
        if vs[-3] != h_kv:
            raise ValueError(f"value has {vs[-3]} heads; wanted the {h_kv} heads of key")
        if h_kv == 0 or h % h_kv:
            raise ValueError(f"query has {h} heads and key {h_kv}; wanted a number of query heads that h_kv divides")
        lead = -3
    else:
        lead = -2
    if qs[:lead] == ks[:lead] == vs[:lead]:
        return tuple(qs[:-2])
    shape = broadcast_shape(qs[:lead], ks[:lead], vs[:lead])
    if shape is None:
        raise ValueError(
            f"leading dimensions of query {tuple(qs)}, key {tuple(ks)} and value {tuple(vs)} do not broadcast"
            + ("" if enable_gqa else "; for fewer key/value heads than query heads pass enable_gqa=True")
        )
    return (*shape, qs[-3]) if enable_gqa else shape


def check_mask(name: str, mask: Any, shape: tuple[int, ...], *, values: bool = True) -> Tensor:
    """Return an attention mask that broadcasts to ``shape`` = (..., n, m), its last two dimensions spread.

    ``values`` also looks for NaN and +inf, on the CPU only: on another device the look would make it wait.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name} is {type(mask).__name__}; wanted a torch.Tensor of booleans or floats")
    if mask.dtype is not torch.bool:
        if mask.dtype not in FLOATS:
            raise TypeError(
                f"{name} has dtype {mask.dtype}; wanted booleans (True = may attend) or floats to add to the scores"
            )
        if values and mask.numel() and mask.device.type == "cpu" and not torch.compiler.is_compiling():
            top = float(mask.detach().max())
            if top != top or top == float("inf"):
                came = "NaN" if top != top else "+inf"
                raise ValueError(f"{name} holds {came}; wanted finite numbers, or -inf for a forbidden cell")
    if mask.shape[-2:] == shape[-2:] and mask.dim() == 2:
        return mask
    if mask.dim() > len(shape) or broadcast_shape(mask.shape, shape) != shape:
        raise ValueError(f"{name} has shape {tuple(mask.shape)}; wanted one that broadcasts to {shape}")
    return mask.expand(*mask.shape[:-2], *shape[-2:])
