"""Checkers for the exercises of chapter 5, sparse attention."""

from __future__ import annotations

from itertools import product

import numpy as np

import attn_guide as ag

from . import Answer, Result, exercise

__all__: list[str] = []


@exercise(
    "5.1",
    name="windowed_attention",
    signature="(q, k, v, half)",
    statement="""
    Return attention in which query i sees keys i - half to i + half, as far as there are such keys; scores are scaled
    by 1 / sqrt(d_k). q and k are (n, d_k), v is (n, d_v). No array of n x n numbers may be made.
    """,
    wrong={
        "makes the matrix": """
def windowed_attention(q, k, v, half):
    n = len(q)
    far = np.abs(np.arange(n)[:, None] - np.arange(n)) > half
    return ag.softmax(np.where(far, -np.inf, q @ k.T / np.sqrt(q.shape[1]))) @ v
""",
        "forgets the scale": """
def windowed_attention(q, k, v, half): return ag.sliding_window_attention(q, k, v, half, half, scale=1.0)
""",
        "sees half keys in all": """
def windowed_attention(q, k, v, half): return ag.sliding_window_attention(q, k, v, half // 2, half // 2)
""",
        "wraps around at the ends": """
def windowed_attention(q, k, v, half):
    near = (np.arange(len(q))[:, None] + np.arange(-half, half + 1)) % len(q)
    weights = ag.softmax((q[:, None] * k[near]).sum(axis=-1) / np.sqrt(q.shape[1]))
    return (weights[..., None] * v[near]).sum(axis=1)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, d_k, d_v, half in [(6, 1, 1, 1), (7, 3, 2, 2), (5, 2, 3, 0), (4, 2, 2, 9)]:
        q, k, v = (rng.standard_normal((n, d)).round(2) for d in (d_k, d_k, d_v))
        wanted = np.zeros((n, d_v))
        for i in range(n):
            keys = range(max(0, i - half), min(n, i + half + 1))
            powers = np.array([np.exp(q[i] @ k[j] / np.sqrt(d_k)) for j in keys])
            wanted[i] = powers / powers.sum() @ v[keys.start : keys.stop]
        answer(q, k, v, half).equals(wanted)
    n = 2000
    q, k, v = rng.standard_normal((3, n, 2))
    given: list[Result] = []
    peak = ag.peak_memory(lambda: given.append(answer(q, k, v, 2)))
    given[0].equals(ag.sliding_window_attention(q, k, v, 2, 2))
    given[0].holds(
        peak < n * n, f"it needs {peak / n**2:.1f} bytes for each pair of {n} tokens: it makes an n x n array"
    )


@exercise(
    "5.2",
    name="window_pairs",
    signature="(n, w)",
    statement="""
    Return how many (query, key) pairs a window of w keys has in a sequence of n tokens: a query sees its own position
    and (w - 1) / 2 on each side, as far as there are such positions. w is odd and may be larger than the sequence.
    n may be a million million: do not visit each pair.
    """,
    wrong={
        "forgets the ends": "def window_pairs(n, w): return n * w",
        "forgets one of the ends": "def window_pairs(n, w): return n * w - (w // 2) * (w // 2 + 1) // 2",
        "does not notice a window wider than the sequence": """
def window_pairs(n, w): return n * w - (w // 2) * (w // 2 + 1)
""",
        "counts the query's own key on both sides": """
def window_pairs(n, w): return n * (w + 1) - (w // 2) * (w // 2 + 1)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, w in [
        (6, 3),
        (1, 1),
        (3, 9),
        (9, 1),
        (4, 7),
        *((int(n), int(2 * h + 1)) for n, h in rng.integers(1, 30, (4, 2))),
    ]:
        answer(n, w).equals(sum(abs(i - j) <= w // 2 for i in range(n) for j in range(n)))
    answer(10**12, 3).equals(3 * 10**12 - 2)


@exercise(
    "5.3",
    name="groups_apart",
    signature="(strides)",
    statement="""
    In each of several layers a query sees every key, before and after it, at a distance that the layer's stride
    divides. The layers are repeated as often as one likes. Given the list of strides, return into how many groups a
    long sequence falls that never exchange anything.
    """,
    wrong={
        "takes the smallest stride": "def groups_apart(strides): return min(strides)",
        "takes the least common multiple": "def groups_apart(strides): return int(np.lcm.reduce(strides))",
        "multiplies": "def groups_apart(strides): return int(np.prod(strides))",
        "takes two layers for enough": "def groups_apart(strides): return int(np.gcd.reduce(strides[:2]))",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for strides in [[8], [4, 6], [3, 5], [1, 7], [6, 10, 15], [12, 18, 8], rng.integers(2, 13, 3).tolist()]:
        mask = ag.strided(strides[0])
        for stride in strides[1:]:
            mask = mask | ag.strided(stride)
        answer(strides).equals(len(set(ag.connected_components(mask, 120).tolist())))


@exercise(
    "5.4",
    name="dilations",
    signature="(layers, w)",
    statement="""
    In layer l a query sees w keys, its own and (w - 1) / 2 on each side, dilations[l] positions apart; w is odd and at
    least 3. Return a list with a dilation for each layer such that, in the middle of a long sequence, an output depends
    on w ** layers positions without a gap.
    """,
    wrong={
        "does not dilate": "def dilations(layers, w): return [1] * layers",
        "doubles, whatever the window": "def dilations(layers, w): return [2**layer for layer in range(layers)]",
        "begins with w, and never sees a neighbour": """
def dilations(layers, w): return [w ** (layer + 1) for layer in range(layers)]
""",
        "leaves gaps": "def dilations(layers, w): return [(w + 1) ** layer for layer in range(layers)]",
        "grows by a step": "def dilations(layers, w): return [1 + layer * (w - 1) for layer in range(layers)]",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for layers, w in [(1, 3), (2, 3), (3, 3), (2, 5), (3, 5), (2, 7)]:
        given = answer(layers, w)
        chosen = given.array((layers,)).astype(int).tolist()
        reach = {sum(steps) for steps in product(*([t * d for t in range(-(w // 2), w // 2 + 1)] for d in chosen))}
        furthest = max(reach)
        gaps = 2 * furthest + 1 - len(reach)
        given.holds(gaps == 0, f"{gaps} positions within reach are never seen")
        given.holds(len(reach) == w**layers, f"it depends on {len(reach)} positions; wanted {w**layers}")


@exercise(
    "5.5",
    name="unreachable",
    signature="(mask)",
    statement="""
    mask is a boolean array (n, n), True where query i sees key j, and every layer has this mask and passes its input
    on. Return the share of the n (n - 1) ordered pairs of different tokens (i, j) for which output i never depends on
    input j, however many layers there are.
    """,
    wrong={
        "looks at one layer": """
def unreachable(mask):
    n = len(mask)
    return 1 - (mask | np.eye(n, dtype=bool)).sum() / n**2
""",
        "counts the pairs of a token with itself": """
def unreachable(mask):
    reached = np.linalg.matrix_power((mask | np.eye(len(mask), dtype=bool)).astype(float), len(mask)) > 0
    return 1 - reached.mean()
""",
        "takes edges for symmetric": """
def unreachable(mask):
    n = len(mask)
    reached = np.linalg.matrix_power((mask | mask.T | np.eye(n, dtype=bool)).astype(float), n) > 0
    return 1 - (reached.sum() - n) / (n * (n - 1))
""",
        "stops after two layers": """
def unreachable(mask):
    n = len(mask)
    reached = np.linalg.matrix_power((mask | np.eye(n, dtype=bool)).astype(float), 2) > 0
    return 1 - (reached.sum() - n) / (n * (n - 1))
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    chain = np.eye(7, k=-1, dtype=bool)  # each sees the one before it, and not itself
    for mask in [chain, ag.strided(2).materialize(6), *(rng.random((n, n)) < 1.3 / n for n in (5, 8, 12))]:
        n, missing = len(mask), 0
        for i in range(n):
            seen, new = {i}, [i]
            while new:
                new = [j for j in {int(j) for a in new for j in np.flatnonzero(mask[a])} if j not in seen]
                seen.update(new)
            missing += n - len(seen)
        answer(mask).equals(missing / (n * (n - 1)))


@exercise(
    "5.6",
    name="scores_computed",
    signature="(mask, block)",
    statement="""
    A processor works in tiles of block by block, from the top left corner on, and skips a tile if no pair in it is
    allowed. Tiles at the end are smaller where the length is no multiple. mask is a boolean array (n, m), True where a
    query may see a key. Return how many scores are computed.
    """,
    wrong={
        "counts the allowed pairs": "def scores_computed(mask, block): return int(mask.sum())",
        "counts tiles": """
def scores_computed(mask, block):
    n, m = mask.shape
    return sum(bool(mask[i : i + block, j : j + block].any()) for i in range(0, n, block) for j in range(0, m, block))
""",
        "takes the last tiles for whole": """
def scores_computed(mask, block):
    n, m = mask.shape
    return block**2 * sum(
        bool(mask[i : i + block, j : j + block].any()) for i in range(0, n, block) for j in range(0, m, block)
    )
""",
        "skips tiles that are not full": """
def scores_computed(mask, block):
    n, m = mask.shape
    tiles = [mask[i : i + block, j : j + block] for i in range(0, n, block) for j in range(0, m, block)]
    return sum(tile.size for tile in tiles if tile.all())
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, m, block, share in [(8, 8, 4, 0.1), (7, 5, 3, 0.15), (4, 9, 2, 0.2), (5, 5, 8, 0.1), (6, 6, 1, 0.5)]:
        mask = rng.random((n, m)) < share
        mask[-1, -1] = True
        wanted = 0
        for i, j in product(range(n), range(m)):  # a score is computed if its tile holds any allowed pair
            rows, columns = (slice(a - a % block, a - a % block + block) for a in (i, j))
            wanted += int(mask[rows, columns].any())
        answer(mask, block).equals(wanted)


@exercise(
    "5.7",
    name="streaming_attention",
    signature="(blocks)",
    statement="""
    blocks is a list of pairs: the scores (c,) of some keys, and their values (c, d_v). Return the softmax of all scores
    together, applied to the values: (d_v,). Read the blocks once and in order. Scores may be in the thousands; minus
    infinity marks a hidden key, and if all keys are hidden the output is zero.
    """,
    wrong={
        "takes no maximum, and overflows": """
def streaming_attention(blocks):
    total = sum(np.exp(s).sum() for s, _ in blocks)
    return sum(np.exp(s) @ v for s, v in blocks) / (total or 1.0)
""",
        "forgets to rescale what was mixed before": """
def streaming_attention(blocks):
    top, total, mixed = -np.inf, 0.0, 0.0 * blocks[0][1][0]
    for s, v in blocks:
        new = max(top, s.max())
        if new > -np.inf:
            p = np.exp(s - new)
            total = np.exp(top - new) * total + p.sum()
            mixed, top = mixed + p @ v, new
    return mixed / (total or 1.0)
""",
        "is NaN after a hidden block": """
def streaming_attention(blocks):
    top, total, mixed = -np.inf, 0.0, 0.0
    for s, v in blocks:
        new = max(top, s.max())
        p, shrink = np.exp(s - new), np.exp(top - new)
        total, mixed, top = shrink * total + p.sum(), shrink * mixed + p @ v, new
    return mixed / total
""",
        "averages the blocks": """
def streaming_attention(blocks):
    return sum(ag.softmax(s) @ v if np.isfinite(s).any() else 0.0 * v[0] for s, v in blocks) / len(blocks)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for sizes, factor in [((2, 2, 2), 1.0), ((1, 4), 3.0), ((3,), 1.0), ((2, 3, 1), 2000.0)]:
        blocks = [(factor * rng.standard_normal(c).round(2), rng.standard_normal((c, 3)).round(2)) for c in sizes]
        scores, values = (np.concatenate(part) for part in zip(*blocks, strict=True))
        powers = np.exp(scores - scores.max())
        answer(blocks).equals(powers / powers.sum() @ values)
    first, second = rng.standard_normal((2, 2, 3)).round(2)
    share = 1 / (1 + np.exp(-1.0) + 2 * np.exp(-2.0))  # of the third score: the maximum rises, and exp() overflows
    mixed = share * (second[0] + np.exp(-1.0) * second[1] + np.exp(-2.0) * first.sum(axis=0))
    answer([(np.array([1000.0, 1000.0]), first), (np.array([1002.0, 1001.0]), second)]).equals(mixed)
    hidden, values = np.full(2, -np.inf), rng.standard_normal((2, 3)).round(2)
    seen = (np.array([1.0, -np.inf]), rng.standard_normal((2, 3)).round(2))
    answer([(hidden, values), seen, (hidden, values)]).equals(seen[1][0])
    answer([(hidden, values), (hidden, values)]).equals(np.zeros(3))


@exercise(
    "5.8",
    name="linear_step",
    signature="(state, norm, q, k, v)",
    statement="""
    Take one step of causal linear attention with the feature map phi(x) = x + 1 for x > 0 and exp(x) otherwise. state
    (d, d_v) is the sum of phi(k_j) v_j^T over the tokens so far, norm (d,) the sum of phi(k_j). q, k (d,) and v (d_v,)
    are the new token's, which sees itself. Return (state, norm, output) with the new token in them, and do not change
    the arrays that came.
    """,
    wrong={
        "reads before it writes": """
def linear_step(state, norm, q, k, v):
    f, g = ag.elu_feature_map(k), ag.elu_feature_map(q)
    out = g @ state / (g @ norm) if norm.any() else 0.0 * v
    return state + np.outer(f, v), norm + f, out
""",
        "forgets to divide": """
def linear_step(state, norm, q, k, v):
    f, g = ag.elu_feature_map(k), ag.elu_feature_map(q)
    return state + np.outer(f, v), norm + f, g @ (state + np.outer(f, v))
""",
        "forgets the feature map": """
def linear_step(state, norm, q, k, v):
    state, norm = state + np.outer(k, v), norm + k
    return state, norm, q @ state / (q @ norm)
""",
        "adds to the state that came": """
def linear_step(state, norm, q, k, v):
    f, g = ag.elu_feature_map(k), ag.elu_feature_map(q)
    state += np.outer(f, v)
    norm += f
    return state, norm, g @ state / (g @ norm)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, d, d_v in [(1, 2, 2), (3, 2, 3), (4, 3, 2)]:
        q, k, v = (rng.standard_normal((n, width)).round(2) for width in (d, d, d_v))
        phi = [np.where(x > 0, x + 1, np.exp(x)) for x in (q, k)]
        state, norm = np.zeros((d, d_v)), np.zeros(d)
        for t in range(n):
            given = answer(state, norm, q[t], k[t], v[t])
            weights = np.array([phi[0][t] @ phi[1][j] for j in range(t + 1)])
            state = sum((np.outer(phi[1][j], v[j]) for j in range(t + 1)), np.zeros((d, d_v)))
            norm = phi[1][: t + 1].sum(axis=0)
            given.equals((state, norm, weights / weights.sum() @ v[: t + 1]))
