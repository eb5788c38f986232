"""layers.py against torch.nn, HuggingFace's Llama, ONNX's published cases, autograd and finite differences."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx_cases import Case, cases
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

import attn_guide as ag
from attn_guide import layers

T = torch.tensor
F64 = {"rtol": 1e-12, "atol": 1e-13}
F32 = {"rtol": 1e-5, "atol": 1e-5}
DTYPES = [(np.float64, F64), (np.float32, F32)]


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def spread_out(module, dtype=torch.float64, seed=0):
    """Draw every parameter, norms and biases too, so that none of them can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    module = module.to(dtype).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=dtype) * 0.4)
    return module


def arrays(module):
    return {name: x.numpy() for name, x in module.state_dict().items()}


def run(module, *args, **kwargs):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        return module(*args, **kwargs).numpy()


@pytest.fixture(autouse=True)
def _the_written_out_path_of_torch():
    """torch's fused encoder layer returns NaN for a float mask and 0 for padding; its plain code does neither."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


# -------------------------------------------------------------------------------------------------- norms


@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
@pytest.mark.parametrize("eps", [1e-5, 0.3])
@pytest.mark.parametrize("affine", ["none", "weight", "both"])
def test_layer_norm_is_torchs(dtype, tol, eps, affine):
    x = normal(3, 4, 6, dtype=dtype) * 3 + 5
    w = None if affine == "none" else normal(6, dtype=dtype)
    b = normal(6, seed=1, dtype=dtype) if affine == "both" else None
    want = torch.nn.functional.layer_norm(
        T(x), (6,), None if w is None else T(w), None if b is None else T(b), eps
    ).numpy()
    got = ag.layer_norm(x, w, b, eps=eps)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, **tol)


@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
def test_rms_norm_is_torchs_and_llamas(dtype, tol):
    x, w = normal(3, 4, 6, dtype=dtype) * 3, normal(6, dtype=dtype)
    np.testing.assert_allclose(
        ag.rms_norm(x, w, eps=0.1), torch.nn.functional.rms_norm(T(x), (6,), T(w), 0.1).numpy(), **tol
    )
    np.testing.assert_allclose(ag.rms_norm(x), torch.nn.functional.rms_norm(T(x), (6,), eps=1e-6).numpy(), **tol)
    llama = LlamaRMSNorm(6, eps=1e-6)
    with torch.no_grad():
        llama.weight.copy_(T(w))
    np.testing.assert_allclose(ag.rms_norm(x, w), run(llama, T(x)), **F32)


def over_the_last_axis(case: Case) -> bool:
    return case.attributes.get("axis", -1) in (-1, case.inputs["X"].ndim - 1)


@pytest.mark.parametrize(
    "case", list(filter(over_the_last_axis, cases("layernormalization"))), ids=lambda case: case.name[5:]
)
def test_layer_norm_is_onnxs(case: Case):
    x, w, b = (case.inputs[name] for name in "XWB")
    got = ag.layer_norm(x, w, b, eps=case.attributes.get("epsilon", 1e-5))
    np.testing.assert_allclose(got, case.outputs["Y"], **F32)


@pytest.mark.parametrize(
    "case", list(filter(over_the_last_axis, cases("rmsnormalization"))), ids=lambda case: case.name[5:]
)
def test_rms_norm_is_onnxs(case: Case):
    got = ag.rms_norm(case.inputs["X"], case.inputs["W"], eps=case.attributes.get("epsilon", 1e-5))
    np.testing.assert_allclose(got, case.outputs["Y"], **F32)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=6), elements=st.floats(-1e6, 1e6)),
    st.floats(-100, 100),
    st.floats(0.1, 10),
)
def test_norms_forget_what_they_should(x, shift, factor):
    y, r = ag.layer_norm(x), ag.rms_norm(x)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-4)
    assert (np.square(y).mean(-1) <= 1 + 1e-9).all()
    assert (np.square(r).mean(-1) <= 1 + 1e-9).all()
    if x.shape[-1] > 1 and (x.std(-1) > 1).all():
        np.testing.assert_allclose(ag.layer_norm(factor * x + shift), y, atol=1e-2)
        np.testing.assert_allclose(ag.rms_norm(factor * x), r, atol=1e-3)


def test_constant_tokens_and_half_precision():
    np.testing.assert_array_equal(ag.layer_norm(np.full((2, 4), 7.0)), np.zeros((2, 4)))
    np.testing.assert_array_equal(ag.rms_norm(np.zeros((2, 4))), np.zeros((2, 4)))
    big = np.full(8, 60000, np.float16)  # its square overflows float16
    np.testing.assert_array_equal(ag.rms_norm(big), np.ones(8, np.float16))
    assert ag.layer_norm(big).dtype == np.float16


# ------------------------------------------------------------------------------------------- feed-forward


@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_torchs(dtype, tol, approximate):
    x = np.concatenate([normal(1000, dtype=dtype) * 4, np.array([0.0, -40.0, 40.0, 1e30, -1e30], dtype)])
    with np.errstate(over="ignore"):
        got = ag.gelu(x, approximate=approximate)
    want = torch.nn.functional.gelu(T(x), approximate=approximate).numpy()
    np.testing.assert_allclose(got[:-2], want[:-2], rtol=tol["rtol"], atol=1e-15 if dtype == np.float64 else 1e-6)
    assert got.dtype == dtype
    assert got[-2] == x[-2]
    assert got[-1] == 0


@pytest.mark.parametrize("case", cases("gelu"), ids=lambda case: case.name[5:])
def test_gelu_is_onnxs(case: Case):
    approximate = case.attributes.get("approximate", b"none").decode()
    np.testing.assert_allclose(ag.gelu(case.inputs["x"], approximate=approximate), case.outputs["y"], **F32)


def test_the_tanh_formula_is_as_close_as_documented():
    x = np.linspace(-10, 10, 100_001)
    error = np.abs(ag.gelu(x) - ag.gelu(x, approximate="tanh")).max()
    assert 0.0004 < error < 0.0005


ACTIVATIONS = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": torch.nn.functional.silu,
}


@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_feed_forward_is_two_linears(dtype, tol, activation, bias):
    one, two = torch.nn.Linear(6, 20, bias=bias), torch.nn.Linear(20, 5, bias=bias)
    as_torch = torch.float64 if dtype == np.float64 else torch.float32
    spread_out(one, as_torch), spread_out(two, as_torch)
    x = normal(3, 4, 6, dtype=dtype)
    want = run(lambda t: two(ACTIVATIONS[activation](one(t))), T(x))
    a, b = arrays(one), arrays(two)
    got = ag.feed_forward(x, a["weight"].T, b["weight"].T, a.get("bias"), b.get("bias"), activation=activation)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, **tol)


def test_swiglu_is_llamas():
    mlp = spread_out(LlamaMLP(LlamaConfig(hidden_size=6, intermediate_size=16, num_attention_heads=2)))
    w = arrays(mlp)
    x = normal(2, 4, 6) * 5
    got = ag.swiglu(x, *(w[f"{name}_proj.weight"].T for name in ("gate", "up", "down")))
    np.testing.assert_allclose(got, run(mlp, T(x)), **F64)


def test_silu_does_not_overflow():
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(
            ag.feed_forward([[-1e5, 1e5]], np.eye(2), np.eye(2), activation="silu"), [[0.0, 1e5]]
        )


def test_feed_forward_treats_every_token_alone():
    x, w_1, w_2 = normal(5, 6), normal(6, 8), normal(8, 6)
    whole = ag.feed_forward(x, w_1, w_2)
    for i in range(5):
        np.testing.assert_allclose(ag.feed_forward(x[i], w_1, w_2), whole[i], **F64)


# ------------------------------------------------------------------------------------------------- blocks

STYLES = [
    {"norm_first": norm_first, "activation": activation}
    for norm_first in (False, True)
    for activation in ("relu", "gelu")
]


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("mask", ["none", "causal", "bool", "bias", "padding"])
@pytest.mark.parametrize("bias", [True, False])
def test_encoder_layer_is_torchs(style, mask, bias):
    module = spread_out(
        torch.nn.TransformerEncoderLayer(16, 4, 40, batch_first=True, bias=bias, layer_norm_eps=1e-3, **style)
    )
    params = ag.EncoderLayerParams.from_torch_state_dict(arrays(module), 4)
    x = normal(3, 7, 16)
    rng = np.random.default_rng(0)
    ours, theirs = {}, {}
    if mask == "causal":
        ours["is_causal"], theirs["src_mask"] = True, ~torch.tril(torch.ones(7, 7, dtype=bool))
    elif mask == "bool":
        allowed = rng.random((7, 7)) < 0.6
        allowed[:, 0] = True
        ours["attn_mask"], theirs["src_mask"] = allowed, T(~allowed)
    elif mask == "bias":
        ours["attn_mask"] = rng.standard_normal((7, 7))
        theirs["src_mask"] = T(ours["attn_mask"])
    elif mask == "padding":
        lengths = np.array([7, 4, 1])
        ours["attn_mask"] = (np.arange(7) < lengths[:, None])[:, None, None, :]  # (batch, 1, 1, m)
        theirs["src_key_padding_mask"] = T(np.arange(7) >= lengths[:, None])
    got, weights = ag.encoder_layer(x, params, eps=1e-3, return_weights=True, **ours, **style)
    want = run(module, T(x), **theirs)
    np.testing.assert_allclose(got, want, **F64)
    assert weights.shape == (3, 4, 7, 7)
    np.testing.assert_allclose(weights.sum(-1), 1.0)
    np.testing.assert_array_equal(ag.encoder_layer(x, params, eps=1e-3, **ours, **style), got)


def test_encoder_layer_weights_are_torchs():
    module = spread_out(torch.nn.TransformerEncoderLayer(16, 4, 40, batch_first=True))
    x = normal(3, 7, 16)
    params = ag.EncoderLayerParams.from_torch_state_dict(arrays(module), 4)
    _, weights = ag.encoder_layer(x, params, return_weights=True)
    want = module.self_attn(T(x), T(x), T(x), average_attn_weights=False)[1].detach().numpy()
    np.testing.assert_allclose(weights, want, **F64)


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_decoder_layer_is_torchs(style, masked):
    module = spread_out(torch.nn.TransformerDecoderLayer(16, 4, 40, batch_first=True, **style))
    params = ag.DecoderLayerParams.from_torch_state_dict(arrays(module), 4)
    x, memory = normal(3, 5, 16), normal(3, 7, 16)
    rng = np.random.default_rng(0)
    ours, theirs = {"is_causal": False}, {}
    if masked:
        lengths = np.array([7, 4, 1])
        window = rng.random((5, 5)) < 0.7
        window[:, 0] = True
        ours = {"attn_mask": window, "memory_mask": (np.arange(7) < lengths[:, None])[:, None, None, :]}
        theirs = {
            "tgt_mask": T(~(window & np.tril(np.ones((5, 5), bool)))),
            "memory_key_padding_mask": T(np.arange(7) >= lengths[:, None]),
        }
    got, own, cross = ag.decoder_layer(x, memory, params, return_weights=True, **ours, **style)
    np.testing.assert_allclose(got, run(module, T(x), T(memory), **theirs), **F64)
    assert own.shape == (3, 4, 5, 5)
    assert cross.shape == (3, 4, 5, 7)
    if masked:
        assert (np.triu(own, 1) == 0).all()
        assert (cross[2, ..., 1:] == 0).all()


def test_a_decoder_is_causal_unless_told_otherwise():
    module = spread_out(torch.nn.TransformerDecoderLayer(16, 4, 40, batch_first=True))
    params = ag.DecoderLayerParams.from_torch_state_dict(arrays(module), 4)
    x, memory = normal(5, 16), normal(7, 16)
    before = ag.decoder_layer(x, memory, params)
    x[3:] += 1
    after = ag.decoder_layer(x, memory, params)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert not np.allclose(before[3:], after[3:])


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, F64), (torch.float32, {"rtol": 1e-4, "atol": 1e-4})])
def test_transformer_is_torchs(style, dtype, tol):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = spread_out(torch.nn.Transformer(16, 4, 2, 3, 40, batch_first=True, **style), dtype)
    params = ag.TransformerParams.from_torch_state_dict(arrays(module), 4)
    assert (len(params.encoder_layers), len(params.decoder_layers)) == (2, 3)
    source, target = (T(normal(3, n, 16)).to(dtype) for n in (7, 5))
    padding = np.arange(7) < np.array([7, 4, 1])[:, None]
    want = run(
        module,
        source,
        target,
        tgt_mask=~torch.tril(torch.ones(5, 5, dtype=bool)),
        src_key_padding_mask=T(~padding),
        memory_key_padding_mask=T(~padding),
    )
    visible = padding[:, None, None, :]
    got = ag.transformer(source.numpy(), target.numpy(), params, source_mask=visible, memory_mask=visible, **style)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, **tol)


def test_transformer_is_its_two_halves_and_returns_every_weight():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = spread_out(torch.nn.Transformer(16, 4, 2, 3, 40, batch_first=True))
    params = ag.TransformerParams.from_torch_state_dict(arrays(module), 4)
    source, target = normal(7, 16), normal(5, 16)
    memory, encoder_weights = ag.transformer_encoder(source, params, return_weights=True)
    out, own, cross = ag.transformer_decoder(target, memory, params, return_weights=True)
    np.testing.assert_array_equal(ag.transformer(source, target, params), out)
    assert [w.shape for w in encoder_weights] == [(4, 7, 7)] * 2
    assert [w.shape for w in own] == [(4, 5, 5)] * 3
    assert [w.shape for w in cross] == [(4, 5, 7)] * 3


@pytest.mark.parametrize("final_norm", [False, True])
def test_an_encoder_alone(final_norm):
    layer = torch.nn.TransformerEncoderLayer(16, 4, 40, batch_first=True, norm_first=True)
    norm = torch.nn.LayerNorm(16) if final_norm else None
    module = spread_out(torch.nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False))
    state = {f"encoder.{name}": x for name, x in arrays(module).items()}
    params = ag.TransformerParams.from_torch_state_dict(state, 4)
    x = normal(3, 7, 16)
    got = ag.transformer_encoder(x, params, is_causal=True, norm_first=True)
    want = run(module, T(x), mask=~torch.tril(torch.ones(7, 7, dtype=bool)))
    np.testing.assert_allclose(got, want, **F64)


def test_state_dicts_may_hold_tensors():
    module = spread_out(torch.nn.TransformerEncoderLayer(16, 4, 40, batch_first=True))
    x = normal(7, 16)
    tensors = ag.EncoderLayerParams.from_torch_state_dict(module.state_dict(), 4)
    plain = ag.EncoderLayerParams.from_torch_state_dict(arrays(module), 4)
    np.testing.assert_array_equal(ag.encoder_layer(x, tensors), ag.encoder_layer(x, plain))


@settings(deadline=None)
@given(st.permutations(range(5)))
def test_an_encoder_is_permutation_equivariant(order):
    module = spread_out(torch.nn.TransformerEncoderLayer(8, 2, 12, batch_first=True))
    params = ag.EncoderLayerParams.from_torch_state_dict(arrays(module), 2)
    x, order = normal(5, 8), list(order)
    np.testing.assert_allclose(ag.encoder_layer(x[order], params), ag.encoder_layer(x, params)[order], rtol=1e-10)
    if order != sorted(order):
        turned = ag.encoder_layer(x[order], params, rope=ag.apply_rope)
        assert not np.allclose(turned, ag.encoder_layer(x, params, rope=ag.apply_rope)[order])


def test_mask_mod_reaches_the_attention():
    module = spread_out(torch.nn.TransformerEncoderLayer(8, 2, 12, batch_first=True))
    params = ag.EncoderLayerParams.from_torch_state_dict(arrays(module), 2)
    x = normal(5, 8)
    by_mod = ag.encoder_layer(x, params, mask_mod=lambda b, h, q, kv: q >= kv)
    np.testing.assert_array_equal(by_mod, ag.encoder_layer(x, params, is_causal=True))


# ---------------------------------------------------------------------------------------- recurrent layer


def rnn(d_in=5, d_h=6, dtype=torch.float64):
    module = spread_out(torch.nn.RNN(d_in, d_h, batch_first=True), dtype)
    a = arrays(module)
    return module, a["weight_ih_l0"].T, a["weight_hh_l0"].T, a["bias_ih_l0"] + a["bias_hh_l0"]


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, F64), (torch.float32, F32)])
def test_recurrent_layer_is_torchs(dtype, tol):
    module, w_x, w_h, b = rnn(dtype=dtype)
    x, h_0 = T(normal(3, 9, 5)).to(dtype), T(normal(3, 6)).to(dtype)
    want = run(lambda *t: module(*t)[0], x, h_0[None])
    got = ag.recurrent_layer(x.numpy(), w_x, w_h, b, h_0.numpy())
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, **tol)


def test_recurrent_backward_is_autograds():
    module, w_x, w_h, b = rnn()
    x, h_0, g = T(normal(3, 9, 5), requires_grad=True), T(normal(3, 6), requires_grad=True), normal(3, 9, 6)
    module(x, h_0[None])[0].backward(T(g))
    got = ag.recurrent_layer_backward(g, x.detach().numpy(), w_x, w_h, b, h_0.detach().numpy())
    want = (
        x.grad,
        module.weight_ih_l0.grad.T,
        module.weight_hh_l0.grad.T,
        module.bias_ih_l0.grad,
        h_0.grad,
    )
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("step", [0, 3, 8])
def test_recurrent_jacobian_is_autograds(step):
    module, w_x, w_h, b = rnn()
    x = normal(9, 5)
    want = torch.autograd.functional.jacobian(lambda t: module(t)[0], T(x))[step:, :, step].numpy()
    states = ag.recurrent_layer(x, w_x, w_h, b)
    np.testing.assert_allclose(ag.recurrent_jacobian(states, w_x, w_h, step=step), want, **F64)
    both = np.stack([states, states])
    np.testing.assert_allclose(ag.recurrent_jacobian(both, w_x, w_h, step=step)[1], want, **F64)


def test_recurrent_jacobian_by_finite_differences():
    _, w_x, w_h, b = rnn()
    x, move = normal(9, 5), np.zeros((9, 5))
    move[2] = normal(5, seed=1)
    up, down = (ag.recurrent_layer(x + sign * 1e-6 * move, w_x, w_h, b) for sign in (1, -1))
    got = ag.recurrent_jacobian(ag.recurrent_layer(x, w_x, w_h, b), w_x, w_h, step=2) @ move[2]
    np.testing.assert_allclose(got, (up - down)[2:] / 2e-6, atol=1e-8)


def test_one_long_chain_vanishes_and_attention_does_not():
    """The comparison of chapter 1: how output t answers to token 0."""
    rng = np.random.default_rng(0)
    d, n = 16, 64
    w = rng.standard_normal((3, d, d)) / np.sqrt(d)
    x = rng.standard_normal((n, d))
    states = ag.recurrent_layer(x, w[0], 0.9 * w[1])
    norms = np.linalg.norm(ag.recurrent_jacobian(states, w[0], 0.9 * w[1]), axis=(-2, -1))
    assert norms[-1] < 1e-6 * norms[0]
    q, k, v = (x @ m for m in w)
    grad_out = np.zeros((n, d))
    grad_out[-1] = rng.standard_normal(d)
    grads = ag.scaled_dot_product_attention_backward(grad_out, q, k, v)
    to_tokens = np.linalg.norm(sum(g @ m.T for g, m in zip(grads, w, strict=True)), axis=-1)
    assert to_tokens[0] > 0.01 * np.median(to_tokens)


def test_no_step_no_state():
    _, w_x, w_h, b = rnn()
    assert ag.recurrent_layer(np.zeros((0, 5)), w_x, w_h, b).shape == (0, 6)
    grads = ag.recurrent_layer_backward(np.zeros((0, 6)), np.zeros((0, 5)), w_x, w_h, b)
    assert [g.shape for g in grads] == [(0, 5), (5, 6), (6, 6), (6,), (6,)]


# ------------------------------------------------------------------------------------------- named errors

X = normal(4, 6)
STATE = arrays(spread_out(torch.nn.TransformerEncoderLayer(8, 2, 12)))
DECODER = arrays(spread_out(torch.nn.TransformerDecoderLayer(8, 2, 12)))
ENCODER_PARAMS = ag.EncoderLayerParams.from_torch_state_dict(STATE, 2)
BAD = {
    "norm weight": (ValueError, "weight", lambda: ag.layer_norm(X, np.ones(5))),
    "norm bias": (ValueError, "bias", lambda: ag.layer_norm(X, np.ones(6), np.ones((1, 6)))),
    "norm eps": (ValueError, "eps", lambda: ag.layer_norm(X, eps=0)),
    "norm of a number": (ValueError, "x", lambda: ag.layer_norm(1.0)),
    "norm of nothing": (ValueError, "x", lambda: ag.layer_norm(np.zeros((3, 0)))),
    "norm dtype": (TypeError, "x", lambda: ag.layer_norm(X.astype(complex))),
    "rms weight": (ValueError, "weight", lambda: ag.rms_norm(X, np.ones(5))),
    "rms eps": (ValueError, "eps", lambda: ag.rms_norm(X, eps=-1.0)),
    "gelu": (ValueError, "approximate", lambda: ag.gelu(X, approximate="erf")),
    "gelu dtype": (TypeError, "x", lambda: ag.gelu(["a"])),
    "activation": (ValueError, "activation", lambda: ag.feed_forward(X, np.eye(6), np.eye(6), activation="tanh")),
    "w_1": (ValueError, "w_1", lambda: ag.feed_forward(X, np.eye(5), np.eye(6))),
    "w_2": (ValueError, "w_2", lambda: ag.feed_forward(X, np.eye(6), np.eye(5))),
    "b_1": (ValueError, "b_1", lambda: ag.feed_forward(X, np.eye(6), np.eye(6), np.ones(5))),
    "b_2": (ValueError, "b_2", lambda: ag.feed_forward(X, np.eye(6), np.eye(6), None, np.ones(5))),
    "w_up": (ValueError, "w_up", lambda: ag.swiglu(X, np.eye(6), np.eye(5), np.eye(6))),
    "w_down": (ValueError, "w_down", lambda: ag.swiglu(X, np.eye(6), np.eye(6), np.eye(5))),
    "encoder params": (TypeError, "params is of type dict", lambda: ag.encoder_layer(X, STATE)),
    "decoder params": (TypeError, "DecoderLayerParams", lambda: ag.decoder_layer(X, X, ENCODER_PARAMS)),
    "stack params": (TypeError, "TransformerParams", lambda: ag.transformer(X, X, ENCODER_PARAMS)),
    "encoder width": (ValueError, "query has width 6", lambda: ag.encoder_layer(X, ENCODER_PARAMS)),
    "encoder activation": (
        ValueError,
        "activation",
        lambda: ag.encoder_layer(normal(3, 8), ENCODER_PARAMS, activation="elu"),
    ),
    "rnn w_x": (ValueError, "w_x", lambda: ag.recurrent_layer(X, np.ones((5, 3)), np.eye(3))),
    "rnn w_h": (ValueError, "w_h", lambda: ag.recurrent_layer(X, np.ones((6, 3)), np.eye(2))),
    "rnn b": (ValueError, "b has", lambda: ag.recurrent_layer(X, np.ones((6, 3)), np.eye(3), np.ones(2))),
    "rnn h_0": (ValueError, "h_0", lambda: ag.recurrent_layer(X, np.ones((6, 3)), np.eye(3), None, np.ones(2))),
    "rnn of a vector": (ValueError, "x", lambda: ag.recurrent_layer(X[0], np.ones((6, 3)), np.eye(3))),
    "rnn grad": (
        ValueError,
        "grad_states",
        lambda: ag.recurrent_layer_backward(X, X, np.ones((6, 3)), np.eye(3)),
    ),
    "jacobian step": (ValueError, "step", lambda: ag.recurrent_jacobian(X, np.ones((2, 6)), np.eye(6), step=4)),
    "jacobian w_x": (ValueError, "w_x", lambda: ag.recurrent_jacobian(X, np.ones((2, 5)), np.eye(6))),
    "jacobian w_h": (ValueError, "w_h", lambda: ag.recurrent_jacobian(X, np.ones((2, 6)), np.eye(5))),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_its_named_error(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message) as caught:
        call()
    assert caught.type is error
    assert "wanted" in str(caught.value)


@pytest.mark.parametrize("name", STATE)
def test_a_state_dict_without_a_weight_says_which(name):
    state = {k: v for k, v in STATE.items() if k != name}
    if name.endswith("weight"):
        with pytest.raises(KeyError, match=name.replace("in_proj_weight", "q_proj_weight")):
            ag.EncoderLayerParams.from_torch_state_dict(state, 2)
    else:  # a layer with bias=False has none
        ag.EncoderLayerParams.from_torch_state_dict(state, 2)
    with pytest.raises(KeyError, match="multihead_attn"):
        ag.DecoderLayerParams.from_torch_state_dict(
            {k: v for k, v in DECODER.items() if not k.startswith("multihead_attn")}, 2
        )


def test_every_public_name_is_tested_here():
    text = Path(__file__).read_text(encoding="utf-8")
    functions = [name for name in layers.__all__ if name != "NormParams"]
    assert not [name for name in functions if f"ag.{name}(" not in text and f"ag.{name}." not in text]
