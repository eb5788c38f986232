"""The models by name."""

from __future__ import annotations

from . import bahdanau, glimpse, gpt, induction, longformer, luong, patterns, transformer, two_pattern
from .train import Recipe, Trained, fit

__all__ = ["load", "names", "recipe"]

_MODULES = (bahdanau, luong, transformer, two_pattern, induction, gpt, longformer, patterns, glimpse)
_RECIPES = {recipe.name: recipe for module in _MODULES for recipe in module.RECIPES}


def names() -> tuple[str, ...]:
    """Return the names of all models, in the order of the chapters that need them.

    Returns
    -------
    tuple of str
        What ``load`` takes.

    Examples
    --------
    >>> from attn_guide import models
    >>> models.names()[0]
    'bahdanau'
    """
    return tuple(_RECIPES)


def recipe(name: str) -> Recipe:
    """Return what a model's training depends on.

    Parameters
    ----------
    name : str
        One of ``names()``.

    Returns
    -------
    Recipe
        Its settings, and how to start it.

    Raises
    ------
    ValueError
        If there is no such model; the message lists those there are.

    Examples
    --------
    >>> from attn_guide import models
    >>> models.recipe("bahdanau").settings["width"]
    64
    """
    if name not in _RECIPES:
        raise ValueError(f"name is {name!r}; wanted one of {', '.join(_RECIPES)}")
    return _RECIPES[name]


def load(name: str, seed: int = 0) -> Trained:
    """Return a trained model, training it first where the cache does not hold it.

    Parameters
    ----------
    name : str
        One of ``names()``.
    seed : int
        Decides the initial weights and every batch.

    Returns
    -------
    Trained
        The model in evaluation mode, with its loss, history and results.

    Raises
    ------
    ValueError
        If there is no such model.
    CheckpointError
        If the cache holds a damaged checkpoint. ``python -m attn_guide.models train NAME --fresh`` replaces it.
    """
    return fit(recipe(name), seed)
