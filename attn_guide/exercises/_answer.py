"""The reader's function as a checker sees it: called with care, compared in words."""

from __future__ import annotations

import copy
import dataclasses
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence, Set
from numbers import Complex, Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

import attn_guide

SMALL = 64  # entries of an array that are still printed
WIDTH = 100


class WrongAnswer(Exception):
    """The answer is not right; the message tells the reader why."""


class Answer:
    """The reader's function, to be called by a checker.

    Parameters
    ----------
    name : str
        What the function is called, for messages.
    function : callable
        The reader's function.
    watch : callable, optional
        Is told every call, as text, before it is made.
    """

    def __init__(self, name: str, function: Callable[..., Any], watch: Callable[[str], None] | None = None) -> None:
        self.name = name
        self.cases = 0
        self._function = function
        self._watch = watch

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        """Call the function on copies of the arguments.

        Raises
        ------
        WrongAnswer
            If the call raises or changes an argument.
        """
        self.cases += 1
        given = ", ".join([*map(text, args), *(f"{key}={text(value)}" for key, value in kwargs.items())])
        call = f"{self.name}({given})"
        if self._watch:
            self._watch(call)
        passed, named = copy.deepcopy((args, kwargs))
        try:
            value = self._function(*passed, **named)
        except (Exception, SystemExit) as error:
            raise WrongAnswer(f"{call}\nraised {what_was_raised(error)}") from error
        for label, before, after in [
            *((f"argument {i + 1}", a, b) for i, (a, b) in enumerate(zip(args, passed, strict=True))),
            *((f"argument {key}", kwargs[key], named[key]) for key in kwargs),
        ]:
            if not unchanged(before, after):
                raise WrongAnswer(
                    f"{call}\nchanged its {label}; a function of this guide leaves its arguments as they are "
                    "(begin with a copy, or write `a = a + b` for `a += b`)"
                )
        return Result(call, value)


class Result:
    """What one call of the reader's function gave.

    Attributes
    ----------
    call : str
        The call, as text.
    value : object
        What came.
    """

    def __init__(self, call: str, value: Any) -> None:
        self.call = call
        self.value = value

    def equals(self, wanted: Any, tolerance: float = 1e-6) -> None:
        """Raise ``WrongAnswer`` unless what came is ``wanted``.

        Parameters
        ----------
        wanted : object
            A number, string, array, ``None``, or a sequence, set or dictionary of them. An array may come as nested
            lists, a whole number as a float, and 0 and 1 for False and True inside an array.
        tolerance : float
            How far numbers may be apart, relative to the largest wanted one (or absolutely, if that is below 1).
        """
        why = difference(self.value, wanted, tolerance)
        if why:
            self.fail(why, wanted)

    def holds(self, condition: Any, why_not: str) -> None:
        """Raise ``WrongAnswer`` with the reason ``why_not`` unless ``condition`` is true."""
        if not bool(condition):
            self.fail(why_not)

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return what came as float64, or raise ``WrongAnswer`` unless it is a finite array of that shape."""
        got = as_array(self.value)
        if got is None or got.dtype.kind not in "biuf":
            self.fail(f"{kind(self.value)} came; wanted an array of real numbers of shape {shape}")
        assert got is not None
        if got.shape != shape:
            self.fail(f"an array of shape {got.shape} came; wanted shape {shape}")
        if not np.isfinite(got).all():
            self.fail("the array holds NaN or infinity")
        return got.astype(np.float64)

    def number(self) -> float:
        """Return what came as a float, or raise ``WrongAnswer`` unless it is a finite number."""
        number = as_number(self.value)
        if number is None or isinstance(number, bool) or not np.isfinite(number):
            self.fail(f"{kind(self.value)} came; wanted a finite number")
        assert number is not None
        return float(number)

    def parts(self, count: int) -> list[Result]:
        """Return what came as so many results of their own, or raise ``WrongAnswer`` unless it is a tuple or list."""
        if not isinstance(self.value, tuple | list) or len(self.value) != count:
            self.fail(f"{kind(self.value)} came; wanted {count} values, as in `return a, b`")
        return [Result(self.call, value) for value in self.value]

    def fail(self, why: str, *wanted: Any) -> None:
        """Raise ``WrongAnswer``: the call, what came, what was wanted (if given), and why that is wrong."""
        lines = [self.call, *labelled("came", self.value)]
        for value in wanted:
            lines += labelled("wanted", value)
        raise WrongAnswer("\n".join([*lines, why]))


# ---------------------------------------------------------------------------------------------------------------------
# Comparing


def difference(got: Any, wanted: Any, tolerance: float) -> str:
    """Say how a value differs from the wanted one; empty if it does not."""
    if isinstance(wanted, np.ndarray) and wanted.ndim:
        return _array_difference(got, wanted, tolerance)
    if isinstance(wanted, np.ndarray | np.generic):
        wanted = wanted.item()
    if isinstance(wanted, bool) or wanted is None or isinstance(wanted, str):
        value = got.item() if isinstance(got, np.ndarray | np.generic) and np.ndim(got) == 0 else got
        same_kind = type(value) is type(wanted)
        if not same_kind:
            return f"{kind(got)} came; wanted {kind(wanted)}"
        return "" if value == wanted else f"{value!r} is not {wanted!r}"
    if isinstance(wanted, Real):
        return _number_difference(got, wanted, tolerance)
    if isinstance(wanted, Mapping):
        if not isinstance(got, Mapping):
            return f"{kind(got)} came; wanted a dictionary"
        if set(got) != set(wanted):
            return f"the keys are {text(sorted(got, key=str))}; wanted {text(sorted(wanted, key=str))}"
        return _first((f"[{key!r}]", difference(got[key], wanted[key], tolerance)) for key in wanted)
    if isinstance(wanted, Set):
        if not isinstance(got, Set):
            return f"{kind(got)} came; wanted a set"
        return "" if set(got) == set(wanted) else "the sets differ"
    if isinstance(wanted, Sequence):
        if isinstance(got, np.ndarray) and got.ndim:
            got = list(got)
        if isinstance(got, str) or not isinstance(got, Sequence):
            return f"{kind(got)} came; wanted a {type(wanted).__name__} of {len(wanted)}"
        if len(got) != len(wanted):
            return f"{len(got)} value{'s' * (len(got) != 1)} came; wanted {len(wanted)}"
        return _first((f"[{i}]", difference(got[i], wanted[i], tolerance)) for i in range(len(wanted)))
    raise TypeError(f"a checker wants {wanted!r}, which Result.equals cannot compare")


def _first(places: Any) -> str:
    """The first difference of several, with its place; a place inside a place is written [0][1]."""
    for place, why in places:
        if why:
            inner = why.removeprefix("at ") if why.startswith("at [") else f": {why}"
            return f"at {place}{inner}"
    return ""


def _number_difference(got: Any, wanted: Any, tolerance: float) -> str:
    number = as_number(got)
    if number is None or isinstance(number, bool):
        return f"{kind(got)} came; wanted a number"
    if np.isnan(number) and not np.isnan(wanted):
        return "NaN came: somewhere 0 was divided by 0, or infinity taken from infinity"
    if isinstance(wanted, Integral):
        return "" if number == wanted else f"{text(got)} is not {wanted}"
    near = number == wanted or abs(number - wanted) <= tolerance * max(1.0, abs(wanted))
    return "" if near or (np.isnan(number) and np.isnan(wanted)) else f"{text(got)} is not {text(wanted)}"


def _array_difference(got: Any, wanted: np.ndarray, tolerance: float) -> str:
    came = as_array(got)
    if came is None or came.dtype.kind not in "biufc":
        return f"{kind(got)} came; wanted an array of shape {wanted.shape}"
    if came.shape != wanted.shape:
        return f"an array of shape {came.shape} came; wanted shape {wanted.shape}"
    if came.dtype.kind == "c":
        return "the array holds complex numbers; wanted real ones"
    came, exact = came.astype(np.float64), wanted.astype(np.float64)
    new_nan = np.isnan(came) & ~np.isnan(exact)
    if new_nan.any():
        return (
            f"NaN came at {_place(new_nan)}: somewhere 0 was divided by 0, or infinity taken from infinity "
            f"({int(new_nan.sum())} of {came.size} entries)"
        )
    finite = np.abs(exact[np.isfinite(exact)])
    most = 0.0 if wanted.dtype.kind in "biu" else tolerance * max(1.0, finite.max(initial=0.0))
    with np.errstate(invalid="ignore"):
        wrong = ~((came == exact) | (np.abs(came - exact) <= most) | (np.isnan(came) & np.isnan(exact)))
    if not wrong.any():
        return ""
    where = np.unravel_index(int(wrong.argmax()), wrong.shape)
    count = f"{int(wrong.sum())} of {wrong.size} entries differ"
    as_wanted = wanted.dtype.type if wanted.dtype.kind == "b" and np.isin(came, (0, 1)).all() else np.float64
    return f"{count}, the first at {_place(wrong)}: {text(as_wanted(came[where]))} came, wanted {text(wanted[where])}"


def _place(where: np.ndarray) -> str:
    return "[" + ", ".join(str(int(i)) for i in np.unravel_index(int(where.argmax()), where.shape)) + "]"


def as_array(value: Any) -> np.ndarray | None:
    """Return an array or nested list as an array; None for anything else, ragged lists included."""
    if not isinstance(value, np.ndarray | list | tuple):
        return None
    try:
        return np.asarray(value)
    except ValueError:
        return None


def as_number(value: Any) -> Any:
    """Return a Python number for a number or an array without dimensions; None for anything else."""
    if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0:
        value = value.item()
    return value if isinstance(value, Real) else None


def unchanged(before: Any, after: Any) -> bool:
    """Whether a function left its argument alone; of objects other than arrays and containers, nothing is asked."""
    if isinstance(before, np.ndarray):
        same = isinstance(after, np.ndarray) and (before.shape, before.dtype) == (after.shape, after.dtype)
        return same and before.tobytes() == after.tobytes()
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(unchanged, before, after))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(unchanged(before[key], after[key]) for key in before)
    if isinstance(before, set):
        return before == after
    if dataclasses.is_dataclass(before):
        return all(unchanged(getattr(before, f.name), getattr(after, f.name)) for f in dataclasses.fields(before))
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Telling


def text(value: Any) -> str:
    """A value on one line; an array of many entries only by its shape."""
    if isinstance(value, np.ndarray):
        if not value.ndim:
            return text(value.item())
        if value.size > SMALL:
            return f"<array {value.shape}>"
        return " ".join(np.array2string(value, precision=3, suppress_small=True, separator=", ").split())
    if isinstance(value, np.generic):
        return text(value.item())
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        ends = "[]" if isinstance(value, list) else "()"
        inside = ", ".join(map(text, value)) + ("," if ends == "()" and len(value) == 1 else "")
        return textwrap.shorten(f"{ends[0]}{inside}{ends[1]}", 4 * WIDTH, placeholder=" ...")
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    if isinstance(value, np.random.Generator):
        return "rng"
    return textwrap.shorten(repr(value), 2 * WIDTH, placeholder=" ...")


def labelled(label: str, value: Any) -> list[str]:
    """Lines such as ``came    3``, or the rows of an array below each other."""
    array = value if isinstance(value, np.ndarray) else None
    if array is None and isinstance(value, list) and (array := as_array(value)) is not None:
        array = array if array.dtype.kind in "biuf" else None
    if array is None or not 0 < array.size <= SMALL or array.ndim < 2:
        shown = text(value)
    else:
        shown = np.array2string(array, precision=4, suppress_small=True)
    return [f"  {'' if i else label:8}{line}" for i, line in enumerate(shown.splitlines())]


def kind(value: Any) -> str:
    """What sort of thing a value is, with its article."""
    if value is None:
        return "nothing (None)"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, bool | np.bool_):
        return "True or False"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Real):
        return "a number"
    if isinstance(value, Complex):
        return "a complex number"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def what_was_raised(error: BaseException) -> str:
    """The error, and the line of the reader's file it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_NOT_READERS)]
    place = f"\n  in line {own[-1].lineno}: {own[-1].line}" if own and own[-1].line else ""
    message = str(error).strip()
    if isinstance(error, SystemExit):
        message = "the answer ended its program; return the result instead"
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"


_NOT_READERS = tuple(str(Path(module.__file__).parent) for module in (np, attn_guide) if module.__file__)
