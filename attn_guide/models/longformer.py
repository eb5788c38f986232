"""A small Longformer, asked for what may be far away: what a window reaches, and what a global token adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._checks import check_integer
from .layers import sinusoidal
from .train import Experiment, Recipe

__all__ = ["FarAnswers", "Longformer", "LongformerAttention"]


class LongformerAttention(nn.Module):
    """Attention within a window, with the first few tokens seeing everything and seen by everything.

    Parameters
    ----------
    width, heads : int
        Width of the model and number of heads, which divides it.
    window : int
        The paper's w, an even number: w / 2 tokens on each side.
    global_tokens : int
        How many tokens at the start are global; 0 leaves a plain sliding window.

    Notes
    -----
    What global tokens ask is projected by maps of their own. The scores are (n, w + 1 + g) for the others and (g, n)
    for the global tokens: there is no n x n array, and time and memory grow as n (w + g).

    References
    ----------
    Beltagy et al. (2020), Longformer: The Long-Document Transformer, section 3.1.
    """

    def __init__(self, width: int, heads: int, window: int, global_tokens: int) -> None:
        super().__init__()
        if check_integer("window", window, 2) % 2:
            raise ValueError(f"window is {window}; wanted an even number")
        self.heads, self.side, self.global_tokens = heads, window // 2, check_integer("global_tokens", global_tokens)
        self.local = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))
        self.from_global = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3 if global_tokens else 0))
        self.output = nn.Linear(width, width, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (b, heads, n, d)

    def _windows(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Return for each position the 2 side + 1 rows around it: (..., n, d) as (..., n, 2 side + 1, d)."""
        return F.pad(x, (0, 0, self.side, self.side), value=value).unfold(-2, 2 * self.side + 1, 1).mT

    def forward(self, x: Tensor) -> Tensor:
        """Return what each state finds, (b, n, width) for states (b, n, width)."""
        n, g = x.shape[1], self.global_tokens
        q, k, v = (self._split(linear(x)) for linear in self.local)
        scale = q.shape[-1] ** -0.5
        # Which places of the windows are inside the sequence, and not global tokens: those have columns of their own.
        inside = torch.ones(n, 1)
        inside[:g] = 0
        allowed = self._windows(inside).squeeze(-1) > 0  # (n, 2 side + 1)
        near = torch.einsum("bhnd,bhnwd->bhnw", q, self._windows(k)).masked_fill(~allowed, -torch.inf)
        far = q @ k[..., :g, :].mT  # (b, heads, n, g)
        near_weights, far_weights = (
            (torch.cat([near, far], dim=-1) * scale).softmax(dim=-1).split([near.shape[-1], g], -1)
        )
        found = torch.einsum("bhnw,bhnwd->bhnd", near_weights, self._windows(v)) + far_weights @ v[..., :g, :]
        if g:
            of_query, of_key, of_value = self.from_global
            q, k, v = self._split(of_query(x[:, :g])), self._split(of_key(x)), self._split(of_value(x))
            everything = (q @ k.mT * scale).softmax(dim=-1) @ v
            found = torch.cat([everything, found[..., g:, :]], dim=-2)
        return self.output(found.transpose(1, 2).flatten(-2))


class Longformer(nn.Module):
    """Encoder layers with Longformer attention.

    Parameters
    ----------
    tokens, length : int
        How many different tokens there are, and the longest sequence.
    width, layers, heads : int
        Size of the model; feed-forward layers are twice as wide.
    window, global_tokens : int
        As in ``LongformerAttention``.

    Notes
    -----
    Without global tokens, what happens at one position reaches ``layers * window / 2`` positions and no further.

    References
    ----------
    Beltagy et al. (2020), Longformer: The Long-Document Transformer, section 3.

    Examples
    --------
    >>> import torch
    >>> from attn_guide.models import Longformer
    >>> model = Longformer(tokens=10, length=32, width=16, layers=2, heads=2, window=4, global_tokens=1)
    >>> model(torch.zeros(3, 32, dtype=torch.int64)).shape
    torch.Size([3, 32, 10])
    """

    positions: Tensor

    def __init__(
        self, tokens: int, length: int, width: int, layers: int, heads: int, window: int, global_tokens: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.register_buffer("positions", sinusoidal(length, width), persistent=False)
        self.attention_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.attention = nn.ModuleList(LongformerAttention(width, heads, window, global_tokens) for _ in range(layers))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(layers)
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (b, n, tokens) for tokens (b, n)."""
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for norm, attention, feed in zip(self.attention_norms, self.attention, self.feed, strict=True):
            x = x + attention(norm(x))
            x = x + feed(x)
        return self.output(x)


class FarAnswers(Experiment):
    """Say at the first position which digit stands among letters, however far away it is.

    Parameters
    ----------
    settings : mapping
        ``letters`` and ``digits`` (how many different tokens of each), ``length``, ``width``, ``layers``, ``heads``,
        ``window``, ``global_tokens``, ``batch``, and what ``Recipe`` lists.

    Notes
    -----
    A sequence is a question mark at position 0 and random letters after it, one of which is replaced, at a place drawn
    uniformly, by a digit: the answer, wanted at position 0. Guessing is right once in ``digits``.
    """

    model: Longformer

    def __init__(self, settings: Mapping[str, Any], seed: int) -> None:
        self.letters, self.digits = settings["letters"], settings["digits"]
        self.length, self.batch = settings["length"], settings["batch"]
        self.reach = settings["layers"] * settings["window"] // 2
        self.model = Longformer(
            self.letters + self.digits + 1, self.length, settings["width"], settings["layers"], settings["heads"],
            settings["window"], settings["global_tokens"],
        )  # fmt: skip

    def draw(self, count: int, generator: torch.Generator, place: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return sequences (count, length), answers (count,) and where they stand (count,): ``place`` if it is given.

        Letters are the first tokens, then come the digits, then the question mark.
        """
        sequence = torch.randint(self.letters, (count, self.length), generator=generator)
        answer = self.letters + torch.randint(self.digits, (count,), generator=generator)
        places = torch.randint(1, self.length, (count,), generator=generator)
        if place is not None:
            places = torch.full((count,), place)
        sequence[:, 0] = self.letters + self.digits
        sequence[torch.arange(count), places] = answer
        return sequence, answer, places

    def loss(self, generator: torch.Generator) -> Tensor:
        """Return the mean cross-entropy of the answer."""
        sequence, answer, _ = self.draw(self.batch, generator)
        return F.cross_entropy(self.model(sequence)[:, 0], answer)

    @torch.no_grad()
    def accuracy_at(self, place: int, count: int = 200) -> float:
        """Return the share of right answers where the answer stands at ``place``, on sequences of their own."""
        sequence, answer, _ = self.draw(count, torch.Generator().manual_seed(10_000 + place), place)
        return float((self.model(sequence)[:, 0].argmax(dim=-1) == answer).float().mean())

    def accuracy_by_distance(self, places: list[int]) -> np.ndarray:
        """Return ``accuracy_at`` for each of the places."""
        return np.array([self.accuracy_at(place) for place in places])

    def measure(self) -> dict[str, float]:
        """Return the accuracy over all places, and over those within and beyond the reach of the windows."""
        sequence, answer, places = self.draw(1000, torch.Generator().manual_seed(10_000))
        right = (self.model(sequence)[:, 0].argmax(dim=-1) == answer).float()
        near = places <= self.reach
        return {"accuracy": float(right.mean()), "near": float(right[near].mean()), "far": float(right[~near].mean())}

    evaluate = measure


def _start(settings: Mapping[str, Any], seed: int) -> FarAnswers:
    return FarAnswers(settings, seed)


_SETTINGS = {
    "letters": 8, "digits": 8, "length": 64, "width": 32, "layers": 2, "heads": 2, "window": 8, "global_tokens": 1,
    "batch": 32, "steps": 200, "lr": 5e-3, "warmup": 20, "clip": 1.0, "measure_every": 50,
}  # fmt: skip

#: What ``models.load`` finds here.
RECIPES = (
    Recipe("longformer", "A Longformer with one global token, asked for something far away.", _start, _SETTINGS),
    Recipe("window-only", "The same without a global token.", _start, {**_SETTINGS, "global_tokens": 0}),
)
