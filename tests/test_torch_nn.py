"""The modules: against torch.nn, against the NumPy reference, with caches, state dicts and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import attn_guide as ag
import attn_guide.torch as at
from attn_guide.torch import nn

F64 = {"dtype": torch.float64}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shuffle(module, seed=0):
    """Give every parameter a random value, biases included, so that nothing is hidden by a zero."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) / p.shape[-1] ** 0.5)
    return module


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(
        np.asarray(a.detach()), np.asarray(b.detach() if hasattr(b, "detach") else b), atol=tolerance
    )


# --------------------------------------------------------------------------------------------- multi-head


@pytest.mark.parametrize("kdim", [None, 6])
@pytest.mark.parametrize("bias", [False, True])
def test_weights_of_torch_load_and_give_the_same(kdim, bias):
    theirs = shuffle(torch.nn.MultiheadAttention(8, 2, bias=bias, kdim=kdim, vdim=kdim, batch_first=True, **F64))
    ours = nn.MultiHeadAttention.from_torch(theirs)
    x, y = draw(3, 5, 8), draw(3, 7, kdim or 8, seed=1)
    hidden = torch.rand(5, 7, generator=torch.Generator().manual_seed(2)) > 0.7
    expected, weights = theirs(x, y, y, attn_mask=hidden, average_attn_weights=False)  # True hides, in torch.nn
    out, ours_weights = ours(x, y, attn_mask=~hidden, return_weights=True)
    close(out, expected)
    close(ours_weights, weights)
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    with pytest.raises(ValueError, match="add_zero_attn"):
        nn.MultiHeadAttention.from_torch(torch.nn.MultiheadAttention(8, 2, add_zero_attn=True))


@pytest.mark.parametrize("h_kv", [1, 2, 4])
def test_grouped_heads_give_what_the_reference_gives(h_kv):
    params = ag.init_multi_head(8, 4, num_kv_heads=h_kv, d_k=3, d_v=5, d_key=6, d_value=7, rng=np.random.default_rng(0))
    layer = shuffle(nn.MultiHeadAttention(8, 4, num_kv_heads=h_kv, d_k=3, d_v=5, d_key=6, d_value=7, **F64))
    with torch.no_grad():
        for letter, name in zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj"), strict=True):
            getattr(layer, name).weight.copy_(torch.from_numpy(getattr(params, f"w_{letter}").T))
            getattr(layer, name).bias.copy_(torch.from_numpy(getattr(params, f"b_{letter}")))
    x, k, v = draw(2, 5, 8), draw(2, 6, 6, seed=1), draw(2, 6, 7, seed=2)
    theirs = ag.multi_head_attention(x.numpy(), k.numpy(), v.numpy(), params, mask_mod=ag.sliding_window(2, 1))
    close(layer(x, k, v, mask_mod=ag.sliding_window(2, 1)), theirs)


@pytest.mark.parametrize("position", ["none", "rope", "alibi", "t5"])
def test_positions_are_those_of_the_reference(position):
    layer = shuffle(nn.MultiHeadAttention(12, 3, position=position, softcap=3.0, **F64))
    x = draw(2, 6, 12)
    q, k, v = (at.split_heads(p(x), 3).detach().numpy() for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    bias = None
    if position == "rope":
        q, k = ag.apply_rope(q), ag.apply_rope(k)
    elif position == "alibi":
        bias = ag.alibi_bias(3, 6)
    elif position == "t5":
        bias = ag.t5_relative_bias(layer.relative_bias.detach().numpy(), 6, bidirectional=False)
    theirs = ag.scaled_dot_product_attention(q, k, v, bias, is_causal=True, softcap=3.0)
    close(layer(x, is_causal=True), layer.out_proj(torch.from_numpy(ag.merge_heads(theirs))))
    allowed = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) > 0.3
    floats = torch.where(allowed, 0.0, -torch.inf).double()
    close(layer(x, attn_mask=allowed), layer(x, attn_mask=floats))


@pytest.mark.parametrize("position", ["none", "rope", "alibi", "t5"])
@pytest.mark.parametrize("steps", [[7], [1] * 7, [3, 1, 2, 1]])
@pytest.mark.parametrize("window", [None, 3])
def test_decoding_with_a_cache_is_the_whole_sequence_at_once(position, steps, window):
    layer = shuffle(nn.MultiHeadAttention(12, 3, num_kv_heads=1, position=position, **F64)).eval()
    x = draw(2, 7, 12)
    cache = layer.make_cache(2, None if window else 7, window=window)
    parts = [layer(part, cache=cache) for part in x.split(steps, dim=1)]
    mask = None if window is None else ag.sliding_window(window - 1, 0)
    close(torch.cat(parts, dim=1), layer(x, is_causal=True, mask_mod=mask))


def test_dropout_acts_in_training_alone():
    layer = shuffle(nn.MultiHeadAttention(8, 2, dropout=0.5, **F64))
    x = draw(2, 5, 8)
    torch.manual_seed(0)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_gradients_reach_every_parameter():
    x = draw(2, 6, 12)
    for position in ("none", "rope", "alibi", "t5"):
        layer = shuffle(nn.MultiHeadAttention(12, 3, position=position, **F64))
        layer(x, is_causal=True).square().sum().backward()
        for name, p in layer.named_parameters():
            assert p.grad is not None, name
            assert p.grad.abs().max() > 0 or name == "k_proj.bias", name  # a constant added to all scores of a query
    layer = shuffle(nn.MultiHeadAttention(4, 2, **F64))
    assert torch.autograd.gradcheck(lambda y: layer(y, is_causal=True), draw(1, 3, 4).requires_grad_())


# ------------------------------------------------------------------------------------------------- latent


@pytest.mark.parametrize("d_cq", [None, 5])
@pytest.mark.parametrize("norm", [False, True])
def test_latent_attention_gives_what_the_reference_gives(d_cq, norm):
    layer = shuffle(nn.MultiHeadLatentAttention(12, 3, d_c=6, d_nope=4, d_rope=2, d_v=5, d_cq=d_cq, norm=norm, **F64))
    weights = {
        name: None if getattr(layer, name) is None else getattr(layer, name).weight.detach().numpy().T
        for name in ("w_dkv", "w_uk", "w_uv", "w_kr", "w_uq", "w_qr", "w_o", "w_dq")
    }
    gains = {"norm_kv": layer.norm_kv, "norm_q": layer.norm_q}
    gains = {name: m.weight.detach().numpy() for name, m in gains.items() if not isinstance(m, torch.nn.Identity)}
    params = ag.LatentParams(**weights, **gains, num_heads=3)
    x = draw(2, 6, 12)
    theirs = ag.multi_head_latent_attention(x.numpy(), params, is_causal=True, rope=ag.apply_rope)
    close(layer(x, is_causal=True), theirs)
    cache = layer.make_cache(2, 6)
    assert cache.nbytes == 2 * 6 * (6 + 2) * 8
    parts, weights = zip(
        *(layer(part, cache=cache, return_weights=True) for part in x.split([3, 1, 2], dim=1)), strict=True
    )
    close(torch.cat(parts, dim=1), theirs)
    close(weights[-1], layer(x, is_causal=True, return_weights=True)[1][:, :, 4:])


# ------------------------------------------------------------------------------------- Bahdanau and Luong


def test_bahdanau_gives_what_the_reference_gives():
    layer = shuffle(nn.BahdanauAttention(4, 6, 8, **F64))
    q, k = draw(2, 3, 4), draw(2, 5, 6, seed=1)
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) > 0.3
    mask[1] = False
    s = ag.additive_score(q, k, layer.w_query.weight.T.detach(), layer.w_key.weight.T.detach(), layer.v.detach())
    weights = ag.softmax(s, where=mask.numpy())
    out, ours = layer(q, k, attn_mask=mask, return_weights=True)
    close(ours, weights)
    close(out, weights @ k.numpy())
    close(layer(q, k, attn_mask=mask, projected_key=layer.project_key(k)), out)
    assert torch.autograd.gradcheck(
        lambda a, b: layer(a, b), (draw(1, 2, 4).requires_grad_(), draw(1, 3, 6).requires_grad_())
    )


@pytest.mark.parametrize("score", ["dot", "general", "concat"])
def test_global_luong_attention_gives_what_the_reference_gives(score):
    layer = shuffle(nn.LuongAttention(4, 4, score=score, **F64))
    q, k = draw(2, 3, 4), draw(2, 5, 4, seed=1)
    parameters = [getattr(layer, name).detach().numpy() for name in ("weight", "v") if hasattr(layer, name)]
    weights = ag.softmax(getattr(ag, f"{score}_score")(q.numpy(), k.numpy(), *parameters))
    out, ours = layer(q, k, return_weights=True)
    close(ours, weights)
    close(out, weights @ k.numpy())


def test_monotonic_local_attention_is_attention_in_a_window():
    layer = nn.LuongAttention(4, 4, score="dot", align="monotonic", window=2, **F64)
    q, k, v = draw(2, 7, 4), draw(2, 9, 4, seed=1), draw(2, 9, 3, seed=2)
    window = ag.sliding_window(2, 2)
    close(layer(q, k, v), at.attention(q, k, v, scale=1.0, mask_mod=window))
    steps = [layer(q[:, t : t + 1], k, v, position=t) for t in range(7)]
    close(torch.cat(steps, dim=1), layer(q, k, v))
    close(
        layer(q, k, v, position=torch.arange(7) + 1), at.attention(q, k, v, scale=1.0, mask_mod=ag.sliding_window(1, 3))
    )


def test_predictive_local_attention_follows_equations_9_and_10():
    layer = shuffle(nn.LuongAttention(4, 4, align="predictive", window=2, d_attention=3, **F64))
    q, k = draw(1, 3, 4), draw(1, 9, 4, seed=1)
    weights = layer(q, k, return_weights=True)[1][0].detach().numpy()
    w, v = layer.w_place.weight.detach().numpy(), layer.v_place.detach().numpy()
    s = ag.general_score(q[0].numpy(), k[0].numpy(), layer.weight.detach().numpy())
    for i in range(3):
        place = 9 / (1 + np.exp(-(v @ np.tanh(w @ q[0, i].numpy()))))
        inside = np.abs(np.arange(9) - place) <= 2
        expected = np.zeros(9)
        expected[inside] = ag.softmax(s[i, inside]) * np.exp(-((np.arange(9)[inside] - place) ** 2) / (2 * 1.0**2))
        np.testing.assert_allclose(weights[i], expected, atol=1e-12)
    layer(q, k).sum().backward()
    assert layer.v_place.grad.abs().max() > 0


# ---------------------------------------------------------------------------------------------- Longformer


def test_longformer_uses_its_global_projections_for_global_rows():
    layer = shuffle(nn.LongformerAttention(8, 2, window=4, **F64))
    x = draw(2, 20, 8)
    names = ("query", "key", "value", "query_global", "key_global", "value_global")
    q, k, v, qg, kg, vg = (at.split_heads(getattr(layer, name)(x), 2).detach().numpy() for name in names)
    theirs = ag.longformer_attention(q, k, v, 4, [0, 7], global_query=qg, global_key=kg, global_value=vg)
    close(layer(x, [0, 7]), layer.out_proj(torch.from_numpy(ag.merge_heads(theirs))))
    layer.init_global()
    local = at.attention(*map(torch.from_numpy, (q, k, v)), mask_mod=ag.longformer(4, [0, 7]))
    close(layer(x, [0, 7]), layer.out_proj(at.merge_heads(local)))


# -------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_blocks_load_torchs_weights_and_give_the_same(norm_first, activation):
    options = {"dropout": 0.0, "activation": activation, "norm_first": norm_first}
    theirs = shuffle(torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options, **F64)).eval()
    ours = nn.EncoderLayer(8, 2, 16, **options, **F64)
    ours.load_state_dict(theirs.state_dict())
    x, memory = draw(2, 5, 8), draw(2, 6, 8, seed=1)
    close(ours(x), theirs(x))
    hidden = torch.ones(5, 5).triu(1).bool()
    close(ours(x, is_causal=True), theirs(x, src_mask=hidden))
    theirs = shuffle(torch.nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, **options, **F64)).eval()
    ours = nn.DecoderLayer(8, 2, 16, **options, **F64)
    ours.load_state_dict(theirs.state_dict())
    close(ours(x, memory), theirs(x, memory, tgt_mask=hidden))


def test_a_stack_of_blocks_decodes_with_caches():
    layers = [shuffle(nn.EncoderLayer(8, 2, 16, norm_first=True, position="rope", **F64), i).eval() for i in range(2)]
    x = draw(2, 6, 8)
    whole = layers[1](layers[0](x, is_causal=True), is_causal=True)
    caches = [layer.self_attn.make_cache(2, 6) for layer in layers]
    parts = []
    for part in x.split([3, 1, 1, 1], dim=1):
        for layer, cache in zip(layers, caches, strict=True):
            part = layer(part, cache=cache)
        parts.append(part)
    close(torch.cat(parts, dim=1), whole)


# ------------------------------------------------------------------------------------ hard and glimpses


def test_hard_attention_draws_in_training_and_takes_the_likeliest_in_evaluation():
    layer = shuffle(nn.HardAttention(4, 6, 8, **F64))
    q, k = draw(1, 4).expand(20_000, 1, 4), draw(5, 6, seed=1)
    _, choice, s = layer(q, k, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(s[0, 0], -1).detach()
    error = (choice.mean(0)[0].detach() - p).abs() / (p * (1 - p) / 20_000).sqrt()
    assert error.max() < 4  # standard errors
    layer.eval()
    out, choice, s = layer(q[:3], k)
    assert torch.equal(choice.argmax(-1), s.argmax(-1))
    close(out, k[s.argmax(-1)])
    with pytest.raises(TypeError, match="generator is None"):
        layer.train()(q, k)


@pytest.mark.parametrize("estimator", ["reinforce", "straight_through", "gumbel"])
def test_hard_attention_learns_which_key_pays(estimator):
    """The reward is 1 for reading key 3 and 0 otherwise; each estimator raises the probability of reading it."""
    torch.manual_seed(0)
    layer = nn.HardAttention(4, 5, 16, estimator=estimator)
    q, k, g = torch.ones(64, 1, 4), torch.eye(5), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(80):
        out, choice, s = layer(q, k, generator=g)
        reward = out[..., 3]
        loss = -reward.mean()
        if estimator == "reinforce":
            loss = at.reinforce_loss(s, choice.argmax(-1), reward, baseline="mean")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert torch.softmax(layer(q[:1], k, generator=g)[2], -1)[0, 0, 3] > 0.9


def test_a_glimpse_is_the_image_around_its_place():
    layer = nn.GlimpseAttention(4, 2, 3, d_hidden=8, d_model=8)
    image = torch.randn(2, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    seen = layer.patches(image, torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    assert torch.equal(seen[0, 0], image[0, :, 8:12, 6:10])
    assert torch.allclose(seen[0, 1], torch.nn.functional.avg_pool2d(image[0, :, 6:14, 4:12], 2))
    corner = torch.zeros(3, 4, 4)
    corner[:, :2, 2:] = image[1, :, 18:, :2]
    assert torch.equal(seen[1, 0], corner)
    with pytest.raises(ValueError, match="location"):
        layer.patches(image, torch.zeros(2, 3))


def test_places_learn_by_reinforce():
    """The reward is nearness to a corner; the proposed place moves there."""
    torch.manual_seed(0)
    layer, g = nn.GlimpseAttention(4, 1, 1, d_hidden=8, d_model=8), torch.Generator().manual_seed(0)
    state, target = torch.ones(64, 8), torch.tensor([0.6, -0.4])
    optimiser = torch.optim.Adam(layer.place.parameters(), lr=0.02)
    for _ in range(150):
        place, log_p = layer.next_location(state, generator=g)
        reward = -(place - target).square().sum(-1)
        optimiser.zero_grad()
        (-(reward - reward.mean()) * log_p).mean().backward()
        optimiser.step()
    assert (layer.eval().next_location(state[:1])[0] - target).abs().max() < 0.1


# -------------------------------------------------------------------------------------------------- habits

MODULES = {
    "BahdanauAttention": (lambda **o: nn.BahdanauAttention(4, 4, 6, **o), 2),
    "LuongAttention": (lambda **o: nn.LuongAttention(4, 4, **o), 2),
    "LuongAttention local": (lambda **o: nn.LuongAttention(4, 4, align="predictive", window=1, **o), 2),
    "MultiHeadAttention": (lambda **o: nn.MultiHeadAttention(4, 2, position="t5", **o), 1),
    "MultiHeadLatentAttention": (lambda **o: nn.MultiHeadLatentAttention(4, 2, d_c=3, d_nope=2, d_rope=2, **o), 1),
    "LongformerAttention": (lambda **o: nn.LongformerAttention(4, 2, 2, **o), 1),
    "EncoderLayer": (lambda **o: nn.EncoderLayer(4, 2, 8, **o), 1),
    "DecoderLayer": (lambda **o: nn.DecoderLayer(4, 2, 8, **o), 2),
    "HardAttention": (lambda **o: nn.HardAttention(4, 4, 6, **o).eval(), 2),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_keep_the_habits_of_torch(name):
    make, count = MODULES[name]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        module = make(device="cpu", dtype=dtype)
        assert {p.dtype for p in module.parameters()} == {dtype}
        out = module(*[draw(2, 5, 4, seed=i).to(dtype) for i in range(count)])
        assert (out[0] if isinstance(out, tuple) else out).dtype == dtype
    module = make(dtype=torch.float64)
    other = make(dtype=torch.float64)
    other.load_state_dict(module.state_dict())
    x = [draw(2, 5, 4, seed=i) for i in range(count)]
    first, second = (m(*x)[0] if isinstance(m(*x), tuple) else m(*x) for m in (module, other))
    assert torch.equal(first, second)
    assert name.split()[0] in repr(module)
    assert {p.device.type for p in make(device="meta").parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.MultiHeadAttention(10, 4), "d_model is 10"),
        (lambda: nn.MultiHeadAttention(8, 4, num_kv_heads=3), "num_kv_heads is 3"),
        (lambda: nn.MultiHeadAttention(8, 4, position="learned"), "position is 'learned'"),
        (lambda: nn.MultiHeadAttention(8, 4, dropout=1.5), "dropout is 1.5"),
        (lambda: nn.LuongAttention(4, 5, score="dot"), "d_key is 5"),
        (lambda: nn.LuongAttention(4, 4, align="monotonic"), "window is None"),
        (lambda: nn.LuongAttention(4, 4, window=3), "window is 3"),
        (lambda: nn.LongformerAttention(8, 2, 3), "window is 3"),
        (lambda: nn.LongformerAttention(8, 3, 4), "d_model is 8"),
        (lambda: nn.HardAttention(4, 4, 4, estimator="magic"), "estimator is 'magic'"),
        (lambda: nn.EncoderLayer(4, 2, 8, activation="tanh"), "activation is 'tanh'"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_modules_compile_into_one_graph(name):
    """With the front end alone (the eager backend): the graph is tested here, not the compiler."""
    make, count = MODULES[name]
    torch.manual_seed(0)
    module = make()
    x = [draw(2, 5, 4, seed=i).float() for i in range(count)]
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    expected, got = module(*x), compiled(*x)
    pairs = zip(expected, got, strict=True) if isinstance(expected, tuple) else [(expected, got)]
    for a, b in pairs:
        assert torch.allclose(a, b, atol=1e-6)
    (got[-1] if isinstance(got, tuple) else got).sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


@pytest.mark.slow
def test_a_block_compiles_with_the_default_compiler():
    torch.manual_seed(0)
    layer = nn.EncoderLayer(16, 4, 32, norm_first=True, position="rope", num_kv_heads=2)
    x = torch.randn(2, 9, 16)
    assert torch.allclose(torch.compile(layer, fullgraph=True)(x, is_causal=True), layer(x, is_causal=True), atol=1e-5)
