"""Attention as modules, with the habits of ``torch.nn``: parameters, ``device`` and ``dtype``, state dicts, repr.

One difference from ``torch.nn`` is deliberate: in a boolean mask True says "may attend" everywhere in this package,
also where ``torch.nn.MultiheadAttention`` says it of what may not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn_guide._checks import check_choice, check_integer, check_positive, check_probability

from . import core, positions, scores, selection
from ._checks import check_generator, check_mask, check_tensor
from .cache import KVCache
from .core import MaskMod, ScoreMod
from .dispatch import scaled_dot_product_attention
from .heads import merge_heads, split_heads
from .sparse import longformer_attention

__all__ = [
    "BahdanauAttention",
    "DecoderLayer",
    "EncoderLayer",
    "GlimpseAttention",
    "HardAttention",
    "LongformerAttention",
    "LuongAttention",
    "MultiHeadAttention",
    "MultiHeadLatentAttention",
]


def _mix(s: Tensor, value: Tensor, attn_mask: Tensor | None, return_weights: bool) -> Any:
    """Turn scores (..., n, m) into weights and mix the values with them."""
    weights = core.softmax(_masked(s, attn_mask))
    output = weights @ value
    return (output, weights) if return_weights else output


def _masked(s: Tensor, attn_mask: Tensor | None) -> Tensor:
    if attn_mask is None:
        return s
    mask = check_mask("attn_mask", attn_mask, tuple(s.shape))
    return s.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else s + mask


def _uniform(*shape: int, fan_in: int, **options: Any) -> nn.Parameter:
    """Return a parameter as ``nn.Linear`` draws its weights."""
    bound = 1.0 / sqrt(fan_in)
    return nn.Parameter(torch.empty(*shape, **options).uniform_(-bound, bound))


class BahdanauAttention(nn.Module):
    """Additive attention: scores from a small network, ``v . tanh(W_q q + W_k k)``.

    Parameters
    ----------
    d_query, d_key : int
        Widths of queries and keys.
    d_attention : int
        Width of the hidden layer.
    device, dtype : optional
        Of the parameters.

    Notes
    -----
    A decoder that asks many times about one source projects it once, with ``project_key``, and passes the result.

    References
    ----------
    Bahdanau, Cho and Bengio (2014), Neural Machine Translation by Jointly Learning to Align and Translate, section
    A.1.2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> layer = at.nn.BahdanauAttention(4, 6, 8)
    >>> layer(torch.zeros(2, 1, 4), torch.zeros(2, 5, 6)).shape
    torch.Size([2, 1, 6])
    """

    def __init__(self, d_query: int, d_key: int, d_attention: int, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        options = {"device": device, "dtype": dtype}
        d_a = check_integer("d_attention", d_attention, least=1)
        self.w_query = nn.Linear(check_integer("d_query", d_query, least=1), d_a, bias=False, **options)
        self.w_key = nn.Linear(check_integer("d_key", d_key, least=1), d_a, bias=False, **options)
        self.v = _uniform(d_a, fan_in=d_a, **options)

    def project_key(self, key: Tensor) -> Tensor:
        """Return ``W_k k`` of a source, to pass as ``projected_key`` at each step.

        Parameters
        ----------
        key : torch.Tensor, shape (..., m, d_key)

        Returns
        -------
        torch.Tensor, shape (..., m, d_attention)

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> at.nn.BahdanauAttention(4, 6, 8).project_key(torch.zeros(5, 6)).shape
        torch.Size([5, 8])
        """
        return self.w_key(key)

    def scores(self, query: Tensor, key: Tensor, projected_key: Tensor | None = None) -> Tensor:
        """Return the scores (..., n, m) before their softmax.

        Parameters
        ----------
        query : torch.Tensor, shape (..., n, d_query)
        key : torch.Tensor, shape (..., m, d_key)
        projected_key : torch.Tensor, optional
            What ``project_key`` made of ``key``.

        Returns
        -------
        torch.Tensor, shape (..., n, m)

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> at.nn.BahdanauAttention(4, 6, 8).scores(torch.zeros(1, 4), torch.zeros(5, 6)).shape
        torch.Size([1, 5])
        """
        keys = self.project_key(key) if projected_key is None else projected_key
        return torch.tanh(self.w_query(query)[..., :, None, :] + keys[..., None, :, :]) @ self.v

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        *,
        projected_key: Tensor | None = None,
        return_weights: bool = False,
    ) -> Any:
        """Attend from ``query`` to ``key``; the values are the keys unless given. Masks say True for "may attend"."""
        s = self.scores(query, key, projected_key)
        return _mix(s, key if value is None else value, attn_mask, return_weights)


class LuongAttention(nn.Module):
    """Multiplicative attention, global or local: dot, general or concat scores over all keys or around one place.

    Parameters
    ----------
    d_query, d_key : int
        Widths of queries (decoder states) and keys (encoder states).
    score : {"general", "dot", "concat"}, default "general"
        How they are compared.
    align : {"global", "monotonic", "predictive"}, default "global"
        All keys; the keys around the query's own position (local-m); or the keys around a place that the query
        predicts, favoured by a Gaussian (local-p).
    window : int, optional
        D of local attention: keys at most D from the place take part. Needed unless global.
    d_attention : int, optional
        Hidden width of concat scores and of the predictor; d_query unless given.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError
        If a name is unknown, widths differ with dot scores, or ``window`` is missing or not used.

    Notes
    -----
    Local-p multiplies the weights, which sum to one, by the Gaussian of standard deviation D / 2, as the paper does:
    they then sum to less than one. The place is ``m * sigmoid(v . tanh(W q))``.

    References
    ----------
    Luong, Pham and Manning (2015), Effective Approaches to Attention-based Neural Machine Translation, equations 8
    to 10.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> layer = at.nn.LuongAttention(4, 4, align="monotonic", window=1, score="dot")
    >>> x = torch.zeros(1, 5, 4)
    >>> layer(x, x, return_weights=True)[1][0, 2]
    tensor([0.0000, 0.3333, 0.3333, 0.3333, 0.0000])
    """

    def __init__(
        self,
        d_query: int,
        d_key: int,
        *,
        score: str = "general",
        align: str = "global",
        window: int | None = None,
        d_attention: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        options = {"device": device, "dtype": dtype}
        self.score = check_choice("score", score, ("general", "dot", "concat"))
        self.align = check_choice("align", align, ("global", "monotonic", "predictive"))
        if (window is None) != (align == "global"):
            raise ValueError(f"window is {window} with align={align!r}; wanted a window for local attention only")
        self.window = None if window is None else check_integer("window", window, least=1)
        d_q, d_k = check_integer("d_query", d_query, least=1), check_integer("d_key", d_key, least=1)
        d_a = d_q if d_attention is None else check_integer("d_attention", d_attention, least=1)
        if score == "dot" and d_q != d_k:
            raise ValueError(f"d_key is {d_k}; wanted d_query, {d_q}, since dot scores compare widths as they come")
        if score == "general":
            self.weight = _uniform(d_q, d_k, fan_in=d_k, **options)
        elif score == "concat":
            self.weight = _uniform(d_q + d_k, d_a, fan_in=d_q + d_k, **options)
            self.v = _uniform(d_a, fan_in=d_a, **options)
        if align == "predictive":
            self.w_place = nn.Linear(d_q, d_a, bias=False, **options)
            self.v_place = _uniform(d_a, fan_in=d_a, **options)

    def extra_repr(self) -> str:
        return f"score={self.score!r}, align={self.align!r}" + (f", window={self.window}" if self.window else "")

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        *,
        position: int | Tensor = 0,
        return_weights: bool = False,
    ) -> Any:
        """Attend from ``query`` (..., n, d_query) to ``key`` (..., m, d_key); the values are the keys unless given.

        ``position`` is that of the first query, or of each, for local attention at the query's own place.
        """
        if self.score == "dot":
            s = scores.dot_score(query, key)
        elif self.score == "general":
            s = scores.general_score(query, key, self.weight)
        else:
            s = scores.concat_score(query, key, self.weight, self.v)
        s = _masked(s, attn_mask)
        value = key if value is None else value
        if self.window is None:
            return _mix(s, value, None, return_weights)
        n, m = s.shape[-2:]
        columns = torch.arange(m, device=s.device)
        if self.align == "monotonic":
            first = position if isinstance(position, Tensor) else torch.arange(n, device=s.device) + position
            place = first.to(s.dtype).expand(*s.shape[:-1])[..., None]  # (..., n, 1)
        else:
            place = m * torch.sigmoid(torch.tanh(self.w_place(query)) @ self.v_place)[..., None]
        distance = columns - place  # (..., n, m)
        weights = core.softmax(s.masked_fill(distance.detach().abs() > self.window, -torch.inf))
        if self.align == "predictive":
            weights = weights * torch.exp(-2.0 * (distance / self.window).square())
        output = weights @ value
        return (output, weights) if return_weights else output


class MultiHeadAttention(nn.Module):
    """Multi-head attention in all its forms: MHA, GQA and MQA; plain, RoPE, ALiBi or T5 positions; with a cache.

    Parameters
    ----------
    d_model : int
        Width of the query, and of the output.
    num_heads : int
        Query heads h.
    num_kv_heads : int, optional
        Key/value heads, a divisor of h: h unless given (MHA), 1 for MQA.
    d_k, d_v : int, optional
        Widths of a head; ``d_model / h`` unless given.
    d_key, d_value : int, optional
        Widths of the key and value that come in; d_model unless given.
    bias : bool, default True
        Add biases to the projections.
    dropout : float, default 0.0
        Of the attention weights, while training.
    position : {"none", "rope", "alibi", "t5"}, default "none"
        How positions enter.
    scale : float, optional
        Of the scores; 1 / sqrt(d_k) unless given (T5 itself uses 1).
    softcap : float, optional
        Bound of the scores.
    rope_base : float, default 10000.0
        Of the rotations.
    num_buckets, max_distance : int
        Of T5's biases. They are bidirectional unless the call is causal.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError
        If the numbers of heads or the widths do not divide, or ``position`` is unknown.

    Notes
    -----
    A state dict of ``torch.nn.MultiheadAttention`` loads as it is: its joined ``in_proj_weight`` is cut up.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.2; Shazeer (2019), Fast Transformer Decoding;
    Ainslie et al. (2023), GQA, section 2.2; Su et al. (2021), RoFormer; Press, Smith and Lewis (2022), Train Short,
    Test Long; Raffel et al. (2020), T5, section 2.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> layer = at.nn.MultiHeadAttention(16, 4, num_kv_heads=2, position="rope")
    >>> x = torch.zeros(2, 5, 16)
    >>> layer(x, is_causal=True).shape
    torch.Size([2, 5, 16])
    >>> plain = at.nn.MultiHeadAttention(16, 4)
    >>> plain.load_state_dict(torch.nn.MultiheadAttention(16, 4).state_dict())
    <All keys matched successfully>
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        d_k: int | None = None,
        d_v: int | None = None,
        d_key: int | None = None,
        d_value: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        position: str = "none",
        scale: float | None = None,
        softcap: float | None = None,
        rope_base: float = 10000.0,
        num_buckets: int = 32,
        max_distance: int = 128,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        options = {"bias": bias, "device": device, "dtype": dtype}
        width, h = check_integer("d_model", d_model, least=1), check_integer("num_heads", num_heads, least=1)
        h_kv = h if num_kv_heads is None else check_integer("num_kv_heads", num_kv_heads, least=1)
        if h % h_kv:
            raise ValueError(f"num_kv_heads is {h_kv}; wanted a divisor of num_heads, {h}")
        if (d_k is None or d_v is None) and width % h:
            raise ValueError(f"d_model is {width}; wanted a multiple of num_heads, {h}, or d_k and d_v")
        self.d_model, self.num_heads, self.num_kv_heads = width, h, h_kv
        self.d_k = width // h if d_k is None else check_integer("d_k", d_k, least=1)
        self.d_v = width // h if d_v is None else check_integer("d_v", d_v, least=1)
        self.dropout = check_probability("dropout", dropout)
        self.position = check_choice("position", position, ("none", "rope", "alibi", "t5"))
        self.scale, self.softcap, self.rope_base, self.max_distance = scale, softcap, rope_base, max_distance
        self.q_proj = nn.Linear(width, h * self.d_k, **options)
        self.k_proj = nn.Linear(width if d_key is None else d_key, h_kv * self.d_k, **options)
        self.v_proj = nn.Linear(width if d_value is None else d_value, h_kv * self.d_v, **options)
        self.out_proj = nn.Linear(h * self.d_v, width, **options)
        if position == "t5":
            self.relative_bias = nn.Parameter(torch.zeros(num_buckets, h, device=device, dtype=dtype))
        self.reset_parameters()
        self.register_load_state_dict_pre_hook(_cut_joined_projection)

    def reset_parameters(self) -> None:
        """Draw the weights as Glorot and Bengio do, and set the biases to 0.

        Examples
        --------
        >>> import attn_guide.torch as at
        >>> at.nn.MultiHeadAttention(4, 2).out_proj.bias
        Parameter containing:
        tensor([0., 0., 0., 0.], requires_grad=True)
        """
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.position == "t5":
            nn.init.normal_(self.relative_bias, std=0.02)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, position={self.position!r}"

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention) -> MultiHeadAttention:
        """Return a layer that computes what a ``torch.nn.MultiheadAttention`` computes.

        Parameters
        ----------
        module : torch.nn.MultiheadAttention
            Without ``add_bias_kv`` and ``add_zero_attn``.

        Returns
        -------
        MultiHeadAttention
            With copies of its weights; inputs have the batch first.

        Raises
        ------
        ValueError
            If the module adds a bias row or a row of zeros to its keys.

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        >>> ours = at.nn.MultiHeadAttention.from_torch(theirs)
        >>> x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(ours(x), theirs(x, x, x)[0], atol=1e-6)
        True
        """
        if module.bias_k is not None or module.add_zero_attn:
            raise ValueError("module has add_bias_kv or add_zero_attn; wanted one without")
        layer = cls(
            module.embed_dim,
            module.num_heads,
            d_key=module.kdim,
            d_value=module.vdim,
            bias=module.in_proj_bias is not None,
            dropout=module.dropout,
            device=module.out_proj.weight.device,
            dtype=module.out_proj.weight.dtype,
        )
        layer.load_state_dict(module.state_dict())
        return layer.train(module.training)

    def make_cache(self, batch: int, capacity: int | None, *, window: int | None = None, sinks: int = 0) -> KVCache:
        """Return an empty cache that fits this layer.

        Parameters
        ----------
        batch : int
            Sequences decoded together.
        capacity : int or None
            Tokens to reserve memory for; None with a window.
        window, sinks : int, optional
            As in ``KVCache``.

        Returns
        -------
        KVCache

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> layer = at.nn.MultiHeadAttention(16, 4, num_kv_heads=1, position="alibi").eval()
        >>> x, cache = torch.ones(2, 5, 16), layer.make_cache(2, 8)
        >>> steps = [layer(x[:, t : t + 1], cache=cache) for t in range(5)]
        >>> torch.allclose(torch.cat(steps, dim=1), layer(x, is_causal=True), atol=1e-6)
        True
        """
        weight = self.k_proj.weight
        options: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        return KVCache(
            batch, self.num_kv_heads, capacity, self.d_k, self.d_v, window=window, sinks=sinks,
            rope=self._rotate if self.position == "rope" else None, **options,
        )  # fmt: skip

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        mask_mod: MaskMod | None = None,
        cache: KVCache | None = None,
        return_weights: bool = False,
    ) -> Any:
        """Attend from ``query`` (..., n, d_model) to ``key`` (..., m, d_key) and ``value``.

        Without a key this is self-attention. With a cache the query holds the next tokens of a decoder, which are
        stored and see everything before them. In ``attn_mask``, which broadcasts to (..., h, n, m), True says "may
        attend". Returns (..., n, d_model), and the weights (..., h, n, m) with ``return_weights``.
        """
        key = query if key is None else key
        value = key if value is None else value
        q = split_heads(self.q_proj(query), self.num_heads)  # (..., h, n, d_k)
        k = split_heads(self.k_proj(key), self.num_kv_heads)  # (..., h_kv, m, d_k)
        v = split_heads(self.v_proj(value), self.num_kv_heads)  # (..., h_kv, m, d_v)
        if cache is not None:
            if attn_mask is not None:
                raise ValueError("attn_mask comes with a cache; wanted a mask_mod, which is in positions")
            options: dict[str, Any] = {"scale": self.scale, "softcap": self.softcap, "return_weights": return_weights}
            result = cache.attend(q, k, v, mask_mod=mask_mod, score_mod=self._score_mod(True), **options)
        else:
            if self.position == "rope":
                q, k = self._rotate(q, None), self._rotate(k, None)
            result = scaled_dot_product_attention(
                q,
                k,
                v,
                self._with_bias(attn_mask, q, k, is_causal),
                self.dropout if self.training else 0.0,
                is_causal,
                self.scale,
                True,
                mask_mod=mask_mod,
                softcap=self.softcap,
                return_weights=return_weights,
            )
        heads, weights = result if return_weights else (result, None)
        output = self.out_proj(merge_heads(heads))
        return (output, weights) if return_weights else output

    def _rotate(self, x: Tensor, at: Tensor | None) -> Tensor:
        return positions.apply_rope(x, at, base=self.rope_base)

    def _with_bias(self, attn_mask: Tensor | None, q: Tensor, k: Tensor, is_causal: bool) -> Tensor | None:
        """Return the mask with ALiBi's or T5's bias added, (h, n, m)."""
        n, m = q.shape[-2], k.shape[-2]
        if self.position == "alibi":
            bias = positions.alibi_bias(self.num_heads, n, m, device=q.device, dtype=q.dtype)
        elif self.position == "t5":
            bias = positions.t5_relative_bias(
                self.relative_bias, n, m, bidirectional=not is_causal, max_distance=self.max_distance
            )
        else:
            return attn_mask
        if attn_mask is None:
            return bias
        return bias.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else bias + attn_mask

    def _score_mod(self, is_causal: bool) -> ScoreMod | None:
        """Return ALiBi's or T5's bias as a function of positions, which is how a cache needs it."""
        if self.position == "alibi":
            slopes = positions.alibi_slopes(self.num_heads, device=self.q_proj.weight.device)
            return lambda score, b, h, i, j: score - (slopes[h] * (i - j).abs()).to(score.dtype)
        if self.position == "t5":
            table = self.relative_bias

            def add_bias(score: Tensor, b: Any, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                bucket = positions.t5_relative_bucket(
                    j - i,
                    bidirectional=not is_causal,
                    num_buckets=table.shape[0],
                    max_distance=self.max_distance,
                )
                return score + table[bucket, h].to(score.dtype)

            return add_bias
        return None


def _cut_joined_projection(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Turn the keys of ``torch.nn.MultiheadAttention`` into those of three projections."""
    for kind in ("weight", "bias"):
        joined = state.pop(f"{prefix}in_proj_{kind}", None)
        if joined is not None:
            for letter, part in zip("qkv", joined.chunk(3), strict=True):
                state[f"{prefix}{letter}_proj.{kind}"] = part
    for letter in "qkv":
        if f"{prefix}{letter}_proj_weight" in state:
            state[f"{prefix}{letter}_proj.weight"] = state.pop(f"{prefix}{letter}_proj_weight")


class MultiHeadLatentAttention(nn.Module):
    """Multi-head latent attention: keys and values of all heads come from one short vector per token.

    Parameters
    ----------
    d_model : int
        Width of tokens.
    num_heads : int
        Number of heads h.
    d_c : int
        Width of the latent vector.
    d_nope, d_rope : int
        Widths of the parts of a head's query and key that are not rotated and rotated.
    d_v : int, optional
        Width of a head's value; d_nope unless given.
    d_cq : int, optional
        Compress queries to this width too.
    norm : bool, default True
        Normalise the compressed vectors (RMS).
    rope_base : float, default 10000.0
        Of the rotations.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError
        If a width is below 1.

    Notes
    -----
    A whole sequence is expanded into the keys and values of all heads. With a cache the expansion is moved to the
    query and the output (absorbed), so that a step reads d_c + d_rope numbers per stored token.

    References
    ----------
    DeepSeek-AI (2024), DeepSeek-V2, section 2.1 and equations 9 to 19.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> layer = at.nn.MultiHeadLatentAttention(16, 4, d_c=6, d_nope=4, d_rope=2)
    >>> x, cache = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0)), layer.make_cache(1, 8)
    >>> steps = [layer(x[:, t : t + 1], cache=cache) for t in range(5)]
    >>> torch.allclose(torch.cat(steps, dim=1), layer(x, is_causal=True), atol=1e-5)
    True
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        *,
        d_c: int,
        d_nope: int,
        d_rope: int,
        d_v: int | None = None,
        d_cq: int | None = None,
        norm: bool = True,
        rope_base: float = 10000.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        options = {"device": device, "dtype": dtype}
        linear: dict[str, Any] = {"bias": False, **options}
        h = self.num_heads = check_integer("num_heads", num_heads, least=1)
        self.d_c, self.d_nope, self.d_rope = (
            check_integer(name, x, least=1) for name, x in (("d_c", d_c), ("d_nope", d_nope), ("d_rope", d_rope))
        )
        self.d_v = d_nope if d_v is None else check_integer("d_v", d_v, least=1)
        self.rope_base = rope_base
        width = d_model if d_cq is None else check_integer("d_cq", d_cq, least=1)
        self.w_dkv = nn.Linear(d_model, d_c, **linear)
        self.w_uk = nn.Linear(d_c, h * d_nope, **linear)
        self.w_uv = nn.Linear(d_c, h * self.d_v, **linear)
        self.w_kr = nn.Linear(d_model, d_rope, **linear)
        self.w_dq = None if d_cq is None else nn.Linear(d_model, width, **linear)
        self.w_uq = nn.Linear(width, h * d_nope, **linear)
        self.w_qr = nn.Linear(width, h * d_rope, **linear)
        self.w_o = nn.Linear(h * self.d_v, d_model, **linear)
        self.norm_kv = nn.RMSNorm(d_c, eps=1e-6, **options) if norm else nn.Identity()
        self.norm_q = nn.RMSNorm(width, eps=1e-6, **options) if norm and d_cq is not None else nn.Identity()

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, d_c={self.d_c}, d_nope={self.d_nope}, d_rope={self.d_rope}"

    def make_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty cache of latent vectors and rotated keys.

        Parameters
        ----------
        batch : int
            Sequences decoded together.
        capacity : int
            Tokens to reserve memory for.

        Returns
        -------
        KVCache

        Examples
        --------
        >>> import attn_guide.torch as at
        >>> layer = at.nn.MultiHeadLatentAttention(16, 4, d_c=6, d_nope=4, d_rope=2)
        >>> layer.make_cache(1, 100).nbytes == 100 * (6 + 2) * 4
        True
        """
        weight = self.w_dkv.weight
        options: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        return KVCache(batch, 1, capacity, self.d_c + self.d_rope, self.d_c, value_in_key=True, **options)

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        mask_mod: MaskMod | None = None,
        cache: KVCache | None = None,
        return_weights: bool = False,
    ) -> Any:
        """Attend within ``x`` (..., n, d_model); with a cache, from the next tokens to all before them."""
        h = self.num_heads
        at = torch.arange(x.shape[-2], device=x.device) + (0 if cache is None else cache.length)
        c = x if self.w_dq is None else self.norm_q(self.w_dq(x))
        content = split_heads(self.w_uq(c), h)  # (..., h, n, d_nope)
        turned = self._rotate(split_heads(self.w_qr(c), h), at)  # (..., h, n, d_rope)
        latent = self.norm_kv(self.w_dkv(x))  # (..., n, d_c)
        shared = self._rotate(self.w_kr(x), at)  # (..., n, d_rope)
        scale = 1.0 / sqrt(self.d_nope + self.d_rope)
        if cache is not None:
            w_uk = self.w_uk.weight.unflatten(0, (h, self.d_nope))  # (h, d_nope, d_c)
            q = torch.cat([content @ w_uk, turned], dim=-1)  # (..., h, n, d_c + d_rope)
            k = torch.cat([latent, shared], dim=-1)[..., None, :, :]
            options: dict[str, Any] = {"scale": scale, "mask_mod": mask_mod, "return_weights": return_weights}
            cache.append(k)
            result = cache.attend(q, **options)
            heads, weights = result if return_weights else (result, None)
            heads = heads @ self.w_uv.weight.unflatten(0, (h, self.d_v)).transpose(-1, -2)  # d_c -> d_v
        else:
            k_content = split_heads(self.w_uk(latent), h)
            k = torch.cat([k_content, shared[..., None, :, :].expand(*k_content.shape[:-1], -1)], dim=-1)
            result = scaled_dot_product_attention(
                torch.cat([content, turned], dim=-1),
                k,
                split_heads(self.w_uv(latent), h),
                attn_mask,
                is_causal=is_causal,
                scale=scale,
                mask_mod=mask_mod,
                return_weights=return_weights,
            )
            heads, weights = result if return_weights else (result, None)
        output = self.w_o(merge_heads(heads))
        return (output, weights) if return_weights else output

    def _rotate(self, x: Tensor, at: Tensor) -> Tensor:
        return positions.apply_rope(x, at, base=self.rope_base)


class LongformerAttention(nn.Module):
    """Sliding-window attention with global tokens that have projections of their own.

    Parameters
    ----------
    d_model : int
        Width of tokens.
    num_heads : int
        Number of heads, a divisor of d_model.
    window : int
        The paper's w, even: w / 2 keys on each side.
    dilation : int, default 1
        Distance between neighbouring keys of the window.
    bias : bool, default True
        Add biases to the projections.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError
        If the heads do not divide the width, or ``window`` is odd.

    Notes
    -----
    ``init_global`` starts the global projections as copies of the local ones, as the released models were made.

    References
    ----------
    Beltagy, Peters and Cohan (2020), Longformer: The Long-Document Transformer, section 3.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> layer = at.nn.LongformerAttention(16, 4, window=4)
    >>> layer(torch.zeros(2, 10, 16), global_indices=[0]).shape
    torch.Size([2, 10, 16])
    """

    out_proj: nn.Linear

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        window: int,
        *,
        dilation: int = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        options = {"bias": bias, "device": device, "dtype": dtype}
        self.num_heads = check_integer("num_heads", num_heads, least=1)
        if check_integer("d_model", d_model, least=1) % num_heads:
            raise ValueError(f"d_model is {d_model}; wanted a multiple of num_heads, {num_heads}")
        if check_integer("window", window) % 2:
            raise ValueError(f"window is {window}; wanted an even number, half of it on each side")
        self.window, self.dilation = window, check_integer("dilation", dilation, least=1)
        for name in ("query", "key", "value", "query_global", "key_global", "value_global", "out_proj"):
            setattr(self, name, nn.Linear(d_model, d_model, **options))

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, window={self.window}, dilation={self.dilation}"

    @torch.no_grad()
    def init_global(self) -> None:
        """Copy the local projections into the global ones.

        Examples
        --------
        >>> import attn_guide.torch as at
        >>> layer = at.nn.LongformerAttention(16, 4, window=4)
        >>> layer.init_global()
        >>> bool((layer.key.weight == layer.key_global.weight).all())
        True
        """
        for name in ("query", "key", "value"):
            getattr(self, f"{name}_global").load_state_dict(getattr(self, name).state_dict())

    def forward(self, x: Tensor, global_indices: int | Iterable[int] = ()) -> Tensor:
        """Attend within ``x`` (..., n, d_model); the tokens at ``global_indices`` see and are seen by all."""
        names = ("query", "key", "value", "query_global", "key_global", "value_global")
        local_q, local_k, local_v, q, k, v = (split_heads(getattr(self, name)(x), self.num_heads) for name in names)
        heads = longformer_attention(
            local_q,
            local_k,
            local_v,
            self.window,
            global_indices,
            dilation=self.dilation,
            global_query=q,
            global_key=k,
            global_value=v,
        )
        return self.out_proj(merge_heads(heads))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


class _Layer(nn.Module):
    """What an encoder and a decoder layer share: a feed-forward network, and how a sublayer is added and normalised."""

    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    norm3: nn.LayerNorm

    def __init__(
        self, d_model: int, d_ff: int, dropout: float, activation: str, norm_first: bool, norms: int, **options: Any
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_model, check_integer("d_ff", d_ff, least=1), **options)
        self.linear2 = nn.Linear(d_ff, d_model, **options)
        for i in range(1, norms + 1):
            setattr(self, f"norm{i}", nn.LayerNorm(d_model, **options))
        self.drop = nn.Dropout(check_probability("dropout", dropout))
        self.activation = check_choice("activation", activation, tuple(_ACTIVATIONS))
        self.norm_first = norm_first

    def _think(self, x: Tensor) -> Tensor:
        return self.linear2(self.drop(_ACTIVATIONS[self.activation](self.linear1(x))))

    def _sublayer(self, x: Tensor, update: Callable[[Tensor], Tensor], norm: nn.Module) -> Tensor:
        if self.norm_first:
            return x + self.drop(update(norm(x)))
        return norm(x + self.drop(update(x)))


class EncoderLayer(_Layer):
    """A Transformer block: self-attention, then a feed-forward network; with ``is_causal`` the block of a GPT.

    Parameters
    ----------
    d_model, num_heads : int
        As in ``MultiHeadAttention``.
    d_ff : int
        Width inside the feed-forward network.
    dropout : float, default 0.0
        Of the attention weights, the hidden layer and each update.
    activation : {"relu", "gelu", "gelu_tanh", "silu"}
        Of the feed-forward network.
    norm_first : bool, default False
        False normalises after each sum (the 2017 paper), True before each sublayer.
    device, dtype : optional
        Of the parameters.
    **attention
        Further options of ``MultiHeadAttention``, such as ``num_kv_heads`` and ``position``.

    Notes
    -----
    A state dict of ``torch.nn.TransformerEncoderLayer`` loads as it is.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> layer = at.nn.EncoderLayer(16, 4, 64, norm_first=True, position="rope")
    >>> layer(torch.zeros(2, 5, 16), is_causal=True).shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        dropout: float = 0.0,
        activation: str = "relu",
        norm_first: bool = False,
        device: Any = None,
        dtype: Any = None,
        **attention: Any,
    ) -> None:
        options = {"device": device, "dtype": dtype}
        super().__init__(d_model, d_ff, dropout, activation, norm_first, 2, **options)
        self.self_attn = MultiHeadAttention(d_model, num_heads, dropout=dropout, **attention, **options)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
        """Update ``x`` (..., n, d_model); options are those of ``MultiHeadAttention``: is_causal, mask_mod, cache."""
        x = self._sublayer(x, lambda y: self.self_attn(y, attn_mask=attn_mask, **options), self.norm1)
        return self._sublayer(x, self._think, self.norm2)


class DecoderLayer(_Layer):
    """A decoder block: self-attention, attention to the source, then a feed-forward network.

    Parameters
    ----------
    d_model, num_heads, d_ff : int
        As in ``EncoderLayer``.
    d_memory : int, optional
        Width of the source; d_model unless given.
    dropout, activation, norm_first, device, dtype : various
        As in ``EncoderLayer``.
    **attention
        Further options of the self-attention.

    Notes
    -----
    A state dict of ``torch.nn.TransformerDecoderLayer`` loads as it is.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, sections 3.1 and 3.2.3.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> layer = at.nn.DecoderLayer(16, 4, 64)
    >>> layer(torch.zeros(2, 5, 16), torch.zeros(2, 7, 16)).shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        d_memory: int | None = None,
        dropout: float = 0.0,
        activation: str = "relu",
        norm_first: bool = False,
        device: Any = None,
        dtype: Any = None,
        **attention: Any,
    ) -> None:
        options = {"device": device, "dtype": dtype}
        super().__init__(d_model, d_ff, dropout, activation, norm_first, 3, **options)
        self.self_attn = MultiHeadAttention(d_model, num_heads, dropout=dropout, **attention, **options)
        self.multihead_attn = MultiHeadAttention(
            d_model, num_heads, d_key=d_memory, d_value=d_memory, dropout=dropout, **options
        )

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        attn_mask: Tensor | None = None,
        *,
        memory_mask: Tensor | None = None,
        is_causal: bool = True,
        **options: Any,
    ) -> Tensor:
        """Update ``x`` (..., n, d_model) with the source ``memory`` (..., m, d_memory); causal unless told not."""

        def attend(y: Tensor) -> Tensor:
            return self.self_attn(y, attn_mask=attn_mask, is_causal=is_causal, **options)

        x = self._sublayer(x, attend, self.norm1)
        x = self._sublayer(x, lambda y: self.multihead_attn(y, memory, attn_mask=memory_mask), self.norm2)
        return self._sublayer(x, self._think, self.norm3)


class HardAttention(nn.Module):
    """Attention that reads one value: drawn while training, the likeliest in evaluation.

    Parameters
    ----------
    d_query, d_key, d_attention : int
        As in ``BahdanauAttention``, which computes the scores.
    estimator : {"reinforce", "straight_through", "gumbel"}, default "reinforce"
        How the scores learn: from the reward of what was drawn (see ``reinforce_loss``), from the gradient of the
        weights in place of the draw, or from that of a relaxed draw.
    temperature : float, default 1.0
        Of the relaxed draw.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError
        If ``estimator`` is unknown or ``temperature`` is not above 0.

    References
    ----------
    Xu et al. (2015), Show, Attend and Tell: Neural Image Caption Generation with Visual Attention, section 4.1;
    Jang, Gu and Poole (2016), Categorical Reparameterization with Gumbel-Softmax, section 2.2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> layer = at.nn.HardAttention(4, 6, 8)
    >>> q, k = torch.zeros(2, 1, 4), torch.zeros(2, 5, 6)
    >>> output, choice, s = layer(q, k, generator=torch.Generator().manual_seed(0))
    >>> loss = at.reinforce_loss(s, choice.argmax(dim=-1), reward=torch.ones(2, 1))
    >>> output.shape, choice.sum(dim=-1).unique()
    (torch.Size([2, 1, 6]), tensor([1.]))
    """

    def __init__(
        self,
        d_query: int,
        d_key: int,
        d_attention: int,
        *,
        estimator: str = "reinforce",
        temperature: float = 1.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.estimator = check_choice("estimator", estimator, ("reinforce", "straight_through", "gumbel"))
        self.temperature = check_positive("temperature", temperature)
        self.score = BahdanauAttention(d_query, d_key, d_attention, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        return f"estimator={self.estimator!r}" + (
            f", temperature={self.temperature}" if self.estimator == "gumbel" else ""
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what was read (..., n, d_v), the one-hot choice (..., n, m) and the scores it was drawn from.

        While training a ``generator`` is required: it is the source of the draw.
        """
        s = _masked(self.score.scores(query, key), attn_mask)
        soft = core.softmax(s)
        noise: Tensor | float = 0.0
        if self.training:
            check_generator("generator", generator)
            noise = selection.gumbel_noise(tuple(s.shape), generator, dtype=s.dtype)
        relaxed = core.softmax(s + noise, temperature=self.temperature)
        hard = selection.straight_through(relaxed if self.estimator == "gumbel" else relaxed.detach())
        hard = hard * (s > -torch.inf).any(dim=-1, keepdim=True)  # nothing allowed, nothing chosen
        if self.estimator == "straight_through":
            hard = selection._StraightThrough.apply(soft, hard)
        return hard @ (key if value is None else value), hard, s


class GlimpseAttention(nn.Module):
    """Look at an image through a small window, coarser farther out, and decide where to look next.

    Parameters
    ----------
    size : int
        Pixels along a side of the window.
    num_scales : int
        Windows of ``size``, ``2 size``, ``4 size``, ... pixels, each brought to ``size``.
    channels : int
        Of the image.
    d_hidden : int
        Width of what is seen and of where, each.
    d_model : int
        Width of the glimpse, and of the state that chooses the next place.
    std : float, default 0.1
        Standard deviation of the place about what the state proposes.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError
        If a number is below 1 or ``std`` is not above 0.

    Notes
    -----
    Places are (row, column) in [-1, 1], the middle at 0. A window is cut at whole pixels, so a place gets no gradient
    through it: it learns by REINFORCE from the log-probability that ``next_location`` returns.

    References
    ----------
    Mnih et al. (2014), Recurrent Models of Visual Attention, section 3.1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> layer = at.nn.GlimpseAttention(8, 2, 1, d_hidden=16, d_model=32)
    >>> glimpse = layer(torch.zeros(3, 1, 28, 28), torch.zeros(3, 2))
    >>> place, log_p = layer.next_location(glimpse, generator=torch.Generator().manual_seed(0))
    >>> glimpse.shape, place.shape, log_p.shape
    (torch.Size([3, 32]), torch.Size([3, 2]), torch.Size([3]))
    """

    def __init__(
        self,
        size: int,
        num_scales: int,
        channels: int,
        *,
        d_hidden: int,
        d_model: int,
        std: float = 0.1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        options = {"device": device, "dtype": dtype}
        self.size, self.num_scales = (
            check_integer("size", size, least=1),
            check_integer("num_scales", num_scales, least=1),
        )
        self.std = check_positive("std", std)
        self.what = nn.Linear(
            num_scales * check_integer("channels", channels, least=1) * size * size, d_hidden, **options
        )
        self.where = nn.Linear(2, d_hidden, **options)
        self.join = nn.Linear(2 * d_hidden, d_model, **options)
        self.place = nn.Linear(d_model, 2, **options)

    def extra_repr(self) -> str:
        return f"size={self.size}, num_scales={self.num_scales}, std={self.std}"

    def patches(self, image: Tensor, location: Tensor) -> Tensor:
        """Return what the window shows: the image around a place at each scale.

        Parameters
        ----------
        image : torch.Tensor, shape (batch, channels, height, width)
        location : torch.Tensor, shape (batch, 2)
            Row and column in [-1, 1].

        Returns
        -------
        torch.Tensor, shape (batch, num_scales, channels, size, size)
            0 beyond the border of the image.

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> layer = at.nn.GlimpseAttention(2, 1, 1, d_hidden=4, d_model=4)
        >>> layer.patches(torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 2))[0, 0, 0]
        tensor([[ 5.,  6.],
                [ 9., 10.]])
        """
        if check_tensor("image", image).dim() != 4 or tuple(location.shape) != (image.shape[0], 2):
            raise ValueError(
                f"image has shape {tuple(image.shape)} and location {tuple(location.shape)};"
                " wanted (batch, channels, height, width) and (batch, 2)"
            )
        extent = torch.tensor(image.shape[-2:], device=image.device, dtype=location.dtype)
        middle = (location + 1) / 2 * extent  # in pixels from the upper left corner
        out = []
        for scale in range(self.num_scales):
            side = self.size * 2**scale
            first = torch.round(middle - side / 2).long()  # (batch, 2)
            step = torch.arange(side, device=image.device)
            rows, columns = first[:, :1] + step, first[:, 1:] + step  # (batch, side)
            inside = ((rows >= 0) & (rows < image.shape[-2]))[:, :, None] & (
                (columns >= 0) & (columns < image.shape[-1])
            )[:, None, :]
            batch = torch.arange(image.shape[0], device=image.device)[:, None, None]
            rows, columns = rows.clamp(0, image.shape[-2] - 1), columns.clamp(0, image.shape[-1] - 1)
            cut = image.movedim(1, -1)[batch, rows[:, :, None], columns[:, None, :]]  # (batch, side, side, channels)
            cut = (cut * inside[..., None]).movedim(-1, 1)
            out.append(F.avg_pool2d(cut, 2**scale) if scale else cut)
        return torch.stack(out, dim=1)

    def forward(self, image: Tensor, location: Tensor) -> Tensor:
        """Return the glimpse (batch, d_model) of ``image`` (batch, channels, height, width) at a place (batch, 2)."""
        what = F.relu(self.what(self.patches(image, location).flatten(1)))
        where = F.relu(self.where(location.detach()))
        return F.relu(self.join(torch.cat([what, where], dim=-1)))

    def next_location(self, state: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the next place and the logarithm of its probability density.

        Parameters
        ----------
        state : torch.Tensor, shape (batch, d_model)
            What the model has seen so far. It gets no gradient from here, as in the paper.
        generator : torch.Generator, optional
            Source of the draw; required while training. In evaluation the proposed place itself is taken.

        Returns
        -------
        location : torch.Tensor, shape (batch, 2)
            In [-1, 1], without gradient.
        log_p : torch.Tensor, shape (batch,)
            Of the draw before it was brought into [-1, 1].

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> layer = at.nn.GlimpseAttention(2, 1, 1, d_hidden=4, d_model=4).eval()
        >>> layer.next_location(torch.zeros(3, 4))[0].shape
        torch.Size([3, 2])
        """
        mean = torch.tanh(self.place(state.detach()))
        drawn = mean.detach()
        if self.training:
            source = check_generator("generator", generator)
            noise = torch.randn(mean.shape, generator=source, device=mean.device, dtype=mean.dtype)
            drawn = drawn + self.std * noise
        log_p = torch.distributions.Normal(mean, self.std, validate_args=False).log_prob(drawn).sum(dim=-1)
        return drawn.clamp(-1.0, 1.0), log_p
