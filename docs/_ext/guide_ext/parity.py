"""Whether the torch path computes what the NumPy reference computes: measured, bounded and laid out as a table.

``:::{parity-table}`` runs every case when the page is read and shows the largest error of each; a case that breaks its
bound is a warning, which fails the build. ``tests/test_torch_parity.py`` runs the same cases.

Errors are against the reference in float64 on the same (rounded) inputs, in units of ``eps * max |exact|`` of the
dtype: rounding the exact result alone costs up to half a unit. ``error`` states the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from sphinx.util import logging
from torch import Tensor

import attn_guide as ag
import attn_guide.torch as at

logger = logging.getLogger(__name__)

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SHAPES = {
    "square": {"n": 24, "m": 24},
    "more keys": {"n": 7, "m": 24},
    "grouped heads": {"n": 24, "m": 24, "h_kv": 2},
    "one key/value head, other value width": {"n": 24, "m": 24, "h_kv": 1, "d_v": 5},
    "three blocks": {"n": 300, "m": 300, "h_kv": 2},
}
SQUARE = tuple(name for name, shape in SHAPES.items() if shape["n"] == shape["m"])
HEADS, WIDTH, BATCH = 4, 16, 2


@dataclass(frozen=True)
class Case:
    """A mechanism with its options: how torch computes it, and how the reference does.

    ``plain`` computes it on tensors as a textbook would, in their own dtype, for the bound; ``shapes`` are names of
    ``SHAPES``. The functions take query, key, value and a dictionary of further inputs.
    """

    mechanism: str
    mask: str
    ours: Callable[..., Tensor]
    reference: Callable[..., np.ndarray]
    plain: Callable[..., Tensor] | None = None
    shapes: tuple[str, ...] = tuple(SHAPES)
    choose: Callable[..., str] = field(default=lambda *x: "", compare=False)


class Error(NamedTuple):
    """The error of one case in one dtype and shape, and what it may be, both in units of ``eps * max |exact|``."""

    shape: str
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.error <= self.bound


def inputs(shape: str, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """Return query (2, 4, n, 16), key and value of one of ``SHAPES``: normal draws from seed 0, rounded."""
    size: dict[str, int] = {"h_kv": HEADS, "d_v": WIDTH, **SHAPES[shape]}
    g = torch.Generator().manual_seed(0)
    sizes = ((HEADS, size["n"], WIDTH), (size["h_kv"], size["m"], WIDTH), (size["h_kv"], size["m"], size["d_v"]))
    return [torch.randn(BATCH, *s, generator=g, dtype=torch.float64).to(dtype).to(device) for s in sizes]


def error(case: Case, shape: str, dtype: torch.dtype, device: str = "cpu") -> Error:
    """Measure one case.

    In half precision, where everything here computes in float32, the bound is one unit, or the error of the plain
    computation where there is one and that is larger. In float32 and float64 it is one unit for each term of the
    longest sum, the length of the sequence: the textbook bound of a sum in any order.
    """
    tensors = inputs(shape, dtype, device)
    exact = case.reference(*(x.double().cpu().numpy() for x in tensors))
    unit = torch.finfo(dtype).eps * np.abs(exact).max()

    def units(result: Tensor) -> float:
        assert result.dtype == dtype
        worst = np.abs(result.double().cpu().numpy() - exact).max() / unit
        return inf if np.isnan(worst) else float(worst)

    terms = float(SHAPES[shape]["m"])
    if dtype in (torch.float64, torch.float32):
        bound = terms
    else:
        bound = 1.0 if case.plain is None else max(1.0, units(case.plain(*tensors)))
    return Error(shape, units(case.ours(*tensors)), bound)


def errors(case: Case, dtype: torch.dtype, device: str = "cpu") -> list[Error]:
    """Measure one case in all of its shapes."""
    return [error(case, shape, dtype, device) for shape in case.shapes]


# ------------------------------------------------------------------------------------------------- the cases


def _plain(mask: Any, is_causal: bool, softcap: float | None) -> Callable[..., Tensor]:
    """Return attention as a textbook has it: every intermediate in the dtype of the inputs."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        s = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if softcap is not None:
            s = softcap * torch.tanh(s / softcap)
        if isinstance(mask, ag.Mask):
            seen = torch.from_numpy(mask.materialize(*s.shape[-2:], b=s.shape[0], h=s.shape[1])).to(s.device)
            s = s.masked_fill(~seen, -inf)
        elif mask is not None:
            s = s.masked_fill(~mask, -inf) if mask.dtype == torch.bool else s + mask.to(s.dtype)
        if is_causal:
            s = s.masked_fill(torch.ones_like(s, dtype=torch.bool).triu(1), -inf)
        return torch.softmax(s, dim=-1).nan_to_num(0.0) @ v

    return attend


def _attention(
    label: str,
    make: Callable[[int, int], Any] = lambda n, m: None,
    *,
    is_causal: bool = False,
    softcap: float | None = None,
    shapes: tuple[str, ...] = tuple(SHAPES),
    **forced: Any,
) -> Case:
    """Return a case of scaled dot-product attention; ``make(n, m)`` gives a Mask or a mask tensor."""

    def options(q: Tensor, k: Tensor) -> dict[str, Any]:
        mask = make(q.shape[-2], k.shape[-2])
        kind = "mask_mod" if isinstance(mask, ag.Mask) else "attn_mask"
        if isinstance(mask, Tensor):
            mask = mask.to(q.device) if mask.dtype == torch.bool else mask.to(q.device, q.dtype)
        return {kind: mask, "is_causal": is_causal, "softcap": softcap, "enable_gqa": True}

    def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        mask = make(q.shape[-2], k.shape[-2])
        kind = "mask_mod" if isinstance(mask, ag.Mask) else "attn_mask"
        given = mask.numpy() if isinstance(mask, Tensor) else mask
        settings = {kind: given, "is_causal": is_causal, "softcap": softcap, "enable_gqa": True}
        return ag.scaled_dot_product_attention(q, k, v, **settings)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = make(q.shape[-2], k.shape[-2])
        return _plain(mask.to(q.device) if isinstance(mask, Tensor) else mask, is_causal, softcap)(q, k, v)

    backend = f", backend={forced['backend']!r}" if forced else ""
    return Case(
        "Dot-product attention",
        label + backend,
        lambda q, k, v: at.scaled_dot_product_attention(q, k, v, **options(q, k), **forced),
        reference,
        plain,
        shapes,
        lambda q, k, v: at.explain(q, k, v, **options(q, k), **forced).backend,
    )


def _same(mechanism: str, label: str, name: str, *args: Any, shapes: tuple[str, ...] = SQUARE, **options: Any) -> Case:
    """Return a case of two functions of one name: tensors among its arguments become arrays for the reference."""
    arrays = [x.numpy() if isinstance(x, Tensor) else x for x in args]

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        given = [x.to(q.device, q.dtype) if isinstance(x, Tensor) else x for x in args]
        return getattr(at, name)(q, k, v, *given, **options)

    def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        return getattr(ag, name)(q, k, v, *arrays, **options)

    return Case(mechanism, label, ours, reference, None, shapes)


def _weights(mechanism: str, name: str, *args: Any, **options: Any) -> Case:
    """Return a case of a map from scores to weights."""

    def function(package: Any) -> Callable[..., Any]:
        return lambda q, k, v: getattr(package, name)(q, *args, **options)

    return Case(mechanism, "", function(at), function(ag), None, ("square", "three blocks"))


def _score(name: str, *shapes: tuple[int, ...], **options: Any) -> Case:
    """Return a case of a score function with parameters of these shapes."""
    g = torch.Generator().manual_seed(1)
    # Multiples of 1/64 are the same in every dtype, so that only the computation differs.
    parameters = [(torch.randn(shape, generator=g) * 16).round().div(64).double() for shape in shapes]

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return getattr(at, name)(q, k, *(p.to(q.device, q.dtype) for p in parameters), **options)

    def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        return getattr(ag, name)(q, k, *(p.numpy() for p in parameters), **options)

    label = name.removesuffix("_score").replace("_", " ")
    return Case(f"{label.capitalize()} score", "", ours, reference, None, ("square", "more keys"))


def _delta_rule(form: str) -> Case:
    """Return a case of the delta rule with keys of about length 1/2: with long ones its state grows without bound."""

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        beta = torch.arange(q.shape[-2], device=q.device).remainder(8).to(q.dtype) / 8  # exact in every dtype
        return at.delta_rule_attention(q, k / 8, v, beta, form=form, chunk_size=8)

    def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        return ag.delta_rule_attention(q, k / 8, v, np.arange(q.shape[-2]) % 8 / 8)

    return Case("Delta rule", form, ours, reference, None, ("square",))


def _documents(n: int, m: int) -> ag.Mask:
    return ag.document(np.stack([np.arange(n) // 9, np.arange(n) // 50]))


def _draw(n: int, m: int) -> Tensor:
    """Return numbers that every dtype holds exactly, so that the mask is the same in each."""
    return torch.randint(-16, 17, (n, m), generator=torch.Generator().manual_seed(2)) / 8.0


def cases() -> list[Case]:
    """Return every case, mechanism by mechanism."""
    projection = (torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(3)) * 16).round() / 64
    table = ag.bigbird_random_blocks(6, 1, rng=np.random.default_rng(0))
    return [
        _attention("none"),
        _attention("causal", is_causal=True),
        _attention("causal, aligned bottom-right", ag.causal_lower_right),
        _attention("sliding window", lambda n, m: ag.sliding_window(5, 2)),
        _attention("sliding window", lambda n, m: ag.sliding_window(5, 2), backend="tiles"),
        _attention("Longformer", lambda n, m: ag.longformer(4, [0, 6]), backend="tiles"),
        _attention(
            "BigBird", lambda n, m: ag.bigbird(n, n // 6, random_blocks=table), backend="tiles", shapes=SQUARE
        ),
        _attention("documents, by batch", _documents, is_causal=True, shapes=SQUARE),
        _attention("prefix", lambda n, m: ag.prefix(3)),
        _attention("window with sinks", lambda n, m: ag.sinks(2) | ag.sliding_window(4, 0), is_causal=True),
        _attention("by head", lambda n, m: ag.per_head([ag.causal, ag.full, ag.strided(3), ag.block_local(4)])),
        _attention("rows that see nothing", lambda n, m: ag.sliding_window(3, 0) & ~ag.sinks(3)),
        _attention("booleans", lambda n, m: _draw(n, m) > -1),
        _attention("floats", _draw),
        _attention("none, soft-cap", softcap=2.0),
        _attention("causal, soft-cap", is_causal=True, softcap=2.0),
        _attention("causal", is_causal=True, backend="explicit"),
        _same("Sliding-window attention", "window", "sliding_window_attention", 5, 2, enable_gqa=True),
        _same("Longformer attention", "window and global", "longformer_attention", 4, [0, 6], enable_gqa=True),
        _same("BigBird attention", "blocks", "bigbird_attention", 4, random_blocks=table, enable_gqa=True,
              shapes=("square", "grouped heads")),
        _same("Block-sparse attention", "blocks", "block_sparse_attention", ag.sliding_window(1, 1), 16,
              enable_gqa=True),
        _same("Linear attention", "none", "linear_attention", enable_gqa=True, shapes=tuple(SHAPES)),
        _same("Linear attention", "causal, chunked", "linear_attention", is_causal=True, form="chunked",
              enable_gqa=True, shapes=tuple(SHAPES)),
        _same("Linear attention", "causal, recurrent", "linear_attention", is_causal=True, form="recurrent",
              enable_gqa=True, shapes=("square", "grouped heads")),
        _same("Performer attention", "causal", "performer_attention", projection, is_causal=True, enable_gqa=True),
        _delta_rule("recurrent"),
        _delta_rule("chunked"),
        _same("Top-k attention", "none", "top_k_attention", 3, shapes=("square", "more keys")),
        _same("Hard attention", "argmax", "hard_attention", choose="argmax", shapes=("square", "more keys")),
        _weights("Softmax", "softmax"),
        _weights("Sparsemax", "sparsemax"),
        _weights("Entmax", "entmax", 1.5),
        _weights("Rotary positions", "apply_rope", 7),
        _score("dot_score"),
        _score("scaled_dot_score"),
        _score("general_score", (WIDTH, WIDTH)),
        _score("additive_score", (WIDTH, 8), (WIDTH, 8), (8,)),
        _score("concat_score", (2 * WIDTH, 8), (8,)),
        _score("cosine_score"),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- the table


class Row(NamedTuple):
    """A line of the table: the largest error of a case in each dtype, on the CPU and on a GPU."""

    case: Case
    backend: str
    cpu: dict[torch.dtype, Error]
    cuda: dict[torch.dtype, Error] | None  # None where there is no device

    @property
    def holds(self) -> bool:
        return all(e.holds for column in (self.cpu, self.cuda or {}) for e in column.values())


def rows() -> Iterator[Row]:
    """Measure every case in every dtype and shape, on every device there is."""
    for case in cases():
        taken = dict.fromkeys(case.choose(*inputs(shape, torch.float32)) for shape in case.shapes)
        cpu = {dtype: _worst(errors(case, dtype)) for dtype in DTYPES}
        cuda = {dtype: _worst(errors(case, dtype, "cuda")) for dtype in DTYPES} if torch.cuda.is_available() else None
        yield Row(case, ", ".join(filter(None, taken)), cpu, cuda)


def _worst(found: list[Error]) -> Error:
    """Return the error nearest to its bound, or beyond it."""
    return max(found, key=lambda e: e.error / e.bound)


def table() -> Iterator[str]:
    """The lines of the table in Markdown."""
    names = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
    yield f"| Mechanism | Mask, options | Backend | {' | '.join(names)} | On a GPU |"
    yield "|---|---|---|" + "---:|" * len(names) + "---|"
    for row in rows():
        if not row.holds:
            where = f"{row.case.mechanism}, {row.case.mask}"
            logger.warning("parity: %s: an error beyond its bound", where, type="guide", subtype="parity")
        cells = [_cell(row.cpu[dtype]) for dtype in DTYPES]
        gpu = "not run" if row.cuda is None else _cell(_worst(list(row.cuda.values())))
        yield f"| {row.case.mechanism} | {row.case.mask} | {row.backend} | {' | '.join(cells)} | {gpu} |"


def _cell(e: Error) -> str:
    return f"{e.error:.2f} / {e.bound:.3g}".replace(" ", "\u00a0")
