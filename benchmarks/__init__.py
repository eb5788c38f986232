"""How fast the package is: paired with PyTorch in one run, never inside a test.

``python -m benchmarks`` runs every topic and prints one table; ``--quick`` runs small sizes to see that it works.
"""

from __future__ import annotations

import os

# The threads that PyTorch computes with stay awake for some milliseconds after a call, in case there is another, and
# would take a core from what is timed next. Asleep they take none. It is read when PyTorch is loaded, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
