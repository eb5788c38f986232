"""The Triton kernels against attention written out in double precision: in the interpreter, and on a GPU if any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="Triton is made for Linux only")

from triton_worker import CASES, TILINGS  # noqa: E402

from attn_guide.torch import triton_flash  # noqa: E402

WORKER = Path(__file__).with_name("triton_worker.py")
WHAT = ("out", "lse", "dq", "dk", "dv")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("triton") / "found.json"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[1])}
    command = [sys.executable, str(WORKER), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def tolerance(case):
    """Some roundings of the largest entry; a score of s is rounded s times as coarsely as 1."""
    scale = max(1.0, CASES[case][6].get("scale", 0.0))
    return 16 * scale * torch.finfo(CASES[case][7]).eps * (16 if scale > 10 else 1)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("case", CASES)
def test_the_kernels_agree_with_attention_written_out(found, case, what):
    assert found["errors"][case][what] < tolerance(case)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("tiling", TILINGS)
def test_the_size_of_tiles_leaves_no_trace(found, tiling, what):
    assert found["tilings"][tiling][what] < tolerance("window and causal")


@pytest.mark.parametrize(
    ("case", "full", "masked"),
    [
        ("dense", 36, 0),  # all of 6 x 6
        ("causal", 15, 6),  # half, and the diagonal
        ("narrow window", 0, 15),  # 20 back: two tiles before the row's own, none of which all 16 rows see in full
        ("window", 5, 13),  # 40 back: three tiles before the row's own, one of them seen in full by all 16 rows
        ("ragged", 15, 6),  # rows and keys that are not there are behind the mask that the diagonal needs anyway
    ],
)
def test_only_tiles_that_are_seen_are_visited(found, case, full, masked):
    assert found["tiles"][case] == [full, masked]


def test_rows_that_see_nothing_give_zeros(found):
    assert found["empty rows"] == {"out": 0.0, "dq": 0.0}
    assert found["lse of empty rows"] == "-inf"


def test_leading_dimensions_are_heads_side_by_side(found):
    assert found["batches"] == 0.0


def test_the_interpreter_is_not_trusted_with_bfloat16(found):
    assert found["bfloat16"].startswith(
        "query has dtype torch.bfloat16, whose products Triton's interpreter gets wrong"
    )


@pytest.mark.parametrize(
    ("change", "error", "wanted"),
    [
        ({"query": [1.0]}, TypeError, "query is a list; wanted a torch.Tensor"),
        ({"value": torch.zeros(2, 4, 3).double()}, TypeError, "value has dtype torch.float64; wanted one of"),
        ({"key": torch.zeros(4)}, ValueError, r"key has shape \(4,\); wanted \(..., length, width\)"),
        ({"key": torch.zeros(2, 4, 3).half()}, TypeError, "key is torch.float16 on cpu and query torch.float32"),
        ({"key": torch.zeros(2, 4, 5)}, ValueError, "key has width 5; wanted 3, the width of query"),
        ({"value": torch.zeros(2, 5, 3)}, ValueError, r"value has shape \(2, 5, 3\); wanted \(2, 4\) before the width"),
        (
            {"query": torch.zeros(3, 4, 3)},
            ValueError,
            r"key has shape \(2, 4, 3\); wanted the leading dimensions \(3,\)",
        ),
        ({"query": torch.zeros(3, 4, 3), "enable_gqa": True}, ValueError, "query has 3 heads; wanted a multiple of"),
        ({"query": torch.zeros(2, 0, 3)}, ValueError, "wanted no empty dimension"),
        ({"window": 3}, ValueError, r"window is 3; wanted \(left, right\)"),
        ({"window": (1, -1)}, ValueError, r"window\[1\] is -1; wanted an integer of at least 0"),
        ({"softcap": 0.0}, ValueError, "softcap is 0.0; wanted a finite number above 0"),
        ({"block_q": 48}, ValueError, "block_q is 48; wanted a power of two"),
        ({"block_k": 8}, ValueError, "block_k is 8; wanted an integer of at least 16"),
    ],
)
def test_bad_arguments_are_named(change, error, wanted):
    arguments = {name: torch.zeros(2, 4, 3) for name in ("query", "key", "value")}
    with pytest.raises(error, match=wanted):
        triton_flash.flash_attention(**{**arguments, **change})


def test_without_the_interpreter_the_cpu_is_refused():
    program = (
        "import torch; from attn_guide.torch.triton_flash import flash_attention\n"
        "x = torch.zeros(4, 16)\n"
        "try: flash_attention(x, x, x)\n"
        "except RuntimeError as error: print(error)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=200)
    assert "set TRITON_INTERPRET=1 in the environment before anything imports triton" in done.stdout, done.stderr


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"window": (200, 0)}, {"softcap": 20.0, "is_causal": True}], ids=str
)
def test_the_kernels_on_a_gpu(dtype, width, options):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 8, 777, width), (2, 2, 777, width), (2, 2, 777, width), (2, 8, 777, width)
    query, key, value, upstream = (torch.randn(shape, generator=generator).to("cuda", dtype) for shape in shapes)
    leaves = [x.requires_grad_() for x in (query, key, value)]
    out = triton_flash.flash_attention(*leaves, enable_gqa=True, **options)
    grads = torch.autograd.grad(out, leaves, upstream)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    scores = exact[0] @ exact[1].repeat_interleave(4, 1).mT * width**-0.5
    if cap := options.get("softcap"):
        scores = cap * torch.tanh(scores / cap)
    i, j = torch.arange(777, device="cuda")[:, None], torch.arange(777, device="cuda")
    left = options["window"][0] if "window" in options else 777
    right = 0 if len(options) else 777
    scores = scores.masked_fill((j < i - left) | (j > i + right), float("-inf"))
    expected = scores.softmax(-1) @ exact[2].repeat_interleave(4, 1)
    wanted = torch.autograd.grad(expected, exact, upstream.double())
    for x, y in zip([out, *grads], [expected, *wanted], strict=True):
        assert (x.double() - y).abs().max() < 16 * torch.finfo(dtype).eps * y.abs().max().clamp(min=1)
