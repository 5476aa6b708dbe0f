"""Damage bytes and texts, the same way for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

WORDS = (
    b"\x00" * 8,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"ftyp",
    b"moov",
    b"\x00\x00\x00\x01",
    b"%s%n",
)
"""What parsers stumble over: extremes of lengths, and words that mean something."""

TOKENS = ("null", "-1", "1e999", "NaN", "[]", "{}", '""', "true", "99999999999999999999", '"\\u0000"', "../../x", "'")
"""What readers of text stumble over."""


def damaged(content: bytes, seed: int) -> bytes:
    """Return bytes with one to eight faults: turned bits, bytes overwritten, cut out, put in or doubled, a cut end."""
    chance = random.Random(seed)
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        if not made:
            break
        at = chance.randrange(len(made))
        if chance.random() < 0.3:
            at = min(at, chance.randrange(200))  # headers matter most
        at = min(at, len(made) - 1)
        kind = chance.randrange(7)
        length = chance.choice((1, 2, 4, 16, 300))
        if kind == 0:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            made[at : at + length] = bytes(chance.randrange(256) for _ in range(length))
        elif kind == 2:
            del made[at : at + length]
        elif kind == 3:
            made[at:at] = chance.choice(WORDS)
        elif kind == 4:
            word = chance.choice(WORDS)
            made[at : at + len(word)] = word
        elif kind == 5:
            made[at:at] = made[at : at + length]
        else:
            del made[at:]
    return bytes(made)


def damaged_text(text: str, seed: int, tokens: Sequence[str] = TOKENS) -> str:
    """Return a text with one to four faults: a word replaced or put in, characters lost, lines doubled or swapped."""
    chance = random.Random(seed)
    made = text
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(made) + 1)
        kind = chance.randrange(5)
        end = at + chance.choice((0, 1, 3, 20))
        if kind == 0:
            made = made[:at] + chance.choice(tokens) + made[end:]
        elif kind == 1:
            made = made[:at] + made[end:]
        elif kind == 2:
            lines = made.splitlines(keepends=True)
            chance.shuffle(lines)
            made = "".join(lines)
        elif kind == 3:
            made = made[:at] + chr(chance.choice((0, 9, 34, 92, 0x2028, 0xFFFD, 0x1F600))) + made[at:]
        else:
            values = [part for part in made.replace(",", "\n").splitlines() if ":" in part or "=" in part]
            if values:
                chosen = chance.choice(values)
                mark = ":" if ":" in chosen else "="
                name = chosen.split(mark)[0]
                made = made.replace(chosen, f"{name}{mark} {chance.choice(tokens)}", 1)
    return made
