"""Attention in linear time: feature maps, chunked sums, random features and the delta rule."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attn_guide._checks import check_choice, check_integer

from ._checks import broadcast_shape, check_attention_inputs, check_finite, check_generator, check_tensor, compute_dtype

__all__ = [
    "delta_rule_attention",
    "elu_feature_map",
    "linear_attention",
    "performer_attention",
    "random_feature_projection",
    "random_features",
]

FeatureMap = Callable[[Tensor], Tensor]


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    feature_map: str | FeatureMap = "elu",
    is_causal: bool = False,
    form: str = "chunked",
    normalize: bool = True,
    chunk_size: int = 64,
    enable_gqa: bool = False,
) -> Tensor:
    """Attend with weights ``phi(q) . phi(k)`` in place of ``exp(q . k)``.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n, d_k)
    key : torch.Tensor, shape (..., h_kv, m, d_k)
    value : torch.Tensor, shape (..., h_kv, m, d_v)
        Leading dimensions broadcast.
    feature_map : {"elu", "relu", "identity"} or callable, default "elu"
        The map phi, or a function of a tensor (..., n, d_k) that returns (..., n, features).
    is_causal : bool, default False
        Let query i see keys 0 ... i only (aligned top-left).
    form : {"chunked", "parallel", "recurrent"}, default "chunked"
        How the same causal sums are taken.
    normalize : bool, default True
        Divide by the sum of the weights; a query whose weights sum to 0 gives 0.
    chunk_size : int, default 64
        Positions per chunk of the chunked form.
    enable_gqa : bool, default False
        Let query head i read key/value head ``i // (h // h_kv)``.

    Returns
    -------
    torch.Tensor, shape (..., h, n, d_v)
        In the dtype of the inputs; the forms agree to rounding.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or head counts do not fit, or a name is unknown.

    Notes
    -----
    Chunked, all chunks at once: O(h n (f d_v + chunk_size (f + d_v))) time and O(h (n / chunk_size) f d_v) memory
    for the states between chunks. Without a causal mask every form is one product.

    References
    ----------
    Katharopoulos et al. (2020), Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention,
    equations 4-6 and 16-20; Yang et al. (2023), Gated Linear Attention Transformers with Hardware-Efficient Training,
    section 2.2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> q, k, v = torch.randn(3, 100, 8, generator=torch.Generator().manual_seed(0))
    >>> chunked = at.linear_attention(q, k, v, is_causal=True)
    >>> torch.allclose(chunked, at.linear_attention(q, k, v, is_causal=True, form="parallel"), atol=1e-5)
    True
    """
    phi = _feature_map(feature_map)
    return _attend(query, key, value, phi, phi, is_causal, form, normalize, chunk_size, enable_gqa)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    map_query: FeatureMap,
    map_key: FeatureMap,
    is_causal: bool,
    form: str,
    normalize: bool,
    chunk_size: int,
    enable_gqa: bool,
) -> Tensor:
    check_attention_inputs(query, key, value, enable_gqa)
    check_choice("form", form, ("parallel", "recurrent", "chunked"))
    chunk_size = check_integer("chunk_size", chunk_size, least=1)
    dtype, compute = query.dtype, compute_dtype(query)
    q, k, v = (x.to(compute) for x in (query, key, value))
    if enable_gqa:  # (..., h_kv, group, n, d_k) against (..., h_kv, 1, m, d_k)
        q = q.unflatten(-3, (k.shape[-3], q.shape[-3] // k.shape[-3]))
        k, v = k[..., None, :, :], v[..., None, :, :]
    q, k = map_query(q), map_key(k)  # (..., n, features), (..., m, features)
    if normalize:  # a column of ones among the values carries the sum of the weights along
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    if not is_causal:
        out = q @ (k.transpose(-1, -2) @ v)
    elif form == "parallel":
        out = (q @ k.transpose(-1, -2)).tril() @ v
    elif form == "recurrent":
        out = _recurrent(q, k, v)
    else:
        out = _chunked(q, k, v, chunk_size)
    if normalize:
        total = out[..., -1:]
        out = out[..., :-1] / torch.where(total == 0, 1.0, total)
    if enable_gqa:
        out = out.flatten(-4, -3)
    return out.to(dtype)


def _recurrent(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Take one position at a time: the state takes in k_t v_t^T, then the query reads it."""
    k, v = _fit(k, q.shape[-2]), _fit(v, q.shape[-2])
    state = k.new_zeros(k.shape[-1], v.shape[-1])  # (features, d_v), and its leading dimensions with the first token
    out = [q[..., :0, :] @ state]
    for t in range(q.shape[-2]):
        state = state + k[..., t, :, None] * v[..., t, None, :]
        out.append(q[..., t, None, :] @ state)
    return torch.cat(out, dim=-2)


def _chunked(q: Tensor, k: Tensor, v: Tensor, chunk: int) -> Tensor:
    """Take all pairs inside each chunk, and for what came before it the sum of the earlier chunks' states."""
    n = q.shape[-2]
    padded = -(-n // chunk) * chunk
    q, k, v = (_fit(x, padded).unflatten(-2, (padded // chunk, chunk)) for x in (q, k, v))  # (..., c, chunk, width)
    states = k.transpose(-1, -2) @ v  # (..., c, features, d_v)
    before = F.pad(states.cumsum(dim=-3)[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
    out = q @ before + (q @ k.transpose(-1, -2)).tril() @ v
    return out.flatten(-3, -2)[..., :n, :]


def _fit(x: Tensor, length: int) -> Tensor:
    """Return (..., length, width): rows cut off, or zeros, which add nothing to any sum, put behind."""
    return F.pad(x, (0, 0, 0, length - x.shape[-2]))


def elu_feature_map(x: Tensor) -> Tensor:
    """Return ``elu(x) + 1``: x + 1 above zero and exp(x) below, so always positive.

    Parameters
    ----------
    x : torch.Tensor
        Any shape.

    Returns
    -------
    torch.Tensor
        The shape and dtype of ``x``.

    Raises
    ------
    TypeError
        If ``x`` is no tensor of real numbers.

    References
    ----------
    Katharopoulos et al. (2020), Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention,
    equation 7.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.elu_feature_map(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0.3679, 1.0000, 3.0000])
    """
    check_tensor("x", x)
    return torch.where(x > 0, x + 1.0, x.clamp_max(0.0).exp())


_FEATURE_MAPS: dict[str, FeatureMap] = {"elu": elu_feature_map, "relu": torch.relu, "identity": lambda x: x}


def _feature_map(feature_map: str | FeatureMap) -> FeatureMap:
    if isinstance(feature_map, str):
        return _FEATURE_MAPS[check_choice("feature_map", feature_map, tuple(_FEATURE_MAPS))]
    if not callable(feature_map):
        raise TypeError(f"feature_map is {feature_map!r}; wanted a name or a function of a tensor (..., n, d_k)")

    def checked(x: Tensor) -> Tensor:
        features = feature_map(x)
        if not isinstance(features, Tensor) or features.shape[:-1] != x.shape[:-1] or not features.is_floating_point():
            raise ValueError(
                f"feature_map returned {tuple(getattr(features, 'shape', ()))} for shape {tuple(x.shape)};"
                " wanted floats with the same leading dimensions"
            )
        return features.to(x.dtype)

    return checked


# --------------------------------------------------------------------------------------- random features


def random_feature_projection(
    d_k: int, features: int, *, generator: torch.Generator, orthogonal: bool = True, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw the directions for ``random_features``: Gaussian, and orthogonal in groups of ``d_k``.

    Parameters
    ----------
    d_k : int
        Width of the vectors to be mapped.
    features : int
        Number of directions.
    generator : torch.Generator
        The source of randomness; the result is on its device.
    orthogonal : bool, default True
        Make the directions of each group of ``d_k`` orthogonal.
    dtype : torch.dtype, optional
        torch's default unless given.

    Returns
    -------
    torch.Tensor, shape (features, d_k)

    Raises
    ------
    ValueError, TypeError
        If a size is less than 1, or ``generator`` is not a torch Generator.

    References
    ----------
    Choromanski et al. (2021), Rethinking Attention with Performers, section 2.4.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> w = at.random_feature_projection(4, 6, generator=torch.Generator().manual_seed(0))
    >>> product = w[:4] @ w[:4].T
    >>> torch.allclose(product, torch.diag(product.diagonal()), atol=1e-5)
    True
    """
    d_k, features = check_integer("d_k", d_k, least=1), check_integer("features", features, least=1)
    check_generator("generator", generator)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    gaussian = torch.randn(features, d_k, **options)
    if orthogonal:
        basis, triangle = torch.linalg.qr(torch.randn(-(-features // d_k), d_k, d_k, **options))
        # With a positive diagonal the factorisation is unique, and the basis uniform over all rotations.
        basis = basis * triangle.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
        directions = basis.transpose(-1, -2).flatten(0, 1)[:features]
        gaussian = directions * gaussian.norm(dim=1, keepdim=True)
    return gaussian.to(dtype or torch.get_default_dtype())


def random_features(x: Tensor, projection: Tensor, *, kind: str = "positive", scale: float | None = None) -> Tensor:
    """Map x so that the product of two maps is ``exp(scale * x . y)`` on average over projections.

    Parameters
    ----------
    x : torch.Tensor, shape (..., d_k)
    projection : torch.Tensor, shape (features, d_k)
        From ``random_feature_projection``, the same for queries and keys.
    kind : {"positive", "trigonometric"}, default "positive"
        Exponentials, or cosines and sines.
    scale : float, optional
        1 / sqrt(d_k) unless given.

    Returns
    -------
    torch.Tensor, shape (..., features) or, trigonometric, (..., 2 features)

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, ``kind`` is unknown or ``scale`` is negative.

    References
    ----------
    Choromanski et al. (2021), Rethinking Attention with Performers, section 2.3 and lemma 1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> w = at.random_feature_projection(2, 100_000, generator=torch.Generator().manual_seed(0))
    >>> x, y = torch.tensor([1.0, 0.5]), torch.tensor([0.5, -0.5])
    >>> estimate = at.random_features(x, w, scale=1.0) @ at.random_features(y, w, scale=1.0)
    >>> bool(abs(estimate - torch.exp(x @ y)) < 0.02)
    True
    """
    check_choice("kind", kind, ("positive", "trigonometric"))
    dots, half_square = _project(x, projection, scale)
    if kind == "positive":
        features = torch.exp(dots - half_square)
    else:
        features = torch.exp(half_square) * torch.cat([dots.cos(), dots.sin()], dim=-1)
    return (features / sqrt(dots.shape[-1])).to(x.dtype)


def performer_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    projection: Tensor,
    *,
    is_causal: bool = False,
    form: str = "chunked",
    scale: float | None = None,
    chunk_size: int = 64,
    enable_gqa: bool = False,
) -> Tensor:
    """Approximate softmax attention in linear time, with positive random features.

    Parameters
    ----------
    query : torch.Tensor, shape (..., h, n, d_k)
    key : torch.Tensor, shape (..., h_kv, m, d_k)
    value : torch.Tensor, shape (..., h_kv, m, d_v)
        Leading dimensions broadcast.
    projection : torch.Tensor, shape (features, d_k)
        From ``random_feature_projection``: more features, less error.
    is_causal, form, chunk_size, enable_gqa : various
        As in ``linear_attention``.
    scale : float, optional
        1 / sqrt(d_k) unless given.

    Returns
    -------
    torch.Tensor, shape (..., h, n, d_v)

    Raises
    ------
    ValueError, TypeError
        As in ``linear_attention`` and ``random_features``.

    References
    ----------
    Choromanski et al. (2021), Rethinking Attention with Performers, algorithm 1.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> g = torch.Generator().manual_seed(0)
    >>> q, k, v = torch.randn(3, 50, 8, generator=g) / 2
    >>> out = at.performer_attention(q, k, v, at.random_feature_projection(8, 4096, generator=g))
    >>> bool((out - at.attention(q, k, v)).abs().mean() < 0.01)
    True
    """

    def map_query(q: Tensor) -> Tensor:  # a factor per query leaves its normalised weights alone
        dots, half_square = _project(q, projection, scale)
        exponent = dots - half_square
        return torch.exp(exponent - exponent.amax(dim=-1, keepdim=True))

    def map_key(k: Tensor) -> Tensor:  # and so does one factor for all keys of a head
        dots, half_square = _project(k, projection, scale)
        exponent = dots - half_square
        return torch.exp(exponent - exponent.amax(dim=(-2, -1), keepdim=True)) if exponent.numel() else exponent

    return _attend(query, key, value, map_query, map_key, is_causal, form, True, chunk_size, enable_gqa)


def _project(x: Tensor, projection: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """Return w . z for each direction w, (..., n, features), and |z|^2 / 2, (..., n, 1), for z = sqrt(scale) x."""
    check_tensor("x", x)
    check_tensor("projection", projection)
    if projection.dim() != 2 or projection.shape[1] != x.shape[-1] or projection.shape[0] == 0:
        raise ValueError(f"projection has shape {tuple(projection.shape)}; wanted (features, {x.shape[-1]})")
    scale = 1.0 / sqrt(x.shape[-1]) if scale is None else check_finite("scale", scale)
    if scale < 0.0:
        raise ValueError(f"scale is {scale}; wanted at least 0, since x is multiplied by its square root")
    z = x.to(compute_dtype(x)) * sqrt(scale)
    return z @ projection.to(z.dtype).T, z.square().sum(dim=-1, keepdim=True) / 2


# -------------------------------------------------------------------------------------------- delta rule


def delta_rule_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor,
    *,
    form: str = "chunked",
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Any:
    """Attend through a state that is corrected and not only added to: the delta rule.

    Parameters
    ----------
    query, key : torch.Tensor, shape (..., h, n, d_k)
    value : torch.Tensor, shape (..., h, n, d_v)
        Leading dimensions broadcast. Keys are used as they come; models bring them to length 1.
    beta : torch.Tensor, broadcastable to (..., h, n)
        How much of the difference is written.
    form : {"chunked", "recurrent"}, default "chunked"
        Chunk by chunk, with one triangular system for what a chunk writes, or one position at a time.
    chunk_size : int, default 64
        Positions per chunk.
    initial_state : torch.Tensor, shape (..., h, d_k, d_v), optional
        The state to start from.
    return_state : bool, default False
        Return the last state too.

    Returns
    -------
    out : torch.Tensor, shape (..., h, n, d_v)
    state : torch.Tensor, shape (..., h, d_k, d_v)
        Only with ``return_state``; in float32 for half precision.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit, query and key differ in length, or ``form`` is unknown.

    Notes
    -----
    Time O(h n (d_k d_v + c (d_k + d_v) + c^2)) chunked with c = chunk_size.

    References
    ----------
    Schlag et al. (2021), Linear Transformers Are Secretly Fast Weight Programmers, section 4.2; Yang et al. (2024),
    Parallelizing Linear Transformers with the Delta Rule over Sequence Length, section 3.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> key = torch.eye(2)[[0, 1, 0, 1]]
    >>> value = torch.tensor([[10.0], [20.0], [30.0], [40.0]])
    >>> at.delta_rule_attention(key, key, value, beta=torch.ones(4)).ravel()
    tensor([10., 20., 30., 40.])
    """
    lead = check_attention_inputs(query, key, value)
    check_choice("form", form, ("recurrent", "chunked"))
    step = 1 if form == "recurrent" else check_integer("chunk_size", chunk_size, least=1)
    n, dtype, compute = query.shape[-2], query.dtype, compute_dtype(query)
    if key.shape[-2] != n:
        raise ValueError(f"key has length {key.shape[-2]}; wanted the length of query, {n}: each step reads and writes")
    if broadcast_shape(check_tensor("beta", beta).shape, (*lead, n)) != (*lead, n):
        raise ValueError(f"beta has shape {tuple(beta.shape)}; wanted one that broadcasts to {(*lead, n)}")
    q, k, v = (x.to(compute).expand(*lead, *x.shape[-2:]) for x in (query, key, value))
    b = beta.to(compute).expand(*lead, n)[..., None]  # (..., n, 1)
    state = torch.zeros(*lead, k.shape[-1], v.shape[-1], dtype=compute, device=q.device)
    if initial_state is not None:
        if initial_state.shape != state.shape:
            raise ValueError(f"initial_state has shape {tuple(initial_state.shape)}; wanted {tuple(state.shape)}")
        state = initial_state.to(compute)
    out = [v[..., :0, :]]
    for t in range(0, n, step):
        now_q, now_k, now_v, now_b = (x[..., t : t + step, :] for x in (q, k, v, b))
        products = now_k @ now_k.transpose(-1, -2)
        # Position t writes beta_t (v_t - what k_t reads), and reads what the positions before it have written.
        system = torch.eye(products.shape[-1], dtype=compute, device=q.device) + (now_b * products).tril(-1)
        written = torch.linalg.solve_triangular(
            system, now_b * (now_v - now_k @ state), upper=False, unitriangular=True
        )
        out.append(now_q @ state + (now_q @ now_k.transpose(-1, -2)).tril() @ written)
        state = state + now_k.transpose(-1, -2) @ written
    result = torch.cat(out, dim=-2).to(dtype)
    return (result, state) if return_state else result
