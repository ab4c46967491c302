"""Numbers with their nouns, for messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 face", "1,204 faces", "2 withdrawn people".

    Args:
        number: How many.
        noun: In the singular; words may precede it ("near-identical frame").
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun.removesuffix('person')}{'people' if noun.endswith('person') else 's'}"
