"""A key/value cache whose tensors never change shape, so that one compiled graph serves every step of decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attn_guide._checks import check_integer
from attn_guide.masks import Mask, causal, full, sinks, sliding_window

from ._checks import check_attention_inputs, check_tensor
from .core import MaskMod, ScoreMod, _visible
from .dispatch import scaled_dot_product_attention

__all__ = ["KVCache"]

Rope = Callable[[Tensor, Tensor], Tensor]


class KVCache:
    """Keys and values of the tokens seen so far, in buffers reserved once, and attention over them.

    Parameters
    ----------
    batch : int
        Sequences decoded together.
    num_kv_heads : int
        Key/value heads.
    capacity : int, optional
        Tokens to reserve memory for. Needed without a window; with one, ``window + sinks`` slots are enough.
    d_k : int
        Width of a key.
    d_v : int, optional
        Width of a value; d_k unless given.
    window : int, optional
        How many keys a query sees, its own included. Older ones are overwritten (a ring buffer).
    sinks : int, default 0
        How many tokens at the start stay visible although the window has passed them.
    is_causal : bool, default True
        False for cross-attention: the source's keys are stored once and every query sees all of them.
    rope : callable, optional
        ``rope(x, positions) -> x`` rotates keys when they are stored and queries when they attend.
    value_in_key : bool, default False
        A value is the first d_v numbers of its key and is not stored again: the cache of latent attention.
    device, dtype : optional
        Of the buffers; torch's defaults unless given.

    Raises
    ------
    ValueError
        If a count is below 1, neither capacity nor window is given, or options exclude each other.

    Notes
    -----
    The number of tokens seen is a tensor, and what is stored beyond it is hidden by a mask, so neither the shapes nor
    a Python number change from step to step: ``torch.compile`` makes one graph, and a CUDA graph can replay it. A step
    costs O(capacity d) per head. Nothing stored carries gradients.

    References
    ----------
    Shazeer (2019), Fast Transformer Decoding: One Write-Head is All You Need, section 2.4; Jiang et al. (2023),
    Mistral 7B, section 2; Xiao et al. (2024), Efficient Streaming Language Models with Attention Sinks, section 3.2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> q, k, v = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    >>> cache = at.KVCache(1, 2, 8, 4)
    >>> prompt = cache.attend(q[:, :, :3], k[:, :, :3], v[:, :, :3])
    >>> steps = [cache.attend(q[:, :, t : t + 1], k[:, :, t : t + 1], v[:, :, t : t + 1]) for t in (3, 4)]
    >>> whole = at.attention(q, k, v, is_causal=True)
    >>> torch.allclose(torch.cat([prompt, *steps], dim=2), whole, atol=1e-6)
    True
    """

    def __init__(
        self,
        batch: int,
        num_kv_heads: int,
        capacity: int | None,
        d_k: int,
        d_v: int | None = None,
        *,
        window: int | None = None,
        sinks: int = 0,
        is_causal: bool = True,
        rope: Rope | None = None,
        value_in_key: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.window = None if window is None else check_integer("window", window, least=1)
        self.sinks = check_integer("sinks", sinks)
        self.is_causal, self.rope = bool(is_causal), rope
        if self.sinks and self.window is None:
            raise ValueError(f"sinks is {sinks} and window is None; wanted a window, without one nothing is evicted")
        if not self.is_causal and (self.window is not None or rope is not None):
            raise ValueError("window and rope need is_causal=True: a query from another sequence has no position here")
        if self.window is not None:
            slots = self.window + self.sinks
        elif capacity is None:
            raise ValueError("capacity is None; wanted the most tokens to store, or a window")
        else:
            slots = check_integer("capacity", capacity, least=1)
        b, h = check_integer("batch", batch, least=1), check_integer("num_kv_heads", num_kv_heads, least=1)
        d_k = check_integer("d_k", d_k, least=1)
        self.d_v = d_k if d_v is None else check_integer("d_v", d_v, least=1)
        if value_in_key and self.d_v > d_k:
            raise ValueError(f"d_v is {self.d_v}; wanted at most d_k, {d_k}, since values are read out of keys")
        # One slot more with a window: what a long prompt evicts at once is written there, and never read.
        spare = 0 if self.window is None else 1
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self._key = torch.zeros(b, h, slots + spare, d_k, **options)
        self._value = (
            self._key[..., : self.d_v] if value_in_key else torch.zeros(b, h, slots + spare, self.d_v, **options)
        )
        self._value_in_key = value_in_key
        self._position = torch.full((slots + spare,), -1, device=device)  # of the token in each slot; -1 is none
        self._slots = slots
        self.length = torch.zeros((), dtype=torch.long, device=device)  # tokens seen, evicted ones included
        self._empty = True

    def __len__(self) -> int:
        """Return the number of tokens seen, which is the position of the next one."""
        return int(self.length)

    @property
    def mask(self) -> Mask:
        """The mask of the whole sequence that the cache follows.

        Examples
        --------
        >>> import attn_guide.torch as at
        >>> at.KVCache(1, 1, None, 4, window=4, sinks=2).mask
        sinks(2) | causal & sliding_window(3, 0)
        """
        if not self.is_causal:
            return full
        if self.window is None:
            return causal
        window = causal & sliding_window(self.window - 1, 0)
        return sinks(self.sinks) | window if self.sinks else window

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, reserved for good.

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> at.KVCache(2, 4, 100, 8, dtype=torch.float16).nbytes == 2 * 2 * 4 * 100 * 8 * 2
        True
        """
        buffers = (self._key,) if self._value_in_key else (self._key, self._value)
        return sum(x.numel() * x.element_size() for x in buffers)

    def append(self, key: Tensor, value: Tensor | None = None) -> None:
        """Store the keys and values of the next tokens; a window overwrites what it has passed.

        Parameters
        ----------
        key : torch.Tensor, shape (batch, num_kv_heads, t, d_k)
        value : torch.Tensor, shape (batch, num_kv_heads, t, d_v)
            The next t tokens; no value with ``value_in_key``.

        Raises
        ------
        TypeError, ValueError
            If shapes or dtypes do not fit, or the cache is full.

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> cache = at.KVCache(1, 1, 4, 2)
        >>> cache.append(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2))
        >>> len(cache)
        3
        """
        key, value, position = self._incoming(key, value)
        self._store(key, value, position)

    def attend(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        scale: float | None = None,
        mask_mod: MaskMod | None = None,
        score_mod: ScoreMod | None = None,
        softcap: float | None = None,
        return_weights: bool = False,
    ) -> Any:
        """Store the next tokens, if given, and attend from the newest ones to everything stored.

        Parameters
        ----------
        query : torch.Tensor, shape (batch, h, n, d_k)
            Queries of the newest n tokens (or of another sequence, with ``is_causal=False``).
        key : torch.Tensor, shape (batch, num_kv_heads, t, d_k), optional
        value : torch.Tensor, shape (batch, num_kv_heads, t, d_v), optional
            Keys and values of the next t tokens.
        scale, softcap : various
            As in ``scaled_dot_product_attention``.
        mask_mod, score_mod : callable, optional
            As there; their indices are positions in the whole sequence.
        return_weights : bool, default False
            Also return the weights.

        Returns
        -------
        output : torch.Tensor, shape (batch, h, n, d_v)
        weights : torch.Tensor, shape (batch, h, n, len(cache))
            Only with ``return_weights``. Evicted keys have weight 0.

        Raises
        ------
        TypeError, ValueError
            If shapes or dtypes do not fit, there are more queries than tokens, or the cache is full.

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> cache = at.KVCache(1, 2, 16, 4)
        >>> cache.attend(torch.zeros(1, 6, 3, 4), torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)).shape
        torch.Size([1, 6, 3, 4])
        """
        n = check_tensor("query", query).shape[-2]
        if key is None:
            self._check_rows(n)
            k, v, stored = self._key, self._value, self._position
        else:
            first = self._empty
            new_k, new_v, new = self._incoming(key, value)
            check_attention_inputs(query, new_k, new_v, enable_gqa=True)
            if self.is_causal and n > new_k.shape[-2]:
                raise ValueError(f"query has length {n}; wanted at most the {new_k.shape[-2]} tokens that come with it")
            if first and self.is_causal and n == new_k.shape[-2] and mask_mod is None and score_mod is None:
                self._store(new_k, new_v, new)  # a whole sequence at once: what is stored need not be read back
                q = query if self.rope is None else self.rope(query, new)
                mask = None if self.window is None else self.mask
                return scaled_dot_product_attention(
                    q,
                    new_k,
                    new_v,
                    is_causal=mask is None,
                    scale=scale,
                    enable_gqa=True,
                    mask_mod=mask,
                    softcap=softcap,
                    return_weights=return_weights,
                )
            if self.window is None or new_k.shape[-2] == 1:
                self._store(new_k, new_v, new)
                k, v, stored = self._key, self._value, self._position
            else:  # the first of several new queries looks back at keys that the last of them overwrites
                k, v = torch.cat([self._key, new_k], dim=-2), torch.cat([self._value, new_v], dim=-2)
                stored = torch.cat([self._position, new])
                self._store(new_k, new_v, new)
        at = torch.arange(n, device=query.device) + (self.length - n if self.is_causal else 0)  # (n,)
        q = query if self.rope is None else self.rope(query, at)
        visible = self._sees(at[:, None], stored)  # (n, slots)
        if mask_mod is not None:
            batch = torch.arange(q.shape[0], device=q.device)[:, None, None, None]
            heads = torch.arange(q.shape[1], device=q.device)[:, None, None]
            shape = (*q.shape[:2], n, len(stored))
            seen = _visible(_Unbounded(mask_mod), batch, heads, at[:, None], stored.clamp_min(0), shape)
            visible = visible & seen
        placed = None
        if score_mod is not None:

            def placed(score: Tensor, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Tensor:
                return score_mod(score, b, h, at[q_idx], stored[kv_idx])

        result = scaled_dot_product_attention(
            q,
            k,
            v,
            visible,
            scale=scale,
            enable_gqa=True,
            score_mod=placed,
            softcap=softcap,
            return_weights=return_weights,
        )
        if not return_weights:
            return result
        output, weights = result  # a slot without a token goes to one column too many
        spread = weights.new_zeros(*weights.shape[:-1], len(self) + 1)
        columns = torch.where(stored < 0, len(self), stored).expand_as(weights)
        return output, spread.scatter_add(-1, columns, weights)[..., :-1]

    def truncate(self, length: int) -> None:
        """Forget the newest tokens, as after a rejected draft; ``truncate(0)`` empties the cache.

        Parameters
        ----------
        length : int
            Tokens to keep.

        Raises
        ------
        ValueError
            If the cache has seen fewer, or has a window and is not emptied: what it evicted cannot come back.

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> cache = at.KVCache(1, 1, 4, 2)
        >>> cache.append(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2))
        >>> cache.truncate(1)
        >>> len(cache)
        1
        """
        length = check_integer("length", length)
        if length > len(self):
            raise ValueError(f"length is {length}; wanted at most the {len(self)} tokens seen")
        if self.window is not None and 0 < length < len(self):
            raise ValueError(f"length is {length}; wanted 0: a window has evicted tokens that would have to come back")
        self._position.masked_fill_(self._position >= length, -1)
        self.length.fill_(length)
        self._empty = length == 0

    def reorder(self, indices: Tensor) -> None:
        """Let batch item i go on from what item ``indices[i]`` has stored, as beam search needs.

        Parameters
        ----------
        indices : torch.Tensor of int, shape (batch,)

        Raises
        ------
        ValueError
            If there are not ``batch`` of them.

        Examples
        --------
        >>> import torch, attn_guide.torch as at
        >>> cache = at.KVCache(2, 1, 4, 1)
        >>> cache.append(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        >>> cache.reorder(torch.tensor([1, 1]))
        >>> cache.attend(torch.zeros(2, 1, 1, 1)).ravel()
        tensor([2., 2.])
        """
        if tuple(indices.shape) != (self._key.shape[0],):
            raise ValueError(f"indices has shape {tuple(indices.shape)}; wanted ({self._key.shape[0]},)")
        self._key.copy_(self._key[indices])
        if not self._value_in_key:
            self._value.copy_(self._value[indices])

    def _check_rows(self, n: int) -> None:
        """Raise if there are more queries than tokens, or one would need keys that were overwritten."""
        if torch.compiler.is_compiling() or self.length.device.type != "cpu" or not self.is_causal:
            return
        if n > len(self):
            raise ValueError(f"query has length {n}; wanted at most the {len(self)} tokens seen")
        if self.window is not None and n > 1 and len(self) > self.window:
            raise ValueError(f"query has length {n}; wanted 1: earlier queries need keys that the window has evicted")

    def _incoming(self, key: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next tokens' keys, rotated, their values and their positions, or raise."""
        if self._value_in_key:
            if value is not None:
                raise TypeError("value is given; wanted none, since this cache reads values out of its keys")
            value = check_tensor("key", key)[..., : self.d_v]
        elif value is None:
            raise TypeError("value is None; wanted key and value together, or neither")
        for name, x, buffer in (("key", key, self._key), ("value", value, self._value)):
            wanted = (*buffer.shape[:2], "t", buffer.shape[3])
            if check_tensor(name, x).dim() != 4 or (*x.shape[:2], x.shape[3]) != (*buffer.shape[:2], buffer.shape[3]):
                raise ValueError(f"{name} has shape {tuple(x.shape)}; wanted {wanted}")
            if x.dtype != buffer.dtype:
                raise TypeError(f"{name} has dtype {x.dtype}; wanted that of the cache, {buffer.dtype}")
        t = key.shape[-2]
        if value.shape[-2] != t:
            raise ValueError(f"value has length {value.shape[-2]}; wanted the length of key, {t}")
        on_host = self.length.device.type == "cpu" and not torch.compiler.is_compiling()  # elsewhere a look would wait
        if on_host and self.window is None and len(self) + t > self._slots:
            room = self._slots - len(self)
            raise ValueError(f"key has length {t}; wanted at most {room}, for which the cache has room")
        position = self.length + torch.arange(t, device=key.device)
        return key if self.rope is None else self.rope(key, position), value, position

    @torch.no_grad()
    def _store(self, key: Tensor, value: Tensor, position: Tensor) -> None:
        slot, kept = position, position
        if self.window is not None:
            slot = torch.where(position < self.sinks, position, self.sinks + (position - self.sinks) % self.window)
            stays = (position < self.sinks) | (position >= self.length + len(position) - self.window)
            slot, kept = torch.where(stays, slot, self._slots), torch.where(stays, position, -1)
        self._key.index_copy_(2, slot, key)
        if not self._value_in_key:
            self._value.index_copy_(2, slot, value)
        self._position.index_copy_(0, slot, kept)
        self.length.add_(len(position))
        self._empty = False

    def _sees(self, at: Tensor, stored: Tensor) -> Tensor:
        visible = stored >= 0
        if self.is_causal:
            visible = visible & (stored <= at)
        if self.window is not None:
            visible = visible & ((stored > at - self.window) | (stored < self.sinks))
        return visible


class _Unbounded:
    """A predicate whose limits are not checked here: the cache's slots are no positions."""

    def __init__(self, mask_mod: MaskMod) -> None:
        self.mask_mod = mask_mod

    def __call__(self, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return self.mask_mod(b, h, q_idx, kv_idx)
