"""A classifier of handwritten digits that looks at patches: by averaging them, or by choosing one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._checks import check_choice
from .train import AttentionMap, Experiment, Recipe, no_text

__all__ = ["Digits", "Glimpse", "Looks", "digit_images"]

_KINDS = ("soft", "hard", "gumbel", "straight-through", "random")


@cache
def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Return the handwritten digits that ship with scikit-learn.

    Returns
    -------
    images : ndarray, shape (1797, 8, 8)
        Ink from 0 to 1, float32.
    labels : ndarray of int64, shape (1797,)
        The digits.

    References
    ----------
    Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the digits need scikit-learn: pip install attn-guide[models]") from None
    found = load_digits()
    return (found.images / 16).astype(np.float32), found.target.astype(np.int64)


class Looks:
    """What a glimpse model did with a batch of images.

    Parameters
    ----------
    logits : Tensor, shape (b, 10)
        Scores of the digits after the last look.
    weights : Tensor, shape (b, looks, patches)
        What each look averaged with: probabilities for soft attention, a one for a chosen patch.
    probabilities : Tensor, shape (b, looks, patches)
        The softmax that each look was made from.
    """

    def __init__(self, logits: Tensor, weights: Tensor, probabilities: Tensor) -> None:
        self.logits, self.weights, self.probabilities = logits, weights, probabilities


class Glimpse(nn.Module):
    """A recurrent classifier that sees an image only through a few looks at its patches.

    Parameters
    ----------
    kind : {"soft", "hard", "gumbel", "straight-through", "random"}
        How a look is made from the probabilities: their weighted average of patches; one patch drawn from them;
        Gumbel-softmax weights, which are nearly one patch; one patch drawn, with the gradient of the Gumbel-softmax
        weights in the backward pass. "random" has no probabilities to learn: each patch is as likely as any other.
    width : int
        Width of the state.
    looks : int
        How many looks before the answer.
    side : int
        Patches are ``side`` x ``side`` pixels, without overlap.
    temperature : float
        Of the Gumbel-softmax.
    content : bool
        Whether keys are made from position and content of the patches, or from the position alone.

    Notes
    -----
    A look asks with the state and compares with the keys; a GRU reads the patch and where it was. Soft attention
    passes gradients to the probabilities through the average. A drawn patch does not: ``hard`` needs REINFORCE
    (``Digits.loss``). With keys made from content every patch has been encoded and compared before one is chosen.
    Only with ``content=False`` does a choice know no more of the image than the patches read before it.

    References
    ----------
    Xu et al. (2015), Show, Attend and Tell: Neural Image Caption Generation with Visual Attention, section 4. Mnih et
    al. (2014), Recurrent Models of Visual Attention. Jang, Gu and Poole (2016), Categorical Reparameterization with
    Gumbel-Softmax, section 2.

    Examples
    --------
    >>> import torch
    >>> from attn_guide.models import Glimpse
    >>> found = Glimpse("hard", width=16, looks=3)(torch.rand(5, 8, 8), generator=torch.Generator().manual_seed(0))
    >>> found.logits.shape, found.weights.shape, found.weights.sum(dim=-1).unique()
    (torch.Size([5, 10]), torch.Size([5, 3, 16]), tensor([1.]))
    """

    baseline: Tensor

    def __init__(
        self, kind: str, width: int = 64, looks: int = 4, side: int = 2, temperature: float = 1.0, content: bool = True
    ) -> None:
        super().__init__()
        self.kind = check_choice("kind", kind, _KINDS)
        self.looks, self.side, self.temperature, self.content = looks, side, temperature, content
        patches = (8 // side) ** 2
        self.place = nn.Parameter(torch.randn(patches, width) * width**-0.5)
        self.patch = nn.Linear(side * side, width)
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.first_state = nn.Parameter(torch.zeros(width))
        self.reader = nn.GRUCell(width, width)
        self.output = nn.Linear(width, 10)
        # REINFORCE's baseline lives here, so that a resumed training goes on with the one it had.
        self.register_buffer("baseline", torch.zeros(()))

    def forward(self, images: Tensor, *, generator: torch.Generator | None = None, kind: str | None = None) -> Looks:
        """Look at images and answer.

        Parameters
        ----------
        images : Tensor, shape (b, 8, 8)
            Ink from 0 to 1.
        generator : torch.Generator, optional
            Source of the draws. Without it the most probable patch is taken, by every kind but ``soft``; ``random``
            has no such patch and needs it.
        kind : str, optional
            Make the looks as another kind does, to see what a model is worth that was not trained for it.

        Returns
        -------
        Looks
            Logits, weights and probabilities.

        Raises
        ------
        ValueError
            If ``random`` comes without a generator.
        """
        values = torch.relu(self.patch(self._cut(images))) + self.place  # (b, patches, width)
        keys = self.key(values if self.content else self.place.expand_as(values))
        state = self.first_state.expand(len(images), -1)
        weights, probabilities = [], []
        for _ in range(self.looks):
            scores = torch.einsum("bd,bpd->bp", self.query(state), keys) * keys.shape[-1] ** -0.5
            if (kind or self.kind) == "random":
                scores = torch.zeros_like(scores)
            chances = scores.softmax(dim=-1)
            weight = self._choose(scores, chances, generator, kind or self.kind)
            state = self.reader(torch.einsum("bp,bpd->bd", weight, values), state)
            weights.append(weight)
            probabilities.append(chances)
        return Looks(self.output(state), torch.stack(weights, dim=1), torch.stack(probabilities, dim=1))

    def _cut(self, images: Tensor) -> Tensor:
        """Return the patches of images (b, 8, 8), row by row: (b, patches, side * side)."""
        return images.unfold(1, self.side, self.side).unfold(2, self.side, self.side).flatten(3).flatten(1, 2)

    def _choose(self, scores: Tensor, chances: Tensor, generator: torch.Generator | None, kind: str) -> Tensor:
        """Return the weights (b, patches) of a look."""
        if kind == "soft":
            return chances
        if generator is None:
            if kind == "random":
                raise ValueError("generator is None; a model that looks at random needs one")
            return F.one_hot(scores.argmax(dim=-1), scores.shape[-1]).to(scores.dtype)
        noise = -torch.empty_like(scores).exponential_(generator=generator).log()  # Gumbel
        noisy = scores + noise
        chosen = F.one_hot(noisy.argmax(dim=-1), scores.shape[-1]).to(scores.dtype)  # drawn from the softmax
        if kind in ("hard", "random"):
            return chosen
        soft = (noisy / self.temperature).softmax(dim=-1)
        return soft if kind == "gumbel" else chosen + soft - soft.detach()


class Digits(Experiment):
    """Train a glimpse classifier on handwritten digits.

    Parameters
    ----------
    settings : mapping
        ``kind``, ``width``, ``looks``, ``side``, ``temperature``, ``content``, ``baseline`` and ``entropy`` (for
        ``hard``), ``batch``, and what ``Recipe`` lists.

    Notes
    -----
    Of the 1,797 images every fifth is held out. REINFORCE takes minus the cross-entropy as the reward of the draws;
    a baseline, the running mean of the reward, and a reward for the entropy of the probabilities steady it.

    References
    ----------
    Williams (1992), Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning. Xu et
    al. (2015), Show, Attend and Tell, section 4.1: baseline and entropy term.
    """

    model: Glimpse

    def __init__(self, settings: Mapping[str, Any], seed: int) -> None:
        images, labels = digit_images()
        self.data = images.tobytes() + labels.tobytes()
        held_out = np.arange(len(images)) % 5 == 4
        self._images, self._labels = torch.from_numpy(images[~held_out]), torch.from_numpy(labels[~held_out])
        self.test_images, self.test_labels = torch.from_numpy(images[held_out]), torch.from_numpy(labels[held_out])
        self.batch, self.entropy, self.decay = settings["batch"], settings["entropy"], settings["baseline"]
        self.model = Glimpse(
            settings["kind"], settings["width"], settings["looks"], settings["side"], settings["temperature"],
            settings["content"],
        )  # fmt: skip

    def loss(self, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy of a batch, with the surrogate of REINFORCE for the draws of ``hard``."""
        rows = torch.randint(len(self._images), (self.batch,), generator=generator)
        found = self.model(self._images[rows], generator=generator)
        losses = F.cross_entropy(found.logits, self._labels[rows], reduction="none")  # (b,)
        if self.model.kind != "hard":
            return losses.mean()
        reward = -losses.detach()
        logs = found.probabilities.clamp_min(1e-8).log()
        chosen = (logs * found.weights).sum(dim=(1, 2))  # log-probability of all draws
        entropy = -(found.probabilities * logs).sum(dim=(1, 2))
        advantage = reward - self.model.baseline
        self.model.baseline.mul_(self.decay).add_((1 - self.decay) * reward.mean())
        surrogate = -(advantage * chosen) - self.entropy * entropy
        # The value is the cross-entropy alone, as for the other kinds; the gradient has both parts.
        return losses.mean() + (surrogate - surrogate.detach()).mean()

    @torch.no_grad()
    def accuracy(self, kind: str | None = None, *, drawn: bool = False) -> float:
        """Return the held-out accuracy.

        Parameters
        ----------
        kind : str, optional
            Make the looks as another kind does.
        drawn : bool
            Draw the patches (with one seed for all models) instead of taking the most probable ones.

        Returns
        -------
        float
            The share of right answers.
        """
        generator = torch.Generator().manual_seed(10_000) if drawn else None
        found = self.model(self.test_images, generator=generator, kind=kind)
        return float((found.logits.argmax(dim=-1) == self.test_labels).float().mean())

    def measure(self) -> dict[str, float]:
        """Return the held-out accuracy where the most probable patch is taken.

        A soft model averages patches, a random one has to draw.
        """
        return {"accuracy": self.accuracy(drawn=self.model.kind == "random")}

    def evaluate(self) -> dict[str, float]:
        """Return held-out accuracies, and the mean largest probability and entropy (nats) of a look.

        ``hardened`` is the accuracy where each look takes the most probable patch and ``softened`` where it averages,
        whatever the model was trained to do.
        """
        chances = self.model(self.test_images, kind="soft").probabilities
        return {
            **self.measure(),
            "accuracy_drawn": self.accuracy(drawn=True),
            "hardened": self.accuracy("hard"),
            "softened": self.accuracy("soft"),
            "largest": float(chances.amax(dim=-1).mean()),
            "entropy": float(-(chances * chances.clamp_min(1e-12).log()).sum(dim=-1).mean()),
        }

    @torch.no_grad()
    def look(self, count: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Show where the model looks on the first held-out images.

        Parameters
        ----------
        count : int
            Number of images.

        Returns
        -------
        images : ndarray, shape (count, 8, 8)
            Ink.
        weights : ndarray, shape (count, looks, rows, columns)
            Weights of the patches in each look, laid out as in the image.
        labels, answers : ndarray of int, shape (count,)
            The right digits and the model's.
        """
        generator = torch.Generator().manual_seed(10_000) if self.model.kind == "random" else None
        found = self.model(self.test_images[:count], generator=generator)
        grid = 8 // self.model.side
        weights = found.weights.unflatten(-1, (grid, grid))
        answers = found.logits.argmax(dim=-1)
        return self.test_images[:count].numpy(), weights.numpy(), self.test_labels[:count].numpy(), answers.numpy()

    def maps(self, text: str | None = None) -> list[AttentionMap]:
        """Return where each look at the first held-out image goes, laid out as the image is."""
        no_text(text)
        _, weights, labels, answers = self.look(1)
        names = [str(place) for place in range(weights.shape[-1])]
        title = f"a {labels[0]} taken for a {answers[0]}"
        return [AttentionMap(f"{title}, look {i + 1}", w, names, names) for i, w in enumerate(weights[0])]


def _start(settings: Mapping[str, Any], seed: int) -> Digits:
    return Digits(settings, seed)


_SETTINGS = {
    "kind": "soft", "width": 64, "looks": 4, "side": 2, "temperature": 1.0, "content": True, "baseline": 0.9,
    "entropy": 0.02, "batch": 128, "steps": 400, "lr": 1e-2, "warmup": 20, "clip": 1.0, "measure_every": 25,
}  # fmt: skip

#: What ``models.load`` finds here.
RECIPES = tuple(
    Recipe(f"glimpse-{name}", f"Handwritten digits through four looks, {about}.", _start, {**_SETTINGS, **changes})
    for name, about, changes in (
        ("soft", "each an average of patches", {}),
        ("hard", "each one patch, trained by REINFORCE with a baseline", {"kind": "hard"}),
        ("gumbel", "each a Gumbel-softmax over patches", {"kind": "gumbel"}),
        ("straight-through", "each one patch, trained through Gumbel-softmax", {"kind": "straight-through"}),
        ("random", "each one patch at random: nothing is learned about where to look", {"kind": "random"}),
        # A baseline that keeps its first value, 0, is none.
        ("no-baseline", "each one patch, trained by REINFORCE alone", {"kind": "hard", "baseline": 1.0}),
        ("unseen", "each one patch, chosen without seeing the others", {"kind": "hard", "content": False}),
    )
)
