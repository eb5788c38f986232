"""Two patterns at once: one head fails, two heads of the same width do not."""

import numpy as np
import pytest
import torch

import attn_guide as ag
from attn_guide import models
from attn_guide.models.two_pattern import OneLayer, TwoPatterns


def test_the_answers_are_the_neighbours_on_the_circle():
    answers = TwoPatterns.answers(torch.tensor([[5, 6, 7]]))
    assert answers.tolist() == [[[7, 6], [5, 7], [6, 5]]]


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_layer_is_the_reference_s(heads):
    torch.manual_seed(0)
    model = OneLayer(tokens=5, length=6, width=8, heads=heads).double()
    model.position = model.position.double()
    sequence = torch.tensor([[0, 1, 2, 3, 4, 0], [4, 4, 3, 3, 0, 1]])
    logits, weights = model(sequence)
    token = model.embedding(sequence).detach().numpy()
    w = {name: getattr(model, name).weight.detach().numpy().T for name in ("query", "key", "value", "output")}
    placed = token + model.position.numpy()
    q, k, v = (ag.split_heads(x @ w[name], heads) for x, name in ((placed, "query"), (placed, "key"), (token, "value")))
    wanted = ag.merge_heads(ag.scaled_dot_product_attention(q, k, v)) @ w["output"]
    np.testing.assert_allclose(logits.detach().reshape(2, 6, 10), wanted, atol=1e-10)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, heads, 6, dtype=torch.float64))


def test_a_step_on_the_circle_is_one_linear_map():
    positions = OneLayer(tokens=3, length=12, width=16, heads=1).position
    step = torch.linalg.lstsq(positions, positions.roll(1, dims=0), driver="gelsd").solution
    torch.testing.assert_close(positions @ step, positions.roll(1, dims=0), atol=1e-4, rtol=0)


def test_the_number_of_heads_leaves_the_parameters_alone():
    counts = {heads: sum(p.numel() for p in OneLayer(16, 12, 32, heads).parameters()) for heads in (1, 2, 4)}
    assert len(set(counts.values())) == 1


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="heads is 3; wanted a number that divides width 32"):
        OneLayer(16, 12, 32, 3)


def test_one_head_fails_and_two_do_not(tmp_path):
    """A shortened run: half the steps."""
    results = {
        heads: models.fit(
            models.recipe(name).with_settings(steps=250, measure_every=250), folder=tmp_path, progress=None
        ).results
        for heads, name in ((1, "two-patterns-1-head"), (2, "two-patterns-2-heads"))
    }
    assert results[1]["both"] < 0.5
    assert results[2]["both"] > 0.9
