"""Chapters as notebooks: what the prose becomes, what the code becomes, and what running a notebook would notice."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from guide_ext import notebooks
from guide_ext.figures import NOTEBOOK_END
from small_guide import Project

from tools import notebooks as runner

PAGE = """\
# Chapter 0: Small

Three is \\*not\\* {calc}`1 + 1`; see [below](#small-end), $\\softmax(\\Q)$ and a*b.

% invisible-code-block: python
% unseen = 5

:::{admonition} What you need first
A pencil.
:::

## Code

```python
>>> import math
>>> import attn_guide.torch

>>> for i in range(2):
...     print(i)
0
1
>>> root = math.sqrt(2)
>>> root
1.4142135623730951
>>> with open("/dev/null"):
...     root * 2
2.8284271247461903
>>> 1 / 0
Traceback (most recent call last):
ZeroDivisionError: division by zero
```

```text
not run
```

% skip: next "another machine"

```python
never()
```

| a | b |
|---|---|
| $p(x \\mid y \\| z)$, \\| | `code` |

$$
x &= 1 \\\\
y &= \\query{W_Q}
$$ (eq-two)

![A square](square.svg)

- one
- two

  with a second paragraph

(small-end)=
## Exercises

**Exercise 0.1.** Write `two()`.

:::{dropdown} Solution
It is short.

```python
>>> def two():
...     return 2
>>> two()
2
```

And that is all.
:::

:::{dropdown} A hint
Think.
:::
"""


@pytest.fixture
def small(project: Project) -> Project:
    conf = project.root / "conf.py"
    text = conf.read_text().replace(
        '"guide_ext.prose"', '"sphinx_design", "guide_ext.mathml", "guide_ext.notebooks", "guide_ext.prose"'
    )
    conf.write_text(
        text + 'html_baseurl = "https://example.org/guide/"\nhtml_math_renderer = "mathml"\nrelease = "1.2"\n'
    )
    project.write("docs/index.md", "# Small\n\n```{toctree}\nchapters/0-small\n```\n")
    project.write("docs/chapters/0-small.md", PAGE)
    project.write("docs/chapters/square.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    return project


@pytest.fixture
def made(small: Project) -> Path:
    """The notebook of a small chapter."""
    result = small.build("-W")
    assert result.code == 0, result.output
    assert not (small.root / "_build" / "html" / "index.ipynb").exists()
    return small.root / "_build" / "html" / "chapters" / "0-small.ipynb"


def cells(path: Path, kind: str) -> list[str]:
    told = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in told if cell["cell_type"] == kind]


def test_it_is_a_notebook_of_the_format_and_the_same_for_the_same_page(made: Path, small: Project) -> None:
    notebook = json.loads(made.read_text(encoding="utf-8"))
    assert list(runner.faults(notebook)) == []
    before = made.read_bytes()
    made.unlink()
    small.write("docs/chapters/0-small.md", PAGE + "\n")
    assert small.build("-W").code == 0
    assert made.read_bytes() == before


def test_the_first_cell_says_what_to_install(made: Path) -> None:
    first = cells(made, "markdown")[0]
    assert first.startswith("# Chapter 0: Small\n")
    assert 'pip install "attn-guide[torch]==1.2"' in first
    assert "https://example.org/guide/chapters/0-small.html" in first
    assert cells(made, "code")[0] == '# %pip install "attn-guide[torch]==1.2"'


def test_prose_is_markdown_with_values_links_and_formulas(made: Path) -> None:
    first = cells(made, "markdown")[0]
    assert r"Three is \*not\* 2; see [below](https://example.org/guide/chapters/0-small.html#small-end)" in first
    assert r"$\operatorname{softmax}({\color{#1946a1}{Q}})$ and a\*b." in first
    assert "> **What you need first**\n>\n> A pencil." in first
    assert "unseen" not in made.read_text(encoding="utf-8")
    text = "\n\n".join(cells(made, "markdown"))
    assert r"| $p(x \mid y \vert  z)$, \| | `code` |" in text
    assert "$$\n\\begin{aligned} x &= 1 \\\\ y &= {\\color{#1946a1}{W_Q}} \\end{aligned} \\tag{1}\n$$" in text
    assert "![A square](https://example.org/guide/_images/square.svg)" in text
    assert "- one\n- two\n\n  with a second paragraph" in text
    assert "```text\nnot run\n```" in text
    assert "```python\nnever()\n```" in text
    assert "<details><summary>A hint</summary>\n\nThink.\n\n</details>" in text


def test_code_is_a_cell_for_each_output(made: Path) -> None:
    told = [c for c in json.loads(made.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"][1:]
    assert ["".join(cell["source"]) for cell in told] == [
        "import math\nimport attn_guide.torch\n\nfor i in range(2):\n    print(i)",
        "root = math.sqrt(2)\nroot",
        'with open("/dev/null"):\n    print(repr(root * 2))',
        "1 / 0",
        "def two():\n    return 2\n\ntwo()",
    ]
    kinds = [cell["outputs"][0]["output_type"] for cell in told]
    assert kinds == ["stream", "execute_result", "stream", "error", "execute_result"]
    assert told[3]["metadata"] == {"tags": ["raises-exception"]}


def test_solutions_are_closed(made: Path) -> None:
    told = json.loads(made.read_text(encoding="utf-8"))["cells"]
    at = next(i for i, cell in enumerate(told) if "solution" in cell["metadata"].get("tags", ()))
    assert told[at]["metadata"]["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
    assert "<details><summary>Solution</summary>\n\nIt is short.\n\n</details>" in "".join(told[at - 1]["source"])
    assert "And that is all." in "".join(told[at + 1]["source"])


def test_running_it_notices_a_wrong_output_and_a_missing_name(made: Path, tmp_path: Path) -> None:
    assert list(runner.run(made)) == []
    notebook = json.loads(made.read_text(encoding="utf-8"))
    wrong = copy.deepcopy(notebook)
    next(c for c in wrong["cells"] if c.get("outputs"))["outputs"][0]["text"] = "0\n2\n"
    other = tmp_path / "wrong.ipynb"
    other.write_text(json.dumps(wrong), encoding="utf-8")
    assert len(list(runner.run(other))) == 1
    missing = copy.deepcopy(notebook)
    missing["cells"] = [c for c in missing["cells"] if "sqrt" not in "".join(c["source"])]
    other.write_text(json.dumps(missing), encoding="utf-8")
    assert any("NameError: name 'root'" in fault for fault in runner.run(other))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda n: n.update(nbformat_minor=4), "the format is 4.4"),
        (lambda n: n["metadata"].clear(), "no kernel"),
        (lambda n: n["cells"][0].pop("id"), "cell 1: a markdown cell with the keys"),
        (lambda n: n["cells"][1].update(id=n["cells"][0]["id"]), "cell 2: the id"),
        (lambda n: n["cells"][1].update(source=None), "cell 2: its source"),
        (lambda n: n["cells"][1].update(outputs=[{"output_type": "stream"}]), "cell 2: an output"),
        (lambda n: n.pop("metadata"), "the keys are not those"),
    ],
)
def test_what_the_format_forbids_is_named(change, complaint: str) -> None:
    notebook = json.loads(
        notebooks.notebook(
            [{"cell_type": "markdown", "metadata": {}, "source": "a"}, notebooks.code_cell("1", "")], "t"
        )
    )
    assert list(runner.faults(notebook)) == []
    change(notebook)
    assert any(complaint in fault for fault in runner.faults(notebook)), list(runner.faults(notebook))


@pytest.mark.parametrize(
    ("source", "pip"),
    [
        ("import numpy as np", "attn-guide==1"),
        ("from attn_guide import plot\nimport torch", "attn-guide[plot,torch]==1"),
        ("from attn_guide.models import load", "attn-guide[models]==1"),
    ],
)
def test_what_to_install_follows_from_the_imports(source: str, pip: str) -> None:
    assert notebooks.requirement(source, "1") == pip


def test_a_gallery_notebook_shows_its_figure_and_one_without_is_noticed(tmp_path: Path) -> None:
    drawing = """\
from attn_guide import plot
fig = plot.figure("notebook-demo", title="One line", caption="Drawn here.", size=(3.2, 2.0))
fig.subplots().plot([1, 2])"""
    path = tmp_path / "plot_demo.ipynb"

    def write(*sources: str) -> None:
        told = [notebooks.code_cell(source, "") for source in sources]
        path.write_text(notebooks.notebook(told, "Demo"), encoding="utf-8")

    write(drawing, NOTEBOOK_END)
    assert list(runner.run(path)) == []
    write(drawing, "plot.take()")
    assert list(runner.run(path)) == ["it shows no figure"]
    write("import attn_guide.nothing", NOTEBOOK_END)
    assert "ModuleNotFoundError" in "".join(runner.run(path))


def test_each_notebook_runs_in_a_process_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = notebooks.code_cell("import os\nlen(os.listdir())", "0\n")
    (tmp_path / "a.ipynb").write_text(notebooks.notebook([cell], "a"), encoding="utf-8")
    assert runner.main([str(tmp_path)]) == 0
    assert "1 notebooks, 0 failed" in capsys.readouterr().out
    (tmp_path / "b.ipynb").write_text(notebooks.notebook([notebooks.code_cell("2", "1\n")], "b"), encoding="utf-8")
    assert runner.main([str(tmp_path)]) == 1
    assert "got:    2" in capsys.readouterr().out
    assert runner.main([str(tmp_path / "empty")]) == 1
