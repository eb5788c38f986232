"""One training loop for every model: shows progress, can be interrupted and resumed, and is the same on every run.

A trained model is kept in one file, under a name that holds a hash of everything the result depends on: code, data,
settings, seed and the version of torch. Where that file exists it is read; where it does not, the model is trained.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import io
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from .._checks import check_integer

__all__ = [
    "AttentionMap",
    "CheckpointError",
    "Experiment",
    "Recipe",
    "Trained",
    "cache_folder",
    "fit",
    "read_checkpoint",
]

_MAGIC = b"attn_guide checkpoint 1\n"
#: Seconds between two checkpoints of a run that is still going.
_SAVE_EVERY = 10.0


class CheckpointError(RuntimeError):
    """A checkpoint that will not be used, and why."""


class AttentionMap(NamedTuple):
    """A matrix of attention weights with the names of its rows (what asks) and columns (what is looked at)."""

    title: str
    weights: np.ndarray
    rows: list[str]
    columns: list[str]


def no_text(text: str | None) -> None:
    """Raise unless ``text`` is None: for models that read no text."""
    if text is not None:
        raise ValueError(f"text is {text!r}; this model reads no text")


class Experiment:
    """What the loop trains: a model, the loss of its next batch, and what to measure.

    A subclass sets ``model`` and may set ``data``, text or bytes that stand for the data set: they go into the name
    of the checkpoint, so that changed data are trained on again.
    """

    model: nn.Module
    data: str | bytes = b""

    def loss(self, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch drawn with ``generator``, a scalar to minimise."""
        raise NotImplementedError

    def measure(self) -> dict[str, float]:
        """Return what to record along the way; called without gradients, with the model in evaluation mode."""
        return {}

    def evaluate(self) -> dict[str, float]:
        """Return what to record at the end, on data that the training did not see; called like ``measure``."""
        return {}

    def maps(self, text: str | None = None) -> list[AttentionMap]:
        """Return what the trained model attends to, on ``text`` where it reads text, or on an example of its own.

        Raises
        ------
        ValueError
            If the model reads no text and one is given, or cannot read this one.
        """
        raise ValueError("this model has no maps of attention to draw")


@dataclass(frozen=True)
class Recipe:
    """Everything that a training depends on, apart from the seed.

    Parameters
    ----------
    name : str
        Name of the model, as in ``models.load(name)``.
    about : str
        One sentence that says what it is and what it is trained on.
    start : callable
        ``start(settings, seed)`` gives the ``Experiment`` before its first step.
    settings : mapping
        Numbers and names, as JSON can hold them. The loop itself reads ``steps``, ``lr``, ``warmup`` (steps in which
        the rate rises from 0 to ``lr``; then it falls to 0 along a cosine), ``weight_decay``, ``clip`` (largest norm
        of a gradient) and ``measure_every`` (steps).
    """

    name: str
    about: str
    start: Callable[[Mapping[str, Any], int], Experiment]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def with_settings(self, **changes: Any) -> Recipe:
        """Return the recipe with other settings, for instance fewer ``steps``."""
        return Recipe(self.name, self.about, self.start, {**self.settings, **changes})


@dataclass(frozen=True)
class Trained:
    """A trained model and the record of its training.

    Parameters
    ----------
    experiment : Experiment
        Holds the data and knows how to use the model.
    name, seed : str, int
        What was trained.
    loss : ndarray, shape (steps,)
        Loss of each batch before its update.
    history : dict of ndarray
        What was measured along the way, each with as many entries as ``history["step"]``.
    results : dict of float
        What was measured at the end.
    seconds : float
        Wall-clock time of the training, evaluation included.
    """

    experiment: Experiment
    name: str
    seed: int
    loss: np.ndarray
    history: dict[str, np.ndarray]
    results: dict[str, float]
    seconds: float

    @property
    def model(self) -> Any:
        """The model, in evaluation mode."""
        return self.experiment.model


def cache_folder() -> Path:
    """Return the folder of trained models.

    Returns
    -------
    Path
        The environment variable ``ATTN_GUIDE_MODELS`` if it is set; otherwise ``_build/models`` of the checkout that
        holds this file; otherwise ``attn_guide/models`` in the user's cache.
    """
    if chosen := os.environ.get("ATTN_GUIDE_MODELS"):
        return Path(chosen)
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        return root / "_build" / "models"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "attn_guide" / "models"


def _sources(module: ModuleType, found: dict[str, str]) -> dict[str, str]:
    """Collect the code of a module and of the package's modules that it uses, without comments and docstrings.

    The hash must change with what runs and with nothing else: a mended comment must not train every model again.
    """
    if module.__name__ in found:
        return found
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value = ast.Constant("")
    found[module.__name__] = ast.dump(tree)
    package = __name__.partition(".")[0]
    for used in vars(module).values():
        origin = used.__name__ if isinstance(used, ModuleType) else getattr(used, "__module__", None)
        if isinstance(origin, str) and origin.startswith(f"{package}.") and origin in sys.modules:
            _sources(sys.modules[origin], found)
    return found


def _key(recipe: Recipe, seed: int, experiment: Experiment) -> str:
    """Hash everything that the result of a training depends on."""
    data = experiment.data.encode() if isinstance(experiment.data, str) else experiment.data
    described = {
        "name": recipe.name,
        "settings": dict(recipe.settings),
        "seed": seed,
        "data": hashlib.sha256(data).hexdigest(),
        "code": _sources(sys.modules[recipe.start.__module__], {}),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _write(path: Path, manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader sees the whole of it or nothing."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    payload = buffer.getvalue()
    head = json.dumps({**manifest, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(_MAGIC + head.encode() + b"\n" + payload)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str], *, key: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint, or refuse it.

    Parameters
    ----------
    path : path-like
        The file.
    key : str, optional
        The hash that it must have been written under.

    Returns
    -------
    manifest : dict
        ``name``, ``seed``, ``key``, ``step``, ``steps``, ``results`` and more, as JSON holds them.
    tensors : dict
        Parameters, state of the optimiser and of the random numbers, loss of each step.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If the file is no checkpoint, is damaged, or was made by other code, data or settings. The message says which.

    Notes
    -----
    The file is a line that names the format, a line of JSON, and tensors that ``torch.load`` reads with
    ``weights_only=True``: reading a checkpoint never runs code from it. The checksum in the JSON is compared first.
    """
    path = Path(path)
    raw = path.read_bytes()
    if not raw.startswith(_MAGIC):
        raise CheckpointError(f"{path}: not a checkpoint of attn_guide (it starts with {raw[:16]!r})")
    head, _, payload = raw[len(_MAGIC) :].partition(b"\n")
    try:
        manifest = json.loads(head)
        wanted, checksum = manifest["bytes"], manifest["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: its description is damaged") from None
    if len(payload) != wanted:
        raise CheckpointError(f"{path}: holds {len(payload)} bytes of tensors; wanted {wanted}: it was cut short")
    if hashlib.sha256(payload).hexdigest() != checksum:
        raise CheckpointError(f"{path}: its checksum differs: it was damaged after it was written")
    if key is not None and manifest.get("key") != key:
        raise CheckpointError(
            f"{path}: made from other code, data or settings (hash {manifest.get('key')}; wanted {key})"
        )
    try:
        tensors = torch.load(io.BytesIO(payload), weights_only=True)
    except Exception:  # of whatever kind: the archive, the pickle and the tensors each complain in their own way
        tensors = None
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: holds something other than tensors, which is not loaded")
    return manifest, tensors


def _is_record(found: Any) -> bool:
    """Say whether this is what a training measures: numbers by name."""
    return isinstance(found, dict) and all(type(x) in (int, float) for x in found.values())


def _describes(manifest: dict[str, Any], steps: int) -> bool:
    """Say whether a manifest describes a training of so many steps: a checksum that fits proves no sense."""
    step, history = manifest.get("step"), manifest.get("history")
    if manifest.get("steps") != steps or type(step) is not int or not 0 < step <= steps:
        return False
    if not isinstance(history, list) or not history or not all(map(_is_record, history)):
        return False
    same = all("step" in row and row.keys() == history[0].keys() for row in history)
    return same and _is_record(manifest.get("results")) and type(manifest.get("seconds")) in (int, float)


class _Progress:
    """A bar on a terminal, a line at each quarter elsewhere."""

    def __init__(self, title: str, steps: int, stream: TextIO | None) -> None:
        self.title, self.steps, self.stream = title, steps, stream
        self.start = self.shown = time.monotonic()
        self.quarter = 0

    def __call__(self, step: int, loss: float) -> None:
        if self.stream is None:
            return
        now, last = time.monotonic(), step == self.steps
        if self.stream.isatty():
            if last or now - self.shown > 0.1:
                self.shown = now
                bar = ("#" * (24 * step // self.steps)).ljust(24, ".")
                end = "\n" if last else ""
                self.stream.write(
                    f"\r{self.title} [{bar}] {step}/{self.steps} loss {loss:.4f} {now - self.start:.0f} s{end}"
                )
                self.stream.flush()
        elif 4 * step // self.steps > self.quarter:
            self.quarter = 4 * step // self.steps
            self.stream.write(f"{self.title}: step {step}/{self.steps}, loss {loss:.4f}, {now - self.start:.0f} s\n")
            self.stream.flush()


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back until a step is whole; the function given says whether it was pressed."""
    pressed = False

    def note(signum: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: pressed
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time train the model that belongs in ``path``; the others wait, and then read it."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows: two processes then train twice, and the files are still whole
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: sums then always have the same order, and small models are fastest this way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rate(step: int, settings: Mapping[str, Any]) -> float:
    """Return the learning rate of a step: a linear rise, then a cosine down to 0."""
    warmup, steps = settings.get("warmup", 0), settings["steps"]
    if step < warmup:
        return settings["lr"] * (step + 1) / warmup
    return settings["lr"] * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def _measured(experiment: Experiment, function: Callable[[], dict[str, float]]) -> dict[str, float]:
    experiment.model.eval()
    with torch.no_grad():
        found = {name: float(x) for name, x in function().items()}
    experiment.model.train()
    return found


def fit(
    recipe: Recipe,
    seed: int = 0,
    *,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: TextIO | None = sys.stderr,
) -> Trained:
    """Return the trained model of a recipe: read from the cache, resumed, or trained from the start.

    Parameters
    ----------
    recipe : Recipe
        What to train.
    seed : int
        Decides the initial weights and every batch.
    folder : path-like, optional
        Where checkpoints are kept; ``cache_folder()`` where it is not given.
    fresh : bool
        Train from the start even where a checkpoint exists, and replace it.
    progress : text stream or None
        Where to show progress.

    Returns
    -------
    Trained
        With the model in evaluation mode.

    Raises
    ------
    CheckpointError
        If there is a checkpoint and it cannot be used.
    KeyboardInterrupt
        When Ctrl-C was pressed: after the step is finished and a checkpoint written. The next call goes on from there
        and gives the same model as an uninterrupted run.

    Notes
    -----
    AdamW with a linear warm-up, a cosine decay and a bound on the gradient's norm. One thread, so that every run on
    one machine gives the same bits.

    References
    ----------
    Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, algorithm 2.
    """
    seed = check_integer("seed", seed)
    check_integer("steps", recipe.settings["steps"], 1)
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        experiment = recipe.start(recipe.settings, seed)
        key = _key(recipe, seed, experiment)
        path = Path(folder or cache_folder()) / f"{recipe.name}-{seed}-{key}.ckpt"
        with _alone(path):
            if fresh:
                path.unlink(missing_ok=True)
            return _train(recipe, seed, experiment, key, path, progress)


def _train(recipe: Recipe, seed: int, experiment: Experiment, key: str, path: Path, progress: TextIO | None) -> Trained:
    settings, model = recipe.settings, experiment.model
    steps, every = settings["steps"], settings.get("measure_every", settings["steps"])
    optimiser = torch.optim.AdamW(model.parameters(), settings["lr"], weight_decay=settings.get("weight_decay", 0.0))
    generator = torch.Generator().manual_seed(seed)
    loss_of = torch.zeros(steps)
    manifest: dict[str, Any] = {
        "name": recipe.name, "seed": seed, "key": key, "settings": dict(settings), "torch": torch.__version__,
        "steps": steps, "step": 0, "seconds": 0.0, "history": [], "results": {},
    }  # fmt: skip
    if path.exists():
        manifest, tensors = read_checkpoint(path, key=key)
        if not _describes(manifest, steps):
            raise CheckpointError(f"{path}: its description is damaged")
        try:
            model.load_state_dict(tensors["model"])
            loss_of.copy_(tensors["loss"].reshape(steps))
            if not manifest["results"]:
                optimiser.load_state_dict(tensors["optimiser"])
                generator.set_state(tensors["generator"])
                torch.set_rng_state(tensors["global_generator"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path}: holds the tensors of another model ({error})") from None

    def save(finished: bool) -> None:
        tensors: dict[str, Any] = {"model": model.state_dict(), "loss": loss_of}
        if not finished:
            tensors["optimiser"] = optimiser.state_dict()
            tensors["generator"], tensors["global_generator"] = generator.get_state(), torch.get_rng_state()
        _write(path, manifest, tensors)

    if not manifest["results"]:
        show = _Progress(f"{recipe.name} (seed {seed})", steps, progress)
        clock = saved = time.monotonic()
        model.train()
        with _interrupts() as interrupted:
            for step in range(manifest["step"], steps):
                if step % every == 0:
                    manifest["history"].append({"step": step, **_measured(experiment, experiment.measure)})
                for group in optimiser.param_groups:
                    group["lr"] = _rate(step, settings)
                loss = experiment.loss(generator)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                if "clip" in settings:
                    nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
                optimiser.step()
                loss_of[step] = loss.detach()
                manifest["step"] = step + 1
                show(step + 1, float(loss_of[step]))
                now = time.monotonic()
                if interrupted() or now - saved > _SAVE_EVERY:
                    manifest["seconds"] += now - clock
                    clock = saved = now
                    save(finished=False)
                    if interrupted():
                        raise KeyboardInterrupt(
                            f"{recipe.name} stopped at step {step + 1} of {steps}; the next call goes on"
                        )
        manifest["history"].append({"step": steps, **_measured(experiment, experiment.measure)})
        manifest["results"] = {**_measured(experiment, experiment.evaluate), "parameters": _count(model)}
        manifest["seconds"] += time.monotonic() - clock
        save(finished=True)
    model.eval()
    history = {name: np.array([row[name] for row in manifest["history"]]) for name in manifest["history"][0]}
    return Trained(experiment, recipe.name, seed, loss_of.numpy(), history, manifest["results"], manifest["seconds"])


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
