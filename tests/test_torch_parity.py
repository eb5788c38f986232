"""Every case of the parity table holds, on every device there is, and a wrong function would not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from guide_ext import parity

CASES = parity.cases()
NAMES = [f"{case.mechanism}, {case.mask}" for case in CASES]


def test_cases_are_told_apart_by_what_they_say():
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_torch_path_agrees_with_the_reference(case):
    for dtype in parity.DTYPES:
        for found in parity.errors(case, dtype):
            assert found.holds, (dtype, found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no CUDA device")
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_torch_path_agrees_with_the_reference_on_a_gpu(case):
    for dtype in parity.DTYPES:
        for found in parity.errors(case, dtype, "cuda"):
            assert found.holds, (dtype, found)


@pytest.mark.parametrize("dtype", parity.DTYPES)
@pytest.mark.parametrize("name", ["Dot-product attention, causal", "Linear attention, none", "Softmax, "])
def test_an_error_in_the_torch_path_breaks_the_bound(name, dtype):
    """One entry off by three units in half precision, by more units than a sum has terms in the wide formats."""
    case = CASES[NAMES.index(name)]
    step = torch.finfo(dtype).eps * (3 if dtype in (torch.float16, torch.bfloat16) else 400)

    def wrong(*tensors):
        out = case.ours(*tensors).clone()
        worst = out.abs().flatten().argmax()
        out.view(-1)[worst] *= 1 + step
        return out

    assert not any(found.holds for found in parity.errors(replace(case, ours=wrong), dtype))


def test_a_result_that_is_no_number_is_an_error():
    case = replace(CASES[0], ours=lambda q, k, v: torch.full_like(q, float("nan")))
    assert not parity.error(case, "square", torch.float32).holds
