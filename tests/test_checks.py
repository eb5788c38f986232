"""_checks.py: what is accepted comes back unharmed, what is refused is named with what came and what was wanted."""

from __future__ import annotations

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from attn_guide import _checks as c

# ---------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_floating_arrays_are_not_copied(dtype):
    x = np.ones(3, dtype)
    assert c.as_float_array("x", x) is x


@pytest.mark.parametrize("x", [[1, 2], np.ones(2, np.uint8), 3, np.int64(4)])
def test_integers_become_float64(x):
    assert c.as_float_array("x", x).dtype == np.float64


def test_compute_dtype_is_at_least_float32():
    f16, bf16, f32, f64 = (np.ones(1, t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))
    assert c.compute_dtype(f16) == c.compute_dtype(bf16, f16) == c.compute_dtype(f32, bf16) == np.float32
    assert c.compute_dtype(f16, f64) == np.float64


@pytest.mark.parametrize(
    ("check", "good", "want"),
    [
        (c.check_probability, 1, 1.0),
        (c.check_probability, np.float32(0.5), 0.5),
        (c.check_positive, np.int64(2), 2.0),
        (c.check_finite, -1, -1.0),
        (c.check_integer, np.int32(0), 0),
    ],
)
def test_numbers_come_back_as_python_numbers(check, good, want):
    got = check("x", good)
    assert got == want
    assert type(got) in (int, float)


def test_axes_count_from_the_front():
    x = np.zeros((2, 3, 4))
    assert [c.check_axis("axis", a, x) for a in (-3, -1, 0, 2)] == [0, 2, 0, 2]


def test_masks_are_views_spread_over_queries_and_keys_only():
    mask = np.array([True, False, True])
    got = c.as_mask("mask", mask, (8, 5, 3))
    assert got.shape == (5, 3)
    assert got.base is not None
    assert np.shares_memory(got, mask)
    assert c.as_mask("mask", True, (8, 5, 3)).shape == (5, 3)
    assert c.as_mask("mask", np.zeros((8, 1, 3)), (8, 5, 3)).shape == (8, 5, 3)
    assert c.as_mask("mask", np.zeros((1, 1, 3), ml_dtypes.bfloat16), (8, 5, 3)).shape == (1, 5, 3)
    np.testing.assert_array_equal(c.as_mask("mask", [[-np.inf, 0.0]], (1, 2)), [[-np.inf, 0.0]])
    assert c.as_mask("mask", np.zeros((0, 4)), (0, 4)).shape == (0, 4)


def test_attention_inputs_that_fit():
    q, k, v = np.zeros((2, 6, 5, 4)), np.zeros((2, 3, 7, 4)), np.zeros((1, 3, 7, 9))
    for x, y in zip(c.check_attention_inputs(q, k, v, enable_gqa=True), (q, k, v), strict=True):
        assert x is y
    assert len(c.check_attention_inputs(q[0, 0], k[0, 0], v[0, 0])) == 3
    assert len(c.check_attention_inputs(q, k[:, :1], v[:, :1])) == 3  # heads broadcast


# ----------------------------------------------------------------------------------------------- refused

Z = np.zeros
BAD = {
    "complex": (TypeError, "x has dtype complex128", lambda: c.as_float_array("x", 1j)),
    "bool": (TypeError, "x has dtype bool", lambda: c.as_float_array("x", [True])),
    "None": (TypeError, "x has dtype object", lambda: c.as_float_array("x", None)),
    "longdouble": (TypeError, "x has dtype", lambda: c.as_float_array("x", Z(1, np.longdouble))),
    "ragged": (ValueError, "rectangular", lambda: c.as_float_array("x", [[1], [1, 2]])),
    "ndim": (ValueError, r"x has shape \(3,\); wanted \(n, d\)", lambda: c.check_ndim("x", Z(3), 2, "(n, d)")),
    "probability low": (ValueError, r"p is -0.1; wanted a number in \[0, 1\]", lambda: c.check_probability("p", -0.1)),
    "probability NaN": (ValueError, "p is nan", lambda: c.check_probability("p", float("nan"))),
    "probability bool": (TypeError, "p is True of type bool", lambda: c.check_probability("p", True)),
    "probability text": (TypeError, "p is '1' of type str", lambda: c.check_probability("p", "1")),
    "positive zero": (ValueError, "x is 0", lambda: c.check_positive("x", 0)),
    "positive inf": (ValueError, "x is inf", lambda: c.check_positive("x", float("inf"))),
    "positive bool": (TypeError, "x is True", lambda: c.check_positive("x", True)),
    "finite NaN": (ValueError, "x is nan", lambda: c.check_finite("x", float("nan"))),
    "finite None": (TypeError, "x is None", lambda: c.check_finite("x", None)),
    "integer": (ValueError, "x is 2; wanted an integer of at least 3", lambda: c.check_integer("x", 2, 3)),
    "integer float": (TypeError, "x is 2.0 of type float", lambda: c.check_integer("x", 2.0)),
    "integer bool": (TypeError, "x is True of type bool", lambda: c.check_integer("x", True)),
    "choice": (ValueError, "x is 'c'; wanted one of 'a', 'b'", lambda: c.check_choice("x", "c", ("a", "b"))),
    "rng": (TypeError, r"rng is 0; wanted a numpy.random.Generator", lambda: c.check_rng("rng", 0)),
    "rng legacy": (TypeError, "rng", lambda: c.check_rng("rng", np.random.RandomState(0))),
    "axis": (ValueError, "axis is 2; wanted an axis", lambda: c.check_axis("axis", 2, Z((1, 1)))),
    "axis type": (TypeError, "axis is 1.0", lambda: c.check_axis("axis", 1.0, Z((1, 1)))),
    "condition dtype": (TypeError, "where has dtype", lambda: c.as_condition("where", [1], (1,))),
    "condition shape": (ValueError, r"where has shape \(3,\)", lambda: c.as_condition("where", [True] * 3, (2,))),
    "mask dtype": (TypeError, "mask has dtype int64", lambda: c.as_mask("mask", np.ones((2, 2), int), (2, 2))),
    "mask boolean": (TypeError, "mask", lambda: c.as_mask("mask", Z((2, 2)), (2, 2), boolean=True)),
    "mask shape": (ValueError, r"mask has shape \(3, 2\)", lambda: c.as_mask("mask", Z((3, 2)), (2, 2))),
    "mask too deep": (ValueError, "mask has shape", lambda: c.as_mask("mask", Z((5, 2, 2)), (2, 2))),
    "mask NaN": (ValueError, "mask holds NaN", lambda: c.as_mask("mask", [[np.nan, 0]], (1, 2))),
    "mask NaN and inf": (ValueError, "mask holds NaN", lambda: c.as_mask("mask", [[np.inf, np.nan]], (1, 2))),
    "mask inf": (ValueError, r"mask holds \+inf", lambda: c.as_mask("mask", [[np.inf, 0]], (1, 2))),
    "query ndim": (ValueError, "query", lambda: c.check_attention_inputs(Z(3), Z((3, 3)), Z((3, 3)))),
    "width": (ValueError, "key has width 2", lambda: c.check_attention_inputs(Z((3, 3)), Z((3, 2)), Z((3, 3)))),
    "length": (ValueError, "value has length 4", lambda: c.check_attention_inputs(Z((3, 3)), Z((3, 3)), Z((4, 3)))),
    "value heads": (
        ValueError,
        "value has 3 heads; wanted the 2 heads of key",
        lambda: c.check_attention_inputs(Z((4, 1, 1)), Z((2, 1, 1)), Z((3, 1, 1)), enable_gqa=True),
    ),
    "no key heads": (
        ValueError,
        "query has 4 heads and key 0",
        lambda: c.check_attention_inputs(Z((4, 1, 1)), Z((0, 1, 1)), Z((0, 1, 1)), enable_gqa=True),
    ),
    "batch": (
        ValueError,
        "leading dimensions",
        lambda: c.check_attention_inputs(Z((2, 4, 1, 1)), Z((3, 4, 1, 1)), Z((3, 4, 1, 1)), enable_gqa=True),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message) as caught:
        call()
    assert caught.type is error


def test_mixed_dtypes_are_listed():
    with pytest.raises(TypeError, match="a, b must share one dtype; got a float32, b float64"):
        c.same_float_dtype(a=np.ones(1, np.float32), b=np.ones(1))


# ------------------------------------------------------------------------------------------------ import


def test_importing_the_package_needs_numpy_alone():
    code = (
        "import sys, attn_guide; print(sorted(m for m in ('torch', 'scipy', 'matplotlib', 'onnx') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
