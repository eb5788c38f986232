"""The Triton kernels on the CPU: ``TRITON_INTERPRET=1 python tests/triton_worker.py OUT.json``.

A process of its own, since Triton asks for its interpreter when it is first imported, and other tests of a run may have
imported it before. The tests judge what is written here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from attn_guide import masks
from attn_guide.torch import triton_flash
from attn_guide.torch.triton_flash import flash_attention

F32, F16 = torch.float32, torch.float16

#: name: query heads, key heads, n, m, d_k, d_v, what flash_attention is told, dtype
CASES = {
    "dense": (2, 2, 40, 40, 16, 16, {}, F32),
    "whole tiles only": (1, 1, 48, 32, 16, 16, {}, F32),
    "shorter than a tile": (1, 1, 5, 3, 16, 16, {}, F32),
    "one position": (1, 1, 1, 1, 16, 16, {"is_causal": True}, F32),
    "causal": (2, 2, 53, 53, 16, 16, {"is_causal": True}, F32),
    "causal, more keys": (1, 1, 20, 50, 16, 16, {"is_causal": True}, F32),
    "causal, fewer keys": (1, 1, 50, 20, 16, 16, {"is_causal": True}, F32),
    "grouped queries": (4, 2, 33, 33, 16, 16, {"is_causal": True}, F32),
    "one key head": (3, 1, 20, 36, 16, 16, {}, F32),
    "window": (1, 1, 70, 70, 16, 16, {"window": (9, 5)}, F32),
    "window wider than two tiles": (1, 1, 90, 90, 16, 16, {"window": (40, 37)}, F32),
    "causal window": (2, 1, 70, 70, 16, 16, {"window": (20, 0)}, F32),
    "window and causal": (1, 1, 60, 60, 16, 16, {"window": (20, 7), "is_causal": True}, F32),
    "window of one": (1, 1, 40, 40, 16, 16, {"window": (0, 0)}, F32),
    "rows that see nothing": (1, 1, 70, 20, 16, 16, {"window": (3, 0)}, F32),
    "soft-cap": (2, 2, 40, 40, 16, 16, {"softcap": 2.0}, F32),
    "soft-cap, causal, grouped": (2, 1, 40, 40, 16, 16, {"softcap": 2.0, "is_causal": True}, F32),
    "a scale": (1, 1, 40, 40, 16, 16, {"scale": 1.3}, F32),
    "widths of no power of two": (1, 1, 40, 40, 20, 12, {"is_causal": True}, F32),
    "wide values": (1, 1, 40, 40, 8, 33, {}, F32),
    "large scores": (1, 1, 40, 40, 16, 16, {"scale": 100.0}, F32),
    "dense in float16": (1, 1, 40, 40, 16, 16, {}, F16),
    "causal in float16": (2, 1, 40, 40, 16, 16, {"is_causal": True}, F16),
}

#: The same call with other tiles: what is checked is that the tiling leaves no trace.
TILINGS = {"16 x 32": (16, 32), "32 x 16": (32, 16), "64 x 64": (64, 64)}

#: Calls whose tiles are counted: n, what flash_attention is told. The appendix on the kernel counts the same.
VISITS = {
    "dense": (96, {}),
    "causal": (96, {"is_causal": True}),
    "narrow window": (96, {"window": (20, 0)}),
    "window": (96, {"window": (40, 0)}),
    "ragged": (90, {"is_causal": True}),
}


def draw(case):
    heads, kv_heads, n, m, d_k, d_v, _, dtype = CASES[case]
    generator = torch.Generator().manual_seed(0)
    shapes = (heads, n, d_k), (kv_heads, m, d_k), (kv_heads, m, d_v), (heads, n, d_v)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def kernel(case, tiles=(16, 16)):
    *inputs, upstream = draw(case)
    leaves = [x.requires_grad_() for x in inputs]
    blocks = dict(zip(("block_q", "block_k"), tiles, strict=True))
    out, lse = flash_attention(*leaves, enable_gqa=True, return_lse=True, **CASES[case][6], **blocks)
    out.backward(upstream)
    assert all(x.dtype == CASES[case][7] for x in (out, *(leaf.grad for leaf in leaves)))
    return {"out": out.detach(), "lse": lse, "dq": leaves[0].grad, "dk": leaves[1].grad, "dv": leaves[2].grad}


def written_out(case):
    """The definition, in double precision: scores, cap, mask, softmax; the gradients by autograd."""
    *inputs, upstream = draw(case)
    heads, kv_heads, n, m, d_k, _, options, _ = CASES[case]
    leaves = [x.double().clone().requires_grad_() for x in inputs]
    key, value = (x.repeat_interleave(heads // kv_heads, 0) for x in leaves[1:])
    scores = leaves[0] @ key.mT * options.get("scale", d_k**-0.5)
    if "softcap" in options:
        scores = options["softcap"] * torch.tanh(scores / options["softcap"])
    allowed = torch.ones(n, m, dtype=torch.bool)
    if options.get("is_causal"):
        allowed &= torch.from_numpy(masks.causal.materialize(n, m))
    if "window" in options:
        allowed &= torch.from_numpy(masks.sliding_window(*options["window"]).materialize(n, m))
    scores = scores.masked_fill(~allowed, float("-inf"))
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None].clamp(min=-1e300)).exp()  # rows without keys: exp(-inf) = 0
    out = weights @ value
    dq, dk, dv = torch.autograd.grad(out, leaves, upstream.double())
    return {"out": out.detach(), "lse": lse.detach(), "dq": dq, "dk": dk, "dv": dv}


def visited(n, options):
    """How many tiles of 16 x 16 a call visits without a mask and with one."""
    seen, step = {True: 0, False: 0}, triton_flash._forward_tile

    def counting(*arguments):
        seen[arguments[-1]] += 1
        return step(*arguments)

    triton_flash._forward_tile = counting
    x = torch.zeros(n, 16)
    flash_attention(x, x, x, block_q=16, block_k=16, **options)
    triton_flash._forward_tile = step
    return seen[False], seen[True]


def distance(x, y):
    """The largest difference, as a share of the largest entry or of one; infinities have to agree."""
    assert torch.equal(x.isfinite(), y.isfinite())
    x, y = (z.double()[y.isfinite()] for z in (x, y))
    return ((x - y).abs().max() / y.abs().max().clamp(min=1)).item()


def main():
    torch.set_num_threads(1)
    expected = {case: written_out(case) for case in CASES}
    found = {case: kernel(case) for case in CASES}
    tiled = "window and causal"
    bfloat16 = torch.zeros(1, 4, 16, dtype=torch.bfloat16)
    try:
        flash_attention(bfloat16, bfloat16, bfloat16)
        refused = "no error"
    except TypeError as error:
        refused = str(error)
    results = {
        "errors": {
            case: {what: distance(x, expected[case][what]) for what, x in found[case].items()} for case in CASES
        },
        "empty rows": {what: float(found["rows that see nothing"][what][0, 30:].abs().max()) for what in ("out", "dq")},
        "lse of empty rows": str(found["rows that see nothing"]["lse"][0, -1].item()),
        "tilings": {
            name: {what: distance(x, expected[tiled][what]) for what, x in kernel(tiled, tiles).items()}
            for name, tiles in TILINGS.items()
        },
        "tiles": {name: visited(n, options) for name, (n, options) in VISITS.items()},
        "bfloat16": refused,
        "batches": batches(),
    }
    Path(sys.argv[1]).write_text(json.dumps(results))


def batches():
    """Leading dimensions, and heads that were split off without a copy, against one head at a time."""
    query, key, value = torch.randn(3, 2, 20, 2, 16, generator=torch.Generator().manual_seed(0)).transpose(-2, -3)
    together = flash_attention(query, key, value, block_q=16, block_k=16)
    apart = [
        [flash_attention(query[b, h], key[b, h], value[b, h], block_q=16, block_k=16) for h in range(2)]
        for b in range(2)
    ]
    return (together - torch.stack([torch.stack(heads) for heads in apart])).abs().max().item()


if __name__ == "__main__":
    main()
