"""Bahdanau, Cho and Bengio (2014): the first attention, in a recurrent translator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .pairs import PAD
from .train import Recipe
from .translate import Translation, Translator, attend

__all__ = ["AdditiveAttention", "Bahdanau"]


class AdditiveAttention(nn.Module):
    """Compare a query with keys by a small network: ``v . tanh(W_q q + W_k k)``.

    Parameters
    ----------
    d_query, d_key : int
        Widths of queries and keys.
    d_a : int
        Width of the hidden layer.

    Notes
    -----
    ``W_k k`` does not depend on the query and is computed once for a sentence (``project``): each further query costs
    one product with W_q and m d_a tanh.

    References
    ----------
    Bahdanau, Cho and Bengio (2014), Neural Machine Translation by Jointly Learning to Align and Translate, section
    3.1 and appendix A.1.2.
    """

    def __init__(self, d_query: int, d_key: int, d_a: int) -> None:
        super().__init__()
        self.w_query = nn.Linear(d_query, d_a, bias=False)
        self.w_key = nn.Linear(d_key, d_a, bias=False)
        self.v = nn.Linear(d_a, 1, bias=False)

    def project(self, key: Tensor) -> Tensor:
        """Return ``W_k k`` for keys of shape (b, m, d_key): shape (b, m, d_a)."""
        return self.w_key(key)

    def forward(self, query: Tensor, projected: Tensor) -> Tensor:
        """Return the scores, shape (b, m), of queries (b, d_query) against projected keys (b, m, d_a)."""
        return self.v(torch.tanh(self.w_query(query)[:, None] + projected)).squeeze(-1)


class Bahdanau(Translator):
    """A bidirectional GRU reads, additive attention looks, a GRU writes.

    Parameters
    ----------
    source_words, target_words : int
        Sizes of the vocabularies.
    width : int
        Width of embeddings, states and the attention's hidden layer; source positions are twice as wide, a state from
        each direction.
    attention : bool
        Without it the decoder is given the last states of the two encoders at every step: the fixed-length vector
        that attention was invented to replace.

    Notes
    -----
    For target word i, with s the decoder's states, h the encoder's and y the words:

    - score :math:`e_{ij} = v^T \\tanh(W_q s_{i-1} + W_k h_j)`, weights :math:`\\alpha_i = \\mathrm{softmax}(e_i)`,
    - context :math:`c_i = \\sum_j \\alpha_{ij} h_j`,
    - state :math:`s_i = \\mathrm{GRU}(s_{i-1}, [y_{i-1}; c_i])`,
    - word: a maxout layer over :math:`s_i, y_{i-1}, c_i`, then softmax.

    The state that asks, :math:`s_{i-1}`, has read :math:`y_{i-2}` but not yet :math:`y_{i-1}`. The first state is
    :math:`\\tanh(W_s \\overleftarrow{h}_1)`. The paper's output layer reads the state before, :math:`s_{i-1}`; this one
    reads :math:`s_i`. PyTorch's GRU multiplies with the reset gate after the matrix product, the paper before.

    For n words out and m words in, the attention costs n m d_a tanh and multiply-adds.

    References
    ----------
    Bahdanau, Cho and Bengio (2014), Neural Machine Translation by Jointly Learning to Align and Translate, section 3
    and appendix A. Without attention: Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder for
    Statistical Machine Translation, section 2.

    Examples
    --------
    >>> import torch
    >>> from attn_guide.models import Bahdanau
    >>> model = Bahdanau(source_words=10, target_words=12, width=8)
    >>> source, target = torch.tensor([[5, 6, 2]]), torch.tensor([[7, 8, 9, 2]])
    >>> logits, weights = model(source, target)
    >>> logits.shape, weights.shape
    (torch.Size([1, 4, 12]), torch.Size([1, 4, 3]))
    """

    def __init__(self, source_words: int, target_words: int, width: int = 96, *, attention: bool = True) -> None:
        super().__init__()
        self.source_embedding = nn.Embedding(source_words, width, padding_idx=PAD)
        self.target_embedding = nn.Embedding(target_words, width, padding_idx=PAD)
        self.encoder = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.first_state = nn.Linear(width, width)
        self.attention = AdditiveAttention(width, 2 * width, width) if attention else None
        self.decoder = nn.GRUCell(width + 2 * width, width)
        self.maxout = nn.Linear(width + width + 2 * width, 2 * width)
        self.output = nn.Linear(width, target_words)

    def encode(self, source: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor | None]]:
        """Return the first state (b, width) and the source's positions (b, m, 2 width), mask and projected keys."""
        keep = source != PAD
        packed = pack_padded_sequence(
            self.source_embedding(source), keep.sum(dim=1), batch_first=True, enforce_sorted=False
        )
        outputs, last = self.encoder(packed)  # last: (directions, b, width)
        positions, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.shape[1])
        state = torch.tanh(self.first_state(last[1]))  # what read backwards ends at the first word
        if self.attention is None:
            return state, (torch.cat([last[0], last[1]], dim=-1), keep, None)
        return state, (positions, keep, self.attention.project(positions))

    def step(
        self, word: Tensor, state: Tensor, memory: tuple[Tensor, Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Look, then read the word before and move on; see ``Translator.step``."""
        positions, keep, projected = memory
        weights = None
        if self.attention is None:
            context = positions
        else:
            context, weights = attend(self.attention(state, projected), keep, positions)
        embedded = self.target_embedding(word)
        state = self.decoder(torch.cat([embedded, context], dim=-1), state)
        pairs = self.maxout(torch.cat([state, embedded, context], dim=-1))  # (b, 2 width)
        return self.output(pairs.unflatten(-1, (-1, 2)).amax(dim=-1)), state, weights


def _start(settings: Mapping[str, Any], seed: int) -> Translation:
    def build(source_words: int, target_words: int) -> Bahdanau:
        return Bahdanau(source_words, target_words, settings["width"], attention=settings["attention"])

    return Translation(build, settings, reads_behind=2)


_SETTINGS = {
    "pairs": "numbers", "attention": True, "width": 64, "batch": 64,
    "steps": 150, "lr": 5e-3, "warmup": 20, "clip": 1.0, "measure_every": 15,
}  # fmt: skip
_LISTS = {"pairs": "lists", "steps": 300, "measure_every": 50}
_WITHOUT = {"attention": False}

#: What ``models.load`` finds here.
RECIPES = (
    Recipe("bahdanau", "Bahdanau's translator, English to German number words.", _start, _SETTINGS),
    Recipe("bahdanau-dates", "The same, American to Hungarian dates.", _start, {**_SETTINGS, "pairs": "dates"}),
    Recipe("bahdanau-lists", "The same, lists of numbers.", _start, {**_SETTINGS, **_LISTS}),
    Recipe("fixed-vector", "The same without attention, number words.", _start, {**_SETTINGS, **_WITHOUT}),
    Recipe(
        "fixed-vector-lists", "The same without attention, lists of numbers.", _start,
        {**_SETTINGS, **_WITHOUT, **_LISTS},
    ),
)  # fmt: skip
