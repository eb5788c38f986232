"""The Transformer's layers against the NumPy reference and PyTorch, its cache, its masks and its training."""

import numpy as np
import pytest
import torch

pytest.importorskip("num2words")
import attn_guide as ag
from attn_guide import models
from attn_guide.models import Transformer
from attn_guide.models.layers import Block, MultiHeadAttention, rope, sinusoidal
from attn_guide.models.pairs import PAD, STOP
from attn_guide.models.train import fit

SOURCE = torch.tensor([[5, 6, 7, 8, STOP], [9, 4, STOP, PAD, PAD]])
TARGET = torch.tensor([[7, 8, 9, STOP], [4, STOP, PAD, PAD]])


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(10, 12, width=8, layers=2, heads=2, hidden=16).double().eval()


def test_positions_are_the_reference_s():
    np.testing.assert_allclose(sinusoidal(20, 8), ag.sinusoidal_positions(np.arange(20), 8), atol=1e-6)


@pytest.mark.parametrize("start", [0, 7])
def test_rotary_positions_are_the_reference_s(start):
    x = random(2, 3, 5, 8)
    wanted = ag.apply_rope(x.numpy(), np.arange(start, start + 5))
    np.testing.assert_allclose(rope(x, start), wanted, atol=1e-12)


def test_rotary_scores_depend_on_the_distance_alone():
    q, k = random(1, 8), random(2, 8)[:1]
    near, far = rope(q, 5) @ rope(k, 2).mT, rope(q, 105) @ rope(k, 102).mT
    torch.testing.assert_close(near, far)


def test_attention_is_the_reference_s():
    torch.manual_seed(0)
    layer = MultiHeadAttention(8, 2).double()
    x, source = random(2, 3, 8), random(3, 2, 5, 8)[0]
    allowed = torch.tensor([[True] * 5, [True, True, True, False, False]])[:, None, None]
    found, weights = layer(x, layer.keys_values(source), allowed)

    def heads(states, linear):
        return ag.split_heads(states.numpy() @ linear.weight.detach().numpy().T, 2)

    q, k, v = heads(x, layer.w_query), heads(source, layer.w_key), heads(source, layer.w_value)
    wanted = ag.scaled_dot_product_attention(q, k, v, attn_mask=allowed.numpy())
    joined = ag.merge_heads(wanted) @ layer.w_output.weight.detach().numpy().T
    np.testing.assert_allclose(found.detach(), joined, atol=1e-12)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 3, dtype=torch.float64))
    assert (weights[1, ..., 3:] == 0).all()


def test_a_head_is_taken_out():
    layer = MultiHeadAttention(8, 2).double()
    x = random(2, 3, 8)
    whole, _ = layer(x, layer.keys_values(x))
    parts = []
    for head in range(2):
        layer.head_mask.fill_(0)[head] = 1
        parts.append(layer(x, layer.keys_values(x))[0])
    torch.testing.assert_close(parts[0] + parts[1], whole)
    assert "head_mask" not in layer.state_dict()


def test_a_block_adds_what_its_sub_layers_find():
    torch.manual_seed(0)
    block = Block(8, 2, 16).double().eval()
    x = random(2, 3, 8)
    normed = block.self_norm(x)
    wanted = x + block.self_attention(normed, block.self_attention.keys_values(normed))[0]
    norm, into, gelu, out = block.feed
    torch.testing.assert_close(block(x)[0], wanted + out(gelu(into(norm(wanted)))))


def test_all_at_once_equals_one_by_one_with_the_cache(model):
    state, memory = model.encode(SOURCE)
    read = torch.nn.functional.pad(TARGET[:, :-1], (1, 0), value=1)
    rows, looked = [], []
    for word in read.unbind(1):
        logits, state, weights = model.step(word, state, memory)
        rows.append(logits)
        looked.append(weights)
    logits, weights = model(SOURCE, TARGET)
    torch.testing.assert_close(torch.stack(rows, dim=1), logits)
    torch.testing.assert_close(torch.stack(looked, dim=-2), weights)
    assert weights.shape == (2, 2, 2, 4, 5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 2, 4, dtype=torch.float64))
    assert state.layers[0][0].shape == (2, 2, 4, 4)


def test_filling_changes_nothing(model):
    torch.testing.assert_close(model(SOURCE, TARGET)[0][1:], model(SOURCE[1:, :3], TARGET[1:])[0])


def test_a_word_is_predicted_without_being_seen(model):
    before, _ = model(SOURCE, TARGET)
    for t in range(4):
        changed = TARGET.clone()
        changed[:, t:] = 11
        after, _ = model(SOURCE, changed)
        torch.testing.assert_close(after[:, : t + 1], before[:, : t + 1], rtol=0, atol=1e-14)
        if t < 3:
            assert (after[0, t + 1] != before[0, t + 1]).any()


def test_gradients_reach_every_parameter(model):
    model(SOURCE, TARGET)[0].square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_sentences_that_are_too_long_are_refused(model):
    with pytest.raises(ValueError, match="words has length 129; wanted at most 128"):
        model.encode(torch.ones(1, 129, dtype=torch.int64))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="heads is 3; wanted a number that divides width 8"):
        Transformer(10, 12, width=8, heads=3)


def test_a_short_run_learns(tmp_path):
    short = models.recipe("transformer").with_settings(
        steps=25, width=32, hidden=32, batch=32, warmup=5, lr=1e-2, measure_every=25
    )
    trained = fit(short, folder=tmp_path, progress=None)
    assert trained.loss[-3:].mean() < 0.75 * trained.loss[:2].mean()
    found = trained.experiment.align("forty two", "zwei und vierzig")
    assert found.weights.shape == (2, 4, len(found.target), 3)
    assert found.asked_after == ["<start>", *found.target][: len(found.target)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "transformer-dates"])
def test_trained_to_the_end_it_translates_what_it_has_not_seen(name):
    assert models.load(name).results["held_out"] >= 0.99
