"""A decoder in the style of GPT: causal self-attention with rotary positions and a cache, on the language's manual."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._checks import check_integer, check_positive
from .layers import Block
from .train import AttentionMap, Experiment, Recipe

__all__ = ["GPT", "TextModel", "corpus"]

Cache = list[tuple[Tensor, Tensor]]


class GPT(nn.Module):
    """Predict the next token from those before it.

    Parameters
    ----------
    tokens : int
        Number of different tokens.
    width, layers, heads : int
        Size of the model; the feed-forward layers are four times as wide, or absent where ``feed_forward`` is False.
    feed_forward : bool
        Whether blocks have a feed-forward layer.
    dropout : float
        Share of each sub-layer's output that training drops.

    Notes
    -----
    Positions enter through rotary embeddings, so that no table limits the length. A pass over n tokens costs
    n^2 width multiply-adds per layer for the scores and as many for the average; with a cache one more token costs
    n width, twice.

    References
    ----------
    Radford et al. (2019), Language Models are Unsupervised Multitask Learners, section 2.3 (decoder, pre-norm). Su et
    al. (2021), RoFormer: Enhanced Transformer with Rotary Position Embedding.

    Examples
    --------
    >>> import torch
    >>> from attn_guide.models import GPT
    >>> model = GPT(tokens=20, width=16, layers=2, heads=2)
    >>> logits, cache, weights = model(torch.tensor([[3, 1, 4, 1, 5]]))
    >>> logits.shape, weights.shape
    (torch.Size([1, 5, 20]), torch.Size([1, 2, 2, 5, 5]))
    """

    def __init__(
        self,
        tokens: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        *,
        feed_forward: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        hidden = 4 * width if feed_forward else 0
        self.blocks = nn.ModuleList(Block(width, heads, hidden, rotary=True, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, tokens, bias=False)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache, Tensor]:
        """Predict what follows each of the tokens.

        Parameters
        ----------
        tokens : Tensor of int64, shape (b, n)
            New tokens; they stand after those in the cache.
        cache : list of (Tensor, Tensor), optional
            Keys and values of the tokens before, a pair for each layer, as an earlier call returned them.

        Returns
        -------
        logits : Tensor, shape (b, n, tokens)
            Row t scores the token after token t.
        cache : list of (Tensor, Tensor)
            Keys and values of all tokens so far, (b, heads, past + n, width / heads).
        weights : Tensor, shape (b, layers, heads, n, past + n)
            Attention weights; row t looks at its past and itself.
        """
        x = self.embedding(tokens) * self.embedding.weight.shape[1] ** 0.5
        past = cache[0][0].shape[-2] if cache else 0
        n = tokens.shape[1]
        allowed = torch.ones(n, past + n, dtype=torch.bool, device=tokens.device).tril(past)
        kept, looked = [], []
        for index, block in enumerate(self.blocks):
            x, keys_values, weights, _ = block(x, allowed, past=cache[index] if cache else None)
            kept.append(keys_values)
            looked.append(weights)
        return self.output(self.norm(x)), kept, torch.stack(looked, dim=1)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        count: int,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        use_cache: bool = True,
    ) -> Tensor:
        """Write tokens after a prompt.

        Parameters
        ----------
        prompt : Tensor of int64, shape (b, n)
            At least one token.
        count : int
            How many tokens to write.
        temperature : float
            0 takes the most probable token; above 0 tokens are drawn from the softmax of logits / temperature.
        generator : torch.Generator, optional
            Source of randomness; needed where the temperature is above 0.
        use_cache : bool
            Whether keys and values are kept, or everything is computed again for each token.

        Returns
        -------
        Tensor of int64, shape (b, n + count)
            Prompt and continuation.

        Raises
        ------
        ValueError
            If the prompt is empty, or tokens shall be drawn without a generator.
        """
        check_integer("count", count)
        if prompt.shape[-1] == 0:
            raise ValueError(f"prompt has shape {tuple(prompt.shape)}; wanted at least one token")
        if temperature and generator is None:
            raise ValueError("generator is None; wanted a torch.Generator to draw tokens with")
        tokens, new, cache = prompt, prompt, None
        for _ in range(count):
            logits, kept, _ = self(new if use_cache else tokens, cache)
            cache = kept if use_cache else None
            last = logits[:, -1]
            if temperature:
                chances = (last / check_positive("temperature", temperature)).softmax(dim=-1)
                new = torch.multinomial(chances, 1, generator=generator)
            else:
                new = last.argmax(dim=-1, keepdim=True)
            tokens = torch.cat([tokens, new], dim=1)
        return tokens


@cache
def corpus() -> str:
    """Return the text that the model learns: the reference manual of Python, as ``help()`` shows it.

    Returns
    -------
    str
        About 700,000 characters: all topics of ``pydoc_data.topics``, in alphabetical order, in ASCII.

    Notes
    -----
    The text ships with every Python, under the Python Software Foundation License Version 2, and differs a little
    from one Python to the next. Characters outside ASCII become "?".
    """
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "replace").decode()


class TextModel(Experiment):
    """Train a GPT on the characters of a text, and compare it with counting.

    Parameters
    ----------
    settings : mapping
        ``width``, ``layers``, ``heads``, ``dropout``, ``length`` (characters of a training sequence), ``batch``, and
        what ``Recipe`` lists.

    Notes
    -----
    The text is cut into pieces of 2,000 characters, and every tenth piece is held out.
    """

    model: GPT

    def __init__(self, settings: Mapping[str, Any], seed: int) -> None:
        text = corpus()
        self.data = text
        self.characters = "".join(sorted(set(text)))
        self.length, self.batch = settings["length"], settings["batch"]
        pieces = [text[i : i + 2000] for i in range(0, len(text) - 1999, 2000)]
        self._train = self.encode("".join(p for i, p in enumerate(pieces) if i % 10 != 9))
        self._held_out = torch.stack([self.encode(p) for p in pieces[9::10]])  # (pieces, 2000)
        self.model = GPT(
            len(self.characters), settings["width"], settings["layers"], settings["heads"], dropout=settings["dropout"]
        )

    def encode(self, text: str) -> Tensor:
        """Return the numbers of the characters of a text, shape (len(text),)."""
        number = {character: i for i, character in enumerate(self.characters)}
        if unknown := sorted(set(text) - set(number)):
            raise ValueError(f"text has the characters {unknown}; wanted those of the corpus: {self.characters!r}")
        return torch.tensor([number[character] for character in text])

    def decode(self, row: Tensor) -> str:
        """Return the text of a row of numbers."""
        return "".join(self.characters[i] for i in row.tolist())

    def loss(self, generator: torch.Generator) -> Tensor:
        """Return the mean cross-entropy of the next character, in nats."""
        starts = torch.randint(len(self._train) - self.length, (self.batch, 1), generator=generator)
        rows = self._train[starts + torch.arange(self.length + 1)]
        logits, _, _ = self.model(rows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())

    def _windows(self, length: int, count: int) -> Tensor:
        """Return the first ``count`` windows of the held-out pieces, (count, length + 1), none overlapping another."""
        return self._held_out.unfold(1, length + 1, length + 1).flatten(0, 1)[:count]

    @torch.no_grad()
    def loss_by_position(self, length: int | None = None, count: int = 200) -> np.ndarray:
        """Return the held-out loss of each position, with nothing before the first.

        Parameters
        ----------
        length : int, optional
            Characters of a window; those of a training sequence where it is not given. Longer is allowed.
        count : int
            Number of windows.

        Returns
        -------
        ndarray, shape (length,)
            Entry t is the mean loss, in nats, of a character that has t + 1 characters before it.
        """
        rows = self._windows(length or self.length, count)
        losses = [
            F.cross_entropy(self.model(part[:, :-1])[0].mT, part[:, 1:], reduction="none") for part in rows.split(50)
        ]
        return torch.cat(losses).mean(dim=0).numpy()

    def measure(self) -> dict[str, float]:
        """Return the held-out loss on 50 windows."""
        return {"held_out": float(self.loss_by_position(count=50).mean())}

    def baselines(self) -> dict[str, float]:
        """Return the held-out loss of the unigram and the bigram model, in nats per character.

        Returns
        -------
        dict of float
            ``unigram`` and ``bigram``: counts over the training text, with one added to each count, evaluated on the
            same characters as ``loss_by_position``.
        """
        size = len(self.characters)
        pairs = torch.bincount(self._train[:-1] * size + self._train[1:], minlength=size * size).view(size, size) + 1.0
        rows = self._windows(self.length, 200)
        before, after = rows[:, :-1].flatten(), rows[:, 1:].flatten()
        single = pairs.sum(dim=0)
        return {
            "unigram": float(-(single / single.sum()).log()[after].mean()),
            "bigram": float(-(pairs / pairs.sum(dim=1, keepdim=True)).log()[before, after].mean()),
        }

    def evaluate(self) -> dict[str, float]:
        """Return the held-out loss of the model and the two baselines in nats, and the model's in bits."""
        held_out = float(self.loss_by_position().mean())
        return {"held_out": held_out, "bits_per_character": held_out / math.log(2), **self.baselines()}

    def write(self, prompt: str, count: int, *, temperature: float = 0.0, seed: int = 0, use_cache: bool = True) -> str:
        """Continue a text; see ``GPT.generate``.

        Parameters
        ----------
        prompt : str
            At least one character of the corpus.
        count : int
            Characters to write.
        temperature : float
            0 takes the most probable character.
        seed : int
            Of the drawing.
        use_cache : bool
            Whether keys and values are kept.

        Returns
        -------
        str
            Prompt and continuation.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = self.model.generate(
            self.encode(prompt)[None], count, temperature=temperature, generator=generator, use_cache=use_cache
        )
        return self.decode(rows[0])

    def text_attention(self, text: str) -> np.ndarray:
        """Return the attention weights over a text, shape (layers, heads, n, n)."""
        with torch.no_grad():
            return self.model(self.encode(text)[None])[2][0].numpy()

    def maps(self, text: str | None = None) -> list[AttentionMap]:
        """Return the attention of every layer and head over a text."""
        text = text or "for x in y"
        names = [repr(character)[1:-1] for character in text]
        weights = self.text_attention(text)
        return [
            AttentionMap(f"layer {layer}, head {head}", weights[layer, head], names, names)
            for layer, head in np.ndindex(*weights.shape[:2])
        ]


def _start(settings: Mapping[str, Any], seed: int) -> TextModel:
    return TextModel(settings, seed)


#: What ``models.load`` finds here.
RECIPES = (
    Recipe(
        "gpt", "A decoder with rotary positions and a cache, on the characters of Python's reference manual.", _start,
        {
            "width": 96, "layers": 2, "heads": 4, "dropout": 0.0, "length": 96, "batch": 16,
            "steps": 500, "lr": 3e-3, "warmup": 30, "clip": 1.0, "weight_decay": 0.1, "measure_every": 100,
        },
    ),
)  # fmt: skip
