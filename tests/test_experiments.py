"""The experiments that figures and claims share."""

import numpy as np
import pytest

from attn_guide.experiments import _retrieval_batch, _retrieval_step, train_retrieval


def small_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights of one rate and two seeds in double precision: d_model 5, d_k 3, 4 keys, 3 values."""
    shapes = {"embedding": (7, 5), "query": (5, 3), "key": (5, 3), "value": (5, 5), "output": (5, 3)}
    return {name: rng.normal(size=(1, 2, *shape)) for name, shape in shapes.items()}


def test_gradients_equal_finite_differences():
    rng = np.random.default_rng(0)
    weights = small_weights(rng)
    drawn = [_retrieval_batch(np.random.default_rng(seed), 4, 3, 4, 3) for seed in (1, 2)]
    data = [np.stack(arrays).astype(np.float64) for arrays in zip(*drawn, strict=True)]
    _, grads = _retrieval_step(weights, *data, scale=0.7)
    for name, weight in weights.items():
        for _ in range(6):
            at = (0, *(rng.integers(size) for size in weight.shape[1:]))
            sides = []
            for sign in (1, -1):
                moved = weight.copy()
                moved[at] += sign * 1e-5
                loss, _ = _retrieval_step({**weights, name: moved}, *data, scale=0.7)
                sides.append(loss[at[:2]])
            slope = (sides[0] - sides[1]) / 2e-5
            assert grads[name][at] == pytest.approx(slope, rel=1e-6, abs=1e-9), name


def test_a_batch_asks_for_a_key_that_is_there_once():
    items, asked, answer = _retrieval_batch(np.random.default_rng(0), 50, 8, 16, 4)
    assert items.shape == (50, 8, 20)
    assert asked.shape == (50, 1, 20)
    assert answer.shape == (50, 4)
    keys, values = items[..., :16], items[..., 16:]
    assert (keys.sum(axis=-1) == 1).all()
    assert (values.sum(axis=-1) == 1).all()
    assert keys.sum(axis=1).max() == 1  # no key twice
    match = (keys * asked[..., :16]).sum(axis=-1)  # (50, 8), one for the item asked for
    assert (match.sum(axis=-1) == 1).all()
    np.testing.assert_array_equal((match[..., None] * values).sum(axis=1), answer)


def test_runs_are_independent_of_the_company_they_keep():
    together = train_retrieval(0.125, [0.003, 0.01], seeds=[0, 1], steps=5)
    alone = train_retrieval(0.125, [0.01], seeds=[1], steps=5)
    np.testing.assert_allclose(together[1, 1], alone[0, 0], rtol=1e-4)


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.01), ("sgd", 0.3)])
def test_both_optimizers_learn(optimizer, rate):
    loss = train_retrieval(0.125, [rate], optimizer=optimizer, seeds=[0, 1], steps=300)
    assert loss.dtype == np.float32
    assert (loss[..., 0] > 1.5).all()  # guessing costs log 8 = 2.08
    assert (loss[..., -30:].mean(axis=-1) < 0.1).all()


def test_adam_agrees_with_torch():
    torch = pytest.importorskip("torch")
    mine = train_retrieval(0.125, [0.01], seeds=[4], steps=20, batch=8)[0, 0]
    # the same model, data and initial weights under torch's own autograd and Adam
    rng = np.random.default_rng(4)
    shapes = [((24, 32), 0.5), ((32, 64), 2 / 32), ((32, 64), 1 / 32), ((32, 32), 1 / 32), ((32, 8), 1 / 32)]
    params = [torch.tensor(rng.normal(0.0, v**0.5, s), dtype=torch.float32, requires_grad=True) for s, v in shapes]
    embedding, w_q, w_k, w_v, w_o = params
    adam = torch.optim.Adam(params, lr=0.01)
    theirs = []
    for _ in range(20):
        items, asked, answer = (torch.tensor(a) for a in _retrieval_batch(rng, 8, 8, 16, 8))
        x, x_q = items @ embedding, asked @ embedding
        out = torch.nn.functional.scaled_dot_product_attention(x_q @ w_q, x @ w_k, x @ w_v)
        loss = torch.nn.functional.cross_entropy((out @ w_o)[:, 0], answer)
        theirs.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    np.testing.assert_allclose(mine, theirs, rtol=2e-3)


def test_a_run_that_diverges_says_so_and_leaves_the_others_alone():
    loss = train_retrieval(1.0, [0.01, 30.0], optimizer="sgd", seeds=[0], steps=60)
    assert np.isfinite(loss[0]).all()
    assert not np.isfinite(loss[1, 0, -1]) or loss[1, 0, -1] > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "rmsprop"}, "optimizer is 'rmsprop'"),
        ({"n": 17}, "wanted at most keys, 16"),
        ({"n": 0}, "n is 0"),
    ],
)
def test_bad_options_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        train_retrieval(1.0, [0.1], steps=1, **options)
