"""`lightning-nlp tokenizer train | show`: a tokenizer.json out of texts, and what one does to a text."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from lightning_nlp.cli.listing import Arguments
from lightning_nlp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

MEASURED = 200
"""Documents on which a new tokenizer is measured."""
HELP = {
    "kind": "bpe, unigram, wordpiece, word, byte or char (default: bpe)",
    "vocab_size": "tokens, special ones included (default: 4096)",
    "special_tokens": "have <pad>, <bos>, <eos> and <unk>",
    "bos": "have <bos>, with which texts then begin",
    "eos": "have <eos>, with which texts then end",
    "mask_token": "have <mask>",
    "sentinels": "<extra_id_N> tokens at the end",
    "extra_tokens": "further special tokens",
    "lowercase": "read texts in lower case",
    "unicode": "normalisation form: none, nfc or nfkc (default: none)",
    "strip_accents": "leave out accents",
    "split_digits": "every digit is a token of its own",
    "min_frequency": "how often a word, pair, piece or character must occur",
    "train_documents": "documents to read at most",
    "train_bytes": "bytes to read at most",
}


def main(argv: list[str]) -> int:
    """Train or show."""
    parser = Arguments(prog="lightning-nlp tokenizer", description=__doc__, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=Arguments)
    train = verbs.add_parser("train", help="train one on texts", allow_abbrev=False)
    train.add_argument("--path", required=True, help="texts: as data.path of a configuration")
    train.add_argument("--output", required=True, type=Path, help="the tokenizer.json to write")
    train.add_argument("--overwrite", action="store_true", help="replace it")
    train.add_argument("--text_column", action="append", help="column of the texts (default: text); may be given twice")
    units = ("document", "paragraph", "line")
    train.add_argument("--text_unit", choices=units, default="document", help="what a row of a plain text file is")
    train.add_argument("--streaming", action="store_true", help="read a set of the Hub without downloading it first")
    add_settings(train)
    look = verbs.add_parser("show", help="show what one does to a text", allow_abbrev=False)
    look.add_argument("tokenizer", type=Path, help="a tokenizer.json, or a run")
    look.add_argument("--text", action="append", default=[], help="a text; may be repeated")
    look.add_argument("--json", action="store_true", help="the same as JSON")
    options = parser.parse_args(argv)
    return train_file(options) if options.verb == "train" else show(options)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for every setting of a tokenizer."""
    from lightning_nlp.data.tokenizers.config import TokenizerConfig

    hints = get_type_hints(TokenizerConfig)
    for field in dataclasses.fields(TokenizerConfig):
        if field.name not in HELP:
            continue
        more: dict[str, Any] = {"type": hints[field.name]}
        if hints[field.name] is bool:
            more = {"action": argparse.BooleanOptionalAction}
        elif field.name == "extra_tokens":
            more = {"nargs": "+"}
        elif choices := [choice for choice in get_args(hints[field.name]) if isinstance(choice, str)]:
            more = {"choices": choices, "metavar": field.name.upper()}
        parser.add_argument(f"--{field.name}", help=HELP[field.name], default=argparse.SUPPRESS, **more)


def train_file(options: argparse.Namespace) -> int:
    """Train, write, and say what came out."""
    if options.output.exists() and not options.overwrite:
        raise ConfigError(f"--output '{options.output}' exists: --overwrite replaces it")
    names = options.text_column or ["text"]
    if len(names) > 2:
        raise ConfigError("--text_column may be given twice at most: for a text and its answer")
    from lightning_nlp.data.sources.bad_rows import usable
    from lightning_nlp.data.sources.source import SourceConfig, open_splits
    from lightning_nlp.data.tokenizers.of_run import train_tokenizer
    from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig

    given = {name: value for name, value in vars(options).items() if name in HELP}
    if "extra_tokens" in given:
        given["extra_tokens"] = tuple(given["extra_tokens"])
    fields = dict(zip(("text",) if len(names) == 1 else ("source", "target"), names, strict=True))
    started = time.perf_counter()
    try:
        config = TokenizerConfig(**given)
        settings = SourceConfig(
            path=options.path, text_unit=options.text_unit, streaming=options.streaming, validation_fraction=0.0
        )
        source = open_splits(settings, fields)["train"]
        tokenizer = train_tokenizer(
            ([row[field] for field in fields] for row in usable(source.scan(0), source)), config
        )
    except ConfigError as mistake:  # settings of a configuration are options here
        raise ConfigError(str(mistake).replace("data.tokenizer.", "--").replace("data.", "--")) from mistake
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        tokenizer.save(options.output)
    except OSError as error:
        raise DataError(f"cannot write '{options.output}': {error.strerror or error}") from error
    texts = [row[field] for row in islice(usable(source.scan(0), source), MEASURED) for field in fields]
    tokens = sum(map(len, tokenizer.encode_batch(texts)))
    each = sum(len(text.encode()) for text in texts) / max(tokens, 1)
    print(f"{options.output}: {describe(tokenizer)} ({time.perf_counter() - started:.1f} s)")
    print(f"  {each:.2f} bytes a token in the first {min(len(texts), MEASURED)} texts")
    return 0


def describe(tokenizer: Tokenizer) -> str:
    """``BPE, 2048 tokens, hash 0123456789ab``."""
    model = type(tokenizer.backend.model).__name__
    return f"{model}, {tokenizer.vocab_size} tokens, hash {tokenizer.hash[:12]}"


def facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a tokenizer has and does."""
    roles = {name: getattr(tokenizer, f"{name}_id") for name in ("pad", "bos", "eos", "unk", "mask")}
    return {
        "model": type(tokenizer.backend.model).__name__,
        "vocab_size": tokenizer.vocab_size,
        "hash": tokenizer.hash,
        "special": {
            name: None if id is None else {"id": id, "token": name_of(tokenizer, id)} for name, id in roles.items()
        },
        "special_ids": tokenizer.special_ids,
        "knows_words": tokenizer.knows_words,
    }


def name_of(tokenizer: Tokenizer, id: int) -> str:
    return str(tokenizer.backend.id_to_token(id))


def pieces(tokenizer: Tokenizer, text: str) -> list[dict[str, Any]]:
    """The tokens of a text: id, what it spells, bytes, and the number of its word."""
    ((ids, words),) = tokenizer.encode_words([text])
    rows = []
    for place, (id, word) in enumerate(zip(ids.tolist(), words.tolist(), strict=True)):
        size = tokenizer.bytes_of(id, first=place == 0)
        rows.append(
            {"id": id, "token": tokenizer.shown(id), "bytes": size, "word": word if tokenizer.knows_words else None}
        )
    return rows


def show(options: argparse.Namespace) -> int:
    """Print a tokenizer's facts, and the tokens of texts."""
    path = options.tokenizer / "tokenizer.json" if options.tokenizer.is_dir() else options.tokenizer
    if not path.is_file():
        what = "has no tokenizer.json" if options.tokenizer.is_dir() else "does not exist"
        raise ConfigError(f"'{options.tokenizer}' {what}")
    from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(path)
    found = facts(tokenizer)
    texts = [{"text": text, "tokens": pieces(tokenizer, text)} for text in options.text]
    if options.json:
        print(json.dumps({**found, "texts": texts}, indent=2, ensure_ascii=False))
        return 0
    print(f"{path}: {describe(tokenizer)}")
    roles = [f"{role} {value['token']} {value['id']}" for role, value in found["special"].items() if value]
    print(f"  special  {', '.join(roles) or 'none'}")
    ends = [value["token"] for role, value in found["special"].items() if value and role in ("bos", "eos")]
    print(f"  put around a text: {' and '.join(ends) or 'nothing'}")
    print(f"  words are {'known' if found['knows_words'] else 'not known'}")
    for text in texts:
        back = tokenizer.decode([row["id"] for row in text["tokens"]])
        size, count = len(text["text"].encode()), len(text["tokens"])
        same = "comes back exactly" if back == text["text"] else f"comes back as {back!r}"
        print(f"\n{text['text']!r}: {count} tokens, {size / max(count, 1):.2f} bytes a token, {same}")
        print(f"  {'id':>7}  bytes  word  token")
        for row in text["tokens"]:
            word = "-" if row["word"] is None else row["word"]
            print(f"  {row['id']:>7}  {row['bytes']:>5}  {word:>4}  {row['token']}")
    return 0
