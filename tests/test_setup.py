"""Set-up, serving and the Makefile: what a newcomer meets first, failures included."""

from __future__ import annotations

import collections
import errno
import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest

from tools import browser, gallery, lock, serve, setup_env

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE)


def make(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in an environment without the variables that an outer make hands down."""
    clean = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "PORT"}}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={**clean, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


# ------------------------------------------------------------------------------------------- environment


class FakeRun:
    """Stands in for the runner of commands: notes them and answers as told."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str]) -> tuple[int, str]:
        self.commands.append(command)
        return self.answers.pop(0) if self.answers else (0, "")


def fake_venv(folder: Path) -> Path:
    """Make a folder that passes for an environment, without the seconds that a real one takes."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    return folder


@pytest.fixture
def working_venv(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, "venv_works", lambda python: True)
    return fake_venv(tmp_path / ".venv")


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 15), (3, 10, 13)])
def test_an_old_python_is_refused_with_its_version(version):
    with pytest.raises(setup_env.SetupError) as failure:
        setup_env.check_python(version)
    text = str(failure.value)
    assert "needs Python 3.11 or newer" in text
    assert ".".join(map(str, version)) in text
    assert "make PYTHON=" in text


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 2), (4, 0, 0)])
def test_a_supported_python_passes(version):
    setup_env.check_python(version)


def test_old_pythons_can_read_the_script_that_refuses_them():
    """It may use nothing that Python 3.6 cannot parse; the oldest grammar that ast still knows is 3.7's."""
    import ast

    source = (ROOT / "tools" / "setup_env.py").read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    assert not any(isinstance(node, ast.NamedExpr | ast.Match) for node in ast.walk(tree))
    assert "from __future__" not in source
    for name in ("python3.6", "python3.7", "python3.8", "python3.9", "python3.10"):
        old = shutil.which(name)
        if old and subprocess.run([old, "-c", ""], capture_output=True, check=False).returncode == 0:
            result = subprocess.run([old, "tools/setup_env.py"], cwd=ROOT, capture_output=True, text=True, check=False)
            assert result.returncode == 1
            assert "needs Python 3.11 or newer" in result.stderr


def test_too_little_disk_space_is_refused_before_anything_is_made(tmp_path, monkeypatch, capsys):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 400 * 10**6))
    assert setup_env.main([str(tmp_path / ".venv")]) == 1
    text = capsys.readouterr().err
    assert "Not enough disk space: 0.4 GB are free" in text
    assert str(tmp_path) in text
    assert "about 3 GB are needed" in text
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("output", "problem", "advice"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(\"HTTPSConnection("
            "host='index', port=443): Failed to establish a new connection: [Errno 111] Connection refused\")'\n"
            "ERROR: Could not find a version that satisfies the requirement setuptools>=77 (from versions: none)\n"
            "ERROR: No matching distribution found for setuptools>=77\n",
            "cannot be reached: no network",
            "HTTPS_PROXY",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NameResolutionError(\"Failed to resolve"
            " 'index' ([Errno -2] Name or service not known)\")'\nERROR: No matching distribution found for numpy\n",
            "cannot be reached: no network",
            "Connect to the network",
        ),
        ("ProxyError('Cannot connect to proxy.')\nERROR: No matching distribution found", "proxy", "HTTPS_PROXY"),
        (
            "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'))",
            "certificate could not be verified",
            "PIP_CERT",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            "disk is full",
            "Free about 3 GB",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '.venv/lib'\n",
            "permission denied",
            "own this folder",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n"
            "ERROR: No matching distribution found for torch==2.13.0\n",
            "No release of a package fits",
            "make PYTHON=",
        ),
        ("error: resolution-too-deep\n", "No release of a package fits", "make lock"),
        ("something new\n", "pip failed", "rm -r .venv"),
    ],
    ids=["refused", "no-dns", "proxy", "certificate", "disk", "permission", "no-release", "too-deep", "unknown"],
)
def test_a_failing_pip_is_explained(working_venv, output, problem, advice):
    with pytest.raises(setup_env.SetupError) as failure:
        setup_env.setup(str(working_venv), run=FakeRun((0, ""), (1, output)))
    assert problem in failure.value.problem
    assert advice in failure.value.advice
    assert not (working_venv / ".installed").exists(), "a set-up that failed must not look finished"


def test_a_refused_connection_is_explained_for_real(tmp_path):
    """pip's own words today, from an index on a port where nobody listens; a new pip with new words fails here."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    command = [sys.executable, "-m", "pip", "download", "--isolated", "--retries", "1", "--no-cache-dir"]
    index = ["--index-url", f"http://127.0.0.1:{port}/simple", "--dest", str(tmp_path)]
    status, output = setup_env.run([*command, *index, "attn-guide-does-not-exist"])
    assert status != 0
    assert "cannot be reached" in setup_env.explain_pip(output).problem


@pytest.mark.parametrize(
    "output",
    [
        "/usr/bin/python3: No module named venv\n",
        "The virtual environment was not created successfully because ensurepip is not\navailable.\n",
    ],
)
def test_a_missing_venv_module_is_explained(tmp_path, output):
    with pytest.raises(setup_env.SetupError) as failure:
        setup_env.create_venv(str(tmp_path / ".venv"), run=FakeRun((1, output)))
    assert "cannot create environments" in failure.value.problem
    assert "apt-get install python{}.{}-venv".format(*sys.version_info) in failure.value.advice
    assert not (tmp_path / ".venv").exists()


def test_setup_creates_installs_with_the_pins_and_leaves_a_stamp(tmp_path):
    folder = tmp_path / ".venv"
    run = FakeRun()
    folder.mkdir()
    setup_env.setup(str(folder), run=run)
    venv, upgrade, install = run.commands
    assert venv[1:3] == ["-m", "venv"]
    assert upgrade[-2:] == ["--upgrade", "pip"]
    assert install[-4:] == ["-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[test]"]
    assert (folder / ".installed").is_file()


def test_setup_reuses_an_environment_that_works_and_replaces_one_that_does_not(working_venv, monkeypatch):
    run = FakeRun()
    setup_env.setup(str(working_venv), run=run)
    assert not any("venv" in command[1:3] for command in run.commands)
    monkeypatch.undo()
    (working_venv / "bin" / "python").unlink()
    (working_venv / "bin" / "python").symlink_to("/nowhere/python3")
    run = FakeRun()
    setup_env.setup(str(working_venv), run=run)
    assert run.commands[0][1:4] == ["-m", "venv", "--clear"]


# ----------------------------------------------------------------------------------------------- the pins


def read_pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_pins_are_exact_and_portable():
    pins = read_pins()
    assert pins["torch"] == "2.13.0"
    assert not [v for v in pins.values() if "+" in v], "a local version exists on one index only"
    assert "attn-guide" not in pins


def test_every_requirement_is_pinned_within_its_range():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = read_pins()
    for text in lock.requirements(project, "test"):
        requirement = Requirement(text)
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{text} has no pin: run make lock"
        assert requirement.specifier.contains(pin), f"{text} excludes its pin {pin}: run make lock"


def test_the_pins_install_on_the_oldest_python():
    """A release that wants 3.11.5 cannot be installed by the Python 3.11.2 of Debian 12."""
    from packaging.specifiers import SpecifierSet

    checked = 0
    for name, pin in read_pins().items():
        try:
            found = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        if found["Version"].split("+")[0] == pin:
            checked += 1
            assert SpecifierSet(found["Requires-Python"] or "").contains(lock.OLDEST), name
    assert checked > 50


def test_lock_writes_sorted_pins_without_local_versions():
    report = {"install": [{"metadata": {"name": n, "version": v}} for n, v in
                          [("torch", "2.13.0+cpu"), ("Jinja2", "3.1.6"), ("sphinx_design", "0.8.0")]]}  # fmt: skip
    assert lock.pins(report) == "jinja2==3.1.6\nsphinx-design==0.8.0\ntorch==2.13.0\n"
    assert lock.pinned("torch", "numpy==2.4.6\ntorch==2.13.0\n") == "torch==2.13.0"
    with pytest.raises(SystemExit, match="pins no torch"):
        lock.pinned("torch", "torchvision==0.1\n")


def test_lock_follows_extras_that_name_extras():
    project = {
        "name": "p",
        "dependencies": ["numpy"],
        "optional-dependencies": {"a": ["x>=1"], "b": ["p[a]", "y"], "c": ["p[b, a]", "z"]},
    }
    assert lock.requirements(project, "c") == ["numpy", "x>=1", "y", "z"]


# ------------------------------------------------------------------------------------------------ serving


@pytest.fixture
def site(tmp_path):
    """Serve a small site and return a function that requests a path from it."""
    (tmp_path / "index.html").write_text("<h1>home</h1>")
    (tmp_path / "404.html").write_text("<h1>no such page here</h1>")
    (tmp_path / "empty").mkdir()
    with serve.make_server(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def request(path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read().decode()
            connection.close()
            return answer.status, body, dict(answer.getheaders())

        yield request
        server.shutdown()
        thread.join()


def test_serve_answers_with_the_page(site):
    status, body, headers = site("/")
    assert (status, body) == (200, "<h1>home</h1>")
    assert headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/missing.html", "/empty/", "/../../etc/passwd"])
def test_serve_answers_a_missing_path_with_the_404_page(site, path):
    status, body, headers = site(path)
    assert (status, body) == (404, "<h1>no such page here</h1>")
    assert headers["Content-Type"].startswith("text/html")


def test_serve_answers_head_without_a_body(site):
    assert site("/missing.html", "HEAD")[:2] == (404, "")


def test_serve_is_reachable_from_this_machine_only(tmp_path):
    with serve.make_server(tmp_path, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_port_in_use_is_named_with_the_way_out(tmp_path, check):
    (tmp_path / "index.html").write_text("home")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as failure:
            serve.main([str(tmp_path), "--port", str(port), *check])
    assert f"port {port} is in use" in str(failure.value)
    assert "make serve PORT=0" in str(failure.value)


def test_a_reserved_port_is_explained(tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(serve, "Server", refuse)
    with pytest.raises(SystemExit, match="port 80 is reserved"):
        serve.make_server(tmp_path, 80)


@pytest.mark.parametrize("port", ["http", "-1", "65536", "80.5"])
def test_a_port_that_is_no_port_is_refused(port, capsys):
    with pytest.raises(SystemExit):
        serve.main([f"--port={port}"])
    assert "a port is a number from 0 to 65535" in capsys.readouterr().err


def test_serving_before_building_says_what_to_build(tmp_path):
    with pytest.raises(SystemExit, match="make html"):
        serve.main([str(tmp_path), "--port", "0"])


def test_serve_prints_its_address_and_stops_cleanly_on_interrupt(tmp_path):
    import signal

    (tmp_path / "index.html").write_text("home")
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.serve", "--port", "0", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert re.search(r"http://127\.0\.0\.1:[1-9]\d*/", first)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Stopped." in rest
    assert "Traceback" not in errors


# ------------------------------------------------------------------------------------------------ browser


@pytest.fixture
def no_browser(monkeypatch):
    """A machine on which no browser is found, until a test says otherwise."""
    browser.find_chromium.cache_clear()
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(browser.shutil, "which", lambda command: None)
    monkeypatch.setattr(browser, "MAC_APPLICATIONS", ())
    monkeypatch.setattr(browser, "playwright_chromium", lambda: None)
    yield
    browser.find_chromium.cache_clear()


def executable(path: Path, status: int = 0) -> str:
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


def test_a_browser_that_does_not_start_is_passed_over(no_browser, monkeypatch, tmp_path):
    stub = executable(tmp_path / "chromium", status=1)  # as Ubuntu's snap stub does
    good = executable(tmp_path / "google-chrome")
    monkeypatch.setattr(browser.shutil, "which", {"chromium": stub, "google-chrome": good}.get)
    assert browser.find_chromium() == good


def test_playwrights_own_browser_is_the_last_resort(no_browser, monkeypatch, tmp_path):
    own = executable(tmp_path / "chrome")
    monkeypatch.setattr(browser, "playwright_chromium", lambda: own)
    assert browser.find_chromium() == own


def test_playwright_says_where_its_browser_would_be():
    path = browser.playwright_chromium()
    assert path is not None
    assert Path(path).is_absolute()


def test_a_named_browser_is_taken_at_its_word(no_browser, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "nothing"))
    monkeypatch.setattr(browser, "playwright_chromium", lambda: executable(tmp_path / "chrome"))
    assert browser.find_chromium() is None
    assert browser.main() == 1
    assert "does not start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("root", "system", "first"),
    [
        (True, "debian", ["apt-get", "-q", "update"]),
        (True, "ubuntu", [sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"]),
        (False, "debian", [sys.executable, "-m", "playwright", "install", "chromium"]),
    ],
)
def test_the_way_to_install_fits_the_system(monkeypatch, root, system, first):
    monkeypatch.setattr(browser.os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(browser.shutil, "which", lambda command: f"/usr/bin/{command}")
    monkeypatch.setattr(browser, "distribution", lambda: system)
    ways = browser.ways_to_install()
    assert ways[0][0] == first
    assert ways[-1][0][1:4] == ["-m", "playwright", "install"]


def test_no_browser_and_no_way_to_one_fails_and_says_how(no_browser, monkeypatch, capsys):
    ran: list[list[str]] = []
    monkeypatch.setattr(browser.subprocess, "run", lambda command, **options: ran.append(command))
    assert browser.main() == 1
    assert ran, "an installation was tried"
    text = capsys.readouterr().err
    for how in ("apt-get install chromium", "playwright install", "CHROMIUM=", 'not browser"'):
        assert how in text


# ------------------------------------------------------------------------------------------------ gallery


def test_gallery_runs_each_script_and_fails_on_a_broken_one(tmp_path, capsys):
    (tmp_path / "plot_good.py").write_text("import os; assert os.environ['MPLBACKEND'] == 'agg'\n")
    assert gallery.main([str(tmp_path)]) == 0
    (tmp_path / "plot_bad.py").write_text("raise ValueError('a broken figure')\n")
    assert gallery.main([str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "a broken figure" in text
    assert "2 scripts, 1 failed" in text
    assert gallery.main([str(tmp_path / "nothing")]) == 1


# --------------------------------------------------------------------------------------- Makefile, README


def test_help_lists_every_target():
    result = make("help")
    assert result.returncode == 0
    assert set(re.findall(r"^  ([a-z-]+) ", result.stdout, re.MULTILINE)) == set(TARGETS)
    assert make().stdout == result.stdout, "make alone prints the help"


def test_every_target_is_phony():
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_planned(target):
    result = make("-n", target)
    assert result.returncode == 0, result.stderr


def test_make_test_prepares_the_environment_and_the_browser_first():
    plan = make("-n", "test", "VENV=_build/no-such-environment").stdout
    order = [plan.index(word) for word in ("setup_env.py", "tools.browser", "-m pytest")]
    assert order == sorted(order)


def test_make_serve_checks_the_port_before_the_long_build():
    plan = make("-n", "serve", "PORT=1234").stdout
    order = [plan.index(word) for word in ("--check --port 1234", "-b html", "--port 1234 _build/html")]
    assert order == sorted(order)


def test_the_readme_opens_with_the_two_commands_and_names_only_targets_that_exist():
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"```sh\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    assert readme[: block.start()].count("\n") <= 3
    assert [line.split("#")[0].strip() for line in block[1].splitlines()] == ["make serve", "make test"]
    for document in ("README.md", "CONTRIBUTING.md"):
        named = re.findall(r"`make ([a-z-]+)", (ROOT / document).read_text())
        assert named
        assert set(named) <= set(TARGETS), document
    table = {
        name for row in re.findall(r"^\| (.*?) \|", readme, re.MULTILINE) for name in re.findall("make ([a-z-]+)", row)
    }
    assert table == set(TARGETS)


def test_make_with_an_unknown_python_says_so(tmp_path):
    result = make("env", f"VENV={tmp_path}/venv", "PYTHON=/nowhere/python3")
    assert result.returncode != 0
    assert "found no Python 3 (tried: /nowhere/python3)" in result.stderr


def test_continuous_integration_runs_the_readmes_command():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert text.index("make test") < text.index("make html")
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_no_two_test_files_share_a_name():
    """Without packages pytest tells them apart by name alone, and refuses the second."""
    names = collections.Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_spelling_is_looked_at_and_a_misspelled_word_noticed(tmp_path):
    check = [sys.executable, "-m", "codespell_lib", "--toml", str(ROOT / "pyproject.toml")]
    (tmp_path / "page.md").write_text("Where the weights recieve a gradient.\n")  # codespell:ignore recieve
    found = subprocess.run([*check, str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.returncode == 65
    assert "recieve ==> receive" in found.stdout  # codespell:ignore recieve
    (tmp_path / "page.md").write_text("With nd an array of its gradients, dout.\n")
    assert subprocess.run([*check, str(tmp_path)], check=False).returncode == 0
