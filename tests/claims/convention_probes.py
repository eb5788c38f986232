"""What each library does where the conventions of attention differ: one small run for each, read off from its output.

``of(question, libraries)`` gives the probes of a question; ``probe()`` runs one and says what it saw in a few words.
The claims of the appendix on conventions run those of the libraries that this project installs. The others were run
once, elsewhere, and what they said is kept in ``docs/conventions.toml``, which this prints::

    pip install jax keras onnxruntime onnx x-transformers local-attention
    KERAS_BACKEND=jax python tests/claims/convention_probes.py jax keras onnxruntime x-transformers local-attention

No probe asks a library what it does; all of them give it numbers that tell the answers apart.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Probe:
    """One library asked one question in one way."""

    question: str
    package: str  # as it is installed: "torch", "x-transformers"
    call: str  # as a user writes it
    run: Callable[[], str]

    @property
    def name(self) -> str:
        return f"{self.package}: {self.call}"

    def __call__(self) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.run()


PROBES: list[Probe] = []


def probe(question: str, package: str, call: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    def add(run: Callable[[], str]) -> Callable[[], str]:
        PROBES.append(Probe(question, package, call, run))
        return run

    return add


def of(question: str, libraries: Iterable[str]) -> list[Probe]:
    """The probes of a question, in the order of this file."""
    wanted = set(libraries)
    return [p for p in PROBES if p.question == question and p.package in wanted]


# ---------------------------------------------------------------------------------------------------------------------
# Every library as one function: attend(q (h, n, d), k (h_kv, m, d), v (h_kv, m, d_v), **options) -> (h, n, d_v)


def here(q, k, v, mask=None, **options):
    import attn_guide as ag

    return ag.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True, **options)


def sdpa(q, k, v, mask=None, **options):
    import torch

    tensors = [torch.from_numpy(np.ascontiguousarray(x))[None] for x in (q, k, v)]
    mask = torch.from_numpy(mask) if isinstance(mask, np.ndarray) else mask
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(*tensors, attn_mask=mask, enable_gqa=True, **options)[0].numpy()


def mha(q, k, v, **options):
    """``torch.nn.MultiheadAttention`` whose projections do nothing; the heads must be one."""
    import torch

    width = q.shape[-1]
    module = torch.nn.MultiheadAttention(width, 1, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.eye(width, dtype=torch.float64).repeat(3, 1))
        module.out_proj.weight.copy_(torch.eye(width, dtype=torch.float64))
        tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in (q, k, v)]
        options = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
        return module.eval()(*tensors, **options)[0].numpy()


def _onnx_model(feeds, options, opset=None, outputs=("y",)):
    from onnx import TensorProto, defs, helper

    opset = opset or min(25, defs.onnx_opset_version())  # 25 brought windows
    node = helper.make_node("Attention", [n if n in feeds else "" for n in ("q", "k", "v", "mask", "pk", "pv")],
                            list(outputs), **options)  # fmt: skip
    kinds = {"float32": TensorProto.FLOAT, "bool": TensorProto.BOOL}
    given = [helper.make_tensor_value_info(n, kinds[str(x.dtype)], x.shape) for n, x in feeds.items()]
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs if n]
    graph = helper.make_graph([node], "g", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _onnx_feeds(q, k, v, mask, past=0):
    feeds = {n: np.ascontiguousarray(x, dtype=np.float32)[None] for n, x in zip("qkv", (q, k, v), strict=True)}
    if past:
        feeds |= {"pk": feeds["k"][..., :past, :], "pv": feeds["v"][..., :past, :]}
        feeds |= {"k": feeds["k"][..., past:, :], "v": feeds["v"][..., past:, :]}
    if mask is not None:
        feeds["mask"] = mask if mask.dtype == bool else mask.astype(np.float32)
    return feeds


def onnx_reference(q, k, v, mask=None, past=0, opset=None, **options):
    from onnx.reference import ReferenceEvaluator

    feeds = _onnx_feeds(q, k, v, mask, past)
    outputs = ("y", "present_key", "present_value") if past else ("y",)
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(_onnx_model(feeds, options, opset, outputs)).run(None, feeds)[0][0]


def onnx_runtime(q, k, v, mask=None, past=0, opset=24, **options):
    import onnxruntime

    feeds = _onnx_feeds(q, k, v, mask, past)
    outputs = ("y", "present_key", "present_value") if past else ("y",)
    model = _onnx_model(feeds, options, opset, outputs).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0][0]


def flex(q, k, v, mask_mod, width=16):
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = (np.pad(x, ((0, 0), (0, 0), (0, width - x.shape[-1]))) for x in (q, k, v))
    block_mask = create_block_mask(mask_mod, None, None, q.shape[1], k.shape[1], device="cpu")
    tensors = [torch.from_numpy(x)[None] for x in (q, k, v)]
    return flex_attention(*tensors, block_mask=block_mask, scale=1.0)[0].numpy()


def gemma2(q, k, v, mask=None, softcap=None, scaling=None):
    """The eager attention of Gemma 2 in transformers; a mask is added to the scores."""
    import torch
    from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

    module = torch.nn.Module()
    module.num_key_value_groups, module.head_dim = q.shape[0] // k.shape[0], q.shape[-1]
    q, k, v = (torch.from_numpy(np.ascontiguousarray(x)).float()[None] for x in (q, k, v))
    mask = None if mask is None else torch.from_numpy(mask).float()[None, None]
    out, weights = eager_attention_forward(module.eval(), q, k, v, mask, scaling=scaling, softcap=softcap)
    gemma2.weights = tuple(weights.shape)
    return out[0].transpose(0, 1).numpy()


def jax_attention(q, k, v, **options):
    import jax.numpy as jnp
    from jax.nn import dot_product_attention

    arrays = [jnp.asarray(np.moveaxis(x, 0, 1)[None], jnp.float32) for x in (q, k, v)]  # (B, T, N, H)
    if options.get("mask") is not None:
        options["mask"] = jnp.asarray(options["mask"])[None, None]
    return np.moveaxis(np.asarray(dot_product_attention(*arrays, **options))[0], 0, 1)


def keras_attention(q, k, v, **options):
    """``keras.layers.Attention``, which has no heads and no projections."""
    import keras

    call = {n: options.pop(n) for n in ("mask", "use_causal_mask") if n in options}
    arrays = [x.astype("float32") for x in (q, v, k)]
    return np.asarray(keras.layers.Attention(**options)(arrays, **call))


def keras_mha(q, k, v, **options):
    """``keras.layers.MultiHeadAttention`` of one head whose projections do nothing."""
    import keras

    width = q.shape[-1]
    layer = keras.layers.MultiHeadAttention(1, width, use_bias=False)
    q, k, v = (x.astype("float32") for x in (q, k, v))
    layer(q, v, k)
    eye = np.eye(width, dtype="float32")
    layer.set_weights([eye.reshape(w.shape) for w in layer.get_weights()])
    return layer(q, v, k, **options)


def x_attend(q, k, v, mask=None, **options):
    import torch
    from x_transformers.attend import Attend

    tensors = [torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))[None] for x in (q, k, v)]
    mask = None if mask is None else torch.from_numpy(mask)[None, None]
    bias = options.pop("attn_bias", None)
    bias = None if bias is None else torch.from_numpy(bias.astype(np.float32))[None]
    return Attend(**options)(*tensors, mask=mask, attn_bias=bias)[0][0].detach().numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Which keys does True allow? Two keys with the values 1 and 2, and the mask [True, False].


def _polarity(attend: Callable[..., Any]) -> str:
    q, k = np.zeros((1, 1, 2)), np.zeros((1, 2, 2))
    v = np.array([[[1.0, 1.0], [2.0, 2.0]]])
    out = float(np.asarray(attend(q, k, v, np.array([[True, False]])))[0, 0, 0])
    return {1.0: "True lets see", 2.0: "True hides"}[out]


probe("polarity", "attn-guide", "scaled_dot_product_attention(attn_mask=)")(lambda: _polarity(here))
probe("polarity", "torch", "scaled_dot_product_attention(attn_mask=)")(lambda: _polarity(sdpa))
probe("polarity", "torch", "nn.MultiheadAttention(attn_mask=)")(
    lambda: _polarity(lambda q, k, v, mask: mha(q, k, v, attn_mask=mask))
)
probe("polarity", "torch", "nn.MultiheadAttention(key_padding_mask=)")(
    lambda: _polarity(lambda q, k, v, mask: mha(q, k, v, key_padding_mask=mask))
)
probe("polarity", "torch", "flex_attention, mask_mod")(
    lambda: _polarity(lambda q, k, v, mask: flex(q, k, v, lambda b, h, i, j: j == 0))
)
probe("polarity", "onnx", "Attention, attn_mask")(lambda: _polarity(onnx_reference))


@probe("polarity", "transformers", "BertModel(attention_mask=[1, 0])")
def _() -> str:
    """1 lets see if a change of the second token cannot be felt by the first."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=8, **sizes), add_pooling_layer=False).eval()
    mask = torch.tensor([[1, 0]])
    with torch.no_grad():
        a, b = (model(torch.tensor([[1, x]]), attention_mask=mask).last_hidden_state[0, 0] for x in (2, 3))
        c = model(torch.tensor([[2, 1]]), attention_mask=mask).last_hidden_state[0, 1]
        d = model(torch.tensor([[3, 1]]), attention_mask=mask).last_hidden_state[0, 1]
    return "1 lets see" if torch.equal(a, b) and not torch.equal(c, d) else "0 lets see"


probe("polarity", "jax", "nn.dot_product_attention(mask=)")(
    lambda: _polarity(lambda q, k, v, mask: jax_attention(q, k, v, mask=mask))
)
probe("polarity", "keras", "MultiHeadAttention(attention_mask=)")(
    lambda: _polarity(lambda q, k, v, mask: keras_mha(q, k, v, attention_mask=mask[None]))
)
probe("polarity", "keras", "Attention(mask=[None, value_mask])")(
    lambda: _polarity(lambda q, k, v, mask: keras_attention(q, k, v, mask=[None, mask]))
)
probe("polarity", "onnxruntime", "Attention, attn_mask")(lambda: _polarity(onnx_runtime))
probe("polarity", "x-transformers", "Attend(mask=)")(lambda: _polarity(x_attend))


# ---------------------------------------------------------------------------------------------------------------------
# Which keys does a causal mask allow where there are more keys than queries, or fewer?


def visible(attend: Callable[..., Any], n: int, m: int) -> list[str]:
    """Each row of the mask as a word: x for a key whose value arrives, a dot for one that does not."""
    q, k = np.zeros((1, n, m)), np.zeros((1, m, m))
    return ["".join("x" if w > 1e-6 else "." for w in row) for row in np.asarray(attend(q, k, np.eye(m)[None]))[0]]


ALIGNMENTS = {
    (("x....", "xx...", "xxx.."), ("x..", "xx.", "xxx", "xxx", "xxx")): "top-left",
    (("xxx..", "xxxx.", "xxxxx"), ("...", "...", "x..", "xx.", "xxx")): "bottom-right",
    (("xxx..", "xxxx.", "xxxxx"), ("xxx", "xxx", "x..", "xx.", "xxx")): (
        "bottom-right, and queries before the first key see everything"
    ),
}


def _alignment(attend: Callable[..., Any], wide_only: bool = False) -> str:
    wide = tuple(visible(attend, 3, 5))
    if wide_only:
        return {w: name for (w, _), name in ALIGNMENTS.items() if "," not in name}.get(wide, " ".join(wide))
    tall = tuple(visible(attend, 5, 3))
    return ALIGNMENTS.get((wide, tall), f"{' '.join(wide)} and {' '.join(tall)}")


probe("alignment", "attn-guide", "is_causal=True")(lambda: _alignment(lambda q, k, v: here(q, k, v, is_causal=True)))


@probe("alignment", "attn-guide", "mask_mod=causal_lower_right(n, m)")
def _() -> str:
    import attn_guide as ag

    def attend(q, k, v):
        return here(q, k, v, mask_mod=ag.causal_lower_right(q.shape[-2], k.shape[-2]))

    return _alignment(attend)


@probe("alignment", "attn-guide", "KVCache.attend")
def _() -> str:
    import attn_guide as ag

    def attend(q, k, v):
        cache = ag.KVCache()
        past = k.shape[-2] - q.shape[-2]
        cache.append(k[:, :past], v[:, :past])
        return cache.attend(q, k[:, past:], v[:, past:])

    return _alignment(attend, wide_only=True)


probe("alignment", "torch", "is_causal=True")(lambda: _alignment(lambda q, k, v: sdpa(q, k, v, is_causal=True)))


@probe("alignment", "torch", "attn_mask=causal_lower_right(n, m)")
def _() -> str:
    from torch.nn.attention.bias import causal_lower_right

    return _alignment(lambda q, k, v: sdpa(q, k, v, causal_lower_right(q.shape[-2], k.shape[-2])))


probe("alignment", "onnx", "Attention, is_causal=1")(
    lambda: _alignment(lambda q, k, v: onnx_reference(q, k, v, is_causal=1))
)
probe("alignment", "onnx", "Attention, is_causal=1, past keys")(
    lambda: _alignment(lambda q, k, v: onnx_reference(q, k, v, past=2, is_causal=1), wide_only=True)
)


@probe("alignment", "transformers", "sdpa_attention_forward, no mask")
def _() -> str:
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(q, k, v):
        module = torch.nn.Module()
        module.is_causal = True
        tensors = [torch.from_numpy(x)[None] for x in (q, k, v)]
        return sdpa_attention_forward(module, *tensors, attention_mask=None)[0][0].transpose(0, 1).numpy()

    return _alignment(attend)


probe("alignment", "jax", "nn.dot_product_attention(is_causal=True)")(
    lambda: _alignment(lambda q, k, v: jax_attention(q, k, v, is_causal=True))
)
probe("alignment", "keras", "Attention, use_causal_mask=True")(
    lambda: _alignment(lambda q, k, v: keras_attention(q, k, v, use_causal_mask=True))
)
probe("alignment", "onnxruntime", "Attention, is_causal=1")(
    lambda: _alignment(lambda q, k, v: onnx_runtime(q, k, v, is_causal=1))
)
probe("alignment", "x-transformers", "Attend(causal=True)")(
    lambda: _alignment(lambda q, k, v: x_attend(q, k, v, causal=True))
)


# ---------------------------------------------------------------------------------------------------------------------
# A query that may see no key: scores 0, 1, 2, 3 and values 1, 2, 3, 4; its mean is 2.5.


def _empty_row(attend: Callable[..., Any]) -> str:
    q, k = np.ones((1, 2, 1)), np.arange(4.0).reshape(1, 4, 1)
    v = k + 1.0
    mask = np.array([[True] * 4, [False] * 4])
    try:
        out = float(np.asarray(attend(q, k, v, mask))[0, 1, 0])
    except Exception as error:
        return f"{type(error).__name__}"
    if np.isnan(out):
        return "NaN"
    return {0.0: "0", 2.5: "the mean of all values"}.get(round(out, 5), f"{out:.4g}")


def minus_infinity(mask):
    return np.where(mask, 0.0, -np.inf)


def hand_written(fill):
    """What many write themselves in PyTorch."""

    def attend(q, k, v, mask):
        import torch

        scores = torch.from_numpy(q @ k.swapaxes(-1, -2)).masked_fill(~torch.from_numpy(mask), fill)
        return (torch.softmax(scores, dim=-1) @ torch.from_numpy(v)).numpy()

    return attend


probe("empty row", "attn-guide", "attn_mask of booleans")(lambda: _empty_row(here))
probe("empty row", "attn-guide", "attn_mask of floats")(
    lambda: _empty_row(lambda q, k, v, mask: here(q, k, v, minus_infinity(mask)))
)
probe("empty row", "torch", "scaled_dot_product_attention, booleans")(lambda: _empty_row(sdpa))
probe("empty row", "torch", "scaled_dot_product_attention, floats")(
    lambda: _empty_row(lambda q, k, v, mask: sdpa(q, k, v, minus_infinity(mask)))
)
probe("empty row", "torch", "flex_attention")(
    lambda: _empty_row(lambda q, k, v, mask: flex(q, k, v, lambda b, h, i, j: i == 0))
)
probe("empty row", "torch", "nn.MultiheadAttention, need_weights=True")(
    lambda: _empty_row(lambda q, k, v, mask: mha(q, k, v, attn_mask=~mask))
)
probe("empty row", "torch", "nn.MultiheadAttention, need_weights=False")(
    lambda: _empty_row(lambda q, k, v, mask: mha(q, k, v, attn_mask=~mask, need_weights=False))
)


def _encoder_layer(training: bool, floats: bool, gradients: bool = False) -> str:
    """The output of a layer for the position that sees nothing, NaN or not."""
    import torch

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(training)
    mask = torch.zeros(3, 3, dtype=torch.bool)
    mask[1] = True  # in this class, True hides
    given = torch.zeros(3, 3).masked_fill(mask, -torch.inf) if floats else mask
    with torch.set_grad_enabled(gradients):
        return "NaN" if layer(torch.randn(1, 3, 8), src_mask=given)[0, 1].isnan().any() else "finite"


probe("encoder layer", "torch", "train(), booleans")(lambda: _encoder_layer(True, False))
probe("encoder layer", "torch", "train(), floats")(lambda: _encoder_layer(True, True))
probe("encoder layer", "torch", "eval(), booleans")(lambda: _encoder_layer(False, False))
probe("encoder layer", "torch", "eval(), floats")(lambda: _encoder_layer(False, True))
probe("encoder layer", "torch", "eval(), booleans, gradients wanted")(lambda: _encoder_layer(False, False, True))

probe("empty row", "torch", "written by hand, masked_fill(-inf)")(lambda: _empty_row(hand_written(-np.inf)))
probe("empty row", "torch", "written by hand, masked_fill(-1e9)")(lambda: _empty_row(hand_written(-1e9)))
probe("empty row", "onnx", "Attention, booleans")(lambda: _empty_row(onnx_reference))


@probe("empty row", "transformers", "eager attention of Gemma 2")
def _() -> str:
    """transformers makes its masks with the lowest finite number."""
    lowest = np.finfo(np.float32).min
    return _empty_row(lambda q, k, v, mask: gemma2(q, k, v, np.where(mask, 0.0, lowest), scaling=1.0))


@probe("empty row", "entmax", "sparsemax of scores that are all -inf")
def _() -> str:
    import torch
    from entmax import sparsemax

    def attend(q, k, v, mask):
        scores = torch.from_numpy(q @ k.swapaxes(-1, -2) + minus_infinity(mask))
        return sparsemax(scores, dim=-1).numpy() @ v

    return _empty_row(attend)


probe("empty row", "jax", "nn.dot_product_attention(mask=)")(
    lambda: _empty_row(lambda q, k, v, mask: jax_attention(q, k, v, mask=mask))
)
probe("empty row", "keras", "MultiHeadAttention(attention_mask=)")(
    lambda: _empty_row(lambda q, k, v, mask: keras_mha(q, k, v, attention_mask=mask[None]))
)
probe("empty row", "keras", "MultiHeadAttention, return_attention_scores=True")(
    lambda: _empty_row(
        lambda q, k, v, mask: keras_mha(q, k, v, attention_mask=mask[None], return_attention_scores=True)[0]
    )
)
probe("empty row", "onnxruntime", "Attention, booleans")(lambda: _empty_row(onnx_runtime))
probe("empty row", "x-transformers", "Attend(mask=)")(lambda: _empty_row(x_attend))


# ---------------------------------------------------------------------------------------------------------------------
# A soft cap of 2 and a bias: which comes first? Scores 3 and 0, bias 0 and 4.


def _soft_cap(attend: Callable[..., Any]) -> str:
    s, b, cap = np.array([3.0, 0.0]), np.array([0.0, 4.0]), 2.0
    out = float(
        np.asarray(attend(np.ones((1, 1, 1)), s.reshape(1, 2, 1), np.array([[[1.0], [0.0]]]), b[None]))[0, 0, 0]
    )

    def weight(x):
        return 1.0 / (1.0 + np.exp(x[1] - x[0]))

    orders = {"cap, then bias": cap * np.tanh(s / cap) + b, "bias, then cap": cap * np.tanh((s + b) / cap)}
    return next((name for name, x in orders.items() if abs(out - weight(x)) < 1e-5), f"neither: {out:.4g}")


probe("soft cap", "attn-guide", "softcap=")(lambda: _soft_cap(lambda q, k, v, b: here(q, k, v, b, softcap=2.0)))
probe("soft cap", "onnx", "Attention, softcap")(
    lambda: _soft_cap(lambda q, k, v, b: onnx_reference(q, k, v, b, softcap=2.0))
)
probe("soft cap", "transformers", "eager attention of Gemma 2, softcap=")(
    lambda: _soft_cap(lambda q, k, v, b: gemma2(q, k, v, b, softcap=2.0, scaling=1.0))
)
probe("soft cap", "onnxruntime", "Attention, softcap")(
    lambda: _soft_cap(lambda q, k, v, b: onnx_runtime(q, k, v, b, softcap=2.0))
)
probe("soft cap", "x-transformers", "Attend(softclamp_logits=True)")(
    lambda: _soft_cap(
        lambda q, k, v, b: x_attend(q, k, v, attn_bias=b, softclamp_logits=True, logit_softclamp_value=2.0)
    )
)


# ---------------------------------------------------------------------------------------------------------------------
# The default scale: width 4, and dot products 4 and 0; the ratio of the weights says what they were multiplied by.


def _scale(attend: Callable[..., Any]) -> str:
    q, k = np.ones((1, 1, 4)), np.stack([np.ones(4), np.zeros(4)])[None]
    v = np.stack([np.ones(4), np.zeros(4)])[None]
    weight = float(np.asarray(attend(q, k, v))[0, 0, 0])
    found = float(np.log(weight / (1.0 - weight)) / 4.0)
    return {0.5: "one over the root of the width", 1.0: "one"}.get(round(found, 4), f"{found:.4g}")


probe("scale", "attn-guide", "scaled_dot_product_attention")(lambda: _scale(here))


@probe("scale", "attn-guide", "softmax(dot_score(...))")
def _() -> str:
    import attn_guide as ag

    return _scale(lambda q, k, v: ag.softmax(ag.dot_score(q, k)) @ v)


probe("scale", "torch", "scaled_dot_product_attention")(lambda: _scale(sdpa))
probe("scale", "onnx", "Attention")(lambda: _scale(onnx_reference))


@probe("scale", "transformers", "T5Attention")
def _() -> str:
    import torch
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    config = T5Config(d_model=4, d_kv=4, num_heads=1, dropout_rate=0.0)
    module = T5Attention(config, has_relative_attention_bias=False).eval()
    with torch.no_grad():
        for layer in (module.q, module.k, module.v, module.o):
            layer.weight.copy_(torch.eye(4))

    def attend(q, k, v):
        keys = torch.from_numpy(k).float()
        with torch.no_grad():
            return module(torch.from_numpy(q).float(), key_value_states=keys)[0].numpy()

    return _scale(attend)


probe("scale", "jax", "nn.dot_product_attention")(lambda: _scale(jax_attention))
probe("scale", "keras", "MultiHeadAttention")(lambda: _scale(keras_mha))
probe("scale", "keras", "Attention")(lambda: _scale(keras_attention))
probe("scale", "onnxruntime", "Attention")(lambda: _scale(onnx_runtime))
probe("scale", "x-transformers", "Attend")(lambda: _scale(x_attend))


# ---------------------------------------------------------------------------------------------------------------------
# Dropout with probability 1/2 on equal weights of 1000 keys: what arrives, what is returned, and who turns it off.

KEYS = 1000


def _dropped(weights: Any) -> str:
    """What a row of weights that were 1/1000 each has become."""
    kinds = sorted(set(np.round(np.asarray(weights, dtype=float).ravel() * KEYS, 3)))
    names = {(0.0, 2.0): "zero or doubled", (1.0,): "untouched", (0.0,): "zero"}
    return names.get(tuple(kinds), str(kinds))


probe("dropout", "attn-guide", "dropout_p=, rng=: weights returned")(
    lambda: _dropped(here(np.zeros((1, 1, 2)), np.zeros((1, KEYS, 2)), np.ones((1, KEYS, 2)), dropout_p=0.5,
                          rng=np.random.default_rng(0), return_weights=True)[1])
)  # fmt: skip


def _torch_dropout(kind: str) -> str:
    import torch

    torch.manual_seed(0)
    if kind == "function":  # in a module that is in eval mode, as it would stand in a forward
        out = sdpa(np.zeros((1, 1, KEYS)), np.zeros((1, KEYS, KEYS)), np.eye(KEYS)[None], dropout_p=0.5)
        return _dropped(out)
    module = torch.nn.MultiheadAttention(2, 1, dropout=0.5, batch_first=True).train(kind == "train")
    with torch.no_grad():
        module.in_proj_weight.zero_()
        return _dropped(module(torch.zeros(1, 1, 2), *[torch.zeros(1, KEYS, 2)] * 2)[1].numpy())


probe("dropout", "torch", "scaled_dot_product_attention, model in eval()")(lambda: _torch_dropout("function"))
probe("dropout", "torch", "nn.MultiheadAttention, train(): weights returned")(lambda: _torch_dropout("train"))
probe("dropout", "torch", "nn.MultiheadAttention, eval(): weights returned")(lambda: _torch_dropout("eval"))


@probe("dropout", "keras", "MultiHeadAttention, training=True: weights returned")
def _() -> str:
    import keras

    layer = keras.layers.MultiHeadAttention(1, 2, dropout=0.5, use_bias=False)
    q, k = np.zeros((1, 1, 2), "float32"), np.zeros((1, KEYS, 2), "float32")
    return _dropped(layer(q, k, return_attention_scores=True, training=True)[1])


# ---------------------------------------------------------------------------------------------------------------------
# Four query heads and two key/value heads: which one does each query head read?


def _groups(attend: Callable[..., Any]) -> str:
    q, k = np.zeros((4, 1, 2)), np.zeros((2, 3, 2))
    v = np.broadcast_to(np.arange(2.0)[:, None, None], (2, 3, 2))
    return ", ".join(f"{x:.0f}" for x in np.asarray(attend(q, k, v))[:, 0, 0])


probe("groups", "attn-guide", "enable_gqa=True")(lambda: _groups(here))
probe("groups", "torch", "enable_gqa=True")(lambda: _groups(sdpa))
probe("groups", "onnx", "Attention, 4 and 2 heads")(lambda: _groups(onnx_reference))
probe("groups", "transformers", "eager attention of Gemma 2")(
    lambda: _groups(lambda q, k, v: gemma2(q, k, v, scaling=1.0))
)
probe("groups", "jax", "nn.dot_product_attention")(lambda: _groups(jax_attention))
probe("groups", "onnxruntime", "Attention, 4 and 2 heads")(lambda: _groups(onnx_runtime))
probe("groups", "x-transformers", "Attend")(lambda: _groups(x_attend))


# ---------------------------------------------------------------------------------------------------------------------
# A window of 3: how many keys does a query in the middle of the sequence see, itself included?


def _window(attend: Callable[..., Any], n: int = 16, row: int = 9) -> str:
    seen = visible(attend, n, n)[row]
    first, last = seen.index("x"), seen.rindex("x")
    return f"{seen.count('x')}: {row - first} before, itself, {last - row} after"


@probe("window", "attn-guide", "sliding_window(3, 0)")
def _() -> str:
    import attn_guide as ag

    return _window(lambda q, k, v: here(q, k, v, mask_mod=ag.sliding_window(3, 0)))


@probe("window", "attn-guide", "longformer(4)")
def _() -> str:
    import attn_guide as ag

    return _window(lambda q, k, v: here(q, k, v, mask_mod=ag.longformer(4)))


probe("window", "onnx", "Attention, left_window_size=3, is_causal=1")(
    lambda: _window(lambda q, k, v: onnx_reference(q, k, v, is_causal=1, left_window_size=3))
)


@probe("window", "transformers", "Mistral, sliding_window=3")
def _() -> str:
    import torch
    from transformers import MistralConfig
    from transformers.masking_utils import create_sliding_window_causal_mask

    config = MistralConfig(sliding_window=3, attn_implementation="sdpa")

    def attend(q, k, v):
        n = q.shape[1]
        mask = create_sliding_window_causal_mask(
            config, torch.zeros(1, n, 4), attention_mask=None, past_key_values=None,
            position_ids=torch.arange(n)[None],
        )  # fmt: skip
        return sdpa(q, k, v, mask)

    return _window(attend)


@probe("window", "transformers", "Longformer, attention_window=4")
def _() -> str:
    import torch
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    def attend(q, k, v):
        n = q.shape[1]
        config = LongformerConfig(hidden_size=n, num_attention_heads=1, attention_window=[4], num_hidden_layers=1)
        module = LongformerSelfAttention(config, 0).eval()
        with torch.no_grad():
            for layer in (module.query, module.key, module.value):
                layer.weight.zero_(), layer.bias.zero_()
            module.value.weight.copy_(torch.eye(n))
            mask, nowhere = torch.zeros(1, n), torch.zeros(1, n, dtype=torch.bool)
            return module(
                torch.eye(n)[None], attention_mask=mask, is_index_masked=nowhere, is_index_global_attn=nowhere,
                is_global_attn=False,
            )[0].numpy()  # fmt: skip

    return _window(attend)


probe("window", "jax", "nn.dot_product_attention(local_window_size=3)")(
    lambda: _window(lambda q, k, v: jax_attention(q, k, v, local_window_size=3))
)
probe("window", "jax", "nn.dot_product_attention(local_window_size=(3, 0))")(
    lambda: _window(lambda q, k, v: jax_attention(q, k, v, local_window_size=(3, 0)))
)


def _local_attention(row: int) -> str:
    import torch
    from local_attention import LocalAttention

    def attend(q, k, v):
        layer = LocalAttention(window_size=3, causal=True, autopad=True, use_rotary_pos_emb=False)
        return layer(*(torch.from_numpy(x).float() for x in (q, k, v))).numpy()

    return _window(attend, 18, row)


probe("window", "local-attention", "LocalAttention(window_size=3), query 9")(lambda: _local_attention(9))
probe("window", "local-attention", "LocalAttention(window_size=3), query 11")(lambda: _local_attention(11))


# ---------------------------------------------------------------------------------------------------------------------
# Two sequences, four heads, three queries, five keys: the shape of the weights that are returned.

B, H, N, M = 2, 4, 3, 5


@probe("weights", "attn-guide", "return_weights=True")
def _() -> str:
    import attn_guide as ag

    q, k = np.zeros((B, H, N, 2)), np.zeros((B, H, M, 2))
    return str(ag.scaled_dot_product_attention(q, k, k, return_weights=True)[1].shape)


def _torch_weights(**options: Any) -> str:
    import torch

    module = torch.nn.MultiheadAttention(8, H, batch_first=True)
    with torch.no_grad():
        weights = module(torch.zeros(B, N, 8), *[torch.zeros(B, M, 8)] * 2, **options)[1]
    return "none" if weights is None else str(tuple(weights.shape))


probe("weights", "torch", "nn.MultiheadAttention")(lambda: _torch_weights())
probe("weights", "torch", "nn.MultiheadAttention, average_attn_weights=False")(
    lambda: _torch_weights(average_attn_weights=False)
)


def _onnx_output(mode: int) -> str:
    """The fourth output of ONNX's Attention; equal keys have equal scores, and their weights are 1/5."""
    from onnx.reference import ReferenceEvaluator

    feeds = {"q": np.ones((B, H, N, 1), np.float32)}
    feeds["k"] = feeds["v"] = np.ones((B, H, M, 1), np.float32)
    model = _onnx_model(feeds, {"qk_matmul_output_mode": mode}, outputs=("y", "", "", "qk"))
    qk = ReferenceEvaluator(model).run(None, feeds)[-1]
    return f"{qk.shape}, {'the weights' if np.allclose(qk, 1 / M) else 'the scores, not the weights'}"


probe("weights", "onnx", "Attention, fourth output")(lambda: _onnx_output(0))
probe("weights", "onnx", "Attention, fourth output, qk_matmul_output_mode=3")(lambda: _onnx_output(3))


@probe("weights", "transformers", "eager attention of Gemma 2")
def _() -> str:
    gemma2(np.zeros((H, N, 2)), np.zeros((H, M, 2)), np.zeros((H, M, 2)), scaling=1.0)
    return str((B, *gemma2.weights[1:]))  # one sequence was given; the first dimension is their number


@probe("weights", "keras", "MultiHeadAttention, return_attention_scores=True")
def _() -> str:
    import keras

    layer = keras.layers.MultiHeadAttention(H, 2)
    q, k = np.zeros((B, N, 8), "float32"), np.zeros((B, M, 8), "float32")
    return str(tuple(layer(q, k, return_attention_scores=True)[1].shape))


# ---------------------------------------------------------------------------------------------------------------------
# "concat" and "additive": which of these formulas gives the scores?

D, HIDDEN = 3, 4


def _additive(score: Callable[..., Any], weights: dict[str, np.ndarray]) -> str:
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, D)), rng.standard_normal((5, D))
    pair = q[:, None] + k[None]
    formulas = {"Σ v · tanh(q + k), no matrix": lambda: (weights["v"] * np.tanh(pair)).sum(-1)}
    if "w" in weights:
        projected = (q @ weights["w"][:D])[:, None] + (k @ weights["w"][D:])[None]
        formulas = {"v · tanh(W q + U k)": lambda: np.tanh(projected) @ weights["v"]}
    if weights["v"].ndim == 0:
        formulas = {"one number times Σ tanh(q + k), no matrix": lambda: weights["v"] * np.tanh(pair).sum(-1)}
    found = np.asarray(score(q, k))
    return next((name for name, formula in formulas.items() if np.allclose(found, formula(), atol=1e-5)), "another")


def _ours(name: str) -> str:
    import attn_guide as ag

    rng = np.random.default_rng(1)
    w, v = rng.standard_normal((2 * D, HIDDEN)), rng.standard_normal(HIDDEN)
    given = (w,) if name == "concat_score" else (w[:D], w[D:])
    return _additive(lambda q, k: getattr(ag, name)(q, k, *given, v), {"w": w, "v": v})


probe("additive", "attn-guide", "additive_score")(lambda: _ours("additive_score"))
probe("additive", "attn-guide", "concat_score")(lambda: _ours("concat_score"))


def _keras_additive(make: Callable[[Any], Any]) -> str:
    import keras

    layer = make(keras.layers)
    inputs = [np.zeros((1, n, D), "float32") for n in (2, 5, 5)]
    layer(inputs)
    (v,) = layer.get_weights()
    v = np.float32(0.7) if v.ndim == 0 else np.arange(1.0, D + 1, dtype="float32")
    layer.set_weights([v])
    scores = layer._calculate_scores
    return _additive(
        lambda q, k: np.asarray(scores(q[None].astype("float32"), k[None].astype("float32")))[0],
        {"v": np.asarray(v)},
    )


probe("additive", "keras", "AdditiveAttention")(lambda: _keras_additive(lambda layers: layers.AdditiveAttention()))
probe("additive", "keras", 'Attention(score_mode="concat")')(
    lambda: _keras_additive(lambda layers: layers.Attention(score_mode="concat"))
)


# ---------------------------------------------------------------------------------------------------------------------
# The best two of the scores 1, 1, 1, 0: how many keys are kept?


@probe("ties", "attn-guide", "top_k_attention(k=2)")
def _() -> str:
    import attn_guide as ag

    _, weights = ag.top_k_attention([[1.0]], [[1.0], [1.0], [1.0], [0.0]], np.eye(4), k=2, return_weights=True)
    return f"{np.count_nonzero(weights)}"


@probe("ties", "torch", "topk(2)")
def _() -> str:
    import torch

    return f"{torch.tensor([1.0, 1.0, 1.0, 0.0]).topk(2).indices.numel()}"


@probe("ties", "torch", "scores >= topk(2).values.min()")
def _() -> str:
    import torch

    scores = torch.tensor([1.0, 1.0, 1.0, 0.0])
    return f"{int((scores >= scores.topk(2).values.min()).sum())}"


@probe("ties", "x-transformers", "Attend(sparse_topk=2)")
def _() -> str:
    k = np.array([1.0, 1.0, 1.0, 0.0]).reshape(1, 4, 1)
    return f"{np.count_nonzero(x_attend(np.ones((1, 1, 1)), k, np.eye(4)[None], sparse_topk=2) > 1e-6)}"


# ---------------------------------------------------------------------------------------------------------------------
# BigBird: how often is each block of keys counted in the softmax?


def bigbird_counts(n: int, training: bool, block: int = 64, longest: int = 4096) -> np.ndarray:
    """How often each block of queries counts each block of keys: (blocks, blocks).

    All scores are 0 and a value says which block it comes from, so the output is the share of each block.
    """
    import torch
    from transformers import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

    blocks = n // block
    config = BigBirdConfig(
        hidden_size=blocks, num_attention_heads=1, block_size=block, num_random_blocks=3,
        max_position_embeddings=longest,
    )  # fmt: skip
    module = BigBirdBlockSparseAttention(config, seed=0).double().train(training)
    x = torch.eye(blocks, dtype=torch.float64).repeat_interleave(block, dim=0)[None]  # (1, n, blocks)
    seen = torch.ones(1, n, dtype=torch.float64)
    by_block = seen.view(1, blocks, block)
    neighbours = torch.cat([by_block[:, 1:-3], by_block[:, 2:-2], by_block[:, 3:-1]], dim=2)
    with torch.no_grad():
        for layer in (module.query, module.key, module.value):
            layer.weight.zero_(), layer.bias.zero_()
        module.value.weight.copy_(torch.eye(blocks))
        share = module(
            x, band_mask=torch.einsum("blq,blk->blqk", by_block[:, 2:-2], neighbours)[:, None],
            from_mask=seen[:, None, :, None], to_mask=seen[:, None, None, :],
            from_blocked_mask=by_block, to_blocked_mask=by_block,
        )[0][0, ::block].numpy()  # fmt: skip
    least = np.where(share > 1e-9, share, np.inf).min(axis=1, keepdims=True)
    return np.round(share / least).astype(int)


def _bigbird(n: int, training: bool) -> str:
    counts = bigbird_counts(n, training)[1:-1]
    most = int(counts.max())
    where = sorted({int(j) for _, j in np.argwhere(counts > 1)})
    names = {0: "the first", counts.shape[1] - 1: "the last"}
    if most == 1:
        return "every block once"
    return f"{' and '.join(names.get(j, str(j)) for j in where)} block up to {most} times"


for _n in (1024, 2048):
    for _training in (True, False):
        probe("bigbird", "transformers", f"BigBird, {'train()' if _training else 'eval()'}, n = {_n}")(
            lambda n=_n, training=_training: _bigbird(n, training)
        )


# ---------------------------------------------------------------------------------------------------------------------


def record(libraries: list[str]) -> str:
    """Run all probes of some libraries; the answers as the rows of ``docs/conventions.toml``."""
    rows = []
    for p in PROBES:
        if p.package in libraries:
            try:
                answer = p()
            except Exception as error:  # an option that this version does not have
                print(f"{p.name}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            row = {
                "question": p.question, "package": p.package, "version": version(p.package), "call": p.call,
                "answer": answer, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "source": "run",
            }  # fmt: skip
            rows.append("[[row]]\n" + "\n".join(f"{key} = '{value}'" for key, value in row.items()))
    return "\n\n".join(rows)


if __name__ == "__main__":
    print(record(sys.argv[1:]))
