"""Softmax and scaled dot-product attention: the formula every chapter returns to."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import as_float_array, check_positive, compute_dtype

__all__ = ["softmax"]


def softmax(x: Any, axis: int = -1, *, temperature: float = 1.0, where: Any = None) -> np.ndarray:
    """Turn scores into weights that are positive and sum to one along ``axis``."""
    z = as_float_array("x", x)
    out_dtype = z.dtype
    z = z.astype(compute_dtype(z)) / check_positive("temperature", temperature)
    if where is not None:
        z = np.where(where, z, -np.inf)
    top = np.max(z, axis=axis, keepdims=True, initial=-np.inf)
    e = np.exp(z - np.where(np.isfinite(top), top, 0.0))
    total = e.sum(axis=axis, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total > 0).astype(out_dtype)
