"""Every page made from code: the gallery, the reference and the sources, looked at as the pages that people write are.

A file of its own, so that a parallel run looks at both kinds at the same time.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser
from reading import Trouble
from walking import MADE_FROM_CODE, walk


@pytest.mark.browser
@pytest.mark.parametrize("kind", MADE_FROM_CODE)
def test_every_page(browser: Browser, address: str, pages: list[str], trouble: Trouble, kind: str) -> None:
    made = [path for path in pages if path.startswith(kind)]
    assert made
    faults = walk(browser, address, made, trouble)
    assert not faults, "\n".join(faults)
