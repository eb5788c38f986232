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
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ._checks import (
    as_float_array,
    check_integer,
    check_ndim,
    check_rng,
    compute_dtype,
    same_float_dtype,
)
from .core import MaskMod, ScoreMod, scaled_dot_product_attention

__all__ = [
    "MultiHeadParams",
    "init_multi_head",
    "merge_heads",
    "multi_head_attention",
    "split_heads",
]

#: ``rope(x, positions) -> x``: turns queries or keys (..., heads, length, d_k) by the positions (length,).
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
        """Width of a query and of a key in one head."""
        return self.w_q.shape[1] // self.num_heads

    @property
    def d_v(self) -> int:
        """Width of a value in one head."""
        return self.w_o.shape[0] // self.num_heads

    def count(self) -> int:
        """Return the number of parameters, weights and biases together."""
        arrays = (getattr(self, field.name) for field in fields(self))
        return sum(a.size for a in arrays if isinstance(a, np.ndarray))

    def astype(self, dtype: Any) -> MultiHeadParams:
        """Return the same parameters in another floating dtype."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: x.astype(dtype) for name, x in values.items() if isinstance(x, np.ndarray)}
        return MultiHeadParams(**values)

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
    attn_mask, dropout_p, is_causal, scale, mask_mod, score_mod, softcap, rng
        As in ``scaled_dot_product_attention``, for scores of shape (..., h, n, m).
    rope : callable, optional
        ``rope(x, positions) -> x`` rotates queries and keys (..., heads, length, d_k) after their projection, at
        positions 0, 1, ... of their own sequence.
    head_mask : array_like, (h,) or (..., h), optional
        A number per head that its output is multiplied with before the heads are joined; 0 removes the head.
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
    Multi-Head Checkpoints; Michel et al. (2019), Are Sixteen Heads Really Better than One?, section 2.2 (head mask).

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
    q, k, v = _project_heads(query, key, value, params)
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
    out = _affine(merge_heads(heads), params.w_o, params.b_o)
    return (out, weights) if return_weights else out


def _project_heads(
    query: Any, key: Any, value: Any, params: MultiHeadParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return q (..., h, n, d_k), k (..., h_kv, m, d_k) and v (..., h_kv, m, d_v)."""
    if not isinstance(params, MultiHeadParams):
        raise TypeError(f"params is of type {type(params).__name__}; wanted a MultiHeadParams")
    inputs = {name: as_float_array(name, x) for name, x in (("query", query), ("key", key), ("value", value))}
    same_float_dtype(**inputs, params=params.w_q)
    for (name, x), w in zip(inputs.items(), (params.w_q, params.w_k, params.w_v), strict=True):
        check_ndim(name, x, 2, "(..., length, width)")
        if x.shape[-1] != w.shape[0]:
            raise ValueError(
                f"{name} has width {x.shape[-1]} (shape {x.shape}); wanted {w.shape[0]}, the rows of w_{name[0]}"
            )
    if inputs["key"].shape[-2] != inputs["value"].shape[-2]:
        raise ValueError(
            f"value has length {inputs['value'].shape[-2]}; wanted the length of key, {inputs['key'].shape[-2]}"
        )
    assert params.num_kv_heads is not None  # set by MultiHeadParams
    return (
        split_heads(_affine(inputs["query"], params.w_q, params.b_q), params.num_heads),
        split_heads(_affine(inputs["key"], params.w_k, params.b_k), params.num_kv_heads),
        split_heads(_affine(inputs["value"], params.w_v, params.b_v), params.num_kv_heads),
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
