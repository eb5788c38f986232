"""The mechanisms of the guide on tensors, at the speed of PyTorch's kernels: ``import attn_guide.torch as at``.

Names, contracts and masks are those of the NumPy reference; what is added is autograd, devices and speed.
"""

from attn_guide.masks import *  # noqa: F403
from attn_guide.masks import __all__ as _masks

from .core import attention_entropy, attention_scores, dropout, log_sum_exp, softmax
from .dispatch import (
    Choice,
    attention,
    cross_attention,
    explain,
    scaled_dot_product_attention,
    self_attention,
)
from .flex import block_mask

__all__ = [
    *_masks,
    "Choice",
    "attention",
    "attention_entropy",
    "attention_scores",
    "block_mask",
    "cross_attention",
    "dropout",
    "explain",
    "log_sum_exp",
    "scaled_dot_product_attention",
    "self_attention",
    "softmax",
]
