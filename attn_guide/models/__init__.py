"""Small models that are really trained: translators, language models and classifiers, in PyTorch.

``load(name)`` gives a trained model, and trains it first where it has not been trained on this machine before.
Importing ``attn_guide`` does not import this package, and so does not need torch.
"""

from .bahdanau import AdditiveAttention, Bahdanau
from .glimpse import Digits, Glimpse, Looks, digit_images
from .gpt import GPT, TextModel, corpus
from .induction import RepeatedSequences, head_scores
from .layers import Block, MultiHeadAttention, rope, sinusoidal
from .longformer import FarAnswers, Longformer, LongformerAttention
from .luong import Luong, LuongAttention
from .pairs import Pairs, Vocabulary, dates, german_pieces, number_lists, numbers
from .patterns import FarAnswersUnder, PatternModel, far_pattern
from .registry import load, names, recipe
from .train import AttentionMap, CheckpointError, Experiment, Recipe, Trained, cache_folder, fit, read_checkpoint
from .transformer import Transformer
from .translate import Alignment, Translation, Translator, attend, exact_match
from .two_pattern import OneLayer, TwoPatterns

__all__ = [
    "GPT",
    "AdditiveAttention",
    "Alignment",
    "AttentionMap",
    "Bahdanau",
    "Block",
    "CheckpointError",
    "Digits",
    "Experiment",
    "FarAnswers",
    "FarAnswersUnder",
    "Glimpse",
    "Longformer",
    "LongformerAttention",
    "Looks",
    "Luong",
    "LuongAttention",
    "MultiHeadAttention",
    "OneLayer",
    "Pairs",
    "PatternModel",
    "Recipe",
    "RepeatedSequences",
    "TextModel",
    "Trained",
    "Transformer",
    "Translation",
    "Translator",
    "TwoPatterns",
    "Vocabulary",
    "attend",
    "cache_folder",
    "corpus",
    "dates",
    "digit_images",
    "exact_match",
    "far_pattern",
    "fit",
    "german_pieces",
    "head_scores",
    "load",
    "names",
    "number_lists",
    "numbers",
    "read_checkpoint",
    "recipe",
    "rope",
    "sinusoidal",
]
