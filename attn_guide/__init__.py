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
    additive_score,
    additive_score_backward,
    concat_score,
    concat_score_backward,
    cosine_score,
    cosine_score_backward,
    dot_score,
    dot_score_backward,
    general_score,
    general_score_backward,
    scaled_dot_score,
    scaled_dot_score_backward,
)

__version__ = "0.1.0"

__all__ = [
    "additive_score",
    "additive_score_backward",
    "attention_entropy",
    "attention_scores",
    "concat_score",
    "concat_score_backward",
    "cosine_score",
    "cosine_score_backward",
    "cross_attention",
    "dot_score",
    "dot_score_backward",
    "dropout",
    "general_score",
    "general_score_backward",
    "log_sum_exp",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "scaled_dot_score",
    "scaled_dot_score_backward",
    "self_attention",
    "softmax",
    "softmax_backward",
    "softmax_jacobian",
]
