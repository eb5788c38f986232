"""The ``claim`` fixture, and the way of what it recorded into the ledger: see ``guide_ext.claims``."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from guide_ext.claims import Claim, Ledger

LEDGER = pytest.StashKey[Ledger]()
CLAIM = pytest.StashKey[Claim]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger(config.rootpath)


@pytest.fixture
def claim(request: pytest.FixtureRequest) -> Claim:
    """Records and judges what a claim's test measures."""
    mark = request.node.get_closest_marker("claim")
    if mark is None or len(mark.args) != 1:
        pytest.fail('the fixture "claim" is for a test marked with @pytest.mark.claim("chapter-name")', pytrace=False)
    request.node.stash[CLAIM] = Claim(mark.args[0])
    return request.node.stash[CLAIM]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A claim's test that checks nothing fails."""
    yield
    mark = item.get_closest_marker("claim")
    if mark is not None and not (CLAIM in item.stash and item.stash[CLAIM].checks):
        pytest.fail(f"{item.name} checks nothing: take the fixture claim and call claim.check or claim.require")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write what the test recorded as soon as it has run, whatever its outcome."""
    report = yield
    mark = item.get_closest_marker("claim")
    if mark is not None and (report.when == "call" or not report.passed):
        recorded = item.stash.get(CLAIM, Claim(mark.args[0]))
        message = str(call.excinfo.value) if call.excinfo is not None else ""
        item.config.stash[LEDGER].record(recorded, report.outcome, call.duration, message)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Put the records together; under xdist the last worker to end has them all."""
    session.config.stash[LEDGER].merge()
