"""What the explorers know of trained models and of the examples of the chapters, computed for them."""

from __future__ import annotations

from typing import Any

import numpy as np

#: The words that the explorer of chapter 1 knows. Features: determiner, noun, verb, living.
FEATURES = ("determiner", "noun", "verb", "living")
VOCABULARY = {
    (1, 0, 0, 0): "the a an this that every my your her his",
    (0, 1, 0, 1): "cat dog bird fox mouse horse child girl boy woman man teacher student",
    (0, 1, 0, 0): "house tree book letter river stone bread garden street",
    (0, 0, 1, 0): "sat sees saw ran runs sleeps slept eats ate reads read chased loves writes sang is",
}  # fmt: skip


def five_steps() -> dict[str, Any]:
    """The features of words and the three projections of chapter 1's example."""
    words = {word: list(vector) for vector, listed in VOCABULARY.items() for word in listed.split()}
    return {
        "features": list(FEATURES),
        "words": words,
        "w_q": [[1, 0], [0, 2], [2, 1], [1, 0]],
        "w_k": [[-1, 0], [1, 0], [0, 2], [1, 0]],
        "w_v": [[1, 0, 0], [1, 0, 0], [0, 0, 2], [0, 2, 0]],
    }


def score_parameters() -> dict[str, Any]:
    """Parameters of the score functions that have any, in the plane: chosen by a seed, rounded to be sent."""
    rng = np.random.default_rng(6)
    hidden = 4
    shapes = {
        "general": (2, 2), "w_query": (2, hidden), "w_key": (2, hidden), "v": (hidden,),
        "concat": (4, hidden), "readout": (hidden,),
    }  # fmt: skip
    return {name: rng.standard_normal(shape).round(3).tolist() for name, shape in shapes.items()}


def pack(weights: np.ndarray) -> str:
    """Weights between 0 and 1 as text, in steps of 1/4095: two letters of base 64 for each, row by row."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    steps = np.rint(np.clip(weights, 0, 1).ravel() * 4095).astype(int)
    return "".join(letters[step // 64] + letters[step % 64] for step in steps)


def lower(weights: np.ndarray) -> np.ndarray:
    """The entries of a causal matrix (n, n) that are not hidden, row by row."""
    return weights[np.tril_indices(len(weights))]


def alignment() -> dict[str, Any]:
    """Where Bahdanau's translator looks: in numbers that it has not seen, and in longer ones than it was trained on."""
    from attn_guide import models

    run = models.load("bahdanau")
    tests = run.experiment.pairs.tests
    items = []
    for test, count in (("held_out", 18), ("longer", 6)):
        for source, target in tests[test][:count]:
            found = run.experiment.align(" ".join(source), " ".join(target))
            items.append(
                {
                    "test": test,
                    "source": found.source,
                    "target": found.target,
                    "reference": found.reference,
                    "weights": pack(found.weights),
                }
            )
    accuracy = {test: round(float(run.results[test]), 4) for test in ("held_out", "longer")}
    return {"items": items, "accuracy": accuracy, "counts": {test: len(tests[test]) for test in accuracy}}


def heads() -> list[dict[str, Any]]:
    """The matrices of every head of two trained models, on texts that they have not seen."""
    import torch

    from attn_guide import models

    made = []
    run = models.load("induction")
    experiment = run.experiment
    with torch.no_grad():
        weights = run.model(experiment.test[:3])[2].numpy()  # (b, layers, heads, n, n)
    scores = {name: np.asarray(score, float).round(5).tolist() for name, score in experiment.scores().items()}
    for item, sequence in enumerate(experiment.test[:3].tolist()):
        made.append(_heads(f"random tokens said twice, {item + 1}", list(map(str, sequence)), weights[item], scores))
    language = models.load("gpt").experiment
    for text in ("the value of the attribute", "def f(self, x): return x"):
        made.append(_heads(f"text: {text}", list(text), language.text_attention(text), None))
    return made


def _heads(name: str, tokens: list[str], weights: np.ndarray, scores: dict[str, Any] | None) -> dict[str, Any]:
    packed = [[pack(lower(head)) for head in layer] for layer in weights]
    return {"name": name, "tokens": tokens, "weights": packed, "scores": scores}
