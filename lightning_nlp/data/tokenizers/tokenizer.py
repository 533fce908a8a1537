"""Tokenizers: trained on the data or loaded from any ``tokenizer.json``; always kept as one, with a hash."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models

from lightning_nlp.data.tokenizers.added_tokens import add_tokens, added_names, encode_named
from lightning_nlp.data.tokenizers.config import MASK, SPECIAL, USUAL, TokenizerConfig
from lightning_nlp.data.tokenizers.spelling import Spelling, byte_letters, printable
from lightning_nlp.data.tokenizers.training import TRAINERS, non_empty
from lightning_nlp.errors import ConfigError, DataError
from lightning_nlp.run.files import write_text

__all__ = ["MASK", "SPECIAL", "USUAL", "Tokenizer", "TokenizerConfig", "byte_letters"]

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forked workers would warn, and two cores gain nothing


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
        own = getattr(backend.model, "unk_token", None)  # what the model itself gives for the unknown, by any name
        if isinstance(own, str) and (number := backend.token_to_id(own)) is not None:
            self.unk_id = None if number in (self.bos_id, self.eos_id) else int(number)
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
        return [int32(encoding.ids) for encoding in found]

    def encode_words(self, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """As :meth:`encode_batch`, each with the number of the word that every token is a part of.

        Words are the pieces that the pre-tokenizer cuts a text into before tokens are looked for; without one, they
        begin with the tokens that begin with a space, as SentencePiece writes it.
        """
        try:
            found = self.backend.encode_batch(texts, add_special_tokens=False)
        except Exception as error:  # the library raises a bare Exception, among others
            raise DataError(f"a text cannot be tokenised: {self._why(texts, error)}") from error
        return [(ids, self._words(encoding, ids)) for encoding, ids in ((each, int32(each.ids)) for each in found)]

    def _words(self, encoding: tokenizers.Encoding, ids: np.ndarray) -> np.ndarray:
        if self.backend.pre_tokenizer is None and len(self._word_starts):
            return np.cumsum(self._word_starts[ids], dtype=np.int32)
        words = encoding.word_ids
        if None not in words:
            return int32(words)
        # A token that was added to the vocabulary is in no word: it is one by itself.
        before = [None, *words[:-1]]
        starts = [word is None or word != last for word, last in zip(words, before, strict=True)]
        return np.cumsum(starts, dtype=np.int32) - 1

    @functools.cached_property
    def _word_starts(self) -> np.ndarray:
        """bool ``[vocab_size]``, True for tokens that begin with a space; empty where no token says so."""
        mark = self.spelling.word_start
        if not mark:
            return np.zeros(0, dtype=bool)
        names = (self.backend.id_to_token(number) or "" for number in range(self.vocab_size))
        return np.array([name.startswith(mark) for name in names])

    @functools.cached_property
    def knows_words(self) -> bool:
        """Texts are cut into words, not into characters or not at all."""
        cutter = self.backend.pre_tokenizer
        if cutter is None:
            return bool(self.spelling.word_start)
        return 1 < len(cutter.pre_tokenize_str("one two")) < 4  # a cutter may keep the space as a piece

    @functools.cached_property
    def spaced(self) -> bool:
        """Tokens of words begin with the space before the word."""
        cutter = self.backend.pre_tokenizer
        if not self.knows_words or cutter is None:
            return self.knows_words
        return bool(cutter.pre_tokenize_str("one two")[-1][0] != "two")

    def encode_masked(self, text: str) -> list[int]:
        """Ids of ``text``, in which the mask token's name stands for the mask token.

        Raises:
            ConfigError: the tokenizer has no mask token.
        """
        if self.mask_id is None:
            raise ConfigError("the tokenizer has no mask token")
        return encode_named(self, text, {self.mask_name: self.mask_id})

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

    def decode_all(self, ids: Iterable[int]) -> str:
        """Text of ``ids`` with the names of special tokens in it, but for those it begins and ends with."""
        kept = list(ids)
        while kept and kept[0] in (self.bos_id, self.pad_id):
            del kept[0]
        while kept and kept[-1] in (self.eos_id, self.pad_id):
            del kept[-1]
        return str(self.backend.decode(kept, skip_special_tokens=False))

    @functools.cached_property
    def spelling(self) -> Spelling:
        """Bytes of every token."""
        return Spelling(self.backend)

    def shown(self, token: int) -> str:
        """A token as a person can read it: what it spells, or its name where it spells nothing."""
        spelled = self.spelling(token)
        return printable(spelled) if spelled else str(self.backend.id_to_token(token) or f"({token})")

    def bytes_of(self, token: int, *, first: bool = False) -> int:
        """UTF-8 bytes that one token spells: part of a character may be less than a whole one, special tokens are 0.

        Args:
            token: id.
            first: it begins a text, where some tokenizers put a space that was not there.
        """
        return len(self.spelling(token, first=first))

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


def int32(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)
