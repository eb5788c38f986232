"""The recurrent translators: their attention against the NumPy reference, decoding, learning and alignments."""

import numpy as np
import pytest
import torch

pytest.importorskip("num2words")
import attn_guide as ag
from attn_guide import models
from attn_guide.models import Bahdanau, Luong
from attn_guide.models.bahdanau import AdditiveAttention
from attn_guide.models.luong import LuongAttention
from attn_guide.models.pairs import PAD, STOP
from attn_guide.models.train import fit
from attn_guide.models.translate import attend

SOURCE = torch.tensor([[5, 6, 7, 8, STOP], [9, 4, STOP, PAD, PAD]])
TARGET = torch.tensor([[7, 8, 9, STOP], [4, STOP, PAD, PAD]])
SCORES = ("dot", "scaled-dot", "general", "concat", "additive", "cosine", "bare-cosine")
KINDS = {
    "bahdanau": lambda: Bahdanau(10, 12, 8),
    "fixed": lambda: Bahdanau(10, 12, 8, attention=False),
    **{f"luong-{score}": lambda score=score: Luong(10, 12, 8, score=score) for score in SCORES},
    "luong-local-m": lambda: Luong(10, 12, 8, reach="local-m", window=1),
    "luong-local-p": lambda: Luong(10, 12, 8, reach="local-p", window=1),
    "luong-no-feeding": lambda: Luong(10, 12, 8, input_feeding=False),
}


@pytest.fixture(params=KINDS)
def model(request):
    torch.manual_seed(0)
    model = KINDS[request.param]().double().eval()
    model.kind = request.param
    return model


def test_shapes_and_rows(model):
    logits, weights = model(SOURCE, TARGET)
    assert logits.shape == (2, 4, 12)
    if model.kind == "fixed":
        assert weights is None
        return
    assert weights.shape == (2, 4, 5)
    assert (weights[1, :, 3:] == 0).all()
    if model.kind == "luong-local-p":
        assert (weights.sum(dim=-1) <= 1 + 1e-12).all()
    else:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, dtype=torch.float64))


def test_filling_changes_nothing(model):
    alone, _ = model(SOURCE[1:, :3], TARGET[1:])
    together, _ = model(SOURCE, TARGET)
    torch.testing.assert_close(together[1:], alone)


def test_a_word_is_predicted_without_being_seen(model):
    """Changing target words from position t on leaves the predictions up to t as they were."""
    before, _ = model(SOURCE, TARGET)
    for t in range(4):
        changed = TARGET.clone()
        changed[:, t:] = 11
        after, _ = model(SOURCE, changed)
        torch.testing.assert_close(after[:, : t + 1], before[:, : t + 1], rtol=0, atol=0)
        if t < 3:
            assert (after[0, t + 1] != before[0, t + 1]).any()


def test_the_source_matters_from_the_first_word_on(model):
    other = SOURCE.clone()
    other[0, 1] = 3
    assert (model(other, TARGET)[0][0, 0] != model(SOURCE, TARGET)[0][0, 0]).any()


def test_writing_equals_being_taught_what_was_written(model):
    words, weights = model.translate(SOURCE, 6)
    logits, taught = model(SOURCE, words)
    for row, best in zip(words, logits.argmax(dim=-1), strict=True):
        length = row.tolist().index(STOP) + 1 if STOP in row else len(row)
        assert row[:length].tolist() == best[:length].tolist()
        assert (row[length:] == PAD).all()
    if weights is not None:
        torch.testing.assert_close(weights[0], taught[0])


def test_writing_stops_when_every_sentence_has(model, monkeypatch):
    step = type(model).step

    def stop_at_once(self, *arguments):
        logits, *rest = step(self, *arguments)
        logits[:, STOP] = 1e9
        return logits, *rest

    monkeypatch.setattr(type(model), "step", stop_at_once)
    assert model.translate(SOURCE, 9)[0].tolist() == [[STOP], [STOP]]


def test_gradients_reach_every_parameter(model):
    logits, _ = model(SOURCE, TARGET)
    logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


# --- the attention, against the NumPy reference ---------------------------------------------------------------------


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def test_additive_attention_is_the_reference_s():
    layer = AdditiveAttention(6, 8, 5).double()
    query, key = random(2, 6), random(2, 4, 8)
    weights = [w.detach().numpy() for w in (layer.w_query.weight, layer.w_key.weight, layer.v.weight)]
    scores = ag.additive_score(query[:, None].numpy(), key.numpy(), weights[0].T, weights[1].T, weights[2][0])
    np.testing.assert_allclose(layer(query, layer.project(key)).detach(), scores[:, 0], atol=1e-12)


def test_the_average_is_the_reference_s():
    scores, values = random(2, 4), random(2, 4, 3)
    keep = torch.tensor([[True, True, True, False], [True, True, False, False]])
    context, weights = attend(scores, keep, values)
    wanted = ag.softmax(np.where(keep, scores, -np.inf))
    np.testing.assert_allclose(weights, wanted, atol=1e-12)
    np.testing.assert_allclose(context, (wanted[:, None] @ values.numpy())[:, 0], atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_luong_s_scores_are_the_reference_s(score):
    layer = LuongAttention(6, score).double()
    state, positions = random(2, 6), random(2, 4, 6)
    query, key = state[:, None].numpy(), positions.numpy()
    parameters = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    wanted = {
        "dot": lambda: ag.dot_score(query, key),
        "scaled-dot": lambda: ag.scaled_dot_score(query, key),
        "additive": lambda: ag.additive_score(
            query,
            key,
            parameters["network.w_query.weight"].T,
            parameters["network.w_key.weight"].T,
            parameters["network.v.weight"][0],
        ),
        "cosine": lambda: ag.cosine_score(query, key, scale=10.0),
        "bare-cosine": lambda: ag.cosine_score(query, key),
        "general": lambda: ag.general_score(query, key, parameters["w.weight"]),
        "concat": lambda: ag.concat_score(query, key, parameters["w.weight"].T, parameters["v.weight"][0]),
    }[score]()
    np.testing.assert_allclose(layer.scores(state, positions).detach(), wanted[:, 0], atol=1e-12)


@pytest.mark.parametrize("step", [0, 2, 5, 9])
def test_a_monotonic_window_moves_with_the_step(step):
    layer = LuongAttention(6, "dot", "local-m", window=1).double()
    keep = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    weights = layer(random(2, 6), random(2, 6, 6), keep, step)
    for row, length in zip(weights, (6, 4), strict=True):
        middle = min(step, length - 1)
        seen = {j for j in range(length) if abs(j - middle) <= 1}
        assert set(row.nonzero().flatten().tolist()) == seen
        assert float(row.sum()) == pytest.approx(1)


def test_a_predicted_window_follows_the_equations():
    """Equations 9 and 10, written out for one sentence at a time."""
    layer = LuongAttention(6, "general", "local-p", window=2).double()
    with torch.no_grad():
        layer.v_position.weight.mul_(8)  # so that the centres differ from the middle of the source
    state, positions = random(8, 6), random(8, 7, 6)
    lengths = [7, 7, 6, 5, 4, 3, 2, 1]
    keep = torch.arange(7)[None] < torch.tensor(lengths)[:, None]
    found = layer(state, positions, keep, 3).detach().numpy()
    w_p, v_p = layer.w_position.weight.detach().numpy(), layer.v_position.weight.detach().numpy()[0]
    for i, m in enumerate(lengths):
        h = state[i].numpy()
        p = m / (1 + np.exp(-v_p @ np.tanh(w_p @ h)))
        place = np.arange(7)
        score = positions[i].numpy() @ layer.w.weight.detach().numpy().T @ h
        seen = (place < m) & (abs(place - min(np.round(p), m - 1)) <= 2)
        wanted = ag.softmax(np.where(seen, score, -np.inf)) * np.exp(-((place - p) ** 2) / (2 * 1.0**2))
        np.testing.assert_allclose(found[i], wanted, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"score": "bilinear"}, {"reach": "local"}, {"window": 0}])
def test_unknown_kinds_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; wanted"):
        Luong(10, 12, 8, **wrong)


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bahdanau", "luong-general"])
def test_a_short_run_learns(name, tmp_path):
    short = models.recipe(name).with_settings(steps=25, width=24, batch=32, warmup=2, lr=1e-2, measure_every=25)
    trained = fit(short, folder=tmp_path, progress=None)
    assert trained.loss[-3:].mean() < 0.75 * trained.loss[:2].mean()
    assert set(trained.results) == {"held_out", "longer", "parameters"}


def test_an_alignment_says_what_was_read_and_written(tmp_path):
    for name, behind in (("bahdanau", 2), ("luong-dot", 1)):
        short = models.recipe(name).with_settings(steps=1, width=8, batch=2)
        experiment = fit(short, folder=tmp_path, progress=None).experiment
        found = experiment.align("forty two", "zwei und vierzig")
        assert found.source == ["forty", "two", "<stop>"]
        assert found.weights.shape == (len(found.target), 3)
        np.testing.assert_allclose(found.weights.sum(axis=-1), 1, rtol=1e-5)
        assert found.asked_after == (["<start>"] * behind + found.target)[: len(found.target)]
        assert found.is_right == (found.target[:-1] == ["zwei", "und", "vierzig"])
        with pytest.raises(ValueError, match=r"words \['fourty'\]"):
            experiment.align("fourty two")


def test_without_attention_there_is_no_alignment(tmp_path):
    short = models.recipe("fixed-vector").with_settings(steps=1, width=8, batch=2)
    with pytest.raises(ValueError, match="no attention"):
        fit(short, folder=tmp_path, progress=None).experiment.align("forty two")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bahdanau", "bahdanau-dates", "fixed-vector"])
def test_trained_to_the_end_it_translates_what_it_has_not_seen(name):
    assert models.load(name).results["held_out"] >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("bahdanau", 0.5), ("luong-general", 0.9)])
def test_the_alignment_crosses_where_german_inverts(name, share):
    """Of held-out numbers with units and tens: the German unit looks at the English unit, and the ten at the ten.

    English ends on "... sixty two", German on "... zwei und sechzig": the unit is the last word, the ten the one
    before. Bahdanau's positions are states of two directions, which know their neighbours, so that it may look beside.
    """
    experiment = models.load(name).experiment
    crossed = []
    for source, target in experiment.pairs.tests["held_out"]:
        found = experiment.align(" ".join(source), " ".join(target)) if "und" in target else None
        if found and found.is_right:
            place = target.index("und")
            looked = found.weights.argmax(axis=-1)
            crossed.append((looked[place - 1], looked[place + 1]) == (len(source) - 1, len(source) - 2))
    assert len(crossed) > 300
    assert np.mean(crossed) > share
