"""Ring attention between real processes: exact against one process, and an error instead of a hang."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from ring_worker import CASES, HALF, TIMEOUT_LOST  # noqa: E402

from attn_guide.torch import ring  # noqa: E402

WORKER = Path(__file__).with_name("ring_worker.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[1])}
EXACT = 1e-12  # of the largest entry, in double precision


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def torchrun(size, task, out):
    command = ["-m", "torch.distributed.run", f"--nproc-per-node={size}", "--master-addr=127.0.0.1"]
    return subprocess.run(
        [sys.executable, *command, f"--master-port={free_port()}", str(WORKER), task, str(out)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def start(rank, size, port, task, out):
    """Start one process as torchrun would, without the one that watches over all and would end them."""
    place = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, str(WORKER), task, str(out)],
        env={**ENVIRONMENT, **{name: str(x) for name, x in place.items()}},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids="{} processes".format)
def found(request, tmp_path_factory):
    """What the processes of one launch have found."""
    out = tmp_path_factory.mktemp("ring") / "found.json"
    done = torchrun(request.param, "exact", out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["size"] == request.param
    return result


# ------------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("what", ["out", "dq", "dk", "dv"])
@pytest.mark.parametrize("case", CASES)
def test_the_ring_agrees_with_one_process(found, case, what):
    # Scores of 3,000 are rounded 3,000 times as coarsely as 1, and the gradient multiplies that by the scale, 300.
    assert found["errors"][case][what] < (1e-8 if case == "large scores" else EXACT)


@pytest.mark.parametrize("case", HALF)
def test_lower_precision_costs_a_few_roundings(found, case):
    unit = torch.finfo(HALF[case]).eps
    assert max(found["half"][case].values()) < 4 * unit
    assert max(found["half"][case].values()) > 0  # it was computed in that precision


def test_a_group_of_one_computes_alone(found):
    assert found["alone"] < 1e-14


# --------------------------------------------------------------------------------------------------- traffic


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_sent_are_those_of_the_model(found, dtype):
    size, sent = found["size"], found["traffic"][dtype]
    part = 2 * 2 * 64 * 8 // size  # numbers: keys and values, 2 heads, 64 positions, width 8
    width = {"float32": 4, "bfloat16": 2}[dtype]
    assert sent["forward"] == {"bytes": (size - 1) * part * width, "messages": size - 1}
    assert sent["backward"] == {"bytes": (size - 1) * part * width + size * part * 4, "messages": 2 * size - 1}


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("attempt", "wanted"),
    [
        ("another length", "ValueError: length is"),
        ("another mask", "ValueError: is_causal is"),
        ("another dtype", "ValueError: dtype is torch.float"),
        ("another scale", "ValueError: scale is"),
        ("a length that does not divide", "ValueError: x has length 7; wanted a multiple of"),
    ],
)
def test_every_process_refuses_what_differs(found, attempt, wanted):
    assert all(said[attempt].startswith(wanted) for said in found["refusals"])


def test_a_process_that_is_refused_tells_the_others(found):
    first, *others = [said["one refused"] for said in found["refusals"]]
    assert first == "ValueError: process 1 was given arguments that ring_attention refuses; see its error"
    assert all(said == "ValueError: key has width 3; wanted 4, the width of query" for said in others)


@pytest.mark.parametrize("how", ["killed", pytest.param("silent", marks=pytest.mark.slow)])
def test_a_lost_process_is_an_error_and_not_a_hang(how, tmp_path):
    port = free_port()
    processes = [start(rank, 2, port, how, tmp_path / "said.json") for rank in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert (tmp_path / "said.json").exists(), errors
    result = json.loads((tmp_path / "said.json").read_text())
    assert result["said"].startswith("RuntimeError: process 0 of 2 lost the ring while")
    assert "one of the processes has ended, or did not answer within the timeout" in result["said"]
    assert result["seconds"] < 2 * TIMEOUT_LOST


def test_too_few_processes_are_an_error_and_not_a_hang(tmp_path):
    begin = time.monotonic()
    process = start(0, 2, free_port(), "killed", tmp_path / "said.json")
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "RuntimeError: process 0 of 2 did not find all the others at 127.0.0.1:" in error
    assert "in 4 s; are 2 processes running?" in error
    assert time.monotonic() - begin < 100


def test_a_script_that_torchrun_did_not_start_says_so(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match=r"RANK.* not set; start the script with torchrun"), ring.connect():
        pass


@pytest.mark.parametrize(
    ("change", "error", "wanted"),
    [
        ({"query": [1.0]}, TypeError, "query is a list; wanted a torch.Tensor"),
        ({"key": torch.zeros(4)}, ValueError, r"key has shape \(4,\); wanted \(..., length, width\)"),
        ({"value": torch.zeros(2, 4, 3, dtype=torch.int64)}, TypeError, "value has dtype torch.int64; wanted one of"),
        ({"key": torch.zeros(2, 4, 3).double()}, TypeError, "key is torch.float64 on cpu and query torch.float32"),
        ({"key": torch.zeros(2, 4, 5)}, ValueError, "key has width 5; wanted 3, the width of query"),
        ({"value": torch.zeros(2, 5, 3)}, ValueError, r"value has shape \(2, 5, 3\); wanted \(2, 4\) before the width"),
        (
            {"query": torch.zeros(3, 4, 3)},
            ValueError,
            r"key has shape \(2, 4, 3\); wanted the leading dimensions \(3,\)",
        ),
        ({"query": torch.zeros(2, 6, 3), "is_causal": True}, ValueError, "key has length 4; wanted 6, the length of"),
        ({"scale": float("nan")}, ValueError, "scale is nan; wanted a finite number"),
        ({"query": torch.zeros(3, 4, 3), "enable_gqa": True}, ValueError, "query has 3 heads; wanted a multiple of"),
    ],
)
def test_bad_arguments_are_named(change, error, wanted):
    arguments = {name: torch.zeros(2, 4, 3) for name in ("query", "key", "value")}
    with pytest.raises(error, match=wanted):
        ring.ring_attention(**{**arguments, **change})


def test_an_odd_part_is_no_zigzag_part():
    x = torch.zeros(5, 4)
    with pytest.raises(ValueError, match="query has length 5; wanted an even one"):
        ring.ring_attention(x, x, x, is_causal=True)
    assert ring.ring_attention(x, x, x, is_causal=True, zigzag=False).shape == (5, 4)


# -------------------------------------------------------------------------------------------------- the plan


def positions(rank, size, length, zigzag):
    pieces = torch.arange(size * length).chunk(2 * size if zigzag else size)
    return torch.cat([pieces[i] for i in ring._pieces(rank, size, zigzag)])


@pytest.mark.parametrize("zigzag", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_tiles_cover_the_causal_triangle_once(size, zigzag):
    length = 6
    n = size * length
    count = torch.zeros(n, n, dtype=torch.int64)
    for rank in range(size):
        for source in range(size):
            tile = ring.ring_tile(rank, source, length, is_causal=True, zigzag=zigzag)
            if tile is not None:
                rows, keys, diagonal = tile
                seen = torch.ones(len(rows), len(keys), dtype=torch.int64)
                q_idx, kv_idx = positions(rank, size, length, zigzag), positions(source, size, length, zigzag)
                count[q_idx[rows.start : rows.stop, None], kv_idx[keys.start : keys.stop]] += (
                    seen.tril() if diagonal else seen
                )
    assert torch.equal(count, torch.ones(n, n, dtype=torch.int64).tril())


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_zigzag_gives_every_process_the_same_work_in_every_step(size):
    length = 8

    def work(rank, step):
        rows, keys, diagonal = ring.ring_tile(rank, (rank - step) % size, length, is_causal=True)
        return length * (length + 1) // 2 if diagonal else len(rows) * len(keys)

    for step in range(size):
        assert len({work(rank, step) for rank in range(size)}) == 1


def test_second_derivatives_are_refused():
    x = torch.randn(4, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(ring.ring_attention(x, x, x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


# ----------------------------------------------------------------------------------------------------- GPUs


@pytest.mark.parametrize("is_causal", [True, False])
def test_the_gpu_kernels_are_called_as_they_are_declared(is_causal):
    """Without a GPU: shapes and types go through torch's own description of the two kernels."""
    q = torch.empty(1, 4, 16, 8, dtype=torch.bfloat16, device="meta")
    kv = torch.empty(1, 1, 16, 8, dtype=torch.bfloat16, device="meta")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "_has_kernel", lambda q, v, device: device == "cuda")
        out, lse = ring._attend(q, kv, kv, is_causal, 1.0)
        grads = ring._attend_backward(q, q, out, lse, kv, kv, is_causal, 1.0)
    assert (out.shape, lse.shape, lse.dtype) == (q.shape, q.shape[:-1], torch.float32)
    assert [x.shape for x in grads] == [q.shape] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_ring_of_one_on_a_gpu(dtype):
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(2, 4, 64, 32, generator=generator).to("cuda", dtype).requires_grad_() for _ in range(3)]
    out = ring.ring_attention(*leaves, is_causal=True)
    grads = torch.autograd.grad(out.sum(), leaves)
    exact = [x.detach().double().cpu().requires_grad_() for x in leaves]
    expected = torch.nn.functional.scaled_dot_product_attention(*exact, is_causal=True)
    wanted = [expected, *torch.autograd.grad(expected.sum(), exact)]
    for x, y in zip([out, *grads], wanted, strict=True):
        assert (x.double().cpu() - y).abs().max() < 8 * torch.finfo(dtype).eps * y.abs().max()
