"""Every attention mechanism of the guide as a NumPy reference: ``import attn_guide as ag``."""

from .core import (
    attention_entropy,
    attention_scores,
    cross_attention,
    dropout,
    log_sum_exp,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
    self_attention,
    softmax,
    softmax_backward,
    softmax_jacobian,
)
from .scores import (
)

__version__ = "0.1.0"

__all__ = [
    "attention_entropy",
    "attention_scores",
    "cross_attention",
    "dropout",
    "log_sum_exp",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "self_attention",
    "softmax",
    "softmax_backward",
    "softmax_jacobian",
]
