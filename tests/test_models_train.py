"""The training loop, its checkpoints and the command line, on a model of three numbers."""

import io
import json
import signal
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from attn_guide import models
from attn_guide.models import __main__ as command_line
from attn_guide.models import registry, train
from attn_guide.models.train import CheckpointError, Experiment, Recipe, fit, read_checkpoint

SETTINGS = {"steps": 12, "lr": 0.1, "warmup": 3, "clip": 1.0, "measure_every": 4, "target": 2.0, "data": "a"}


class Fit(Experiment):
    """Learn a line under dropout of a fifth, whose best slope is 0.8 of the true one.

    Dropout keeps an output with probability 0.8 and then multiplies it by 1.25, so that the expected squared error
    is least at 1 / 1.25 of the slope. ``interrupt_at`` presses Ctrl-C while that batch is computed.
    """

    interrupt_at: int | None = None

    def __init__(self, settings):
        self.model = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.2))
        self.target, self.data, self.batches = settings["target"], settings["data"], 0

    def loss(self, generator):
        self.batches += 1
        if self.batches == self.interrupt_at:
            signal.raise_signal(signal.SIGINT)
        x = torch.randn(8, 2, generator=generator)
        return ((self.model(x).squeeze(-1) - self.target * x[:, 0]) ** 2).mean()

    def measure(self):
        assert not self.model.training
        return {"slope": float(self.model[0].weight[0, 0])}

    def evaluate(self):
        return {"error": abs(float(self.model[0].weight[0, 0]) - 0.8 * self.target)}


def start(settings, seed):
    return Fit(settings)


LINE = Recipe("line", "A line.", start, SETTINGS)


@pytest.fixture
def line(tmp_path):
    def run(recipe=LINE, seed=0, **options):
        return fit(recipe, seed, folder=tmp_path, **{"progress": None, **options})

    run.folder = tmp_path
    run.file = lambda: next(tmp_path.glob("*.ckpt"))
    return run


def parameters(trained):
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


def test_it_learns_and_records(line):
    trained = line(LINE.with_settings(steps=200))
    assert trained.results["error"] < 0.1
    assert trained.results["parameters"] == 3
    assert trained.loss.shape == (200,)
    assert trained.loss[-20:].mean() < trained.loss[:20].mean() / 2
    np.testing.assert_array_equal(trained.history["step"], range(0, 201, 4))
    assert trained.history["slope"].shape == (51,)
    assert not trained.model.training


def test_the_seed_decides_everything(line, tmp_path):
    first = line()
    again = line(fresh=True)
    assert torch.equal(parameters(first), parameters(again))
    np.testing.assert_array_equal(first.loss, again.loss)
    assert not torch.equal(parameters(first), parameters(line(seed=1)))


def test_the_caller_s_generator_and_threads_are_left_alone(line):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    line()
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == threads


def test_a_second_call_reads_the_first_s_result(line, monkeypatch):
    first = line()
    monkeypatch.setattr(Fit, "loss", lambda self, generator: pytest.fail("trained again"))
    second = line()
    assert torch.equal(parameters(first), parameters(second))
    np.testing.assert_array_equal(first.loss, second.loss)
    assert (first.results, first.seconds) == (second.results, second.seconds)
    assert [p.suffix for p in sorted(line.folder.iterdir())] == [".ckpt", ".lock"]


@pytest.mark.parametrize("at", [1, 5, 12])
def test_an_interrupted_run_goes_on_to_the_same_result(line, tmp_path, monkeypatch, at):
    whole = fit(LINE, 0, folder=tmp_path / "whole", progress=None)
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Fit, "interrupt_at", at)
    with pytest.raises(KeyboardInterrupt, match=f"line stopped at step {at} of 12; the next call goes on"):
        line()
    assert signal.getsignal(signal.SIGINT) is handler
    manifest, _ = read_checkpoint(line.file())
    assert (manifest["step"], manifest["results"]) == (at, {})
    monkeypatch.setattr(Fit, "interrupt_at", None)
    resumed = line()
    assert torch.equal(parameters(whole), parameters(resumed))
    np.testing.assert_array_equal(whole.loss, resumed.loss)
    assert whole.results == resumed.results
    for name, values in whole.history.items():
        np.testing.assert_array_equal(values, resumed.history[name])


def test_long_runs_save_along_the_way(line, monkeypatch):
    monkeypatch.setattr(train, "_SAVE_EVERY", -1.0)
    written = []
    write = train._write
    monkeypatch.setattr(
        train, "_write", lambda path, manifest, t: (written.append(manifest["step"]), write(path, manifest, t))
    )
    line()
    assert written == [*range(1, 13), 12]


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"data": "b"}, {"target": 1.0}, {"steps": 11}])
def test_other_settings_or_data_are_another_model(line, change):
    line()
    line(LINE.with_settings(**change))
    assert len(list(line.folder.glob("*.ckpt"))) == 2


def test_other_code_is_another_model_and_other_comments_are_not(line, monkeypatch):
    def key():
        return train._key(LINE, 0, Fit(SETTINGS))

    before, source = key(), train.inspect.getsource(sys.modules[__name__])
    with monkeypatch.context() as patch:
        edited = source.replace("A line.", "A line, described.") + "\n# a comment\n"
        patch.setattr(train.inspect, "getsource", lambda m: edited if m is sys.modules[__name__] else source)
        with_source = key()
    with monkeypatch.context() as patch:
        edited = source.replace("** 2)", "** 4)") + "\n"
        assert edited != source + "\n"
        patch.setattr(train.inspect, "getsource", lambda m: edited if m is sys.modules[__name__] else source)
        assert key() not in {before, with_source}
    with monkeypatch.context() as patch:
        commented = source + "\n# a comment\n"
        original = train.inspect.getsource
        patch.setattr(train.inspect, "getsource", lambda m: commented if m is sys.modules[__name__] else original(m))
        assert key() == before


def test_the_hash_covers_the_modules_that_are_used():
    found = train._sources(sys.modules["attn_guide.models.bahdanau"], {})
    assert {f"attn_guide.models.{name}" for name in ("bahdanau", "translate", "pairs", "train")} <= set(found)
    assert "attn_guide.models.luong" not in found


def damage(raw):
    head = len(train._MAGIC)
    line_end = raw.index(b"\n", head)
    return {
        "not a checkpoint of attn_guide": b"PK\x03\x04" + raw,
        "description is damaged": raw[:head] + b"{" + raw[head + 2 :],
        "cut short": raw[:-100],
        "checksum differs": raw[: line_end + 50] + bytes([raw[line_end + 50] ^ 1]) + raw[line_end + 51 :],
    }


@pytest.mark.parametrize("reason", list(damage(train._MAGIC + b"{}\n" + bytes(200))))
def test_a_damaged_checkpoint_is_refused_with_its_reason(line, reason):
    line()
    path = line.file()
    path.write_bytes(damage(path.read_bytes())[reason])
    with pytest.raises(CheckpointError, match=reason) as refused:
        line()
    assert str(path) in str(refused.value)
    line(fresh=True)  # and can be replaced
    read_checkpoint(path)


def test_a_foreign_checkpoint_is_refused(line, tmp_path):
    line()
    ours = line.file()
    line(LINE.with_settings(lr=0.2))
    theirs = next(p for p in line.folder.glob("*.ckpt") if p != ours)
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(CheckpointError, match="made from other code, data or settings"):
        line()


def test_reading_a_checkpoint_runs_no_code(line, tmp_path):
    """A pickle that would create a file is stopped by torch's loader, although its checksum is right."""

    class Malice:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    train._write(tmp_path / "bad.ckpt", {"key": "k"}, {"model": Malice()})
    with pytest.raises(CheckpointError, match="holds something other than tensors"):
        read_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "touched").exists()


def test_a_failed_write_leaves_what_was_there(line, monkeypatch):
    line()
    path = line.file()
    before = path.read_bytes()
    monkeypatch.setattr(train.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        train._write(path, {"key": "x"}, {})
    assert path.read_bytes() == before
    assert not list(line.folder.glob("*.part"))


def test_the_rate_rises_and_falls():
    rates = [train._rate(step, SETTINGS) for step in range(13)]
    assert rates[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    assert rates[3] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(rates[3:]))
    assert rates[-1] == pytest.approx(0.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(line):
    plain, terminal = io.StringIO(), Terminal()
    line(progress=plain)
    line(progress=terminal, fresh=True)
    lines = plain.getvalue().splitlines()
    assert [text.split(",")[0] for text in lines] == [f"line (seed 0): step {n}/12" for n in (3, 6, 9, 12)]
    assert terminal.getvalue().endswith(" s\n")
    assert f"[{'#' * 24}] 12/12 loss" in terminal.getvalue()


@pytest.mark.parametrize(("settings", "seed", "said"), [
    ({"steps": 0}, 0, "steps is 0; wanted an integer of at least 1"),
    ({}, -1, "seed is -1; wanted an integer of at least 0"),
])  # fmt: skip
def test_bad_arguments_are_named(line, settings, seed, said):
    with pytest.raises(ValueError, match=said):
        line(LINE.with_settings(**settings), seed)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("ATTN_GUIDE_MODELS", raising=False)
    assert models.cache_folder().parts[-2:] == ("_build", "models")
    monkeypatch.setenv("ATTN_GUIDE_MODELS", str(tmp_path))
    assert models.cache_folder() == tmp_path


# --- names and command line -----------------------------------------------------------------------------------------


@pytest.fixture
def only_line(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTN_GUIDE_MODELS", str(tmp_path))
    monkeypatch.setattr(registry, "_RECIPES", {"line": LINE})
    return tmp_path


def test_names_are_unique_and_settings_are_json():
    found = [registry.recipe(name) for name in registry.names()]
    assert [recipe.name for recipe in found] == list(registry.names())
    for recipe in found:
        assert json.loads(json.dumps(recipe.settings)) == recipe.settings
        assert recipe.about.endswith(".")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="name is 'bahdanu'; wanted one of bahdanau, "):
        models.load("bahdanu")


def test_load_trains_once(only_line):
    assert models.load("line", 3).seed == 3
    assert models.load("line", 3).results["parameters"] == 3
    assert len(list(only_line.glob("*.ckpt"))) == 1


def test_the_command_line_lists_trains_and_evaluates(only_line, capsys):
    assert command_line.main(["list"]) == 0
    assert capsys.readouterr().out.startswith("line          A line.")
    assert command_line.main(["train", "line", "--seed", "2"]) == 0
    assert "line (seed 2" in capsys.readouterr().out
    assert command_line.main(["evaluate"]) == 0
    assert "1 models" in capsys.readouterr().out
    command_line.main(["list"])
    assert capsys.readouterr().out.startswith("line  cached  A line.")


def test_the_command_line_reports_errors_in_a_sentence(only_line, capsys):
    assert command_line.main(["train", "circle"]) == 1
    assert capsys.readouterr().err == "error: name is 'circle'; wanted one of line\n"
    assert command_line.main(["draw", "line"]) == 1
    assert "error: this model has no maps of attention to draw" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.main(["train", "line", "--seed", "x"])
    assert "'x' is no seed; wanted a whole number of at least 0" in capsys.readouterr().err
    command_line.main(["train", "line"])
    next(only_line.glob("*.ckpt")).write_bytes(b"nothing")
    capsys.readouterr()
    assert command_line.main(["evaluate", "line"]) == 1
    assert "not a checkpoint" in (said := capsys.readouterr().err)
    assert "--fresh" in said


def test_the_command_line_is_interrupted_politely(only_line, monkeypatch, capsys):
    monkeypatch.setattr(Fit, "interrupt_at", 2)
    assert command_line.main(["train", "line"]) == 130
    assert "line stopped at step 2 of 12" in capsys.readouterr().err


def test_a_matrix_is_drawn_as_text():
    text = command_line.matrix_text(np.array([[0.999, 0.001], [0.25, 0.75]]), ["ein", "und"], ["one", "hundred"])
    assert text.splitlines() == ["        one hundred", "ein     100        ", "und      25      75"]


#: Recipes shortened to one step, one of each kind of experiment, and how many maps each draws.
MAPS = {
    "bahdanau": 1, "luong-local-p": 1, "transformer": 8, "induction": 8, "two-patterns-2-heads": 2, "gpt": 8,
    "glimpse-hard": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_every_kind_of_model_is_drawn(name, tmp_path):
    pytest.importorskip("num2words")
    trained = fit(models.recipe(name).with_settings(steps=1, batch=2), folder=tmp_path, progress=None)
    maps = trained.experiment.maps()
    assert len(maps) == MAPS[name]
    for found in maps:
        assert found.weights.shape == (len(found.rows), len(found.columns))
        whole = found.weights.sum() if name == "glimpse-hard" else found.weights.sum(axis=-1)
        if name == "luong-local-p":
            assert (whole <= 1 + 1e-5).all()
        else:
            np.testing.assert_allclose(whole, 1, rtol=1e-5)
    if name in ("induction", "two-patterns-2-heads", "glimpse-hard"):
        with pytest.raises(ValueError, match="text is 'one'; this model reads no text"):
            trained.experiment.maps("one")
    assert command_line._draw(trained, None).count("in percent") == len(maps)
