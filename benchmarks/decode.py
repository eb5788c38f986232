"""Decoding with a key/value cache: what one more token costs as the context grows."""

from __future__ import annotations

import attn_guide as ag

from .common import Row, random_arrays, time_exponent

TOKENS = 32


def run(quick: bool) -> list[Row]:
    # A token reads all keys and values once, 4 KiB for each position. The shortest context fills the own cache of a
    # processor, some 32 MiB: shorter ones are read faster, and the step between the two would pass for growth.
    sizes = [1024, 2048, 4096] if quick else [8192, 16384, 32768, 65536, 131072]

    def make(n):
        _, key, value = random_arrays(n)
        q, k, v = random_arrays(TOKENS)
        cache = ag.KVCache(capacity=n + TOKENS)
        cache.append(key, value)

        def step():
            for t in range(TOKENS):
                now = slice(t, t + 1)
                cache.attend(q[:, now], k[:, now], v[:, now])
            cache.truncate(n)

        return step

    label = f"{TOKENS} tokens one by one, context {sizes[0]} ... {sizes[-1]}"
    return [time_exponent("decode", label, sizes, make, rounds=3 if quick else 5, target=1.1)]
