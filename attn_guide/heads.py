"""Multi-head attention: several small attentions side by side, their outputs joined and mixed.

Every head has its own projections, so each can look for something else::

    q = split(query @ w_q)     (..., h,    n, d_k)
    k = split(key   @ w_k)     (..., h_kv, m, d_k)
    v = split(value @ w_v)     (..., h_kv, m, d_v)
    output = merge(attention(q, k, v)) @ w_o      (..., n, d_out)

With h_kv = h this is multi-head attention (MHA), with h_kv = 1 multi-query attention (MQA), and in between
grouped-query attention (GQA). Multi-head latent attention (MLA) stores one narrow vector per token instead of keys
and values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ._checks import (
    as_float_array,
    check_integer,
    check_ndim,
    check_positive,
    check_rng,
    compute_dtype,
    same_float_dtype,
)
from .core import (
    MaskMod,
    ScoreMod,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)

__all__ = [
    "LatentParams",
    "MultiHeadParams",
    "init_multi_head",
    "init_multi_head_latent",
    "merge_heads",
    "multi_head_attention",
    "multi_head_attention_backward",
    "multi_head_latent_attention",
    "split_heads",
]

#: ``rope(x, positions) -> x``: turns queries or keys (..., heads, length, d_k) by the positions (length,), as
#: ``apply_rope`` does. Turning by ``-positions`` must undo it.
Rope = Callable[[np.ndarray, np.ndarray], np.ndarray]


def split_heads(x: Any, num_heads: int) -> np.ndarray:
    """Cut the width of ``x`` into heads.

    Parameters
    ----------
    x : array_like, (..., n, h * d)
        One vector per position.
    num_heads : int
        Number of heads h.

    Returns
    -------
    numpy.ndarray
        A view (..., h, n, d): head i holds columns i * d to (i + 1) * d of ``x``.

    Raises
    ------
    ValueError
        If ``num_heads`` does not divide the width, or ``x`` has fewer than two dimensions.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> x = np.arange(8.0).reshape(2, 4)               # 2 positions, width 4
    >>> ag.split_heads(x, 2)
    array([[[0., 1.],
            [4., 5.]],
    <BLANKLINE>
           [[2., 3.],
            [6., 7.]]])
    """
    a = as_float_array("x", x)
    check_ndim("x", a, 2, "(..., n, h * d)")
    h = check_integer("num_heads", num_heads, least=1)
    if a.shape[-1] % h:
        raise ValueError(f"num_heads is {h}; wanted a divisor of the width of x, {a.shape[-1]}")
    return a.reshape(*a.shape[:-1], h, a.shape[-1] // h).swapaxes(-2, -3)


def merge_heads(x: Any) -> np.ndarray:
    """Put the heads of ``x`` side by side again: the inverse of ``split_heads``.

    Parameters
    ----------
    x : array_like, (..., h, n, d)
        One array per head.

    Returns
    -------
    numpy.ndarray
        Array (..., n, h * d).

    Raises
    ------
    ValueError
        If ``x`` has fewer than three dimensions.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> x = np.arange(12.0).reshape(2, 6)
    >>> np.array_equal(ag.merge_heads(ag.split_heads(x, 3)), x)
    True
    """
    a = as_float_array("x", x)
    check_ndim("x", a, 3, "(..., h, n, d)")
    a = a.swapaxes(-2, -3)
    return a.reshape(*a.shape[:-2], a.shape[-2] * a.shape[-1])


@dataclass(frozen=True, eq=False)
class MultiHeadParams:
    """The weights of a multi-head attention layer, as arrays that multiply from the right: ``x @ w + b``.

    Parameters
    ----------
    w_q : array_like, (d_model, h * d_k)
    w_k : array_like, (d_key, h_kv * d_k)
    w_v : array_like, (d_value, h_kv * d_v)
    w_o : array_like, (h * d_v, d_out)
        Projections of the query, the key, the value and the joined heads. Columns i * d_k to (i + 1) * d_k of
        ``w_q`` belong to head i.
    num_heads : int
        Number of query heads h.
    num_kv_heads : int, optional
        Number of key/value heads h_kv, a divisor of h; h unless given.
    b_q, b_k, b_v, b_o : array_like, optional
        Biases, one number per column of the weight.

    Raises
    ------
    ValueError
        If the shapes do not fit one another; the message names the array.
    TypeError
        If an array is not of real numbers, or the dtypes differ.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> params = ag.init_multi_head(8, 4, num_kv_heads=2, rng=np.random.default_rng(0))
    >>> params.w_q.shape, params.w_k.shape, params.d_k, params.count()
    ((8, 8), (8, 4), 2, 216)
    """

    w_q: np.ndarray
    w_k: np.ndarray
    w_v: np.ndarray
    w_o: np.ndarray
    num_heads: int
    num_kv_heads: int | None = None
    b_q: np.ndarray | None = None
    b_k: np.ndarray | None = None
    b_v: np.ndarray | None = None
    b_o: np.ndarray | None = None

    def __post_init__(self) -> None:
        h = check_integer("num_heads", self.num_heads, least=1)
        h_kv = h if self.num_kv_heads is None else check_integer("num_kv_heads", self.num_kv_heads, least=1)
        if h % h_kv:
            raise ValueError(f"num_kv_heads is {h_kv}; wanted a divisor of num_heads, {h}")
        arrays = {
            name: as_float_array(name, getattr(self, name))
            for name in ("w_q", "w_k", "w_v", "w_o", "b_q", "b_k", "b_v", "b_o")
            if getattr(self, name) is not None
        }
        same_float_dtype(**arrays)
        for name, heads in (("w_q", h), ("w_k", h_kv), ("w_v", h_kv)):
            w = arrays[name]
            if w.ndim != 2 or w.shape[1] % heads or not w.shape[1]:
                raise ValueError(f"{name} has shape {w.shape}; wanted (width in, {heads} heads * width of a head)")
        d_k, d_v = arrays["w_q"].shape[1] // h, arrays["w_v"].shape[1] // h_kv
        if arrays["w_k"].shape[1] != h_kv * d_k:
            raise ValueError(
                f"w_k has shape {arrays['w_k'].shape}; wanted {h_kv} * {d_k} columns, the width of w_q's heads"
            )
        if arrays["w_o"].ndim != 2 or arrays["w_o"].shape[0] != h * d_v:
            raise ValueError(
                f"w_o has shape {arrays['w_o'].shape}; wanted ({h} * {d_v}, d_out), one row per joined component"
            )
        for letter in "qkvo":
            bias, width = arrays.get(f"b_{letter}"), arrays[f"w_{letter}"].shape[1]
            if bias is not None and bias.shape != (width,):
                raise ValueError(f"b_{letter} has shape {bias.shape}; wanted ({width},), the columns of w_{letter}")
        for name, array in arrays.items():
            object.__setattr__(self, name, array)
        object.__setattr__(self, "num_heads", h)
        object.__setattr__(self, "num_kv_heads", h_kv)

    @property
    def d_k(self) -> int:
        """Width of a query and of a key in one head.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> ag.init_multi_head(12, 4, rng=np.random.default_rng(0)).d_k
        3
        """
        return self.w_q.shape[1] // self.num_heads

    @property
    def d_v(self) -> int:
        """Width of a value in one head.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> ag.init_multi_head(12, 4, d_v=5, rng=np.random.default_rng(0)).d_v
        5
        """
        return self.w_o.shape[0] // self.num_heads

    def project(self, query: Any, key: Any, value: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the queries, keys and values of all heads.

        Parameters
        ----------
        query : array_like, (..., n, d_model)
        key : array_like, (..., m, d_key)
        value : array_like, (..., m, d_value)

        Returns
        -------
        tuple of numpy.ndarray
            q (..., h, n, d_k), k (..., h_kv, m, d_k) and v (..., h_kv, m, d_v).

        Raises
        ------
        ValueError
            If a width is not that of the weights, or key and value differ in length.
        TypeError
            If the dtypes differ.

        Examples
        --------
        Decoding one token at a time with a cache:

        >>> import attn_guide as ag
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> params, x = ag.init_multi_head(8, 4, num_kv_heads=2, rng=rng), rng.normal(size=(3, 8))
        >>> cache = ag.KVCache()
        >>> steps = [params.join(cache.attend(*params.project(row, row, row))) for row in x[:, None]]
        >>> np.allclose(np.concatenate(steps), ag.multi_head_attention(x, x, x, params, is_causal=True))
        True
        """
        inputs = {name: as_float_array(name, x) for name, x in (("query", query), ("key", key), ("value", value))}
        same_float_dtype(**inputs, params=self.w_q)
        for (name, x), w in zip(inputs.items(), (self.w_q, self.w_k, self.w_v), strict=True):
            _check_width(name, x, f"w_{name[0]}", w)
        if inputs["key"].shape[-2] != inputs["value"].shape[-2]:
            raise ValueError(
                f"value has length {inputs['value'].shape[-2]}; wanted the length of key, {inputs['key'].shape[-2]}"
            )
        h_kv = self.num_heads if self.num_kv_heads is None else self.num_kv_heads
        return (
            split_heads(_affine(inputs["query"], self.w_q, self.b_q), self.num_heads),
            split_heads(_affine(inputs["key"], self.w_k, self.b_k), h_kv),
            split_heads(_affine(inputs["value"], self.w_v, self.b_v), h_kv),
        )

    def join(self, heads: Any) -> np.ndarray:
        """Put the heads' outputs side by side and mix them: ``merge_heads(heads) @ w_o + b_o``.

        Parameters
        ----------
        heads : array_like, (..., h, n, d_v)
            What each head's attention returned.

        Returns
        -------
        numpy.ndarray
            Array (..., n, d_out).

        Raises
        ------
        ValueError
            If the heads do not have the shape that ``w_o`` takes.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> params = ag.init_multi_head(8, 2, rng=np.random.default_rng(0))
        >>> params.join(np.zeros((2, 5, 4))).shape
        (5, 8)
        """
        joined = merge_heads(heads)  # (..., n, h * d_v)
        if np.shape(heads)[-3] != self.num_heads or joined.shape[-1] != self.w_o.shape[0]:
            raise ValueError(f"heads has shape {np.shape(heads)}; wanted (..., {self.num_heads}, n, {self.d_v})")
        return _affine(joined, self.w_o, self.b_o)

    def count(self) -> int:
        """Return the number of parameters, weights and biases together.

        Returns
        -------
        int

        Examples
        --------
        With h heads of width d_model / h it is 4 d_model (d_model + 1), whatever h is:

        >>> import attn_guide as ag
        >>> import numpy as np
        >>> [ag.init_multi_head(8, h, rng=np.random.default_rng(0)).count() for h in (1, 2, 8)]
        [288, 288, 288]
        """
        return _count(self)

    def astype(self, dtype: Any) -> MultiHeadParams:
        """Return the same parameters in another floating dtype.

        Parameters
        ----------
        dtype : dtype
            A floating type.

        Returns
        -------
        MultiHeadParams

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> params = ag.init_multi_head(8, 2, rng=np.random.default_rng(0))
        >>> params.astype(np.float32).w_o.dtype
        dtype('float32')
        """
        return _astype(self, dtype)

    @classmethod
    def from_torch_state_dict(cls, state: Mapping[str, Any], num_heads: int, *, prefix: str = "") -> MultiHeadParams:
        """Read the state dict of a ``torch.nn.MultiheadAttention``, as tensors or plain arrays.

        Parameters
        ----------
        state : mapping of str to array_like
            ``in_proj_weight`` or ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight`` (for kdim or vdim), and
            ``out_proj.weight``, with or without their biases. PyTorch stores weights as (out, in); they are
            transposed.
        num_heads : int
            Number of heads, which a state dict does not hold.
        prefix : str, optional
            What the names begin with, such as ``"self_attn."``.

        Returns
        -------
        MultiHeadParams

        Raises
        ------
        KeyError
            If an array is missing.
        ValueError
            If the layer has ``bias_k`` or ``bias_v`` (``add_bias_kv=True``), which are keys and values of their own
            and no part of multi-head attention's definition.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> state = {"in_proj_weight": np.ones((6, 2)), "out_proj.weight": np.eye(2)}
        >>> ag.MultiHeadParams.from_torch_state_dict(state, num_heads=2).w_k
        array([[1., 1.],
               [1., 1.]])
        """
        arrays = {name[len(prefix) :]: np.asarray(a) for name, a in state.items() if name.startswith(prefix)}
        for name in ("bias_k", "bias_v"):
            if arrays.get(name) is not None:
                raise ValueError(f"state holds {prefix}{name} (add_bias_kv=True); wanted a layer without extra keys")

        def need(name: str) -> np.ndarray:
            if name not in arrays:
                raise KeyError(f"state has no {prefix}{name}; it has {', '.join(state) or 'nothing'}")
            return arrays[name]

        if "in_proj_weight" in arrays:
            w_q, w_k, w_v = np.split(arrays["in_proj_weight"], 3)
        else:
            w_q, w_k, w_v = (need(f"{letter}_proj_weight") for letter in "qkv")
        packed = arrays.get("in_proj_bias")
        b_q, b_k, b_v = (None, None, None) if packed is None else np.split(packed, 3)
        return cls(
            w_q=w_q.T,
            w_k=w_k.T,
            w_v=w_v.T,
            w_o=need("out_proj.weight").T,
            num_heads=num_heads,
            b_q=b_q,
            b_k=b_k,
            b_v=b_v,
            b_o=arrays.get("out_proj.bias"),
        )

    def to_torch_state_dict(self, *, prefix: str = "") -> dict[str, np.ndarray]:
        """Return the arrays under the names and in the layout of ``torch.nn.MultiheadAttention``.

        Parameters
        ----------
        prefix : str, optional
            What the names begin with, such as ``"self_attn."``.

        Returns
        -------
        dict of str to numpy.ndarray
            ``in_proj_weight`` when query, key and value have one width, else the three separate weights.

        Raises
        ------
        ValueError
            If the parameters do not fit that layer: grouped heads, h * d_k or h * d_v or d_out other than d_model,
            or biases on some projections only.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> params = ag.init_multi_head(4, 2, rng=np.random.default_rng(0))
        >>> {name: a.shape for name, a in params.to_torch_state_dict().items()}
        {'in_proj_weight': (12, 4), 'in_proj_bias': (12,), 'out_proj.weight': (4, 4), 'out_proj.bias': (4,)}
        """
        d_model = self.w_q.shape[0]
        widths = {self.w_q.shape[1], self.w_k.shape[1], self.w_v.shape[1], *self.w_o.shape}
        if widths != {d_model} or self.num_kv_heads != self.num_heads:
            raise ValueError(
                f"these parameters (h {self.num_heads}, h_kv {self.num_kv_heads}, d_k {self.d_k}, d_v {self.d_v}, "
                f"d_out {self.w_o.shape[1]}) do not fit torch.nn.MultiheadAttention; wanted h_kv = h and "
                f"h * d_k = h * d_v = d_out = d_model, {d_model}"
            )
        biases = [self.b_q, self.b_k, self.b_v, self.b_o]
        if 0 < sum(b is None for b in biases) < 4:
            raise ValueError("some of b_q, b_k, b_v, b_o are None; torch.nn.MultiheadAttention has all or none")
        out: dict[str, np.ndarray] = {}
        weights = [self.w_q.T, self.w_k.T, self.w_v.T]  # (d_model, width in) each
        if self.w_k.shape == self.w_v.shape == self.w_q.shape:
            out["in_proj_weight"] = np.concatenate(weights)
        else:
            out |= {f"{letter}_proj_weight": w.copy() for letter, w in zip("qkv", weights, strict=True)}
        if self.b_q is not None:
            out["in_proj_bias"] = np.concatenate([b for b in biases[:3] if b is not None])
        out["out_proj.weight"] = self.w_o.T.copy()
        if self.b_o is not None:
            out["out_proj.bias"] = self.b_o.copy()
        return {prefix + name: a for name, a in out.items()}


def init_multi_head(
    d_model: int,
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    d_k: int | None = None,
    d_v: int | None = None,
    d_key: int | None = None,
    d_value: int | None = None,
    bias: bool = True,
    rng: np.random.Generator,
    dtype: Any = np.float64,
) -> MultiHeadParams:
    """Draw the starting weights of a multi-head attention layer as ``torch.nn.MultiheadAttention`` does.

    Parameters
    ----------
    d_model : int
        Width of the query's sequence and of the output.
    num_heads, num_kv_heads : int
        Numbers of query heads and of key/value heads; ``num_kv_heads`` is ``num_heads`` unless given.
    d_k, d_v : int, optional
        Widths of a head's keys and values; d_model / num_heads and d_k unless given.
    d_key, d_value : int, optional
        Widths of the sequences that keys and values come from; ``d_model`` unless given.
    bias : bool, default True
        Whether the projections have biases; they start at 0.
    rng : numpy.random.Generator
        The source of randomness.
    dtype : dtype, default float64
        Floating type of the arrays.

    Returns
    -------
    MultiHeadParams

    Raises
    ------
    ValueError
        If ``d_k`` is not given and ``num_heads`` does not divide ``d_model``, or ``num_kv_heads`` does not divide
        ``num_heads``.

    Notes
    -----
    Xavier's uniform bound is sqrt(6 / (fan in + fan out)). PyTorch stacks the three projections in one matrix when
    they have one shape, so there the fan out is 3 d_model; ``w_o`` is drawn within 1 / sqrt(fan in).

    References
    ----------
    Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward neural networks, equation 16.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> params = ag.init_multi_head(6, 2, d_v=5, rng=np.random.default_rng(0))
    >>> params.w_v.shape, params.w_o.shape
    ((6, 10), (10, 6))
    """
    d_model = check_integer("d_model", d_model, least=1)
    h = check_integer("num_heads", num_heads, least=1)
    h_kv = h if num_kv_heads is None else check_integer("num_kv_heads", num_kv_heads, least=1)
    if d_k is None and d_model % h:
        raise ValueError(f"num_heads is {h}; wanted a divisor of d_model, {d_model} (or give d_k)")
    d_k = d_model // h if d_k is None else check_integer("d_k", d_k, least=1)
    d_v = d_k if d_v is None else check_integer("d_v", d_v, least=1)
    d_key = d_model if d_key is None else check_integer("d_key", d_key, least=1)
    d_value = d_model if d_value is None else check_integer("d_value", d_value, least=1)
    check_rng("rng", rng)
    shapes = [(d_model, h * d_k), (d_key, h_kv * d_k), (d_value, h_kv * d_v)]
    stacked = 3 if len(set(shapes)) == 1 else 1

    def xavier(shape: tuple[int, int]) -> np.ndarray:
        bound = np.sqrt(6.0 / (shape[0] + stacked * shape[1]))
        return rng.uniform(-bound, bound, size=shape).astype(dtype)

    def zeros(width: int) -> np.ndarray | None:
        return np.zeros(width, dtype) if bias else None

    w_q, w_k, w_v = (xavier(shape) for shape in shapes)
    bound = 1.0 / np.sqrt(h * d_v)
    return MultiHeadParams(
        w_q=w_q,
        w_k=w_k,
        w_v=w_v,
        w_o=rng.uniform(-bound, bound, size=(h * d_v, d_model)).astype(dtype),
        num_heads=h,
        num_kv_heads=h_kv,
        b_q=zeros(h * d_k),
        b_k=zeros(h_kv * d_k),
        b_v=zeros(h_kv * d_v),
        b_o=zeros(d_model),
    )


def multi_head_attention(
    query: Any,
    key: Any,
    value: Any,
    params: MultiHeadParams,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    softcap: float | None = None,
    rope: Rope | None = None,
    head_mask: Any = None,
    rng: np.random.Generator | None = None,
    return_weights: bool = False,
) -> Any:
    """Attend with several heads at once, each with its own projections, and mix their outputs.

    Parameters
    ----------
    query : array_like, (..., n, d_model)
    key : array_like, (..., m, d_key)
    value : array_like, (..., m, d_value)
        The sequences that are projected; the same array three times is self-attention.
    params : MultiHeadParams
        The weights, and the numbers of heads.
    attn_mask : array_like, optional
        Booleans (True = may attend) or floats to add, that broadcast to the scores (..., h, n, m).
    dropout_p : float, default 0
        Probability that a weight is set to 0; needs ``rng``.
    is_causal : bool, default False
        Hide key j from query i where j > i.
    scale : float, optional
        Factor of the scores; 1 / sqrt(d_k) unless given.
    mask_mod : callable, optional
        A mask as a predicate ``(b, h, q_idx, kv_idx) -> bool``, such as a ``Mask``.
    score_mod : callable, optional
        ``(score, b, h, q_idx, kv_idx) -> score``.
    softcap : float, optional
        Bound of the scores: ``softcap * tanh(score / softcap)``.
    rope : callable, optional
        ``rope(x, positions) -> x`` rotates queries and keys (..., heads, length, d_k) after their projection, at
        positions 0, 1, ... of their own sequence; ``apply_rope`` is one.
    head_mask : array_like, (h,) or (..., h), optional
        A number per head that its output is multiplied with before the heads are joined; 0 removes the head.
    rng : numpy.random.Generator, optional
        The source of randomness for dropout.
    return_weights : bool, default False
        Also return the weights of every head.

    Returns
    -------
    output : numpy.ndarray, (..., n, d_out)
    weights : numpy.ndarray, (..., h, n, m)
        Only with ``return_weights``. Their mean over the heads is what PyTorch returns by default.

    Raises
    ------
    ValueError
        If widths, lengths or masks do not fit; the message names the argument.
    TypeError
        If dtypes differ or an argument has the wrong type.

    Notes
    -----
    Joining heads and multiplying with ``w_o`` is the same as multiplying each head's output with its own d_v rows of
    ``w_o`` and adding the results: heads do not mix before that sum.

    The projections cost O(n d_model^2) and attention O(n m d_model), whatever the number of heads.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.2; Shazeer (2019), Fast Transformer Decoding: One
    Write-Head is All You Need; Ainslie et al. (2023), GQA: Training Generalized Multi-Query Transformer Models from
    Multi-Head Checkpoints; Michel et al. (2019), Are Sixteen Heads Really Better than One?, section 2.3 (head mask).

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> params = ag.init_multi_head(8, num_heads=4, num_kv_heads=2, rng=rng)
    >>> x = rng.normal(size=(3, 8))                       # 3 positions, width 8
    >>> out, weights = ag.multi_head_attention(x, x, x, params, is_causal=True, return_weights=True)
    >>> out.shape, weights.shape
    ((3, 8), (4, 3, 3))
    >>> bool(np.allclose(weights.sum(axis=-1), 1.0))
    True
    """
    q, k, v = _check_params(params, MultiHeadParams).project(query, key, value)
    if rope is not None:
        q, k = (rope(x, np.arange(x.shape[-2])) for x in (q, k))
    heads = scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask,
        dropout_p,
        is_causal,
        scale,
        True,
        mask_mod=mask_mod,
        score_mod=score_mod,
        softcap=softcap,
        rng=rng,
        return_weights=return_weights,
    )  # (..., h, n, d_v)
    heads, weights = heads if return_weights else (heads, None)
    if head_mask is not None:
        heads = heads * _head_factors(head_mask, heads)
    out = params.join(heads)
    return (out, weights) if return_weights else out


def multi_head_attention_backward(
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    params: MultiHeadParams,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    mask_mod: MaskMod | None = None,
    softcap: float | None = None,
    rope: Rope | None = None,
    head_mask: Any = None,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, MultiHeadParams]:
    """Return the gradients of a loss with respect to the inputs and the weights of ``multi_head_attention``.

    Parameters
    ----------
    grad_out : array_like, (..., n, d_out)
        Gradient of the loss with respect to the output.
    query, key, value : array_like
        The inputs of the forward call, with the same leading dimensions in all three.
    params : MultiHeadParams
        Its weights.
    attn_mask : array_like, optional
    dropout_p : float, default 0
    is_causal : bool, default False
    scale : float, optional
    mask_mod : callable, optional
    softcap : float, optional
    rope : callable, optional
    head_mask : array_like, optional
        As they were in the forward call.
    rng : numpy.random.Generator, optional
        In the state it had before the forward call; it is copied, not advanced.

    Returns
    -------
    grad_query, grad_key, grad_value : numpy.ndarray
        In the shapes of the inputs. In self-attention, where one array is all three, its gradient is their sum.
    grad_params : MultiHeadParams
        A gradient in the place of each weight.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Notes
    -----
    The forward pass is computed again, so the cost is about three times that of ``multi_head_attention``.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> params = ag.init_multi_head(8, num_heads=2, rng=rng)
    >>> x = rng.normal(size=(3, 8))
    >>> *_, grads = ag.multi_head_attention_backward(np.ones((3, 8)), x, x, x, params)
    >>> grads.b_o                                    # every position adds 1 to each output bias
    array([3., 3., 3., 3., 3., 3., 3., 3.])
    """
    q, k, v = _check_params(params, MultiHeadParams).project(query, key, value)
    if rope is not None:
        q, k = (rope(x, np.arange(x.shape[-2])) for x in (q, k))
    options: dict[str, Any] = {
        "attn_mask": attn_mask,
        "dropout_p": dropout_p,
        "is_causal": is_causal,
        "scale": scale,
        "enable_gqa": True,
        "mask_mod": mask_mod,
        "softcap": softcap,
    }
    # Both passes must drop the same weights: each draws from its own copy of the generator.
    heads = scaled_dot_product_attention(q, k, v, rng=deepcopy(rng), **options)  # (..., h, n, d_v)
    factors = None if head_mask is None else _head_factors(head_mask, heads)
    joined = merge_heads(heads if factors is None else heads * factors)  # (..., n, h * d_v)
    g = as_float_array("grad_out", grad_out)
    wanted = (*joined.shape[:-1], params.w_o.shape[1])
    if g.shape != wanted:
        raise ValueError(f"grad_out has shape {g.shape}; wanted the shape of the output, {wanted}")

    g_joined, g_w_o, g_b_o = _affine_backward(g, joined, params.w_o)
    g_heads = split_heads(g_joined, params.num_heads)
    if factors is not None:
        g_heads = g_heads * factors
    g_q, g_k, g_v = scaled_dot_product_attention_backward(g_heads, q, k, v, rng=deepcopy(rng), **options)
    if rope is not None:
        g_q, g_k = (rope(x, -np.arange(x.shape[-2])) for x in (g_q, g_k))
    inputs = (as_float_array("query", query), as_float_array("key", key), as_float_array("value", value))
    weights = (params.w_q, params.w_k, params.w_v)
    (g_query, g_w_q, g_b_q), (g_key, g_w_k, g_b_k), (g_value, g_w_v, g_b_v) = (
        _affine_backward(merge_heads(g_x), x, w) for g_x, x, w in zip((g_q, g_k, g_v), inputs, weights, strict=True)
    )
    grads = MultiHeadParams(
        w_q=g_w_q,
        w_k=g_w_k,
        w_v=g_w_v,
        w_o=g_w_o,
        num_heads=params.num_heads,
        num_kv_heads=params.num_kv_heads,
        b_q=None if params.b_q is None else g_b_q,
        b_k=None if params.b_k is None else g_b_k,
        b_v=None if params.b_v is None else g_b_v,
        b_o=None if params.b_o is None else g_b_o,
    )
    return g_query, g_key, g_value, grads


def _check_params(params: Any, wanted: type) -> Any:
    if not isinstance(params, wanted):
        raise TypeError(f"params is of type {type(params).__name__}; wanted a {wanted.__name__}")
    return params


def _count(params: Any) -> int:
    return sum(x.size for field in fields(params) if isinstance(x := getattr(params, field.name), np.ndarray))


def _astype(params: Any, dtype: Any) -> Any:
    values = {field.name: getattr(params, field.name) for field in fields(params)}
    return replace(params, **{name: x.astype(dtype) for name, x in values.items() if isinstance(x, np.ndarray)})


def _check_width(name: str, x: np.ndarray, weight_name: str, w: np.ndarray) -> None:
    check_ndim(name, x, 2, "(..., length, width)")
    if x.shape[-1] != w.shape[0]:
        raise ValueError(
            f"{name} has width {x.shape[-1]} (shape {x.shape}); wanted {w.shape[0]}, the rows of {weight_name}"
        )


def _affine(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """Return ``x @ w + b``; half precision is accumulated in float32."""
    wide = compute_dtype(x)
    out = x.astype(wide, copy=False) @ w.astype(wide, copy=False)
    if b is not None:
        out += b
    return out.astype(x.dtype, copy=False)


def _head_factors(head_mask: Any, heads: np.ndarray) -> np.ndarray:
    """Return the head mask as (..., h, 1, 1) in the dtype of ``heads`` (..., h, n, d_v)."""
    factors = np.asarray(head_mask)
    if factors.dtype.kind not in "fiub":
        raise TypeError(f"head_mask has dtype {factors.dtype}; wanted a number per head")
    try:
        np.broadcast_to(factors, heads.shape[:-2])
    except ValueError:
        raise ValueError(
            f"head_mask has shape {factors.shape}; wanted one that broadcasts to {heads.shape[:-2]}"
        ) from None
    return factors.astype(heads.dtype)[..., None, None]


def _affine_backward(g: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of ``x @ w + b`` with respect to x, w and b."""
    wide = compute_dtype(x)
    rows, columns = (a.reshape(-1, a.shape[-1]).astype(wide, copy=False) for a in (x, g))
    g_x = (g.astype(wide, copy=False) @ w.astype(wide, copy=False).T).astype(x.dtype, copy=False)
    return g_x, (rows.T @ columns).astype(w.dtype, copy=False), columns.sum(axis=0).astype(w.dtype, copy=False)


# ------------------------------------------------------------------------------------------------ latent attention


@dataclass(frozen=True, eq=False)
class LatentParams:
    """The weights of multi-head latent attention, as arrays that multiply from the right.

    Parameters
    ----------
    w_dkv : array_like, (d_model, d_c)
        Compresses a token into its latent vector, the only thing about its content that is stored.
    w_uk : array_like, (d_c, h * d_nope)
    w_uv : array_like, (d_c, h * d_v)
        Expand the latent vector into the keys and values of all heads.
    w_kr : array_like, (d_model, d_rope)
        The part of the key that is rotated, one for all heads.
    w_uq : array_like, (d_cq, h * d_nope)
    w_qr : array_like, (d_cq, h * d_rope)
        The two parts of the query; d_cq is d_model without ``w_dq``.
    w_o : array_like, (h * d_v, d_out)
        Mixes the joined heads.
    num_heads : int
        Number of heads h.
    w_dq : array_like, (d_model, d_cq), optional
        Compresses the query as well.
    norm_q, norm_kv : array_like, (d_cq,) and (d_c,), optional
        Gains of an RMS normalisation of the compressed vectors.
    eps : float, default 1e-6
        Added to the mean square inside the normalisation.

    Raises
    ------
    ValueError
        If the shapes do not fit one another; the message names the array.
    TypeError
        If an array is not of real numbers, or the dtypes differ.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> params = ag.init_multi_head_latent(16, 4, d_c=6, d_nope=4, d_rope=2, rng=np.random.default_rng(0))
    >>> params.w_uk.shape, params.d_rope, params.count()
    ((6, 16), 2, 960)
    """

    w_dkv: np.ndarray
    w_uk: np.ndarray
    w_uv: np.ndarray
    w_kr: np.ndarray
    w_uq: np.ndarray
    w_qr: np.ndarray
    w_o: np.ndarray
    num_heads: int
    w_dq: np.ndarray | None = None
    norm_q: np.ndarray | None = None
    norm_kv: np.ndarray | None = None
    eps: float = 1e-6

    def __post_init__(self) -> None:
        h = check_integer("num_heads", self.num_heads, least=1)
        check_positive("eps", self.eps)
        arrays = {
            field.name: as_float_array(field.name, getattr(self, field.name))
            for field in fields(self)
            if field.name not in ("num_heads", "eps") and getattr(self, field.name) is not None
        }
        same_float_dtype(**arrays)
        for name, a in arrays.items():
            least = 1 if name.startswith("norm") else 2
            if a.ndim != least or 0 in a.shape:
                raise ValueError(f"{name} has shape {a.shape}; wanted {least} dimension{'s' * (least > 1)}, none empty")
        for name in ("w_uk", "w_uv", "w_uq", "w_qr"):
            if arrays[name].shape[1] % h:
                raise ValueError(f"{name} has shape {arrays[name].shape}; wanted a multiple of {h} heads as columns")
        d_model, d_c = arrays["w_dkv"].shape
        d_cq = arrays["w_dq"].shape[1] if "w_dq" in arrays else d_model
        d_nope, d_v, d_rope = arrays["w_uk"].shape[1] // h, arrays["w_uv"].shape[1] // h, arrays["w_kr"].shape[1]
        wanted: dict[str, tuple[int, ...]] = {
            "w_uk": (d_c, h * d_nope),
            "w_uv": (d_c, h * d_v),
            "w_kr": (d_model, d_rope),
            "w_uq": (d_cq, h * d_nope),
            "w_qr": (d_cq, h * d_rope),
            "w_o": (h * d_v, arrays["w_o"].shape[1]),
            "w_dq": (d_model, d_cq),
            "norm_q": (d_cq,),
            "norm_kv": (d_c,),
        }
        for name, shape in wanted.items():
            if name in arrays and arrays[name].shape != shape:
                raise ValueError(f"{name} has shape {arrays[name].shape}; wanted {shape}")
        for name, a in arrays.items():
            object.__setattr__(self, name, a)
        object.__setattr__(self, "num_heads", h)

    @property
    def d_nope(self) -> int:
        """Width of the part of a head's query and key that is not rotated.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> params = ag.init_multi_head_latent(8, 2, d_c=4, d_nope=3, d_rope=2, rng=rng)
        >>> params.d_nope
        3
        """
        return self.w_uk.shape[1] // self.num_heads

    @property
    def d_rope(self) -> int:
        """Width of the part of a head's query and key that is rotated.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> params = ag.init_multi_head_latent(8, 2, d_c=4, d_nope=3, d_rope=2, rng=rng)
        >>> params.d_rope
        2
        """
        return self.w_kr.shape[1]

    def compress(self, x: Any, rope: Rope | None = None, *, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return what a cache stores for each token: the latent vector and the rotated key.

        Parameters
        ----------
        x : array_like, (..., m, d_model)
        rope : callable, optional
            ``rope(x, positions) -> x``.
        start : int, default 0
            Position of the first token.

        Returns
        -------
        latent : numpy.ndarray, (..., m, d_c)
        rotated : numpy.ndarray, (..., m, d_rope)

        Raises
        ------
        ValueError
            If the width of ``x`` is not d_model.
        TypeError
            If its dtype is not that of the weights.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> params = ag.init_multi_head_latent(8, 2, d_c=4, d_nope=3, d_rope=2, rng=rng)
        >>> latent, rotated = params.compress(rng.normal(size=(5, 8)), ag.apply_rope)
        >>> latent.shape, rotated.shape
        ((5, 4), (5, 2))
        """
        a = as_float_array("x", x)
        _check_width("x", a, "w_dkv", self.w_dkv)
        same_float_dtype(x=a, params=self.w_dkv)
        latent = _rms_norm(_affine(a, self.w_dkv, None), self.norm_kv, self.eps)
        rotated = _rotate(_affine(a, self.w_kr, None)[..., None, :, :], rope, start)[..., 0, :, :]
        return latent, rotated

    def queries(self, x: Any, rope: Rope | None = None, *, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the two parts of every head's query.

        Parameters
        ----------
        x : array_like, (..., n, d_model)
        rope : callable, optional
            ``rope(x, positions) -> x``.
        start : int, default 0
            Position of the first token.

        Returns
        -------
        content : numpy.ndarray, (..., h, n, d_nope)
        rotated : numpy.ndarray, (..., h, n, d_rope)

        Raises
        ------
        ValueError
            If the width of ``x`` is not d_model.
        TypeError
            If its dtype is not that of the weights.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> params = ag.init_multi_head_latent(8, 2, d_c=4, d_nope=3, d_rope=2, rng=rng)
        >>> content, rotated = params.queries(rng.normal(size=(5, 8)), ag.apply_rope)
        >>> content.shape, rotated.shape
        ((2, 5, 3), (2, 5, 2))
        """
        a = as_float_array("x", x)
        _check_width("x", a, "w_dq" if self.w_dq is not None else "w_uq", self.w_dkv)
        same_float_dtype(x=a, params=self.w_dkv)
        c = a if self.w_dq is None else _rms_norm(_affine(a, self.w_dq, None), self.norm_q, self.eps)
        content = split_heads(_affine(c, self.w_uq, None), self.num_heads)
        return content, _rotate(split_heads(_affine(c, self.w_qr, None), self.num_heads), rope, start)

    def count(self) -> int:
        """Return the number of parameters.

        Returns
        -------
        int

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> params = ag.init_multi_head_latent(8, 2, d_c=4, d_nope=3, d_rope=2, rng=rng)
        >>> params.count() == 8 * (4 + 2) + 4 * (6 + 6) + 8 * (6 + 4) + 6 * 8
        True
        """
        return _count(self)

    def astype(self, dtype: Any) -> LatentParams:
        """Return the same parameters in another floating dtype.

        Parameters
        ----------
        dtype : dtype
            A floating type.

        Returns
        -------
        LatentParams

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> params = ag.init_multi_head_latent(8, 2, d_c=4, d_nope=2, d_rope=2, rng=np.random.default_rng(0))
        >>> params.astype(np.float32).w_o.dtype
        dtype('float32')
        """
        return _astype(self, dtype)


def _rotate(x: np.ndarray, rope: Rope | None, start: int) -> np.ndarray:
    return x if rope is None else rope(x, np.arange(start, start + x.shape[-2]))


def _rms_norm(x: np.ndarray, gain: np.ndarray | None, eps: float) -> np.ndarray:
    if gain is None:
        return x
    wide = x.astype(compute_dtype(x), copy=False)
    mean_square = (wide * wide).mean(axis=-1, keepdims=True)
    return (wide / np.sqrt(mean_square + eps) * gain).astype(x.dtype, copy=False)


def init_multi_head_latent(
    d_model: int,
    num_heads: int,
    *,
    d_c: int,
    d_nope: int,
    d_rope: int,
    d_v: int | None = None,
    d_cq: int | None = None,
    norm: bool = False,
    rng: np.random.Generator,
    dtype: Any = np.float64,
) -> LatentParams:
    """Draw the starting weights of multi-head latent attention with Xavier's uniform bound.

    Parameters
    ----------
    d_model : int
        Width of the sequence and of the output.
    num_heads : int
        Number of heads h.
    d_c : int
        Width of the latent vector that is stored per token.
    d_nope, d_rope : int
        Widths of the two parts of a head's query and key, not rotated and rotated.
    d_v : int, optional
        Width of a head's value; ``d_nope`` unless given.
    d_cq : int, optional
        Width to which the query is compressed; it is not unless given.
    norm : bool, default False
        Whether the compressed vectors are normalised, with gains that start at 1.
    rng : numpy.random.Generator
        The source of randomness.
    dtype : dtype, default float64
        Floating type of the arrays.

    Returns
    -------
    LatentParams

    Raises
    ------
    ValueError
        If a width is below 1.
    TypeError
        If ``rng`` is not a NumPy Generator.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> params = ag.init_multi_head_latent(8, 2, d_c=4, d_nope=4, d_rope=2, d_cq=6, rng=np.random.default_rng(0))
    >>> params.w_dq.shape, params.w_qr.shape
    ((8, 6), (6, 4))
    """
    widths = {"d_model": d_model, "num_heads": num_heads, "d_c": d_c, "d_nope": d_nope, "d_rope": d_rope}
    d_model, h, d_c, d_nope, d_rope = (check_integer(name, x, least=1) for name, x in widths.items())
    d_v = d_nope if d_v is None else check_integer("d_v", d_v, least=1)
    width = d_model if d_cq is None else check_integer("d_cq", d_cq, least=1)
    check_rng("rng", rng)

    def xavier(rows: int, columns: int) -> np.ndarray:
        bound = np.sqrt(6.0 / (rows + columns))
        return rng.uniform(-bound, bound, size=(rows, columns)).astype(dtype)

    return LatentParams(
        w_dkv=xavier(d_model, d_c),
        w_uk=xavier(d_c, h * d_nope),
        w_uv=xavier(d_c, h * d_v),
        w_kr=xavier(d_model, d_rope),
        w_uq=xavier(width, h * d_nope),
        w_qr=xavier(width, h * d_rope),
        w_o=xavier(h * d_v, d_model),
        num_heads=h,
        w_dq=None if d_cq is None else xavier(d_model, width),
        norm_q=np.ones(width, dtype) if norm and d_cq is not None else None,
        norm_kv=np.ones(d_c, dtype) if norm else None,
    )


def multi_head_latent_attention(
    x: Any,
    params: LatentParams,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    mask_mod: MaskMod | None = None,
    rope: Rope | None = None,
    absorbed: bool = False,
    return_weights: bool = False,
) -> Any:
    """Attend with keys and values that are expanded from one stored latent vector per token.

    Parameters
    ----------
    x : array_like, (..., n, d_model)
        The sequence.
    params : LatentParams
        The weights.
    attn_mask : array_like, optional
        Booleans (True = may attend) or floats to add, that broadcast to the scores (..., h, n, n).
    is_causal : bool, default False
        Hide key j from query i where j > i.
    scale : float, optional
        Factor of the scores; 1 / sqrt(d_nope + d_rope) unless given.
    mask_mod : callable, optional
        A mask as a predicate ``(b, h, q_idx, kv_idx) -> bool``, such as a ``Mask``.
    rope : callable, optional
        ``rope(x, positions) -> x`` for the rotated parts. DeepSeek pairs neighbouring components:
        ``lambda x, at: apply_rope(x, at, interleaved=True)``.
    absorbed : bool, default False
        Compute in the latent space instead: ``w_uk`` moves into the query and ``w_uv`` behind the weights, and the
        keys and values of the heads are never made. The result is the same.
    return_weights : bool, default False
        Also return the weights of every head.

    Returns
    -------
    output : numpy.ndarray, (..., n, d_out)
    weights : numpy.ndarray, (..., h, n, n)
        Only with ``return_weights``.

    Raises
    ------
    ValueError
        If widths or masks do not fit; the message names the argument.
    TypeError
        If dtypes differ or an argument has the wrong type.

    Notes
    -----
    The content part of a score is (c_q w_uq) . (c w_uk) = (c_q w_uq w_uk^T) . c, so a query taken through ``w_uk``
    once can be compared with the stored latent vectors: attention with a single key/value head of width d_c + d_rope,
    as in MQA. A rotation between ``w_uq`` and ``w_uk`` would depend on the distance and could not be moved, which is
    why the rotated part is separate.

    A cache holds d_c + d_rope numbers per token and layer instead of h (d_k + d_v). One score costs d_nope + d_rope
    multiplications expanded and d_c + d_rope absorbed: expanding suits training, absorbing suits decoding, where
    reading the cache is what takes the time.

    References
    ----------
    DeepSeek-AI (2024), DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model, section
    2.1 and equations 9 to 19.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> params = ag.init_multi_head_latent(16, 4, d_c=6, d_nope=4, d_rope=2, rng=rng)
    >>> x = rng.normal(size=(5, 16))
    >>> expanded = ag.multi_head_latent_attention(x, params, is_causal=True, rope=ag.apply_rope)
    >>> absorbed = ag.multi_head_latent_attention(x, params, is_causal=True, rope=ag.apply_rope, absorbed=True)
    >>> np.allclose(expanded, absorbed)
    True

    Decoding keeps 6 + 2 numbers per token, in a cache with one key/value head:

    >>> cache = ag.KVCache()
    >>> for t in range(5):
    ...     latent, rotated = params.compress(x[t : t + 1], ag.apply_rope, start=t)
    ...     cache.append(np.concatenate([latent, rotated], axis=-1)[None], latent[None])
    >>> cache.key.shape
    (1, 5, 8)
    """
    _check_params(params, LatentParams)
    h, dtype = params.num_heads, params.w_dkv.dtype
    content, q_rotated = params.queries(x, rope)  # (..., h, n, d_nope), (..., h, n, d_rope)
    latent, k_rotated = params.compress(x, rope)  # (..., n, d_c), (..., n, d_rope)
    scale = 1.0 / np.sqrt(params.d_nope + params.d_rope) if scale is None else scale
    if absorbed:
        w_uk = split_heads(params.w_uk, h)  # (h, d_c, d_nope)
        q = np.concatenate([_affine(content, w_uk.swapaxes(-1, -2), None), q_rotated], axis=-1)
        k = np.concatenate([latent, k_rotated], axis=-1)[..., None, :, :]  # (..., 1, n, d_c + d_rope)
        v = latent[..., None, :, :]
    else:
        k_content = split_heads(_affine(latent, params.w_uk, None), h)
        shared = np.broadcast_to(k_rotated[..., None, :, :], (*k_content.shape[:-1], params.d_rope))
        q = np.concatenate([content, q_rotated], axis=-1)
        k = np.concatenate([k_content, shared], axis=-1)  # (..., h, n, d_nope + d_rope)
        v = split_heads(_affine(latent, params.w_uv, None), h)
    heads = scaled_dot_product_attention(
        q, k, v, attn_mask, 0.0, is_causal, scale, True, mask_mod=mask_mod, return_weights=return_weights
    )
    heads, weights = heads if return_weights else (heads, None)
    if absorbed:
        heads = _affine(heads, split_heads(params.w_uv, h), None)  # (..., h, n, d_c) -> (..., h, n, d_v)
    out = _affine(merge_heads(heads), params.w_o, None).astype(dtype, copy=False)
    return (out, weights) if return_weights else out
