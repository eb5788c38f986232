"""What the explorers know of trained models and of the examples of the chapters, computed for them."""

from __future__ import annotations
