import pytest

from mcuq.errors import UsageError
from mcuq.ir.plans import Limits
from mcuq.target.limits import parse_bytes, parse_mem_constraint


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512000", 512000),
        ("512KiB", 524288),
        ("512K", 524288),
        ("512kB", 512000),
        ("2MiB", 2097152),
        ("1.5MiB", 1572864),
        ("2 MB", 2000000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["2048000,512000", "[2048000,512000]", " [2048kB, 512kB] "])
def test_constraint_forms(text: str) -> None:
    assert parse_mem_constraint(text) == Limits(2048000, 512000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("12", "has 1 part(s); write FLASH,RAM"),
        ("1,2,3", "has 3 part(s)"),
        ("a,b", "'a' is not understood"),
        ("0,5", "not positive"),
        ("-5,5", "not understood"),
    ],
)
def test_bad_constraints_say_what_to_write(text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_mem_constraint(text)
    assert words in str(error.value)
