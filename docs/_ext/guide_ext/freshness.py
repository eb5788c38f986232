"""What a script, a page or a test uses of the package, read from its source without running it.

sphinx-gallery runs a script again when the *script* changes; a figure also goes stale when the *package* changes.
This module finds, from the syntax tree alone, exactly the files of ``attn_guide`` that a piece of code can reach:

>>> reached = dependencies_of("import attn_guide as ag\\nag.softmax([1, 2, 3])")
>>> {"core.py", "_checks.py"} <= {path.name for path in reached}
True
>>> "flash.py" in {path.name for path in reached}
False

``ag.softmax`` is looked up in ``attn_guide/__init__.py`` (which is parsed, not imported), found to come from
``core.py``, and from there the imports are followed to the end. The ``__init__.py`` files themselves are not
dependencies: they only say where a name lives, so a new export elsewhere makes nothing stale. When the code does
something that cannot be followed (it passes the package around, or imports by string), every module counts: the
answer may be too large, never too small.

A script may also read other files. A string that is the path of one, seen from the root of the repository, such as
``"benchmarks/results/flash.json"``, makes that file a dependency.

A *fingerprint* is a hash over such a set of files; two builds compare fingerprints to decide what to run again.
Whoever asks about many scripts or tests at once does so within :func:`unchanged`, and each file is followed once.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "attn_guide"
FILE = re.compile(r"[\w.-]+(/[\w.-]+)+\.(json|toml|csv|txt|py)")

__all__ = [
    "PACKAGE",
    "ROOT",
    "dependencies",
    "dependencies_of",
    "fingerprint",
    "function_dependencies",
    "function_source",
    "unchanged",
    "versions",
]

P = ParamSpec("P")
T = TypeVar("T")

#: What was found out within :func:`unchanged`: (function, arguments) -> answer.
_memory: dict[Any, Any] | None = None


@contextmanager
def unchanged() -> Iterator[None]:
    """Promise that no file changes within: each is read once, and what it reaches is found out once."""
    global _memory
    outer = _memory
    _memory = {} if outer is None else outer
    try:
        yield
    finally:
        _memory = outer


def _once(function: Callable[P, T]) -> Callable[P, T]:
    """Remember the answers of a function within :func:`unchanged`."""

    @wraps(function)
    def ask(*args: P.args, **kwargs: P.kwargs) -> T:
        if _memory is None:
            with unchanged():
                return ask(*args, **kwargs)
        key = (function, *args)
        if key not in _memory:
            _memory[key] = function(*args, **kwargs)
        return _memory[key]

    return ask


def dependencies(script: Path, package: Path = PACKAGE) -> frozenset[Path]:
    """The files of the package (and modules beside the script) that a script can reach.

    Parameters
    ----------
    script : Path
        A Python file outside the package, such as a gallery script.
    package : Path
        The package's directory.

    Returns
    -------
    frozenset of Path
        Absolute paths; neither the script itself nor the package's ``__init__.py`` is among them, except where a
        name is defined in the ``__init__.py`` itself.
    """
    script = Path(script).resolve()
    tree = _parse(script.read_text(encoding="utf-8"), str(script))
    return _Reach(package.resolve()).of([tree], beside=script.parent) - {script}


def dependencies_of(source: str, package: Path = PACKAGE, beside: Path | None = None) -> frozenset[Path]:
    """The same for a piece of source, such as the code blocks of a page joined together."""
    return _Reach(package.resolve()).of([_parse(source, "<source>")], beside=beside)


def function_dependencies(path: Path, function_name: str, package: Path = PACKAGE) -> frozenset[Path]:
    """What one function of a file reaches, with the helpers, constants and fixtures of that file that it uses.

    Parameters
    ----------
    path : Path
        A test file.
    function_name : str
        A function (``test_x``) or method (``TestX.test_y``) in it.
    package : Path
        The package's directory.

    Returns
    -------
    frozenset of Path
        Files of the package and modules beside the file; not the file itself: hash :func:`function_source` for it.

    Raises
    ------
    LookupError
        If the file has no such function.
    """
    path = Path(path).resolve()
    used, imports = _slice(path, function_name)
    return _Reach(package.resolve()).of(used, beside=path.parent, bindings=imports) - {path}


def function_source(path: Path, function_name: str) -> str:
    """The source of a function and of everything in the same file that it uses, in the file's order.

    An edit elsewhere in the file leaves this text as it was.
    """
    used, imports = _slice(Path(path).resolve(), function_name)
    names = {node.id for tree in used for node in ast.walk(tree) if isinstance(node, ast.Name)}
    bound = [node for node in imports if any((a.asname or a.name).split(".")[0] in names for a in node.names)]
    return "\n".join(ast.unparse(node) for node in [*bound, *used])


def fingerprint(paths: Iterable[Path], extra: str = "") -> str:
    """A SHA-256 over the names (relative to the repository) and contents of files, and any further text.

    Names count, so a function that moves to another file changes the fingerprint. A missing file counts as such.
    """
    digest = hashlib.sha256(extra.encode())
    for path in sorted({Path(p).resolve() for p in paths}):
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        digest.update(f"\0{name.as_posix()}\0".encode())
        digest.update(_content(path))
    return digest.hexdigest()


@_once
def _content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"missing"


def versions(*distributions: str) -> str:
    """The installed versions of distributions, as text for ``fingerprint(..., extra=...)``."""

    return ";".join(f"{name}={_version(name)}" for name in distributions)


@_once
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


# ---------------------------------------------------------------------------------------------------------------------
# Reading source


@lru_cache(maxsize=512)
def _parse(source: str, name: str) -> ast.Module:
    return ast.parse(source, filename=name)


@_once
def _parse_file(path: Path) -> ast.Module:
    return _parse(path.read_text(encoding="utf-8"), str(path))


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node, but not imports that only a type checker sees."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if _is_type_checking(tree) and child in tree.body:  # type: ignore[attr-defined]
            continue
        yield from _walk(child)


@lru_cache(maxsize=1024)
def _nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """All nodes of a tree; a module that many scripts reach is walked once."""
    return tuple(_walk(tree))


@_once
def _reached(path: Path, package: Path) -> frozenset[Path]:
    """A module and all that it imports, to the end."""
    found, pending = {path}, [path]
    while pending:
        more = _imported(pending.pop(), package) - found
        found |= more
        pending += more
    return frozenset(found)


@_once
def _imported(path: Path, package: Path) -> frozenset[Path]:
    """The modules that a module uses itself."""
    inside = path.is_relative_to(package)
    reach = _Reach(package)
    reach.follow(_parse_file(path), home=path if inside else None, beside=None if inside else path.parent)
    return frozenset(reach.entered)


@_once
def _module(base: Path, name: str) -> Path | None:
    """The submodule or subpackage ``name`` of the package directory ``base``."""
    if (base / f"{name}.py").is_file():
        return base / f"{name}.py"
    if (base / name / "__init__.py").is_file():
        return base / name
    return None


@_once
def _modules(package: Path) -> tuple[Path, ...]:
    return tuple(package.rglob("*.py"))


@dataclass
class _Reach:
    """Follows the names in a piece of source to the files of one package that hold them."""

    package: Path
    entered: set[Path] = field(default_factory=set)

    @property
    def top(self) -> str:
        return self.package.name

    def of(
        self,
        trees: Iterable[ast.AST],
        beside: Path | None,
        bindings: Iterable[ast.Import | ast.ImportFrom] | None = None,
    ) -> frozenset[Path]:
        """What the trees reach. With ``bindings``, those imports count only where the trees use their names."""
        trees = list(trees)
        module = ast.Module(body=[*(bindings or []), *trees], type_ignores=[])  # type: ignore[list-item]
        with unchanged():
            self.follow(module, home=None, beside=beside, lazy=set(map(id, bindings or [])))
            found = frozenset().union(*(_reached(path, self.package) for path in self.entered))
        return found | self._named(trees)

    def _named(self, trees: Iterable[ast.AST]) -> set[Path]:
        """The files of the repository that the trees name in strings."""
        strings = {n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        named = {self.package.parent / s for s in strings if isinstance(s, str) and FILE.fullmatch(s)}
        return {path for path in named if path.is_file()}

    def everything(self) -> None:
        self.entered.update(_modules(self.package))

    # -- where a name lives ----------------------------------------------------------------------------------------

    def _locate(self, dotted: list[str], base: Path) -> Path | None:
        """The file (or package directory) of a module path below ``base``."""
        where: Path | None = base
        for part in dotted:
            where = _module(where, part) if where is not None and where.is_dir() else None
        return where

    def _reach_name(self, where: Path, chain: list[str]) -> None:
        """Follow ``where.chain[0].chain[1]...``, where ``where`` is a module file or a package directory."""
        if where.is_file():
            self.entered.add(where)
            return
        if not chain:  # the package as a whole is handed to something
            self._all_of(where)
            return
        name, rest = chain[0], chain[1:]
        source = self._export(where, name)
        if source is not None:
            target, remaining = source
            if target == where / "__init__.py":
                self.entered.add(target)
            else:
                self._reach_name(target, remaining + rest)
            return
        submodule = _module(where, name)
        if submodule is not None:
            self._reach_name(submodule, rest)
            return
        self._all_of(where)

    def _all_of(self, where: Path) -> None:
        self.entered.update(_modules(where))

    def _export(self, where: Path, name: str) -> tuple[Path, list[str]] | None:
        """Where a package's ``__init__.py`` gets a name from."""
        init = where / "__init__.py"
        for node in _parse_file(init).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        base = self._base(node, init)
                        if base is None:
                            return None
                        if base == where:  # from . import submodule
                            submodule = _module(where, alias.name)
                            return (submodule, []) if submodule else None
                        return base, [alias.name]
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                if node.name == name:
                    return init, []
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                    return init, []
        return None

    def _base(self, node: ast.ImportFrom, home: Path | None) -> Path | None:
        """The module or package that ``from ... import`` names, if it is in our package."""
        dotted = node.module.split(".") if node.module else []
        if node.level:
            if home is None:
                return None
            base = home.parent
            for _ in range(node.level - 1):
                base = base.parent
            return self._locate(dotted, base) if base.is_relative_to(self.package) else None
        if dotted and dotted[0] == self.top:
            return self._locate(dotted[1:], self.package)
        return None

    # -- one syntax tree -------------------------------------------------------------------------------------------

    def follow(self, tree: ast.Module, home: Path | None, beside: Path | None, lazy: set[int] | None = None) -> None:
        """Collect what a tree reaches; ``home`` is the tree's own file if it lies in the package."""
        lazy = lazy or set()
        names: dict[str, tuple[Path, list[str]]] = {}  # local name -> (module or package, what of it)
        optional: dict[str, Path] = {}  # local name -> module beside the script, for lazy imports
        nodes = _nodes(tree)
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    parts = alias.name.split(".")
                    if parts[0] != self.top:
                        self._neighbour(parts, alias, beside, id(node) in lazy, optional)
                        continue
                    where = self._locate(parts[1:], self.package)
                    if where is None:
                        self.everything()
                    elif alias.asname:
                        names[alias.asname] = (where, [])
                        if where.is_file() and id(node) not in lazy:
                            self.entered.add(where)
                    else:
                        names[self.top] = (self.package, [])
                        if where.is_file() and id(node) not in lazy:
                            self.entered.add(where)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(node, home)
                if base is None:
                    if node.level == 0 and node.module and node.module.split(".")[0] != self.top:
                        for alias in node.names:
                            self._neighbour(
                                node.module.split("."), alias, beside, id(node) in lazy, optional, by_name=True
                            )
                    elif home is not None or (node.module or "").split(".")[0] == self.top:
                        self.everything()
                    continue
                for alias in node.names:
                    if alias.name == "*":
                        self._reach_name(base, [])
                        continue
                    local = alias.asname or alias.name
                    names[local] = (base, [alias.name])
                    if id(node) in lazy:
                        continue
                    submodule = _module(base, alias.name) if base.is_dir() else None
                    exported = self._export(base, alias.name) if base.is_dir() else None
                    is_package = submodule is not None and submodule.is_dir() and exported is None
                    if not is_package:  # of a package such as plot, only what is used of it counts
                        self._reach_name(base, [alias.name])
        attributes: set[int] = set()
        for node in nodes:
            if isinstance(node, ast.Attribute) and id(node) not in attributes:
                chain: list[str] = []
                inner: ast.expr = node
                while isinstance(inner, ast.Attribute):
                    attributes.add(id(inner))
                    chain.insert(0, inner.attr)
                    inner = inner.value
                if isinstance(inner, ast.Name) and inner.id in names:
                    attributes.add(id(inner))
                    where, prefix = names[inner.id]
                    self._reach_name(where, prefix + chain)
                    continue
                if chain[-1] == "import_module":
                    self.everything()
            if isinstance(node, ast.Name) and id(node) not in attributes:
                if node.id in names:
                    where, prefix = names[node.id]
                    self._reach_name(where, prefix)
                elif node.id in {"import_module", "__import__"}:
                    self.everything()
            if isinstance(node, ast.Name) and node.id in optional:
                self.entered.add(optional[node.id])

    def _neighbour(
        self,
        parts: list[str],
        alias: ast.alias,
        beside: Path | None,
        is_lazy: bool,
        optional: dict[str, Path],
        by_name: bool = False,
    ) -> None:
        """A module that lies beside the script, such as a helper of its gallery folder."""
        if beside is None:
            return
        where = self._locate(parts, beside)
        if where is None:
            return
        path = where / "__init__.py" if where.is_dir() else where
        if is_lazy:
            local = alias.asname or (alias.name if by_name else parts[0])
            optional[local] = path
        else:
            self.entered.add(path)


# ---------------------------------------------------------------------------------------------------------------------
# One function of a file


@_once
def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement of a module's top level defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


@_once
def _mentioned(node: ast.AST) -> set[str]:
    """The names that a node may use: variables, and parameters, since pytest's fixtures come in by name."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    names |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    for call in ast.walk(node):  # pytest.mark.usefixtures("name")
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("usefixtures"):
            names |= {a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return names


@_once
def _is_autouse(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
        "fixture" in (text := ast.unparse(d)) and "autouse=True" in text for d in node.decorator_list
    )


@_once
def _slice(path: Path, function_name: str) -> tuple[list[ast.stmt], list[ast.Import | ast.ImportFrom]]:
    """The statements of a file that a function needs, in order, and all imports of the file's top level."""
    tree = _parse_file(path)
    imports: list[ast.Import | ast.ImportFrom] = []
    statements: list[ast.stmt] = []
    pending = list(tree.body)
    while pending:  # imports may stand under ``if`` or ``try``
        node = pending.pop(0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        elif isinstance(node, ast.If | ast.Try | ast.With) and not _is_type_checking(node):
            inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            imports.extend(inner)
            statements.append(node)
        else:
            statements.append(node)
    first = function_name.split(".")[0]
    start = [n for n in statements if first in _defined(n)]
    if "." in function_name:
        method = function_name.split(".", 1)[1]
        start = [n for n in start if isinstance(n, ast.ClassDef) and any(method in _defined(b) for b in n.body)]
    if not start:
        raise LookupError(f"{path} has no function {function_name!r}")
    chosen = {id(n) for n in [*start, *filter(_is_autouse, statements)]}
    grew = True
    while grew:
        wanted = set().union(*(_mentioned(n) for n in statements if id(n) in chosen))
        more = {id(n) for n in statements if id(n) not in chosen and _defined(n) & wanted}
        chosen |= more
        grew = bool(more)
    return [n for n in statements if id(n) in chosen], imports
