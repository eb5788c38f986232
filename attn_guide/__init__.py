"""Every attention mechanism of the guide as a NumPy reference: ``import attn_guide as ag``."""

from .core import softmax

__version__ = "0.1.0"

__all__ = ["softmax"]
