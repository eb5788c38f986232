"""What every translation model here shares: training on pairs, greedy decoding, exact match, alignments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .pairs import PAD, START, STOP, Pairs, dates, number_lists, numbers
from .train import AttentionMap, Experiment

__all__ = ["Alignment", "Translation", "Translator", "attend", "exact_match"]

_PAIRS: dict[str, Callable[[], Pairs]] = {"numbers": numbers, "lists": number_lists, "dates": dates}


def attend(scores: Tensor, keep: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Turn scores into weights over the kept positions and average the values with them.

    Parameters
    ----------
    scores : Tensor, shape (b, m)
        One score for each source position.
    keep : Tensor of bool, shape (b, m)
        True where there is a word, False where there is filling.
    values : Tensor, shape (b, m, d_v)
        What is averaged.

    Returns
    -------
    context : Tensor, shape (b, d_v)
        The average.
    weights : Tensor, shape (b, m)
        Rows sum to one; exactly 0 where ``keep`` is False.
    """
    weights = scores.masked_fill(~keep, -torch.inf).softmax(dim=-1)
    return torch.einsum("bm,bmd->bd", weights, values), weights


class Translator(nn.Module):
    """An encoder-decoder that writes one word at a time.

    A subclass gives ``encode`` and ``step``; both ways of running it follow from these. In training the decoder is fed
    the right words whatever it would have said (teacher forcing); in use it is fed its own.
    """

    def encode(self, source: Tensor) -> Any:
        """Read the source, int64 of shape (b, m), and return what the decoder needs of it, and its first state."""
        raise NotImplementedError

    def step(self, word: Tensor, state: Any, memory: Any) -> tuple[Tensor, Any, Tensor | None]:
        """Read one word per sentence, shape (b,), and return logits (b, words), the next state and the weights."""
        raise NotImplementedError

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict each word of the target from the source and the right words before it.

        Parameters
        ----------
        source : Tensor of int64, shape (b, m)
            Source words, filled up with ``PAD``.
        target : Tensor of int64, shape (b, n)
            Target words. Position t is predicted from positions before t: the decoder reads ``START``, target[0], ...

        Returns
        -------
        logits : Tensor, shape (b, n, words)
            Row t predicts target[t].
        weights : Tensor, shape (b, ..., n, m) or None
            Row t holds the attention weights with which target[t] was predicted.
        """
        state, memory = self.encode(source)
        read = torch.cat([torch.full_like(target[:, :1], START), target[:, :-1]], dim=1)
        logits, weights = [], []
        for word in read.unbind(dim=1):
            out, state, looked = self.step(word, state, memory)
            logits.append(out)
            weights.append(looked)
        return torch.stack(logits, dim=1), _stack_rows(weights)

    @torch.no_grad()
    def translate(self, source: Tensor, limit: int) -> tuple[Tensor, Tensor | None]:
        """Write the most probable word at each step, until every sentence has stopped.

        Parameters
        ----------
        source : Tensor of int64, shape (b, m)
            Source words, filled up with ``PAD``.
        limit : int
            Largest number of words to write, ``STOP`` included.

        Returns
        -------
        words : Tensor of int64, shape (b, n)
            With ``PAD`` after ``STOP``.
        weights : Tensor, shape (b, ..., n, m) or None
            Row t holds the attention weights with which word t was predicted.
        """
        state, memory = self.encode(source)
        word = torch.full_like(source[:, 0], START)
        stopped = torch.zeros_like(word, dtype=torch.bool)
        words, weights = [], []
        for _ in range(limit):
            logits, state, looked = self.step(word, state, memory)
            word = logits.argmax(dim=-1).masked_fill(stopped, PAD)
            words.append(word)
            weights.append(looked)
            stopped |= word == STOP
            if stopped.all():
                break
        return torch.stack(words, dim=1), _stack_rows(weights)


def _stack_rows(weights: list[Tensor | None]) -> Tensor | None:
    return torch.stack(weights, dim=-2) if weights[0] is not None else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class Alignment:
    """Where a model looked for each word that it wrote.

    Parameters
    ----------
    source : list of str
        The words read, ``<stop>`` last: one for each column.
    target : list of str
        The words written, ``<stop>`` last: one for each row. Row i holds the weights with which word i was predicted.
    asked_after : list of str
        For each row, the last target word that the asking state had read: ``<start>`` for nothing yet.
    weights : ndarray, shape (..., rows, columns)
        Attention weights; each row sums to one. The Transformer has layers and heads in front.
    reference : list of str
        The right translation, where it is known.
    """

    source: list[str]
    target: list[str]
    asked_after: list[str]
    weights: np.ndarray
    reference: list[str]

    @property
    def is_right(self) -> bool:
        """Whether what was written is the right translation."""
        return self.target[:-1] == self.reference


def exact_match(model: Translator, pairs: Pairs, items: list[tuple[list[str], list[str]]]) -> float:
    """Return the share of sentences that greedy decoding translates without any mistake.

    Parameters
    ----------
    model : Translator
        In evaluation mode.
    pairs : Pairs
        Gives the vocabularies.
    items : list of (list of str, list of str)
        Source words and the right target words.

    Returns
    -------
    float
        Between 0 and 1.
    """
    limit = max(len(target) for _, target in items) + 2
    words, _ = model.translate(pairs.source.encode([source for source, _ in items]), limit)
    right = [pairs.target.decode(row) == target for row, (_, target) in zip(words, items, strict=True)]
    return sum(right) / len(right)


class Translation(Experiment):
    """Train a translator on sentence pairs.

    Parameters
    ----------
    build : callable
        ``build(source_words, target_words)`` gives the model for vocabularies of these sizes.
    settings : mapping
        ``pairs`` ("numbers", "lists" or "dates"), ``batch``, and what ``Recipe`` lists.
    reads_behind : int
        How many target words the state that asks lags behind the word it predicts: 1 where the word before has been
        read already (Luong, the Transformer), 2 where it has not (Bahdanau).
    """

    def __init__(
        self, build: Callable[[int, int], Translator], settings: Mapping[str, Any], *, reads_behind: int = 1
    ) -> None:
        self.pairs = _PAIRS[settings["pairs"]]()
        self.data = repr((self.pairs.train, self.pairs.tests))
        self.model: Translator = build(len(self.pairs.source), len(self.pairs.target))
        self.batch, self.reads_behind = settings["batch"], reads_behind
        self._source = self.pairs.source.encode([s for s, _ in self.pairs.train])
        self._target = self.pairs.target.encode([t for _, t in self.pairs.train])

    def loss(self, generator: torch.Generator) -> Tensor:
        """Return the mean cross-entropy of a word, over the words of a batch and not over its filling."""
        rows = torch.randint(len(self._source), (self.batch,), generator=generator)
        source, target = _trim(self._source[rows]), _trim(self._target[rows])
        logits, _ = self.model(source, target)
        return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)

    def measure(self) -> dict[str, float]:
        """Return the exact match on 100 held-out sentences."""
        return {"held_out": exact_match(self.model, self.pairs, self.pairs.tests["held_out"][:100])}

    def evaluate(self) -> dict[str, float]:
        """Return the exact match on each of the test sets."""
        return {name: exact_match(self.model, self.pairs, items) for name, items in self.pairs.tests.items()}

    def align(self, source: str, reference: str = "") -> Alignment:
        """Translate one sentence and return where the model looked.

        Parameters
        ----------
        source : str
            Words with spaces between them, such as ``"seven hundred and forty two"``.
        reference : str
            The right translation, to compare with.

        Returns
        -------
        Alignment
            Rows are labelled by the word that was predicted, and ``asked_after`` says what the asking state had read.

        Raises
        ------
        ValueError
            If a word is not in the vocabulary or the model has no attention.
        """
        words = source.split()
        if not words:
            raise ValueError("source is empty; wanted at least one word")
        written, weights = self.model.translate(self.pairs.source.encode([words]), 2 * len(words) + 8)
        if weights is None:
            raise ValueError("this model has no attention, so that it has no alignment")
        target = [self.pairs.target.words[i] for i in written[0].tolist()]
        read = ["<start>"] * self.reads_behind + target
        return Alignment([*words, "<stop>"], target, read[: len(target)], weights[0].numpy(), reference.split())

    def maps(self, text: str | None = None) -> list[AttentionMap]:
        """Return the alignment of a sentence; of each layer and head for the Transformer."""
        found = self.align(text if text is not None else " ".join(self.pairs.tests["held_out"][0][0]))
        title = f"{' '.join(found.source[:-1])} -> {' '.join(found.target[:-1])}"
        if found.weights.ndim == 2:
            return [AttentionMap(f"{title} (rows: the word predicted)", found.weights, found.target, found.source)]
        return [
            AttentionMap(f"{title}, layer {layer}, head {head}", found.weights[layer, head], found.target, found.source)
            for layer, head in np.ndindex(*found.weights.shape[:2])
        ]


def _trim(rows: Tensor) -> Tensor:
    """Cut the columns in which every row is filling."""
    return rows[:, : int((rows != PAD).sum(dim=1).max())]
