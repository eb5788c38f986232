"""Which key each query may see: predicates, their algebra, and what they reach over several layers.

A pattern is a predicate ``(b, h, q_idx, kv_idx) -> bool`` written in index arithmetic alone. The same object is
drawn by the gallery, evaluated by the NumPy reference, traced by FlexAttention and counted here, so that a picture
cannot disagree with a kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from ._checks import check_integer, check_rng

__all__ = [
    "Mask",
    "PathLengths",
    "bigbird",
    "bigbird_random_blocks",
    "block_local",
    "blockwise",
    "causal",
    "causal_lower_right",
    "connected_components",
    "dilated_window",
    "document",
    "from_array",
    "full",
    "global_tokens",
    "longformer",
    "on_head",
    "path_lengths",
    "per_head",
    "prefix",
    "random_keys",
    "reachability",
    "receptive_field",
    "sinks",
    "sliding_window",
    "sparse_transformer_fixed",
    "sparse_transformer_strided",
    "strided",
]

MaskMod = Callable[[Any, Any, Any, Any], Any]

#: Cells evaluated at once when a mask is counted, so that counting a long sequence needs a few megabytes.
_CELLS = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """A predicate that says whether query ``q_idx`` may attend to key ``kv_idx``.

    Masks combine with ``&`` (both allow), ``|`` (either allows) and ``~`` (the opposite). Calling a mask calls its
    predicate, so a mask is itself a ``mask_mod`` for ``scaled_dot_product_attention`` here and for
    ``torch.nn.attention.flex_attention``.

    Parameters
    ----------
    mask_mod : callable
        ``(b, h, q_idx, kv_idx) -> bool`` in operators that NumPy arrays, torch tensors and Python integers share.
    name : str, optional
        How the mask prints; the function's own name unless given.
    clause, negation : str, optional
        The condition in words about query i and key j, and its opposite; ``describe`` joins them.
    shape : tuple, default (None, None)
        The most queries and keys the predicate is defined for; None where there is no limit.
    relative : bool, default False
        True when the predicate depends on ``kv_idx - q_idx`` alone within one head, except in ``special_rows`` and
        ``special_keys``. Such masks are counted without looking at every pair.
    special_rows, special_keys : tuple of int, default ()
        The queries and the keys that are exempt from ``relative``.
    block : int, default 1
        The predicate is constant in blocks of this many queries and keys.
    operator, parts : str and tuple of Mask
        How a composed mask was made; set by ``&``, ``|`` and ``~``.

    Notes
    -----
    A predicate uses comparisons, ``+ - * // %``, ``& | ^`` and table look-ups: no NumPy function and no Python
    branch on the indices, so that a compiler can trace it. ``~`` is computed as ``^ True``, because ``~True`` is
    -2 for a Python bool.

    References
    ----------
    Dong et al. (2024), Flex Attention: A Programming Model for Generating Optimized Attention Kernels, section 3.

    Examples
    --------
    >>> import attn_guide as ag
    >>> mask = ag.causal & ag.sliding_window(1, 1)
    >>> mask
    causal & sliding_window(1, 1)
    >>> mask.materialize(4).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 1, 1]])
    >>> mask.describe()
    'Query i sees key j if j is not after i and j is within i - 1 ... i + 1.'
    >>> (~mask).describe()
    'Query i sees key j if j is after i or j is outside i - 1 ... i + 1.'
    >>> mask.density(4)
    0.4375

    A predicate of your own joins the algebra:

    >>> odd = ag.Mask(lambda b, h, q_idx, kv_idx: kv_idx % 2 == 1, name="odd_keys")
    >>> (odd & ag.causal).materialize(3).astype(int)
    array([[0, 0, 0],
           [0, 1, 0],
           [0, 1, 0]])
    """

    mask_mod: MaskMod
    name: str = ""
    clause: str = ""
    negation: str = ""
    shape: tuple[int | None, int | None] = (None, None)
    relative: bool = False
    special_rows: tuple[int, ...] = ()
    special_keys: tuple[int, ...] = ()
    block: int = 1
    operator: str = ""
    parts: tuple[Mask, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.mask_mod):
            raise TypeError(f"mask_mod is {self.mask_mod!r}; wanted a function (b, h, q_idx, kv_idx) -> bool")
        if not self.name and not self.operator:
            object.__setattr__(self, "name", getattr(self.mask_mod, "__name__", "mask_mod"))
        if not self.clause:
            object.__setattr__(self, "clause", f"{self.name} holds")
            object.__setattr__(self, "negation", f"{self.name} does not hold")

    def __call__(self, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        """Evaluate the predicate; the four indices broadcast."""
        return self.mask_mod(b, h, q_idx, kv_idx)

    def __and__(self, other: Mask) -> Mask:
        return _combine("&", self, other)

    def __or__(self, other: Mask) -> Mask:
        return _combine("|", self, other)

    def __invert__(self) -> Mask:
        inner = self.mask_mod

        def negated(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return inner(b, h, q_idx, kv_idx) ^ True

        return replace(self, mask_mod=negated, name="", clause="", negation="", operator="~", parts=(self,))

    def __repr__(self) -> str:
        if self.name:
            return self.name
        # Python binds ~ tighter than & and & tighter than |: parentheses only where reading needs them.
        looser = {"~": "&|", "&": "|", "|": ""}[self.operator]
        shown = [
            f"({part!r})" if not part.name and part.operator and part.operator in looser else repr(part)
            for part in self.parts
        ]
        return f"~{shown[0]}" if self.operator == "~" else f" {self.operator} ".join(shown)

    def describe(self) -> str:
        """Return one English sentence that says which key j a query i sees.

        Returns
        -------
        str
            The clauses of the parts, joined by and, or, both and either; negations are turned inward.

        Examples
        --------
        >>> import attn_guide as ag
        >>> (ag.causal & (ag.document([0, 0, 1]) | ag.strided(2))).describe().partition(" and ")[2]
        'either i and j are in the same document or i and j leave the same remainder when divided by 2.'
        """
        condition = _words(self, True)[1]
        whole = {full.clause: "Every query sees every key.", full.negation: "No query sees any key."}
        return whole.get(condition, f"Query i sees key j if {condition}.")

    def materialize(self, n: int, m: int | None = None, *, b: int | None = None, h: int | None = None) -> np.ndarray:
        """Return the mask as a boolean array.

        Parameters
        ----------
        n, m : int
            Number of queries and of keys; ``m`` is ``n`` unless given.
        b, h : int, optional
            Number of batch items and of heads. Each that is given adds a leading dimension; without it the
            predicate is evaluated at index 0.

        Returns
        -------
        numpy.ndarray
            Booleans (n, m), (h, n, m), (b, n, m) or (b, h, n, m); True where the query may attend.

        Raises
        ------
        ValueError
            If a size is negative or beyond what the mask is defined for.
        TypeError
            If the predicate does not return booleans.

        Examples
        --------
        >>> import attn_guide as ag
        >>> ag.causal.materialize(2, 3)
        array([[ True, False, False],
               [ True,  True, False]])
        >>> ag.per_head([ag.causal, ag.full]).materialize(5, h=2).shape
        (2, 5, 5)
        """
        n, m = self._lengths(n, m)
        batch = 1 if b is None else check_integer("b", b)
        heads = 1 if h is None else check_integer("h", h)
        cells = self._evaluate(
            np.arange(batch)[:, None, None, None],
            np.arange(heads)[:, None, None],
            np.arange(n)[:, None],
            np.arange(m),
        )
        out = np.array(np.broadcast_to(cells, (batch, heads, n, m)))
        return out.reshape(*([] if b is None else [batch]), *([] if h is None else [heads]), n, m)

    def count(self, n: int, m: int | None = None, *, b: int = 1, h: int = 1) -> int:
        """Return the number of (query, key) pairs that the mask allows, over ``b`` batch items and ``h`` heads.

        Parameters
        ----------
        n, m : int
            Number of queries and of keys; ``m`` is ``n`` unless given.
        b, h : int, default 1
            Number of batch items and of heads.

        Returns
        -------
        int

        Raises
        ------
        ValueError
            If a size is negative or beyond what the mask is defined for.

        Notes
        -----
        No n x m array is made. A mask that depends on the distance alone, but for a few special tokens (causal,
        windows, strides, sinks, prefix, global tokens and all that is composed of them), is counted in O((n + m) s)
        for s special tokens. Any other is evaluated once per block, some rows at a time: O(n m / block^2) time and
        bounded memory.

        Examples
        --------
        >>> import attn_guide as ag
        >>> ag.sliding_window(64, 64).count(1024)      # not 1024 * 129 = 132096: the ends see fewer keys
        127936
        >>> (ag.longformer(512, [0]) & ag.causal).count(1_000_000)
        257966847
        """
        n, m = self._lengths(n, m)
        heads = [(bi, hi) for bi in range(check_integer("b", b)) for hi in range(check_integer("h", h))]
        return sum(self._count_relative(*at, n, m) if self.relative else self._count_cells(*at, n, m) for at in heads)

    def _count_cells(self, b: int, h: int, n: int, m: int) -> int:
        """Evaluate the first cell of every block and count it as many times as the block has cells."""
        keys = np.arange(0, m, self.block)
        width = np.minimum(self.block, m - keys)
        total = 0
        for rows in _row_groups(np.arange(0, n, self.block), len(keys)):
            height = np.minimum(self.block, n - rows)
            seen = np.broadcast_to(self._evaluate(b, h, rows[:, None], keys), (len(rows), len(keys)))
            total += int(height @ (seen @ width))
        return total

    def _count_relative(self, b: int, h: int, n: int, m: int) -> int:
        """Count the special rows and keys cell by cell, and the pairs of others by their distance."""
        rows = np.array([i for i in self.special_rows if i < n], dtype=np.int64)
        keys = np.array([j for j in self.special_keys if j < m], dtype=np.int64)
        plain_row, plain_key = np.ones(n, dtype=bool), np.ones(m, dtype=bool)
        plain_row[rows] = plain_key[keys] = False
        total = 0
        for group in _row_groups(rows, m):
            seen = self._evaluate(b, h, group[:, None], np.arange(m))
            total += int(np.count_nonzero(np.broadcast_to(seen, (len(group), m))))
        others = np.flatnonzero(plain_row)
        for group in _row_groups(keys, len(others)):
            seen = self._evaluate(b, h, others, group[:, None])
            total += int(np.count_nonzero(np.broadcast_to(seen, (len(group), len(others)))))

        distance = np.arange(1 - n, m)  # kv - q
        first, stop = np.maximum(0, -distance), np.minimum(n, m - distance)  # the queries with a key at that distance
        taken = np.zeros(n + m, dtype=np.int64)  # pairs at each distance in a special row or key, as differences
        np.add.at(taken, np.concatenate([n - 1 - rows, keys]), 1)
        np.add.at(taken, np.concatenate([n - 1 - rows + m, keys + n]), -1)
        pairs = stop - first - np.cumsum(taken)[: n + m - 1]
        for i in rows:
            pairs[n - 1 - i + keys] += 1  # a cell in both was taken away twice
        left = pairs > 0
        distance, pairs, query = distance[left], pairs[left], first[left]
        while True:  # step each distance's example pair past the special tokens
            blocked = ~(plain_row[query] & plain_key[query + distance])
            if not blocked.any():
                break
            query[blocked] += 1
        seen = np.broadcast_to(self._evaluate(b, h, query, query + distance), query.shape)
        return total + int(pairs[seen].sum())

    def density(self, n: int, m: int | None = None, *, b: int = 1, h: int = 1) -> float:
        """Return the exact share of allowed pairs.

        Parameters
        ----------
        n, m : int
            Number of queries and of keys; ``m`` is ``n`` unless given.
        b, h : int, default 1
            Number of batch items and of heads.

        Returns
        -------
        float
            Between 0 and 1; 0 where there are no pairs.

        Raises
        ------
        ValueError
            If a size is negative or beyond what the mask is defined for.

        Examples
        --------
        >>> import attn_guide as ag
        >>> ag.causal.density(4)          # 10 of 16
        0.625
        """
        rows, columns = self._lengths(n, m)
        pairs = rows * columns * check_integer("b", b) * check_integer("h", h)
        return self.count(n, m, b=b, h=h) / pairs if pairs else 0.0

    def _lengths(self, n: int, m: int | None) -> tuple[int, int]:
        n = check_integer("n", n)
        m = n if m is None else check_integer("m", m)
        for what, asked, most in (("n", n, self.shape[0]), ("m", m, self.shape[1])):
            if most is not None and asked > most:
                raise ValueError(f"{what} is {asked}; {self!r} is defined for at most {most}")
        return n, m

    def _evaluate(self, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> np.ndarray:
        seen = np.asarray(self.mask_mod(b, h, q_idx, kv_idx))
        if seen.dtype != np.bool_:
            raise TypeError(f"mask_mod of {self!r} returned dtype {seen.dtype}; wanted booleans")
        return seen


def _combine(operator: str, left: Mask, right: Mask) -> Mask:
    if not isinstance(right, Mask):
        raise TypeError(
            f"a Mask combines with a Mask; got {right!r} (wrap a function as Mask(function), an array with from_array)"
        )
    one, two = left.mask_mod, right.mask_mod

    if operator == "&":

        def combined(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return one(b, h, q_idx, kv_idx) & two(b, h, q_idx, kv_idx)
    else:

        def combined(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return one(b, h, q_idx, kv_idx) | two(b, h, q_idx, kv_idx)

    def smaller(a: int | None, b: int | None) -> int | None:
        return b if a is None else a if b is None else min(a, b)

    return Mask(
        combined,
        operator=operator,
        parts=(left, right),
        relative=left.relative and right.relative,
        special_rows=tuple(sorted({*left.special_rows, *right.special_rows})),
        special_keys=tuple(sorted({*left.special_keys, *right.special_keys})),
        block=gcd(left.block, right.block),
        shape=(smaller(left.shape[0], right.shape[0]), smaller(left.shape[1], right.shape[1])),
    )


def _words(mask: Mask, positive: bool) -> tuple[str, str]:
    """Return the joining word of a mask's sentence and the sentence; De Morgan turns a negation inward."""
    if not mask.operator:
        return "", mask.clause if positive else mask.negation
    if mask.operator == "~":
        return _words(mask.parts[0], not positive)
    joint = "and" if (mask.operator == "&") == positive else "or"
    opening = {"and": "both ", "or": "either "}
    pieces = []
    for part in mask.parts:
        inner, sentence = _words(part, positive)
        pieces.append(sentence if inner in ("", joint) else opening[inner] + sentence)
    return joint, f" {joint} ".join(pieces)


def _row_groups(rows: np.ndarray, m: int) -> Iterator[np.ndarray]:
    """Cut ``rows`` into groups that make about ``_CELLS`` cells with ``m`` keys."""
    step = max(1, _CELLS // max(m, 1))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


class _Table:
    """An array (a,) or (a, b) that a predicate can index with NumPy arrays, Python integers or torch tensors alike.

    A torch index reads a flat tensor copy on its own device. The copy is made once and kept, so that a compiled
    kernel captures it; torch is never imported here, since a torch index shows that the caller has done so.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.array.setflags(write=False)
        self.tensor: Any = None

    def __getitem__(self, index: Any) -> Any:
        row, column = index if isinstance(index, tuple) else (index, None)
        if type(row).__module__.startswith("torch"):
            # One flat index: vmap inside torch.compile cannot mix a tensor and an integer in one look-up.
            return self._on(row.device)[row if column is None else row * self.array.shape[1] + column]
        try:
            return self.array[index]
        except IndexError:
            raise ValueError(f"positions reach beyond a mask that is defined for {self.array.shape}") from None

    def _on(self, device: Any) -> Any:
        if self.tensor is None or self.tensor.device != device:
            torch = sys.modules["torch"]
            tensor = torch.tensor(self.array.ravel(), device=device)
            if torch.compiler.is_compiling():  # a traced tensor must not outlive its trace
                return tensor
            self.tensor = tensor
        return self.tensor


def _span(left: int, right: int) -> str:
    low = f"i - {left}" if left else "i"
    high = f"i + {right}" if right else "i"
    return f"{low} ... {high}"


def _named(mask: Mask, name: str) -> Mask:
    return replace(mask, name=name)


#: Every query sees every key: attention without a mask.
full = Mask(
    lambda b, h, q_idx, kv_idx: (q_idx >= 0) & (kv_idx >= 0),
    name="full",
    clause="i and j are any positions",
    negation="i and j are no positions",
    relative=True,
)

#: Query i sees keys 0 ... i. With n != m the two sequences are aligned at their start, as PyTorch's is_causal does.
causal = Mask(
    lambda b, h, q_idx, kv_idx: kv_idx <= q_idx,
    name="causal",
    clause="j is not after i",
    negation="j is after i",
    relative=True,
)


def causal_lower_right(n: int, m: int) -> Mask:
    """Return the causal mask that aligns the last of ``n`` queries with the last of ``m`` keys.

    This is what a decoder with a key/value cache needs: the ``n`` newest queries stand at the end of ``m`` keys, so
    query i sees keys 0 ... i + m - n. When n > m the first n - m queries see nothing.

    Parameters
    ----------
    n, m : int
        Number of queries and of keys.

    Returns
    -------
    Mask

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.causal_lower_right(2, 4).materialize(2, 4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    >>> ag.causal.materialize(2, 4).astype(int)        # aligned at the start instead
    array([[1, 0, 0, 0],
           [1, 1, 0, 0]])
    """
    offset = check_integer("m", m) - check_integer("n", n)
    shown = f"i + {offset}" if offset > 0 else f"i - {-offset}" if offset else "i"
    return Mask(
        lambda b, h, q_idx, kv_idx: kv_idx <= q_idx + offset,
        name=f"causal_lower_right({n}, {m})",
        clause=f"j is not after {shown}",
        negation=f"j is after {shown}",
        relative=True,
    )


def sliding_window(left: int, right: int) -> Mask:
    """Return the window in which query i sees keys i - left ... i + right, both ends included.

    Parameters
    ----------
    left, right : int
        Keys visible before and after the query's own position; an interior query sees ``left + right + 1`` keys.

    Returns
    -------
    Mask

    Raises
    ------
    ValueError
        If ``left`` or ``right`` is negative.

    Notes
    -----
    Libraries count a window differently. To see the same keys with a causal window of 3 keys, the query's own among
    them, write ``sliding_window(2, 0)`` here, ``sliding_window=3`` in HuggingFace's Mistral, ``window_size=3`` in
    flash-linear-attention, and (2, 0) in JAX, ONNX and flash-attn, which count as this function does. JAX's
    ``local_window_size=3`` is 7 keys, and Longformer's ``attention_window=4`` is ``sliding_window(2, 2)``: 5 keys.

    References
    ----------
    Beltagy et al. (2020), Longformer: The Long-Document Transformer, section 3.1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.sliding_window(2, 0).materialize(4).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 0],
           [0, 1, 1, 1]])
    """
    left, right = check_integer("left", left), check_integer("right", right)
    return Mask(
        lambda b, h, q_idx, kv_idx: (kv_idx >= q_idx - left) & (kv_idx <= q_idx + right),
        name=f"sliding_window({left}, {right})",
        clause=f"j is within {_span(left, right)}" if left or right else "j is i",
        negation=f"j is outside {_span(left, right)}" if left or right else "j is not i",
        relative=True,
    )


def dilated_window(left: int, right: int, dilation: int) -> Mask:
    """Return the window with gaps: query i sees keys i + dilation * t for t = -left ... right.

    The window holds as many keys as ``sliding_window(left, right)`` and reaches ``dilation`` times as far.

    Parameters
    ----------
    left, right : int
        Number of keys before and after the query's own position.
    dilation : int
        Distance between neighbouring keys; 1 gives ``sliding_window``.

    Returns
    -------
    Mask

    Raises
    ------
    ValueError
        If ``left`` or ``right`` is negative or ``dilation`` is below 1.

    References
    ----------
    Beltagy et al. (2020), Longformer: The Long-Document Transformer, section 3.1 and figure 2c.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.dilated_window(1, 1, dilation=2).materialize(5).astype(int)
    array([[1, 0, 1, 0, 0],
           [0, 1, 0, 1, 0],
           [1, 0, 1, 0, 1],
           [0, 1, 0, 1, 0],
           [0, 0, 1, 0, 1]])
    """
    left, right = check_integer("left", left), check_integer("right", right)
    dilation = check_integer("dilation", dilation, least=1)
    span = _span(left * dilation, right * dilation)
    return Mask(
        lambda b, h, q_idx, kv_idx: (
            (kv_idx >= q_idx - left * dilation)
            & (kv_idx <= q_idx + right * dilation)
            & ((kv_idx - q_idx) % dilation == 0)
        ),
        name=f"dilated_window({left}, {right}, {dilation})",
        clause=f"j is within {span} in steps of {dilation}",
        negation=f"j is not within {span} in steps of {dilation}",
        relative=True,
    )


def strided(stride: int) -> Mask:
    """Return the mask in which a query sees every key at a distance that ``stride`` divides, however far.

    Parameters
    ----------
    stride : int
        Distance between neighbouring visible keys, at least 1.

    Returns
    -------
    Mask

    Notes
    -----
    The mask allows about n^2 / stride pairs, so with a fixed stride its cost is still quadratic. Positions with
    different remainders never meet, at any depth: the graph has ``stride`` components. The Sparse Transformer
    therefore joins it with a window (``sparse_transformer_strided``).

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.strided(2).materialize(4).astype(int)
    array([[1, 0, 1, 0],
           [0, 1, 0, 1],
           [1, 0, 1, 0],
           [0, 1, 0, 1]])
    >>> ag.connected_components(ag.strided(2), 6)
    array([0, 1, 0, 1, 0, 1])
    """
    stride = check_integer("stride", stride, least=1)
    return Mask(
        lambda b, h, q_idx, kv_idx: (kv_idx - q_idx) % stride == 0,
        name=f"strided({stride})",
        clause=f"i and j leave the same remainder when divided by {stride}",
        negation=f"i and j leave different remainders when divided by {stride}",
        relative=True,
    )


def sparse_transformer_strided(stride: int) -> Mask:
    """Return the strided pattern of the Sparse Transformer: the last ``stride`` steps and every stride-th before.

    Query i sees key j <= i when i - j <= stride or when ``stride`` divides i - j. Any key is reached in two layers;
    with a stride near sqrt(n) the mask allows O(n sqrt(n)) pairs.

    Parameters
    ----------
    stride : int
        The paper's l, at least 1.

    Returns
    -------
    Mask

    References
    ----------
    Child et al. (2019), Generating Long Sequences with Sparse Transformers, section 4.3.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.sparse_transformer_strided(3).materialize(8)[7].astype(int)
    array([0, 1, 0, 0, 1, 1, 1, 1])
    """
    stride = check_integer("stride", stride, least=1)
    return _named(causal & (sliding_window(stride, 0) | strided(stride)), f"sparse_transformer_strided({stride})")


def sparse_transformer_fixed(block: int, summary: int) -> Mask:
    """Return the fixed pattern of the Sparse Transformer: the query's own block and the last cells of each block.

    Query i sees key j <= i when both are in one block, or when j is among the last ``summary`` positions of its
    block, which carry what the block holds to all later ones.

    Parameters
    ----------
    block : int
        Length of a block, the paper's l.
    summary : int
        Positions at a block's end that every later query sees, the paper's c; from 1 to ``block``.

    Returns
    -------
    Mask

    Raises
    ------
    ValueError
        If ``summary`` is larger than ``block`` or either is below 1.

    References
    ----------
    Child et al. (2019), Generating Long Sequences with Sparse Transformers, section 4.3.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.sparse_transformer_fixed(3, 1).materialize(8)[7].astype(int)
    array([0, 0, 1, 0, 0, 1, 1, 1])
    """
    block, summary = check_integer("block", block, least=1), check_integer("summary", summary, least=1)
    if summary > block:
        raise ValueError(f"summary is {summary}; wanted at most the block's length, {block}")
    cells = Mask(
        lambda b, h, q_idx, kv_idx: (kv_idx % block >= block - summary) & (q_idx >= 0),
        name=f"block_ends({block}, {summary})",
        clause=f"j is among the last {summary} of its block of {block}",
        negation=f"j is not among the last {summary} of its block of {block}",
    )
    return _named(causal & (block_local(block) | cells), f"sparse_transformer_fixed({block}, {summary})")


def global_tokens(indices: int | Iterable[int]) -> Mask:
    """Return the mask in which the tokens at ``indices`` see all positions and are seen by all.

    Parameters
    ----------
    indices : int or iterable of int
        Positions of the global tokens, in any order.

    Returns
    -------
    Mask

    Raises
    ------
    ValueError
        If an index is negative.

    Notes
    -----
    The pattern is symmetric: global rows and global columns. A global row looks at later keys, so in a decoder this
    mask breaks causality unless it is met with ``causal``; ``sinks`` is the pattern that a decoder uses.

    References
    ----------
    Beltagy et al. (2020), Longformer: The Long-Document Transformer, section 3.1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.global_tokens([1]).materialize(3).astype(int)
    array([[0, 1, 0],
           [1, 1, 1],
           [0, 1, 0]])
    """
    listed = [indices] if isinstance(indices, (int, np.integer)) else list(indices)
    chosen = sorted({check_integer("indices", index) for index in listed})
    runs = _runs(chosen)

    def either_is_global(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        seen = (q_idx < 0) | (kv_idx < 0)
        for low, high in runs:  # the runs are fixed when the mask is made: a tracer unrolls this loop
            seen = seen | ((q_idx >= low) & (q_idx < high)) | ((kv_idx >= low) & (kv_idx < high))
        return seen

    shown = ", ".join(map(str, chosen)) or "none"
    return Mask(
        either_is_global,
        name=f"global_tokens([{', '.join(map(str, chosen))}])",
        clause=f"i or j is a global token ({shown})",
        negation=f"neither i nor j is a global token ({shown})",
        relative=True,
        special_rows=tuple(chosen),
        special_keys=tuple(chosen),
    )


def _runs(chosen: Sequence[int]) -> list[tuple[int, int]]:
    """Join sorted integers into half-open runs: [0, 1, 2, 7] becomes [(0, 3), (7, 8)]."""
    runs: list[tuple[int, int]] = []
    for index in chosen:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def random_keys(r: int, n: int, m: int | None = None, *, rng: np.random.Generator, symmetric: bool = False) -> Mask:
    """Return the mask in which each of ``n`` queries sees ``r`` distinct keys drawn uniformly from ``m``.

    Parameters
    ----------
    r : int
        Keys drawn for each query.
    n, m : int
        Number of queries and of keys; ``m`` is ``n`` unless given.
    rng : numpy.random.Generator
        The source of randomness: the same generator state gives the same mask.
    symmetric : bool, default False
        Let the drawn key see the query as well (needs m = n).

    Returns
    -------
    Mask

    Raises
    ------
    ValueError
        If more keys are asked for than there are, or ``symmetric`` is set with m != n.
    TypeError
        If ``rng`` is not a NumPy Generator.

    Notes
    -----
    The edges are directed. A position that no query drew, which happens with probability about exp(-r), is seen by
    nobody at any depth (except through a residual connection, by itself). Symmetric edges or a global token mend this.

    References
    ----------
    Zaheer et al. (2020), Big Bird: Transformers for Longer Sequences, section 2.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> mask = ag.random_keys(2, 5, rng=np.random.default_rng(0))
    >>> mask.materialize(5).sum(axis=1)
    array([2, 2, 2, 2, 2])
    """
    n = check_integer("n", n)
    m = n if m is None else check_integer("m", m)
    r = check_integer("r", r)
    check_rng("rng", rng)
    if r > m:
        raise ValueError(f"r is {r}; wanted at most the number of keys, {m}")
    if symmetric and m != n:
        raise ValueError(f"symmetric is True with n = {n} and m = {m}; wanted as many keys as queries")
    return _drawn_keys(
        _sample_rows(r, n, m, rng),
        m,
        symmetric,
        f"random_keys({r}, {n}, {m}{', symmetric=True' if symmetric else ''})",
    )


def _sample_rows(r: int, n: int, m: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``r`` distinct integers below ``m`` for each of ``n`` rows: Floyd's algorithm on all rows at once."""
    drawn = np.empty((n, r), dtype=np.int64)
    for t, top in enumerate(range(m - r, m)):
        pick = rng.integers(0, top + 1, size=n)
        taken = (drawn[:, :t] == pick[:, None]).any(axis=1)
        drawn[:, t] = np.where(taken, top, pick)
    return np.sort(drawn, axis=1)


def _drawn_keys(drawn: np.ndarray, m: int, symmetric: bool, name: str) -> Mask:
    """Return the mask of a table (n, r): query i sees the keys in row i."""
    n, r = drawn.shape
    table = _Table(drawn)

    def key_is_drawn(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        seen = (q_idx < 0) | (kv_idx < 0)
        for t in range(r):
            seen = seen | (table[q_idx, t] == kv_idx)
            if symmetric:
                seen = seen | (table[kv_idx, t] == q_idx)
        return seen

    return Mask(
        key_is_drawn,
        name=name,
        clause=(
            f"one of i and j is among the {r} keys drawn for the other"
            if symmetric
            else f"j is one of the {r} keys drawn for i"
        ),
        negation=(
            f"neither of i and j is among the {r} keys drawn for the other"
            if symmetric
            else f"j is none of the {r} keys drawn for i"
        ),
        shape=(n, m),
    )


def block_local(block: int) -> Mask:
    """Return the mask in which a query sees the keys of its own block of ``block`` positions.

    Parameters
    ----------
    block : int
        Length of a block, at least 1.

    Returns
    -------
    Mask

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.block_local(2).materialize(4).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 1, 1],
           [0, 0, 1, 1]])
    """
    block = check_integer("block", block, least=1)
    return Mask(
        lambda b, h, q_idx, kv_idx: q_idx // block == kv_idx // block,
        name=f"block_local({block})",
        clause=f"i and j are in the same block of {block}",
        negation=f"i and j are in different blocks of {block}",
        block=block,
    )


def blockwise(mask: Mask, block: int) -> Mask:
    """Return ``mask`` read as a pattern of blocks: block i // block sees block j // block.

    Parameters
    ----------
    mask : Mask
        The pattern, one cell per pair of blocks.
    block : int
        Length of a block, at least 1.

    Returns
    -------
    Mask

    Notes
    -----
    A pattern of whole blocks is what hardware can skip: the work saved is ``block`` squared cells at a time.
    ``blockwise(causal, block)`` is block-causal attention.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.blockwise(ag.causal, 2).materialize(4).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 1],
           [1, 1, 1, 1]])
    """
    _check_mask("mask", mask)
    block = check_integer("block", block, least=1)
    inner = mask.mask_mod
    _, sentence = _words(mask, True)
    _, opposite = _words(mask, False)
    rows, columns = (None if most is None else most * block for most in mask.shape)
    return Mask(
        lambda b, h, q_idx, kv_idx: inner(b, h, q_idx // block, kv_idx // block),
        name=f"blockwise({mask!r}, {block})",
        clause=f"counting in blocks of {block}, {sentence}",
        negation=f"counting in blocks of {block}, {opposite}",
        shape=(rows, columns),
        block=block * mask.block,
    )


def prefix(length: int) -> Mask:
    """Return the prefix-LM mask: every query sees the first ``length`` keys, and beyond them only its past.

    Parameters
    ----------
    length : int
        Number of positions in the prefix, which see one another in both directions. 0 gives ``causal``.

    Returns
    -------
    Mask

    References
    ----------
    Raffel et al. (2020), Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
    section 3.2.1 and figure 4.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.prefix(2).materialize(4).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 0],
           [1, 1, 1, 1]])
    """
    length = check_integer("length", length)
    return _named(causal | _first_keys(length, f"j is in the prefix of {length}"), f"prefix({length})")


def sinks(count: int) -> Mask:
    """Return the mask of attention sinks: a query sees those of the first ``count`` keys that are not after it.

    Joined with a causal window it is the pattern of StreamingLLM:
    ``sinks(4) | (causal & sliding_window(1020, 0))``.

    Parameters
    ----------
    count : int
        Number of sink positions.

    Returns
    -------
    Mask

    Notes
    -----
    A sink is seen by all later queries and itself sees only its past, so this mask never shows a later key; that is
    the difference from ``global_tokens``, whose rows see everything.

    References
    ----------
    Xiao et al. (2024), Efficient Streaming Language Models with Attention Sinks, section 3.2.

    Examples
    --------
    >>> import attn_guide as ag
    >>> (ag.sinks(1) | ag.causal & ag.sliding_window(1, 0)).materialize(4).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 0],
           [1, 0, 1, 1]])
    """
    count = check_integer("count", count)
    return _named(
        _first_keys(count, f"j is one of the first {count} keys") & causal,
        f"sinks({count})",
    )


def _first_keys(count: int, clause: str) -> Mask:
    return Mask(
        lambda b, h, q_idx, kv_idx: (kv_idx < count) & (q_idx >= 0),
        name=f"first_keys({count})",
        clause=clause,
        negation=clause.replace("is", "is not", 1),
        relative=True,
        special_keys=tuple(range(count)),
    )


def document(ids: Any) -> Mask:
    """Return the mask of packed sequences: a query sees the keys of its own document.

    Parameters
    ----------
    ids : array_like of int, (n,) or (batch, n)
        The document each position belongs to; with two dimensions, one row per batch item.

    Returns
    -------
    Mask

    Raises
    ------
    TypeError
        If the ids are not integers.
    ValueError
        If the ids do not have one or two dimensions.

    Examples
    --------
    >>> import attn_guide as ag
    >>> (ag.document([0, 0, 1, 1]) & ag.causal).materialize(4).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 1, 0],
           [0, 0, 1, 1]])
    """
    array = np.array(ids)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"ids has dtype {array.dtype}; wanted integers, one per position")
    if array.ndim not in (1, 2):
        raise ValueError(f"ids has shape {array.shape}; wanted (n,) or (batch, n)")
    table = _Table(array.astype(np.int64))

    if array.ndim == 1:

        def same_document(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return table[q_idx] == table[kv_idx]
    else:

        def same_document(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return table[b, q_idx] == table[b, kv_idx]

    n = array.shape[-1]
    return Mask(
        same_document,
        name=f"document({_short(array)})",
        clause="i and j are in the same document",
        negation="i and j are in different documents",
        shape=(n, n),
    )


def _short(array: np.ndarray) -> str:
    return repr(array.tolist()) if array.size <= 16 else f"<{' x '.join(map(str, array.shape))} ids>"


def from_array(allowed: Any) -> Mask:
    """Return the mask that a boolean array (n, m) spells out, True where the query may attend.

    Parameters
    ----------
    allowed : array_like of bool, (n, m)
        The pattern; it is copied.

    Returns
    -------
    Mask

    Raises
    ------
    TypeError
        If ``allowed`` is not boolean.
    ValueError
        If it does not have two dimensions.

    Examples
    --------
    >>> import attn_guide as ag
    >>> mask = ag.from_array([[True, False], [False, True]])
    >>> (mask | ag.causal).materialize(2).astype(int)
    array([[1, 0],
           [1, 1]])
    """
    array = np.array(allowed)
    if array.dtype != np.bool_:
        raise TypeError(f"allowed has dtype {array.dtype}; wanted booleans, True where the query may attend")
    if array.ndim != 2:
        raise ValueError(f"allowed has shape {array.shape}; wanted (n, m)")
    table = _Table(array)
    n, m = array.shape
    return Mask(
        lambda b, h, q_idx, kv_idx: table[q_idx, kv_idx],
        name=f"from_array(<{n} x {m}>)",
        clause="the array allows (i, j)",
        negation="the array does not allow (i, j)",
        shape=(n, m),
    )


def on_head(index: int) -> Mask:
    """Return the mask that allows everything in head ``index`` and nothing in the others.

    Parameters
    ----------
    index : int
        The head, from 0.

    Returns
    -------
    Mask

    Raises
    ------
    ValueError
        If ``index`` is negative.

    Examples
    --------
    >>> import attn_guide as ag
    >>> (ag.on_head(1) & ag.causal).materialize(2, h=2).astype(int)
    array([[[0, 0],
            [0, 0]],
    <BLANKLINE>
           [[1, 0],
            [1, 1]]])
    """
    index = check_integer("index", index)
    return Mask(
        lambda b, h, q_idx, kv_idx: (h == index) & (q_idx >= 0) & (kv_idx >= 0),
        name=f"on_head({index})",
        clause=f"the head is {index}",
        negation=f"the head is not {index}",
        relative=True,
    )


def per_head(masks: Sequence[Mask]) -> Mask:
    """Return the mask that follows ``masks[h]`` in head h.

    Parameters
    ----------
    masks : sequence of Mask
        One mask per head, at least one. A head beyond the last sees nothing.

    Returns
    -------
    Mask

    Notes
    -----
    Longformer widens its window from layer to layer and dilates it in a few heads only; this composition,
    ``on_head(0) & masks[0] | on_head(1) & masks[1] | ...``, gives each head its own pattern in one call.

    Examples
    --------
    >>> import attn_guide as ag
    >>> mask = ag.per_head([ag.sliding_window(1, 0), ag.dilated_window(1, 0, 2)])
    >>> mask.materialize(4, h=2).sum(axis=(1, 2))
    array([7, 6])
    """
    listed = list(masks)
    if not listed:
        raise ValueError("masks is empty; wanted one mask per head")
    for index, mask in enumerate(listed):
        _check_mask(f"masks[{index}]", mask)
    combined = on_head(0) & listed[0]
    for index, mask in enumerate(listed[1:], start=1):
        combined = combined | on_head(index) & mask
    return _named(combined, f"per_head([{', '.join(map(repr, listed))}])")


def longformer(window: int, global_indices: int | Iterable[int] = (), *, dilation: int = 1) -> Mask:
    """Return the Longformer pattern: a symmetric window and a few symmetric global tokens.

    Parameters
    ----------
    window : int
        The paper's w, an even number: w / 2 keys on each side, so an interior query sees w + 1 keys.
    global_indices : int or iterable of int
        Positions that see and are seen by all.
    dilation : int, default 1
        Distance between neighbouring keys of the window.

    Returns
    -------
    Mask

    Raises
    ------
    ValueError
        If ``window`` is odd or negative, or an index is negative.

    References
    ----------
    Beltagy et al. (2020), Longformer: The Long-Document Transformer, section 3.1 and figure 2d.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.longformer(2, [0]).materialize(5).astype(int)
    array([[1, 1, 1, 1, 1],
           [1, 1, 1, 0, 0],
           [1, 1, 1, 1, 0],
           [1, 0, 1, 1, 1],
           [1, 0, 0, 1, 1]])
    """
    window = check_integer("window", window)
    if window % 2:
        raise ValueError(f"window is {window}; wanted an even number, half of it on each side")
    local = (
        dilated_window(window // 2, window // 2, dilation)
        if dilation != 1
        else sliding_window(window // 2, window // 2)
    )
    tokens = global_tokens(global_indices)
    suffix = f", dilation={dilation}" if dilation != 1 else ""
    return _named(local | tokens, f"longformer({window}, {tokens.name[len('global_tokens(') : -1]}{suffix})")


def bigbird_random_blocks(
    blocks: int, random_blocks: int, *, window_blocks: int = 3, global_blocks: int = 2, rng: np.random.Generator
) -> np.ndarray:
    """Draw the random blocks of BigBird: for each block, distinct ones that it does not see anyway.

    Parameters
    ----------
    blocks : int
        Number of blocks in the sequence.
    random_blocks : int
        Blocks drawn for each block.
    window_blocks, global_blocks : int
        As in ``bigbird``; blocks of the window and global blocks are not drawn.
    rng : numpy.random.Generator
        The source of randomness.

    Returns
    -------
    numpy.ndarray
        Integers (blocks, random_blocks), each row sorted. Rows of global blocks, which see everything, hold their own
        index throughout.

    Raises
    ------
    ValueError
        If a block has fewer than ``random_blocks`` candidates.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> table = ag.bigbird_random_blocks(8, 2, rng=np.random.default_rng(0))
    >>> table.shape
    (8, 2)
    """
    blocks = check_integer("blocks", blocks)
    random_blocks = check_integer("random_blocks", random_blocks)
    window_blocks = _check_odd("window_blocks", window_blocks)
    check_rng("rng", rng)
    anchors = np.array(_global_block_indices(blocks, global_blocks), np.int64)
    free = np.setdiff1d(np.arange(blocks), anchors)
    half = window_blocks // 2
    table = np.repeat(np.arange(blocks)[:, None], random_blocks, axis=1)
    for row in free:
        before, after = np.searchsorted(free, (row - half, row + half + 1))  # free[before:after] is the window
        candidates = free.size - (after - before)
        if candidates < random_blocks:
            raise ValueError(
                f"random_blocks is {random_blocks}; block {row} of {blocks} has only {candidates} blocks outside"
                " its window and the global blocks"
            )
        if random_blocks:
            drawn = rng.choice(candidates, size=random_blocks, replace=False)
            table[row] = np.sort(free[np.where(drawn < before, drawn, drawn + after - before)])
    return table


def bigbird(
    n: int,
    block: int,
    *,
    window_blocks: int = 3,
    global_blocks: int = 2,
    random_blocks: int | np.ndarray = 3,
    rng: np.random.Generator | None = None,
) -> Mask:
    """Return the BigBird pattern in blocks: a window, global blocks and random blocks.

    Parameters
    ----------
    n : int
        Length of the sequence, a multiple of ``block``.
    block : int
        Length of a block.
    window_blocks : int, default 3
        Blocks in the window, an odd number: the query's own and as many on each side.
    global_blocks : int, default 2
        Blocks that see and are seen by all, taken from both ends: the first half (rounded up) at the start of the
        sequence and the rest at its end, so that 2 means the first and the last block.
    random_blocks : int or array_like of int (n / block, r), default 3
        Blocks drawn for each block of queries, or the drawn table itself (see ``bigbird_random_blocks``).
    rng : numpy.random.Generator, optional
        The source of randomness; needed unless ``random_blocks`` is 0 or a table.

    Returns
    -------
    Mask

    Raises
    ------
    ValueError
        If ``block`` does not divide ``n``, ``window_blocks`` is even, or there are too few blocks to draw from.
    TypeError
        If ``rng`` is needed and is not a NumPy Generator.

    References
    ----------
    Zaheer et al. (2020), Big Bird: Transformers for Longer Sequences, section 2 (existing tokens made global:
    the internal transformer construction, ITC) and appendix D (blocks).

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> mask = ag.bigbird(8, 1, random_blocks=1, rng=np.random.default_rng(0))
    >>> mask.materialize(8)[1:-1].sum(axis=1)          # window, two global blocks, one random block
    array([5, 6, 6, 6, 6, 5])
    """
    n, block = check_integer("n", n), check_integer("block", block, least=1)
    if n % block:
        raise ValueError(f"n is {n}; wanted a multiple of block, {block}")
    window_blocks = _check_odd("window_blocks", window_blocks)
    blocks = n // block
    if isinstance(random_blocks, (int, np.integer)):
        r = check_integer("random_blocks", random_blocks)
        if r:
            source = check_rng("rng", rng)
            table = bigbird_random_blocks(
                blocks, r, window_blocks=window_blocks, global_blocks=global_blocks, rng=source
            )
        else:
            table = np.empty((blocks, 0), dtype=np.int64)
    else:
        table = _check_block_table(random_blocks, blocks)
    half = window_blocks // 2
    pattern = sliding_window(half, half) | global_tokens(_global_block_indices(blocks, global_blocks))
    if table.shape[1]:
        pattern = pattern | _drawn_keys(table, blocks, False, f"random_keys({table.shape[1]}, {blocks}, {blocks})")
    counts = f"window_blocks={window_blocks}, global_blocks={global_blocks}, random_blocks={table.shape[1]}"
    name = f"bigbird({n}, {block}, {counts})"
    return replace(blockwise(pattern, block), name=name, shape=(n, n))


def _check_block_table(table: Any, blocks: int) -> np.ndarray:
    array = np.array(table)
    if array.dtype.kind not in "iu":
        raise TypeError(f"random_blocks has dtype {array.dtype}; wanted a number or a table of integers")
    if array.ndim != 2 or array.shape[0] != blocks:
        raise ValueError(f"random_blocks has shape {array.shape}; wanted ({blocks}, r), one row per block of queries")
    if array.size and (array.min() < 0 or array.max() >= blocks):
        raise ValueError(f"random_blocks holds {array.min()} ... {array.max()}; wanted blocks 0 ... {blocks - 1}")
    return array.astype(np.int64)


def _check_odd(name: str, x: int) -> int:
    x = check_integer(name, x, least=1)
    if x % 2 == 0:
        raise ValueError(f"{name} is {x}; wanted an odd number, the block itself and as many on each side")
    return x


def _global_block_indices(blocks: int, global_blocks: int) -> list[int]:
    g = check_integer("global_blocks", global_blocks)
    if g > blocks:
        raise ValueError(f"global_blocks is {g}; wanted at most the number of blocks, {blocks}")
    return list(range((g + 1) // 2)) + list(range(blocks - g // 2, blocks))


def _check_mask(name: str, mask: Any) -> Mask:
    if not isinstance(mask, Mask):
        raise TypeError(f"{name} is {mask!r} of type {type(mask).__name__}; wanted a Mask")
    return mask


# What a pattern reaches over several layers. One layer lets query i read the keys it sees; L layers let it read what
# they read: the graph's walks of length L. A row of the reached set is packed into bits, so that one step for all
# pairs is a bitwise OR of the rows that each query sees.


def _neighbours(mask: Mask, n: int) -> list[np.ndarray]:
    """Return, for each query, the keys it sees."""
    _check_mask("mask", mask)
    n, _ = mask._lengths(n, n)
    keys = np.arange(n)
    out: list[np.ndarray] = []
    for rows in _row_groups(np.arange(n), n):
        seen = np.broadcast_to(mask._evaluate(0, 0, rows[:, None], keys), (len(rows), n))
        out.extend(np.flatnonzero(row) for row in seen)
    return out


def _packed_identity(n: int) -> np.ndarray:
    words = -(-n // 64)
    bits = np.zeros((n, words), dtype=np.uint64)
    position = np.arange(n)
    bits[position, position // 64] = np.uint64(1) << (position % 64).astype(np.uint64)
    return bits


def _step(neighbours: list[np.ndarray], bits: np.ndarray) -> np.ndarray:
    """Return the sets reached with one more layer: row i is the union of the rows that i sees."""
    out = np.zeros_like(bits)
    for i, seen in enumerate(neighbours):
        if len(seen):
            np.bitwise_or.reduce(bits[seen], axis=0, out=out[i])
    return out


def _reached(mask: Mask, n: int, layers: int, residual: bool) -> np.ndarray:
    layers = check_integer("layers", layers)
    neighbours = _neighbours(mask, n)
    bits = _packed_identity(n)
    for _ in range(layers):
        grown = _step(neighbours, bits)
        if residual:
            grown |= bits
        if np.array_equal(grown, bits):
            break
        bits = grown
    return bits


def reachability(mask: Mask, n: int, layers: int, *, residual: bool = True) -> np.ndarray:
    """Return which input positions can influence which output after ``layers`` layers of one mask.

    Parameters
    ----------
    mask : Mask
        The pattern of every layer, read at batch item 0 and head 0.
    n : int
        Length of the sequence.
    layers : int
        Number of layers; 0 gives the identity.
    residual : bool, default True
        Whether each layer also passes its input on, as a Transformer's residual connection does.

    Returns
    -------
    numpy.ndarray
        Booleans (n, n); entry (i, j) is True when output i depends on input j. It is the boolean power
        (A or I)^layers of the mask A, or A^layers without the residual connection.

    Raises
    ------
    ValueError
        If ``n`` or ``layers`` is negative, or ``n`` is beyond what the mask is defined for.

    Notes
    -----
    Sets are packed in bits: O(layers * n * pairs / 64) time, two arrays of n^2 / 8 bytes.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.reachability(ag.sliding_window(1, 0), 5, layers=2).astype(int)
    array([[1, 0, 0, 0, 0],
           [1, 1, 0, 0, 0],
           [1, 1, 1, 0, 0],
           [0, 1, 1, 1, 0],
           [0, 0, 1, 1, 1]])
    """
    bits = _reached(mask, n, layers, residual)
    little = bits.astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(little, axis=1, count=n, bitorder="little").astype(bool)


def receptive_field(mask: Mask, n: int, layers: int, *, residual: bool = True) -> np.ndarray:
    """Return how many input positions each output depends on after ``layers`` layers of one mask.

    Parameters
    ----------
    mask : Mask
        The pattern of every layer, read at batch item 0 and head 0.
    n : int
        Length of the sequence.
    layers : int
        Number of layers.
    residual : bool, default True
        Whether each layer also passes its input on.

    Returns
    -------
    numpy.ndarray
        Integers (n,).

    Notes
    -----
    A window of w keys reaches layers * (w - 1) + 1 positions, not layers * w: neighbouring windows share a key.

    Examples
    --------
    >>> import attn_guide as ag
    >>> [int(ag.receptive_field(ag.sliding_window(1, 1), 25, layers=L)[12]) for L in (1, 2, 4)]
    [3, 5, 9]
    """
    return _popcount(_reached(mask, n, layers, residual)).sum(axis=1)


def _popcount(bits: np.ndarray) -> np.ndarray:
    return _ONES[bits.view(np.uint8)].reshape(*bits.shape, 8).sum(axis=-1)


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.int64)


def connected_components(mask: Mask, n: int) -> np.ndarray:
    """Return a component number for each position: positions in different components never influence one another.

    Edges are taken without direction (weakly connected components). Components are numbered by their first position.

    Parameters
    ----------
    mask : Mask
        The pattern, read at batch item 0 and head 0.
    n : int
        Length of the sequence.

    Returns
    -------
    numpy.ndarray
        Integers (n,), from 0.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.connected_components(ag.block_local(2), 6)
    array([0, 0, 1, 1, 2, 2])
    """
    neighbours = _neighbours(mask, n)
    parent = np.arange(n)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for i, seen in enumerate(neighbours):
        for j in seen:
            low, high = sorted((root(i), root(int(j))))
            parent[high] = low
    roots = np.array([root(i) for i in range(n)], dtype=np.int64)
    return np.unique(roots, return_inverse=True)[1].reshape(n)


class PathLengths(NamedTuple):
    """Shortest paths of a mask's graph: what ``path_lengths`` returns.

    Parameters
    ----------
    mean : float
        Mean over the ordered pairs i != j that have a path; nan when there are none.
    longest : int
        The longest of them; 0 when there are none.
    unreachable : float
        Share of the ordered pairs i != j that have no path.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.path_lengths(ag.causal, 3)
    PathLengths(mean=1.0, longest=1, unreachable=0.5)
    """

    mean: float
    longest: int
    unreachable: float


def path_lengths(mask: Mask, n: int) -> PathLengths:
    """Return the mean and the longest shortest path over ordered pairs, and the share of pairs with none.

    The path length from j to i is the number of layers that information needs to get from input j to output i.

    Parameters
    ----------
    mask : Mask
        The pattern, read at batch item 0 and head 0.
    n : int
        Length of the sequence.

    Returns
    -------
    PathLengths
        ``mean`` and ``longest`` over the ordered pairs i != j that have a path, and the share ``unreachable`` that
        has none.

    Raises
    ------
    ValueError
        If ``n`` is negative or beyond what the mask is defined for.

    Notes
    -----
    O(longest * n * pairs / 64) time, two arrays of n^2 / 8 bytes.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.path_lengths(ag.sliding_window(1, 1), 4)
    PathLengths(mean=1.6666666666666667, longest=3, unreachable=0.0)
    >>> ag.path_lengths(ag.strided(2), 4).unreachable
    0.6666666666666666
    """
    neighbours = _neighbours(mask, n)
    bits = _packed_identity(n)
    reached, total, longest = n, 0, 0
    while True:
        bits = _step(neighbours, bits) | bits
        now = int(_popcount(bits).sum())
        if now == reached:
            break
        longest += 1
        total += longest * (now - reached)
        reached = now
    pairs, connected = n * (n - 1), reached - n
    return PathLengths(
        mean=total / connected if connected else float("nan"),
        longest=longest,
        unreachable=(pairs - connected) / pairs if pairs else 0.0,
    )
