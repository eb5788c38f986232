"""``make lighthouse``: which pages are judged, how they are served, and what counts as a miss."""

from __future__ import annotations

import gzip
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tools import lighthouse


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with Home, two chapters and what is none."""
    (tmp_path / "chapters").mkdir()
    for name in ("index", "other", "chapters/1-b", "chapters/0-a", "chapters/index"):
        (tmp_path / f"{name}.html").write_text(f"<p>{name} " + "again " * 200)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    return tmp_path


def report(performance: float = 1.0, seo: float | None = 1.0) -> dict[str, Any]:
    """As Lighthouse gives it, with two audits that decide the performance."""
    scores = dict.fromkeys(lighthouse.TARGETS, 1.0) | {"performance": performance, "seo": seo}
    parts = [{"id": "paint", "weight": 10}, {"id": "shift", "weight": 25}, {"id": "advice", "weight": 0}]
    return {
        "categories": {name: {"score": score, "auditRefs": parts} for name, score in scores.items()},
        "audits": {
            "paint": {"id": "paint", "score": 1, "title": "First paint"},
            "shift": {"id": "shift", "score": 0.6, "title": "Shift", "displayValue": "0.2"},
            "advice": {"id": "advice", "score": 0, "title": "Advice"},
        },
    }


def test_home_and_the_chapters_are_judged(site: Path) -> None:
    assert lighthouse.pages(site) == ["index.html", "chapters/0-a.html", "chapters/1-b.html"]


def test_a_miss_names_what_took_the_points() -> None:
    assert lighthouse.missed(report(performance=0.95)) == []
    assert lighthouse.missed(report(performance=0.94)) == ["performance 94, wanted 95: shift (0.2)"]
    assert lighthouse.missed(report(seo=None))[0].startswith("seo 0, wanted 100")


def test_text_is_sent_compressed_and_pictures_are_not(site: Path) -> None:
    def get(address: str) -> tuple[Any, bytes]:
        request = urllib.request.Request(address, headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request) as answer:
            return answer.headers, answer.read()

    with lighthouse.served(site) as address:
        for path in ("", "index.html"):
            headers, body = get(f"{address}/{path}")
            assert headers["Content-Encoding"] == "gzip"
            assert headers["Content-Type"] == "text/html"
            assert "max-age" in headers["Cache-Control"]
            assert gzip.decompress(body) == (site / "index.html").read_bytes()
        headers, body = get(f"{address}/picture.png")
        assert headers["Content-Encoding"] is None
        assert body == b"\x89PNG"


def test_the_best_of_three_judgements_counts(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = iter([report(0.5), report(0.97), report(0.99), report(0.5), report(0.6), report(0.55)])
    monkeypatch.setattr(lighthouse, "judge", lambda *_: next(given))
    monkeypatch.setattr(lighthouse, "installed", lambda: Path("lighthouse"))
    assert lighthouse.main([str(site)]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:2] for row in rows[1:4]] == [
        ["index.html", "97"],
        ["chapters/0-a.html", "99"],
        ["chapters/1-b.html", "60"],
    ]
    assert rows[4:] == ["chapters/1-b.html: performance 60, wanted 95: shift (0.2)"]


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lighthouse, "FOLDER", tmp_path)
    monkeypatch.setattr(lighthouse.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match=r"needs Node\.js \d+ or newer, and npm was not found"):
        lighthouse.installed()
    package = tmp_path / "node_modules" / "lighthouse"
    package.mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"version": "1.0.0"}))
    with pytest.raises(SystemExit, match="npm was not found"):  # another release does not do
        lighthouse.installed()
    (package / "package.json").write_text(json.dumps({"version": lighthouse.RELEASE}))
    assert lighthouse.installed().name == "lighthouse"
