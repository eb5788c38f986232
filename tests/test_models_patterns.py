"""The patterns of the far question: their masks, what they let reach position 0, and a short training."""

import numpy as np
import pytest
import torch

import attn_guide as ag
from attn_guide import models
from attn_guide.models.patterns import RECIPES, FarAnswersUnder, PatternModel
from attn_guide.models.train import fit

SETTINGS = models.recipe("far-window").settings
NAMES = [recipe.settings["pattern"] for recipe in RECIPES]


@pytest.mark.parametrize("name", NAMES)
def test_a_pattern_has_two_layers_and_is_the_same_each_time(name):
    first, again = models.far_pattern(name, 64), models.far_pattern(name, 64)
    assert len(first) == 2
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.materialize(64), other.materialize(64))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dense"])
def test_most_queries_have_few_keys(name):
    """Apart from global rows: a stride joined with a window has the most keys, 8 + 9 - 3 and fewer."""
    for mask in models.far_pattern(name, 64):
        assert np.median(mask.materialize(64).sum(axis=1)) <= 24


@pytest.mark.parametrize("name", NAMES)
def test_what_is_beyond_reach_does_not_move_the_answer(name):
    """Replace each token in turn: the logits at position 0 move exactly where the masks let them."""
    torch.manual_seed(0)
    experiment = FarAnswersUnder({**SETTINGS, "pattern": name, "length": 64}, 0)
    model = experiment.model.double().eval()
    tokens = torch.zeros(1, 64, dtype=torch.int64)
    with torch.no_grad():
        before = model(tokens)[0, 0]
        moved = []
        for place in range(64):
            changed = tokens.clone()
            changed[0, place] = 5
            moved.append(bool((model(changed)[0, 0] != before).any()))
    assert moved == experiment.within_reach().tolist()


def test_each_layer_is_masked_dense_attention():
    torch.manual_seed(0)
    patterns = [ag.strided(3), ag.sliding_window(1, 1)]
    model = PatternModel(10, 8, 2, patterns, length=12).double()
    x = torch.randn(1, 12, 8, dtype=torch.float64)
    for block, mask, allowed in zip(model.blocks, patterns, model.allowed, strict=True):
        layer = block.self_attention
        q, k, v = (layer.split(w(x)).detach().numpy() for w in (layer.w_query, layer.w_key, layer.w_value))
        wanted = ag.merge_heads(ag.scaled_dot_product_attention(q, k, v, mask_mod=mask)[0])
        found, _ = layer(x, layer.keys_values(x), allowed)
        np.testing.assert_allclose(found.detach()[0], wanted @ layer.w_output.weight.detach().numpy().T, atol=1e-12)


def test_a_short_run_is_measured(tmp_path):
    for name, keys in (("far-window", {"accuracy", "within", "beyond"}), ("far-dense", {"accuracy", "within"})):
        trained = fit(models.recipe(name).with_settings(steps=2, measure_every=2), folder=tmp_path, progress=None)
        assert set(trained.history) == {"step", *keys}
        assert set(trained.results) == {*keys, "parameters"}
