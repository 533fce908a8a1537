"""Sample corpora: the same bytes every time, splits that share nothing, and all of it or none."""

from __future__ import annotations

import json
import re

import pytest

from lightning_nlp import registry
from lightning_nlp.data.builders import stdlib
from lightning_nlp.data.builders.stdlib import docstrings
from lightning_nlp.errors import ConfigError

SPLITS = ("train", "validation", "test")
FIELDS = {
    "stdlib_docs": ["id", "text"],
    "stdlib_modules": ["text", "label"],
    "stdlib_summaries": ["document", "summary"],
}


@pytest.fixture(scope="module")
def walked():
    """The standard library, parsed once for all builds: that is what takes the time."""
    found = [(name, list(docstrings(tree))) for name, tree in stdlib.modules()]
    assert len({name for name, _ in found}) == len(found) > 300
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stdlib, "modules", lambda: iter(found))
        patch.setattr(stdlib, "docstrings", iter)
        yield


@pytest.fixture(scope="module", params=sorted(FIELDS))
def built(request, tmp_path_factory, walked):
    """Name and two folders: a fresh one, and one in which an older corpus lay."""
    fresh, again = (tmp_path_factory.mktemp(request.param) / "corpus" for _ in range(2))
    stdlib.write(again, {"extra": [{"text": "old"}]}, {"name": "old"})
    build = registry.load(registry.BUILDERS, request.param)
    return request.param, fresh, again, build(fresh), build(again)


def rows_of(directory, split):
    return [json.loads(line) for line in (directory / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def names_in(directory):
    return sorted(file.name for file in directory.iterdir())


def test_built_twice_gives_the_same_bytes_and_replaces_what_was_there(built):
    _, fresh, again, about, about_again = built
    assert about == about_again
    assert names_in(fresh) == names_in(again) == ["info.json", "test.jsonl", "train.jsonl", "validation.jsonl"]
    for name in names_in(fresh):
        assert (fresh / name).read_bytes() == (again / name).read_bytes()
    assert names_in(fresh.parent) == names_in(again.parent) == ["corpus"]  # no work folder is left


def test_info_says_what_is_there(built):
    name, directory, _, about, _ = built
    assert json.loads((directory / "info.json").read_text()) == about
    assert (about["name"], about["fields"]) == (name, FIELDS[name])
    assert about["rows"] == {split: len(rows_of(directory, split)) for split in SPLITS}
    assert about["rows"]["train"] > 10 * about["rows"]["validation"] > 0
    assert about["rows"]["test"] > 0


def test_rows_have_their_fields_and_splits_share_nothing(built):
    name, directory, *_ = built
    seen = set()
    for split in SPLITS:
        for row in rows_of(directory, split):
            assert list(row) == FIELDS[name]
            assert all(isinstance(value, str) and value.strip() for value in row.values())
            for key in {row[FIELDS[name][0]], row.get("id", row[FIELDS[name][0]])}:
                assert key not in seen
                seen.add(key)


@pytest.mark.parametrize("built", ["stdlib_modules"], indirect=True)
def test_labels_are_masked_and_known_from_training(built):
    _, directory, _, about, _ = built
    assert len(about["labels"]) == 12
    assert about["labels"] == sorted({row["label"] for row in rows_of(directory, "train")})
    for split in SPLITS:
        for row in rows_of(directory, split):
            assert row["label"] in about["labels"]
            assert not re.search(rf"\b{re.escape(row['label'])}\b", row["text"], re.IGNORECASE), row


def test_every_label_is_tested(built):
    name, directory, _, about, _ = built
    if name == "stdlib_modules":
        assert {row["label"] for row in rows_of(directory, "test")} == set(about["labels"])


class Broken:
    """Fails where it is written."""


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("rows", [[{"text": "good"}, {"text": Broken()}], [{"text": "half a pair \ud800"}]])
def test_a_failure_leaves_no_half_folder(tmp_path, existing, rows):
    directory = tmp_path / "below" / "corpus"
    if existing:
        stdlib.write(directory, {"train": [{"text": "old"}]}, {"name": "old"})
    with pytest.raises((TypeError, UnicodeEncodeError)):
        stdlib.write(directory, {"train": [{"text": "new"}], "test": rows}, {"name": "new"})
    assert names_in(directory.parent) == (["corpus"] if existing else [])
    if existing:
        assert names_in(directory) == ["info.json", "train.jsonl"]
        assert rows_of(directory, "train") == [{"text": "old"}]


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_builder_that_fails_writes_nothing(tmp_path, monkeypatch, name):
    def modules():
        yield "one", [("", "A documentation string that is long enough to be used. " * 5)]
        raise OSError("disk gone")

    monkeypatch.setattr(stdlib, "modules", modules)
    monkeypatch.setattr(stdlib, "docstrings", iter)
    with pytest.raises(OSError, match="disk gone"):
        registry.load(registry.BUILDERS, name)(tmp_path / "corpus")
    assert names_in(tmp_path) == []


def test_what_is_no_corpus_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something that is no sample corpus"):
        stdlib.write(tmp_path / "thesis", {"train": [{"text": "new"}]}, {"name": "new"})
    assert names_in(tmp_path / "thesis") == ["chapter.txt"]
    assert names_in(tmp_path) == ["thesis"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "corpus").mkdir()
    about = stdlib.write(tmp_path / "corpus", {"train": [{"text": "neu: ä"}]}, {"name": "new"})
    assert about == {"name": "new", "rows": {"train": 1}}
    assert (tmp_path / "corpus" / "train.jsonl").read_bytes() == '{"text": "neu: ä"}\n'.encode()


def test_docstrings_from_top_to_bottom():
    tree = stdlib.ast.parse(
        '"""Top."""\nclass A:\n    """  Of A.\n\n    More.\n    """\n    def f(self):\n        "Of f."\n'
        'def g():\n    pass\nasync def h():\n    "Of h."\n'
    )
    assert list(docstrings(tree)) == [("", "Top."), ("A", "Of A.\n\nMore."), ("A.f", "Of f."), ("h", "Of h.")]


def test_splits_by_name_are_stable_and_of_the_right_size():
    found = [stdlib.split_by_name(f"module{number}") for number in range(4000)]
    assert found == [stdlib.split_by_name(f"module{number}") for number in range(4000)]
    shares = {split: found.count(split) / 4000 for split in SPLITS}
    assert shares == pytest.approx({"train": 0.9, "validation": 0.05, "test": 0.05}, abs=0.015)
