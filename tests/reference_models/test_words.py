"""Words as numbers, and their vectors from files."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_models.words import Vocabulary, read_glove, read_texts

words = st.text("abAé猫-.,'\"#<", min_size=1, max_size=4)
texts = st.lists(st.lists(words, max_size=8).map(" ".join), max_size=4)


@given(texts, st.text(st.sampled_from(" \t\n"), max_size=3))
def test_a_known_text_survives_being_numbered_up_to_white_space(texts, space):
    vocabulary = Vocabulary.of(texts)
    for text in texts:
        assert vocabulary.decode(vocabulary.encode(space + text.replace(" ", "  ") + space)) == " ".join(text.split())
    assert len(vocabulary) == 2 + len({word for text in texts for word in text.split()})


def test_padding_is_0_and_an_unknown_word_is_1():
    vocabulary = Vocabulary.of(["the cat the dog"])
    assert vocabulary.words == ("<PAD>", "<UNK>", "the", "cat", "dog")
    numbers = vocabulary.encode("the mouse")
    assert (numbers.tolist(), numbers.dtype) == ([2, 1], torch.int64)
    assert vocabulary.decode(torch.tensor([0, 2, 1, 0, 0])) == "the <UNK>"


def test_words_are_numbered_by_how_often_they_are_and_then_by_when_they_came():
    texts = ["b a c", "c d b c"]
    assert Vocabulary.of(texts).words[2:] == ("c", "b", "a", "d")
    assert Vocabulary.of(texts, most=2).words[2:] == ("c", "b")
    assert Vocabulary.of([]).encode("").shape == (0,)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_texts_are_the_lines_that_have_words(tmp_path, ending):
    path = tmp_path / "texts.txt"
    path.write_bytes(ending.join(["\ufeffgröße  zählt", "", "   ", " not "]).encode())
    assert read_texts(path) == ["größe  zählt", "not"]


def test_an_empty_file_has_no_texts_and_another_encoding_is_refused(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes(b"")
    assert read_texts(path) == []
    path.write_bytes("größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"texts.txt: expected text in UTF-8"):
        read_texts(path)


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("the 0.5 -1 2e-1\r\n. . . 1 2 3\ncat 4 5 6 \n", encoding="utf-8")
    return path


def test_vectors_are_those_of_the_file_and_small_where_it_has_none(glove):
    vectors, found = read_glove(glove, ("<PAD>", "cat", "the", "dog", ". . ."), 3)
    assert found.tolist() == [False, True, True, False, True]
    assert vectors[found].tolist() == torch.tensor([[4, 5, 6], [0.5, -1, 0.2], [1, 2, 3]]).tolist()
    assert vectors[~found].abs().max() <= 0.05
    assert vectors[~found].unique().numel() == 6


def test_missing_vectors_are_uniform_and_a_seed_fixes_them(glove):
    names = [str(number) for number in range(20000)]
    first, again = (read_glove(glove, names, 3, generator=torch.Generator().manual_seed(4))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert abs(float(first.mean())) < 0.001
    assert abs(float(first.std()) - 0.1 / 12**0.5) < 0.001


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.dictionaries(words, st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2), min_size=1))
def test_every_vector_that_is_written_is_read(tmp_path, table):
    path = tmp_path / "vectors.txt"
    path.write_text("".join(f"{word} {a!r} {b!r}\n" for word, (a, b) in table.items()), encoding="utf-8", newline="")
    vectors, found = read_glove(path, list(table), 2)
    assert found.all()
    assert torch.equal(vectors, torch.tensor(list(table.values()), dtype=torch.float32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 1 2 3\ncat 1 2\n", "glove.txt:2: expected a word and 3 numbers, got 3 cells"),
        ("400000 3\nthe 1 2 3\n", "glove.txt:1: expected a word and 3 numbers, got 2 cells"),
        ("the 1 2 3\n\n", "glove.txt:2: expected a word and 3 numbers, got 1 cells"),
        (" 1 2 3\n", "glove.txt:1: expected a word and 3 numbers, got 4 cells"),
        ("the 1 x 3\n", "glove.txt:1: expected 3 numbers, got could not convert string to float: 'x'"),
    ],
    ids=["short", "header", "blank", "no word", "text"],
)
def test_a_broken_line_of_vectors_is_named(glove, text, message):
    glove.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_glove(glove, ("the",), 3)


def test_an_empty_file_has_no_vectors(glove):
    glove.write_text("")
    assert not read_glove(glove, ("the",), 3)[1].any()
