"""Vaswani et al. (2017): an encoder and a decoder of attention and feed-forward layers, with a cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Block, MultiHeadAttention, sinusoidal
from .pairs import PAD, START
from .train import Recipe
from .translate import Translation, Translator

__all__ = ["Transformer"]

KeysValues = tuple[Tensor, Tensor]

#: Longest sentence, in words: as far as the table of positions goes.
_LONGEST = 128


class _Cache(NamedTuple):
    """The decoder's keys and values so far, a pair for each layer, and how many words it has read."""

    layers: list[KeysValues | None]
    length: int


class Transformer(Translator):
    """Encode the source with self-attention; decode with causal self-attention and attention to the source.

    Parameters
    ----------
    source_words, target_words : int
        Sizes of the vocabularies.
    width, layers, heads : int
        Width of the model, number of layers on each side, number of heads.
    hidden : int
        Width of the feed-forward layers.
    dropout : float
        Share of each sub-layer's output, and of the embeddings, that training drops.

    Notes
    -----
    ``forward`` computes all target positions at once under a causal mask; ``step`` computes one, with the keys and
    values of those before kept, and those of the source computed once for a sentence. Both give the same numbers.

    The query that predicts target word t stands at the position before it, whose state has read word t - 1: row t of
    the weights belongs to the word that it predicts.

    Differences from the paper: normalisation comes before each sub-layer (``Block``), and the feed-forward layers use
    GELU.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.

    Examples
    --------
    >>> import torch
    >>> from attn_guide.models import Transformer
    >>> model = Transformer(source_words=10, target_words=12, width=8, layers=2, heads=2, hidden=16)
    >>> source, target = torch.tensor([[5, 6, 2]]), torch.tensor([[7, 8, 9, 2]])
    >>> logits, weights = model(source, target)
    >>> logits.shape, weights.shape
    (torch.Size([1, 4, 12]), torch.Size([1, 2, 2, 4, 3]))
    """

    positions: Tensor

    def __init__(
        self,
        source_words: int,
        target_words: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        hidden: int = 128,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.source_embedding = nn.Embedding(source_words, width, padding_idx=PAD)
        self.target_embedding = nn.Embedding(target_words, width, padding_idx=PAD)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=width**-0.5)
        self.register_buffer("positions", sinusoidal(_LONGEST, width), persistent=False)
        self.encoder = nn.ModuleList(Block(width, heads, hidden, dropout=dropout) for _ in range(layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(Block(width, heads, hidden, cross=True, dropout=dropout) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, target_words)
        self.dropout = nn.Dropout(dropout)

    def _embed(self, words: Tensor, embedding: nn.Embedding, start: int = 0) -> Tensor:
        """Return embeddings times the root of the width, plus positions: (b, n, width)."""
        n = words.shape[1]
        if start + n > _LONGEST:
            raise ValueError(f"words has length {start + n}; wanted at most {_LONGEST}")
        scaled = embedding(words) * embedding.weight.shape[1] ** 0.5
        return self.dropout(scaled + self.positions[start : start + n])

    def encode(self, source: Tensor) -> tuple[_Cache, tuple[list[KeysValues], Tensor]]:
        """Return an empty cache, and the keys and values of the source for each decoder layer, with the mask."""
        allowed = (source != PAD)[:, None, None]  # (b, 1, 1, m)
        x = self._embed(source, self.source_embedding)
        for block in self.encoder:
            x, *_ = block(x, allowed)
        x = self.encoder_norm(x)
        keys_values = [cast(MultiHeadAttention, block.cross_attention).keys_values(x) for block in self.decoder]
        return _Cache([None] * len(self.decoder), 0), (keys_values, allowed)

    def _decode(
        self, words: Tensor, cache: _Cache, memory: tuple[list[KeysValues], Tensor]
    ) -> tuple[Tensor, _Cache, Tensor]:
        """Return logits (b, n, words), the longer cache and weights (b, layers, heads, n, m) for n new words."""
        keys_values, source_allowed = memory
        n, start = words.shape[1], cache.length
        x = self._embed(words, self.target_embedding, start)
        allowed = torch.ones(n, start + n, dtype=torch.bool, device=words.device).tril(start)
        kept: list[KeysValues | None] = []
        looked = []
        for block, past, source in zip(self.decoder, cache.layers, keys_values, strict=True):
            x, new, _, weights = block(x, allowed, past=past, source=source, source_allowed=source_allowed)
            kept.append(new)
            looked.append(weights)
        return self.output(self.decoder_norm(x)), _Cache(kept, start + n), torch.stack(looked, dim=1)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all words of the target at once; see ``Translator.forward``."""
        cache, memory = self.encode(source)
        logits, _, weights = self._decode(F.pad(target[:, :-1], (1, 0), value=START), cache, memory)
        return logits, weights

    def step(
        self, word: Tensor, state: _Cache, memory: tuple[list[KeysValues], Tensor]
    ) -> tuple[Tensor, _Cache, Tensor]:
        """Read one more word, with the cache; see ``Translator.step``."""
        logits, cache, weights = self._decode(word[:, None], state, memory)
        return logits[:, 0], cache, weights[..., 0, :]


def _start(settings: Mapping[str, Any], seed: int) -> Translation:
    def build(source_words: int, target_words: int) -> Transformer:
        return Transformer(
            source_words, target_words, settings["width"], settings["layers"], settings["heads"], settings["hidden"],
            dropout=settings["dropout"],
        )  # fmt: skip

    return Translation(build, settings)


_SETTINGS = {
    "pairs": "numbers", "width": 64, "layers": 2, "heads": 4, "hidden": 128, "dropout": 0.0, "batch": 64,
    "steps": 200, "lr": 3e-3, "warmup": 20, "clip": 1.0, "measure_every": 50,
}  # fmt: skip

#: What ``models.load`` finds here.
RECIPES = (
    Recipe("transformer", "The Transformer, English to German number words.", _start, _SETTINGS),
    Recipe("transformer-dates", "The same, American to Hungarian dates.", _start, {**_SETTINGS, "pairs": "dates"}),
    Recipe("transformer-lists", "The same, lists of numbers.", _start, {**_SETTINGS, "pairs": "lists", "steps": 350}),
)
