"""What a value says as a class name, in arrays and tables alike."""

import datetime
import decimal
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data.checks import check
from headstart.data.dataset import read_dataset
from headstart.data.dataset.labels import MISSING_WORDS, as_label, look_alike
from headstart.errors import DatasetError


class Undecided:
    """Behaves as `pandas.NA` does: what it is compared with has no truth value."""

    def __eq__(self, other):
        return self

    def __ne__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


def pixels(count):
    return np.arange(count * 64, dtype=np.uint32).astype(np.uint8).reshape(count, 8, 8)


def classes_of(labels):
    return read_dataset((pixels(len(labels)), labels)).classes


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("cat", "cat"),
        ("cat \t", "cat"),
        ("\ufeffcat\u200b", "cat"),
        ("\u00a0cat", "cat"),
        ("Ame\u0301lie", "Am\u00e9lie"),
        ("007", "007"),
        ("1.0", "1.0"),
        (b"cat", "cat"),
        (True, "True"),
        (np.True_, "True"),
        (7, "7"),
        (np.int8(7), "7"),
        (1.0, "1"),
        (np.float32(0.1), "0.1"),
        (decimal.Decimal("2.00"), "2"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29, 12, 30), "2024-02-29 12:30:00"),
        (np.datetime64("2024-02-29"), "2024-02-29"),
    ],
)
def test_a_value_names_the_class_that_was_meant(value, label):
    assert as_label(value) == label


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("nan"),
        np.float32("nan"),
        np.datetime64("NaT"),
        Undecided(),
        "",
        " ",
        *sorted(MISSING_WORDS),
    ],
)
def test_a_missing_value_names_no_class(value):
    assert as_label(value) is None


@pytest.mark.parametrize("value", [["a"], ("a", "b"), {"a": 1}, {"a"}, np.array([0, 1]), float("inf")])
def test_what_is_no_single_class_is_refused(value):
    with pytest.raises(DatasetError, match="the label is"):
        as_label(value)


@pytest.mark.parametrize("value", [b"\xff\xfe", "a\nb", "x" * 1001])
def test_bytes_that_are_no_text_line_breaks_and_endless_texts_are_refused(value):
    with pytest.raises(DatasetError, match="label"):
        as_label(value)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_a_label_comes_back_as_it_was_written(text):
    try:
        label = as_label(text)
    except DatasetError:
        assert "\n" in text or "\r" in text
        return
    if label is not None:
        assert as_label(label) == label
        assert label in unicodedata.normalize("NFC", text)


def test_missing_labels_of_arrays_are_counted_and_the_first_is_named():
    for missing in (None, float("nan"), Undecided(), "nan", np.datetime64("NaT")):
        with pytest.raises(DatasetError, match="y: 2 labels are missing, the first at 1"):
            classes_of(["a", missing, missing, "b"])
    with pytest.raises(DatasetError, match="1 label is missing, the first at 3"):
        classes_of(np.array(["a", "b", "a", Undecided()], dtype=object))


def test_numbers_dates_bytes_and_columns_are_labels():
    assert classes_of(np.array([0.0, 10.0, 9.0, 0.0])) == ("0", "9", "10")
    assert classes_of(np.array([[1], [2], [2], [1]])) == ("1", "2")
    assert classes_of(np.array([b"a", b"b", b"a", b"b"])) == ("a", "b")
    days = np.array(["2024-01-02", "2024-01-01"], dtype="datetime64[ns]")
    assert [name[:10] for name in classes_of(days)] == ["2024-01-01", "2024-01-02"]
    with pytest.raises(DatasetError, match="missing, the first at 1"):
        classes_of(np.array(["2024-01-02", "NaT"], dtype="datetime64[D]"))


def test_one_hot_rows_are_refused_with_the_way_out():
    with pytest.raises(DatasetError, match=r"got the shape \[3, 3\].*argmax\(axis=1\)"):
        classes_of(np.eye(3, dtype=int))


@pytest.mark.parametrize(
    ("one", "other"), [("Cat", "cat"), ("black cat", "black  Cat"), ("1", "01"), ("1.0", "1")]
)
def test_labels_that_differ_by_what_is_hardly_seen_are_refused_with_their_places(one, other):
    with pytest.raises(DatasetError, match=f"label 2: the label '{other}' looks like '{one}'.*label 0"):
        classes_of([one, "dog", other, "dog"])


def test_single_letters_are_told_apart_by_their_case():
    assert classes_of(["a", "A", "b", "B"]) == ("A", "B", "a", "b")


def test_blanks_and_the_two_spellings_of_an_accent_are_one_class():
    assert classes_of(["cat", "cat ", "caf\u00e9", "cafe\u0301"]) == ("caf\u00e9", "cat")
    assert look_alike("STRASSE") == look_alike("stra\u00dfe")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (list(range(8)), "as many classes as images.*numbers.*--task regression"),
        ([f"photo {index}" for index in range(8)], "as many classes as images.*names of single images"),
    ],
)
def test_measurements_and_names_of_images_are_no_classes(labels, message):
    with pytest.raises(DatasetError, match=message):
        classes_of(labels)
    read_dataset((pixels(len(labels)), labels), for_training=False)  # a few images may be of as many classes


def test_measurements_are_numbers_to_predict_and_that_is_said():
    for labels in ([0.37 * index for index in range(8)], [1.5, 1.5, *(0.1 + n for n in range(8))]):
        dataset = read_dataset((pixels(len(labels)), labels))
        assert dataset.task == "regression" and dataset.labels.tolist() == pytest.approx(labels)
        assert "say --task single-label" in dataset.notes[-1]


def test_ratings_with_fractions_are_classes():
    assert classes_of([0.5, 1.5, 2.5] * 4) == ("0.5", "1.5", "2.5")


def test_classes_are_listed_with_their_images():
    report = check((pixels(4), ["a", "b", "a", "NA"]))
    assert "classes: NA 1, a 2, b 1" in report.text()
    assert "a class is called NA; is its label missing?" in report.text()
    assert "2 of 3 classes have one image" in report.text()
    many = check((pixels(28), [f"class {index % 14:02}" for index in range(28)]))
    assert "class 11 2 … and 2 more classes" in many.text()
    assert len(many.to_dict()["classes"]) == 14
