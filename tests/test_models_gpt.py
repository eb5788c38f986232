"""The decoder: no look ahead, the cache, the text it learns, and what counting alone gives."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from attn_guide import models
from attn_guide.models import GPT, corpus
from attn_guide.models.train import fit

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(12, width=16, layers=3, heads=2).double().eval()


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    recipe = models.recipe("gpt").with_settings(
        steps=20, width=32, length=32, batch=16, warmup=4, lr=1e-2, measure_every=20
    )
    return fit(recipe, folder=tmp_path_factory.mktemp("gpt"), progress=None)


def test_shapes_and_rows(model):
    logits, cache, weights = model(TOKENS)
    assert logits.shape == (2, 8, 12)
    assert [k.shape for k, _ in cache] == [(2, 2, 8, 8)] * 3
    assert weights.shape == (2, 3, 2, 8, 8)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 2, 8, dtype=torch.float64))
    assert (weights.triu(1) == 0).all()


def test_the_future_changes_nothing(model):
    before, *_ = model(TOKENS)
    for t in range(1, 8):
        changed = TOKENS.clone()
        changed[:, t:] = 11
        after, *_ = model(changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-14)
        assert (after[:, t] != before[:, t]).any()


@pytest.mark.parametrize("cuts", [(1, 2, 3, 4, 5, 6, 7), (5,), (3, 4)])
def test_the_cache_changes_nothing(model, cuts):
    wanted, _, all_weights = model(TOKENS)
    cache, rows, ends = None, [], [*cuts, 8]
    for start, end in zip([0, *cuts], ends, strict=True):
        logits, cache, weights = model(TOKENS[:, start:end], cache)
        rows.append(logits)
        torch.testing.assert_close(weights, all_weights[..., start:end, :end])
    torch.testing.assert_close(torch.cat(rows, dim=1), wanted)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_text_is_the_same_with_and_without_the_cache(model, temperature):
    written = [
        model.generate(
            TOKENS, 20, temperature=temperature, generator=torch.Generator().manual_seed(1), use_cache=use_cache
        )
        for use_cache in (True, False)
    ]
    assert torch.equal(*written)
    assert written[0].shape == (2, 28)
    assert torch.equal(written[0][:, :8], TOKENS)


def test_bad_prompts_are_refused(model):
    with pytest.raises(ValueError, match=r"prompt has shape \(1, 0\); wanted at least one token"):
        model.generate(torch.zeros(1, 0, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="generator is None"):
        model.generate(TOKENS, 1, temperature=1.0)
    with pytest.raises(ValueError, match="temperature is -1"):
        model.generate(TOKENS, 1, temperature=-1.0, generator=torch.Generator())


def test_the_corpus_is_ascii_prose():
    text = corpus()
    assert text.isascii()
    assert len(text) > 400_000
    assert 'The "while" statement' in text or "while" in text


def test_held_out_text_is_not_trained_on(short):
    experiment = short.experiment
    text = corpus()
    pieces = len(text) // 2000
    assert experiment._held_out.shape == (pieces // 10, 2000)
    assert len(experiment._train) == 2000 * (pieces - pieces // 10)
    assert experiment.decode(experiment._held_out[0]) == text[9 * 2000 : 10 * 2000]
    assert experiment.decode(experiment._train[: 9 * 2000]) == text[: 9 * 2000]


def test_the_baselines_are_what_counting_gives(short):
    """The same two numbers, from dictionaries."""
    experiment = short.experiment
    train = experiment.decode(experiment._train)
    pairs = {}
    for pair in pairwise(train):
        pairs[pair] = pairs.get(pair, 0) + 1
    size, singles, firsts = len(experiment.characters), {}, {}
    for (a, b), count in pairs.items():
        singles[b] = singles.get(b, 0) + count
        firsts[a] = firsts.get(a, 0) + count
    total = sum(singles.values()) + size * size
    losses = {"unigram": [], "bigram": []}
    for row in experiment._windows(experiment.length, 200):
        text = experiment.decode(row)
        for a, b in pairwise(text):
            losses["unigram"].append(-math.log((singles.get(b, 0) + size) / total))
            losses["bigram"].append(-math.log((pairs.get((a, b), 0) + 1) / (firsts.get(a, 0) + size)))
    found = experiment.baselines()
    for name, values in losses.items():
        assert found[name] == pytest.approx(np.mean(values), rel=1e-5)


def test_a_short_run_learns(short):
    assert short.loss[-3:].mean() < 0.85 * short.loss[:2].mean()
    assert short.results["bits_per_character"] == pytest.approx(short.results["held_out"] / math.log(2))


def test_positions_beyond_the_training_length_can_be_asked(short):
    assert short.experiment.loss_by_position(64, count=4).shape == (64,)
    assert short.experiment.loss_by_position(count=4).shape == (32,)


def test_text_goes_in_and_comes_out(short):
    text = 'The "for" statement'
    assert short.experiment.decode(short.experiment.encode(text)) == text
    written = [short.experiment.write(text, 12, temperature=0.8, seed=3, use_cache=c) for c in (True, False)]
    assert written[0] == written[1]
    assert written[0].startswith(text)
    assert len(written[0]) == len(text) + 12
    assert short.experiment.text_attention(text).shape == (2, 4, len(text), len(text))
    with pytest.raises(ValueError, match="text has the characters"):
        short.experiment.encode("naïve")


@pytest.mark.slow
def test_trained_to_the_end_it_beats_counting():
    results = models.load("gpt").results
    assert results["held_out"] < results["bigram"] < results["unigram"]
