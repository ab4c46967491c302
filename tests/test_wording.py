from __future__ import annotations

from fra.wording import counted


def test_a_noun_is_in_the_plural_unless_there_is_one() -> None:
    assert [counted(number, "near-identical frame") for number in (0, 1, 2)] == [
        "0 near-identical frames",
        "1 near-identical frame",
        "2 near-identical frames",
    ]
    assert counted(1, "person") == "1 person"
    assert counted(12_345, "withdrawn person") == "12,345 withdrawn people"
