"""The zip of the site: the same bytes for the same site, whole or not at all, and readable without a server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import attn_guide
from tools import bundle

LOADER = """\
const start = async (name) => {
  const module = await import(`./${name}.js`);
  const answer = await fetch(new URL(`./data/${name}.json`, import.meta.url));
  module.default(await answer.json());
};
start("bars");
"""
BARS = """\
import { double, half as part } from "./numbers.js";
import {
  ten,
} from "./numbers.js";
export default (data) => { globalThis.shown = [double(data), part(data), ten]; };
"""
NUMBERS = """\
globalThis.runs = (globalThis.runs ?? 0) + 1;
export const ten = 10;
export function double(x) { return 2 * x; }
export const half = (x) => x / 2;
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small site with all that is treated specially."""
    made = tmp_path / "html"
    files = {
        "index.html": '<meta http-equiv="Content-Security-Policy" content="default-src \'self\'"/>\n'
        '<link rel="modulepreload" href="_static/explorers/ui.js"/>\n'
        '<script type="module" src="_static/explorers/loader.js?v=1"></script>\n<p>Home</p>\n',
        "chapters/0.html": '<script src="../_static/explorers/loader.js?v=1" type="module"></script>',
        "404.html": "not found",
        "sitemap.xml": "<urlset/>",
        "_static/documentation_options.js": "{ SHOW_SEARCH_SUMMARY: true }",
        "_static/explorers/loader.js": LOADER,
        "_static/explorers/bars.js": BARS,
        "_static/explorers/numbers.js": NUMBERS,
        "_static/explorers/explorers.css": "p {}",
        "_static/explorers/data/bars.json": "7",
        "_images/a.png": "a picture",
    }
    for name, text in files.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return made


def test_the_same_site_gives_the_same_bytes(site: Path, tmp_path: Path) -> None:
    first = bundle.write(site, tmp_path / "one" / "site.zip").read_bytes()
    copy = tmp_path / "copy"
    shutil.copytree(site, copy, copy_function=shutil.copy)  # the same content at another place and time
    (copy / "index.html").touch(mode=0o600)
    assert bundle.write(copy, tmp_path / "two" / "site.zip").read_bytes() == first


def test_the_zip_holds_one_folder_with_every_page_in_order(site: Path, tmp_path: Path) -> None:
    made = bundle.write(site, tmp_path / "guide-1.zip")
    with zipfile.ZipFile(made) as unpacked:
        assert unpacked.testzip() is None
        entries = unpacked.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert {name.split("/")[0] for name in names} == {"guide-1"}
    assert {entry.date_time for entry in entries} == {bundle.DATE}
    inside = {name.removeprefix("guide-1/") for name in names}
    assert {"index.html", "chapters/0.html", "_images/a.png", "_static/explorers/explorers.css"} <= inside
    assert not inside & {"404.html", "sitemap.xml", "_static/explorers/loader.js", "_static/explorers/bars.js"}


def test_pages_ask_for_nothing_that_a_file_address_refuses(site: Path) -> None:
    made = dict(bundle.contents(site))
    assert made["index.html"] == b'<script defer src="_static/explorers/offline.js"></script>\n<p>Home</p>\n'
    assert made["chapters/0.html"] == b'<script defer src="../_static/explorers/offline.js"></script>'
    assert made["_static/documentation_options.js"] == b"{ SHOW_SEARCH_SUMMARY: false }"
    assert made["_images/a.png"] == b"a picture"


def test_a_module_that_is_no_explorer_is_refused() -> None:
    with pytest.raises(bundle.BundleError, match="a module that is no explorer"):
        bundle.page('<script type="module" src="other.js"></script>', "x.html")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node; tests/site runs the scripts in a browser")
def test_the_classic_script_does_what_the_modules_do(site: Path, tmp_path: Path) -> None:
    script = dict(bundle.contents(site))["_static/explorers/offline.js"].decode("utf-8")
    surroundings = """
    globalThis.window = globalThis;
    globalThis.document = {
      currentScript: { src: "file:///guide/_static/explorers/offline.js" },
      createElement: () => ({}),
      head: { append(script) { globalThis.asked = String(script.src); agExplorerData.bars = 7; script.onload(); } },
    };
    """
    ending = "setTimeout(() => console.log(JSON.stringify([shown, asked, runs])), 50);"
    file = tmp_path / "run.cjs"
    file.write_text(surroundings + script + ending, encoding="utf-8")
    result = subprocess.run(["node", str(file)], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [[14, 3.5, 10], "file:///guide/_static/explorers/data/bars.js", 1]


@pytest.mark.parametrize(
    "line",
    ['import all from "./ui.js";', 'import * as ui from "./ui.js";', "export { a };", "const x = import(name);"],
)
def test_an_import_of_another_form_is_named_and_not_passed_on(line: str) -> None:
    with pytest.raises(bundle.BundleError) as failure:
        bundle.classic({"loader": f"const a = 1;\n{line}\n"})
    assert "loader.js" in str(failure.value)
    assert line in str(failure.value)


def test_the_explorers_of_this_site_have_the_forms_that_are_known() -> None:
    folder = Path(__file__).resolve().parents[1] / "docs" / "_static" / "explorers"
    modules = {file.stem: file.read_text(encoding="utf-8") for file in folder.glob("*.js")}
    script = bundle.classic(modules)
    assert {"loader", "ui", "attention", "masks"} <= set(modules)
    for name in modules:
        assert script.count(f'modules["{name}"] = ') == 1
    exports = sum(len(bundle._EXPORT.findall(source)) for source in modules.values())
    handed_on = re.findall(r"^return \{ (.*) \};$", script, re.MULTILINE)
    assert sum(len([name for name in names.split(", ") if name and ":" not in name]) for names in handed_on) == exports


def test_a_run_that_fails_leaves_the_old_zip_and_nothing_beside_it(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out"
    assert bundle.main([str(site), "--to", str(to)]) == 0
    (made,) = to.iterdir()
    assert made.name == f"attn-guide-{attn_guide.__version__}-site.zip"
    assert str(made) in capsys.readouterr().out
    before = made.read_bytes()
    (site / "late.html").write_text('<script type="module" src="x.js"></script>', encoding="utf-8")
    assert bundle.main([str(site), "--to", str(to)]) == 1
    assert "error: late.html" in capsys.readouterr().err
    assert [file.name for file in to.iterdir()] == [made.name]
    assert made.read_bytes() == before


def test_without_a_site_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bundle.main([str(tmp_path / "nothing")]) == 1
    assert "make html" in capsys.readouterr().err
