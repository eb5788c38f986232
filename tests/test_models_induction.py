"""Sequences that repeat, the scores of heads, and heads taken out."""

import numpy as np
import pytest
import torch

from attn_guide import models
from attn_guide.models.induction import head_scores
from attn_guide.models.train import fit


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    recipe = models.recipe("induction").with_settings(steps=20, width=32, heads=2, batch=8, warmup=2, measure_every=10)
    return fit(recipe, folder=tmp_path_factory.mktemp("induction"), progress=None)


def test_a_sequence_is_said_twice_and_its_tokens_differ(short):
    drawn = short.experiment.draw(50, 9, torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 18)
    assert torch.equal(drawn[:, :9], drawn[:, 9:])
    assert all(len(set(row[:9].tolist())) == 9 for row in drawn)


def test_scores_are_one_for_heads_made_to_do_just_that():
    half = 5
    n = 2 * half
    ideal = torch.zeros(1, 1, 4, n, n)
    ideal[0, 0, :, torch.arange(n), torch.arange(n)] = 1.0  # positions where a head has nothing to look at
    place = torch.arange(1, n)
    ideal[0, 0, 0] = 0
    ideal[0, 0, 0, 0, 0] = 1
    ideal[0, 0, 0, place, place - 1] = 1
    second = torch.arange(half, n)
    for head, target in ((1, second - half + 1), (2, second - half), (3, torch.zeros_like(second))):
        ideal[0, 0, head, second] = 0
        ideal[0, 0, head, second, target] = 1
    scores = head_scores(ideal.expand(3, -1, -1, -1, -1), half)
    for head, name in enumerate(("previous", "induction", "same", "first")):
        assert scores[name].shape == (1, 4)
        assert scores[name][0, head] == pytest.approx(1.0)
        assert scores[name][0].argmax() == head


def test_the_loss_is_of_what_can_be_known(short, monkeypatch):
    """A model that copies the token after the earlier occurrence has no loss."""
    experiment = short.experiment
    sequences = experiment.draw(4, 6, torch.Generator().manual_seed(0))

    def oracle(tokens):
        logits = torch.zeros(*tokens.shape, experiment.tokens)
        for t in range(6, 11):
            logits[torch.arange(4), t, sequences[:, t + 1]] = 50.0
        return logits, None, None

    monkeypatch.setattr(experiment, "model", oracle)
    assert float(experiment.repeated_loss(sequences)) < 1e-6


def test_ablation_takes_one_head_out_and_puts_it_back(short):
    experiment = short.experiment
    with torch.no_grad():
        before = float(experiment.repeated_loss(experiment.test))
        without = experiment.ablation()
        after = float(experiment.repeated_loss(experiment.test))
    assert without.shape == (2, 2)
    assert before == after
    layer = experiment.model.blocks[1].self_attention
    saved = layer.w_output.weight.detach().clone()
    with torch.no_grad():
        layer.w_output.weight[:, :16] = 0  # head 0 of two, 16 wide, by another way
        assert float(experiment.repeated_loss(experiment.test)) == pytest.approx(without[1, 0], rel=1e-6)
        layer.w_output.weight[:] = 0
        assert float(experiment.repeated_loss(experiment.test)) == pytest.approx(experiment.without((1, 0), (1, 1)))
        layer.w_output.weight.copy_(saved)
    assert experiment.without() == before


def test_the_history_has_every_head(short):
    names = {
        f"{name}_{layer}_{head}"
        for name in ("previous", "induction", "same", "first")
        for layer in (0, 1)
        for head in (0, 1)
    }
    assert set(short.history) == {"step", "test_loss"} | names
    assert all(values.shape == (3,) for values in short.history.values())
    assert {"without_1_1", "accuracy", "induction"} <= set(short.results)


def test_scores_at_another_length(short):
    assert short.experiment.scores(7)["induction"].shape == (2, 2)
    assert np.isfinite(short.experiment.scores(7)["induction"]).all()


@pytest.mark.slow
def test_induction_heads_form():
    results = models.load("induction").results
    assert results["accuracy"] > 0.9
