"""The key/value cache: what a decoder keeps so that one new token does not repeat the work of all earlier ones.

A decoder makes one token at a time. The keys and values of earlier tokens do not change, because under a causal mask
nothing later reaches them, so they are computed once and kept. Each step then projects one token and compares one
query with the stored keys: O(n) work instead of O(n^2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import as_float_array, check_attention_inputs, check_integer, check_ndim
from .core import MaskMod, ScoreMod, scaled_dot_product_attention
from .heads import Rope
from .masks import Mask, causal, full, sinks, sliding_window

__all__ = ["KVCache", "kv_cache_bytes"]


class KVCache:
    """Keys and values of the tokens seen so far, and attention over them.

    Parameters
    ----------
    window : int, optional
        How many keys a query sees, its own included: ``sliding_window(window - 1, 0)``. Older keys are overwritten
        (a ring buffer), so memory stays at ``window + sinks`` tokens. Unlimited unless given.
    sinks : int, default 0
        How many tokens at the start stay visible although the window has passed them; needs ``window``.
    is_causal : bool, default True
        True for a decoder's own sequence. False for cross-attention: the source's keys are stored once and every
        query sees all of them.
    rope : callable, optional
        ``rope(x, positions) -> x`` rotates keys when they are stored and queries when they attend, at their positions
        in the whole sequence.
    capacity : int, default 16
        Tokens to reserve memory for; a full buffer doubles, so that n appends copy O(n) tokens in all.

    Raises
    ------
    ValueError
        If ``window`` is below 1, ``sinks`` is given without ``window``, or ``window`` or ``rope`` with
        ``is_causal=False``.

    Notes
    -----
    ``n`` queries that arrive together are the last ``n`` tokens of the sequence: their causal mask is aligned
    bottom-right. What the cache computes is ``scaled_dot_product_attention`` of the whole sequence under
    ``cache.mask``, restricted to the newest rows.

    Decoding token number n costs O(n d) per head with a cache and O(n^2 d) without, O(window d) with a window.

    Rotated keys stay as they were stored. StreamingLLM counts positions inside the cache instead, which a model needs
    only when it runs past the length it was trained for.

    References
    ----------
    Shazeer (2019), Fast Transformer Decoding: One Write-Head is All You Need, section 2.4; Jiang et al. (2023),
    Mistral 7B, section 2 (rolling buffer); Xiao et al. (2024), Efficient Streaming Language Models with Attention
    Sinks, section 3.2.

    Examples
    --------
    >>> import attn_guide as ag
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = rng.normal(size=(3, 2, 5, 4))               # 2 heads, 5 tokens, width 4
    >>> cache = ag.KVCache()
    >>> prompt = cache.attend(q[:, :3], k[:, :3], v[:, :3])   # prefill: three tokens at once
    >>> steps = [cache.attend(q[:, t : t + 1], k[:, t : t + 1], v[:, t : t + 1]) for t in (3, 4)]
    >>> whole = ag.scaled_dot_product_attention(q, k, v, is_causal=True)
    >>> np.allclose(np.concatenate([prompt, *steps], axis=1), whole)
    True
    >>> len(cache), cache.positions
    (5, array([0, 1, 2, 3, 4]))

    A window of two keys and one sink keeps three tokens, whatever the length:

    >>> cache = ag.KVCache(window=2, sinks=1)
    >>> cache.append(k, v)
    >>> len(cache), cache.positions
    (5, array([0, 3, 4]))
    """

    def __init__(
        self,
        *,
        window: int | None = None,
        sinks: int = 0,
        is_causal: bool = True,
        rope: Rope | None = None,
        capacity: int = 16,
    ) -> None:
        self.window = None if window is None else check_integer("window", window, least=1)
        self.sinks = check_integer("sinks", sinks)
        self.is_causal = bool(is_causal)
        self.rope = rope
        if self.sinks and self.window is None:
            raise ValueError(f"sinks is {sinks} and window is None; wanted a window, without one nothing is evicted")
        if not self.is_causal and (self.window is not None or rope is not None):
            raise ValueError("window and rope need is_causal=True: a query from another sequence has no position here")
        self._reserve = check_integer("capacity", capacity, least=1)
        self._length = 0  # tokens seen, evicted ones included
        self._key: np.ndarray | None = None  # (..., h_kv, capacity, d_k)
        self._value: np.ndarray | None = None  # (..., h_kv, capacity, d_v)
        self._position = np.empty(0, dtype=np.int64)  # of the token in each used slot, in the slots' order

    @property
    def mask(self) -> Mask:
        """The mask of the whole sequence that the cache follows.

        Examples
        --------
        >>> import attn_guide as ag
        >>> ag.KVCache(window=4, sinks=2).mask
        sinks(2) | causal & sliding_window(3, 0)
        """
        if not self.is_causal:
            return full
        if self.window is None:
            return causal
        window = causal & sliding_window(self.window - 1, 0)
        return sinks(self.sinks) | window if self.sinks else window

    def __len__(self) -> int:
        """Return the number of tokens seen, which is the position of the next one."""
        return self._length

    @property
    def positions(self) -> np.ndarray:
        """Positions of the stored tokens in the whole sequence, ascending: integers (stored,).

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> cache = ag.KVCache(window=2)
        >>> cache.append(np.arange(3.0).reshape(1, 3, 1), np.zeros((1, 3, 4)))
        >>> cache.positions
        array([1, 2])
        """
        return np.sort(self._position)

    @property
    def key(self) -> np.ndarray:
        """Stored keys in the order of their positions (rotated, with ``rope``): (..., h_kv, stored, d_k).

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> cache = ag.KVCache(window=2)
        >>> cache.append(np.arange(3.0).reshape(1, 3, 1), np.zeros((1, 3, 4)))
        >>> cache.key.ravel()
        array([1., 2.])
        """
        return self._ordered(self._key)

    @property
    def value(self) -> np.ndarray:
        """Stored values in the order of their positions: (..., h_kv, stored, d_v).

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> cache = ag.KVCache(window=2)
        >>> cache.append(np.arange(3.0).reshape(1, 3, 1), np.zeros((1, 3, 4)))
        >>> cache.value.shape
        (1, 2, 4)
        """
        return self._ordered(self._value)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored keys and values, without what is reserved beyond them.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> cache = ag.KVCache(window=2)
        >>> cache.append(np.arange(3.0).reshape(1, 3, 1), np.zeros((1, 3, 4)))
        >>> cache.nbytes                     # 2 tokens of 1 + 4 numbers of 8 bytes
        80
        """
        return self.key.nbytes + self.value.nbytes if self._length else 0

    def append(self, key: Any, value: Any) -> None:
        """Store the keys and values of the next tokens; a window evicts what it has passed.

        Parameters
        ----------
        key : array_like, (..., h_kv, t, d_k)
        value : array_like, (..., h_kv, t, d_v)
            The next t tokens. Keys are not rotated yet: ``rope`` does it here.

        Raises
        ------
        ValueError
            If shapes do not fit each other or what is stored.
        TypeError
            If dtypes differ.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> cache = ag.KVCache(window=2)
        >>> cache.append(np.arange(3.0).reshape(1, 3, 1), np.zeros((1, 3, 4)))
        >>> len(cache)
        3
        """
        k, v = self._incoming(key, value)
        self._store(k, v)

    def attend(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
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
        query : array_like, (..., h, n, d_k)
            Queries of the newest n tokens (or of another sequence, with ``is_causal=False``).
        key : array_like, (..., h_kv, t, d_k), optional
        value : array_like, (..., h_kv, t, d_v), optional
            Keys and values of the next t tokens; both or neither.
        scale : float, optional
            Factor of the scores; 1 / sqrt(d_k) unless given.
        mask_mod : callable, optional
            A predicate ``(b, h, q_idx, kv_idx) -> bool`` that is joined with the cache's own mask. Its indices, like
            those of ``score_mod``, are positions in the whole sequence.
        score_mod : callable, optional
            ``(score, b, h, q_idx, kv_idx) -> score``.
        softcap : float, optional
            Bound of the scores: ``softcap * tanh(score / softcap)``.
        return_weights : bool, default False
            Also return the weights.

        Returns
        -------
        output : numpy.ndarray, (..., h, n, d_v)
        weights : numpy.ndarray, (..., h, n, len(cache))
            Only with ``return_weights``. Evicted keys have weight 0.

        Raises
        ------
        ValueError
            If nothing is stored, n exceeds what is stored, shapes do not fit, or a query needs keys that were evicted
            (store a prompt longer than the window through ``attend``, not ``append``).
        TypeError
            If only one of key and value is given, or dtypes differ.

        Examples
        --------
        Grouped heads, and a source that is stored once for cross-attention:

        >>> import attn_guide as ag
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> source = ag.KVCache(is_causal=False)
        >>> source.append(rng.normal(size=(2, 7, 4)), rng.normal(size=(2, 7, 4)))     # h_kv = 2, 7 source tokens
        >>> out, weights = source.attend(rng.normal(size=(6, 1, 4)), return_weights=True)   # h = 6, one target token
        >>> out.shape, weights.shape
        ((6, 1, 4), (6, 1, 7))
        """
        if (key is None) != (value is None):
            raise TypeError(f"{'key' if key is None else 'value'} is None; wanted key and value together, or neither")
        q = as_float_array("query", query)
        check_ndim("query", q, 3, "(..., h, n, d_k)")
        n = q.shape[-2]
        if key is None:
            k, v, position = self._stored()
            self._check_rows(n, self._length)
            self._check_not_evicted(n)
        else:
            new_k, new_v = self._incoming(key, value)
            check_attention_inputs(q, new_k, new_v, enable_gqa=True)
            self._check_rows(n, new_k.shape[-2])
            if self.window is None or new_k.shape[-2] == 1:
                self._store(new_k, new_v)
                k, v, position = self._stored()
            else:
                # The first of several new queries looks back at keys that the last of them evicts.
                k, v, position = self._joined(new_k, new_v)
                self._store(new_k, new_v)
        start = self._length - n if self.is_causal else 0
        q_position = np.arange(start, start + n)
        if self.rope is not None:
            q = self.rope(q, q_position)
        # A whole sequence at once needs no predicate, and a single newest query sees all that is now stored.
        prefill = self.is_causal and self.window is None and n == self._length
        newest = n == 1 and len(position) == len(self._position)
        seen = _both(None if prefill or newest or not self.is_causal else self.mask.mask_mod, mask_mod)

        def at(q_idx: np.ndarray, kv_idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return q_position[q_idx], position[kv_idx]

        out, weights = _pair(
            scaled_dot_product_attention(
                q,
                k,
                v,
                is_causal=prefill,
                scale=scale,
                enable_gqa=True,
                mask_mod=None if seen is None else lambda b, h, i, j: seen(b, h, *at(i, j)),
                score_mod=None if score_mod is None else lambda s, b, h, i, j: score_mod(s, b, h, *at(i, j)),
                softcap=softcap,
                return_weights=return_weights,
            )
        )
        if weights is None:
            return out
        spread = np.zeros((*weights.shape[:-1], self._length), weights.dtype)
        spread[..., position] = weights
        return out, spread

    def truncate(self, length: int) -> None:
        """Forget all tokens after the first ``length``, as speculative decoding does with rejected ones.

        Parameters
        ----------
        length : int
            Number of tokens to keep.

        Raises
        ------
        ValueError
            If the cache holds fewer tokens, or has a window: what a window evicted cannot come back.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> cache = ag.KVCache()
        >>> cache.append(np.ones((1, 5, 2)), np.ones((1, 5, 2)))
        >>> cache.truncate(3)
        >>> len(cache)
        3
        """
        length = check_integer("length", length)
        if self.window is not None:
            raise ValueError(f"a cache with window {self.window} cannot be truncated: evicted tokens are lost")
        if length > self._length:
            raise ValueError(f"length is {length}; wanted at most the {self._length} tokens in the cache")
        self._length = length
        self._position = self._position[:length]

    def reorder(self, indices: Any) -> None:
        """Replace the batch items by those at ``indices``, as beam search does when it keeps the best beams.

        Parameters
        ----------
        indices : array_like of int, (new batch,)
            For each new item of the first dimension, the old item to copy.

        Raises
        ------
        ValueError
            If the cache is empty or has no batch dimension before its heads, or an index is out of range.

        Examples
        --------
        >>> import attn_guide as ag
        >>> import numpy as np
        >>> cache = ag.KVCache()
        >>> cache.append(np.arange(2.0).reshape(2, 1, 1, 1), np.zeros((2, 1, 1, 1)))      # batch of 2
        >>> cache.reorder([1, 1, 0])
        >>> cache.key.ravel()
        array([1., 1., 0.])
        """
        if self._key is None or self._value is None or self._key.ndim < 4:
            raise ValueError("the cache has no batch dimension to reorder; wanted keys (batch, ..., h_kv, t, d_k)")
        chosen = np.asarray(indices)
        if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
            raise ValueError(f"indices has shape {chosen.shape} and dtype {chosen.dtype}; wanted integers (new batch,)")
        batch = self._key.shape[0]
        if chosen.size and (chosen.min() < 0 or chosen.max() >= batch):
            raise ValueError(f"indices holds {chosen.min()} ... {chosen.max()}; wanted 0 ... {batch - 1}")
        self._key, self._value = self._key[chosen], self._value[chosen]

    # ---------------------------------------------------------------------------------------------- storage

    def _slots(self, position: np.ndarray) -> np.ndarray:
        """Return where each token lives: sinks first, then a ring of ``window`` slots."""
        if self.window is None:
            return position
        return np.where(position < self.sinks, position, self.sinks + (position - self.sinks) % self.window)

    def _incoming(self, key: Any, value: Any) -> tuple[np.ndarray, np.ndarray]:
        k, v = as_float_array("key", key), as_float_array("value", value)
        check_ndim("key", k, 3, "(..., h_kv, t, d_k)")
        check_ndim("value", v, 3, "(..., h_kv, t, d_v)")
        if k.shape[:-1] != v.shape[:-1]:
            raise ValueError(f"value has shape {v.shape}; wanted (..., h_kv, t) as in key, {k.shape[:-1]}")
        for name, x, stored in (("key", k, self._key), ("value", v, self._value)):
            if stored is None:
                continue
            if x.dtype != stored.dtype:
                raise TypeError(f"{name} has dtype {x.dtype}; wanted the dtype in the cache, {stored.dtype}")
            if x.shape[:-2] != stored.shape[:-2] or x.shape[-1] != stored.shape[-1]:
                wanted = ", ".join(map(str, [*stored.shape[:-2], "t", stored.shape[-1]]))
                raise ValueError(f"{name} has shape {x.shape}; wanted ({wanted}) as in the cache")
        if self.rope is not None:
            k = self.rope(k, np.arange(self._length, self._length + k.shape[-2]))
        return k, v

    def _store(self, k: np.ndarray, v: np.ndarray) -> None:
        start, self._length = self._length, self._length + k.shape[-2]
        position = np.arange(start, self._length)
        if self.window is not None:
            # Of several tokens with one slot, only the last stays: write it alone.
            kept = (position < self.sinks) | (position >= self._length - self.window)
            position, k, v = position[kept], k[..., kept, :], v[..., kept, :]
        slots = self._slots(position)
        used = max(len(self._position), int(slots.max(initial=-1)) + 1)
        self._key, self._value = self._grown(self._key, k, used), self._grown(self._value, v, used)
        self._key[..., slots, :], self._value[..., slots, :] = k, v
        self._position = np.concatenate([self._position, np.empty(used - len(self._position), dtype=np.int64)])
        self._position[slots] = position

    def _grown(self, buffer: np.ndarray | None, new: np.ndarray, used: int) -> np.ndarray:
        """Return ``buffer`` with room for ``used`` tokens, doubled if it must grow."""
        if buffer is None:
            return np.empty((*new.shape[:-2], max(used, self._reserve), new.shape[-1]), new.dtype)
        room = buffer.shape[-2]
        if used <= room:
            return buffer
        wider = np.empty((*buffer.shape[:-2], max(used, 2 * room), buffer.shape[-1]), buffer.dtype)
        wider[..., :room, :] = buffer
        return wider

    def _stored(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return keys, values and positions in the order of the slots, without a copy."""
        if self._key is None or self._value is None:
            raise ValueError("the cache is empty; wanted key and value")
        used = len(self._position)
        return self._key[..., :used, :], self._value[..., :used, :], self._position

    def _joined(self, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what is stored followed by new tokens that are not stored yet."""
        position = np.arange(self._length, self._length + k.shape[-2])
        if self._key is None:
            return k, v, position
        old_k, old_v, old = self._stored()
        return (
            np.concatenate([old_k, k], axis=-2),
            np.concatenate([old_v, v], axis=-2),
            np.concatenate([old, position]),
        )

    def _ordered(self, buffer: np.ndarray | None) -> np.ndarray:
        if buffer is None:
            raise ValueError("the cache is empty; wanted key and value")
        return buffer[..., np.argsort(self._position), :]

    def _check_rows(self, n: int, newest: int) -> None:
        """Raise unless each of ``n`` queries belongs to one of the ``newest`` tokens."""
        if self.is_causal and n > newest:
            raise ValueError(f"query has {n} rows; wanted at most {newest}, the tokens that it may belong to")

    def _check_not_evicted(self, n: int) -> None:
        """Raise if the first of the newest ``n`` queries would look at a key that the window has passed."""
        if self.window is None:
            return
        first = max(self.sinks, self._length - n - self.window + 1)  # the first key in that query's window
        kept = max(self.sinks, self._length - self.window)
        if first < kept:
            raise ValueError(
                f"query has {n} rows, the first of which sees keys from {first} on, but a window of {self.window} "
                f"kept those from {kept} on; wanted key and value together with query"
            )


def _both(one: MaskMod | None, two: MaskMod | None) -> MaskMod | None:
    if one is None or two is None:
        return two if one is None else one
    return lambda b, h, q_idx, kv_idx: one(b, h, q_idx, kv_idx) & two(b, h, q_idx, kv_idx)


def _pair(result: Any) -> tuple[np.ndarray, np.ndarray | None]:
    return result if isinstance(result, tuple) else (result, None)


def kv_cache_bytes(
    layers: int,
    h_kv: int,
    d_k: int,
    d_v: int | None = None,
    *,
    n: int = 1,
    dtype_bytes: int = 2,
    batch: int = 1,
    window: int | None = None,
) -> int:
    """Return the bytes that the keys and values of a model occupy.

    Parameters
    ----------
    layers : int
        Number of layers, each with its own cache.
    h_kv : int
        Key/value heads per layer: h for MHA, fewer for GQA, 1 for MQA.
    d_k, d_v : int
        Widths of a key and of a value; ``d_v`` is ``d_k`` unless given. For MLA, whose cache is one vector per token,
        pass ``h_kv=1``, ``d_k`` = its width (512 + 64 in DeepSeek-V2) and ``d_v=0``.
    n : int, default 1
        Tokens in the context: 1 gives bytes per token.
    dtype_bytes : int, default 2
        Bytes per number: 2 for float16 and bfloat16, 4 for float32.
    batch : int, default 1
        Sequences at a time.
    window : int, optional
        Tokens that a sliding window keeps, if fewer than ``n``.

    Returns
    -------
    int
        layers * h_kv * (d_k + d_v) * min(n, window) * batch * dtype_bytes.

    Raises
    ------
    ValueError
        If a number is negative.

    References
    ----------
    Ainslie et al. (2023), GQA, section 2.2; DeepSeek-AI (2024), DeepSeek-V2, table 1.

    Examples
    --------
    >>> import attn_guide as ag
    >>> ag.kv_cache_bytes(layers=80, h_kv=8, d_k=128) // 1024      # Llama 2 70B: KiB per token
    320
    >>> ag.kv_cache_bytes(layers=80, h_kv=64, d_k=128) // 1024     # the same model if it were MHA
    2560
    """
    d_v = d_k if d_v is None else d_v
    numbers = {
        "layers": layers,
        "h_kv": h_kv,
        "d_k": d_k,
        "d_v": d_v,
        "n": n,
        "dtype_bytes": dtype_bytes,
        "batch": batch,
    }
    checked = {name: check_integer(name, x) for name, x in numbers.items()}
    kept = checked["n"] if window is None else min(checked["n"], check_integer("window", window))
    per_token = checked["layers"] * checked["h_kv"] * (checked["d_k"] + checked["d_v"]) * checked["dtype_bytes"]
    return per_token * kept * checked["batch"]
