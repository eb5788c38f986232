"""Small experiments that a figure and a claim share, so that both show the same run.

``train_retrieval`` trains one attention layer, with the guide's own forward and backward pass, to look a value up
by its key: the smallest task that attention alone can solve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._checks import check_choice, check_finite, check_integer
from .core import scaled_dot_product_attention, scaled_dot_product_attention_backward, softmax

__all__ = ["train_retrieval"]


def train_retrieval(
    scale: float,
    rates: Sequence[float],
    *,
    optimizer: str = "adam",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    steps: int = 400,
    d_model: int = 32,
    d_k: int = 64,
    n: int = 8,
    keys: int = 16,
    values: int = 8,
    batch: int = 16,
) -> np.ndarray:
    """Train one attention layer to return the value stored under a key, and give its loss at every step.

    A sequence holds ``n`` items, each a different key with a value drawn at random; the query is one of the keys,
    and the model must name that key's value. It has an embedding, the four projections and nothing else. Weights
    start so that the components of queries and keys have variance one, as the argument for the scale assumes.

    Parameters
    ----------
    scale : float
        Factor of the scores: 1, ``d_k ** -0.5`` or ``1 / d_k``, for instance.
    rates : sequence of float
        Learning rates; each is tried with every seed.
    optimizer : {"adam", "sgd"}
        Adam with its usual constants (0.9, 0.999, 1e-8), or plain gradient descent without momentum.
    seeds : sequence of int
        Each gives the initial weights and the batches of one run; runs of different scales and rates share them.
    steps : int
        Number of batches.
    d_model, d_k : int
        Width of an embedding and of a value, and width of a query and a key.
    n, keys, values : int
        Items in a sequence, and how many different keys and values there are.
    batch : int
        Sequences in a batch.

    Returns
    -------
    ndarray, shape (rates, seeds, steps)
        Cross-entropy in nats before each update, float32; ``log(values)`` is guessing. A run that diverges gives
        NaN from there on.

    Raises
    ------
    ValueError
        If the optimizer is unknown or a size is too small.

    Notes
    -----
    The gradient of the attention step comes from ``scaled_dot_product_attention_backward``, the rest is the chain
    rule through four matrix products and an embedding.

    References
    ----------
    Kingma and Ba (2015), Adam: A Method for Stochastic Optimization, algorithm 1.

    Examples
    --------
    >>> loss = train_retrieval(0.125, [0.003], seeds=[0], steps=400)
    >>> loss.shape
    (1, 1, 400)
    >>> bool(loss[0, 0, 0] > 1.5), bool(loss[0, 0, -50:].mean() < 0.1)
    (True, True)
    """
    check_finite("scale", scale)
    check_choice("optimizer", optimizer, ("adam", "sgd"))
    check_integer("n", n, 1)
    if n > check_integer("keys", keys, 1):
        raise ValueError(f"n is {n}; wanted at most keys, {keys}, since the keys of a sequence differ")
    rngs = [np.random.default_rng(seed) for seed in seeds]
    step_size = np.asarray(rates, np.float32)[:, None, None, None]  # (rates, 1, 1, 1)

    def start(rows: int, columns: int, variance: float) -> np.ndarray:
        drawn = np.stack([rng.normal(0.0, variance**0.5, (rows, columns)) for rng in rngs])  # (seeds, rows, columns)
        return np.tile(drawn, (len(rates), 1, 1, 1)).astype(np.float32)

    weights = {
        "embedding": start(keys + values, d_model, 0.5),  # an item is the sum of two rows: variance one
        "query": start(d_model, d_k, 2.0 / d_model),
        "key": start(d_model, d_k, 1.0 / d_model),
        "value": start(d_model, d_model, 1.0 / d_model),
        "output": start(d_model, values, 1.0 / d_model),
    }
    mean = {name: np.zeros_like(w) for name, w in weights.items()}
    square = {name: np.zeros_like(w) for name, w in weights.items()}
    losses = np.empty((len(rates), len(rngs), steps), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges says so by its NaN
        for step in range(steps):
            drawn = [_retrieval_batch(rng, batch, n, keys, values) for rng in rngs]
            items, asked, answer = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
            losses[..., step], grads = _retrieval_step(weights, items, asked, answer, scale)
            for name, grad in grads.items():
                if optimizer == "adam":
                    mean[name] += 0.1 * (grad - mean[name])
                    square[name] += 0.001 * (grad**2 - square[name])
                    root = np.sqrt(square[name] / np.float32(1 - 0.999 ** (step + 1)))
                    grad = mean[name] / np.float32(1 - 0.9 ** (step + 1)) / (root + np.float32(1e-8))
                weights[name] -= step_size * grad
    return losses


def _retrieval_batch(
    rng: np.random.Generator, batch: int, n: int, keys: int, values: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw items (batch, n, keys + values), the key asked for (batch, 1, keys + values), the answer (batch, values).

    Each item has a one for its key and a one for its value. Items are in random order, so asking for the first is
    asking for any.
    """
    key = rng.permuted(np.tile(np.arange(keys), (batch, 1)), axis=1)[:, :n]  # (batch, n)
    value = rng.integers(values, size=(batch, n))
    one = np.eye(keys + values, dtype=np.float32)
    return one[key] + one[keys + value], one[key[:, :1]], one[keys + value[:, 0], keys:]


def _retrieval_step(
    weights: dict[str, np.ndarray], items: np.ndarray, asked: np.ndarray, answer: np.ndarray, scale: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the loss (rates, seeds) and its gradient by every weight; every run is a leading dimension."""
    w = {name: array[..., None, :, :] for name, array in weights.items()}  # a dimension for the batch
    x, x_q = items @ w["embedding"], asked @ w["embedding"]  # (rates, seeds, batch, n or 1, d_model)
    q, k, v = x_q @ w["query"], x @ w["key"], x @ w["value"]
    out = scaled_dot_product_attention(q, k, v, scale=scale)  # (rates, seeds, batch, 1, d_model)
    guess = softmax(out @ w["output"])  # (rates, seeds, batch, 1, values)
    likely = (guess[..., 0, :] * answer).sum(axis=-1)
    loss = -np.log(np.maximum(likely, np.float32(1e-30))).mean(axis=-1)

    d_logits = (guess - answer[..., None, :]) / np.float32(items.shape[-3])
    d_out = d_logits @ w["output"].swapaxes(-1, -2)
    d_q, d_k, d_v = scaled_dot_product_attention_backward(d_out, q, k, v, scale=scale)
    d_x = d_k @ w["key"].swapaxes(-1, -2) + d_v @ w["value"].swapaxes(-1, -2)
    d_x_q = d_q @ w["query"].swapaxes(-1, -2)
    grads = {
        "embedding": _product(items, d_x) + _product(asked, d_x_q),
        "query": _product(x_q, d_q),
        "key": _product(x, d_k),
        "value": _product(x, d_v),
        "output": _product(out, d_logits),
    }
    return loss, grads


def _product(x: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Return the gradient by W of ``x @ W``, summed over batch and length: x (..., b, l, i), grad (..., b, l, o)."""
    x, grad = (a.reshape(*a.shape[:-3], -1, a.shape[-1]) for a in (x, grad))
    return x.swapaxes(-1, -2) @ grad
