"""What the package's command lines have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

__all__: list[str] = []

#: What a shell reports of a program whose reader has gone, as in ``... | head -1``: 128 and the number of SIGPIPE.
READER_GONE = 141


def leave_with(main: Callable[[], int]) -> NoReturn:
    """Run a command line and leave with its status; a reader that stops reading is no error to tell of."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more as it ends, which must find a reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = READER_GONE
    raise SystemExit(status)
