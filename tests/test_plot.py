"""The drawing language: what a figure must never do, whatever is drawn."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from attn_guide import plot
from attn_guide.plot import palette
from attn_guide.plot.figures import spread
from attn_guide.plot.save import darken

WORDS = ["The", "cat", "sat", "on", "the", "mat"]


@pytest.fixture(autouse=True)
def _nothing_left_over():
    plot.take()
    yield
    plot.take()


def start(size=(6.4, 3.6), title="A title that says the answer", name="test-figure"):
    fig = plot.figure(name, title=title, caption="Drawn by a test.", size=size)
    plot.describe(fig, "A figure that a test has drawn.")
    return fig


def written(fig, tmp_path):
    light, dark = plot.save(fig, tmp_path)
    return light.read_text(encoding="utf-8"), dark.read_text(encoding="utf-8")


def texts(svg: str) -> list[str]:
    """The texts of an SVG; the glyphs of a formula come joined."""
    return ["".join(e.itertext()).strip() for e in ET.fromstring(svg).iter() if e.tag.endswith("}text")]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def weights(n=6, m=6, seed=0):
    return softmax(2 * np.random.default_rng(seed).normal(size=(n, m)))


# --- the package -----------------------------------------------------------------------------------------------------


def test_importing_the_package_does_not_import_what_draws():
    code = "import sys, attn_guide; print([m for m in ('matplotlib', 'attn_guide.plot') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_drawing_imports_no_mechanism():
    code = "import sys, attn_guide.plot as p; import pathlib; print(p.__file__)"
    folder = os.path.dirname(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    for file in os.listdir(folder):
        if file.endswith(".py"):
            with open(os.path.join(folder, file), encoding="utf-8") as opened:
                assert not re.search(
                    r"^\s*(from \.\.|from attn_guide\.(?!plot)|import attn_guide)", opened.read(), re.M
                )


# --- colours ---------------------------------------------------------------------------------------------------------

TEXT_INKS = [ink for ink in palette.DARK if ink not in {palette.GRID, palette.BACKGROUND}]


@pytest.mark.parametrize("ink", TEXT_INKS)
def test_inks_can_be_read_as_text_on_their_page(ink):
    assert palette.contrast(ink, palette.BACKGROUND) >= 4.5
    assert palette.contrast(palette.DARK[ink], palette.DARK[palette.BACKGROUND]) >= 4.5


@pytest.mark.parametrize("ink", TEXT_INKS)
def test_inks_can_be_read_on_the_tint_of_their_own_box(ink):
    for one, page in ((ink, palette.BACKGROUND), (palette.DARK[ink], palette.DARK[palette.BACKGROUND])):
        tint = 0.1 * np.array(to_rgb(one)) + 0.9 * np.array(to_rgb(page))
        assert palette.contrast(one, tuple(tint)) >= 4.5


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def oklab(colour, sight):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SIGHT[sight]) @ linear, 0, 1)
    lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return lab @ np.cbrt(lms @ seen)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_six_roles_stay_apart_for_every_kind_of_sight(sight, theme):
    inks = [palette.ROLES[r] for r in ("query", "key", "value", "scores", "weights", "output")]
    shown = inks if theme == "light" else [palette.DARK[i] for i in inks]
    least = min(np.linalg.norm(oklab(a, sight) - oklab(b, sight)) for a, b in itertools.combinations(shown, 2))
    assert least >= 0.085  # a just noticeable difference in OKLab is about 0.02


def test_no_colour_of_a_map_is_an_ink():
    for name, colormap in palette.COLORMAPS.items():
        values = {to_hex(c) for c in colormap(np.linspace(0, 1, 4097))}
        assert not values & set(palette.DARK), name
        assert len(values) > 200
    assert not {palette.BLACK, palette.WHITE} & set(palette.DARK)


@pytest.mark.parametrize("name", palette.COLORMAPS)
def test_maps_get_darker_away_from_zero(name):
    colormap = palette.COLORMAPS[name]
    if name == "weights":
        luminances = [palette.luminance(c) for c in colormap(np.linspace(0, 1, 65))]
        assert np.all(np.diff(luminances) < 0)
    else:
        up = [palette.luminance(c) for c in colormap(np.linspace(0.5, 1, 33))]
        down = [palette.luminance(c) for c in colormap(np.linspace(0.5, 0, 33))]
        assert np.all(np.diff(up)[1:] < 0)
        assert np.all(np.diff(down)[1:] < 0)


@pytest.mark.parametrize("name", palette.COLORMAPS)
def test_numbers_on_cells_can_be_read(name):
    for colour in palette.COLORMAPS[name](np.linspace(0, 1, 257)):
        assert palette.contrast(colour, palette.on(colour)) >= 4.5


# --- light and dark --------------------------------------------------------------------------------------------------


def test_darken_replaces_each_ink_once_and_nothing_else():
    light = " ".join([*palette.DARK, "#abcdef", "#ffffff", "url(#h1946a1)", "data:#19"])
    dark = darken(light)
    assert dark == " ".join([*palette.DARK.values(), "#abcdef", "#ffffff", "url(#h1946a1)", "data:#19"])


def cell_colours(svg):
    mesh = re.search(r'<g id="QuadMesh_1">(.*?)</g>', svg, re.S)[1]
    return re.findall(r"fill: (#[0-9a-f]{6})", mesh)


def test_cells_have_the_same_colours_on_both_pages_and_text_has_not(tmp_path):
    a = weights()
    fig = start((5, 4.6))
    plot.matrix(fig.subplots(), a, rows=WORDS, columns=WORDS)
    light, dark = written(fig, tmp_path)
    expected = [to_hex(palette.SEQUENTIAL(v)) for v in a.ravel()]
    assert cell_colours(light) == cell_colours(dark) == expected
    assert palette.INK in light
    assert palette.INK not in dark
    assert palette.DARK[palette.INK] in dark


# --- the files -------------------------------------------------------------------------------------------------------


def test_text_stays_text_and_brings_its_glyphs(tmp_path):
    fig = start(title="Scaling keeps the variance at one")
    ax = fig.subplots()
    plot.matrix(ax, weights(3, 3), rows=["Ärger", "dₖ", "√2"], columns=["$d_k$", "σ", "x"])
    light, _ = written(fig, tmp_path)
    assert {"Ärger", "dₖ", "√2", "σ", "Scaling keeps the variance at one"} <= set(texts(light))
    faces = re.findall(
        r"font-family:'([^']+)';font-weight:(\d+);font-style:(\w+);src:url\(data:font/woff;base64,([^)]+)", light
    )
    glyphs = {}
    for family, weight, slant, data in faces:
        font = TTFont(io.BytesIO(base64.b64decode(data)))
        glyphs[family, weight, slant] = set(map(chr, font.getBestCmap()))
    for element in ET.fromstring(light).iter():
        if element.tag.endswith(("}text", "}tspan")) and element.text and element.text.strip():
            css = dict(re.findall(r"([a-z-]+):\s*([^;]+)", element.get("style", "")))
            key = css["font-family"].strip("'"), css.get("font-weight", "400"), css.get("font-style", "normal")
            assert set(element.text) <= glyphs[key], element.text


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_character_that_the_font_lacks_is_an_error(tmp_path):
    fig = start()
    fig.subplots().text(0.2, 0.5, "注意")
    with pytest.raises(ValueError, match="has no 意, 注"):
        plot.save(fig, tmp_path)


def test_the_svg_tells_what_it_shows_and_asks_nobody(tmp_path):
    fig = plot.figure("test-told", title='Less < more & "so"', caption="A *caption*.", size=(4, 3))
    plot.describe(fig, 'One bar of height 1 & another of "2" <units>.')
    plot.bars(fig.subplots(), ["a", "b"], [1, 2])
    light, dark = plot.save(fig, tmp_path, script="gallery/x/plot_x.py")
    root = ET.fromstring(light.read_text(encoding="utf-8"))
    assert root.get("role") == "img"
    told = {e.tag.split("}")[1]: e for e in root if e.tag.endswith(("}title", "}desc"))}
    assert told["title"].text == 'Less < more & "so"'
    assert told["desc"].text == 'One bar of height 1 & another of "2" <units>.'
    assert root.get("aria-labelledby").split() == [told["title"].get("id"), told["desc"].get("id")]
    assert (root.get("width"), root.get("height")) == ("384", "288")
    references = re.findall(r'(?:href|src)="([^"]+)"|url\(([^)]+)\)', light.read_text(encoding="utf-8"))
    assert all((a or b).startswith(("#", "data:")) for a, b in references)
    sidecar = json.loads((tmp_path / "test-told.json").read_text(encoding="utf-8"))
    assert sidecar == {
        "name": "test-told", "title": 'Less < more & "so"', "caption": "A *caption*.", "width": 384, "height": 288,
        "alt": 'One bar of height 1 & another of "2" <units>.', "script": "gallery/x/plot_x.py",
    }  # fmt: skip
    assert (light.name, dark.name) == ("test-told.svg", "test-told-dark.svg")


EVERYTHING = """
import sys, numpy as np
from attn_guide import plot
rng = np.random.default_rng(3)
fig = plot.figure("test-bytes", title="Everything at once", caption="c", size=(10, 12))
axes = fig.subplots(4, 2).ravel()
a = rng.random((5, 5)); a /= a.sum(1, keepdims=True)
plot.matrix(axes[0], a, mask=np.tril(np.ones((5, 5), bool)), rows=list("abcde"), columns=list("abcde"), row_sums=True)
big = rng.random((90, 90))
plot.matrix(axes[1], big, mask=np.tril(np.ones((90, 90), bool)), colorbar=True)
plot.bars(axes[2], list("abc"), [1, 2, 3], errors=[0.1, 0.2, 0.1])
plot.curve(axes[3], [1, 2, 4], {"one": [1, 2, 3], "two": [1, 1, 1]}, theory={"t": [3, 2, 1]}, bands={"one": [0.1] * 3})
plot.distribution(axes[4], rng.normal(size=2000), name="$d_k$")
plot.equation(axes[5], [plot.Matrix(a, "A", "weights"), "\\u00d7", plot.Matrix(a, "B", "value")])
plot.tree(axes[6], {"x": ["a", {"text": "b", "note": "c"}], "y": {"z": ["d"]}})
plot.flow(axes[7], {"q": {"text": "Q", "role": "query"}, "s": "S", "k": "K"},
          [("q", "s", "W"), ("k", "s")], ["q s", "k ."])
plot.describe(fig, "All the parts of the drawing language in one figure.")
plot.save(fig, sys.argv[1])
"""


def test_two_processes_write_the_same_bytes(tmp_path):
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", EVERYTHING, str(tmp_path / seed)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "MPLBACKEND": "agg" if seed == "1" else "svg"},
        )
    files = sorted(p.name for p in (tmp_path / "1").iterdir())
    assert files == ["test-bytes-dark.svg", "test-bytes.json", "test-bytes.svg"]
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_an_unchanged_figure_is_not_written_again(tmp_path):
    times = []
    for height in (1, 1, 2):
        plot.take()
        fig = start()
        plot.bars(fig.subplots(), ["a"], [height])
        light, dark = plot.save(fig, tmp_path)
        sidecar = tmp_path / "test-figure.json"
        times.append([f.stat().st_mtime == 1 for f in (light, dark, sidecar)])
        for file in (light, dark, sidecar):
            os.utime(file, (1, 1))
    assert times == [[False, False, False], [True, True, True], [False, False, True]]


def test_the_settings_of_a_machine_do_not_matter(tmp_path):
    import matplotlib as mpl

    def once(folder):
        plot.take()
        fig = start()
        plot.bars(fig.subplots(), ["a", "b"], [1, 2])
        return written(fig, folder)

    plain = once(tmp_path / "a")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path", "lines.linewidth": 9}):
        assert once(tmp_path / "b") == plain


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_figure_that_is_not_described_cannot_be_saved(tmp_path):
    fig = plot.figure("test-silent", title="Nobody says it", caption="c")
    with pytest.raises(ValueError, match="test-silent: has no alternative text"):
        plot.save(fig, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "A bar chart."])
def test_an_alternative_text_must_say_something(text):
    fig = plot.figure("test-terse", title="t", caption="c")
    with pytest.raises(ValueError, match="must say what the figure shows"):
        plot.describe(fig, text)


@pytest.mark.parametrize("name", ["", "Upper", "two words", "under_score", "-x", "a--b", "../x"])
def test_names_are_checked(name):
    with pytest.raises(ValueError, match="name: got"):
        plot.figure(name, title="t", caption="c")


def test_a_name_is_taken_once():
    start()
    with pytest.raises(ValueError, match="'test-figure' is taken"):
        start()


@pytest.mark.parametrize("empty", ["title", "caption"])
def test_a_figure_needs_a_title_and_a_caption(empty):
    with pytest.raises(ValueError, match=f"{empty}: got an empty text"):
        plot.figure("test-x", **{"title": "t", "caption": "c", empty: " "})


def test_take_hands_each_figure_on_once():
    first, second = start(name="test-a"), start(name="test-b")
    assert plot.take() == [first, second]
    assert plot.take() == []


# --- overlaps --------------------------------------------------------------------------------------------------------


def plain(size=(4, 3)):
    fig = start(size, title="T")
    ax = fig.subplots()
    ax.set_axis_off()
    return fig, ax


def test_texts_that_touch_are_found(tmp_path):
    fig, ax = plain()
    ax.text(0.3, 0.5, "first")
    ax.text(0.32, 0.5, "second")
    assert plot.overlaps(fig) == ["'first' and 'second' overlap"]
    with pytest.raises(ValueError, match="test-figure: 'first' and 'second' overlap"):
        plot.save(fig, tmp_path)


def test_a_text_that_is_cut_off_is_found():
    fig, ax = plain()
    ax.text(0.98, 0.5, "too far to the right", in_layout=False)
    assert plot.overlaps(fig) == ["'too far to the right' is cut off at the edge"]


def test_a_text_that_is_too_small_is_found():
    fig, ax = plain()
    ax.text(0.1, 0.5, "tiny", fontsize=8)
    assert plot.overlaps(fig) == ["'tiny' is set in 8.0 points, less than 9"]


def test_turned_texts_are_compared_as_they_lie():
    fig, ax = plain()
    ax.text(0.3, 0.3, "slanted label", rotation=45)
    ax.text(0.42, 0.3, "slanted label", rotation=45)  # the boxes around them overlap, they do not
    assert plot.overlaps(fig) == []
    ax.text(0.4, 0.4, "across it", rotation=-45)
    assert len(plot.overlaps(fig)) >= 1


def test_an_arrow_through_a_text_is_found():
    fig, ax = plain()
    ax.text(0.5, 0.5, "in the way", ha="center", va="center")
    ax.add_patch(FancyArrowPatch((0.1, 0.5), (0.9, 0.5), gid="arrow"))
    assert plot.overlaps(fig) == ["'in the way' is crossed by an arrow"]


def test_ticks_beyond_the_axes_do_not_count():
    fig = start((4, 3))
    ax = fig.subplots()
    ax.plot([0, 1], [0, 1])
    ax.set_xticks(np.linspace(-50, 50, 400))
    ax.set_xlim(0, 0.1)
    assert plot.overlaps(fig) == []


# --- matrices --------------------------------------------------------------------------------------------------------


def test_values_are_printed_where_they_fit(tmp_path):
    a = weights()
    fig = start((5, 4.6))
    plot.matrix(fig.subplots(), a, rows=WORDS, columns=WORDS)
    shown = texts(written(fig, tmp_path)[0])
    assert [t for t in shown if re.fullmatch(r"\d\.\d\d", t)] == [f"{v:.2f}" for v in a.ravel()]


def test_values_are_left_out_where_they_do_not_fit(tmp_path):
    fig = start((3, 3))
    plot.matrix(fig.subplots(), weights(20, 20))
    assert not [t for t in texts(written(fig, tmp_path)[0]) if re.fullmatch(r"\d\.\d\d", t)]


def test_a_forbidden_cell_is_hatched_and_empty_and_a_zero_is_not(tmp_path):
    a = np.array([[1.0, 0.0], [0.0, 1.0]])
    counts = {}
    for name, mask in (("zero", None), ("forbidden", np.array([[True, False], [True, True]]))):
        plot.take()
        fig = start((3, 3))
        plot.matrix(fig.subplots(), a, mask=mask)
        light, dark = written(fig, tmp_path / name)
        counts[name] = light.count("<pattern"), texts(light).count("0.00"), dark.count("<pattern")
    assert counts == {"zero": (0, 2, 0), "forbidden": (1, 1, 1)}


def test_minus_infinity_is_forbidden(tmp_path):
    fig = start((3, 3))
    plot.matrix(fig.subplots(), [[1.0, -np.inf], [0.5, np.nan]], kind="scores")
    light, _ = written(fig, tmp_path)
    assert light.count("<pattern") == 1
    assert {t for t in texts(light) if t[0] in "0123456789"} == {"1.00", "0.50"}


@pytest.mark.parametrize(("n", "is_picture"), [(64, False), (65, True)])
def test_large_matrices_become_pictures(tmp_path, n, is_picture):
    fig = start((4, 4))
    plot.matrix(fig.subplots(), weights(n, n))
    light, dark = written(fig, tmp_path)
    assert ("data:image/png" in light) is is_picture
    pictures = [re.findall(r'xlink:href="(data:image/png[^"]+)"', svg) for svg in (light, dark)]
    assert pictures[0] == pictures[1]


def test_row_sums_are_those_of_the_allowed_cells(tmp_path):
    fig = start((4, 3.4))
    plot.matrix(fig.subplots(), [[0.25, 0.75], [0.5, 9.0]], mask=[[True, True], [True, False]], row_sums=True)
    shown = texts(written(fig, tmp_path)[0])
    assert "row sum" in shown
    assert [t for t in shown if t in {"1.00", "0.50", "9.50"}].count("1.00") == 1  # the other 0.50 is a cell
    assert shown.count("0.50") == 2


def test_negative_numbers_have_a_real_minus_and_zero_has_none(tmp_path):
    fig = start((4, 3.4))
    plot.matrix(fig.subplots(), [[-1.5, -0.001]], kind="scores")
    assert {"−1.50", "0.00"} <= set(texts(written(fig, tmp_path)[0]))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kind": "heat"}, "kind: got 'heat', wanted one of weights, scores, values and mask"),
        ({"rows": ["a"]}, "rows: got 1 labels for 2"),
        ({"columns": ["a"] * 3}, "columns: got 3 labels for 2"),
        ({"mask": [[True]]}, r"mask: got shape \(1, 1\), wanted that of the matrix, \(2, 2\)"),
    ],
)
def test_matrix_says_what_does_not_fit(kwargs, message):
    with pytest.raises(ValueError, match=message):
        plot.matrix(start().subplots(), np.eye(2), **kwargs)


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((2, 2, 2)), np.ones((0, 3))])
def test_matrix_wants_a_matrix(bad):
    with pytest.raises(ValueError, match="a: got shape"):
        plot.matrix(start().subplots(), bad)


def test_long_labels_of_keys_are_turned(tmp_path):
    fig = start((4, 4))
    words = ["transformer", "attention", "sequence", "alignment"]
    plot.matrix(fig.subplots(), weights(4, 4), rows=words, columns=words)
    assert plot.overlaps(fig) == []
    turned = [t.get_rotation() for t in fig.axes[0].get_xticklabels()]
    assert set(turned) == {90.0}


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate])
@given(n=st.integers(1, 9), m=st.integers(1, 9), seed=st.integers(0, 99), length=st.integers(1, 12))
def test_no_matrix_overlaps_itself(n, m, seed, length):
    plot.take()
    fig = start((6.4, 6))
    rng = np.random.default_rng(seed)
    plot.matrix(
        fig.subplots(), softmax(rng.normal(size=(n, m))), mask=rng.random((n, m)) < 0.8, row_sums=True,
        rows=["w" * length] * n, columns=["m" * length] * m, axis_labels=True, colorbar=True, name="weights",
    )  # fmt: skip
    assert plot.overlaps(fig) == []


def test_describe_matrix_reads_the_data():
    text = plot.describe_matrix([[0.9, 0.1], [0.0, 0.0]], ["I", "am"], ["Je", "suis"], mask=[[1, 1], [0, 0]])
    assert text == (
        "Attention weights of 2 queries (rows) to 2 keys (columns). 2 of 4 pairs are forbidden and hatched. "
        "I: most to Je (0.90). am: no key allowed."
    )


def test_masks_are_drawn_in_order_each_with_its_name_and_its_line(tmp_path):
    shown = {"all": np.ones((4, 4), bool), "causal": np.tril(np.ones((4, 4), bool)), "diagonal": np.eye(4, dtype=bool)}
    fig = start()
    plot.masks(fig.subplots(1, 3), shown)
    light, dark = written(fig, tmp_path)
    found = texts(light)
    assert [text for text in found if text in shown] == list(shown)
    assert [text for text in found if text.endswith("of pairs")] == ["100% of pairs", "62% of pairs", "25% of pairs"]
    assert light.count("<pattern") == dark.count("<pattern") == 1  # two of the three hide pairs, hatched alike
    assert texts(dark) == found
    assert not plot.overlaps(fig)


def test_masks_take_lines_of_the_caller_and_refuse_what_does_not_fit():
    shown = {"all": np.ones((2, 2)), "causal": np.tril(np.ones((2, 2)))}
    fig = start()
    axes = fig.subplots(1, 2)
    plot.masks(axes, shown, below={"all": "4 pairs", "causal": "3 pairs", "other": "unused"})
    assert [ax.get_xlabel() for ax in axes] == ["4 pairs", "3 pairs"]
    with pytest.raises(ValueError, match="axes: got 1 for 2 masks"):
        plot.masks([axes[0]], shown)
    with pytest.raises(ValueError, match="below: no line for causal"):
        plot.masks(axes, shown, below={"all": "4 pairs"})


def test_a_mask_stands_apart_from_its_hatching_on_both_pages():
    """The cells of a mask against the page and against the lines of the hatching, light and dark."""
    ax = start().subplots()
    plot.matrix(ax, np.eye(3), kind="mask")
    cells = ax.collections[0].to_rgba(1.0)[:3]
    for page, lines in ((plot.BACKGROUND, plot.MASK), (plot.DARK[plot.BACKGROUND], plot.DARK[plot.MASK])):
        assert palette.contrast(cells, page) > 2.2
        hatched = 0.7 * np.array(to_rgb(page)) + 0.3 * np.array(to_rgb(lines))  # what an eye takes the lines for
        assert palette.contrast(cells, hatched) > 1.5
        assert palette.contrast(lines, page) > 4.5


def test_describe_mask_counts():
    text = plot.describe_mask(np.tril(np.ones((3, 3), bool)), what="Causal mask")
    assert text.startswith("Causal mask of 3 queries (rows) and 3 keys (columns): 6 of 9 pairs allowed.")
    assert "1, 2 and 3" in text


# --- charts ----------------------------------------------------------------------------------------------------------


def test_bars_print_what_they_show(tmp_path):
    fig = start()
    plot.bars(fig.subplots(), ["a", "b"], [0.5, -0.25], reference=(0.4, "limit"))
    light, _ = written(fig, tmp_path)
    assert {"0.50", "−0.25", "a", "b", "limit"} <= set(texts(light))


def test_bars_want_a_label_for_each():
    with pytest.raises(ValueError, match=r"values: got shape \(3,\) for 2 labels"):
        plot.bars(start().subplots(), ["a", "b"], [1, 2, 3])


@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.lists(st.floats(0.1, 1e4), min_size=2, max_size=7), st.sampled_from(["", "y", "xy"]))
def test_names_of_curves_never_touch(ends, log):
    plot.take()
    fig = start((6.4, 4))
    plot.curve(
        fig.subplots(), [1, 2, 4], {f"curve {i}": [1, 2, end] for i, end in enumerate(ends)}, log=log, ylabel="y"
    )
    assert plot.overlaps(fig) == []


def test_curves_take_arrays_of_one_length():
    with pytest.raises(ValueError, match=r"series 'a': got shape \(2,\), wanted that of x, \(3,\)"):
        plot.curve(start().subplots(), [1, 2, 3], {"a": [1, 2]})


def test_a_distribution_says_its_mean_and_deviation_and_what_it_leaves_out(tmp_path):
    data = np.random.default_rng(0).normal(3, 2, size=5000)
    fig = start()
    mean, deviation = plot.distribution(fig.subplots(), data, limits=(-3, 9), sigmas=(1,))
    assert mean == pytest.approx(data.mean())
    assert deviation == pytest.approx(data.std())
    shown = texts(written(fig, tmp_path)[0])
    low, high = (f"{data.mean() + s * data.std():.1f}" for s in (-1, 1))
    assert {low, high} <= set(shown)
    inside, outside = np.mean(np.abs(data - mean) <= deviation), np.mean((data < -3) | (data > 9))
    assert f"{inside:.1%} within ±1σ, {outside:.1%} outside" in shown


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(1, 9)), min_size=1, max_size=12))
def test_spread_keeps_order_and_distance(pairs):
    wanted, sizes = (np.array(x) for x in zip(*sorted(pairs), strict=True))
    placed = spread(wanted, sizes, -500, 500)
    apart = (sizes[1:] + sizes[:-1]) / 2
    assert np.all(np.diff(placed) >= apart - 1e-9)
    if np.all(np.diff(wanted) >= apart):
        np.testing.assert_allclose(placed, wanted)


def test_spread_moves_as_little_as_it_takes():
    np.testing.assert_allclose(spread(np.array([0.0, 0.0, 50.0]), np.full(3, 10.0)), [-5, 5, 50])
    assert spread(np.array([0.0, 1.0]), np.full(2, 10.0), low=0.0)[0] == 5.0


# --- diagrams --------------------------------------------------------------------------------------------------------


def boxes(fig):
    return [p.get_window_extent() for p in fig.findobj(FancyBboxPatch)]


NODES = {k: {"text": k.upper(), "role": r} for k, r in zip("abcdef", palette.ROLES, strict=False)}


@settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.data())
def test_arrows_go_around_boxes_and_texts(data):
    plot.take()
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    places = list(itertools.product(range(rows), range(columns)))
    count = min(len(places), data.draw(st.integers(2, 6)))
    chosen = data.draw(st.permutations(places))[:count]
    keys = list(NODES)[:count]
    grid = [["."] * columns for _ in range(rows)]
    for key, (r, c) in zip(keys, chosen, strict=True):
        grid[r][c] = key
    pairs = list(itertools.permutations(keys, 2))
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=5)) if pairs else []
    labelled = [(*e, "label") if i == 0 else e for i, e in enumerate(edges)]
    fig = start((9, 8))
    plot.flow(fig.subplots(), {k: NODES[k] for k in keys}, labelled, grid)
    assert [p for p in plot.overlaps(fig) if "cut off" in p or "arrow" in p] == []
    arrows = [p for p in fig.findobj(FancyArrowPatch) if p.get_gid() == "arrow"]
    assert len(arrows) == len(edges)
    for arrow in arrows:
        path = arrow.get_transform().transform_path(arrow.get_path()).interpolated(20)
        for box in boxes(fig):
            inside = (path.vertices > [box.x0 + 1, box.y0 + 1]) & (path.vertices < [box.x1 - 1, box.y1 - 1])
            assert not inside.all(axis=1).any()


@pytest.mark.parametrize(
    ("nodes", "edges", "grid", "message"),
    [
        ({"a": "A"}, [], ["a b"], "grid: 'b' is no node; the nodes are 'a'"),
        ({"a": "A", "b": "B"}, [], ["a"], "grid: lacks the nodes 'b'"),
        ({"a": "A"}, [], ["a a"], "grid: 'a' stands in it twice"),
        ({"a": "A"}, [("a", "z")], ["a"], "edges: 'z' is no node"),
        ({"a": "A"}, [("a", "a")], ["a"], "edges: 'a' leads to itself"),
    ],
)
def test_flow_says_what_is_wrong(nodes, edges, grid, message):
    with pytest.raises(ValueError, match=message):
        plot.flow(start().subplots(), nodes, edges, grid)


def test_a_diagram_that_does_not_fit_says_how_large_the_figure_must_be():
    def draw(size):
        plot.take()
        fig = start(size, title="T")
        plot.flow(fig.subplots(), dict.fromkeys("abcd", "a rather long text"), [("a", "b")], ["a b c d"])
        fig.canvas.draw()

    with pytest.raises(ValueError, match="make the figure at least") as error:
        draw((3, 2))
    size = tuple(float(x) for x in re.search(r"at least ([\d.]+) x ([\d.]+)", str(error.value)).groups())
    draw((size[0] + 0.02, size[1] + 0.02))


def test_an_equation_draws_all_matrices_with_one_cell_size(tmp_path):
    fig = start((6.4, 4))
    a, b = np.ones((3, 2)), np.ones((2, 4))
    plot.equation(
        fig.subplots(),
        [plot.Matrix(a, "Q", "query"), "×", plot.Matrix(b, "Kᵀ", "key"), "=", plot.Matrix(a @ b, "S", "scores")],
    )
    shown = texts(written(fig, tmp_path)[0])
    assert {"Q", "Kᵀ", "S", "×", "=", "3 × 2", "2 × 4", "3 × 4"} <= set(shown)
    sizes = set()
    for mesh in fig.axes[0].collections:
        corners = mesh.get_coordinates()
        sizes |= {round(float(d), 6) for d in np.diff(corners[0, :, 0])} | {
            round(float(d), 6) for d in np.diff(corners[:, 0, 1])
        }
    assert len(sizes) == 1


def test_rectangles_to_scale_are_to_scale(tmp_path):
    fig = start((6.4, 3))
    plot.to_scale(fig.subplots(), [("X", 100, 400, "ink"), "×", ("W", 400, 200, "query")])
    fig.canvas.draw()
    sides = [(p.get_width(), p.get_height()) for p in fig.axes[0].patches if p.get_fill()]
    (w0, h0), (w1, h1) = sides
    np.testing.assert_allclose([w0 / h0, w1 / h1, w0 / w1], [4, 0.5, 2])


def test_a_tree_of_forty_five_leaves_can_be_read(tmp_path):
    branches = {
        f"branch {i}": [{"text": f"leaf {i}.{j}", "note": "2017", "open": j == 0} for j in range(9)] for i in range(5)
    }
    fig = start((6.4, 7.4))
    plot.tree(fig.subplots(), branches, columns=2)
    shown = texts(written(fig, tmp_path)[0])
    assert sum(t.startswith("leaf") for t in shown) == 45
    assert sum(t.startswith("branch") for t in shown) == 5


@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.lists(st.floats(2014, 2024.9), min_size=2, max_size=22))
def test_a_timeline_never_overlaps(years):
    plot.take()
    fig = start((6.4, 6.5))
    plot.timeline(fig.subplots(), [(year, f"event {i}", "somebody et al.") for i, year in enumerate(years)])
    assert plot.overlaps(fig) == []
    shown = [t.get_text() for t in fig.axes[0].texts if t.get_text().startswith("event")]
    assert shown == [f"event {i}" for i in np.argsort(years, kind="stable")]
