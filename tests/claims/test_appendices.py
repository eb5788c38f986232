"""The claims of the appendix on attention across machines."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ring_measurements  # noqa: E402

from attn_guide.torch.ring import ring_tile  # noqa: E402


@pytest.mark.claim("sparse-ring-exact")
def test_a_ring_of_processes_is_exact(claim):
    """Two and four processes give the output and the gradients of one, up to rounding."""
    found = ring_measurements.measure()["exact"]
    claim.note(n=256, heads=4, kv_heads=2, seed=0, what="largest of output, dq, dk and dv, in double precision")
    assert set(found) == {"2 dense", "2 causal", "4 dense", "4 causal"}
    for name, errors in found.items():
        claim.below(f"largest difference from one process, {name}", max(errors), 1e-12, "rounding")


@pytest.mark.claim("sparse-ring-bytes")
def test_bytes_sent_by_a_process(claim):
    """Forward (p - 1) / p of all keys and values; backward the same and a full circle of their gradients in float32."""
    sent = ring_measurements.measure()["sent"]
    n, kv_heads, width = sent["n"], sent["kv_heads"], sent["width"]
    claim.note(n=n, heads=sent["heads"], kv_heads=kv_heads, width=width)
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        for p in (2, 4):
            numbers = 2 * kv_heads * n * width  # keys and values of the whole sequence
            forward, backward = (sent[f"{dtype} {p} {way}"] for way in ("forward", "backward"))
            claim.check(f"bytes forward, {p} x {dtype}", forward["bytes"], expected=numbers * size * (p - 1) // p)
            claim.check(f"messages forward, {p} x {dtype}", forward["messages"], expected=p - 1)
            claim.check(
                f"bytes backward, {p} x {dtype}",
                backward["bytes"],
                expected=numbers * size * (p - 1) // p + numbers * 4,
            )
            claim.check(f"messages backward, {p} x {dtype}", backward["messages"], expected=2 * p - 1)


def pairs_by_step(p, length, zigzag):
    """Pairs of query and key that each process computes in each step of a causal ring: (steps, processes)."""
    pairs = np.zeros((p, p), dtype=int)
    for step in range(p):
        for rank in range(p):
            tile = ring_tile(rank, (rank - step) % p, length, is_causal=True, zigzag=zigzag)
            if tile is not None:
                rows, keys, diagonal = tile
                pairs[step, rank] = length * (length + 1) // 2 if diagonal else len(rows) * len(keys)
    return pairs


@pytest.mark.claim("sparse-ring-balance")
def test_zigzag_balances_a_causal_ring(claim):
    """Parts in order leave the first process idle; zigzag parts give all the same work and end in half the time."""
    p, length = 4, 1024
    ordered, zigzag = pairs_by_step(p, length, False), pairs_by_step(p, length, True)
    whole = (p * length) * (p * length + 1) // 2
    claim.note(processes=p, positions_each=length)
    claim.check("pairs in all, in order", ordered.sum(), expected=whole)
    claim.check("pairs in all, zigzag", zigzag.sum(), expected=whole)
    claim.check("largest spread of work in a step, zigzag", np.ptp(zigzag, axis=1).max(), expected=0)
    work = ordered.sum(axis=0)
    claim.check("share of the work of the last process, in order", work[-1] / whole, expected=0.4375, tolerance=1e-3)
    claim.check("share of the work of the first process, in order", work[0] / whole, expected=0.0625, tolerance=1e-3)
    # Everyone waits for the slowest in every step, since nobody can pass on what has not come.
    pace = ordered.max(axis=1).sum() / zigzag.max(axis=1).sum()
    claim.check("time in order over time zigzag, if steps wait for the slowest", pace, expected=1.75, tolerance=1e-3)
    many = {
        q: pairs_by_step(q, 64, False).max(axis=1).sum() / pairs_by_step(q, 64, True).max(axis=1).sum()
        for q in (2, 8, 32)
    }
    for q, ratio in many.items():
        claim.check(f"the same with {q} processes", ratio, expected=2 - 1 / q, tolerance=0.02)


@pytest.mark.claim("sparse-ring-overlap")
def test_the_ring_hides_its_transfers(claim):
    """A link as slow as a step's computation costs next to nothing, since the two run at once."""
    found = ring_measurements.measure()["overlap"]
    transfers = (ring_measurements.PROCESSES - 1) * found["delay"]
    share = 1 - (found["hidden"] - found["free"]) / transfers
    claim.note(
        **{name: found[name] for name in ("n", "rounds", "free", "delay")},
        processes=ring_measurements.PROCESSES,
        waiting=transfers,
    )
    claim.below("seconds, transfer during the computation", found["hidden"], found["exposed"])
    claim.above("seconds, transfer before the computation", found["exposed"], found["free"])
    claim.above("share of the transfer time that was hidden", share, 0.5, "times of a busy machine scatter")
