"""The claims ledger: sentences of the guide, each tied to a test that measures it.

A test in ``tests/claims`` carries ``@pytest.mark.claim("chapter-name")`` and takes the fixture ``claim``, a
:class:`Claim`. What it records goes into ``_build/claims``: one file per claim, written when its test ends, and
``ledger.json``, all of them together. A page quotes the sentence in a ``claim`` directive, which shows what was
measured, and quotes numbers through ``measured("chapter-name")["what"]``.

:class:`Ledger` knows which tests exist (it reads the files, it does not import them), which of them are stale, that is,
whose source or whose part of the package has changed since they last ran, and runs exactly these.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from docutils import nodes
from sphinx import addnodes
from sphinx.locale import _
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from guide_ext import freshness

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config
    from sphinx.environment import BuildEnvironment

logger = logging.getLogger(__name__)

# The chapters in reading order: the prefix of a claim's id, and the chapter's title.
CHAPTERS = {
    "home": "Home",
    "concepts": "Important concepts",
    "self": "Self-attention",
    "cross": "Cross-attention",
    "heads": "Multi-head attention",
    "causal": "Causal attention",
    "sparse": "Sparse attention",
    "scores": "Score functions",
    "soft": "Soft and hard attention",
    "appendix": "Appendices",
}

PROCESSES = 4  # at the most: each holds PyTorch and what its tests train
MANY = 8  # claims from which it pays to start more than one process


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------------------------------
# What a test records


def plain(value: Any) -> Any:
    """A value as JSON holds it: NumPy scalars and arrays become Python numbers and lists."""
    if isinstance(value, np.ndarray):
        if value.size > 100:
            raise ValueError(f"a claim records at most 100 numbers under one name, got an array of shape {value.shape}")
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | range):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "detach"):  # a torch tensor
        return plain(value.detach().cpu().numpy())
    raise TypeError(f"a claim records numbers, strings, booleans and lists of them, got {type(value).__name__}")


class Claim:
    """What a claim's test measures. Every method records first and asserts after.

    Attributes
    ----------
    id : str
        The claim's id.
    checks, notes, seeds : list, dict, list
        What has been recorded so far.
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self.checks: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}
        self.seeds: list[int] = []

    def rng(self, seed: int) -> np.random.Generator:
        """A generator with this seed; the seed goes into the ledger."""
        self.seeds.append(int(seed))
        return np.random.default_rng(seed)

    def note(self, **facts: Any) -> None:
        """Record facts that are not judged, such as the number of samples."""
        for name, value in facts.items():
            self._new(name)
            self.notes[name] = plain(value)

    def check(
        self,
        name: str,
        value: Any,
        *,
        expected: Any,
        tolerance: float = 0.0,
        relative: bool = False,
        why: str = "",
    ) -> None:
        """Record a value and assert that it lies within a tolerance of what is expected.

        Parameters
        ----------
        name : str
            What was measured; prose quotes it as ``measured(id)[name]``.
        value, expected : number or array
            Arrays are compared element by element.
        tolerance : float
            The largest deviation allowed, 0 for equality.
        relative : bool
            Whether the tolerance is a fraction of ``expected``.
        why : str
            Where the tolerance comes from: "four standard errors".
        """
        value, wanted = plain(value), plain(expected)
        bound = tolerance * np.abs(wanted) if relative else tolerance
        same = np.shape(value) == np.shape(wanted) or np.shape(wanted) == ()
        if isinstance(value, str) or isinstance(wanted, str):
            passed = value == wanted
        else:
            with np.errstate(invalid="ignore"):  # inf - inf, where the two are equal
                close = np.abs(np.subtract(value, wanted)) <= bound if same else False
            passed = same and bool(np.all(close | np.equal(value, wanted)))
        self._record(name, "check", value, passed, why, expected=wanted, tolerance=plain(tolerance), relative=relative)

    def below(self, name: str, value: Any, bound: float, why: str = "") -> None:
        """Record a value (or array) and assert that it is smaller than a bound."""
        self._record(name, "below", plain(value), bool(np.all(np.less(value, bound))), why, expected=plain(bound))

    def above(self, name: str, value: Any, bound: float, why: str = "") -> None:
        """Record a value (or array) and assert that it is larger than a bound."""
        self._record(name, "above", plain(value), bool(np.all(np.greater(value, bound))), why, expected=plain(bound))

    def require(self, name: str, condition: Any, why: str = "") -> None:
        """Record that a condition holds, and assert it."""
        if isinstance(condition, np.ndarray) and condition.size != 1:
            raise TypeError(f"require({name!r}) takes one boolean, got an array of shape {condition.shape}: use .all()")
        self._record(name, "require", bool(condition), bool(condition), why)

    def _new(self, name: str) -> None:
        if name in self.notes or any(check["name"] == name for check in self.checks):
            raise ValueError(f"{self.id} records {name!r} twice")

    def _record(self, name: str, kind: str, value: Any, passed: bool, why: str, **more: Any) -> None:
        __tracebackhide__ = True
        self._new(name)
        self.checks.append({"name": name, "kind": kind, "measured": value, "passed": passed, "why": why, **more})
        assert passed, f"{self.id}: {name}: {sentence(self.checks[-1])}" + (f" ({why})" if why else "")


def sentence(check: Mapping[str, Any]) -> str:
    """A check in words: measured 63.9, expected 64 ± 0.4."""
    if check["kind"] == "require":
        return "holds" if check["measured"] else "does not hold"
    return f"measured {shown(check['measured'])}, expected {expectation(check)}"


def expectation(check: Mapping[str, Any]) -> str:
    """What a check wants of its value: 64 ± 0.4, below 0.1, true."""
    if check["kind"] == "require":
        return "holds"
    if check["kind"] in ("below", "above"):
        return f"{check['kind']} {shown(check['expected'])}"
    if not check["tolerance"]:
        return shown(check["expected"])
    share = f"{100 * check['tolerance']:.3g} %" if check["relative"] else shown(check["tolerance"], 3)
    return f"{shown(check['expected'])} ± {share}"


def shown(value: Any, digits: int = 5) -> str:
    """A recorded value for a reader."""
    if isinstance(value, list):
        if len(value) > 3 and not isinstance(value[0], list | dict) and all(item == value[0] for item in value):
            return f"{shown(value[0], digits)} (all {len(value)})"
        inner = ", ".join(shown(item, min(digits, 4)) for item in value[:12])
        return f"[{inner}, …]" if len(value) > 12 else f"[{inner}]"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        from guide_ext.prose import as_text

        whole = value.is_integer() and abs(value) < 1e6 if math.isfinite(value) else False
        return as_text(f"{value:,.0f}" if whole else f"{value:.{digits}g}")
    return str(value)


class Measured(Mapping[str, Any]):
    """What a claim recorded, by name: its notes and the measured values of its checks."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._id = record["id"]
        self._values = {**record["notes"], **{c["name"]: c["measured"] for c in record["checks"]}}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise KeyError(f"claim {self._id!r} records no {name!r}; {near(name, self._values)}")
        value = self._values[name]
        return np.array(value) if isinstance(value, list) and _is_numeric(value) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"measured({self._id!r}): {self._values}"


def _is_numeric(value: list[Any]) -> bool:
    return all(_is_numeric(v) if isinstance(v, list) else isinstance(v, int | float) for v in value)


def near(name: str, known: Iterable[str]) -> str:
    """The known names nearest to one that is not known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:8]
    return f"did you mean {' or '.join(map(repr, close))}?" if close else "there are none"


QUOTED = re.compile(r"\bmeasured\(\s*[\"']([\w-]+)[\"']\s*\)")


def quoted(text: str) -> list[str]:
    """The ids that a page's text quotes with ``measured("...")``."""
    return list(dict.fromkeys(QUOTED.findall(text)))


# ---------------------------------------------------------------------------------------------------------------------
# The tests and their records


@dataclass(frozen=True)
class Test:
    """A claim's test as it stands in its file."""

    __test__ = False  # not a test class, whatever its name says

    id: str
    file: str  # relative to the repository, with forward slashes
    name: str  # test_x or TestX.test_x
    line: int
    docstring: str

    @property
    def nodeid(self) -> str:
        return f"{self.file}::{self.name.replace('.', '::')}"


@dataclass
class Record:
    """One entry of the ledger."""

    id: str
    test: str
    file: str
    line: int
    docstring: str
    status: str  # passed, failed, skipped
    checks: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    seconds: float = 0.0
    fingerprint: str = ""
    message: str = ""


class Ledger:
    """The claims of a repository: their tests, their records, and which of them are stale.

    Parameters
    ----------
    root : Path
        The repository; tests are in ``tests/claims``, records go to ``_build/claims``.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self.tests_dir = self.root / "tests" / "claims"
        self.directory = self.root / "_build" / "claims"
        self.path = self.directory / "ledger.json"
        package = self.root / "attn_guide"
        self.package = package if package.is_dir() else freshness.PACKAGE

    # -- tests

    @cached_property
    def found(self) -> list[Test]:
        """All tests that carry a claim, in the order of the files; an id may occur twice, which is a mistake."""
        return [test for path in sorted(self.tests_dir.glob("**/test_*.py")) for test in self._tests_of(path)]

    @cached_property
    def tests(self) -> dict[str, Test]:
        """The test of each claim."""
        first: dict[str, Test] = {}
        for test in self.found:
            first.setdefault(test.id, test)
        return first

    def problems(self) -> list[tuple[str, str]]:
        """(file:line, message) of tests that cannot be claims as they stand."""
        return [
            (f"{t.file}:{t.line}", f"claim {t.id!r} has another test, in line {self.tests[t.id].line} of "
             f"{self.tests[t.id].file}: one claim, one test")
            for t in self.found if self.tests[t.id] is not t
        ] + [
            (f"{t.file}:{t.line}", f"claim {t.id!r} does not begin with its chapter: {', '.join(CHAPTERS)}")
            for t in self.found if t.id.split("-")[0] not in CHAPTERS
        ]  # fmt: skip

    def _tests_of(self, path: Path) -> Iterator[Test]:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        functions: list[tuple[str, ast.FunctionDef]] = []
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                functions += [(f"{node.name}.{f.name}", f) for f in node.body if isinstance(f, ast.FunctionDef)]
            elif isinstance(node, ast.FunctionDef):
                functions.append((node.name, node))
        for name, function in functions:
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("mark.claim") and mark.args:
                    yield Test(
                        id=str(ast.literal_eval(mark.args[0])),
                        file=path.relative_to(self.root).as_posix(),
                        name=name,
                        line=function.lineno,
                        docstring=ast.get_docstring(function) or "",
                    )

    def fingerprint(self, test: Test) -> str:
        """A hash of all that a test's outcome depends on: its source, its helpers, its part of the package."""
        path = self.root / test.file
        source = freshness.function_source(path, test.name)
        others = ("torch", "scipy", "onnx", "transformers", "entmax")
        libraries = ["numpy", *(name for name in others if name in source)]
        extra = source + freshness.versions(*libraries)
        return freshness.fingerprint(freshness.function_dependencies(path, test.name, self.package), extra=extra)

    # -- records

    def record(self, claim: Claim, status: str, seconds: float, message: str = "") -> None:
        """Store what one test recorded; safe beside other processes that do the same."""
        test = self.tests.get(claim.id)
        if test is None:  # made in a way that the syntax tree does not show: not a claim that a page can make
            raise LookupError(f"no test is marked with the literal id {claim.id!r} in {self.tests_dir}")
        record = Record(
            id=claim.id,
            test=test.nodeid,
            file=test.file,
            line=test.line,
            docstring=test.docstring,
            status=status,
            checks=claim.checks,
            notes=claim.notes,
            seeds=claim.seeds,
            seconds=round(seconds, 3),
            fingerprint=self.fingerprint(test),
            message=message,
        )
        _replace(self.directory / "records" / f"{record.id}.json", json.dumps(asdict(record), indent=1))

    def merge(self) -> dict[str, dict[str, Any]]:
        """Put the records of the tests that exist into ``ledger.json``, and return them by id."""
        records: dict[str, dict[str, Any]] = {}
        for id, test in self.tests.items():
            path = self.directory / "records" / f"{id}.json"
            if path.is_file():
                record = json.loads(path.read_text(encoding="utf-8"))
                where = {
                    "test": test.nodeid,
                    "file": test.file,
                    "line": test.line,
                    "docstring": test.docstring,
                }
                records[id] = {**record, **where}
            else:
                records[id] = {**asdict(Record(id, test.nodeid, test.file, test.line, test.docstring, "never-run"))}
        text = json.dumps(dict(sorted(records.items())), indent=1)
        if not self.path.is_file() or self.path.read_text(encoding="utf-8") != text:
            _replace(self.path, text)
        self.__dict__["records"] = records
        return records

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        return self.merge()

    @freshness.unchanged()
    def stale(self, ids: Iterable[str] | None = None) -> list[str]:
        """The claims, of these or of all, whose test has not passed, or has changed (or what it uses) since it did."""
        records = self.merge()
        wanted = self.tests if ids is None else [id for id in dict.fromkeys(ids) if id in self.tests]
        return [
            id
            for id in wanted
            if records[id]["status"] != "passed" or records[id]["fingerprint"] != self.fingerprint(self.tests[id])
        ]

    def run(self, ids: Iterable[str]) -> tuple[int, str]:
        """Run the tests of these claims, many at a time where there are processors for it, and read the ledger again.

        Returns
        -------
        code : int
            0 if all passed, else what pytest returned.
        output : str
            What pytest printed.
        """
        wanted = list(ids)
        by_file: dict[str, list[str]] = {}
        for id in wanted:
            by_file.setdefault(self.tests[id].file, []).append(self.tests[id].nodeid)
        width = min(PROCESSES, processors(), len(by_file)) if len(wanted) >= MANY else 1
        shares = list(by_file.values()) if width > 1 else [[self.tests[id].nodeid for id in wanted]]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a second saved; these tests need no plugin
        if width > 1:  # threads of one process that wait for those of another cost more than they do
            environment.setdefault("OMP_NUM_THREADS", str(max(1, processors() // width)))
        options = ["-q", "--no-header", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers"]

        def run_share(nodes: list[str]) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "pytest", *nodes, *options]
            done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
            if width > 1:
                logger.info("claims: %s", " ".join([nodes[0].partition("::")[0], *done.stdout.split("\n")[-2:-1]]))
            return done

        with ThreadPoolExecutor(width) as pool:
            results = list(pool.map(run_share, sorted(shares, key=len, reverse=True)))
        self.merge()
        failed = [result for result in results if result.returncode]
        return max((result.returncode for result in results), default=0), "".join(r.stdout + r.stderr for r in failed)

    def refresh(self, ids: Iterable[str] | None = None) -> tuple[list[str], str]:
        """Run what is stale, of these ids or of all; one process at a time, the others find the work done.

        Returns
        -------
        ran : list of str
            The ids whose tests ran.
        output : str
            What pytest printed, if something went wrong in it.
        """
        with self._lock():
            stale = self.stale(ids)
            if not stale:
                return [], ""
            _, output = self.run(stale)
        return stale, output

    def measured(self, id: str) -> Measured:
        """What a claim recorded.

        Raises
        ------
        LookupError
            If no test has this id, or it has not run.
        """
        if id not in self.tests:
            raise LookupError(f"no claim {id!r}; {near(id, self.tests)}")
        if self.records[id]["status"] == "never-run":
            raise LookupError(f"claim {id!r} has not run: run `pytest {self.tests[id].file}`")
        return Measured(self.records[id])

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "lock", "w") as handle:
            try:
                import fcntl
            except ImportError:  # no such lock on this system: two builds at once do the work twice
                yield
                return
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _replace(path: Path, text: str) -> None:
    """Write a file in one step: another process sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(name, path)


# ---------------------------------------------------------------------------------------------------------------------
# Sphinx: state


def ledger(config: Config) -> Ledger:
    """The ledger of the repository that is built."""
    return _ledger(config.guide_root)


@lru_cache(maxsize=4)
def _ledger(root: str) -> Ledger:
    return Ledger(Path(root))


def find_root(app: Sphinx, config: Config) -> None:
    """The repository is where ``conf.py`` is, unless it says otherwise."""
    config.guide_root = str(config.guide_root or app.confdir)


@dataclass
class Citation:
    """A ``claim`` directive on a page."""

    id: str
    docname: str
    line: int
    sentence: list[nodes.Node]


@dataclass
class Store:
    """What the environment keeps over builds, by document."""

    citations: dict[str, list[Citation]] = field(default_factory=dict)
    used: dict[str, dict[str, str]] = field(default_factory=dict)  # docname -> claim -> digest of its record
    lists: dict[str, str] = field(default_factory=dict)  # docname with a claims-list -> digest of all
    problems: int = 0  # of this build

    def purge(self, docname: str) -> None:
        self.citations.pop(docname, None)
        self.used.pop(docname, None)
        self.lists.pop(docname, None)

    def merge(self, docnames: Iterable[str], other: Store) -> None:
        names = set(docnames)
        self.citations.update({name: made for name, made in other.citations.items() if name in names})
        self.used.update({name: seen for name, seen in other.used.items() if name in names})
        self.lists.update({name: seen for name, seen in other.lists.items() if name in names})

    def by_id(self) -> dict[str, list[Citation]]:
        found: dict[str, list[Citation]] = {}
        for docname in sorted(self.citations):
            for citation in self.citations[docname]:
                found.setdefault(citation.id, []).append(citation)
        return found


def store(env: BuildEnvironment) -> Store:
    if not hasattr(env, "guide_claims"):
        env.guide_claims = Store()  # type: ignore[attr-defined]
    return env.guide_claims  # type: ignore[attr-defined]


def digest(record: Mapping[str, Any] | None) -> str:
    """A hash of what a page shows of a record: the time it took is not part of it."""
    keys = ("status", "checks", "notes", "seeds", "docstring", "test")
    return hashlib.sha256(json.dumps(record and [record[key] for key in keys]).encode()).hexdigest()


def note_use(env: BuildEnvironment, docname: str, ids: Iterable[str]) -> None:
    """Remember that a page shows these claims: it is read again when their records change."""
    records = ledger(env.config).records
    store(env).used.setdefault(docname, {}).update({id: digest(records.get(id)) for id in ids})


def problem(env: BuildEnvironment, message: str, location: Any) -> None:
    """An error that fails the build, with or without ``-W``, after all pages have been written."""
    logger.error("%s", message, location=location, type="guide", subtype="claims")
    store(env).problems += 1


def refresh(app: Sphinx) -> None:
    """Run the stale checks before any page is read."""
    _ledger.cache_clear()  # a process may build more than once
    book = ledger(app.config)
    began = time.perf_counter()
    ran, output = book.refresh()
    total = len(book.tests)
    if ran:
        names = ", ".join(ran[:5]) + (", …" if len(ran) > 5 else "")
        logger.info("claims: ran %d of %d checks in %.1f s: %s", len(ran), total, time.perf_counter() - began, names)
    else:
        logger.info("claims: %d checks, none to run", total)
    if output:
        logger.info("%s", output.strip())


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    records = ledger(app.config).records
    used = store(env).used
    return [
        doc
        for doc in used
        if doc in env.found_docs and any(digest(records.get(id)) != seen for id, seen in used[doc].items())
    ]


def verify(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Every claim has a test that passed, every test is cited; the pages with a list of claims that changed."""
    book, kept = ledger(app.config), store(env)
    cited = kept.by_id()
    kept.problems = 0
    for location, message in book.problems():
        problem(env, message, location)
    for id, citations in cited.items():
        first, *others = citations
        for other in others:
            problem(env, f"claim {id!r} is made in {first.docname} already", (other.docname, other.line))
        trouble = failure(book, id)
        if trouble:
            problem(env, trouble, (first.docname, first.line))
    used = set(cited).union(*kept.used.values())
    for id in sorted(used - set(cited)):
        trouble = failure(book, id)
        if trouble:
            problem(env, trouble, next(doc for doc in sorted(kept.used) if id in kept.used[doc]))
    for id, test in book.tests.items():
        if id not in used:
            problem(env, f"no page cites claim {id!r}: write it there as a claim", f"{test.file}:{test.line}")
    said = {id: [(c.docname, *(node.astext() for node in c.sentence)) for c in found] for id, found in cited.items()}
    listed = [[id, digest(record), said.get(id)] for id, record in book.records.items()]
    now = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    again = [doc for doc, seen in kept.lists.items() if seen != now]
    kept.lists.update(dict.fromkeys(kept.lists, now))
    return again


def failure(book: Ledger, id: str) -> str:
    """Why a claim may not be made, or nothing."""
    if id not in book.tests:
        return f"claim {id!r} has no test; {near(id, book.tests)}"
    record = book.records[id]
    if record["status"] == "failed":
        bad = [f"{c['name']}: {sentence(c)}" for c in record["checks"] if not c["passed"]]
        return f"claim {id!r} fails: {'; '.join(bad) or record['message']} ({record['test']})"
    if record["status"] != "passed":
        return f"claim {id!r} has not run: {record['message'] or record['status']} ({record['test']})"
    return ""


def conclude(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.env is not None and store(app.env).problems:
        app.statuscode = 1


# ---------------------------------------------------------------------------------------------------------------------
# Sphinx: what a reader sees


class claim_block(nodes.General, nodes.Element):
    """A claim with its badge."""


class claim_details(nodes.General, nodes.Element):
    """What opens under the badge, in HTML."""


class claim_summary(nodes.General, nodes.TextElement):
    """The badge."""


class claim_short(nodes.General, nodes.Element):
    """The measurement in one line, for formats in which nothing opens."""


class claim_list(nodes.General, nodes.Element):
    """Stands for the list of claims until all pages are read."""


class claim_reference(nodes.Inline, nodes.TextElement):
    """Stands for a link to a claim until all pages are read."""


STATUS = {"passed": "checked", "failed": "fails", "never-run": "not run", "skipped": "not run"}


def badge_text(record: Mapping[str, Any] | None) -> str:
    return str(_(STATUS[record["status"]] if record else "no test"))


class ClaimDirective(SphinxDirective):
    """``:::{claim} id`` with the sentence as its content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        self.assert_has_content()
        id = self.arguments[0]
        body = self.parse_content_to_nodes(allow_section_headings=False)
        records = ledger(self.config).records
        note_use(self.env, self.env.docname, [id])
        copies = [node.deepcopy() for node in body]
        citation = Citation(id, self.env.docname, self.lineno, copies)
        store(self.env).citations.setdefault(self.env.docname, []).append(citation)
        record = records.get(id)
        status = record["status"] if record else "missing"
        block = claim_block("", ids=[f"claim-{id}"], classes=["ag-claim", f"ag-claim-{status}"])
        self.set_source_info(block)
        self.state.document.note_explicit_target(block)
        std = self.env.domains.standard_domain
        std.note_hyperlink_target(f"claim-{id}", self.env.docname, f"claim-{id}", f"claim {id}")
        block += nodes.container("", *body, classes=["ag-claim-sentence"])
        block += badge(id, record, self.config.guide_repository)
        if record:
            block += claim_short("", nodes.paragraph("", "", nodes.emphasis("", in_one_line(record))))
        return [block]


def badge(id: str, record: Mapping[str, Any] | None, repository: str) -> nodes.Node:
    """The badge, and the measurement that it opens."""
    details = claim_details("", classes=["ag-claim-check"])
    details += claim_summary("", badge_text(record), classes=["ag-claim-badge"], label=_("of this claim: %s") % id)
    if record:
        details += evidence(record, repository)
    return details


def in_one_line(record: Mapping[str, Any]) -> str:
    return f"{badge_text(record).capitalize()}: " + "; ".join(f"{c['name']}: {sentence(c)}" for c in record["checks"])


def evidence(record: Mapping[str, Any], repository: str) -> list[nodes.Node]:
    """The measurement as a table, and how it was made."""
    made: list[nodes.Node] = []
    reasons = {check["why"] for check in record["checks"] if check["kind"] != "require"}
    shared = reasons.pop() if len(reasons) == 1 else ""
    rows = []
    for check in record["checks"]:
        value = sentence(check) if check["kind"] == "require" else shown(check["measured"])
        why = f" ({check['why']})" if check["why"] and check["why"] != shared else ""
        rows.append([with_subscripts(cell) for cell in (check["name"], value, expectation(check) + why)])
    if rows:
        made.append(table(["what", "measured", "expected"], rows, classes=["ag-claim-table"]))
    facts = [
        f"{label(name)}{': ' if '=' in name else ' = '}{shown(value)}"
        for name, value in record["notes"].items() if _is_scalar(value)
    ]  # fmt: skip
    if record["seeds"]:
        facts.insert(0, ("seed " if len(record["seeds"]) == 1 else "seeds ") + ", ".join(map(str, record["seeds"])))
    if shared:
        facts.append(f"tolerance: {shared}" if len(record["checks"]) == 1 else f"tolerances: {shared}")
    if facts:
        made.append(nodes.paragraph("", with_subscripts("; ".join(facts)), classes=["ag-claim-facts"]))
    if record["docstring"]:
        text = " ".join(record["docstring"].split("\n\n")[0].split())
        made.append(nodes.paragraph("", with_subscripts(text), classes=["ag-claim-method"]))
    made.append(nodes.paragraph("", "Test: ", source_link(record, repository), classes=["ag-claim-test"]))
    return made


def with_subscripts(text: str) -> str:
    """The widths d_k and d_v as a reader writes them; Unicode has no subscripts for the longer names."""
    return re.sub(r"(?<!\w)d_([kv])(?!\w)", lambda found: "d" + {"k": "ₖ", "v": "ᵥ"}[found[1]], text)


def label(name: str) -> str:
    """A note's name for a reader: ``standard_error`` in words, a symbol such as ``d_k`` as it is."""
    return name if " " in name or re.fullmatch(r"[a-zA-Z](_\w+)?", name) else name.replace("_", " ")


def source_link(record: Mapping[str, Any], repository: str) -> nodes.Node:
    name = nodes.literal("", record["test"].removeprefix("tests/claims/"))
    if not repository:
        return name
    return nodes.reference("", "", name, refuri=repository.rstrip("/") + "/" + record["file"])


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, list | dict) and (not isinstance(value, str) or len(value) <= 80)


def table(head: list[Any], rows: list[list[Any]], classes: list[str]) -> nodes.table:
    """A table of texts or lists of nodes."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=100 // len(head)) for _ in head]

    def row(cells: list[Any]) -> nodes.row:
        line = nodes.row()
        for cell in cells:
            entry = nodes.entry()
            entry += nodes.paragraph("", cell) if isinstance(cell, str) else cell
            line += entry
        return line

    group += nodes.thead("", row(head))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group, classes=classes)


def stacked(made: list[nodes.Node], name: str) -> list[nodes.Node]:
    """Mark tables that a phone shows row by row, each cell on a line of its own after the words of class ``name``."""
    for node in made:
        if isinstance(node, nodes.table):
            node["classes"] += ["ag-stacked", name]
    return made


class ClaimsListDirective(SphinxDirective):
    """``:::{claims-list}``: the claims of a chapter, or all, with what was measured."""

    option_spec: ClassVar[dict[str, Any]] = {"chapter": lambda text: text.strip()}

    def run(self) -> list[nodes.Node]:
        chapter = self.options.get("chapter", "")
        if chapter and chapter not in CHAPTERS:
            raise self.error(f"no chapter {chapter!r}; {near(chapter, CHAPTERS)}")
        store(self.env).lists.setdefault(self.env.docname, "")
        return [claim_list("", chapter=chapter)]


class ResolveClaims(SphinxPostTransform):
    """Fills in what needs all pages: the lists, and the links to claims. Runs before references are resolved."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(claim_list)):
            node.replace_self(self.listing(node["chapter"]))
        for reference in list(self.document.findall(claim_reference)):
            reference.replace_self(self.link(reference["claim"], *reference.children))

    def listing(self, chapter: str) -> nodes.Node:
        cited = store(self.env).by_id()
        order = list(CHAPTERS)
        ids = [id for id in cited if not chapter or id.split("-")[0] == chapter]
        ids.sort(key=lambda id: (order.index(p) if (p := id.split("-")[0]) in order else 99, *_place(cited[id][0])))
        if not ids:
            return nodes.paragraph("", "No claims yet.")
        return nodes.container("", *map(self.entry, ids), classes=["ag-claims"])

    def entry(self, id: str) -> nodes.Node:
        """One claim of the list: its sentence, the first values, the badge that opens the rest, and its place."""
        record = ledger(self.config).records.get(id)
        said = [node.deepcopy() for node in store(self.env).by_id()[id][0].sentence]
        for node in said:
            for inner in node.findall(nodes.Element):
                inner["ids"], inner["names"] = [], []
        block = claim_block("", classes=["ag-claim", f"ag-claim-{record['status'] if record else 'missing'}"])
        block += nodes.container("", *said, classes=["ag-claim-sentence"])
        where = nodes.paragraph("", "", self.link(id, nodes.literal("", id)), classes=["ag-claim-test"])
        if record:
            some = [f"{check['name']}: {sentence(check)}" for check in record["checks"][:2]]
            more = len(record["checks"]) - len(some)
            rest = [f"and {more} more"] if more else []
            where += nodes.Text(with_subscripts(" · " + "; ".join(some + rest)))
        block += where
        block += badge(id, record, self.config.guide_repository)
        return block

    def link(self, id: str, *content: nodes.Node) -> nodes.Node:
        text = [node.deepcopy() for node in content]
        if id not in store(self.env).by_id():
            record = ledger(self.config).records.get(id)
            return source_link(record, self.config.guide_repository) if record else nodes.inline("", "", *text)
        reference = addnodes.pending_xref(
            "", refdomain="std", reftype="ref", reftarget=f"claim-{id}", refexplicit=True, refwarn=True
        )
        reference["refdoc"] = self.env.current_document.docname
        reference += nodes.inline("", "", *text)
        return reference


def _place(citation: Citation) -> tuple[str, int]:
    return citation.docname, citation.line


def _open(tag: str) -> Any:
    def visit(self: Any, node: nodes.Element) -> None:
        self.body.append(self.starttag(node, tag))

    return visit


def _end(tag: str) -> Any:
    def depart(self: Any, node: nodes.Element) -> None:
        self.body.append(f"</{tag}>\n")

    return depart


def _visit_summary(self: Any, node: nodes.Element) -> None:
    self.body.append(self.starttag(node, "summary", ""))


def _depart_summary(self: Any, node: nodes.Element) -> None:
    # every badge says "checked"; read aloud from a list of controls, each one says of what
    self.body.append(f'<span class="visually-hidden"> {self.encode(node["label"])}</span></summary>\n')


def _skip(self: Any, node: nodes.Element) -> None:
    raise nodes.SkipNode


def _pass(self: Any, node: nodes.Element) -> None:
    pass


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("guide_root", "", "", types=frozenset({str, Path}))
    app.add_config_value("guide_repository", "", "env", types=frozenset({str}))
    formats = ("latex", "text", "man", "texinfo")
    plainly: dict[str, Any] = dict.fromkeys(formats, (_pass, _pass))
    nothing: dict[str, Any] = dict.fromkeys(formats, (_skip, None))
    app.add_node(claim_block, html=(_open("div"), _end("div")), **plainly)
    app.add_node(claim_details, html=(_open("details"), _end("details")), **nothing)
    app.add_node(claim_summary, html=(_visit_summary, _depart_summary), **nothing)
    app.add_node(claim_short, html=(_skip, None), **plainly)
    app.add_node(claim_list)
    app.add_node(claim_reference)
    app.add_directive("claim", ClaimDirective)
    app.add_directive("claims-list", ClaimsListDirective)
    app.add_post_transform(ResolveClaims)
    app.connect("config-inited", find_root)
    app.connect("builder-inited", refresh)
    app.connect("env-get-outdated", outdated)
    app.connect("env-purge-doc", lambda app, env, docname: store(env).purge(docname))
    app.connect("env-merge-info", lambda app, env, names, other: store(env).merge(names, store(other)))
    app.connect("env-updated", verify)
    app.connect("build-finished", conclude, priority=900)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
