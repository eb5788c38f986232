"""The list of planted faults cannot rot, and the planting works. ``make mutation`` runs the whole list."""

import pytest

from tools import mutate


def test_there_are_enough_faults_over_every_module_of_the_reference():
    assert len(mutate.FAULTS) >= 40
    assert len({fault.name for fault in mutate.FAULTS}) == len(mutate.FAULTS)
    modules = {"core", "positions", "masks", "heads", "cache", "sparse", "flash", "linear", "scores", "selection"}
    assert {fault.module for fault in mutate.FAULTS} >= modules


@pytest.mark.parametrize("fault", mutate.FAULTS, ids=lambda fault: fault.name)
def test_the_text_of_a_fault_is_in_the_source_once(fault, tmp_path):
    mutate.plant(fault, tmp_path)
    planted = (tmp_path / "attn_guide" / f"{fault.module}.py").read_text()
    assert fault.wrong in planted
    assert planted != (mutate.ROOT / "attn_guide" / f"{fault.module}.py").read_text()


def test_a_fault_that_the_source_does_not_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"stands 0 times in core\.py"):
        mutate.plant(mutate.Fault("core", "nothing", "no such text", "x"), tmp_path)


@pytest.mark.slow
def test_a_planted_fault_is_caught_and_a_harmless_change_survives():
    caught = next(fault for fault in mutate.FAULTS if fault.name == "scores: additive without the squashing")
    harmless = mutate.Fault(
        "scores", "a comment", "#: Entries of the (queries, keys, d_a)", "#: Numbers of the (queries, keys, d_a)"
    )
    assert mutate.is_caught(caught)
    assert not mutate.is_caught(harmless)


def test_an_unknown_word_is_an_error(capsys):
    assert mutate.main(["no such fault"]) == 2
    assert "no fault is named like no such fault" in capsys.readouterr().err
