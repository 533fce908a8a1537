"""Tokenizers: trained on the data or loaded from any ``tokenizer.json``; always kept as one, with a hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from lightning_nlp.data.added_tokens import SENTINEL, add_tokens, added_names
from lightning_nlp.errors import ConfigError, DataError
from lightning_nlp.run.files import write_text

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forked workers would warn, and two cores gain nothing

SPECIAL = {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>"}
MASK = "<mask>"
USUAL = {
    "pad": ("<pad>", "[PAD]", "<|padding|>"),
    "bos": ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("<eos>", "</s>", "[SEP]", "<|end_of_text|>", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]"),
    "mask": (MASK, "[MASK]"),
}
"""Names under which published tokenizers keep their special tokens, in order of preference."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer to train, or to load."""

    kind: Literal["bpe", "byte", "char"] = "bpe"
    """bpe: byte-level pairs; byte: the 256 bytes; char: one token a character."""
    vocab_size: int = 4096
    """Of bpe, special tokens included."""
    path: str | None = None
    """A tokenizer.json to use instead of training one."""
    special_tokens: bool = True
    """Have <pad>, <bos>, <eos> and <unk>."""
    mask_token: bool = False
    """Have <mask>, after them (masked language modelling always has it)."""
    sentinels: int = 0
    """Have <extra_id_0>, <extra_id_1>, ... counted from the end of the vocabulary (span corruption always has them)."""
    extra_tokens: tuple[str, ...] = ()
    """Further special tokens, before the sentinels (dialogues have their role markers here)."""
    train_documents: int = 20_000
    """Documents read to train it."""
    train_bytes: int = 50_000_000
    """Characters read to train it, at most."""

    def __post_init__(self) -> None:
        if self.sentinels < 0:
            raise ConfigError(f"data.tokenizer.sentinels must be at least 0, not {self.sentinels}")
        names = [*special(self), *self.extra_tokens]
        if len(set(names)) < len(names) or any(not name or SENTINEL.fullmatch(name) for name in names):
            raise ConfigError("data.tokenizer.extra_tokens must be names that are not there yet, and no sentinels")
        least = 256 + len(names) + self.sentinels
        if self.kind == "bpe" and self.path is None and self.vocab_size < least:
            raise ConfigError(f"data.tokenizer.vocab_size must be at least {least} for bpe, not {self.vocab_size}")
        if self.path is not None and not Path(self.path).is_file():
            raise ConfigError(f"data.tokenizer.path '{self.path}' does not exist")
        if self.train_documents < 1 or self.train_bytes < 1:
            raise ConfigError("data.tokenizer.train_documents and train_bytes must be at least 1")


class Tokenizer:
    """Text to ids and back, over the ``tokenizers`` library."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # "<eos>" written in a text is text, not the end of a document
        self.backend = backend
        ids = {name: self._first_known(names) for name, names in USUAL.items()}
        self.pad_id, self.bos_id, self.eos_id, self.unk_id = ids["pad"], ids["bos"], ids["eos"], ids["unk"]
        self.mask_id = ids["mask"]
        # A published tokenizer's own rules say whether a text starts with a special token (GPT-2's does not).
        if backend.post_processor is not None and self.bos_id not in backend.encode("").ids:
            self.bos_id = None
        # Published vocabularies have gaps: counting their tokens would give too small a number.
        self._vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        canonical = json.dumps(json.loads(backend.to_str()), sort_keys=True)
        self.hash = hashlib.sha256(canonical.encode()).hexdigest()

    def _first_known(self, names: Iterable[str]) -> int | None:
        for name in names:
            if (number := self.backend.token_to_id(name)) is not None:
                return int(number)
        return None

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to one less."""
        return self._vocab_size

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, without special tokens."""
        return list(self.encode_batch([text])[0].tolist())

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of many texts, int32 each, without special tokens.

        Raises:
            DataError: text that is not valid Unicode.
        """
        try:
            found = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library raises a bare Exception, among others
            raise DataError(f"a text cannot be tokenised: {self._why(texts, error)}") from error
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in found]

    def encode_words(self, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """As :meth:`encode_batch`, each with the number of the word that every token is a part of.

        Words are the pieces that the pre-tokenizer cuts a text into before tokens are looked for.
        """
        try:
            found = self.backend.encode_batch(texts, add_special_tokens=False)
        except Exception as error:  # the library raises a bare Exception, among others
            raise DataError(f"a text cannot be tokenised: {self._why(texts, error)}") from error
        return [
            (np.asarray(encoding.ids, dtype=np.int32), np.asarray(encoding.word_ids, dtype=np.int32))
            for encoding in found
        ]

    @property
    def knows_words(self) -> bool:
        """The pre-tokenizer cuts texts into words, not into characters or not at all."""
        cutter = self.backend.pre_tokenizer
        return cutter is not None and len(cutter.pre_tokenize_str("one two")) == 2

    def encode_masked(self, text: str) -> list[int]:
        """Ids of ``text``, in which the mask token's name stands for the mask token.

        A space before it belongs to the hidden word where tokens of words begin with their space.

        Raises:
            ConfigError: the tokenizer has no mask token.
        """
        if self.mask_id is None:
            raise ConfigError("the tokenizer has no mask token")
        *before, last = text.split(self.mask_name)
        if self.knows_words and self.backend.pre_tokenizer.pre_tokenize_str("one two")[1][0] != "two":
            before = [part.removesuffix(" ") for part in before]
        ids: list[int] = []
        for part in self.encode_batch([*before, last]):
            ids += [*part.tolist(), self.mask_id]
        return ids[:-1]

    @property
    def mask_name(self) -> str:
        """What is written in a text where a token is to be guessed; empty without a mask token."""
        return "" if self.mask_id is None else str(self.backend.id_to_token(self.mask_id))

    @property
    def special_ids(self) -> list[int]:
        """Ids of special tokens, sorted."""
        added = self.backend.get_added_tokens_decoder().items()
        named = (self.pad_id, self.bos_id, self.eos_id, self.unk_id, self.mask_id)
        return sorted({number for number, token in added if token.special} | {i for i in named if i is not None})

    def _why(self, texts: list[str], error: Exception) -> str:
        """The characters that have no token, where that is the reason."""
        if isinstance(self.backend.model, models.WordLevel) and self.unk_id is None:
            unknown = {character for text in texts for character in text if self.backend.token_to_id(character) is None}
            if unknown:
                shown = ", ".join(map(repr, sorted(unknown)[:5]))
                return f"no token for {shown}, and no <unk> without data.tokenizer.special_tokens"
        return str(error).splitlines()[0]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; special tokens are left out."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True))

    def bytes_of(self, token: int) -> int:
        """UTF-8 bytes that one token spells; a byte-level token may be a part of a character."""
        if isinstance(self.backend.decoder, decoders.ByteLevel):
            return len(self.backend.id_to_token(token) or "")  # one stand-in letter a byte
        return len(self.decode([token]).encode())

    def save(self, path: Path) -> None:
        """Write ``tokenizer.json``, atomically."""
        write_text(path, self.backend.to_str(pretty=True))

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            ConfigError: it is none.
        """
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises a bare Exception
            raise ConfigError(f"'{path}' is no tokenizer.json: {str(error).splitlines()[0]}") from error

    @classmethod
    def train(cls, texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
        """Train on ``texts``; the same texts give the same tokenizer. ``byte`` learns nothing and reads none.

        Raises:
            DataError: there is no text.
        """
        added = added_names(config.extra_tokens, config.sentinels)
        learned = dataclasses.replace(config, vocab_size=config.vocab_size - len(added), sentinels=0, extra_tokens=())
        backend = TRAINERS[config.kind](non_empty(texts), learned)
        add_tokens(backend, added)
        return cls(backend)


def non_empty(texts: Iterable[str]) -> Iterator[str]:
    """Pass texts on; complain when there was none at all."""
    seen = False
    for text in texts:
        seen = seen or bool(text)
        yield text
    if not seen:
        raise DataError("there is no text to train a tokenizer on")


def special(config: TokenizerConfig) -> list[str]:
    """Names of the special tokens to train with, in the order of their ids."""
    return (list(SPECIAL.values()) if config.special_tokens else []) + ([MASK] if config.mask_token else [])


def byte_level(model: Any, *, split_words: bool) -> tokenizers.Tokenizer:
    """A tokenizer over bytes: any text comes back exactly."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split_words)
    backend.decoder = decoders.ByteLevel()
    return backend


def train_bpe(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Byte-pair encoding over bytes (Sennrich et al. 2016; Radford et al. 2019)."""
    backend = byte_level(models.BPE(), split_words=True)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=special(config),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def make_byte(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """The 256 bytes, no merges; ids 0-255 are the bytes when there are no special tokens."""
    names = special(config)
    letters = byte_letters()
    vocabulary = {name: number for number, name in enumerate([*names, *letters])}
    backend = byte_level(models.BPE(vocab=vocabulary, merges=[]), split_words=False)
    if names:
        backend.add_special_tokens(names)
    return backend


def byte_letters() -> list[str]:
    """The printable stand-in of each byte, in byte order, as the byte-level pre-tokenizer writes them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256))
    return [chr(byte) if byte in printable else chr(256 + next(others)) for byte in range(256)]


def train_char(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """One token for every character seen; without special tokens an unseen character cannot be encoded."""
    alphabet = sorted({character for text in texts for character in text})
    names = [*special(config), *alphabet]
    vocabulary = {name: number for number, name in enumerate(names)}
    unknown = {"unk_token": SPECIAL["unk"]} if config.special_tokens else {}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab=vocabulary, **unknown))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    if special(config):
        backend.add_special_tokens(special(config))
    return backend


TRAINERS = {"bpe": train_bpe, "byte": make_byte, "char": train_char}
