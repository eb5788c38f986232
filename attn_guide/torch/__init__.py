"""The mechanisms of the guide on tensors, at the speed of PyTorch's kernels: ``import attn_guide.torch as at``.

Names, contracts and masks are those of the NumPy reference; what is added is autograd, devices and speed.
"""

from attn_guide.masks import *  # noqa: F403
from attn_guide.masks import __all__ as _masks

from . import cache, core, dispatch, flex, heads, linear, nn, positions, scores, selection, sparse
from .cache import *  # noqa: F403
from .core import *  # noqa: F403
from .dispatch import *  # noqa: F403
from .flex import *  # noqa: F403
from .heads import *  # noqa: F403
from .linear import *  # noqa: F403
from .positions import *  # noqa: F403
from .scores import *  # noqa: F403
from .selection import *  # noqa: F403
from .sparse import *  # noqa: F403

__all__ = [
    *_masks,
    *cache.__all__,
    *core.__all__,
    *dispatch.__all__,
    *flex.__all__,
    *heads.__all__,
    *linear.__all__,
    "nn",
    *positions.__all__,
    *scores.__all__,
    *selection.__all__,
    *sparse.__all__,
]
