"""The glimpse classifier: its looks, its draws, and the gradient of its draws against enumeration."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("sklearn")
import attn_guide as ag
from attn_guide import models
from attn_guide.models.glimpse import Digits, Glimpse, digit_images
from attn_guide.models.train import fit

KINDS = ("soft", "hard", "gumbel", "straight-through", "random")
SETTINGS = {**models.recipe("glimpse-hard").settings, "width": 8, "looks": 1, "side": 4, "batch": 4, "entropy": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_digits_are_what_they_are():
    images, labels = digit_images()
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    assert set(labels) == set(range(10))


@pytest.mark.parametrize("kind", KINDS)
def test_looks_are_weights(kind):
    torch.manual_seed(0)
    model = Glimpse(kind, width=8, looks=3)
    found = model(torch.rand(6, 8, 8), generator=generator())
    assert found.logits.shape == (6, 10)
    assert found.weights.shape == found.probabilities.shape == (6, 3, 16)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(6, 3))
    if kind in ("hard", "straight-through", "random"):
        torch.testing.assert_close(found.weights.sort(dim=-1).values[..., -1], torch.ones(6, 3))
    if kind == "soft":
        assert torch.equal(found.weights, found.probabilities)


def test_patches_are_cut_row_by_row():
    image = torch.arange(64.0).view(1, 8, 8)
    patches = Glimpse("soft", side=2)._cut(image)
    assert patches.shape == (1, 16, 4)
    assert patches[0, 0].tolist() == [0, 1, 8, 9]
    assert patches[0, 1].tolist() == [2, 3, 10, 11]
    assert patches[0, 4].tolist() == [16, 17, 24, 25]


def test_draws_follow_the_probabilities():
    """200,000 draws: each frequency within five standard errors, for what is chosen by Gumbel noise."""
    torch.manual_seed(0)
    model = Glimpse("hard", width=8)
    scores = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(200_000, -1)
    chances = scores.softmax(-1)
    frequency = model._choose(scores, chances, generator(), "hard").mean(0)
    error = (chances[0] * (1 - chances[0]) / 200_000).sqrt()
    assert ((frequency - chances[0]).abs() < 5 * error).all()


def test_gumbel_softmax_is_the_reference_s():
    model = Glimpse("gumbel", width=8, temperature=0.7)
    scores = torch.tensor([[0.3, 1.0, -0.5]])
    noise = -torch.empty_like(scores).exponential_(generator=generator(3)).log()
    found = model._choose(scores, scores.softmax(-1), generator(3), "gumbel")
    np.testing.assert_allclose(found, ag.softmax((scores + noise).numpy() / 0.7), rtol=1e-5)


def test_straight_through_chooses_forward_and_blends_backward():
    scores = torch.tensor([[0.3, 1.0, -0.5]], requires_grad=True)
    direction = torch.tensor([[1.0, -2.0, 0.5]])
    through = Glimpse("straight-through", width=8)._choose(scores, scores.softmax(-1), generator(3), "straight-through")
    assert through.detach().round().sum() == 1
    (found,) = torch.autograd.grad((through * direction).sum(), scores)
    blended = Glimpse("gumbel", width=8)._choose(scores, scores.softmax(-1), generator(3), "gumbel")
    (wanted,) = torch.autograd.grad((blended * direction).sum(), scores)
    torch.testing.assert_close(found, wanted)


def test_looks_at_random_follow_nothing():
    """20,000 looks: each of the 16 patches within five standard errors of 1/16, and none without a generator."""
    torch.manual_seed(0)
    model = Glimpse("random", width=8, looks=1)
    found = model(torch.rand(1, 8, 8).expand(20_000, -1, -1), generator=generator())
    error = (1 / 16 * 15 / 16 / 20_000) ** 0.5
    assert ((found.weights[:, 0].mean(0) - 1 / 16).abs() < 5 * error).all()
    with pytest.raises(ValueError, match="generator is None"):
        model(torch.rand(1, 8, 8))


def test_a_choice_by_place_alone_sees_no_patch_before_it_is_read():
    """Two images that differ in one patch: with keys from places the probabilities part only after it was read."""
    torch.manual_seed(0)
    for content in (True, False):
        model = Glimpse("hard", width=8, looks=4, content=content)
        image = torch.rand(1, 8, 8)
        chosen = model(image).weights[0].argmax(-1)  # (looks,)
        unread = next(p for p in range(16) if p not in chosen)
        other = image.clone()
        other[0, 2 * (unread // 4), 2 * (unread % 4)] += 0.5
        same = torch.equal(model(image).probabilities, model(other).probabilities)
        assert same is not content
        read = int(chosen[0])
        other = image.clone()
        other[0, 2 * (read // 4) : 2 * (read // 4) + 2, 2 * (read % 4) : 2 * (read % 4) + 2] = 3.0
        before, after = model(image).probabilities, model(other).probabilities
        assert torch.equal(before[:, 0], after[:, 0]) is not content
        assert not torch.equal(before[:, 1], after[:, 1])


def test_another_kind_of_look_with_the_same_weights():
    torch.manual_seed(0)
    model, images = Glimpse("soft", width=8), torch.rand(5, 8, 8)
    hard = Glimpse("hard", width=8)
    hard.load_state_dict(model.state_dict())
    assert torch.equal(model(images, kind="hard").logits, hard(images).logits)
    assert torch.equal(hard(images, kind="soft").logits, model(images).logits)


def test_without_a_generator_the_most_probable_patch_is_taken():
    torch.manual_seed(0)
    found = Glimpse("hard", width=8)(torch.rand(4, 8, 8))
    assert torch.equal(found.weights.argmax(-1), found.probabilities.argmax(-1))


def test_reinforce_points_where_enumeration_does():
    """One look at four patches: the mean of 30,000 surrogate gradients against the exact gradient of the expected loss.

    The exact one sums over the four choices. Each parameter group agrees within five standard errors.
    """
    torch.manual_seed(0)
    experiment = Digits(SETTINGS, 0)
    model = experiment.model
    model.baseline.fill_(-2.0)
    image, label = experiment._images[:1], experiment._labels[:1]
    names = ["query.weight", "key.weight"]
    parameters = [dict(model.named_parameters())[name] for name in names]

    values = torch.relu(model.patch(model._cut(image))) + model.place
    state = model.first_state.expand(1, -1)
    chances = (torch.einsum("bd,bpd->bp", model.query(state), model.key(values)) * 8**-0.5).softmax(-1)
    losses = torch.stack([F.cross_entropy(model.output(model.reader(values[:, p], state)), label) for p in range(4)])
    exact = torch.autograd.grad((chances[0] * losses).sum(), parameters)

    batch = 100
    experiment._images, experiment._labels, experiment.batch = image, label, batch
    draws = []
    source = generator(1)
    for _ in range(300):
        model.baseline.fill_(-2.0)
        draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(experiment.loss(source), parameters)]))
    draws = torch.stack(draws)
    error = draws.std(0) / len(draws) ** 0.5
    wanted = torch.cat([g.flatten() for g in exact])
    assert ((draws.mean(0) - wanted).abs() <= 5 * error + 1e-7).all()
    assert wanted.abs().max() > 20 * error.mean()  # there is something to see


def test_the_baseline_follows_the_reward():
    experiment = Digits(SETTINGS, 0)
    first = experiment.loss(generator()).item()
    assert float(experiment.model.baseline) == pytest.approx(-0.1 * first, rel=1e-5)
    without = Digits({**SETTINGS, "baseline": models.recipe("glimpse-no-baseline").settings["baseline"]}, 0)
    without.loss(generator())
    assert float(without.model.baseline) == 0


def test_an_unknown_kind_is_refused():
    with pytest.raises(
        ValueError, match="kind is 'firm'; wanted one of 'soft', 'hard', 'gumbel', 'straight-through', 'random'"
    ):
        Glimpse("firm")


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_run_learns(kind, tmp_path):
    recipe = models.recipe(f"glimpse-{kind}").with_settings(steps=250, measure_every=250)
    trained = fit(recipe, folder=tmp_path, progress=None)
    assert trained.results["accuracy"] > 0.2  # guessing gives 0.1
    images, weights, labels, answers = trained.experiment.look(3)
    assert images.shape == (3, 8, 8)
    assert weights.shape == (3, 4, 4, 4)
    assert labels.shape == answers.shape == (3,)
    np.testing.assert_allclose(weights.sum(axis=(2, 3)), 1, rtol=1e-5)


def test_no_image_is_both_learned_and_tested():
    experiment = Digits(SETTINGS, 0)
    assert len(experiment._images) + len(experiment.test_images) == 1797
    assert len(experiment.test_images) == 359


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, "no-baseline", "unseen"])
def test_trained_to_the_end_it_reads_digits(name):
    assert models.load(f"glimpse-{name}").results["accuracy"] > 0.6
