"""Numbers in words, as a grammar has them; pairs that no split shares."""

from __future__ import annotations

import json

import pytest

from lightning_nlp.data.builders import numbers

WORDS = [
    (0, "zero", "null"),
    (1, "one", "eins"),
    (7, "seven", "sieben"),
    (11, "eleven", "elf"),
    (12, "twelve", "zwölf"),
    (16, "sixteen", "sechzehn"),
    (17, "seventeen", "siebzehn"),
    (20, "twenty", "zwanzig"),
    (21, "twenty-one", "einundzwanzig"),
    (30, "thirty", "dreißig"),
    (66, "sixty-six", "sechsundsechzig"),
    (77, "seventy-seven", "siebenundsiebzig"),
    (100, "one hundred", "einhundert"),
    (101, "one hundred one", "einhunderteins"),
    (111, "one hundred eleven", "einhundertelf"),
    (999, "nine hundred ninety-nine", "neunhundertneunundneunzig"),
    (1000, "one thousand", "eintausend"),
    (1001, "one thousand one", "eintausendeins"),
    (1984, "one thousand nine hundred eighty-four", "eintausendneunhundertvierundachtzig"),
    (21_000, "twenty-one thousand", "einundzwanzigtausend"),
    (101_101, "one hundred one thousand one hundred one", "einhunderteintausendeinhunderteins"),
    (342_021, "three hundred forty-two thousand twenty-one", "dreihundertzweiundvierzigtausendeinundzwanzig"),
    (
        999_999,
        "nine hundred ninety-nine thousand nine hundred ninety-nine",
        "neunhundertneunundneunzigtausendneunhundertneunundneunzig",
    ),
]


@pytest.mark.parametrize(("number", "english", "german"), WORDS)
def test_words(number, english, german):
    assert (numbers.english(number), numbers.german(number)) == (english, german)


def test_every_number_has_words_of_its_own():
    sample = [*range(3000), *range(100_000, 102_000), *range(998_000, 1_000_000)]
    for words in (numbers.english, numbers.german):
        assert len({words(number) for number in sample}) == len(sample)


def test_the_set(tmp_path):
    about = numbers.build(tmp_path / "one")
    assert numbers.build(tmp_path / "two") == about
    rows = {}
    for split in ("train", "validation", "test"):
        assert (tmp_path / "one" / f"{split}.jsonl").read_bytes() == (tmp_path / "two" / f"{split}.jsonl").read_bytes()
        rows[split] = [json.loads(line) for line in (tmp_path / "one" / f"{split}.jsonl").open(encoding="utf-8")]
    assert about["rows"] == {split: len(found) for split, found in rows.items()}
    assert about["rows"]["train"] > 17_000 and min(about["rows"].values()) > 900
    ids = [row["id"] for found in rows.values() for row in found]
    assert len(set(ids)) == len(ids) and {int(id) for id in ids} >= set(range(1000))
    assert all(row["target"] == numbers.german(int(row["id"])) for row in rows["validation"])
    assert not any(row["source"] == row["target"] for found in rows.values() for row in found)  # copying never helps
