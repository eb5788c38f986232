"""Checkers for the exercises of chapter 4, causal attention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import attn_guide as ag

from . import Answer, exercise

__all__: list[str] = []


@exercise(
    "4.1",
    name="strict_attention",
    signature="(q, k, v)",
    statement="""
    Return attention in which query i sees the keys j < i only, not its own; scores are scaled by 1 / sqrt(d_k). The
    first row sees nothing, and its output is zero. q and k are (n, d_k), v is (n, d_v).
    """,
    wrong={
        "divides by zero in the first row": """
def strict_attention(q, k, v):
    seen = np.tri(len(q), k=-1, dtype=bool)
    powers = np.where(seen, np.exp(q @ k.T / np.sqrt(q.shape[1])), 0)
    return powers / powers.sum(axis=1, keepdims=True) @ v
""",
        "masks with a large number, so that the first row sees everything": """
def strict_attention(q, k, v):
    seen = np.tri(len(q), k=-1, dtype=bool)
    return ag.softmax(np.where(seen, q @ k.T / np.sqrt(q.shape[1]), -1e9)) @ v
""",
        "lets a token see itself": """
def strict_attention(q, k, v): return ag.scaled_dot_product_attention(q, k, v, is_causal=True)
""",
        "masks on the wrong side": """
def strict_attention(q, k, v): return ag.scaled_dot_product_attention(q, k, v, np.tri(len(q), dtype=bool).T)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, d_k, d_v in [(1, 2, 2), (3, 2, 3), (5, 3, 2)]:
        q, k, v = (rng.standard_normal((n, d)) for d in (d_k, d_k, d_v))
        wanted = np.zeros((n, d_v))
        for i in range(1, n):
            powers = np.array([np.exp(q[i] @ k[j] / np.sqrt(d_k)) for j in range(i)])
            wanted[i] = powers / powers.sum() @ v[:i]
        answer(q, k, v).equals(wanted)


@exercise(
    "4.2",
    name="copying_head",
    signature="(n, back)",
    statement="""
    Positions are one-hot, rows of the identity (n, n). Return w_q and w_k, each (n, n), with which causal
    self-attention gives at least 0.99 of the weight of row i to token i - back, for every i of at least back.
    """,
    wrong={
        "looks ahead, where the mask hides it": "def copying_head(n, back): return 40.0 * np.eye(n, k=back), np.eye(n)",
        "looks at the own position always": "def copying_head(n, back): return 40.0 * np.eye(n), np.eye(n)",
        "points to the right token, but softly": "def copying_head(n, back): return np.eye(n, k=-back), np.eye(n)",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, back in [(4, 0), (8, 0), (5, 1), (6, 2), (3, 2)]:
        given = answer(n, back)
        w_q, w_k = (matrix.array((n, n)) for matrix in given.parts(2))
        place = np.eye(n)
        _, weights = ag.self_attention(place, w_q, w_k, place, is_causal=True, return_weights=True)
        for i in range(back, n):
            got = weights[i, i - back]
            given.holds(got >= 0.99, f"row {i} gives {got:.3f} to token {i - back}; wanted at least 0.99")


@exercise(
    "4.3",
    name="titled_mask",
    signature="(title, sentence_of)",
    statement="""
    A text of n tokens begins with a title of so many tokens. sentence_of is a list of n integers, the sentence that
    each token belongs to. Return the mask (n, n), True where token i may see token j: everyone sees the title, tokens
    of the same sentence see each other, and nothing sees its future.
    """,
    wrong={
        "lets the title see its future": """
def titled_mask(title, sentence_of):
    n = len(sentence_of)
    i, j = np.indices((n, n))
    same = np.equal.outer(sentence_of, sentence_of)
    return (j < title) | ((j <= i) & same)
""",
        "hides the title from the later sentences": """
def titled_mask(title, sentence_of):
    return np.tri(len(sentence_of), dtype=bool) & np.equal.outer(sentence_of, sentence_of)
""",
        "opens the rows of the title, not its columns": """
def titled_mask(title, sentence_of):
    n = len(sentence_of)
    i, j = np.indices((n, n))
    return (j <= i) & (np.equal.outer(sentence_of, sentence_of) | (i < title))
""",
        "forgets the sentences": "def titled_mask(title, sentence_of): return np.tri(len(sentence_of), dtype=bool)",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for title, sentence_of in [
        (2, [0, 0, 1, 1, 1, 2, 2]),
        (0, [0, 1, 1]),
        (3, [0, 0, 0, 0, 1]),
        (1, [0, 0, 1, 2, 2]),
        (int(rng.integers(1, 4)), sorted(rng.integers(0, 4, size=8).tolist())),
    ]:
        n = len(sentence_of)
        mask = np.zeros((n, n), bool)
        for i in range(n):
            for j in range(i + 1):
                mask[i, j] = j < title or sentence_of[i] == sentence_of[j]
        answer(title, sentence_of).equals(mask)


@exercise(
    "4.4",
    name="first_leak",
    signature="(model, x)",
    statement="""
    model is a function that gives an output (n, d) for an input (n, d). Return the first position whose output depends
    on a later token, or None if there is none. Find out by replacing tokens of x; leave x itself as it is.
    """,
    wrong={
        "replaces the last token only": """
def first_leak(model, x):
    other = x.copy()
    other[-1] = np.random.default_rng(0).standard_normal(x.shape[1])
    moved = np.flatnonzero((model(x) != model(other)).any(axis=1)[:-1])
    return int(moved[0]) if len(moved) else None
""",
        "adds the same to every feature, which a norm takes away": """
def first_leak(model, x):
    leaks = []
    for t in range(len(x)):
        other = x.copy()
        other[t] += 1.0
        leaks += np.flatnonzero(np.abs(model(x) - model(other)).max(axis=1)[:t] > 1e-9).tolist()
    return min(leaks, default=None)
""",
        "gives the token that is seen, not the one that sees it": """
def first_leak(model, x):
    for t in range(len(x)):
        other = x.copy()
        other[t] = np.random.default_rng(0).standard_normal(x.shape[1])
        if (model(x) != model(other)).any(axis=1)[:t].any():
            return t
""",
        "takes the own position for a leak": """
def first_leak(model, x):
    leaks = []
    for t in range(len(x)):
        other = x.copy()
        other[t] = np.random.default_rng(0).standard_normal(x.shape[1])
        leaks += np.flatnonzero((model(x) != model(other)).any(axis=1)[: t + 1]).tolist()
    return min(leaks, default=None)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    n, d = 5, 3
    x = rng.standard_normal((n, d))

    def causal(a: np.ndarray) -> np.ndarray:
        return ag.scaled_dot_product_attention(a, a, a, is_causal=True)

    def norm_over_positions(a: np.ndarray) -> np.ndarray:
        return causal((a - a.mean(axis=0)) / a.std(axis=0))

    def norm_over_features(a: np.ndarray) -> np.ndarray:
        return causal(ag.layer_norm(a))

    def row_2_sees_token_3(a: np.ndarray) -> np.ndarray:
        return causal(a) + np.outer(np.arange(n) == 2, a[3])

    def row_1_sees_the_norm_of_token_4(a: np.ndarray) -> np.ndarray:
        return causal(a) + np.outer(np.arange(n) == 1, ag.layer_norm(a[4]))

    cases: list[tuple[Callable[[np.ndarray], np.ndarray], int | None]] = [
        (causal, None),
        (norm_over_positions, 0),
        (norm_over_features, None),
        (row_2_sees_token_3, 2),
        (row_1_sees_the_norm_of_token_4, 1),
    ]
    for model, wanted in cases:
        answer(model, x).equals(wanted)


@exercise(
    "4.5",
    name="piece_mask",
    signature="(cached, size)",
    statement="""
    A prompt is read in pieces. Return the mask (size, cached + size), True where a token may see a token, for a piece
    of so many tokens after so many others are in the cache.
    """,
    wrong={
        "aligns the triangle with the first key": """
def piece_mask(cached, size): return np.tri(size, cached + size, dtype=bool)
""",
        "hides the cache": """
def piece_mask(cached, size): return np.hstack([np.zeros((size, cached), bool), np.tri(size, dtype=bool)])
""",
        "lets the piece see all of itself": "def piece_mask(cached, size): return np.ones((size, cached + size), bool)",
        "hides a token from itself": """
def piece_mask(cached, size): return np.tri(size, cached + size, cached - 1, dtype=bool)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for cached, size in [(4, 4), (0, 3), (5, 1), (2, 3), *rng.integers(1, 7, size=(2, 2)).tolist()]:
        whole = np.array([[j <= i for j in range(cached + size)] for i in range(cached + size)])
        answer(cached, size).equals(whole[cached:])


@exercise(
    "4.6",
    name="longest_text",
    signature="(memory, weight_bytes, texts, layers, h_kv, d_k, number_bytes)",
    statement="""
    Of so many bytes of memory, the weights of a model take weight_bytes. It has so many layers of h_kv key/value heads,
    d_k wide, and a number takes number_bytes. Return to how many tokens, an integer, each of so many texts can grow at
    once before their key/value caches no longer fit; 0 if not one does.
    """,
    wrong={
        "forgets the weights of the model": """
def longest_text(memory, weight_bytes, texts, layers, h_kv, d_k, number_bytes):
    return memory // (2 * texts * layers * h_kv * d_k * number_bytes)
""",
        "counts one text": """
def longest_text(memory, weight_bytes, texts, layers, h_kv, d_k, number_bytes):
    return max(0, (memory - weight_bytes) // (2 * layers * h_kv * d_k * number_bytes))
""",
        "forgets that keys and values are both kept": """
def longest_text(memory, weight_bytes, texts, layers, h_kv, d_k, number_bytes):
    return max(0, (memory - weight_bytes) // (texts * layers * h_kv * d_k * number_bytes))
""",
        "gives a negative length where the weights do not fit": """
def longest_text(memory, weight_bytes, texts, layers, h_kv, d_k, number_bytes):
    return (memory - weight_bytes) // (2 * texts * layers * h_kv * d_k * number_bytes)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for texts, layers, h_kv, d_k, size in [(5, 32, 32, 128, 2), *rng.integers(1, 7, size=(3, 5)).tolist()]:
        n, weights = int(rng.integers(2, 400)), int(rng.integers(1000, 10**6))
        taken = ag.kv_cache_bytes(layers, h_kv, d_k, n=n, dtype_bytes=size, batch=texts)
        more = ag.kv_cache_bytes(layers, h_kv, d_k, n=n + 1, dtype_bytes=size, batch=texts)
        for memory in (weights + taken, weights + more - 1):
            answer(memory, weights, texts, layers, h_kv, d_k, size).equals(n)
        answer(weights // 2, weights, texts, layers, h_kv, d_k, size).equals(0)


@exercise(
    "4.7",
    name="layers_needed",
    signature="(n, window)",
    statement="""
    In every layer a token sees the last ``window`` tokens, itself among them (at least 2). Return the smallest number
    of layers, an integer, after which the last of n tokens (at least 2) can depend on the first.
    """,
    wrong={
        "lets every layer add the whole window": "def layers_needed(n, window): return -(-n // window)",
        "counts n instead of the n - 1 steps": "def layers_needed(n, window): return -(-n // (window - 1))",
        "rounds down": "def layers_needed(n, window): return max(1, (n - 1) // (window - 1))",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, window in [(2, 2), (20, 4), (7, 4), (9, 9), (5, 12), *rng.integers(2, 30, size=(4, 2)).tolist()]:
        i, j = np.indices((n, n))
        sees = (j <= i) & (i < j + window)
        reached, layers = np.arange(n) == n - 1, 0
        while not reached[0]:
            reached, layers = (reached[:, None] & sees).any(axis=0), layers + 1
        answer(n, window).equals(layers)


@exercise(
    "4.8",
    name="speculate",
    signature="(model, text, guesses)",
    statement="""
    model takes a list of tokens and returns a list of the same length: after each of them, the token it would write
    next. Return the list of tokens that the model itself would write after text, as far as one call of it can tell: the
    guesses up to the first wrong one, and the model's own token in its place (or after the last guess). Call the model
    once.
    """,
    wrong={
        "keeps right guesses after a wrong one": """
def speculate(model, text, guesses):
    told = model([*text, *guesses])[len(text) - 1 :]
    return [g for g, t in zip(guesses, told) if g == t] + [told[-1]]
""",
        "drops the token that the model wrote itself": """
def speculate(model, text, guesses):
    told = model([*text, *guesses])[len(text) - 1 :]
    kept = []
    for guess, own in zip(guesses, told):
        if guess != own:
            break
        kept.append(guess)
    return kept
""",
        "is off by one": """
def speculate(model, text, guesses):
    told = model([*text, *guesses])[len(text) :]
    kept = 0
    while kept < len(guesses) and kept < len(told) and guesses[kept] == told[kept]:
        kept += 1
    return [*guesses[:kept], told[min(kept, len(told) - 1)]]
""",
        "calls the model for every token": """
def speculate(model, text, guesses):
    written = []
    for guess in [*guesses, None]:
        written.append(model([*text, *written])[-1])
        if written[-1] != guess:
            break
    return written
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    calls = 0

    def model(tokens: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        return [_next(tokens[: t + 1]) for t in range(len(tokens))]

    text = rng.integers(1, 9, size=4).tolist()
    right: list[int] = []
    for _ in range(5):
        right.append(_next([*text, *right]))
    for wrong_at in (3, 0, 1, None):
        guesses = (
            right[:3] if wrong_at in (3, None) else [*right[:wrong_at], right[wrong_at] + 1, *right[wrong_at + 1 : 3]]
        )
        before = calls
        given = answer(model, text, guesses)
        made = calls - before
        given.holds(made == 1, f"the model was called {made} times; wanted one call")
        given.equals(right[: 4 if wrong_at in (3, None) else wrong_at + 1])
    answer(model, text, []).equals(right[:1])


def _next(tokens: list[int]) -> int:
    """A language of its own: the next token depends on the three before it and on their places."""
    return (sum((i + 1) * token for i, token in enumerate(tokens[-3:])) + len(tokens)) % 97
