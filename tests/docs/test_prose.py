"""The pass over a page: what runs, what is substituted, and what a failure says."""

from __future__ import annotations

import pickle
import re
import textwrap
from pathlib import Path

import pytest
from guide_ext import prose
from sybil.example import SybilFailure

ROOT = Path(__file__).resolve().parents[2]


def page(text: str, **names):
    made = prose.parse(textwrap.dedent(text), "/tmp/page.md", lambda id: {"samples": 1000, "id": id})
    made.namespace.update(names)
    return made.run()


def line_of(text: str, needle: str) -> int:
    return textwrap.dedent(text).splitlines().index(needle) + 1


# -- values


@pytest.mark.parametrize(
    ("source", "text", "math"),
    [
        ("2 / 3:.2f", "0.67", "0.67"),
        ("-0.5", "−0.5", "-0.5"),
        ("1.5e-05:.1e", "1.5 × 10⁻⁵", r"1.5 \times 10^{-5}"),
        ("-2e12:.0e", "−2 × 10¹²", r"-2 \times 10^{12}"),
        ("200_000:,", "200,000", "200{,}000"),
        ("0.955:.1%", "95.5%", r"95.5\%"),
        ("float('inf')", "∞", r"\infty"),
        ("'causal'", "causal", "causal"),
        ('{"a": 3}["a"]', "3", "3"),
        ("{2: 5}[2]:>2d", " 5", " 5"),
        ("(lambda x: x + 1)(2)", "3", "3"),
        ("[i for i in range(4) if i != 2][-1]", "3", "3"),
        ("'x'!r", "'x'", "'x'"),
    ],
)
def test_a_calc_gives_what_the_f_string_field_gives(source, text, math):
    made = page(f"Value: {{calc}}`{source}` and $\\calc{{{source}}}$\n")
    assert made.failures == []
    assert made.substituted() == f"Value: {{computed}}`{text}{prose.SEPARATOR}{source}` and ${math}$\n"


def test_values_stand_in_tables_headings_formulas_and_options():
    made = page(
        r"""
        # At {calc}`d` the variance is {calc}`1 / d:.3f`

        | a | b |
        |---|---|
        | {calc}`d | 1` | {math}`\calc{d}` |

        $$
        \frac{\calc{d}}{\given{512}} = \calc{d / 512:.3f}
        $$

        ```{math}
        \calc{d}
        ```

        :::{figure} picture.svg
        :alt: The value {calc}`d`
        The caption says {calc}`d`.
        :::
        """,
        d=64,
    )
    assert made.failures == []
    unit = prose.SEPARATOR
    assert made.substituted() == textwrap.dedent(
        rf"""
        # At 64 the variance is 0.016

        | a | b |
        |---|---|
        | {{computed}}`65{unit}d \| 1` | {{math}}`64` |

        $$
        \frac{{64}}{{512}} = 0.125
        $$

        ```{{math}}
        64
        ```

        :::{{figure}} picture.svg
        :alt: The value 64
        The caption says {{computed}}`64{unit}d`.
        :::
        """
    )


def test_code_and_comments_are_left_as_they_are():
    text = r"""
    `` {calc}`1 + 1` `` and `\calc{1}` stay; so does

    ```text
    {calc}`1 + 1` \calc{1}
    ```

    ````markdown
    ```python
    raise RuntimeError("shown, not run")
    ```
    {calc}`undefined`
    ````

    % {calc}`undefined`

    <!--
    {calc}`undefined`
    -->
    """
    made = page(text)
    assert made.failures == []
    assert made.substituted() == textwrap.dedent(text)


def test_the_front_matter_is_left_as_it_is():
    text = "---\ntitle: '{calc}`undefined`'\n---\n{calc}`1`\n"
    made = prose.parse(text, "/tmp/page.md").run()
    assert made.failures == []
    assert made.substituted().startswith("---\ntitle: '{calc}`undefined`'\n---\n")


def test_the_number_of_lines_never_changes():
    made = page(
        """
        A long one: {calc}`sum([1,
        2, 3])` goes on.

        After.
        """
    )
    assert made.failures == []
    assert made.substituted().splitlines()[-1] == "After."
    assert len(made.substituted().splitlines()) == 5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("undefined + 1", "undefined + 1: NameError: name 'undefined' is not defined"),
        ("1 +", "'1 +' is not an expression"),
        ("1 / 3", "1 / 3 gives 0.3333333333333333: say how many digits, as in 1 / 3:.2f"),
        ("''", "gives ''"),
        ("'a\\nb'", "backslash"),
        ("1} and {2", "not a single expression"),
        ("x := 3", "not defined"),
        ("'one':.2f", "ValueError: Unknown format code"),
        ('{"a": 1}["b"]', "KeyError: b"),
    ],
)
def test_a_broken_calc_says_what_is_wrong(source, message):
    made = page(f"First line.\n\nThen {{calc}}`{source}` here.\n")
    (line, said), *others = made.failures
    assert line == 3
    assert not others
    if source != "'a\\nb'":  # which Python 3.12 allows in an f-string: then the line break is refused
        assert message in said
    else:
        assert "backslash" in said or "one line" in said


def test_one_broken_calc_does_not_hide_another():
    made = page("{calc}`a`\n\n{calc}`1 + 1`\n\n$\\calc{b}$\n")
    assert [line for line, _ in made.failures] == [1, 5]
    assert "{computed}`2" in made.substituted()


@pytest.mark.parametrize("text", ["$\\calc{ {1, 2}$", "{calc}`1 + 1"])
def test_a_calc_that_is_not_closed_is_an_error(text):
    ((line, message),) = page(text).failures
    assert line == 1
    assert "not closed" in message


def test_measured_is_known_to_calcs_and_hidden_blocks_alone():
    made = page(
        """
        % invisible-code-block: python
        %
        % samples = measured("home-x")["samples"]

        {calc}`samples` {calc}`measured("home-y")["samples"]:,`

        ```python
        measured
        ```
        """
    )
    assert made.measured_ids == {"home-x", "home-y"}
    assert made.failures == [(9, "NameError: name 'measured' is not defined")]


# -- code


def test_blocks_share_one_namespace_from_top_to_bottom():
    made = page(
        """
        ```python
        def double(x):
            return factor * x

        factor = 2
        ```

        - In a list

          ```python
          >>> double(4)
          8
          ```

        > ```python
        > four = double(2)
        > ```

        ::::{dropdown} Solution
        :::{note}
        ```python
        five = four + 1
        ```
        :::
        ::::

        ````{dropdown} Another
        :color: primary

        ```{code-block} python
        :linenos:

        six = five + 1
        ```
        ````

        <!-- invisible-code-block: python
        seven = six + 1
        -->

        ~~~python
        eight = seven + 1
        ~~~

        {calc}`eight`
        """
    )
    assert made.failures == []
    assert "{computed}`8" in made.substituted()


FAILING = {
    "in a block": (
        """
        Text.

        ```python
        x = 1

        y = x / 0
        ```
        """,
        "y = x / 0",
        "ZeroDivisionError",
    ),
    "in a function of an earlier block": (
        """
        ```python
        def f():
            return undefined
        ```

        ```python
        f()
        ```
        """,
        "    return undefined",
        "NameError",
    ),
    "in a syntax": (
        """
        ```python
        x = 1
        y = = 2
        ```
        """,
        "y = = 2",
        "SyntaxError",
    ),
    "in a doctest of a list": (
        """
        1. Text

           ```python
           >>> x = 1

           >>> x
           2
           ```
        """,
        "   >>> x",
        "Got:\n    1",
    ),
    "in a hidden block": (
        """
        % invisible-code-block: python
        %
        % x = 1
        % assert x == 2

        Text.
        """,
        "% assert x == 2",
        "AssertionError",
    ),
    "in a code-block with options": (
        """
        ```{code-block} python
        :linenos:
        :caption: A caption

        x = 1
        x.y
        ```
        """,
        "x.y",
        "AttributeError",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_failure_names_the_line_of_the_page(case):
    text, culprit, message = FAILING[case]
    ((line, said),) = page(text).failures
    assert line == line_of(text, culprit)
    assert message in said


def test_after_a_block_that_fails_nothing_runs():
    made = page("```python\nx = 1\n1 / 0\n```\n\n```python\nx = 2\n```\n\n{calc}`x`\n")
    assert made.failures == [(3, "ZeroDivisionError: division by zero")]
    assert made.namespace["x"] == 1


@pytest.mark.parametrize(
    "info", ["py", "python3", "pycon", "ipython", "Python", "python title", "{code-block} py", "{doctest}"]
)
def test_a_fence_that_nearly_says_python_is_refused(info):
    ((line, message),) = page(f"Text.\n\n```{info}\n>>> 1\n2\n```\n").failures
    assert line == 3
    assert "write ```python" in message


def test_code_beside_prompts_would_not_run_and_is_refused():
    ((line, message),) = page("```python\n>>> x = 1\n\ny = 2\n```\n").failures
    assert line == 1
    assert "'y = 2'" in message


def test_a_block_can_be_skipped_with_a_reason():
    made = page('% skip: next "needs a GPU"\n\n```python\n1 / 0\n```\n\n```python\nx = 1\n```\n\n{calc}`x`\n')
    assert made.failures == []
    assert made.namespace["x"] == 1


def test_print_options_of_one_page_do_not_reach_another():
    setting = "```python\nimport numpy as np\nnp.set_printoptions(precision=2)\n```\n\n"
    looking = "```python\nimport numpy as np\n```\n\n{calc}`np.get_printoptions()['precision']`\n"
    assert "{computed}`2" in page(setting + looking).substituted()
    assert "{computed}`8" in page(looking).substituted()


# -- comparing numbers


@pytest.mark.parametrize(
    ("want", "got", "same"),
    [
        ("0.67", "0.6652409557748219", True),
        ("0.67", "0.66", False),
        ("0.67", "0.6649", False),
        ("0.6652", "0.6652409557748219", True),
        ("0.66524096", "0.66524097", True),
        ("0.66524096", "0.66524396", False),
        ("array([1., 0.])", "array([1., 0.])", True),
        ("array([1., 0.])", "array([0., 1.])", False),
        ("array([1., 0.])", "array([0.99999999, 1e-17])", True),
        ("array([2., 0.])", "array([2.4, 0.])", False),
        ("1e-05", "1.2e-05", True),
        ("1e-05", "2e-05", False),
        ("3", "4", False),
        ("12", "12.0", False),
        ("-0.50", "0.50", False),
        ("[0.1, 0.2]", "[0.1, 0.2, 0.3]", False),
        ("[0.1, ...]", "[0.1, 0.2, 0.3]", True),
        ("a    b", "a b", True),
        ("nan", "0.5", False),
    ],
)
def test_numbers_are_held_to_the_precision_they_are_printed_with(want, got, same):
    assert prose.NumberChecker().check_output(want + "\n", got + "\n", prose.OPTIONS) is same


def test_an_expected_exception_is_checked():
    text = "```python\n>>> [][1]\nTraceback (most recent call last):\n    ...\nIndexError: {}\n```\n"
    assert page(text.format("list index out of range")).failures == []
    assert len(page(text.format("something else")).failures) == 1


# -- in pytest


def test_pytest_runs_each_example_and_names_the_line(project):
    project.write(
        "docs/index.md",
        "# Page\n\n```python\nx = 2\n```\n\nThe value {calc}`x` and {calc}`y`.\n\n```python\n>>> x\n3\n```\n",
    )
    outcome = project.pytest("docs")
    assert outcome.code == 1
    assert "2 failed, 2 passed" in outcome.output
    assert "index.md:7" in outcome.output
    assert "name 'y' is not defined" in outcome.output
    assert "index.md:10" in outcome.output
    assert re.search(r"Expected:\n\s+3\nGot:\n\s+2", outcome.output)


def test_an_example_selected_alone_brings_those_above_it(project):
    project.write("docs/index.md", "```python\nx = 2\n```\n\n```python\ny = x\n```\n\n```python\n>>> y\n2\n```\n")
    outcome = project.pytest("docs/index.md::line:10,column:1")
    assert outcome.code == 0, outcome.output
    assert "1 passed" in outcome.output


def test_workers_share_a_page(project):
    blocks = "".join(f"```python\n>>> x = x + 1\n>>> x\n{n}\n```\n\n" for n in range(1, 9))
    project.write("docs/index.md", "```python\nx = 0\n```\n\n" + blocks)
    outcome = project.pytest("docs", "-n", "2", "--dist", "load")
    assert outcome.code == 0, outcome.output
    assert "17 passed" in outcome.output


def test_readme_and_docstrings_are_collected_and_docstrings_stand_alone(project):
    project.write("README.md", "```python\n>>> 1 + 1\n2\n```\n")
    project.write("attn_guide/__init__.py", "")
    project.write(
        "attn_guide/core.py",
        'import math\n\n\ndef half(x):\n    """Half.\n\n    >>> here = half(3.0)\n    >>> here\n    1.5\n    """\n'
        '    return x / 2\n\n\ndef third(x):\n    """Third.\n\n    >>> math.isclose(third(1.0), 0.25)\n    True\n'
        '    >>> here\n    1.5\n    """\n    return x / 3\n',
    )
    outcome = project.pytest("README.md", "attn_guide")
    assert outcome.code == 1
    assert "3 passed" in outcome.output
    assert "2 failed" in outcome.output
    assert "core.py:17" in outcome.output
    assert "core.py:19" in outcome.output  # the name of another docstring is not known here
    assert "name 'here' is not defined" in outcome.output


# -- in Sphinx


def test_sphinx_shows_the_values(project):
    project.write(
        "docs/index.md",
        "# Two thirds is {calc}`2 / 3:.2f`\n\n```python\nx = 1 / 8\nprint('quiet')\n```\n\n"
        "In text {calc}`x`, minus {calc}`-x`, in math $\\calc{x}$, given {given}`512`.\n",
    )
    outcome = project.build("-W")
    assert outcome.code == 0, outcome.output
    assert "quiet" not in outcome.output
    html = project.html()
    assert "<h1>Two thirds is 0.67" in html
    assert '<span class="computed" title="x">0.125</span>' in html
    assert '<span class="computed" title="-x">−0.125</span>' in html
    assert '<span class="given">512</span>' in html
    assert "\\(0.125\\)" in html


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("# T\n\n{calc}`undefined`\n", "index.md:3", "name 'undefined' is not defined"),
        ("# T\n\n```python\nx = 1\n1 / 0\n```\n", "index.md:5", "ZeroDivisionError"),
        ("# T\n\n```python\n>>> 1 + 1\n3\n```\n", "index.md:4", "Got:"),
    ],
)
def test_a_page_that_fails_fails_the_build_every_time(project, text, where, message):
    project.write("docs/index.md", text)
    project.write("docs/other.md", "---\norphan: true\n---\n# Other\n")
    for _ in range(2):
        outcome = project.build()
        assert outcome.code == 1
        assert where in outcome.output
        assert message in outcome.output
    assert (project.root / "_build/html/other.html").is_file()
    project.write("docs/index.md", "# T\n\nAll is well.\n")
    assert project.build().code == 0


def test_a_page_depends_on_what_its_code_uses_of_the_package(project):
    project.write(
        "docs/index.md", "# T\n\n```python\nimport attn_guide as ag\n```\n\n{calc}`ag.softmax([0.0])[0]:.1f`\n"
    )
    project.write("docs/other.md", "---\norphan: true\n---\n# T\n\n{calc}`1 + 1`\n")
    outcome = project.build("-W")
    assert outcome.code == 0, outcome.output
    environment = pickle.loads((project.root / "_build/html/.doctrees/environment.pickle").read_bytes())
    names = {doc: {Path(name).name for name in files} for doc, files in environment.dependencies.items()}
    assert "core.py" in names["index"]
    assert "taxonomy.py" not in names["index"]
    assert not names.get("other")


def test_pages_are_read_in_parallel(project):
    for name in "abcdefgh":
        value = "undefined" if name == "c" else "1 + 1"
        project.write(f"docs/{name}.md", f"---\norphan: true\n---\n# {name}\n\n{{calc}}`{value}`\n")
    outcome = project.build("-j", "2")
    assert outcome.code == 1
    assert "c.md:6" in outcome.output
    assert "not safe for parallel" not in outcome.output


def test_a_failure_is_an_assertion_with_its_example():
    made = prose.parse("```python\n>>> 1\n2\n```\n", "/tmp/page.md")
    (example,) = made.examples()
    with pytest.raises(SybilFailure, match="line 2"):
        example.evaluate()
