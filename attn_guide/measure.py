"""What attention costs: operations, bytes and parameters counted from shapes, memory and exponents measured.

One MAC is a multiplication and the addition that follows it; one FLOP is either of them, so a MAC is two FLOPs.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ._checks import check_choice, check_integer

__all__ = [
    "AttentionBytes",
    "AttentionFlops",
    "ExponentFit",
    "FeedForwardFlops",
    "attention_bytes",
    "attention_flops",
    "feed_forward_flops",
    "feed_forward_param_count",
    "fit_exponent",
    "mha_param_count",
    "peak_memory",
]

_ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1}


@dataclass(frozen=True)
class AttentionFlops:
    """The operations of one multi-head attention layer on one sequence.

    Parameters
    ----------
    projections : int
        MACs of the query, key, value and output projections. They grow with the length.
    scores : int
        MACs of the products of queries and keys. They grow with the length squared.
    weighted_sum : int
        MACs of the products of weights and values. They grow with the length squared.
    exponentials : int
        Exponentials in the softmax: one for each head and pair, and not counted as FLOPs.

    Examples
    --------
    >>> import attn_guide as ag
    >>> cost = ag.AttentionFlops(projections=100, scores=30, weighted_sum=20, exponentials=5)
    >>> cost.quadratic, cost.macs, cost.flops
    (50, 150, 300)
    """

    projections: int
    scores: int
    weighted_sum: int
    exponentials: int

    @property
    def quadratic(self) -> int:
        """MACs of the part that makes and uses the n x m matrix."""
        return self.scores + self.weighted_sum

    @property
    def macs(self) -> int:
        """All multiplications with their additions."""
        return self.projections + self.quadratic

    @property
    def flops(self) -> int:
        """Two for each MAC."""
        return 2 * self.macs


@dataclass(frozen=True)
class FeedForwardFlops:
    """The operations of one position-wise feed-forward layer on one sequence.

    Parameters
    ----------
    macs : int
        Multiplications with their additions.
    activations : int
        Evaluations of the activation function, not counted as FLOPs.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.FeedForwardFlops(macs=80, activations=4).flops
    160
    """

    macs: int
    activations: int

    @property
    def flops(self) -> int:
        """Two for each MAC."""
        return 2 * self.macs


@dataclass(frozen=True)
class AttentionBytes:
    """The bytes of the arrays of one attention, before any temporary copy.

    Parameters
    ----------
    query, key, value, output : int
        Grow with the length.
    scores : int
        The n x m matrices of all heads, if they are made at once; tiled kernels such as FlashAttention never do.

    Examples
    --------
    >>> import attn_guide as ag
    >>> cost = ag.AttentionBytes(query=8, key=8, value=8, output=8, scores=64)
    >>> cost.linear, cost.total
    (32, 96)
    """

    query: int
    key: int
    value: int
    output: int
    scores: int

    @property
    def linear(self) -> int:
        """Everything but the scores."""
        return self.query + self.key + self.value + self.output

    @property
    def total(self) -> int:
        """Everything, the scores included."""
        return self.linear + self.scores


class ExponentFit(NamedTuple):
    """A power law ``y = coefficient * x ** exponent``, fitted to measurements.

    Parameters
    ----------
    exponent : float
        The slope on logarithmic axes.
    standard_error : float
        Standard error of the exponent.
    coefficient : float
        The value at x = 1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> exponent, standard_error, _ = ag.fit_exponent([1, 2, 4], [5, 10, 20])
    >>> round(exponent, 6), round(standard_error, 6)
    (1.0, 0.0)
    """

    exponent: float
    standard_error: float
    coefficient: float


def attention_flops(
    n: int,
    d_model: int,
    *,
    m: int | None = None,
    num_heads: int = 1,
    num_kv_heads: int | None = None,
    d_k: int | None = None,
    d_v: int | None = None,
    pairs: int | None = None,
) -> AttentionFlops:
    """Count the operations of a multi-head attention layer on one sequence.

    Parameters
    ----------
    n : int
        Number of queries.
    d_model : int
        Width of the tokens.
    m : int, optional
        Number of keys; ``n`` unless given.
    num_heads : int
        Number of query heads h.
    num_kv_heads : int, optional
        Number of key/value heads; ``num_heads`` unless given.
    d_k, d_v : int, optional
        Width of a head's keys and values; ``d_model // num_heads`` and ``d_k`` unless given.
    pairs : int, optional
        Number of (query, key) pairs that each head computes; n m unless given. A causal mask that is used to
        skip work leaves n (n + 1) / 2 of n^2.

    Returns
    -------
    AttentionFlops
        The counts, part by part.

    Raises
    ------
    TypeError
        If a count is no integer.
    ValueError
        If a count is too small, ``num_heads`` does not divide ``d_model`` while ``d_k`` is not given, or
        ``num_kv_heads`` does not divide ``num_heads``.

    Notes
    -----
    With d_k = d_v = d_model / h the projections take :math:`4 n d^2` MACs and the rest :math:`2 n^2 d`, whatever
    h is: they are equal at :math:`n = 2d`. Only the exponentials, :math:`h n^2`, grow with h.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, table 1 (which leaves the projections out).

    Examples
    --------
    >>> import attn_guide as ag
    >>> cost = ag.attention_flops(1536, 768, num_heads=12)
    >>> cost.projections, cost.quadratic, cost.exponentials
    (3623878656, 3623878656, 28311552)
    >>> cost.macs == ag.attention_flops(1536, 768, num_heads=1).macs
    True
    """
    n = check_integer("n", n)
    m = n if m is None else check_integer("m", m)
    h, h_kv, d_model, d_k, d_v = _widths(d_model, num_heads, num_kv_heads, d_k, d_v)
    pairs = n * m if pairs is None else check_integer("pairs", pairs)
    return AttentionFlops(
        projections=n * d_model * h * d_k + m * d_model * h_kv * (d_k + d_v) + n * h * d_v * d_model,
        scores=h * pairs * d_k,
        weighted_sum=h * pairs * d_v,
        exponentials=h * pairs,
    )


def feed_forward_flops(n: int, d_model: int, d_ff: int | None = None, *, gated: bool = False) -> FeedForwardFlops:
    """Count the operations of a position-wise feed-forward layer on one sequence.

    Parameters
    ----------
    n : int
        Number of tokens.
    d_model : int
        Width of the tokens.
    d_ff : int, optional
        Width of the hidden layer; ``4 * d_model`` unless given.
    gated : bool
        True for ``swiglu``, which has three matrices instead of two.

    Returns
    -------
    FeedForwardFlops
        The counts.

    Raises
    ------
    TypeError
        If a count is no integer.
    ValueError
        If a count is too small.

    Notes
    -----
    With d_ff = 4d it takes :math:`8 n d^2` MACs. The quadratic part of attention, :math:`2 n^2 d`, is as much at
    :math:`n = 4d`, and as much as this layer and the projections together at :math:`n = 6d`.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.3.

    Examples
    --------
    >>> import attn_guide as ag
    >>> d = 768
    >>> ag.feed_forward_flops(4 * d, d).macs == ag.attention_flops(4 * d, d).quadratic
    True
    """
    n, d_model = check_integer("n", n), check_integer("d_model", d_model, 1)
    d_ff = 4 * d_model if d_ff is None else check_integer("d_ff", d_ff, 1)
    return FeedForwardFlops(macs=(3 if gated else 2) * n * d_model * d_ff, activations=n * d_ff)


def attention_bytes(
    n: int,
    d_k: int,
    *,
    m: int | None = None,
    num_heads: int = 1,
    num_kv_heads: int | None = None,
    d_v: int | None = None,
    batch: int = 1,
    dtype: str = "float16",
) -> AttentionBytes:
    """Count the bytes of the arrays of one scaled dot-product attention.

    Parameters
    ----------
    n : int
        Number of queries.
    d_k : int
        Width of a head's queries and keys.
    m : int, optional
        Number of keys; ``n`` unless given.
    num_heads : int
        Number of query heads.
    num_kv_heads : int, optional
        Number of key/value heads; ``num_heads`` unless given.
    d_v : int, optional
        Width of a head's values; ``d_k`` unless given.
    batch : int
        Number of sequences.
    dtype : {"float64", "float32", "bfloat16", "float16", "float8", "int8"}
        Type of the elements.

    Returns
    -------
    AttentionBytes
        The bytes of each array. They are those of one layer.

    Raises
    ------
    TypeError
        If a count is no integer.
    ValueError
        If a count is too small, ``num_kv_heads`` does not divide ``num_heads``, or ``dtype`` is unknown.

    References
    ----------
    Rabe and Staats (2021), Self-attention Does Not Need O(n^2) Memory, section 1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> cost = ag.attention_bytes(32_768, 64)  # float16, one head
    >>> cost.scores // 2**20, cost.linear // 2**20  # MiB
    (2048, 16)
    """
    n = check_integer("n", n)
    m = n if m is None else check_integer("m", m)
    batch = check_integer("batch", batch)
    d_k = check_integer("d_k", d_k, 1)
    h, h_kv, _, d_k, d_v = _widths(d_k, num_heads, num_kv_heads, d_k, d_v)
    size = _ITEM_BYTES[check_choice("dtype", dtype, tuple(_ITEM_BYTES))] * batch
    return AttentionBytes(
        query=size * h * n * d_k,
        key=size * h_kv * m * d_k,
        value=size * h_kv * m * d_v,
        output=size * h * n * d_v,
        scores=size * h * n * m,
    )


def mha_param_count(
    d_model: int,
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    d_k: int | None = None,
    d_v: int | None = None,
    bias: bool = True,
) -> int:
    """Count the parameters of a multi-head attention layer.

    Parameters
    ----------
    d_model : int
        Width of the tokens.
    num_heads : int
        Number of query heads h.
    num_kv_heads : int, optional
        Number of key/value heads; ``num_heads`` unless given.
    d_k, d_v : int, optional
        Width of a head's keys and values; ``d_model // num_heads`` and ``d_k`` unless given.
    bias : bool
        Whether each of the four projections adds a bias.

    Returns
    -------
    int
        Weights and biases of the query, key, value and output projections.

    Raises
    ------
    TypeError
        If a count is no integer.
    ValueError
        If a count is too small or head counts do not divide.

    Notes
    -----
    With d_k = d_v = d_model / h it is :math:`4 d^2 + 4 d`, whatever h is.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.2; Shazeer (2019), Fast Transformer Decoding:
    One Write-Head is All You Need, section 3.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.mha_param_count(768, 12), ag.mha_param_count(768, 1), ag.mha_param_count(768, 12, num_kv_heads=1)
    (2362368, 2362368, 1279616)
    """
    h, h_kv, d_model, d_k, d_v = _widths(d_model, num_heads, num_kv_heads, d_k, d_v)
    weights = d_model * (h * d_k + h_kv * d_k + h_kv * d_v + h * d_v)
    return weights + (h * d_k + h_kv * d_k + h_kv * d_v + d_model if bias else 0)


def feed_forward_param_count(d_model: int, d_ff: int | None = None, *, gated: bool = False, bias: bool = True) -> int:
    """Count the parameters of a position-wise feed-forward layer.

    Parameters
    ----------
    d_model : int
        Width of the tokens.
    d_ff : int, optional
        Width of the hidden layer; ``4 * d_model`` unless given.
    gated : bool
        True for ``swiglu``, which has three matrices instead of two.
    bias : bool
        Whether each matrix comes with a bias.

    Returns
    -------
    int
        Weights and biases.

    Raises
    ------
    TypeError
        If a count is no integer.
    ValueError
        If a count is below 1.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.3; Shazeer (2020), GLU Variants Improve
    Transformer, section 2.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.feed_forward_param_count(512, 2048)
    2099712
    """
    d_model = check_integer("d_model", d_model, 1)
    d_ff = 4 * d_model if d_ff is None else check_integer("d_ff", d_ff, 1)
    inward = 2 if gated else 1  # matrices from d_model to d_ff; one leads back
    return (inward + 1) * d_model * d_ff + (inward * d_ff + d_model if bias else 0)


def peak_memory(function: Callable[[], Any]) -> int:
    """Run a function and return how many bytes it had allocated at the highest point, its result included.

    Parameters
    ----------
    function : callable
        Called once, without arguments. Arrays made before the call are not counted.

    Returns
    -------
    int
        Bytes, as the standard library's ``tracemalloc`` sees them: Python objects and the data of NumPy arrays,
        from all threads, but not the work space that BLAS keeps for itself.

    Raises
    ------
    TypeError
        If ``function`` is not callable.

    Notes
    -----
    Tracing makes every allocation slower, so time and memory must be measured in separate runs. The number does
    not depend on the machine's load.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> 8_000_000 <= ag.peak_memory(lambda: np.ones(1_000_000)) < 8_010_000
    True
    """
    if not callable(function):
        raise TypeError(f"function is {function!r}; wanted something to call without arguments")
    gc.collect()
    traced_before = tracemalloc.is_tracing()
    if not traced_before:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        start, _ = tracemalloc.get_traced_memory()
        result = function()  # kept alive until the peak is read
        _, peak = tracemalloc.get_traced_memory()
        del result
    finally:
        if not traced_before:
            tracemalloc.stop()
    return max(0, peak - start)


def fit_exponent(x: Any, y: Any) -> ExponentFit:
    """Fit a power law to measurements: the slope of a straight line through their logarithms.

    Parameters
    ----------
    x : array_like, shape (n,)
        Sizes, all above 0, at least two of them different; at least three points.
    y : array_like, shape (n,)
        What was measured at each size, all above 0.

    Returns
    -------
    ExponentFit
        ``exponent``, its ``standard_error``, and ``coefficient``.

    Raises
    ------
    TypeError
        If a value is not a real number.
    ValueError
        If there are fewer than three points, a value is not a finite number above 0, the lengths differ, or all
        sizes are equal.

    Notes
    -----
    Ordinary least squares of log y on log x. The standard error measures the scatter of the points around the
    line. A curve that bends, such as a sum of a linear and a quadratic term, is no power law: its exponent
    depends on the range of sizes, which must be stated with it.

    Examples
    --------
    >>> import attn_guide as ag
    >>> fit = ag.fit_exponent([1, 2, 4, 8], [3, 12, 48, 192])
    >>> round(fit.exponent, 6), round(fit.coefficient, 6)
    (2.0, 3.0)
    """
    values = []
    for name, data in (("x", x), ("y", y)):
        array = np.asarray(data)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"{name} has dtype {array.dtype}; wanted real numbers")
        array = array.astype(np.float64)
        if array.ndim != 1 or len(array) < 3:
            raise ValueError(f"{name} has shape {array.shape}; wanted (n,) with n of at least 3")
        if not np.all((array > 0) & np.isfinite(array)):
            raise ValueError(f"{name} holds {array.min()}; wanted finite numbers above 0")
        values.append(np.log(array))
    log_x, log_y = values
    if log_x.shape != log_y.shape:
        raise ValueError(f"y has {len(log_y)} points; wanted as many as x, {len(log_x)}")
    u, v = log_x - log_x.mean(), log_y - log_y.mean()
    spread = u @ u
    if spread == 0:
        raise ValueError(f"x holds {np.asarray(x).flat[0]} only; wanted at least two different sizes")
    slope = (u @ v) / spread
    residual = v - slope * u
    error = np.sqrt(residual @ residual / (len(u) - 2) / spread)
    return ExponentFit(float(slope), float(error), float(np.exp(log_y.mean() - slope * log_x.mean())))


def _widths(
    d_model: int, num_heads: int, num_kv_heads: int | None, d_k: int | None, d_v: int | None
) -> tuple[int, int, int, int, int]:
    """Return h, h_kv, d_model, d_k, d_v with the defaults filled in, or raise."""
    d_model, h = check_integer("d_model", d_model, 1), check_integer("num_heads", num_heads, 1)
    h_kv = h if num_kv_heads is None else check_integer("num_kv_heads", num_kv_heads, 1)
    if h % h_kv:
        raise ValueError(f"num_kv_heads is {h_kv}; wanted a divisor of num_heads, {h}")
    if d_k is None and d_model % h:
        raise ValueError(f"num_heads is {h}; wanted a divisor of d_model, {d_model} (or give d_k)")
    d_k = d_model // h if d_k is None else check_integer("d_k", d_k, 1)
    return h, h_kv, d_model, d_k, d_k if d_v is None else check_integer("d_v", d_v, 1)
