"""Heads as a dimension: splitting a width into heads and joining them again."""

from __future__ import annotations

from torch import Tensor

from attn_guide._checks import check_integer

from ._checks import check_tensor

__all__ = ["merge_heads", "split_heads"]


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Cut the width into heads.

    Parameters
    ----------
    x : torch.Tensor, shape (..., n, h * d)
    num_heads : int
        Number of heads h, a divisor of the width.

    Returns
    -------
    torch.Tensor, shape (..., h, n, d)
        A view.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is no tensor of real numbers with a width that ``num_heads`` divides.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.split_heads(torch.zeros(5, 8), 4).shape
    torch.Size([4, 5, 2])
    """
    h = check_integer("num_heads", num_heads, least=1)
    if check_tensor("x", x).dim() < 2 or x.shape[-1] % h:
        raise ValueError(f"x has shape {tuple(x.shape)}; wanted (..., n, width) with a multiple of {h} heads as width")
    return x.unflatten(-1, (h, x.shape[-1] // h)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """Put the heads side by side: the inverse of ``split_heads``.

    Parameters
    ----------
    x : torch.Tensor, shape (..., h, n, d)

    Returns
    -------
    torch.Tensor, shape (..., n, h * d)

    Raises
    ------
    TypeError, ValueError
        If ``x`` is no tensor of real numbers with at least three dimensions.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.2.

    Examples
    --------
    >>> import torch, attn_guide.torch as at
    >>> at.merge_heads(torch.zeros(4, 5, 2)).shape
    torch.Size([5, 8])
    """
    if check_tensor("x", x).dim() < 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; wanted (..., h, n, d)")
    return x.transpose(-2, -3).flatten(-2)
