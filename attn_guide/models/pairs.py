"""Sentence pairs whose word order differs, made from data that ships in packages: number words and dates."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["Pairs", "Vocabulary", "dates", "german_pieces", "number_lists", "numbers"]

#: The tokens that every vocabulary starts with: filling after the end, before the first word, after the last word.
PAD, START, STOP = 0, 1, 2

_GERMAN = re.compile(
    "dreizehn|vierzehn|fünfzehn|sechzehn|siebzehn|achtzehn|neunzehn|zwanzig|dreißig|vierzig|fünfzig|sechzig|siebzig|"
    "achtzig|neunzig|hundert|tausend|null|eins|ein|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|und"
)


@dataclass(frozen=True)
class Vocabulary:
    """The words of one language, each with its number.

    Parameters
    ----------
    words : tuple of str
        All words; the first three are ``<pad>``, ``<start>`` and ``<stop>``.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, sentences: list[list[str]]) -> Vocabulary:
        """Return the vocabulary of some sentences, its words in alphabetical order."""
        return cls(("<pad>", "<start>", "<stop>", *sorted({word for sentence in sentences for word in sentence})))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentences: list[list[str]]) -> Tensor:
        """Return the numbers of the words, each sentence closed by ``<stop>`` and filled up with ``<pad>``.

        Parameters
        ----------
        sentences : list of list of str
            Words.

        Returns
        -------
        Tensor, shape (sentences, longest + 1)
            int64.

        Raises
        ------
        ValueError
            If a word is not in the vocabulary.
        """
        number = {word: i for i, word in enumerate(self.words)}
        if unknown := sorted({word for sentence in sentences for word in sentence} - set(number)):
            raise ValueError(f"sentence has the words {unknown}; wanted words of this vocabulary: {self.words[3:]}")
        rows = torch.full((len(sentences), max(map(len, sentences)) + 1), PAD)
        for row, sentence in zip(rows, sentences, strict=True):
            row[: len(sentence) + 1] = torch.tensor([*(number[word] for word in sentence), STOP])
        return rows

    def decode(self, row: Tensor) -> list[str]:
        """Return the words of a row of numbers up to ``<stop>``."""
        words = []
        for i in row.tolist():
            if i == STOP:
                break
            words.append(self.words[i])
        return words


@dataclass(frozen=True)
class Pairs:
    """Sentences with their translations, split into those to learn from and those to be tested on.

    Parameters
    ----------
    source, target : Vocabulary
        The words of both languages.
    train : list of (list of str, list of str)
        Source and target words.
    tests : dict of list
        Sets of pairs of which none occurs in ``train``: ``"held_out"`` of the same kind, others named for what is
        different about them.
    """

    source: Vocabulary
    target: Vocabulary
    train: list[tuple[list[str], list[str]]]
    tests: dict[str, list[tuple[list[str], list[str]]]]

    @classmethod
    def split(cls, train: list[Any], **tests: list[Any]) -> Pairs:
        """Return pairs whose vocabularies are those of the training set: a test word that it lacks is an error."""
        return cls(Vocabulary.of([s for s, _ in train]), Vocabulary.of([t for _, t in train]), train, tests)


def german_pieces(word: str) -> list[str]:
    """Split a German number word into its parts.

    Parameters
    ----------
    word : str
        Such as "siebenundvierzig".

    Returns
    -------
    list of str
        Its parts in order; joined they are the word again.

    Raises
    ------
    ValueError
        If it is not made of the parts of German numbers below a million.

    Examples
    --------
    >>> from attn_guide.models.pairs import german_pieces
    >>> german_pieces("siebenundvierzig")
    ['sieben', 'und', 'vierzig']
    """
    pieces = _GERMAN.findall(word)
    if "".join(pieces) != word:
        raise ValueError(f"word is {word!r}; wanted a German number below a million")
    return pieces


def _number_pair(number: int) -> tuple[list[str], list[str]]:
    try:
        from num2words import num2words
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "number words need num2words: pip install attn-guide[models]", name="num2words"
        ) from None
    english = re.findall(r"[a-z]+", num2words(number, lang="en"))
    return english, german_pieces(num2words(number, lang="de"))


@cache
def numbers(train: int = 2000, test: int = 500) -> Pairs:
    """Return English number words with their German translation, which puts the units before the tens.

    Parameters
    ----------
    train : int
        Numbers below 10,000 to learn from.
    test : int
        Numbers in each of the test sets.

    Returns
    -------
    Pairs
        Tests: ``"held_out"``, numbers below 10,000 that are not in the training set, and ``"longer"``, numbers from
        10,000 to 999,999, which have more words than any number of the training set.

    Notes
    -----
    Words from the package num2words. English words are split at spaces and hyphens, German ones into their parts
    (``german_pieces``). The split is drawn once with Python's generator, seed 0.

    Examples
    --------
    >>> from attn_guide.models.pairs import numbers
    >>> source, target = numbers().tests["held_out"][0]
    >>> len(numbers().train), len(numbers().tests["longer"])
    (2000, 500)
    """
    draw = random.Random(0)
    below = draw.sample(range(10_000), train + test)
    above = draw.sample(range(10_000, 1_000_000), test)
    return Pairs.split(
        [_number_pair(n) for n in below[:train]],
        held_out=[_number_pair(n) for n in below[train:]],
        longer=[_number_pair(n) for n in above],
    )


@cache
def number_lists(train: int = 2000, test: int = 300) -> Pairs:
    """Return lists of numbers below 100 in English with their German translation: the order turns in every item.

    Parameters
    ----------
    train : int
        Lists of one to six numbers to learn from.
    test : int
        Lists in each of the test sets.

    Returns
    -------
    Pairs
        Tests: ``"held_out"``, lists of one to six numbers that are not in the training set, and for each length ``n``
        in 2, 4, 6, 8, 10 and 12 ``"n_numbers"``, lists of that length. Those of more than six are longer than any list
        of the training set, though made of the same words.

    Notes
    -----
    As ``numbers``; the numbers of a list are separated by the word "," on both sides. Seed 0.

    References
    ----------
    The question is that of Bahdanau, Cho and Bengio (2014), Neural Machine Translation by Jointly Learning to Align
    and Translate, figure 2: what happens as sentences grow.
    """
    draw = random.Random(0)

    def lists(count: int, lengths: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [tuple(draw.randrange(100) for _ in range(draw.choice(lengths))) for _ in range(count)]

    def pair(items: tuple[int, ...]) -> tuple[list[str], list[str]]:
        sides = zip(*map(_number_pair, items), strict=True)
        english, german = ([word for part in side for word in [",", *part]][1:] for side in sides)
        return english, german

    learned = lists(train, (1, 2, 3, 4, 5, 6))
    seen = set(learned)
    tests = {"held_out": [x for x in lists(2 * test, (1, 2, 3, 4, 5, 6)) if x not in seen][:test]}
    for n in (2, 4, 6, 8, 10, 12):
        tests[f"{n}_numbers"] = [x for x in lists(2 * test, (n,)) if x not in seen][:test]
    return Pairs.split([pair(x) for x in learned], **{name: [pair(x) for x in items] for name, items in tests.items()})


@cache
def dates(train: int = 2000, test: int = 500) -> Pairs:
    """Return dates as Americans write them, with the same dates in Hungarian: everything in the opposite order.

    Parameters
    ----------
    train : int
        Dates to learn from.
    test : int
        Dates to be tested on.

    Returns
    -------
    Pairs
        Test: ``"held_out"``, dates that are not in the training set.

    Notes
    -----
    Formatted by the package Babel (Unicode's CLDR) for the locales en_US and hu_HU in the full format, days from 1900
    to 2099. A year is four words, one a digit, so that it has to be copied digit by digit. Seed 0.

    Examples
    --------
    >>> from attn_guide.models.pairs import dates
    >>> source, target = dates().tests["held_out"][0]
    >>> len(dates().train)
    2000
    """
    try:
        from babel.dates import format_date
    except ModuleNotFoundError:
        raise ModuleNotFoundError("dates need Babel: pip install attn-guide[models]") from None

    def words(day: date, locale: str) -> list[str]:
        return _date_words(format_date(day, "full", locale=locale).lower())

    def pair(day: date) -> tuple[list[str], list[str]]:
        return words(day, "en_US"), words(day, "hu_HU")

    first = date(1900, 1, 1)
    span = (date(2100, 1, 1) - first).days
    days = [first + timedelta(days=n) for n in random.Random(0).sample(range(span), train + test)]
    return Pairs.split([pair(day) for day in days[:train]], held_out=[pair(day) for day in days[train:]])


def _date_words(text: str) -> list[str]:
    """Split a date at spaces and punctuation, and a year into its digits; "5" and "15" stay words."""
    words = re.findall(r"\w+", text)
    return [part for word in words for part in (word if len(word) == 4 and word.isdigit() else [word])]
