"""A two-layer model on sequences that repeat: heads form that look one token back, and heads that use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .gpt import GPT
from .layers import Block
from .train import AttentionMap, Experiment, Recipe, no_text

__all__ = ["RepeatedSequences", "head_scores"]


def head_scores(weights: Tensor, half: int) -> dict[str, np.ndarray]:
    """Score what each head does on sequences whose second half repeats the first.

    Parameters
    ----------
    weights : Tensor, shape (b, layers, heads, 2 half, 2 half)
        Attention weights.
    half : int
        Length of what is repeated.

    Returns
    -------
    dict of ndarray, each of shape (layers, heads)
        ``previous``: mean weight on the token before, over all positions but the first. ``induction``: mean weight on
        the token that followed the earlier occurrence of the present one, over the second half. ``same``: mean weight
        on that earlier occurrence itself. ``first``: mean weight on the first token, over the second half.

    Notes
    -----
    A head that spreads its weights evenly scores about one over the number of visible positions on each.

    References
    ----------
    Olsson et al. (2022), In-context Learning and Induction Heads, the section on induction heads' definition
    (prefix-matching score).
    """
    second = torch.arange(half, 2 * half)
    mean = weights.mean(dim=0)  # (layers, heads, n, n)
    return {
        "previous": mean.diagonal(-1, -2, -1).mean(dim=-1).numpy(),
        "induction": mean[..., second, second - half + 1].mean(dim=-1).numpy(),
        "same": mean[..., second, second - half].mean(dim=-1).numpy(),
        "first": mean[..., second, 0].mean(dim=-1).numpy(),
    }


class RepeatedSequences(Experiment):
    """Predict the next token of a random sequence that is said twice.

    Parameters
    ----------
    settings : mapping
        ``tokens``, ``width``, ``layers``, ``heads``, ``shortest`` and ``longest`` (of what is repeated), ``batch``,
        and what ``Recipe`` lists.

    Notes
    -----
    The tokens of a half are all different, so that each stands at one earlier place only. The length of a half is
    drawn anew for every batch: with one fixed length a head could look a fixed distance back and would not need to
    compare tokens. The first half cannot be predicted; in the second all tokens but the first can, and the loss is
    taken there.
    """

    model: GPT

    def __init__(self, settings: Mapping[str, Any], seed: int) -> None:
        self.tokens, self.batch = settings["tokens"], settings["batch"]
        self.shortest, self.longest = settings["shortest"], settings["longest"]
        self.model = GPT(self.tokens, settings["width"], settings["layers"], settings["heads"], feed_forward=False)
        self.half = (self.shortest + self.longest) // 2
        self.test = self.draw(100, self.half, torch.Generator().manual_seed(10_000))  # the same for every seed

    def draw(self, count: int, half: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` sequences, shape (count, 2 half)."""
        once = torch.rand(count, self.tokens, generator=generator).argsort(dim=1)[:, :half]
        return torch.cat([once, once], dim=1)

    def repeated_loss(self, sequences: Tensor) -> Tensor:
        """Return the mean cross-entropy of the tokens that can be known: of the second half, but for its first."""
        half = sequences.shape[1] // 2
        logits, _, _ = self.model(sequences[:, :-1])
        return F.cross_entropy(logits[:, half:].flatten(0, 1), sequences[:, half + 1 :].flatten())

    def loss(self, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch of one length."""
        half = int(torch.randint(self.shortest, self.longest + 1, (), generator=generator))
        return self.repeated_loss(self.draw(self.batch, half, generator))

    @torch.no_grad()
    def scores(self, half: int | None = None) -> dict[str, np.ndarray]:
        """Return ``head_scores`` on test sequences, of another length than the usual where ``half`` is given."""
        sequences = self.test if half is None else self.draw(100, half, torch.Generator().manual_seed(10_001))
        return head_scores(self.model(sequences)[2], sequences.shape[1] // 2)

    @torch.no_grad()
    def without(self, *heads: tuple[int, int]) -> float:
        """Return the test loss with some heads taken out: what they give is set to 0.

        Parameters
        ----------
        *heads : tuple of int
            Each a layer and a head.

        Returns
        -------
        float
            Mean cross-entropy, in nats; guessing gives about log(tokens).
        """
        masks = [cast(Block, block).self_attention.head_mask for block in self.model.blocks]
        for layer, head in heads:
            masks[layer][head] = 0
        try:
            return float(self.repeated_loss(self.test))
        finally:
            for mask in masks:
                mask.fill_(1)

    def ablation(self) -> np.ndarray:
        """Return the test loss with each head taken out alone, shape (layers, heads)."""
        shape = len(self.model.blocks), cast(Block, self.model.blocks[0]).self_attention.heads
        return np.array([[self.without((layer, head)) for head in range(shape[1])] for layer in range(shape[0])])

    def measure(self) -> dict[str, float]:
        """Return the test loss and the four scores of every head, as ``"induction_1_0"`` for layer 1 and head 0."""
        found = {"test_loss": float(self.repeated_loss(self.test))}
        for name, scores in self.scores().items():
            found |= {f"{name}_{layer}_{head}": float(x) for (layer, head), x in np.ndenumerate(scores)}
        return found

    def evaluate(self) -> dict[str, float]:
        """Return the test loss, the share of right predictions, each score's largest, and the loss without heads.

        ``"without_0_2"`` is the loss without head 2 of layer 0, ``"without_layer_0"`` that without any head of it.
        """
        predicted = self.model(self.test[:, :-1])[0].argmax(dim=-1)[:, self.half :]
        found = {
            "test_loss": float(self.repeated_loss(self.test)),
            "accuracy": float((predicted == self.test[:, self.half + 1 :]).float().mean()),
        }
        found |= {name: float(scores.max()) for name, scores in self.scores().items()}
        alone = self.ablation()
        found |= {f"without_{layer}_{head}": x for (layer, head), x in np.ndenumerate(alone)}
        for layer, losses in enumerate(alone):
            found[f"without_layer_{layer}"] = self.without(*((layer, head) for head in range(len(losses))))
        return found

    @torch.no_grad()
    def maps(self, text: str | None = None) -> list[AttentionMap]:
        """Return the attention of every layer and head over one short sequence that is said twice."""
        no_text(text)
        sequence = self.draw(1, self.shortest, torch.Generator().manual_seed(10_002))
        names = [str(token) for token in sequence[0].tolist()]
        weights = self.model(sequence)[2][0].numpy()
        return [
            AttentionMap(f"layer {layer}, head {head}", weights[layer, head], names, names)
            for layer, head in np.ndindex(*weights.shape[:2])
        ]


def _start(settings: Mapping[str, Any], seed: int) -> RepeatedSequences:
    return RepeatedSequences(settings, seed)


#: What ``models.load`` finds here.
RECIPES = (
    Recipe(
        "induction", "Two layers of attention on sequences that repeat, in which induction heads form.", _start,
        {
            "tokens": 32, "width": 64, "layers": 2, "heads": 4, "shortest": 8, "longest": 16, "batch": 32,
            "steps": 400, "lr": 3e-3, "warmup": 20, "clip": 1.0, "weight_decay": 0.01, "measure_every": 10,
        },
    ),
)  # fmt: skip
