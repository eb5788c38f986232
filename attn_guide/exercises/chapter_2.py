"""Checkers for the exercises of chapter 2, cross-attention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import attn_guide as ag

from . import Answer, exercise

__all__: list[str] = []


@exercise(
    "2.1",
    name="guidance_shapes",
    signature="(height, width, tokens, d_v)",
    statement="""
    An image of height x width places is guided by a text of so many tokens, by cross-attention with one head and values
    of width d_v. Return two tuples: the shape of the weights and the shape of the output.
    """,
    wrong={
        "lets the text ask": """
def guidance_shapes(height, width, tokens, d_v): return (tokens, height * width), (tokens, d_v)
""",
        "gives the output a row for each token": """
def guidance_shapes(height, width, tokens, d_v): return (height * width, tokens), (tokens, d_v)
""",
        "gives the output the width of the text": """
def guidance_shapes(height, width, tokens, d_v): return (height * width, tokens), (height * width, tokens)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for height, width, tokens, d_v in [(2, 3, 5, 4), (4, 4, 7, 3), *rng.integers(1, 6, size=(3, 4)).tolist()]:
        image, text = rng.standard_normal((height * width, 6)), rng.standard_normal((tokens, 8))
        w_q, w_k, w_v = (rng.standard_normal(shape) for shape in ((6, 2), (8, 2), (8, d_v)))
        output, weights = ag.cross_attention(image, text, w_q, w_k, w_v, return_weights=True)
        answer(height, width, tokens, d_v).equals((weights.shape, output.shape))


@exercise(
    "2.2",
    name="alignment",
    signature="(weights, source, read)",
    statement="""
    A translator read its own words one by one, beginning with read[0] == "<start>", and after each of them predicted
    the next; the last word it predicted is "<stop>". Row t of the weights (n, m) was computed after it had read
    read[t]. Return a list of n pairs: a predicted word, and the word of the source that was read most to predict it.
    """,
    wrong={
        "labels a row by the word that was read": """
def alignment(weights, source, read): return [(w, source[j]) for w, j in zip(read, weights.argmax(axis=1))]
""",
        "takes for each word of the source the row that reads it most": """
def alignment(weights, source, read):
    target = [*read[1:], "<stop>"]
    return [(target[t], s) for s, t in zip(source, weights.argmax(axis=0))]
""",
        "shifts the source as well": """
def alignment(weights, source, read):
    target = [*read[1:], "<stop>"]
    return [(w, source[j - 1]) for w, j in zip(target, weights.argmax(axis=1))]
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    source_words = ["the", "old", "dog", "sleeps", "here", "now"]
    target_words = ["der", "alte", "Hund", "schläft", "jetzt", "hier"]
    for n, m in [(3, 4), (5, 3), (4, 6)]:
        source, read = source_words[:m], ["<start>", *target_words[: n - 1]]
        weights = rng.dirichlet(np.ones(m), size=n)
        pairs = []
        for t in range(n):
            most = max(range(m), key=lambda j: weights[t, j])
            pairs.append((read[t + 1] if t + 1 < n else "<stop>", source[most]))
        answer(weights, source, read).equals(pairs)


@exercise(
    "2.3",
    name="reading_backwards",
    signature="(m)",
    statement="""
    Positions are one-hot on both sides, rows of the identity (m, m). Return w_q and w_k, each (m, m), with which row i
    of the target gives at least 0.99 of its weight to word m - 1 - i of the source.
    """,
    wrong={
        "reads forwards": "def reading_backwards(m): return 40.0 * np.eye(m), np.eye(m)",
        "reverses both sides, which undoes it": """
def reading_backwards(m): return 40.0 * np.eye(m)[::-1], np.eye(m)[::-1]
""",
        "points to the right word, but softly": "def reading_backwards(m): return np.eye(m)[::-1], np.eye(m)",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for m in (2, 3, 5, 8):
        given = answer(m)
        w_q, w_k = (matrix.array((m, m)) for matrix in given.parts(2))
        _, weights = ag.cross_attention(np.eye(m), np.eye(m), w_q, w_k, np.eye(m), return_weights=True)
        for i in range(m):
            got = weights[i, m - 1 - i]
            given.holds(got >= 0.99, f"row {i} gives {got:.3f} to word {m - 1 - i}; wanted at least 0.99")


@exercise(
    "2.4",
    name="read_source",
    signature="(x, memory, seen)",
    statement="""
    Return x plus the cross-attention of x (n, d) to memory (m, d), scaled by 1 / sqrt(d), where x are the queries, and
    memory the keys and the values. Only the tokens of the source with seen[j] True may be read; there may be none.
    """,
    wrong={
        "divides by zero if nothing is seen": """
def read_source(x, memory, seen):
    scores = np.where(seen, x @ memory.T / np.sqrt(x.shape[1]), -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return x + weights / weights.sum(axis=1, keepdims=True) @ memory
""",
        "masks with a large number, so that an empty source is read after all": """
def read_source(x, memory, seen):
    scores = np.where(seen, x @ memory.T / np.sqrt(x.shape[1]), -1e9)
    return x + ag.softmax(scores) @ memory
""",
        "sets weights to zero after the softmax": """
def read_source(x, memory, seen): return x + (ag.softmax(x @ memory.T / np.sqrt(x.shape[1])) * seen) @ memory
""",
        "forgets the residual connection": """
def read_source(x, memory, seen): return ag.scaled_dot_product_attention(x, memory, memory, seen[None])
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, d, seen in [
        (2, 3, [True, True, False, True]),
        (3, 2, [False, False]),
        (3, 4, [False, True, False]),
        (1, 2, [True]),
    ]:
        x, memory = rng.standard_normal((n, d)), rng.standard_normal((len(seen), d))
        wanted = x.copy()
        for i in range(n):
            powers = {j: np.exp(x[i] @ memory[j] / np.sqrt(d)) for j in range(len(seen)) if seen[j]}
            for j, power in powers.items():
                wanted[i] += power / sum(powers.values()) * memory[j]
        answer(x, memory, np.array(seen)).equals(wanted)


@exercise(
    "2.5",
    name="combine",
    signature="(output_1, lse_1, output_2, lse_2)",
    statement="""
    The same queries attended to two sources. output_1 and output_2 (n, d_v) are the outputs, and lse_1 and lse_2 (n,)
    the log-sum-exp of each row of scores. Return the output (n, d_v) of one attention to both sources under one
    softmax.
    """,
    wrong={
        "takes the mean": "def combine(output_1, lse_1, output_2, lse_2): return (output_1 + output_2) / 2",
        "overflows for large scores": """
def combine(output_1, lse_1, output_2, lse_2):
    a, b = np.exp(lse_1)[:, None], np.exp(lse_2)[:, None]
    return (a * output_1 + b * output_2) / (a + b)
""",
        "takes the log-sum-exps themselves for the shares": """
def combine(output_1, lse_1, output_2, lse_2):
    share = (lse_1 / (lse_1 + lse_2))[:, None]
    return share * output_1 + (1 - share) * output_2
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, m_1, m_2, d_v, size in [(3, 2, 4, 2, 1.0), (2, 3, 1, 3, 3.0), (4, 2, 2, 1, 2000.0)]:
        scores = [size + rng.standard_normal((n, m)) * min(size, 2) for m in (m_1, m_2)]
        values = [rng.standard_normal((m, d_v)) for m in (m_1, m_2)]
        outputs = [ag.softmax(s) @ v for s, v in zip(scores, values, strict=True)]
        sums = [s.max(axis=1) + np.log(np.exp(s - s.max(axis=1, keepdims=True)).sum(axis=1)) for s in scores]
        joint = ag.softmax(np.hstack(scores)) @ np.vstack(values)
        answer(outputs[0], sums[0], outputs[1], sums[1]).equals(joint)


@exercise(
    "2.6",
    name="source_cache_bytes",
    signature="(layers, heads, d_k, m, number_bytes)",
    statement="""
    A decoder has so many layers, each with cross-attention of so many heads, whose keys and values are d_k wide. Return
    the bytes that the keys and values of a source of m tokens take, if a number takes number_bytes.
    """,
    wrong={
        "counts keys or values, not both": """
def source_cache_bytes(layers, heads, d_k, m, number_bytes): return layers * heads * d_k * m * number_bytes
""",
        "counts one block": """
def source_cache_bytes(layers, heads, d_k, m, number_bytes): return 2 * heads * d_k * m * number_bytes
""",
        "counts the weights, a number for each pair": """
def source_cache_bytes(layers, heads, d_k, m, number_bytes): return 2 * layers * heads * m * m * number_bytes
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        layers, heads, d_k, m = rng.integers(1, 9, size=4).tolist()
        kept = [(np.zeros((heads, m, d_k), dtype), np.zeros((heads, m, d_k), dtype)) for _ in range(layers)]
        size = sum(keys.nbytes + values.nbytes for keys, values in kept)
        answer(layers, heads, d_k, m, np.dtype(dtype).itemsize).equals(size)
    answer(12, 12, 64, 512, 2).equals(sum(2 * np.zeros((12, 512, 64), np.float16).nbytes for _ in range(12)))


@exercise(
    "2.7",
    name="count_scores",
    signature="(latents, m, layers)",
    statement="""
    So many latents, which are learned vectors, attend once to an input of m tokens. After that they attend to each
    other in so many layers of self-attention. Return how many scores one head of each of these attentions computes,
    added up.
    """,
    wrong={
        "lets the input attend to itself": "def count_scores(latents, m, layers): return m * m * (1 + layers)",
        "reads the input again in every layer": """
def count_scores(latents, m, layers): return latents * m * (1 + layers)
""",
        "joins both sequences": "def count_scores(latents, m, layers): return (latents + m) ** 2 * (1 + layers)",
        "forgets the layers of self-attention": "def count_scores(latents, m, layers): return latents * m",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for latents, m, layers in [(4, 10, 0), (4, 20, 0), (3, 7, 2), *rng.integers(1, 12, size=(3, 3)).tolist()]:
        learned, read = np.ones((latents, 2)), np.ones((m, 2))
        count = ag.attention_scores(learned, read).size
        count += sum(ag.attention_scores(learned, learned).size for _ in range(layers))
        answer(latents, m, layers).equals(count)


@exercise(
    "2.8",
    name="rows_that_move",
    signature="(block, target, position)",
    statement="""
    block is a function that gives an output (n, d) for a target (n, d). Return an array (n,) of bool: which rows of the
    output move when row ``position`` of the target is replaced by something else. Leave the target as it is.
    """,
    wrong={
        "replaces a row by zeros, which it may be already": """
def rows_that_move(block, target, position):
    other = target.copy()
    other[position] = 0
    return (block(target) != block(other)).any(axis=1)
""",
        "compares the output with the target": """
def rows_that_move(block, target, position): return (block(target) != target).any(axis=1)
""",
        "looks at the first feature only": """
def rows_that_move(block, target, position):
    other = target.copy()
    other[position] += 1
    return block(target)[:, 0] != block(other)[:, 0]
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, d in [(3, 2), (5, 3), (6, 2)]:
        reads = rng.random((n, n)) < 0.4  # which rows of the target each row of the output depends on
        position = int(rng.integers(n))
        target = rng.standard_normal((n, d))
        target[position] = 0
        answer(_block(reads, rng), target, position).equals(reads[:, position])


def _block(reads: np.ndarray, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A block whose last feature depends on what ``reads`` says, and the others on nothing."""
    mix = np.where(reads, rng.uniform(0.5, 2, reads.shape), 0)

    def block(target: np.ndarray) -> np.ndarray:
        output = np.zeros(target.shape)
        output[:, -1] = mix @ np.tanh(target @ np.linspace(1, 2, target.shape[1]) + 0.3)
        return output

    return block
