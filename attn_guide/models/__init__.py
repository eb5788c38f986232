"""Small models that are really trained: translators, language models and classifiers, in PyTorch.

``load(name)`` gives a trained model, and trains it first where it has not been trained on this machine before.
Importing ``attn_guide`` does not import this package, and so does not need torch.
"""

from .bahdanau import AdditiveAttention, Bahdanau
from .luong import Luong, LuongAttention
from .pairs import Pairs, Vocabulary, dates, german_pieces, number_lists, numbers
from .registry import load, names, recipe
from .train import CheckpointError, Experiment, Recipe, Trained, cache_folder, fit, read_checkpoint
from .translate import Alignment, Translation, Translator, exact_match

__all__ = [
    "AdditiveAttention",
    "Alignment",
    "Bahdanau",
    "CheckpointError",
    "Experiment",
    "Luong",
    "LuongAttention",
    "Pairs",
    "Recipe",
    "Trained",
    "Translation",
    "Translator",
    "Vocabulary",
    "cache_folder",
    "dates",
    "exact_match",
    "fit",
    "german_pieces",
    "load",
    "names",
    "number_lists",
    "numbers",
    "read_checkpoint",
    "recipe",
]
