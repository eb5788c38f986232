"""Checkers for the exercises of chapter 3, multi-head attention."""

from __future__ import annotations

import dataclasses

import numpy as np

import attn_guide as ag

from . import Answer, exercise

__all__: list[str] = []


@exercise(
    "3.1",
    name="merge",
    signature="(heads)",
    statement="""
    Undo ``split_heads``: from an array of heads (h, n, d) make one of shape (n, h d) in which the columns of head 0
    come first, then those of head 1, and so on.
    """,
    wrong={
        "reshapes without moving the heads next to the width": """
def merge(heads):
    h, n, d = heads.shape
    return heads.reshape(n, h * d)
""",
        "lets the heads take turns in the columns": """
def merge(heads):
    h, n, d = heads.shape
    return heads.transpose(1, 2, 0).reshape(n, h * d)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for h, n, d in [(1, 3, 2), (2, 3, 4), (3, 5, 2), (4, 1, 3)]:
        heads = rng.integers(-9, 10, size=(h, n, d)).astype(float)
        answer(heads).equals(np.hstack([heads[i] for i in range(h)]))


@exercise(
    "3.2",
    name="texts_that_fit",
    signature="(memory, layers, num_heads, num_kv_heads, d_k, n, number_bytes)",
    statement="""
    Return how many texts of n tokens, an integer, have their key/value caches in so many bytes of memory. In each of so
    many layers, the model has num_heads query heads and num_kv_heads key/value heads, all of them d_k wide; a number
    takes number_bytes.
    """,
    wrong={
        "counts the query heads": """
def texts_that_fit(memory, layers, num_heads, num_kv_heads, d_k, n, number_bytes):
    return memory // (2 * layers * num_heads * d_k * n * number_bytes)
""",
        "counts keys or values, not both": """
def texts_that_fit(memory, layers, num_heads, num_kv_heads, d_k, n, number_bytes):
    return memory // (layers * num_kv_heads * d_k * n * number_bytes)
""",
        "counts a text that fits in part": """
def texts_that_fit(memory, layers, num_heads, num_kv_heads, d_k, n, number_bytes):
    return -(-memory // (2 * layers * num_kv_heads * d_k * n * number_bytes))
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for dtype in (np.float16, np.float32, np.uint8):
        layers, kv_heads, groups, d_k, n = rng.integers(2, 7, size=5).tolist()
        one = sum(2 * np.zeros((kv_heads, n, d_k), dtype).nbytes for _ in range(layers))
        for memory in (one - 1, 3 * one, 5 * one - 1):
            fitting = 0
            while (fitting + 1) * one <= memory:
                fitting += 1
            answer(memory, layers, groups * kv_heads, kv_heads, d_k, n, np.dtype(dtype).itemsize).equals(fitting)
    answer(24 * 2**30, 48, 40, 8, 128, 32_768, 2).equals(24 * 2**30 // ag.kv_cache_bytes(48, 8, 128, n=32_768))


@exercise(
    "3.3",
    name="uneven_heads",
    signature="(x, heads)",
    statement="""
    Return the output (n, d_model) of a layer whose heads differ in width, for the input x (n, d_model). heads is a list
    of (w_q, w_k, w_v, w_o): w_q and w_k are (d_model, d_k), w_v is (d_model, d_v) and w_o is (d_v, d_model), each head
    with a d_k and d_v of its own. There are no biases, and every head scales its scores by its own width.
    """,
    wrong={
        "scales all heads by the width of the model": """
def uneven_heads(x, heads):
    d = x.shape[1]
    return sum(ag.softmax(x @ q @ (x @ k).T / np.sqrt(d)) @ x @ v @ o for q, k, v, o in heads)
""",
        "scales by the width of the values": """
def uneven_heads(x, heads):
    return sum(ag.softmax(x @ q @ (x @ k).T / np.sqrt(v.shape[1])) @ x @ v @ o for q, k, v, o in heads)
""",
        "takes the mean of the heads": """
def uneven_heads(x, heads): return np.mean([ag.self_attention(x, q, k, v) @ o for q, k, v, o in heads], axis=0)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, d, widths in [(3, 4, [(2, 2)]), (4, 3, [(2, 3), (5, 1)]), (2, 5, [(1, 2), (3, 3), (4, 2)])]:
        x = rng.standard_normal((n, d))
        shapes = [((d, d_k), (d, d_k), (d, d_v), (d_v, d)) for d_k, d_v in widths]
        heads = [tuple(rng.standard_normal(shape) for shape in four) for four in shapes]
        wanted = np.zeros((n, d))
        for w_q, w_k, w_v, w_o in heads:
            for i in range(n):
                powers = np.array([np.exp((x[i] @ w_q) @ (x[j] @ w_k) / np.sqrt(w_q.shape[1])) for j in range(n)])
                wanted[i] += powers / powers.sum() @ x @ w_v @ w_o
        answer(x, heads).equals(wanted)


@exercise(
    "3.4",
    name="silent_heads",
    signature="(w_v, w_o, num_heads)",
    statement="""
    A layer without biases has h = num_heads heads, with w_v (d_model, h d_v) and w_o (h d_v, d_model). Return the list
    of the heads, counted from 0 and in order, that can be taken out and no output changes, whatever the input and the
    attention weights are.
    """,
    wrong={
        "looks at the rows of w_o alone": """
def silent_heads(w_v, w_o, num_heads):
    return [i for i, rows in enumerate(np.split(w_o, num_heads)) if not rows.any()]
""",
        "looks whether one of both is zero": """
def silent_heads(w_v, w_o, num_heads):
    halves = zip(np.split(w_v, num_heads, axis=1), np.split(w_o, num_heads))
    return [i for i, (v, o) in enumerate(halves) if not v.any() or not o.any()]
""",
        "splits w_o by columns": """
def silent_heads(w_v, w_o, num_heads):
    halves = zip(np.split(w_v, num_heads, axis=1), np.split(w_o, num_heads, axis=1))
    return [i for i, (v, o) in enumerate(halves) if not v.any() or not o.any()]
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for h, d_v in [(2, 2), (4, 2), (4, 3), (6, 2)]:
        d_model = h * d_v
        layer = ag.init_multi_head(d_model, h, bias=False, rng=rng)
        w_v, w_o = layer.w_v.copy(), layer.w_o.copy()
        for head, how in zip(rng.permutation(h), ("rows", "columns", "neither", "nothing"), strict=False):
            at = slice(head * d_v, (head + 1) * d_v)
            if how == "rows":
                w_o[at] = 0
            elif how == "columns":
                w_v[:, at] = 0
            elif how == "neither":  # what the values can hold and what the output reads do not overlap
                w_v[:, at.start + 1 : at.stop] = 0
                w_o[at.start] = 0
        layer = dataclasses.replace(layer, w_v=w_v, w_o=w_o)
        x = rng.standard_normal((3, d_model))
        full = ag.multi_head_attention(x, x, x, layer)
        silent = []
        for head in range(h):
            without = ag.multi_head_attention(x, x, x, layer, head_mask=[float(i != head) for i in range(h)])
            if np.allclose(without, full, rtol=0, atol=1e-12):
                silent.append(head)
        answer(w_v, w_o, h).equals(silent)


@exercise(
    "3.5",
    name="pool_heads",
    signature="(w_k, num_heads, num_kv_heads)",
    statement="""
    Return w_k (d_model, num_heads d_k) of a multi-head layer pooled to num_kv_heads key heads, (d_model, num_kv_heads
    d_k): each is the mean of the key heads of its group of neighbours, as grouped-query attention shares them.
    """,
    wrong={
        "groups every other head instead of neighbours": """
def pool_heads(w_k, num_heads, num_kv_heads):
    heads = np.split(w_k, num_heads, axis=1)
    return np.hstack([np.mean(heads[i::num_kv_heads], axis=0) for i in range(num_kv_heads)])
""",
        "keeps the first head of each group": """
def pool_heads(w_k, num_heads, num_kv_heads):
    return np.hstack(np.split(w_k, num_heads, axis=1)[:: num_heads // num_kv_heads])
""",
        "takes the mean of neighbouring columns": """
def pool_heads(w_k, num_heads, num_kv_heads):
    return w_k.reshape(len(w_k), -1, num_heads // num_kv_heads).mean(axis=2)
""",
        "adds the heads up": """
def pool_heads(w_k, num_heads, num_kv_heads):
    return w_k.reshape(len(w_k), num_kv_heads, num_heads // num_kv_heads, -1).sum(axis=2).reshape(len(w_k), -1)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for h, h_kv, d_k in [(4, 1, 2), (4, 2, 3), (6, 3, 2), (2, 2, 2)]:
        w_k = rng.standard_normal((3, h * d_k))
        pooled = np.zeros((3, h_kv * d_k))
        for i in range(h):
            shared = i // (h // h_kv)  # the key head that query head i reads
            pooled[:, shared * d_k : (shared + 1) * d_k] += w_k[:, i * d_k : (i + 1) * d_k] * (h_kv / h)
        answer(w_k, h, h_kv).equals(pooled)


@exercise(
    "3.6",
    name="lift",
    signature="(keys, chosen)",
    statement="""
    Return wider (m, d + 1), which is keys (m, d) with one more column, and a query (d + 1,) that gives every key of the
    list chosen a higher score than every key that is not in it.
    """,
    wrong={
        "adds the same component to all keys": """
def lift(keys, chosen):
    return np.hstack([keys, np.ones((len(keys), 1))]), np.append(keys[chosen].mean(axis=0), 1.0)
""",
        "asks for the old components too": """
def lift(keys, chosen):
    mark = np.full((len(keys), 1), -1.0)
    mark[chosen] = 1
    return np.hstack([keys, mark]), np.ones(keys.shape[1] + 1)
""",
        "asks for the keys that are not chosen": """
def lift(keys, chosen):
    mark = np.zeros((len(keys), 1))
    mark[chosen] = 1
    return np.hstack([keys, mark]), np.append(np.zeros(keys.shape[1]), -1.0)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    circle = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    drawn = rng.standard_normal((5, 3)) * 5
    for keys, chosen in [(circle, [0, 2]), (circle, [1, 3]), (drawn, [0, 3, 4]), (drawn, [1])]:
        m, d = keys.shape
        given = answer(keys, chosen)
        wider, query = (part.array(shape) for part, shape in zip(given.parts(2), [(m, d + 1), (d + 1,)], strict=True))
        given.holds(np.array_equal(wider[:, :d], keys), f"the first {d} columns are no longer those of keys")
        scores = wider @ query
        others = [j for j in range(m) if j not in chosen]
        least, most = min(chosen, key=lambda j: scores[j]), max(others, key=lambda j: scores[j])
        given.holds(
            scores[least] > scores[most],
            f"key {least} is chosen and scores {scores[least]:.3g}; key {most} is not and scores {scores[most]:.3g}",
        )
