"""What stands around attention in a Transformer: norms, feed-forward layers, encoder and decoder blocks.

A block adds two or three updates to each token and normalises::

    post-norm (2017)     x = norm(x + sublayer(x))
    pre-norm             x = x + sublayer(norm(x))

Weights multiply from the right, ``x @ w + b``. The blocks compute what a trained model computes when it is used:
there is no dropout in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import erf, pi, sqrt
from typing import Any

import numpy as np

from ._checks import as_float_array, check_choice, check_integer, check_ndim, check_positive, compute_dtype
from .core import MaskMod
from .heads import MultiHeadParams, multi_head_attention

__all__ = [
    "DecoderLayerParams",
    "EncoderLayerParams",
    "NormParams",
    "TransformerParams",
    "decoder_layer",
    "encoder_layer",
    "feed_forward",
    "gelu",
    "layer_norm",
    "recurrent_jacobian",
    "recurrent_layer",
    "recurrent_layer_backward",
    "rms_norm",
    "swiglu",
    "transformer",
    "transformer_decoder",
    "transformer_encoder",
]


# -------------------------------------------------------------------------------------------------- norms


def layer_norm(x: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5) -> np.ndarray:
    """Shift and scale each token to mean 0 and variance 1, then by trained numbers.

    Parameters
    ----------
    x : array_like, shape (..., d)
        Tokens.
    weight, bias : array_like, shape (d,), optional
        Multiplied with and added to the result; 1 and 0 unless given.
    eps : float
        Added to the variance, so that a constant token gives 0.

    Returns
    -------
    numpy.ndarray, shape (..., d)
        In the dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If ``weight`` or ``bias`` has not the width of ``x``, or ``eps`` is not a finite number above 0.

    Notes
    -----
    :math:`(x - \\mu) / \\sqrt{\\sigma^2 + \\epsilon} \\cdot w + b` with the mean and the (biased) variance of the d
    components of each token. Time and memory O(size of x).

    References
    ----------
    Ba, Kiros and Hinton (2016), Layer Normalization, section 3.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.layer_norm([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]).round(3)
    array([[-1.225,  0.   ,  1.225],
           [-1.225,  0.   ,  1.225]])
    """
    a, dtype = _tokens(x)
    centred = a - a.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    out = centred / np.sqrt(variance + check_positive("eps", eps))
    return _affine(out, weight, bias).astype(dtype, copy=False)


def rms_norm(x: Any, weight: Any = None, *, eps: float = 1e-6) -> np.ndarray:
    """Scale each token to a root mean square of 1, then by trained numbers.

    Parameters
    ----------
    x : array_like, shape (..., d)
        Tokens.
    weight : array_like, shape (d,), optional
        Multiplied with the result; 1 unless given.
    eps : float
        Added to the mean square, so that a token of zeros stays 0.

    Returns
    -------
    numpy.ndarray, shape (..., d)
        In the dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If ``weight`` has not the width of ``x``, or ``eps`` is not a finite number above 0.

    Notes
    -----
    :math:`x / \\sqrt{\\overline{x^2} + \\epsilon} \\cdot w`: layer norm without the shift. Time and memory
    O(size of x).

    References
    ----------
    Zhang and Sennrich (2019), Root Mean Square Layer Normalization, section 3.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.rms_norm([3.0, 4.0]).round(3)
    array([0.849, 1.131])
    """
    a, dtype = _tokens(x)
    mean_square = np.square(a).mean(axis=-1, keepdims=True)
    out = a / np.sqrt(mean_square + check_positive("eps", eps))
    return _affine(out, weight, None).astype(dtype, copy=False)


def _tokens(x: Any) -> tuple[np.ndarray, np.dtype]:
    """Return x (..., d) in the type to compute in, and the caller's dtype."""
    a = as_float_array("x", x)
    check_ndim("x", a, 1, "(..., d)")
    if a.shape[-1] == 0:
        raise ValueError(f"x has shape {a.shape}; wanted a width of at least 1")
    return a.astype(compute_dtype(a), copy=False), a.dtype


def _affine(x: np.ndarray, weight: Any, bias: Any) -> np.ndarray:
    """Return x * weight + bias, either of which may be missing."""
    if weight is not None:
        x = x * _vector("weight", weight, x)
    if bias is not None:
        x = x + _vector("bias", bias, x)
    return x


def _vector(name: str, vector: Any, x: np.ndarray) -> np.ndarray:
    """Return a vector as wide as ``x`` and in its dtype, or raise."""
    a = as_float_array(name, vector)
    if a.shape != x.shape[-1:]:
        raise ValueError(f"{name} has shape {a.shape}; wanted {x.shape[-1:]}, the width it meets")
    return a.astype(x.dtype, copy=False)


# ------------------------------------------------------------------------------------------- feed-forward


def gelu(x: Any, *, approximate: str = "none") -> np.ndarray:
    """Multiply each number by the probability that a standard normal variable is below it.

    Parameters
    ----------
    x : array_like, any shape
        Activations.
    approximate : {"none", "tanh"}
        "tanh" gives the formula that GPT-2 was trained with; it differs by less than 0.0005.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of ``x``.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers.
    ValueError
        If ``approximate`` is neither "none" nor "tanh".

    Notes
    -----
    :math:`x\\,\\Phi(x) = x (1 + \\mathrm{erf}(x / \\sqrt 2)) / 2`. NumPy has no erf, so the exact form calls the
    standard library once for each number.

    References
    ----------
    Hendrycks and Gimpel (2016), Gaussian Error Linear Units, section 2.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.gelu([-1.0, 0.0, 1.0]).round(4)
    array([-0.1587,  0.    ,  0.8413])
    >>> ag.gelu([-1.0, 0.0, 1.0], approximate="tanh").round(4)
    array([-0.1588,  0.    ,  0.8412])
    """
    a = as_float_array("x", x)
    dtype, a = a.dtype, a.astype(compute_dtype(a), copy=False)
    if check_choice("approximate", approximate, ("none", "tanh")) == "tanh":
        gate = np.tanh(sqrt(2.0 / pi) * (a + 0.044715 * a**3))
    else:
        gate = np.fromiter(map(erf, (a / sqrt(2.0)).ravel().tolist()), a.dtype, a.size).reshape(a.shape)
    return (0.5 * a * (1.0 + gate)).astype(dtype, copy=False)


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _silu(x: np.ndarray) -> np.ndarray:
    """Return x * sigmoid(x); the sigmoid is written with tanh, which cannot overflow."""
    return x * (0.5 + 0.5 * np.tanh(0.5 * x))


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": _relu,
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
    "silu": _silu,
}


def feed_forward(
    x: Any, w_1: Any, w_2: Any, b_1: Any = None, b_2: Any = None, *, activation: str = "relu"
) -> np.ndarray:
    """Send every token on its own through a wide hidden layer and back.

    Parameters
    ----------
    x : array_like, shape (..., d_model)
        Tokens.
    w_1 : array_like, shape (d_model, d_ff)
        Into the hidden layer.
    w_2 : array_like, shape (d_ff, d_out)
        Out of it.
    b_1, b_2 : array_like, shapes (d_ff,) and (d_out,), optional
        Biases.
    activation : {"relu", "gelu", "gelu_tanh", "silu"}
        Applied to the hidden layer.

    Returns
    -------
    numpy.ndarray, shape (..., d_out)
        In the dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If a shape does not fit or ``activation`` is unknown.

    Notes
    -----
    :math:`\\max(0, x W_1 + b_1) W_2 + b_2`. No token sees another here: only attention moves information between
    positions. Time O(n d_model d_ff).

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, equation 2.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> ag.feed_forward([[1.0, -1.0]], np.eye(2), [[1.0], [1.0]], b_2=[0.5])
    array([[1.5]])
    """
    act = _ACTIVATIONS[check_choice("activation", activation, tuple(_ACTIVATIONS))]
    a, dtype = _tokens(x)
    hidden = act(_linear(a, "w_1", w_1, "b_1", b_1))  # (..., d_ff)
    return _linear(hidden, "w_2", w_2, "b_2", b_2).astype(dtype, copy=False)


def swiglu(x: Any, w_gate: Any, w_up: Any, w_down: Any) -> np.ndarray:
    """Send every token through a hidden layer whose entries are gated, as Llama does.

    Parameters
    ----------
    x : array_like, shape (..., d_model)
        Tokens.
    w_gate, w_up : array_like, shape (d_model, d_ff)
        Into the gates and into the hidden layer.
    w_down : array_like, shape (d_ff, d_out)
        Out of it.

    Returns
    -------
    numpy.ndarray, shape (..., d_out)
        In the dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If a shape does not fit.

    Notes
    -----
    :math:`(\\mathrm{silu}(x W_{gate}) \\odot x W_{up}) W_{down}` with silu(z) = z sigmoid(z). Time
    O(n d_model d_ff), with three matrices where ``feed_forward`` has two.

    References
    ----------
    Shazeer (2020), GLU Variants Improve Transformer, equation 6.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> ag.swiglu([[1.0, 2.0]], np.eye(2), np.eye(2), np.ones((2, 1))).round(4)
    array([[4.2542]])
    """
    a, dtype = _tokens(x)
    hidden = _silu(_linear(a, "w_gate", w_gate)) * _linear(a, "w_up", w_up)  # (..., d_ff)
    return _linear(hidden, "w_down", w_down).astype(dtype, copy=False)


def _linear(x: np.ndarray, name: str, weight: Any, bias_name: str = "", bias: Any = None) -> np.ndarray:
    """Return x (..., d_in) @ weight (d_in, d_out) + bias (d_out,) in the dtype of x, or raise naming the array."""
    w = as_float_array(name, weight)
    if w.ndim != 2 or w.shape[0] != x.shape[-1]:
        raise ValueError(f"{name} has shape {w.shape}; wanted ({x.shape[-1]}, width) for an input of shape {x.shape}")
    out = x @ w.astype(x.dtype, copy=False)
    return out if bias is None else out + _vector(bias_name, bias, out)


# ------------------------------------------------------------------------------------ parameters of blocks


@dataclass(frozen=True, eq=False)
class NormParams:
    """The trained numbers of one ``layer_norm``.

    Parameters
    ----------
    weight, bias : array_like, shape (d_model,), optional
        As in ``layer_norm``.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> norm = ag.NormParams(weight=np.array([2.0, 2.0]))
    >>> norm(np.array([1.0, 3.0]), eps=1e-5).round(3)
    array([-2.,  2.])
    """

    weight: np.ndarray | None = None
    bias: np.ndarray | None = None

    def __call__(self, x: np.ndarray, eps: float) -> np.ndarray:
        """Normalise ``x``."""
        return layer_norm(x, self.weight, self.bias, eps=eps)


@dataclass(frozen=True, eq=False)
class EncoderLayerParams:
    """The weights of an encoder block.

    Parameters
    ----------
    self_attention : MultiHeadParams
        The attention.
    w_1, w_2 : array_like, shapes (d_model, d_ff) and (d_ff, d_model)
        The feed-forward layer.
    b_1, b_2 : array_like, optional
        Its biases.
    norm_1, norm_2 : NormParams
        The norms of the attention and of the feed-forward layer.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> state = {"self_attn.in_proj_weight": np.ones((6, 2)), "self_attn.out_proj.weight": np.eye(2),
    ...          "linear1.weight": np.ones((8, 2)), "linear2.weight": np.ones((2, 8)),
    ...          "norm1.weight": np.ones(2), "norm2.weight": np.ones(2)}
    >>> params = ag.EncoderLayerParams.from_torch_state_dict(state, num_heads=1)
    >>> params.w_1.shape
    (2, 8)
    """

    self_attention: MultiHeadParams
    w_1: np.ndarray
    w_2: np.ndarray
    b_1: np.ndarray | None = None
    b_2: np.ndarray | None = None
    norm_1: NormParams = NormParams()
    norm_2: NormParams = NormParams()

    @classmethod
    def from_torch_state_dict(cls, state: Mapping[str, Any], num_heads: int, *, prefix: str = "") -> EncoderLayerParams:
        """Read the state dict of a ``torch.nn.TransformerEncoderLayer``, as tensors or plain arrays.

        Parameters
        ----------
        state : mapping of str to array_like
            What ``module.state_dict()`` gives. PyTorch stores weights as (out, in); they are transposed.
        num_heads : int
            ``nhead``, which a state dict does not hold.
        prefix : str
            What the names begin with.

        Returns
        -------
        EncoderLayerParams
            The same numbers.

        Raises
        ------
        KeyError
            If an array is missing.
        """
        return cls(
            self_attention=MultiHeadParams.from_torch_state_dict(state, num_heads, prefix=prefix + "self_attn."),
            **_feed_forward_state(state, prefix),
            norm_1=_norm_state(state, prefix + "norm1."),
            norm_2=_norm_state(state, prefix + "norm2."),
        )


@dataclass(frozen=True, eq=False)
class DecoderLayerParams:
    """The weights of a decoder block.

    Parameters
    ----------
    self_attention, cross_attention : MultiHeadParams
        The attention among the targets, and the attention from the targets to the memory.
    w_1, w_2 : array_like, shapes (d_model, d_ff) and (d_ff, d_model)
        The feed-forward layer.
    b_1, b_2 : array_like, optional
        Its biases.
    norm_1, norm_2, norm_3 : NormParams
        The norms of the self-attention, the cross-attention and the feed-forward layer.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> rng = np.random.default_rng(0)
    >>> attention = ag.init_multi_head(4, 2, rng=rng)
    >>> params = ag.DecoderLayerParams(attention, attention, rng.normal(size=(4, 8)), rng.normal(size=(8, 4)))
    >>> params.cross_attention.num_heads
    2
    """

    self_attention: MultiHeadParams
    cross_attention: MultiHeadParams
    w_1: np.ndarray
    w_2: np.ndarray
    b_1: np.ndarray | None = None
    b_2: np.ndarray | None = None
    norm_1: NormParams = NormParams()
    norm_2: NormParams = NormParams()
    norm_3: NormParams = NormParams()

    @classmethod
    def from_torch_state_dict(cls, state: Mapping[str, Any], num_heads: int, *, prefix: str = "") -> DecoderLayerParams:
        """Read the state dict of a ``torch.nn.TransformerDecoderLayer``, as tensors or plain arrays.

        Parameters
        ----------
        state : mapping of str to array_like
            What ``module.state_dict()`` gives. PyTorch stores weights as (out, in); they are transposed.
        num_heads : int
            ``nhead``, which a state dict does not hold.
        prefix : str
            What the names begin with.

        Returns
        -------
        DecoderLayerParams
            The same numbers.

        Raises
        ------
        KeyError
            If an array is missing.
        """
        return cls(
            self_attention=MultiHeadParams.from_torch_state_dict(state, num_heads, prefix=prefix + "self_attn."),
            cross_attention=MultiHeadParams.from_torch_state_dict(state, num_heads, prefix=prefix + "multihead_attn."),
            **_feed_forward_state(state, prefix),
            norm_1=_norm_state(state, prefix + "norm1."),
            norm_2=_norm_state(state, prefix + "norm2."),
            norm_3=_norm_state(state, prefix + "norm3."),
        )


@dataclass(frozen=True, eq=False)
class TransformerParams:
    """The weights of an encoder-decoder Transformer, or of one half of it.

    Parameters
    ----------
    encoder_layers : sequence of EncoderLayerParams
        The encoder, block by block.
    decoder_layers : sequence of DecoderLayerParams
        The decoder, block by block.
    encoder_norm, decoder_norm : NormParams, optional
        The norm after the last block of each.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> state = {"encoder.norm.weight": np.ones(4), "decoder.norm.weight": np.ones(4)}
    >>> params = ag.TransformerParams.from_torch_state_dict(state, num_heads=2)
    >>> len(params.encoder_layers), params.encoder_norm.weight
    (0, array([1., 1., 1., 1.]))
    """

    encoder_layers: tuple[EncoderLayerParams, ...] = ()
    decoder_layers: tuple[DecoderLayerParams, ...] = ()
    encoder_norm: NormParams | None = None
    decoder_norm: NormParams | None = None

    @classmethod
    def from_torch_state_dict(cls, state: Mapping[str, Any], num_heads: int) -> TransformerParams:
        """Read the state dict of a ``torch.nn.Transformer``, as tensors or plain arrays.

        Parameters
        ----------
        state : mapping of str to array_like
            What ``module.state_dict()`` gives. For a ``TransformerEncoder`` or ``TransformerDecoder`` alone, put
            "encoder." or "decoder." before its names.
        num_heads : int
            ``nhead``, which a state dict does not hold.

        Returns
        -------
        TransformerParams
            The same numbers.

        Raises
        ------
        KeyError
            If an array is missing.
        """

        def count(half: str) -> int:
            start = f"{half}.layers."
            return 1 + max((int(k[len(start) :].split(".")[0]) for k in state if k.startswith(start)), default=-1)

        def last_norm(half: str) -> NormParams | None:
            return _norm_state(state, f"{half}.norm.") if f"{half}.norm.weight" in state else None

        return cls(
            encoder_layers=tuple(
                EncoderLayerParams.from_torch_state_dict(state, num_heads, prefix=f"encoder.layers.{i}.")
                for i in range(count("encoder"))
            ),
            decoder_layers=tuple(
                DecoderLayerParams.from_torch_state_dict(state, num_heads, prefix=f"decoder.layers.{i}.")
                for i in range(count("decoder"))
            ),
            encoder_norm=last_norm("encoder"),
            decoder_norm=last_norm("decoder"),
        )


def _feed_forward_state(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the arguments w_1, w_2, b_1, b_2 from ``linear1`` and ``linear2``."""
    return {
        "w_1": _need(state, prefix + "linear1.weight").T,
        "w_2": _need(state, prefix + "linear2.weight").T,
        "b_1": _maybe(state, prefix + "linear1.bias"),
        "b_2": _maybe(state, prefix + "linear2.bias"),
    }


def _norm_state(state: Mapping[str, Any], prefix: str) -> NormParams:
    return NormParams(_need(state, prefix + "weight"), _maybe(state, prefix + "bias"))


def _need(state: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in state:
        raise KeyError(f"state has no {name}; it has {', '.join(state) or 'nothing'}")
    return np.asarray(state[name])


def _maybe(state: Mapping[str, Any], name: str) -> np.ndarray | None:
    return np.asarray(state[name]) if name in state else None


# ------------------------------------------------------------------------------------------------- blocks


def encoder_layer(
    x: Any,
    params: EncoderLayerParams,
    attn_mask: Any = None,
    is_causal: bool = False,
    *,
    mask_mod: MaskMod | None = None,
    rope: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    norm_first: bool = False,
    activation: str = "relu",
    eps: float = 1e-5,
    return_weights: bool = False,
) -> Any:
    """Update every token by self-attention and then by a feed-forward layer.

    With ``is_causal=True`` this is the block of a decoder-only model such as GPT.

    Parameters
    ----------
    x : array_like, shape (..., n, d_model)
        Tokens.
    params : EncoderLayerParams
        The weights.
    attn_mask, is_causal, mask_mod : various
        As in ``scaled_dot_product_attention``, for scores of shape (..., h, n, n). A boolean mask says True for
        "may attend"; in ``torch.nn`` modules True means the opposite.
    rope : callable, optional
        As in ``multi_head_attention``, such as ``apply_rope``.
    norm_first : bool
        False normalises after each sum (the 2017 paper), True before each sublayer (GPT-2 and later).
    activation : {"relu", "gelu", "gelu_tanh", "silu"}
        Of the feed-forward layer.
    eps : float
        Of the norms.
    return_weights : bool
        Also return the attention weights.

    Returns
    -------
    output : numpy.ndarray, shape (..., n, d_model)
        The updated tokens.
    weights : numpy.ndarray, shape (..., h, n, n)
        Only if ``return_weights``.

    Raises
    ------
    TypeError
        If ``params`` are no ``EncoderLayerParams``, or dtypes differ.
    ValueError
        If a shape does not fit or ``activation`` is unknown.

    Notes
    -----
    Time O(n d_model (d_model + d_ff) + n^2 d_model).

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.1; Xiong et al. (2020), On Layer Normalization in
    the Transformer Architecture, table 1.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> rng = np.random.default_rng(0)
    >>> params = ag.EncoderLayerParams(
    ...     ag.init_multi_head(8, 2, rng=rng), rng.normal(size=(8, 32)), rng.normal(size=(32, 8))
    ... )
    >>> x = rng.normal(size=(5, 8))
    >>> output, weights = ag.encoder_layer(x, params, return_weights=True)
    >>> output.shape, weights.shape
    ((5, 8), (2, 5, 5))
    """
    p = _params("params", params, EncoderLayerParams)
    seen = _Weights(return_weights)

    def attend(y: np.ndarray) -> np.ndarray:
        return seen.attend(y, y, p.self_attention, attn_mask, is_causal=is_causal, mask_mod=mask_mod, rope=rope)

    def think(y: np.ndarray) -> np.ndarray:
        return feed_forward(y, p.w_1, p.w_2, p.b_1, p.b_2, activation=activation)

    x = _sublayer(as_float_array("x", x), attend, p.norm_1, norm_first, eps)
    x = _sublayer(x, think, p.norm_2, norm_first, eps)
    return (x, seen.weights[0]) if return_weights else x


def decoder_layer(
    x: Any,
    memory: Any,
    params: DecoderLayerParams,
    attn_mask: Any = None,
    is_causal: bool = True,
    *,
    memory_mask: Any = None,
    mask_mod: MaskMod | None = None,
    norm_first: bool = False,
    activation: str = "relu",
    eps: float = 1e-5,
    return_weights: bool = False,
) -> Any:
    """Update every target token by self-attention, by attention to the source, and by a feed-forward layer.

    Parameters
    ----------
    x : array_like, shape (..., n, d_model)
        Target tokens.
    memory : array_like, shape (..., m, d_memory)
        What the encoder made of the source.
    params : DecoderLayerParams
        The weights.
    attn_mask, is_causal : various
        Of the self-attention, for scores of shape (..., h, n, n). A decoder is causal unless told otherwise.
    memory_mask : array_like, optional
        Of the attention to the source; broadcasts to (..., h, n, m). True says "may attend".
    mask_mod : callable, optional
        Of the self-attention.
    norm_first, activation, eps : various
        As in ``encoder_layer``.
    return_weights : bool
        Also return the weights of both attentions.

    Returns
    -------
    output : numpy.ndarray, shape (..., n, d_model)
        The updated target tokens.
    self_weights : numpy.ndarray, shape (..., h, n, n)
        Only if ``return_weights``.
    cross_weights : numpy.ndarray, shape (..., h, n, m)
        Only if ``return_weights``.

    Raises
    ------
    TypeError
        If ``params`` are no ``DecoderLayerParams``, or dtypes differ.
    ValueError
        If a shape does not fit or ``activation`` is unknown.

    Notes
    -----
    Time O(n d_model (d_model + d_ff) + m d_memory d_model + n (n + m) d_model).

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, sections 3.1 and 3.2.3.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> rng = np.random.default_rng(0)
    >>> params = ag.DecoderLayerParams(
    ...     ag.init_multi_head(8, 2, rng=rng),
    ...     ag.init_multi_head(8, 2, rng=rng),
    ...     rng.normal(size=(8, 32)),
    ...     rng.normal(size=(32, 8)),
    ... )
    >>> target, source = rng.normal(size=(4, 8)), rng.normal(size=(6, 8))
    >>> output, self_weights, cross_weights = ag.decoder_layer(target, source, params, return_weights=True)
    >>> output.shape, self_weights.shape, cross_weights.shape
    ((4, 8), (2, 4, 4), (2, 4, 6))
    """
    p = _params("params", params, DecoderLayerParams)
    seen = _Weights(return_weights)
    memory = as_float_array("memory", memory)

    def attend(y: np.ndarray) -> np.ndarray:
        return seen.attend(y, y, p.self_attention, attn_mask, is_causal=is_causal, mask_mod=mask_mod)

    def read(y: np.ndarray) -> np.ndarray:
        return seen.attend(y, memory, p.cross_attention, memory_mask)

    def think(y: np.ndarray) -> np.ndarray:
        return feed_forward(y, p.w_1, p.w_2, p.b_1, p.b_2, activation=activation)

    x = _sublayer(as_float_array("x", x), attend, p.norm_1, norm_first, eps)
    x = _sublayer(x, read, p.norm_2, norm_first, eps)
    x = _sublayer(x, think, p.norm_3, norm_first, eps)
    return (x, *seen.weights) if return_weights else x


def transformer_encoder(
    x: Any,
    params: TransformerParams,
    attn_mask: Any = None,
    is_causal: bool = False,
    *,
    mask_mod: MaskMod | None = None,
    norm_first: bool = False,
    activation: str = "relu",
    eps: float = 1e-5,
    return_weights: bool = False,
) -> Any:
    """Send tokens through all encoder blocks and the last norm.

    Parameters
    ----------
    x : array_like, shape (..., n, d_model)
        Embedded tokens, positions included.
    params : TransformerParams
        Its encoder half is used.
    attn_mask, is_causal, mask_mod, norm_first, activation, eps : various
        As in ``encoder_layer``, the same for every block.
    return_weights : bool
        Also return the attention weights of every block.

    Returns
    -------
    output : numpy.ndarray, shape (..., n, d_model)
        The memory that a decoder reads.
    weights : list of numpy.ndarray, shape (..., h, n, n)
        Only if ``return_weights``.

    Raises
    ------
    TypeError, ValueError
        As in ``encoder_layer``.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.1.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> ag.transformer_encoder([[3.0, 4.0]], ag.TransformerParams())  # no block, no norm
    array([[3., 4.]])
    """
    p = _params("params", params, TransformerParams)
    x, weights = as_float_array("x", x), []
    for layer in p.encoder_layers:
        x, w = _split(
            encoder_layer(
                x,
                layer,
                attn_mask,
                is_causal,
                mask_mod=mask_mod,
                norm_first=norm_first,
                activation=activation,
                eps=eps,
                return_weights=return_weights,
            )
        )
        weights += w
    if p.encoder_norm is not None:
        x = p.encoder_norm(x, eps)
    return (x, weights) if return_weights else x


def transformer_decoder(
    x: Any,
    memory: Any,
    params: TransformerParams,
    attn_mask: Any = None,
    is_causal: bool = True,
    *,
    memory_mask: Any = None,
    mask_mod: MaskMod | None = None,
    norm_first: bool = False,
    activation: str = "relu",
    eps: float = 1e-5,
    return_weights: bool = False,
) -> Any:
    """Send target tokens through all decoder blocks, each of which reads the memory, and the last norm.

    Parameters
    ----------
    x : array_like, shape (..., n, d_model)
        Embedded target tokens, positions included.
    memory : array_like, shape (..., m, d_memory)
        The output of the encoder.
    params : TransformerParams
        Its decoder half is used.
    attn_mask, is_causal, memory_mask, mask_mod, norm_first, activation, eps : various
        As in ``decoder_layer``, the same for every block.
    return_weights : bool
        Also return the weights of both attentions of every block.

    Returns
    -------
    output : numpy.ndarray, shape (..., n, d_model)
        One vector for each target token.
    self_weights : list of numpy.ndarray, shape (..., h, n, n)
        Only if ``return_weights``.
    cross_weights : list of numpy.ndarray, shape (..., h, n, m)
        Only if ``return_weights``.

    Raises
    ------
    TypeError, ValueError
        As in ``decoder_layer``.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.1.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> ag.transformer_decoder([[3.0, 4.0]], [[1.0, 2.0]], ag.TransformerParams())  # no block, no norm
    array([[3., 4.]])
    """
    p = _params("params", params, TransformerParams)
    x, weights = as_float_array("x", x), []
    for layer in p.decoder_layers:
        x, w = _split(
            decoder_layer(
                x,
                memory,
                layer,
                attn_mask,
                is_causal,
                memory_mask=memory_mask,
                mask_mod=mask_mod,
                norm_first=norm_first,
                activation=activation,
                eps=eps,
                return_weights=return_weights,
            )
        )
        weights += w
    if p.decoder_norm is not None:
        x = p.decoder_norm(x, eps)
    return (x, weights[::2], weights[1::2]) if return_weights else x


def transformer(
    source: Any,
    target: Any,
    params: TransformerParams,
    *,
    source_mask: Any = None,
    target_mask: Any = None,
    memory_mask: Any = None,
    is_causal: bool = True,
    norm_first: bool = False,
    activation: str = "relu",
    eps: float = 1e-5,
) -> np.ndarray:
    """Encode a source sequence and decode a target sequence that reads it.

    Parameters
    ----------
    source : array_like, shape (..., m, d_model)
        Embedded source tokens, positions included.
    target : array_like, shape (..., n, d_model)
        Embedded target tokens, positions included.
    params : TransformerParams
        The weights.
    source_mask, target_mask, memory_mask : array_like, optional
        Of the encoder's self-attention, the decoder's self-attention and the attention between them: (..., h, m,
        m), (..., h, n, n) and (..., h, n, m). True says "may attend". Padding of the source belongs in the first
        and in the last.
    is_causal : bool
        Whether the decoder's self-attention is causal.
    norm_first, activation, eps : various
        As in ``encoder_layer``.

    Returns
    -------
    numpy.ndarray, shape (..., n, d_model)
        One vector for each target token. For the weights call ``transformer_encoder`` and
        ``transformer_decoder``.

    Raises
    ------
    TypeError, ValueError
        As in ``encoder_layer`` and ``decoder_layer``.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, figure 1.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> ag.transformer([[1.0, 2.0]], [[3.0, 4.0]], ag.TransformerParams())  # no blocks, no norms
    array([[3., 4.]])
    """
    style = {"norm_first": norm_first, "activation": activation, "eps": eps}
    memory = transformer_encoder(source, params, source_mask, **style)  # type: ignore[arg-type]
    return transformer_decoder(
        target,
        memory,
        params,
        target_mask,
        is_causal,
        memory_mask=memory_mask,
        norm_first=norm_first,
        activation=activation,
        eps=eps,
    )


class _Weights:
    """Collects the weights of the attentions of a block if somebody asked for them."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.weights: list[np.ndarray] = []

    def attend(self, x: np.ndarray, context: np.ndarray, *args: Any, **options: Any) -> np.ndarray:
        out = multi_head_attention(x, context, context, *args, return_weights=self.wanted, **options)
        if not self.wanted:
            return out
        self.weights.append(out[1])
        return out[0]


def _sublayer(
    x: np.ndarray, update: Callable[[np.ndarray], np.ndarray], norm: NormParams, norm_first: bool, eps: float
) -> np.ndarray:
    """Add an update to the residual stream, normalised before or after."""
    return x + update(norm(x, eps)) if norm_first else norm(x + update(x), eps)


def _split(result: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return (output, list of weights) of a block that may or may not have returned weights."""
    return (result[0], list(result[1:])) if isinstance(result, tuple) else (result, [])


def _params(name: str, params: Any, wanted: type) -> Any:
    if not isinstance(params, wanted):
        raise TypeError(
            f"{name} is of type {type(params).__name__}; wanted {wanted.__name__}, "
            f"which {wanted.__name__}.from_torch_state_dict makes of a state dict"
        )
    return params


# ---------------------------------------------------------------------------------------- recurrent layer


def recurrent_layer(x: Any, w_x: Any, w_h: Any, b: Any = None, h_0: Any = None) -> np.ndarray:
    """Read a sequence one token after another, as networks did before attention.

    Parameters
    ----------
    x : array_like, shape (..., n, d_in)
        The sequence.
    w_x : array_like, shape (d_in, d_h)
        From the token to the state.
    w_h : array_like, shape (d_h, d_h)
        From the last state to the next.
    b : array_like, shape (d_h,), optional
        Bias; the sum of the two that ``torch.nn.RNN`` has.
    h_0 : array_like, shape (..., d_h), optional
        State before the first token; 0 unless given.

    Returns
    -------
    numpy.ndarray, shape (..., n, d_h)
        The state after each token, in the dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If a shape does not fit.

    Notes
    -----
    :math:`h_t = \\tanh(x_t W_x + h_{t-1} W_h + b)`. The n steps must be taken in order, and what token 0 says
    reaches state t through t multiplications. Time O(n d_h (d_in + d_h)).

    References
    ----------
    Elman (1990), Finding Structure in Time.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.recurrent_layer([[1.0], [0.0], [0.0]], [[1.0]], [[0.5]]).round(3)
    array([[0.762],
           [0.363],
           [0.18 ]])
    """
    a, w, b, h, dtype = _recurrent_inputs(x, w_x, w_h, b, h_0)
    drive = _linear(a, "w_x", w_x, "b", b)  # (..., n, d_h)
    states = np.empty_like(drive)
    for t in range(a.shape[-2]):
        h = states[..., t, :] = np.tanh(drive[..., t, :] + h @ w)
    return states.astype(dtype, copy=False)


def recurrent_layer_backward(
    grad_states: Any, x: Any, w_x: Any, w_h: Any, b: Any = None, h_0: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of a loss with respect to the inputs of ``recurrent_layer``: backpropagation in time.

    Parameters
    ----------
    grad_states : array_like, shape (..., n, d_h)
        Gradient of the loss with respect to the states.
    x, w_x, w_h, b, h_0 : various
        As given to ``recurrent_layer``.

    Returns
    -------
    grad_x, grad_w_x, grad_w_h, grad_b, grad_h_0 : numpy.ndarray
        In the shapes of the inputs, ``grad_b`` and ``grad_h_0`` also where the input was not given.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If a shape does not fit.

    Notes
    -----
    Time O(n d_h (d_in + d_h)).

    References
    ----------
    Werbos (1990), Backpropagation Through Time: What It Does and How to Do It.

    Examples
    --------
    >>> import numpy as np, attn_guide as ag
    >>> last = np.array([[0.0], [0.0], [1.0]])  # how the last state answers to each token
    >>> grad_x, *_ = ag.recurrent_layer_backward(last, [[1.0], [0.0], [0.0]], [[1.0]], [[0.5]])
    >>> grad_x.round(3)
    array([[0.088],
           [0.42 ],
           [0.968]])
    """
    states = recurrent_layer(x, w_x, w_h, b, h_0)
    a, w, _, h, dtype = _recurrent_inputs(x, w_x, w_h, b, h_0)
    g = as_float_array("grad_states", grad_states).astype(a.dtype, copy=False)
    if g.shape != states.shape:
        raise ValueError(f"grad_states has shape {g.shape}; wanted the shape of the states, {states.shape}")
    states = states.astype(a.dtype, copy=False)
    before = np.concatenate([h[..., None, :], states], axis=-2)[..., :-1, :]  # the state each step began with
    dz = np.empty_like(states)  # gradient before the tanh
    dh = np.zeros_like(h)
    for t in reversed(range(a.shape[-2])):
        dz[..., t, :] = (g[..., t, :] + dh) * (1.0 - states[..., t, :] ** 2)
        dh = dz[..., t, :] @ w.T
    flat = dz.reshape(-1, dz.shape[-1])
    grad_x = dz @ as_float_array("w_x", w_x).astype(a.dtype, copy=False).T
    grad_w_x = a.reshape(-1, a.shape[-1]).T @ flat
    grad_w_h = before.reshape(-1, before.shape[-1]).T @ flat
    grads = (grad_x, grad_w_x, grad_w_h, flat.sum(axis=0), dh)
    dx, dw_x, dw_h, db, dh_0 = (grad.astype(dtype, copy=False) for grad in grads)
    return dx, dw_x, dw_h, db, dh_0


def recurrent_jacobian(states: Any, w_x: Any, w_h: Any, *, step: int = 0) -> np.ndarray:
    """Return how every later state of ``recurrent_layer`` answers to one token.

    Parameters
    ----------
    states : array_like, shape (..., n, d_h)
        What ``recurrent_layer`` returned.
    w_x : array_like, shape (d_in, d_h)
        As given to it.
    w_h : array_like, shape (d_h, d_h)
        As given to it.
    step : int
        Which token, counted from 0.

    Returns
    -------
    numpy.ndarray, shape (..., n - step, d_h, d_in)
        Entry t is the matrix of derivatives of state ``step + t`` with respect to token ``step``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers or ``step`` is no integer.
    ValueError
        If a shape does not fit or there is no such step.

    Notes
    -----
    Each step multiplies by :math:`\\mathrm{diag}(1 - h_t^2) W_h^\\top`. A product of t such matrices shrinks or
    grows roughly as the t-th power of a number, which is why the gradient of a long chain vanishes or explodes.
    Time O(n d_h^2 d_in).

    References
    ----------
    Bengio, Simard and Frasconi (1994), Learning Long-Term Dependencies with Gradient Descent is
    Difficult; Pascanu, Mikolov and Bengio (2013), On the Difficulty of Training Recurrent Neural Networks,
    equation 5.

    Examples
    --------
    >>> import attn_guide as ag
    >>> states = ag.recurrent_layer([[1.0], [0.0], [0.0]], [[1.0]], [[0.5]])
    >>> ag.recurrent_jacobian(states, [[1.0]], [[0.5]]).ravel().round(3)
    array([0.42 , 0.182, 0.088])
    """
    h = as_float_array("states", states)
    check_ndim("states", h, 2, "(..., n, d_h)")
    dtype, h = h.dtype, h.astype(compute_dtype(h), copy=False)
    n, d_h = h.shape[-2:]
    inward, w = as_float_array("w_x", w_x).astype(h.dtype, copy=False), _square("w_h", w_h, d_h, h.dtype)
    if inward.ndim != 2 or inward.shape[1] != d_h:
        raise ValueError(f"w_x has shape {inward.shape}; wanted (d_in, {d_h}), the width of states")
    if check_integer("step", step) >= n:
        raise ValueError(f"step is {step}; wanted less than {n}, the number of states")
    slope = (1.0 - h**2)[..., None]  # (..., n, d_h, 1), derivative of the tanh
    out = np.empty((*h.shape[:-2], n - step, d_h, inward.shape[0]), h.dtype)
    out[..., 0, :, :] = slope[..., step, :, :] * inward.T
    for t in range(step + 1, n):
        out[..., t - step, :, :] = slope[..., t, :, :] * (w.T @ out[..., t - step - 1, :, :])
    return out.astype(dtype, copy=False)


def _recurrent_inputs(
    x: Any, w_x: Any, w_h: Any, b: Any, h_0: Any
) -> tuple[np.ndarray, np.ndarray, Any, np.ndarray, np.dtype]:
    """Return x, w_h, b and the first state in the type to compute in, and the caller's dtype, or raise."""
    a, dtype = _tokens(x)
    check_ndim("x", a, 2, "(..., n, d_in)")
    inward = as_float_array("w_x", w_x)
    if inward.ndim != 2 or inward.shape[0] != a.shape[-1]:
        raise ValueError(f"w_x has shape {inward.shape}; wanted ({a.shape[-1]}, d_h), the width of x first")
    d_h = inward.shape[1]
    h = as_float_array("h_0", np.zeros(d_h) if h_0 is None else h_0)
    wanted = (*a.shape[:-2], d_h)
    try:
        h = np.broadcast_to(h, wanted).astype(a.dtype)
    except ValueError:
        raise ValueError(f"h_0 has shape {h.shape}; wanted {wanted}") from None
    return a, _square("w_h", w_h, d_h, a.dtype), b, h, dtype


def _square(name: str, matrix: Any, width: int, dtype: np.dtype) -> np.ndarray:
    w = as_float_array(name, matrix)
    if w.shape != (width, width):
        raise ValueError(f"{name} has shape {w.shape}; wanted ({width}, {width})")
    return w.astype(dtype, copy=False)
