import pytest

from cxr_trt.words import disk_size, quantity


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "file", "0 files"),
        (1, "file", "1 file"),
        (2, "X-ray", "2 X-rays"),
        (1, "box", "1 box"),
        (3, "box", "3 boxes"),
    ],
)
def test_one_is_singular_and_all_else_plural(count, noun, text):
    assert quantity(count, noun) == text


@pytest.mark.parametrize(
    ("count", "text"), [(40_000, "0.0 MB"), (9.94e6, "9.9 MB"), (23e6, "23 MB"), (1.94e9, "1.9 GB")]
)
def test_sizes_have_the_digits_that_matter(count, text):
    assert disk_size(count) == text
