"""Luong, Pham and Manning (2015): multiplicative scores, local attention and input feeding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .._checks import check_choice, check_integer
from .bahdanau import AdditiveAttention
from .pairs import PAD
from .train import Recipe
from .translate import Translation, Translator

__all__ = ["Luong", "LuongAttention"]

_SCORES = ("dot", "scaled-dot", "general", "concat", "additive", "cosine", "bare-cosine")
_REACHES = ("global", "local-m", "local-p")


class LuongAttention(nn.Module):
    """Weights of a decoder state over the source, everywhere or near a position.

    Parameters
    ----------
    width : int
        Width of the states of both sides.
    score : {"dot", "scaled-dot", "general", "concat", "additive", "cosine", "bare-cosine"}
        The paper's three are ``h . s``, ``h . W s`` and ``v . tanh(W [h; s])``. For comparison there are the
        Transformer's ``h . s / sqrt(width)``, Bahdanau's ``v . tanh(W_q h + W_k s)``, and the cosine of h and s, with a
        learned factor that starts at 10 or, bare, without one.
    reach : {"global", "local-m", "local-p"}
        All of the source; a window around position t, as if both languages went in step; a window around a position
        that the state predicts, favouring its middle.
    window : int
        Half the width D of the window: positions p - D to p + D are seen. Global attention does not use it.

    Notes
    -----
    Local-p predicts :math:`p_t = m\\,\\sigma(v_p^T \\tanh(W_p h_t))` for a source of m words, and multiplies the
    softmax weights by :math:`\\exp(-(s - p_t)^2 / 2\\sigma^2)` with :math:`\\sigma = D / 2`, so that its rows sum to at
    most one; those of the others sum to one. The window is laid around the whole number nearest to p_t.

    References
    ----------
    Luong, Pham and Manning (2015), Effective Approaches to Attention-based Neural Machine Translation, section 3.1
    (equations 7 and 8) and 3.2 (equations 9 and 10).
    """

    def __init__(self, width: int, score: str = "general", reach: str = "global", window: int = 4) -> None:
        super().__init__()
        self.score = check_choice("score", score, _SCORES)
        self.reach = check_choice("reach", reach, _REACHES)
        self.window = check_integer("window", window, 1)
        if score == "general":
            self.w = nn.Linear(width, width, bias=False)
        if score == "concat":
            self.w = nn.Linear(2 * width, width, bias=False)
            self.v = nn.Linear(width, 1, bias=False)
        if score == "additive":
            self.network = AdditiveAttention(width, width, width)
        if score == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        if reach == "local-p":
            self.w_position = nn.Linear(width, width, bias=False)
            self.v_position = nn.Linear(width, 1, bias=False)

    def scores(self, state: Tensor, positions: Tensor) -> Tensor:
        """Return the scores (b, m) of a state (b, width) against source positions (b, m, width)."""
        if self.score == "concat":
            both = torch.cat([state[:, None].expand_as(positions), positions], dim=-1)
            return self.v(torch.tanh(self.w(both))).squeeze(-1)
        if self.score == "additive":
            return self.network(state, self.network.project(positions))
        if self.score == "general":
            positions = self.w(positions)
        if self.score in ("cosine", "bare-cosine"):
            state, positions = F.normalize(state, dim=-1), F.normalize(positions, dim=-1)
        product = torch.einsum("bd,bmd->bm", state, positions)
        if self.score == "cosine":
            return product * self.log_scale.exp()
        return product / state.shape[-1] ** 0.5 if self.score == "scaled-dot" else product

    def centre(self, state: Tensor, step: int, length: Tensor) -> Tensor:
        """Return the position (b,) that a local window is laid around, for sources of ``length`` (b,) words."""
        if self.reach == "local-m":
            return torch.minimum(torch.full_like(length, step), length - 1).to(state.dtype)
        return length * torch.sigmoid(self.v_position(torch.tanh(self.w_position(state))).squeeze(-1))

    def forward(self, state: Tensor, positions: Tensor, keep: Tensor, step: int) -> Tensor:
        """Return the weights (b, m) of step ``step``; ``keep`` (b, m) is True where the source has a word."""
        scores = self.scores(state, positions).masked_fill(~keep, -torch.inf)
        if self.reach == "global":
            return scores.softmax(dim=-1)
        length = keep.sum(dim=1)
        centre = self.centre(state, step, length)[:, None]  # (b, 1)
        place = torch.arange(keep.shape[1], device=state.device)
        # The window always holds a word: its middle is cut to the source, of which p_t = m would be one past the end.
        middle = torch.minimum(centre.round(), length[:, None] - 1)
        weights = scores.masked_fill((place - middle).abs() > self.window, -torch.inf).softmax(dim=-1)
        if self.reach == "local-p":
            weights = weights * torch.exp(-2 * ((place - centre) / self.window) ** 2)  # sigma = window / 2
        return weights


class _State(NamedTuple):
    """What the decoder carries: its LSTM's hidden state and cell, the last attentional vector, the step."""

    hidden: Tensor
    cell: Tensor
    attentional: Tensor
    step: int


class Luong(Translator):
    """An LSTM reads, an LSTM writes, and attention comes after the decoder's state, not before it.

    Parameters
    ----------
    source_words, target_words : int
        Sizes of the vocabularies.
    width : int
        Width of embeddings and states.
    score : str
        How a state is compared with a source position, as for ``LuongAttention``.
    reach : {"global", "local-m", "local-p"}
        Where it may look.
    window : int
        Half width D of a local window.
    input_feeding : bool
        Whether the decoder reads its last attentional vector along with the word before.

    Notes
    -----
    For target word t, with h the decoder's states and s the encoder's:

    - state :math:`h_t = \\mathrm{LSTM}(h_{t-1}, [y_{t-1}; \\tilde h_{t-1}])`,
    - weights :math:`a_t = \\mathrm{softmax}(\\mathrm{score}(h_t, s))`, context :math:`c_t = \\sum_j a_{tj} s_j`,
    - attentional vector :math:`\\tilde h_t = \\tanh(W_c [c_t; h_t])`, word: softmax of :math:`W_s \\tilde h_t`.

    The state that asks has read :math:`y_{t-1}`: here the query is one word further than Bahdanau's. The paper stacks
    four layers; this model has one, and reads in one direction. The decoder starts from the encoder's last state.

    References
    ----------
    Luong, Pham and Manning (2015), Effective Approaches to Attention-based Neural Machine Translation, section 3,
    equations 5 to 10, and section 3.3 (input feeding).

    Examples
    --------
    >>> import torch
    >>> from attn_guide.models import Luong
    >>> model = Luong(source_words=10, target_words=12, width=8, score="concat")
    >>> source, target = torch.tensor([[5, 6, 2]]), torch.tensor([[7, 8, 9, 2]])
    >>> logits, weights = model(source, target)
    >>> logits.shape, weights.shape
    (torch.Size([1, 4, 12]), torch.Size([1, 4, 3]))
    """

    def __init__(
        self,
        source_words: int,
        target_words: int,
        width: int = 64,
        *,
        score: str = "general",
        reach: str = "global",
        window: int = 4,
        input_feeding: bool = True,
    ) -> None:
        super().__init__()
        self.source_embedding = nn.Embedding(source_words, width, padding_idx=PAD)
        self.target_embedding = nn.Embedding(target_words, width, padding_idx=PAD)
        self.encoder = nn.LSTM(width, width, batch_first=True)
        self.attention = LuongAttention(width, score, reach, window)
        self.input_feeding = input_feeding
        self.decoder = nn.LSTMCell(2 * width if input_feeding else width, width)
        self.combine = nn.Linear(2 * width, width, bias=False)
        self.output = nn.Linear(width, target_words, bias=False)

    def encode(self, source: Tensor) -> tuple[_State, tuple[Tensor, Tensor]]:
        """Return the first state and the source's positions (b, m, width) with their mask."""
        keep = source != PAD
        packed = pack_padded_sequence(
            self.source_embedding(source), keep.sum(dim=1), batch_first=True, enforce_sorted=False
        )
        outputs, (hidden, cell) = self.encoder(packed)
        positions, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.shape[1])
        return _State(hidden[0], cell[0], torch.zeros_like(hidden[0]), 0), (positions, keep)

    def step(self, word: Tensor, state: _State, memory: tuple[Tensor, Tensor]) -> tuple[Tensor, _State, Tensor]:
        """Read the word before and move on, then look; see ``Translator.step``."""
        positions, keep = memory
        read = self.target_embedding(word)
        if self.input_feeding:
            read = torch.cat([read, state.attentional], dim=-1)
        hidden, cell = self.decoder(read, (state.hidden, state.cell))
        weights = self.attention(hidden, positions, keep, state.step)
        context = torch.einsum("bm,bmd->bd", weights, positions)
        attentional = torch.tanh(self.combine(torch.cat([context, hidden], dim=-1)))
        return self.output(attentional), _State(hidden, cell, attentional, state.step + 1), weights


def _start(settings: Mapping[str, Any], seed: int) -> Translation:
    def build(source_words: int, target_words: int) -> Luong:
        return Luong(
            source_words, target_words, settings["width"],
            score=settings["score"], reach=settings["reach"], window=settings["window"],
            input_feeding=settings["input_feeding"],
        )  # fmt: skip

    return Translation(build, settings)


_SETTINGS = {
    "pairs": "numbers", "width": 64, "score": "general", "reach": "global", "window": 2, "input_feeding": True,
    "batch": 64, "steps": 250, "lr": 1e-2, "warmup": 20, "clip": 1.0, "measure_every": 25,
}  # fmt: skip

#: What ``models.load`` finds here.
RECIPES = (
    Recipe("luong-dot", "Luong's translator with the dot score, number words.", _start, {**_SETTINGS, "score": "dot"}),
    Recipe("luong-general", "The same with the general score.", _start, _SETTINGS),
    Recipe("luong-concat", "The same with the concat score.", _start, {**_SETTINGS, "score": "concat"}),
    Recipe("luong-scaled", "The same with the scaled dot product.", _start, {**_SETTINGS, "score": "scaled-dot"}),
    Recipe("luong-additive", "The same with the additive score.", _start, {**_SETTINGS, "score": "additive"}),
    Recipe("luong-cosine", "The same with the cosine and a learned scale.", _start, {**_SETTINGS, "score": "cosine"}),
    Recipe("luong-bare-cosine", "The same with the cosine alone.", _start, {**_SETTINGS, "score": "bare-cosine"}),
    Recipe(
        "luong-local-m", "The same with the general score in a window around the step.", _start,
        {**_SETTINGS, "reach": "local-m"},
    ),
    Recipe(
        "luong-local-p", "The same with the general score in a window around a predicted position.", _start,
        {**_SETTINGS, "reach": "local-p"},
    ),
    Recipe(
        "luong-no-feeding", "The same with the general score and without input feeding.", _start,
        {**_SETTINGS, "input_feeding": False},
    ),
)  # fmt: skip
