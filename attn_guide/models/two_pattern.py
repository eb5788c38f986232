"""A task with two patterns at once: one head has to share its weights between them, two heads need not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._checks import check_integer
from .train import AttentionMap, Experiment, Recipe, no_text

__all__ = ["OneLayer", "TwoPatterns"]


class OneLayer(nn.Module):
    """One layer of multi-head self-attention that reads tokens and two patterns of positions.

    Parameters
    ----------
    tokens, length : int
        How many different tokens there are, and how many stand in a sequence.
    width : int
        Width of the embeddings; heads are ``width / heads`` wide.
    heads : int
        Number of heads; it changes neither the parameters nor their number.

    Notes
    -----
    Queries and keys are made from position and token, values from the token alone, and the output is read off the
    joined heads by one linear map for each of the two answers: there is nothing else that could do the work of a
    second head.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.2.
    """

    def __init__(self, tokens: int, length: int, width: int, heads: int) -> None:
        super().__init__()
        check_integer("heads", heads, 1)
        if width % heads:
            raise ValueError(f"heads is {heads}; wanted a number that divides width {width}")
        self.heads = heads
        self.embedding = nn.Embedding(tokens, width)
        self.position: Tensor
        self.register_buffer("position", _circle(length, width), persistent=False)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, 2 * tokens, bias=False)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """Answer both questions at every position.

        Parameters
        ----------
        sequence : Tensor of int64, shape (b, n)
            Tokens.

        Returns
        -------
        logits : Tensor, shape (b, n, 2, tokens)
            For each position and question.
        weights : Tensor, shape (b, heads, n, n)
            Attention weights.
        """
        token = self.embedding(sequence)
        placed = token + self.position
        q, k = (self._split(linear(placed)) for linear in (self.query, self.key))
        v = self._split(self.value(token))  # (b, heads, n, width / heads)
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)
        joined = (weights @ v).transpose(1, 2).flatten(-2)
        return self.output(joined).unflatten(-1, (2, -1)), weights

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _circle(length: int, width: int) -> Tensor:
    """Return position vectors (length, width) for places on a circle: waves that fit a whole number of times.

    A step round the circle turns each pair of waves by a fixed angle, so that "the place before" is one linear map.
    """
    place = torch.arange(length)[:, None]
    angle = 2 * torch.pi * place * torch.arange(1, length // 2 + 1) / length
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=-1), (0, width - 2 * (length // 2)))


class TwoPatterns(Experiment):
    """Name, at every position, the token before it and the token after it, in a circle.

    Parameters
    ----------
    settings : mapping
        ``heads``, ``width``, ``tokens``, ``length``, ``batch``, and what ``Recipe`` lists.

    Notes
    -----
    One head gives one set of weights to both questions: an average in which the token before and the token after
    stand with their weights. Both answers are read off that average by linear maps, and what has the larger weight is
    the louder in both. With two heads each question can have its own.
    """

    def __init__(self, settings: Mapping[str, Any], seed: int) -> None:
        self.tokens, self.length, self.batch = settings["tokens"], settings["length"], settings["batch"]
        self.model = OneLayer(self.tokens, self.length, settings["width"], settings["heads"])
        self._test = self._draw(500, torch.Generator().manual_seed(10_000))  # the same for every seed

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.tokens, (count, self.length), generator=generator)

    @staticmethod
    def answers(sequence: Tensor) -> Tensor:
        """Return the right answers (b, n, 2) for sequences (b, n): the token before and the token after."""
        return torch.stack([sequence.roll(1, dims=1), sequence.roll(-1, dims=1)], dim=-1)

    def loss(self, generator: torch.Generator) -> Tensor:
        """Return the mean cross-entropy of both answers."""
        sequence = self._draw(self.batch, generator)
        logits, _ = self.model(sequence)
        return F.cross_entropy(logits.flatten(0, 2), self.answers(sequence).flatten())

    def measure(self) -> dict[str, float]:
        """Return how often each answer, and both together, are right on 500 sequences that are not trained on."""
        logits, _ = self.model(self._test)
        right = logits.argmax(dim=-1) == self.answers(self._test)
        before, after = right.float().mean(dim=(0, 1)).tolist()
        return {"before": before, "after": after, "both": float(right.all(dim=-1).float().mean())}

    evaluate = measure

    @torch.no_grad()
    def attention(self) -> Tensor:
        """Return the weights of each head, averaged over the test sequences: shape (heads, n, n)."""
        return self.model(self._test)[1].mean(dim=0)

    def maps(self, text: str | None = None) -> list[AttentionMap]:
        """Return the mean weights of each head, position by position."""
        no_text(text)
        names = [str(place) for place in range(self.length)]
        return [AttentionMap(f"head {h}", w, names, names) for h, w in enumerate(self.attention().numpy())]


def _start(settings: Mapping[str, Any], seed: int) -> TwoPatterns:
    return TwoPatterns(settings, seed)


_SETTINGS = {
    "width": 32, "heads": 1, "tokens": 16, "length": 12, "batch": 64,
    "steps": 600, "lr": 1e-2, "warmup": 20, "measure_every": 50,
}  # fmt: skip

#: What ``models.load`` finds here.
RECIPES = tuple(
    Recipe(
        f"two-patterns-{heads}-head{'s' if heads > 1 else ''}",
        f"One attention layer with {heads} head{'s' if heads > 1 else ''}: the token before and the token after.",
        _start,
        {**_SETTINGS, "heads": heads},
    )
    for heads in (1, 2)
)
