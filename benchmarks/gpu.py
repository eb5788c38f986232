"""Every kernel that the torch path can take on a GPU, side by side in one run; without one, a dry run on the CPU.

The dry run goes the whole way with small sizes, so that the first machine with a GPU finds nothing to mend. Its times
say nothing about a GPU, and are neither judged nor saved.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

import attn_guide as ag
import attn_guide.torch as at

from .common import Row

TOPIC = "gpu"
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPE = torch.bfloat16 if ON_GPU else torch.float32
SDPA = {"SDPA flash": SDPBackend.FLASH_ATTENTION, "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION}
BURST = 5e-3  # seconds that a burst of calls lasts at least: one call is too short for the clock


@dataclass(frozen=True)
class Kernel:
    """A way to compute attention, and what has to hold while it is called."""

    name: str
    call: Callable[[], Any]
    setting: Callable[[], AbstractContextManager[Any]] = nullcontext


def run(quick: bool) -> list[Row]:
    small = quick or not ON_GPU
    rows: list[Row] = []
    for d in (64,) if small else (64, 128):
        for n in (128,) if small else (512, 1024, 2048, 4096, 8192, 16384):
            for is_causal in (False, True):
                rows += _forward(n, d, is_causal)
                rows += _backward(n, d, is_causal)
    rows.append(_window(256 if small else 16384, 32 if small else 1024))
    rows += [_decode(n) for n in ((256,) if small else (8192, 32768, 131072))]
    return rows


def _forward(n: int, d: int, is_causal: bool) -> list[Row]:
    """Our choice, and our Triton kernel, against the fastest of PyTorch's and against SDPA's flash."""
    q, k, v = _inputs(n, d)
    kernels = [
        Kernel("dispatch", lambda: at.attention(q, k, v, is_causal=is_causal)),
        *_theirs(q, k, v, is_causal),
        *_triton(q, k, v, is_causal),
    ]
    case = f"{'causal' if is_causal else 'dense'}, n = {n}, d = {d}"
    return _compare(f"{case}, forward", kernels, triton=1 / 0.70)


def _backward(n: int, d: int, is_causal: bool) -> list[Row]:
    """The gradients alone: each kernel runs forward once, and backward again and again."""
    q, k, v = (x.requires_grad_() for x in _inputs(n, d))

    def backward(kernel: Kernel) -> Kernel:
        with kernel.setting():
            out = kernel.call()
        given = torch.ones_like(out)
        return Kernel(kernel.name, lambda: torch.autograd.grad(out, (q, k, v), given, retain_graph=True))

    forward = [*_theirs(q, k, v, is_causal), *_triton(q, k, v, is_causal)]
    case = f"{'causal' if is_causal else 'dense'}, n = {n}, d = {d}"
    return _compare(f"{case}, backward", [backward(kernel) for kernel in forward], triton=1 / 0.60)


def _theirs(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Iterator[Kernel]:
    """PyTorch's kernels that can serve these tensors here."""
    for name, backend in SDPA.items():
        call = partial(F.scaled_dot_product_attention, q, k, v, is_causal=is_causal)
        if _serves(setting := partial(sdpa_kernel, backend), call):
            yield Kernel(name, call, setting)
    if ON_GPU:
        mask = ag.causal if is_causal else None
        yield Kernel("FlexAttention", lambda: at.attention(q, k, v, mask_mod=mask, backend="flex"))
    elif not q.requires_grad:  # on a CPU it does not differentiate, and would take 20 s to compile
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        mod = (lambda score, b, h, i, j: torch.where(i >= j, score, -torch.inf)) if is_causal else None
        yield Kernel("FlexAttention, not compiled", lambda: flex_attention(q, k, v, mod))


def _serves(setting: Callable[[], AbstractContextManager[Any]], call: Callable[[], Any]) -> bool:
    """Whether a kernel of SDPA exists on this machine for this call."""
    try:
        with setting():
            call()
    except RuntimeError as error:
        if "No available kernel" in str(error) or "No viable backend" in str(error):
            return False
        raise
    return True


def _triton(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> list[Kernel]:
    """The guide's own kernel: on a GPU, or in Triton's interpreter if the process was started for it."""
    if find_spec("triton") is None or not (ON_GPU or os.environ.get("TRITON_INTERPRET") == "1"):
        return []
    from attn_guide.torch import triton_flash

    return [Kernel("Triton", lambda: triton_flash.flash_attention(q, k, v, is_causal=is_causal))]


def _window(n: int, w: int) -> Row:
    """A sliding window against causal attention over everything."""
    q, k, v = _inputs(n, 64)
    mask = ag.sliding_window(w - 1, 0)
    kernels = [
        Kernel("window", lambda: at.attention(q, k, v, mask_mod=mask)),
        Kernel("causal", lambda: at.attention(q, k, v, is_causal=True)),
    ]
    return _ratio(f"window of {w}, n = {n}", "causal dense", _times(kernels), "window", "causal", 1 / 5)


def _decode(n: int) -> Row:
    """One more token against a context, and a copy as large as its keys and values: memory cannot be read faster."""
    heads, kv_heads, d = (32, 8, 128) if ON_GPU else (4, 1, 32)
    cache = at.KVCache(1, kv_heads, n, d, device=DEVICE, dtype=DTYPE)
    g = torch.Generator(DEVICE).manual_seed(0)
    past = torch.randn(2, 1, kv_heads, n - 1, d, generator=g, device=DEVICE, dtype=DTYPE)
    cache.append(past[0], past[1])
    q = torch.randn(1, heads, 1, d, generator=g, device=DEVICE, dtype=DTYPE)
    new = torch.randn(2, 1, kv_heads, 1, d, generator=g, device=DEVICE, dtype=DTYPE)

    def step() -> None:
        cache.attend(q, new[0], new[1])
        cache.truncate(n - 1)

    source, target = torch.empty_like(past), torch.empty_like(past)  # a copy reads and writes: half of it is the floor
    times = _times([Kernel("decode", step), Kernel("copy", lambda: target.copy_(source))])
    times["floor"] = times["copy"] / 2
    return _ratio(
        f"one token, context {n}, {heads} heads on {kv_heads}", "memory floor", times, "decode", "floor", 1.25
    )


def _compare(case: str, kernels: list[Kernel], triton: float) -> list[Row]:
    """Rows for our own kernels, and one for each of PyTorch's beside the fastest of them."""
    times = _times(kernels)
    theirs = [kernel.name for kernel in kernels if kernel.name not in ("dispatch", "Triton")]
    fastest = min(theirs, key=lambda name: float(np.median(times[name])))
    rows = [_ratio(f"{case}: {name}", f"fastest, {fastest}", times, name, fastest, None) for name in theirs]
    if "dispatch" in times:
        rows.append(_ratio(f"{case}: dispatch", f"fastest, {fastest}", times, "dispatch", fastest, 1.03))
    if "Triton" in times and "SDPA flash" in times:
        rows.append(_ratio(f"{case}: Triton", "SDPA flash", times, "Triton", "SDPA flash", triton))
    return rows


def _times(kernels: list[Kernel], rounds: int = 15) -> dict[str, np.ndarray]:
    """Seconds a call of each kernel, (rounds,), measured in turn so that all share the state of the machine."""
    bursts = {}
    for kernel in kernels:
        with kernel.setting():
            kernel.call()  # compiles what has to be compiled
            once = _burst(kernel.call, 1)
        bursts[kernel.name] = max(1, min(1000, round(BURST / once)))
    times: dict[str, list[float]] = {kernel.name: [] for kernel in kernels}
    for i in range(rounds if ON_GPU else 3):
        for kernel in kernels[i % len(kernels) :] + kernels[: i % len(kernels)]:
            with kernel.setting():
                times[kernel.name].append(_burst(kernel.call, bursts[kernel.name]))
    return {name: np.array(seconds) for name, seconds in times.items()}


def _burst(call: Callable[[], Any], count: int) -> float:
    """Seconds a call takes, the mean over a burst of them; on a GPU by its own clock."""
    if not ON_GPU:
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    first.record()
    for _ in range(count):
        call()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3 / count


def _ratio(name: str, against: str, times: dict[str, np.ndarray], ours: str, theirs: str, target: float | None) -> Row:
    low, middle, high = np.percentile(times[ours] / times[theirs], [25, 50, 75])
    mine, other = (1e6 * float(np.median(times[x])) for x in (ours, theirs))
    detail = f"{mine:.1f} us against {other:.1f} us, {len(times[ours])} rounds"
    return Row(
        TOPIC, name, f"time / {against}", float(middle), float(low), float(high), target if ON_GPU else None, detail
    )


def _inputs(n: int, d: int) -> list[Tensor]:
    """Return q, k, v (batch, 16, n, d), of about 16 thousand tokens in all."""
    batch = max(1, 16384 // n) if ON_GPU else 1
    g = torch.Generator(DEVICE).manual_seed(0)
    shape = (batch, 16 if ON_GPU else 2, n, d)
    return [torch.randn(shape, generator=g, device=DEVICE, dtype=DTYPE) for _ in range(3)]


def machine() -> dict[str, Any]:
    """What the numbers of a GPU depend on beyond what ``common.machine`` says."""
    if not ON_GPU:
        return {"gpu": "none: a dry run on the CPU, nothing is saved"}
    found = torch.cuda.get_device_properties(0)
    return {
        "gpu": found.name,
        "gpu memory": f"{found.total_memory / 2**30:.0f} GiB",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
