"""Score functions: how a query is compared with a key, and the gradient of each comparison.

Every function takes queries ``(..., n, d_q)`` and keys ``(..., m, d_k)`` and gives scores ``(..., n, m)``: entry
(i, j) says how well key j answers query i. Softmax over the last axis turns them into attention weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import as_float_array, check_ndim, check_positive, compute_dtype, same_float_dtype

__all__ = [
    "additive_score",
    "additive_score_backward",
    "concat_score",
    "concat_score_backward",
    "cosine_score",
    "cosine_score_backward",
    "dot_score",
    "dot_score_backward",
    "general_score",
    "general_score_backward",
    "scaled_dot_score",
    "scaled_dot_score_backward",
]

#: Entries of the (queries, keys, d_a) array that additive scores pass through at a time: 8 MiB in float64.
_TILE = 1 << 20


def _pair(query: Any, key: Any, *, same_width: bool, **others: Any) -> list[np.ndarray]:
    """Return query, key and the named parameters as floating arrays that agree."""
    named = {"query": query, "key": key, **others}
    arrays = {name: as_float_array(name, x) for name, x in named.items()}
    same_float_dtype(**arrays)
    q, k = arrays["query"], arrays["key"]
    check_ndim("query", q, 2, "(..., n, d_q)")
    check_ndim("key", k, 2, "(..., m, d_k)")
    if same_width and q.shape[-1] != k.shape[-1]:
        raise ValueError(f"key has width {k.shape[-1]}; wanted the width of query, {q.shape[-1]}")
    try:
        np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    except ValueError:
        raise ValueError(f"leading dimensions of query {q.shape} and key {k.shape} do not broadcast") from None
    return [x.astype(compute_dtype(x), copy=False) for x in arrays.values()]


def _check_shape(name: str, x: np.ndarray, wanted: tuple[int, ...], spelled: str) -> None:
    if x.shape != wanted:
        raise ValueError(f"{name} has shape {x.shape}; wanted {spelled} = {wanted}")


def _check_grad(grad_scores: Any, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return the gradient of the scores as an array of their shape, in the type to compute in."""
    grad = as_float_array("grad_scores", grad_scores).astype(query.dtype, copy=False)
    lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    _check_shape("grad_scores", grad, (*lead, query.shape[-2], key.shape[-2]), "(..., n, m)")
    return grad


def _sum_to(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Sum ``x`` over the leading dimensions along which ``like`` was broadcast."""
    x = x.sum(axis=tuple(range(x.ndim - like.ndim)))
    stretched = tuple(i for i, size in enumerate(like.shape) if size == 1 and x.shape[i] != 1)
    return x.sum(axis=stretched, keepdims=True) if stretched else x


def dot_score(query: Any, key: Any) -> np.ndarray:
    """Compare by the dot product, ``q . k``.

    Parameters
    ----------
    query : array_like, shape (..., n, d)
        Queries.
    key : array_like, shape (..., m, d)
        Keys, as wide as the queries.

    Returns
    -------
    ndarray, shape (..., n, m)
        Scores, in the dtype of the inputs.

    Raises
    ------
    ValueError
        If the widths differ or the leading dimensions do not broadcast.
    TypeError
        If the dtypes differ or are not real numbers.

    Notes
    -----
    One matrix product: n m d multiply-adds for all pairs, and no parameters. For components of mean zero and
    variance one the score has variance d.

    References
    ----------
    Luong, Pham and Manning (2015), Effective Approaches to Attention-based Neural Machine Translation, equation 8
    (dot).

    Examples
    --------
    >>> from attn_guide import dot_score
    >>> dot_score([[1.0, 2.0]], [[3.0, 0.0], [0.0, 1.0]])
    array([[3., 2.]])
    """
    out_dtype = as_float_array("query", query).dtype
    q, k = _pair(query, key, same_width=True)
    return (q @ k.swapaxes(-1, -2)).astype(out_dtype, copy=False)


def dot_score_backward(grad_scores: Any, query: Any, key: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of a loss with respect to the query and the key of ``dot_score``.

    Parameters
    ----------
    grad_scores : array_like, shape (..., n, m)
        Gradient of the loss with respect to the scores.
    query : array_like, shape (..., n, d)
        Queries.
    key : array_like, shape (..., m, d)
        Keys.

    Returns
    -------
    tuple of ndarray
        Gradients of the shapes of ``query`` and ``key``.

    Examples
    --------
    >>> from attn_guide import dot_score_backward
    >>> grad_query, grad_key = dot_score_backward([[1.0, -1.0]], [[1.0, 2.0]], [[3.0, 0.0], [0.0, 1.0]])
    >>> grad_query
    array([[ 3., -1.]])
    """
    q, k = _pair(query, key, same_width=True)
    g = _check_grad(grad_scores, q, k)
    return _sum_to(g @ k, q), _sum_to(g.swapaxes(-1, -2) @ q, k)


def scaled_dot_score(query: Any, key: Any, *, scale: float | None = None) -> np.ndarray:
    """Compare by the dot product divided by the square root of the width, ``q . k / sqrt(d_k)``.

    Parameters
    ----------
    query : array_like, shape (..., n, d_k)
        Queries.
    key : array_like, shape (..., m, d_k)
        Keys, as wide as the queries.
    scale : float, optional
        What the dot product is multiplied by; 1 / sqrt(d_k) where it is not given.

    Returns
    -------
    ndarray, shape (..., n, m)
        Scores, in the dtype of the inputs.

    Raises
    ------
    ValueError
        If the widths differ or ``scale`` is not above zero.

    Notes
    -----
    The same as ``dot_score`` of ``query * scale``: n m d_k multiply-adds. For components of mean zero and
    variance one the score has variance one whatever d_k is.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, equation 1.

    Examples
    --------
    >>> from attn_guide import scaled_dot_score
    >>> scaled_dot_score([[1.0, 2.0, 0.0, 2.0]], [[2.0, 1.0, 0.0, 1.0]])
    array([[3.]])
    """
    q = as_float_array("query", query)
    return dot_score((q * _scale(scale, q)).astype(q.dtype, copy=False), key)


def scaled_dot_score_backward(
    grad_scores: Any, query: Any, key: Any, *, scale: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of a loss with respect to the query and the key of ``scaled_dot_score``.

    Parameters
    ----------
    grad_scores : array_like, shape (..., n, m)
        Gradient of the loss with respect to the scores.
    query : array_like, shape (..., n, d_k)
        Queries.
    key : array_like, shape (..., m, d_k)
        Keys.
    scale : float, optional
        As in ``scaled_dot_score``.

    Returns
    -------
    tuple of ndarray
        Gradients of the shapes of ``query`` and ``key``.

    Examples
    --------
    >>> from attn_guide import scaled_dot_score_backward
    >>> scaled_dot_score_backward([[1.0]], [[1.0, 2.0, 0.0, 2.0]], [[2.0, 1.0, 0.0, 1.0]])[0]
    array([[1. , 0.5, 0. , 0.5]])
    """
    factor = _scale(scale, as_float_array("query", query))
    grad_query, grad_key = dot_score_backward(grad_scores, query, key)
    return factor * grad_query, factor * grad_key


def _scale(scale: float | None, query: np.ndarray) -> float:
    check_ndim("query", query, 2, "(..., n, d_k)")
    return query.shape[-1] ** -0.5 if scale is None else check_positive("scale", scale)


def general_score(query: Any, key: Any, weight: Any) -> np.ndarray:
    """Compare through a learned matrix, ``q W k``; the widths of query and key may differ.

    Parameters
    ----------
    query : array_like, shape (..., n, d_q)
        Queries.
    key : array_like, shape (..., m, d_k)
        Keys.
    weight : array_like, shape (d_q, d_k)
        The bilinear form W.

    Returns
    -------
    ndarray, shape (..., n, m)
        Scores, in the dtype of the inputs.

    Raises
    ------
    ValueError
        If ``weight`` does not fit the widths.

    Notes
    -----
    The product with W is taken once per query, not once per pair: n d_q d_k + n m d_k multiply-adds. With
    ``W = W_Q W_K^T`` this is the dot product of projected queries and keys.

    References
    ----------
    Luong, Pham and Manning (2015), Effective Approaches to Attention-based Neural Machine Translation, equation 8
    (general).

    Examples
    --------
    >>> from attn_guide import general_score
    >>> general_score([[1.0, 2.0]], [[1.0], [3.0]], [[1.0], [0.5]])
    array([[2., 6.]])
    """
    out_dtype = as_float_array("query", query).dtype
    q, k, w = _general(query, key, weight)
    return ((q @ w) @ k.swapaxes(-1, -2)).astype(out_dtype, copy=False)


def _general(query: Any, key: Any, weight: Any) -> list[np.ndarray]:
    q, k, w = _pair(query, key, same_width=False, weight=weight)
    _check_shape("weight", w, (q.shape[-1], k.shape[-1]), "(d_q, d_k)")
    return [q, k, w]


def general_score_backward(
    grad_scores: Any, query: Any, key: Any, weight: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of a loss with respect to the query, the key and the matrix of ``general_score``.

    Parameters
    ----------
    grad_scores : array_like, shape (..., n, m)
        Gradient of the loss with respect to the scores.
    query : array_like, shape (..., n, d_q)
        Queries.
    key : array_like, shape (..., m, d_k)
        Keys.
    weight : array_like, shape (d_q, d_k)
        The bilinear form.

    Returns
    -------
    tuple of ndarray
        Gradients of the shapes of ``query``, ``key`` and ``weight``.

    Examples
    --------
    >>> from attn_guide import general_score_backward
    >>> general_score_backward([[1.0, 1.0]], [[1.0, 2.0]], [[1.0], [3.0]], [[1.0], [0.5]])[2]
    array([[4.],
           [8.]])
    """
    q, k, w = _general(query, key, weight)
    g = _check_grad(grad_scores, q, k)
    gk = g @ k  # (..., n, d_k)
    grad_weight = _sum_to(np.swapaxes(q, -1, -2) @ gk, w)
    return _sum_to(gk @ w.T, q), _sum_to(g.swapaxes(-1, -2) @ (q @ w), k), grad_weight


def additive_score(query: Any, key: Any, w_query: Any, w_key: Any, v: Any) -> np.ndarray:
    """Compare with a small network, ``v . tanh(q W_q + k W_k)``.

    Parameters
    ----------
    query : array_like, shape (..., n, d_q)
        Queries; in Bahdanau's decoder the state before the word to be produced.
    key : array_like, shape (..., m, d_k)
        Keys; there, the annotations of the source.
    w_query : array_like, shape (d_q, d_a)
        Projection of the queries.
    w_key : array_like, shape (d_k, d_a)
        Projection of the keys.
    v : array_like, shape (d_a,)
        The readout.

    Returns
    -------
    ndarray, shape (..., n, m)
        Scores, in the dtype of the inputs.

    Raises
    ------
    ValueError
        If a parameter does not fit the widths.

    Notes
    -----
    The projections are taken once per query and once per key, so a pair costs d_a additions, d_a tanh and d_a
    multiply-adds: n d_q d_a + m d_k d_a + n m d_a in all. What makes it slow is not the count but the (n, m, d_a)
    array of tanh, which no matrix product can avoid; here it exists one tile at a time.

    References
    ----------
    Bahdanau, Cho and Bengio (2014), Neural Machine Translation by Jointly Learning to Align and Translate,
    section A.1.2.

    Examples
    --------
    >>> from attn_guide import additive_score
    >>> additive_score([[0.5]], [[0.5], [-0.5]], [[1.0]], [[1.0]], [2.0])
    array([[1.52318831, 0.        ]])
    """
    out_dtype = as_float_array("query", query).dtype
    q, k, w_q, w_k, readout = _additive(query, key, w_query, w_key, v)
    a, b = q @ w_q, k @ w_k  # (..., n, d_a), (..., m, d_a)
    scores = np.empty((*np.broadcast_shapes(q.shape[:-2], k.shape[:-2]), q.shape[-2], k.shape[-2]), q.dtype)
    for rows in _query_tiles(a, b, scores):
        hidden = a[..., rows, None, :] + b[..., None, :, :]  # (..., tile, m, d_a)
        scores[..., rows, :] = np.tanh(hidden, out=hidden) @ readout
    return scores.astype(out_dtype, copy=False)


def _additive(query: Any, key: Any, w_query: Any, w_key: Any, v: Any) -> list[np.ndarray]:
    q, k, w_q, w_k, readout = _pair(query, key, same_width=False, w_query=w_query, w_key=w_key, v=v)
    check_ndim("v", readout, 1, "(d_a,)")
    d_a = readout.shape[-1]
    _check_shape("v", readout, (d_a,), "(d_a,)")
    _check_shape("w_query", w_q, (q.shape[-1], d_a), "(d_q, d_a)")
    _check_shape("w_key", w_k, (k.shape[-1], d_a), "(d_k, d_a)")
    return [q, k, w_q, w_k, readout]


def _query_tiles(a: np.ndarray, b: np.ndarray, scores: np.ndarray) -> list[slice]:
    """Cut the queries so that a tile of the (..., n, m, d_a) array stays near ``_TILE`` entries."""
    n = a.shape[-2]
    per_query = max(1, scores[..., :1, :].size * b.shape[-1])
    step = max(1, _TILE // per_query)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def additive_score_backward(
    grad_scores: Any, query: Any, key: Any, w_query: Any, w_key: Any, v: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of a loss with respect to every argument of ``additive_score``.

    Parameters
    ----------
    grad_scores : array_like, shape (..., n, m)
        Gradient of the loss with respect to the scores.
    query : array_like, shape (..., n, d_q)
        Queries.
    key : array_like, shape (..., m, d_k)
        Keys.
    w_query : array_like, shape (d_q, d_a)
        Projection of the queries.
    w_key : array_like, shape (d_k, d_a)
        Projection of the keys.
    v : array_like, shape (d_a,)
        The readout.

    Returns
    -------
    tuple of ndarray
        Gradients of the shapes of ``query``, ``key``, ``w_query``, ``w_key`` and ``v``.

    Examples
    --------
    >>> from attn_guide import additive_score_backward
    >>> gradients = additive_score_backward([[1.0, 0.0]], [[0.5]], [[0.5], [-0.5]], [[1.0]], [[1.0]], [2.0])
    >>> gradients[4]
    array([0.76159416])
    """
    q, k, w_q, w_k, readout = _additive(query, key, w_query, w_key, v)
    g = _check_grad(grad_scores, q, k)
    a, b = q @ w_q, k @ w_k  # (..., n, d_a), (..., m, d_a)
    lead = g.shape[:-2]
    grad_a = np.empty((*lead, *a.shape[-2:]), g.dtype)
    grad_b = np.zeros((*lead, *b.shape[-2:]), g.dtype)
    grad_v = np.zeros_like(readout)
    for rows in _query_tiles(a, b, g):
        hidden = np.tanh(a[..., rows, None, :] + b[..., None, :, :])  # (..., tile, m, d_a)
        grad_v += np.tensordot(g[..., rows, :], np.broadcast_to(hidden, (*lead, *hidden.shape[-3:])), g.ndim)
        inner = g[..., rows, :, None] * (1 - hidden**2) * readout
        grad_a[..., rows, :] = inner.sum(axis=-2)
        grad_b += inner.sum(axis=-3)
    grad_a, grad_b = _sum_to(grad_a, a), _sum_to(grad_b, b)
    return (
        grad_a @ w_q.T,
        grad_b @ w_k.T,
        _sum_to(np.swapaxes(q, -1, -2) @ grad_a, w_q),
        _sum_to(np.swapaxes(k, -1, -2) @ grad_b, w_k),
        grad_v,
    )


def concat_score(query: Any, key: Any, weight: Any, v: Any) -> np.ndarray:
    """Compare with a small network on the pair laid end to end, ``v . tanh([q; k] W)``.

    Parameters
    ----------
    query : array_like, shape (..., n, d_q)
        Queries.
    key : array_like, shape (..., m, d_k)
        Keys.
    weight : array_like, shape (d_q + d_k, d_a)
        Projection of the concatenation.
    v : array_like, shape (d_a,)
        The readout.

    Returns
    -------
    ndarray, shape (..., n, m)
        Scores, in the dtype of the inputs.

    Raises
    ------
    ValueError
        If a parameter does not fit the widths.

    Notes
    -----
    A product with a concatenation is a sum of two products, so this *is* ``additive_score`` with W cut into
    its query rows and its key rows, and it is computed that way: the concatenation of every pair is never made.

    References
    ----------
    Luong, Pham and Manning (2015), Effective Approaches to Attention-based Neural Machine Translation, equation 8
    (concat).

    Examples
    --------
    >>> from attn_guide import concat_score
    >>> concat_score([[0.5]], [[0.5], [-0.5]], [[1.0], [1.0]], [2.0])
    array([[1.52318831, 0.        ]])
    """
    w_query, w_key = _split_concat(query, key, weight)
    return additive_score(query, key, w_query, w_key, v)


def _split_concat(query: Any, key: Any, weight: Any) -> tuple[np.ndarray, np.ndarray]:
    q, k, w = as_float_array("query", query), as_float_array("key", key), as_float_array("weight", weight)
    check_ndim("query", q, 2, "(..., n, d_q)")
    check_ndim("key", k, 2, "(..., m, d_k)")
    check_ndim("weight", w, 2, "(d_q + d_k, d_a)")
    _check_shape("weight", w, (q.shape[-1] + k.shape[-1], w.shape[-1]), "(d_q + d_k, d_a)")
    return w[: q.shape[-1]], w[q.shape[-1] :]


def concat_score_backward(
    grad_scores: Any, query: Any, key: Any, weight: Any, v: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of a loss with respect to every argument of ``concat_score``.

    Parameters
    ----------
    grad_scores : array_like, shape (..., n, m)
        Gradient of the loss with respect to the scores.
    query : array_like, shape (..., n, d_q)
        Queries.
    key : array_like, shape (..., m, d_k)
        Keys.
    weight : array_like, shape (d_q + d_k, d_a)
        Projection of the concatenation.
    v : array_like, shape (d_a,)
        The readout.

    Returns
    -------
    tuple of ndarray
        Gradients of the shapes of ``query``, ``key``, ``weight`` and ``v``.

    Examples
    --------
    >>> from attn_guide import concat_score_backward
    >>> concat_score_backward([[1.0, 0.0]], [[0.5]], [[0.5], [-0.5]], [[1.0], [1.0]], [2.0])[3]
    array([0.76159416])
    """
    w_query, w_key = _split_concat(query, key, weight)
    grad_query, grad_key, grad_wq, grad_wk, grad_v = additive_score_backward(grad_scores, query, key, w_query, w_key, v)
    return grad_query, grad_key, np.concatenate([grad_wq, grad_wk]), grad_v


def cosine_score(query: Any, key: Any, *, scale: float = 1.0) -> np.ndarray:
    """Compare by the cosine of the angle between query and key, times a scale.

    Parameters
    ----------
    query : array_like, shape (..., n, d)
        Queries.
    key : array_like, shape (..., m, d)
        Keys, as wide as the queries.
    scale : float, default 1.0
        What the cosine is multiplied by, the inverse of a temperature (Graves' sharpness beta). A cosine lies in
        [-1, 1], so with a scale of one a softmax over n keys can never put more than e^2 / (e^2 + n - 1) on one.

    Returns
    -------
    ndarray, shape (..., n, m)
        Scores in [-scale, scale], in the dtype of the inputs. A zero vector scores 0 with everything.

    Raises
    ------
    ValueError
        If the widths differ or ``scale`` is not above zero.

    Notes
    -----
    n m d multiply-adds after (n + m) d for the norms. Lengths do not matter, only directions do.

    References
    ----------
    Graves, Wayne and Danihelka (2014), Neural Turing Machines, equations 5 and 6.

    Examples
    --------
    >>> from attn_guide import cosine_score
    >>> cosine_score([[2.0, 0.0]], [[30.0, 0.0], [0.0, -5.0], [0.0, 0.0]])
    array([[1., 0., 0.]])
    """
    out_dtype = as_float_array("query", query).dtype
    q, k = _pair(query, key, same_width=True)
    (q_hat, _), (k_hat, _) = _normalise(q), _normalise(k)
    return (check_positive("scale", scale) * (q_hat @ k_hat.swapaxes(-1, -2))).astype(out_dtype, copy=False)


def _normalise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors of the rows of ``x`` and their lengths; a zero row stays zero."""
    # Divide by the largest entry first: squares of very long vectors would overflow, of very short ones vanish.
    top = np.max(np.abs(x), axis=-1, keepdims=True, initial=0.0)
    y = np.divide(x, top, out=np.zeros_like(x), where=top > 0)
    length = np.sqrt(np.sum(y**2, axis=-1, keepdims=True))
    return np.divide(y, length, out=np.zeros_like(y), where=length > 0), length * top


def cosine_score_backward(
    grad_scores: Any, query: Any, key: Any, *, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of a loss with respect to the query and the key of ``cosine_score``.

    Parameters
    ----------
    grad_scores : array_like, shape (..., n, m)
        Gradient of the loss with respect to the scores.
    query : array_like, shape (..., n, d)
        Queries.
    key : array_like, shape (..., m, d)
        Keys.
    scale : float, default 1.0
        As in ``cosine_score``.

    Returns
    -------
    tuple of ndarray
        Gradients of the shapes of ``query`` and ``key``; each is at right angles to its vector, since a cosine does
        not change with length. A zero vector, where the cosine has no derivative, gets 0.

    Examples
    --------
    >>> from attn_guide import cosine_score_backward
    >>> cosine_score_backward([[1.0]], [[2.0, 0.0]], [[0.0, 5.0]])[0]
    array([[0. , 0.5]])
    """
    q, k = _pair(query, key, same_width=True)
    g = check_positive("scale", scale) * _check_grad(grad_scores, q, k)
    (q_hat, q_length), (k_hat, k_length) = _normalise(q), _normalise(k)
    return (
        _through_norm(_sum_to(g @ k_hat, q), q_hat, q_length),
        _through_norm(_sum_to(g.swapaxes(-1, -2) @ q_hat, k), k_hat, k_length),
    )


def _through_norm(grad: np.ndarray, unit: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Carry a gradient from a unit vector back to the vector: drop its radial part, divide by the length."""
    tangent = grad - unit * np.sum(grad * unit, axis=-1, keepdims=True)
    return np.divide(tangent, length, out=np.zeros_like(tangent), where=length > 0)
