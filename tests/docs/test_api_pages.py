"""The API pages: each is made from what a module says of itself."""

from __future__ import annotations

import logging

import pytest
from guide_ext import site

import attn_guide as ag
from attn_guide import plot

PAGES = {site.short_name(module): module for module in site.public_modules()}


def test_an_instance_is_described_by_the_comment_above_its_name():
    assert site.summary(ag.full, "full") == "Every query sees every key: attention without a mask."
    assert site.comment(plot.KEY, "KEY") == ["The ink of keys."]


def test_a_function_is_described_by_its_docstring():
    assert site.summary(ag.softmax, "softmax").startswith("Turn scores into weights")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_every_name_is(name, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        page = site.api_page(PAGES[name], tmp_path)
    assert caplog.text == ""
    blocks = page.split("\n.. py:data:: ")[1:]
    assert [block.split("\n")[0] for block in blocks if not block.split("\n\n")[1].startswith("   ")] == []


def test_a_colour_is_shown_with_its_value(tmp_path):
    page = site.api_page(PAGES["plot"], tmp_path)
    said = f".. py:data:: KEY\n   :module: attn_guide.plot\n   :value: {plot.KEY!r}\n\n   The ink of keys.\n"
    assert said in page


def test_a_name_without_a_comment_is_warned_of(monkeypatch):
    warned = []
    monkeypatch.setattr(site.logger, "warning", lambda message, *args, **options: warned.append(message % args))
    assert site.comment("#123456", "NOWHERE") == []
    assert warned == ["NOWHERE has no comment that begins with #:, to say what it is"]
