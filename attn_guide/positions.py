"""Positions: how attention, which sees a set of keys, learns where each of them stands.

There are three places to put a position: into the tokens (sinusoidal, learned), into queries and keys as a
rotation (RoPE), or into the scores as a bias that depends on the distance (ALiBi, T5).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import as_float_array, check_integer, check_ndim, check_positive, check_rng, compute_dtype

__all__ = [
    "alibi_bias",
    "alibi_slopes",
    "apply_rope",
    "init_learned_positions",
    "learned_positions",
    "rope_tables",
    "sinusoidal_positions",
    "t5_relative_bias",
    "t5_relative_bucket",
]


# ---------------------------------------------------------------------------------- added to the tokens


def sinusoidal_positions(positions: Any, d_model: int, *, base: float = 10000.0) -> np.ndarray:
    """Return the fixed vectors of sines and cosines that are added to the tokens.

    Parameters
    ----------
    positions : int or array_like, shape (..., n)
        A count n means the positions 0 ... n - 1; an array holds the positions themselves.
    d_model : int
        Width of the tokens; even.
    base : float
        Ratio of the longest to the shortest wavelength, nearly reached as ``d_model`` grows.

    Returns
    -------
    numpy.ndarray, shape (..., n, d_model)
        In float64. Column 2i holds the sine and column 2i + 1 the cosine of one frequency.

    Raises
    ------
    TypeError
        If ``positions`` is neither a count nor an array of real numbers, or ``d_model`` is no integer.
    ValueError
        If ``d_model`` is odd or below 2, or ``base`` is not a finite number above 0.

    Notes
    -----
    :math:`P_{t, 2i} = \\sin(t / b^{2i/d})` and :math:`P_{t, 2i+1} = \\cos(t / b^{2i/d})` with base :math:`b`. The
    dot product of two of these vectors depends only on the distance between their positions. Time and memory
    O(n d_model).

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.5.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.sinusoidal_positions(3, 4).round(2)
    array([[ 0.  ,  1.  ,  0.  ,  1.  ],
           [ 0.84,  0.54,  0.01,  1.  ],
           [ 0.91, -0.42,  0.02,  1.  ]])
    """
    angles = _angles(_positions("positions", positions), _even("d_model", d_model), base)  # (..., n, d_model / 2)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(*angles.shape[:-1], d_model)


def learned_positions(table: Any, positions: Any) -> np.ndarray:
    """Look up the trained vector of each position.

    Parameters
    ----------
    table : array_like, shape (max_length, d_model)
        One trained vector for each position, such as ``wpe.weight`` of GPT-2.
    positions : int or array_like of int, shape (..., n)
        A count n means the positions 0 ... n - 1; an array holds the positions themselves.

    Returns
    -------
    numpy.ndarray, shape (..., n, d_model)
        In the dtype of ``table``.

    Raises
    ------
    TypeError
        If ``table`` does not hold real numbers or a position is no integer.
    ValueError
        If a position is negative or beyond the table: such a model has no vector for it.

    Notes
    -----
    Time and memory O(n d_model). The gradient with respect to the table adds up over the places that looked a row up.

    References
    ----------
    Gehring et al. (2017), Convolutional Sequence to Sequence Learning, section 3.1; Vaswani et al. (2017),
    Attention Is All You Need, table 3, row E.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> table = ag.init_learned_positions(16, 4, rng=np.random.default_rng(0))
    >>> ag.learned_positions(table, 3).shape
    (3, 4)
    >>> np.array_equal(ag.learned_positions(table, [5, 0]), table[[5, 0]])
    True
    """
    rows = as_float_array("table", table)
    if rows.ndim != 2:
        raise ValueError(f"table has shape {rows.shape}; wanted (max_length, d_model)")
    at = np.asarray(positions)
    if at.ndim == 0:
        at = np.arange(check_integer("positions", positions))
    if at.dtype.kind not in "iu":
        raise TypeError(f"positions has dtype {at.dtype}; wanted integers")
    if at.size and not (at.min() >= 0 and at.max() < len(rows)):
        raise ValueError(
            f"positions runs from {at.min()} to {at.max()}; wanted 0 to {len(rows) - 1}, the rows of table"
        )
    return rows[at]


def init_learned_positions(max_length: int, d_model: int, *, rng: np.random.Generator, std: float = 0.02) -> np.ndarray:
    """Draw a table of position vectors to start training from.

    Parameters
    ----------
    max_length : int
        Number of positions.
    d_model : int
        Width of the tokens.
    rng : numpy.random.Generator
        Source of the draws.
    std : float
        Standard deviation of the normal distribution drawn from; GPT-2 and BERT use 0.02.

    Returns
    -------
    numpy.ndarray, shape (max_length, d_model)
        The table, in float64.

    Raises
    ------
    TypeError
        If a count is no integer or ``rng`` no Generator.
    ValueError
        If a count is below 1, or ``std`` is not a finite number above 0.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> ag.init_learned_positions(512, 64, rng=np.random.default_rng(0)).std().round(3)
    np.float64(0.02)
    """
    shape = check_integer("max_length", max_length, 1), check_integer("d_model", d_model, 1)
    return check_rng("rng", rng).normal(0.0, check_positive("std", std), shape)


# ---------------------------------------------------------------------- a rotation of queries and keys


def rope_tables(positions: Any, d: int, base: float = 10000.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines and sines that rotary position embedding turns pairs of numbers by.

    Parameters
    ----------
    positions : int or array_like, shape (..., n)
        A count n means the positions 0 ... n - 1; an array holds the positions themselves. Fractions are
        allowed: dividing positions stretches a trained model to longer texts.
    d : int
        Number of components that turn; even.
    base : float
        Sets the slowest frequency.

    Returns
    -------
    cos, sin : numpy.ndarray, shape (..., n, d / 2)
        In float64. Column i belongs to the frequency ``base ** (-2 * i / d)``.

    Raises
    ------
    TypeError
        If ``positions`` is neither a count nor an array of real numbers, or ``d`` is no integer.
    ValueError
        If ``d`` is odd or below 2, or ``base`` is not a finite number above 0.

    See Also
    --------
    apply_rope : Turns queries and keys.

    Notes
    -----
    Time and memory O(n d).

    References
    ----------
    Su et al. (2021), RoFormer: Enhanced Transformer with Rotary Position Embedding, equation 15.

    Examples
    --------
    >>> import attn_guide as ag
    >>> cos, sin = ag.rope_tables(3, 4)
    >>> cos.round(2)
    array([[ 1.  ,  1.  ],
           [ 0.54,  1.  ],
           [-0.42,  1.  ]])
    """
    angles = _angles(_positions("positions", positions), _even("d", d), base)
    return np.cos(angles), np.sin(angles)


def apply_rope(
    x: Any,
    positions: Any = None,
    *,
    base: float = 10000.0,
    rotary_dim: int | None = None,
    interleaved: bool = False,
    tables: tuple[Any, Any] | None = None,
) -> np.ndarray:
    """Turn queries or keys by angles that grow with their positions.

    Parameters
    ----------
    x : array_like, shape (..., n, d)
        Queries or keys.
    positions : int or array_like, optional
        An integer is the position of the first row: the others follow. An array broadcasts to (..., n) and holds
        the position of each row. 0, 1, 2, ... unless given.
    base : float
        As in ``rope_tables``.
    rotary_dim : int, optional
        Turn only the first ``rotary_dim`` components, an even number, and leave the rest; all unless given.
    interleaved : bool
        Which components form a pair. False pairs component i with i + rotary_dim / 2 (Llama, GPT-NeoX); True
        pairs 2i with 2i + 1 (the paper, GPT-J). Weights trained for one do not work with the other.
    tables : tuple of array_like, optional
        Cosines and sines of shape (max_length, rotary_dim / 2), as ``rope_tables`` returns, to look positions up
        in instead of computing them; ``base`` is then not used.

    Returns
    -------
    numpy.ndarray, shape (..., n, d)
        In the dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers, or ``tables`` is used with positions that are no integers.
    ValueError
        If ``rotary_dim`` is odd or larger than d, ``positions`` does not broadcast, or ``tables`` has another
        width or does not reach a position.

    See Also
    --------
    rope_tables : The cosines and sines.

    Notes
    -----
    A pair :math:`(a, b)` at position :math:`t` becomes
    :math:`(a \\cos t\\theta - b \\sin t\\theta,\\; a \\sin t\\theta + b \\cos t\\theta)`. A rotation keeps lengths,
    and the dot product of two rotated vectors depends on their positions only through the difference. The
    inverse, which is also the backward pass, is the rotation by ``-positions``. Time and memory O(n d).

    References
    ----------
    Su et al. (2021), RoFormer: Enhanced Transformer with Rotary Position Embedding, equations 15 and 34.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> ag.apply_rope(np.array([[1.0, 0.0], [1.0, 0.0]])).round(2)
    array([[1.  , 0.  ],
           [0.54, 0.84]])
    >>> q, k = np.random.default_rng(0).normal(size=(2, 1, 8))  # one query and one key
    >>> near = ag.apply_rope(q, 5) @ ag.apply_rope(k, 3).T
    >>> far = ag.apply_rope(q, 1005) @ ag.apply_rope(k, 1003).T
    >>> np.allclose(near, far)
    True
    """
    a = as_float_array("x", x)
    check_ndim("x", a, 2, "(..., n, d)")
    n, d = a.shape[-2:]
    turned = d if rotary_dim is None else rotary_dim
    if _even("rotary_dim" if rotary_dim is not None else "width d of x", turned) > d:
        raise ValueError(f"rotary_dim is {turned}; wanted at most the width of x, {d}")
    if positions is None:
        positions = 0
    at = np.asarray(positions)
    at = check_integer("positions", positions) + np.arange(n) if at.ndim == 0 else _positions("positions", at)
    try:
        np.broadcast_to(at, a.shape[:-1])
    except ValueError:
        raise ValueError(
            f"positions has shape {at.shape}; wanted one that broadcasts to {a.shape[:-1]}, x without its width"
        ) from None

    dtype, compute = a.dtype, compute_dtype(a)
    cos, sin = rope_tables(at, turned, base) if tables is None else _look_up(tables, at, turned // 2)
    cos, sin = cos.astype(compute, copy=False), sin.astype(compute, copy=False)  # (..., n, rotary_dim / 2)
    out = a.astype(compute)
    if interleaved:
        first, second = slice(0, turned, 2), slice(1, turned, 2)
    else:
        first, second = slice(0, turned // 2), slice(turned // 2, turned)
    p, q = a[..., first].astype(compute, copy=False), a[..., second].astype(compute, copy=False)
    out[..., first] = p * cos - q * sin
    out[..., second] = p * sin + q * cos
    return out.astype(dtype, copy=False)


# -------------------------------------------------------------------------------- a bias on the scores


def alibi_slopes(h: int) -> np.ndarray:
    """Return the slope of each head of attention with linear biases.

    Parameters
    ----------
    h : int
        Number of heads.

    Returns
    -------
    numpy.ndarray, shape (h,)
        The slopes, in float64. For a power of two they are :math:`2^{-8/h}, 2^{-16/h}, \\ldots, 2^{-8}`. For
        another h, the slopes of the next smaller power of two are followed by every second slope of twice it.

    Raises
    ------
    TypeError
        If ``h`` is no integer.
    ValueError
        If ``h`` is below 1.

    References
    ----------
    Press, Smith and Lewis (2022), Train Short, Test Long: Attention with Linear Biases Enables Input Length
    Extrapolation, section 3, and the authors' code for head counts that are no powers of two.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.alibi_slopes(4)
    array([0.25      , 0.0625    , 0.015625  , 0.00390625])
    >>> ag.alibi_slopes(6)
    array([0.25      , 0.0625    , 0.015625  , 0.00390625, 0.5       , 0.125     ])
    """
    power = 2 ** (check_integer("h", h, 1).bit_length() - 1)

    def geometric(count: int) -> np.ndarray:
        return 2.0 ** (-8.0 * np.arange(1, count + 1) / count)

    return np.concatenate([geometric(power), geometric(2 * power)[::2][: h - power]])


def alibi_bias(h: int, n: int, m: int | None = None, *, offset: int = 0) -> np.ndarray:
    """Return the penalty of attention with linear biases: it grows with the distance, at each head's own rate.

    Parameters
    ----------
    h : int
        Number of heads.
    n : int
        Number of queries.
    m : int, optional
        Number of keys; ``n`` unless given.
    offset : int
        Position of the first query. While decoding with a cache of m keys, ``m - n``.

    Returns
    -------
    numpy.ndarray, shape (h, n, m)
        The bias in float64, to pass as ``attn_mask`` (it is added to the scores). Entry (head, i, j) is
        ``-slope * abs(i + offset - j)``.

    Raises
    ------
    TypeError
        If a count is no integer.
    ValueError
        If ``h`` is below 1 or another count below 0.

    Notes
    -----
    The paper defines the bias for keys at or before the query; the distance taken here without its sign gives
    the same numbers there and a symmetric bias for attention in both directions. Time and memory O(h n m).

    References
    ----------
    Press, Smith and Lewis (2022), Train Short, Test Long: Attention with Linear Biases Enables Input Length
    Extrapolation, section 3.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.alibi_bias(8, 3)[0]
    array([[-0. , -0.5, -1. ],
           [-0.5, -0. , -0.5],
           [-1. , -0.5, -0. ]])
    """
    slopes = alibi_slopes(h)
    return -slopes[:, None, None] * np.abs(_relative_positions(n, m, offset))


def t5_relative_bucket(
    relative_position: Any, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> np.ndarray:
    """Return the bucket of each distance between a query and a key, as T5 shares biases between distances.

    Parameters
    ----------
    relative_position : array_like of int
        Position of the key minus position of the query.
    bidirectional : bool
        True gives half of the buckets to keys after the query (encoder). False puts all of those into bucket 0
        (causal decoder).
    num_buckets : int
        Number of buckets; even if ``bidirectional``.
    max_distance : int
        Distances from here on share the last bucket.

    Returns
    -------
    numpy.ndarray of int64
        The shape of ``relative_position``, each in [0, num_buckets).

    Raises
    ------
    TypeError
        If positions or counts are no integers.
    ValueError
        If ``num_buckets`` leaves no exact bucket or ``max_distance`` is not beyond the exact ones.

    Notes
    -----
    The first half of the buckets of a direction hold one distance each. The others grow geometrically up to
    ``max_distance``. Time and memory O(size of relative_position).

    References
    ----------
    Raffel et al. (2020), Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
    section 2.1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.t5_relative_bucket([0, -1, -7, -8, -64, -1000, 1, 1000])
    array([ 0,  1,  7,  8, 14, 15, 17, 31])
    """
    distance = np.asarray(relative_position)
    if distance.dtype.kind not in "iu":
        raise TypeError(f"relative_position has dtype {distance.dtype}; wanted integers")
    buckets = check_integer("num_buckets", num_buckets, 4 if bidirectional else 2)
    if bidirectional and buckets % 2:
        raise ValueError(f"num_buckets is {num_buckets}; wanted an even number, half for each direction")
    buckets //= 2 if bidirectional else 1
    exact = buckets // 2  # distances 0 ... exact - 1 have a bucket of their own
    if check_integer("max_distance", max_distance) <= exact:
        raise ValueError(f"max_distance is {max_distance}; wanted more than {exact}, the distances kept apart")

    distance = distance.astype(np.int64)
    side = np.where(bidirectional & (distance > 0), buckets, 0)
    distance = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    # In float32 as in the released models: a rounded logarithm decides on which side of a boundary a distance falls.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        np.log(max_distance / exact)
    )
    shared = exact + (ratio * np.float32(buckets - exact)).astype(np.int64)
    return side + np.where(distance < exact, distance, np.minimum(shared, buckets - 1))


def t5_relative_bias(
    table: Any, n: int, m: int | None = None, *, offset: int = 0, bidirectional: bool = True, max_distance: int = 128
) -> np.ndarray:
    """Return the trained bias of T5 for each head, query and key.

    Parameters
    ----------
    table : array_like, shape (num_buckets, h)
        A trained number for each bucket and head, such as ``relative_attention_bias.weight``.
    n : int
        Number of queries.
    m : int, optional
        Number of keys; ``n`` unless given.
    offset : int
        Position of the first query. While decoding with a cache of m keys, ``m - n``.
    bidirectional, max_distance : various
        As in ``t5_relative_bucket``.

    Returns
    -------
    numpy.ndarray, shape (h, n, m)
        In the dtype of ``table``, to pass as ``attn_mask`` (it is added to the scores). T5 itself does not
        scale its dot products: pass ``scale=1.0`` to compute what it computes.

    Raises
    ------
    TypeError, ValueError
        If ``table`` is no matrix of real numbers, and as in ``t5_relative_bucket``.

    Notes
    -----
    Time and memory O(h n m).

    References
    ----------
    Raffel et al. (2020), Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
    section 2.1.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> table = np.arange(32.0)[:, None]  # one head whose bias is the number of the bucket
    >>> ag.t5_relative_bias(table, 3)[0]
    array([[ 0., 17., 18.],
           [ 1.,  0., 17.],
           [ 2.,  1.,  0.]])
    """
    rows = as_float_array("table", table)
    if rows.ndim != 2:
        raise ValueError(f"table has shape {rows.shape}; wanted (num_buckets, h)")
    buckets = t5_relative_bucket(
        _relative_positions(n, m, offset),
        bidirectional=bidirectional,
        num_buckets=len(rows),
        max_distance=max_distance,
    )
    return np.moveaxis(rows[buckets], -1, 0)


# ------------------------------------------------------------------------------------------------ shared


def _positions(name: str, positions: Any) -> np.ndarray:
    """Return a count as 0 ... n - 1 and an array of positions as it is."""
    array = np.asarray(positions)
    if array.ndim == 0:
        return np.arange(check_integer(name, positions))
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}; wanted real numbers")
    return array


def _even(name: str, d: int) -> int:
    """Return ``d`` if it is an even integer of at least 2 or raise."""
    if check_integer(name, d, 2) % 2:
        raise ValueError(f"{name} is {d}; wanted an even number")
    return d


def _angles(positions: np.ndarray, d: int, base: float) -> np.ndarray:
    """Return positions (..., n) times the d / 2 frequencies base ** (-2 i / d): (..., n, d / 2)."""
    frequencies = check_positive("base", base) ** (-np.arange(0, d, 2) / d)
    return positions[..., None] * frequencies


def _relative_positions(n: int, m: int | None, offset: int) -> np.ndarray:
    """Return the position of key j minus the position of query i, which is offset + i: (n, m)."""
    n = check_integer("n", n)
    m = n if m is None else check_integer("m", m)
    return np.arange(m)[None, :] - (np.arange(n)[:, None] + check_integer("offset", offset))


def _look_up(tables: tuple[Any, Any], positions: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the tables for these positions, or raise if a table is too narrow or too short."""
    if not isinstance(tables, tuple) or len(tables) != 2:
        raise TypeError(f"tables is of type {type(tables).__name__}; wanted a pair (cos, sin)")
    cos, sin = as_float_array("tables[0]", tables[0]), as_float_array("tables[1]", tables[1])
    if cos.ndim != 2 or cos.shape != sin.shape or cos.shape[1] != half:
        raise ValueError(f"tables have shapes {cos.shape} and {sin.shape}; wanted twice (max_length, {half})")
    return learned_positions(cos, positions), learned_positions(sin, positions)
