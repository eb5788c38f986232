"""
Order, where it is kept and where it is lost
============================================

The trained Transformer on numbers with tens and units, with the source disturbed in three ways.
"""

import copy

import torch

from attn_guide import models, plot

run = models.load("transformer")
pairs, model = run.experiment.pairs, run.model
items = [(s, t) for s, t in pairs.tests["held_out"] if len(t) > 2 and t[-2] == "und"][:200]


class StatesShuffled(models.Transformer):
    """Moves keys and values of the source together, after the encoder."""

    def encode(self, source):
        state, (keys_values, allowed) = super().encode(source)
        order = torch.randperm(source.shape[1], generator=torch.Generator().manual_seed(0))
        return state, ([(k[:, :, order], v[:, :, order]) for k, v in keys_values], allowed[..., order])


class NoSourcePositions(models.Transformer):
    """Leaves the positions of the source out."""

    def _embed(self, words, embedding, start=0):
        x = super()._embed(words, embedding, start)
        if embedding is self.source_embedding:
            x = x - self.positions[: words.shape[1]]
        return x


def disturbed(kind):
    other = copy.deepcopy(model)
    other.__class__ = kind
    return other


scores = {
    "as it is": models.exact_match(model, pairs, items),
    "encoder states shuffled": models.exact_match(disturbed(StatesShuffled), pairs, items),
    "no source positions": models.exact_match(disturbed(NoSourcePositions), pairs, items),
    "words backwards": models.exact_match(model, pairs, [(s[::-1], t) for s, t in items]),
}

fig = plot.figure(
    "cross-positions",
    title="Cross-attention reads a set of states, and each state carries its position",
    caption=(
        f'Exact match of `models.load("transformer")` on {len(items)} held-out numbers with tens and units. Shuffled '
        "states: keys and values of the source moved together after the encoder. The other two disturb what the states "
        "say about order."
    ),
    size=(6.4, 2.6),
)
plot.bars(fig.subplots(), list(scores), list(scores.values()), horizontal=True, fmt=".2f")
plot.describe(fig, "Exact match: " + ", ".join(f"{name} {x:.2f}" for name, x in scores.items()) + ".")
