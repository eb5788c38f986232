"""Every page that people write, in both themes, on a wide and a narrow screen: what must hold everywhere."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser
from reading import Trouble
from walking import AXE, MADE_FROM_CODE, NARROW, look, walk

SHARES = 4  # so that a failure names itself early


@pytest.mark.browser
@pytest.mark.parametrize("share", range(SHARES))
def test_every_page(browser: Browser, address: str, pages: list[str], trouble: Trouble, share: int) -> None:
    written = [path for path in pages if not path.startswith(MADE_FROM_CODE)]
    faults = walk(browser, address, written[share::SHARES], trouble)
    assert not faults, "\n".join(faults)


@pytest.mark.browser
def test_the_walk_would_notice(browser: Browser, address: str) -> None:
    """The looks above find what they look for, in a page that has every fault."""
    context = browser.new_context(viewport=NARROW, base_url=address)
    page = context.new_page()
    trouble = Trouble(urlsplit(address).netloc)
    trouble.watch(page)
    page.route("http://elsewhere.invalid/*", lambda route: route.abort())
    page.goto("/robots.txt")
    page.set_content(
        "<html lang=en><title>t</title><main><h1>h</h1><article><p>\\frac{1}{2}</p>"
        "<span class=math>x</span><div style='width: 900px; background: #fff; color: #eee'>pale</div>"
        "<div class=prev-next-area><a style='display: block; width: 40px; overflow: hidden'>Conventions</a></div>"
        "<img src='/missing.png'><script src='http://elsewhere.invalid/x.js'></script></article></main></html>"
    )
    page.wait_for_load_state("networkidle")
    page.evaluate(AXE)
    found = "\n".join([*look(page, "page", {}), *trouble.take()])
    context.close()
    for fault in (
        "image not loaded",
        "no formula in",
        "raw markup",
        "wider than the screen",
        "cut: Conventions",
        "axe image-alt",
        "axe color-contrast",
        "asks another host",
        "404",
    ):
        assert fault in found
