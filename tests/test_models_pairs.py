"""The data of the translators: words, splits, and what a vocabulary refuses."""

import pytest
import torch

pytest.importorskip("num2words")
pytest.importorskip("babel")
from num2words import num2words

from attn_guide.models.pairs import PAD, STOP, Pairs, Vocabulary, dates, german_pieces, number_lists, numbers


@pytest.mark.parametrize("pairs", [numbers(), number_lists(), dates()], ids=["numbers", "lists", "dates"])
def test_no_test_pair_was_seen_in_training(pairs):
    assert len(pairs.train) == 2000
    seen = {tuple(source) for source, _ in pairs.train}
    for items in pairs.tests.values():
        assert not seen & {tuple(source) for source, _ in items}
        words = {word for source, _ in items for word in source}
        assert words <= set(pairs.source.words)
        assert {word for _, target in items for word in target} <= set(pairs.target.words)


def test_numbers_are_distinct_and_of_the_promised_size():
    pairs = numbers()
    assert {name: len(items) for name, items in pairs.tests.items()} == {"held_out": 500, "longer": 500}
    everything = [tuple(s) for s, _ in [*pairs.train, *pairs.tests["held_out"], *pairs.tests["longer"]]]
    assert len(set(everything)) == 3000
    assert max(len(s) for s, _ in pairs.train) < max(len(s) for s, _ in pairs.tests["longer"])


@pytest.mark.parametrize("n", [0, 1, 16, 17, 21, 100, 101, 999, 1000, 1021, 7462, 21_021, 999_999])
def test_german_words_come_apart_at_their_parts(n):
    word = num2words(n, lang="de")
    assert "".join(german_pieces(word)) == word


def test_units_come_before_tens():
    assert german_pieces("siebentausendvierhundertzweiundsechzig") == (
        ["sieben", "tausend", "vier", "hundert", "zwei", "und", "sechzig"]
    )
    with pytest.raises(ValueError, match="word is 'zweimillionen'"):
        german_pieces("zweimillionen")


def test_lists_hold_as_many_numbers_as_they_say():
    tests = number_lists().tests
    for n in (2, 4, 6, 8, 10, 12):
        assert {source.count(",") + 1 for source, _ in tests[f"{n}_numbers"]} == {n}
        assert {target.count(",") + 1 for _, target in tests[f"{n}_numbers"]} == {n}
    assert {source.count(",") + 1 for source, _ in number_lists().train} == {1, 2, 3, 4, 5, 6}


def test_a_date_turns_round():
    english = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    hungarian = ["hétfő", "kedd", "szerda", "csütörtök", "péntek", "szombat", "vasárnap"]
    weekdays = dict(zip(english, hungarian, strict=True))
    for source, target in dates().tests["held_out"]:
        weekday, _, day, *year = source
        assert target[:4] == year
        assert target[5] == day
        assert target[6] == weekdays[weekday]
        assert len(source) == len(target) == 7


def test_the_split_is_the_same_every_time():
    numbers.cache_clear()
    first = numbers()
    numbers.cache_clear()
    assert numbers().train == first.train


def test_a_vocabulary_encodes_and_decodes():
    words = Vocabulary.of([["b", "a"], ["c"]])
    assert words.words == ("<pad>", "<start>", "<stop>", "a", "b", "c")
    rows = words.encode([["b", "a"], ["c"]])
    assert rows.tolist() == [[4, 3, STOP], [5, STOP, PAD]]
    assert [words.decode(row) for row in rows] == [["b", "a"], ["c"]]
    with pytest.raises(ValueError, match=r"words \['x', 'z'\]; wanted words of this vocabulary: \('a', 'b', 'c'\)"):
        words.encode([["z", "a", "x"]])
    assert words.decode(torch.tensor([3, 4])) == ["a", "b"]


def test_a_split_takes_its_words_from_the_training_set_only():
    pairs = Pairs.split([(["a"], ["b"])], held_out=[(["c"], ["d"])])
    assert "c" not in pairs.source.words
    assert "d" not in pairs.target.words
