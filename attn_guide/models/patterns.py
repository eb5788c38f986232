"""One question from far away, asked under each sparse pattern: what a pattern lets a model learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import masks
from .layers import Block, sinusoidal
from .longformer import FarAnswers
from .train import Recipe

__all__ = ["FarAnswersUnder", "PatternModel", "far_pattern"]


def _dense(n: int) -> list[masks.Mask]:
    return [masks.full, masks.full]


def _window(n: int) -> list[masks.Mask]:
    return [masks.sliding_window(4, 4)] * 2


def _dilated(n: int) -> list[masks.Mask]:
    return [masks.dilated_window(4, 4, 9), masks.sliding_window(4, 4)]


def _strided(n: int) -> list[masks.Mask]:
    return [masks.strided(8)] * 2


def _strided_window(n: int) -> list[masks.Mask]:
    return [masks.strided(8) | masks.sliding_window(4, 4)] * 2


def _random(n: int) -> list[masks.Mask]:
    rng = np.random.default_rng(0)
    return [masks.random_keys(4, n, rng=rng) | masks.sliding_window(2, 2) for _ in range(2)]


def _global(n: int) -> list[masks.Mask]:
    return [masks.longformer(8, [0])] * 2


def _bigbird(n: int) -> list[masks.Mask]:
    return [masks.bigbird(n, 4, random_blocks=1, rng=np.random.default_rng(layer)) for layer in range(2)]


_PATTERNS: dict[str, Callable[[int], list[masks.Mask]]] = {
    "dense": _dense,
    "window": _window,
    "dilated": _dilated,
    "strided": _strided,
    "strided-window": _strided_window,
    "random": _random,
    "global": _global,
    "bigbird": _bigbird,
}


def far_pattern(name: str, n: int) -> list[masks.Mask]:
    """Return the masks of the two layers of the model ``far-<name>``, first layer first.

    Parameters
    ----------
    name : str
        One of dense, window, dilated, strided, strided-window, random, global and bigbird.
    n : int
        Length of the sequence.

    Returns
    -------
    list of Mask
        Most queries see 8 to 24 keys, but for dense; what is random is drawn with fixed seeds.

    Examples
    --------
    >>> from attn_guide.models import far_pattern
    >>> far_pattern("window", 64)
    [sliding_window(4, 4), sliding_window(4, 4)]
    """
    return _PATTERNS[name](n)


class PatternModel(nn.Module):
    """Encoder layers, each under a mask of its own.

    Parameters
    ----------
    tokens : int
        How many different tokens there are.
    width, heads : int
        Size of the model; feed-forward layers are twice as wide.
    patterns : sequence of Mask
        One for each layer.
    length : int
        Length of the sequences.

    Notes
    -----
    All scores are computed and those outside the pattern are hidden: this is for studying what a pattern does to the
    answers, and saves nothing.

    Examples
    --------
    >>> import torch, attn_guide as ag
    >>> from attn_guide.models import PatternModel
    >>> model = PatternModel(10, 16, 2, [ag.full, ag.sliding_window(2, 2)], length=32)
    >>> model(torch.zeros(3, 32, dtype=torch.int64)).shape
    torch.Size([3, 32, 10])
    """

    positions: Tensor
    allowed: Tensor

    def __init__(self, tokens: int, width: int, heads: int, patterns: Sequence[masks.Mask], length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.register_buffer("positions", sinusoidal(length, width), persistent=False)
        seen = np.array([mask.materialize(length) for mask in patterns])  # (layers, n, n)
        self.register_buffer("allowed", torch.from_numpy(seen), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, 2 * width) for _ in patterns)
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (b, n, tokens) for tokens (b, n)."""
        x = self.embedding(tokens) + self.positions
        for block, allowed in zip(self.blocks, self.allowed, strict=True):
            x = block(x, allowed)[0]
        return self.output(x)


class FarAnswersUnder(FarAnswers):
    """The task of ``FarAnswers`` under one of the patterns of ``far_pattern``.

    Parameters
    ----------
    settings : mapping
        ``pattern``, ``letters``, ``digits``, ``length``, ``width``, ``heads``, ``batch``, and what ``Recipe`` lists.
    """

    model: PatternModel  # type: ignore[assignment]

    def __init__(self, settings: Mapping[str, Any], seed: int) -> None:
        self.letters, self.digits = settings["letters"], settings["digits"]
        self.length, self.batch = settings["length"], settings["batch"]
        self.patterns = far_pattern(settings["pattern"], self.length)
        tokens = self.letters + self.digits + 1
        self.model = PatternModel(tokens, settings["width"], settings["heads"], self.patterns, self.length)

    def within_reach(self) -> np.ndarray:
        """Return which positions the answer at position 0 can depend on, booleans (length,)."""
        reached = np.eye(self.length, dtype=bool)
        for mask in self.patterns:
            reached = (mask.materialize(self.length).astype(int) @ reached) > 0
        return reached[0]

    def measure(self) -> dict[str, float]:
        """Return the accuracy over all places, and over those within and beyond reach, if there are any."""
        sequence, answer, places = self.draw(1000, torch.Generator().manual_seed(10_000))
        right = (self.model(sequence)[:, 0].argmax(dim=-1) == answer).float().numpy()
        near = self.within_reach()[places.numpy()]
        found = {"accuracy": right, "within": right[near], "beyond": right[~near]}
        return {name: float(some.mean()) for name, some in found.items() if len(some)}

    evaluate = measure


def _start(settings: Mapping[str, Any], seed: int) -> FarAnswersUnder:
    return FarAnswersUnder(settings, seed)


_SETTINGS = {
    "letters": 8, "digits": 8, "length": 64, "width": 32, "heads": 2, "batch": 32, "steps": 200, "lr": 5e-3,
    "warmup": 20, "clip": 1.0, "measure_every": 50,
}  # fmt: skip

#: What ``models.load`` finds here.
RECIPES = tuple(
    Recipe(
        f"far-{name}", f"Asked for something far away under the pattern {name}.", _start, {"pattern": name, **_SETTINGS}
    )
    for name in _PATTERNS
)
