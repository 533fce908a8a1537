"""What a tokenizer is to be: kind, size, special tokens, and what is done to a text before tokens are looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_nlp.data.tokenizers.added_tokens import SENTINEL
from lightning_nlp.errors import ConfigError

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
Kind = Literal["bpe", "unigram", "wordpiece", "word", "byte", "char"]
LEAST = {"bpe": 256, "unigram": 256, "wordpiece": 1, "word": 1}
"""Tokens that a kind needs beside the special ones; wordpiece needs the letters of its texts, known only later."""
WORDS = ("wordpiece", "word")
"""Kinds that read words and forget the spaces between them, and know no other letters or words than they have seen."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer to train, or to load."""

    kind: Kind = "bpe"
    """bpe: byte-level pairs; unigram: byte-level pieces by likelihood; wordpiece: pieces of words; word: whole words;
    byte: the 256 bytes; char: one token a character."""
    vocab_size: int = 4096
    """Special tokens included; byte and char take what they need."""
    path: str | None = None
    """A tokenizer.json to use instead of training one."""
    special_tokens: bool = True
    """Have <pad>, <bos>, <eos> and <unk>."""
    bos: bool = True
    """Have <bos> among them. A text begins with it where it exists."""
    eos: bool = True
    """Have <eos> among them. A text ends with it where it exists."""
    mask_token: bool = False
    """Have <mask>, after them (masked language modelling always has it)."""
    sentinels: int = 0
    """Have <extra_id_0>, <extra_id_1>, ... counted from the end of the vocabulary (span corruption always has them)."""
    extra_tokens: tuple[str, ...] = ()
    """Further special tokens, before the sentinels (dialogues have their role markers here)."""
    lowercase: bool = False
    """Read every text in lower case."""
    unicode: Literal["none", "nfc", "nfkc"] = "none"
    """Unicode normalisation form that texts are brought to."""
    strip_accents: bool = False
    """Leave out accents and other combining marks."""
    split_digits: bool = False
    """Every digit is a token of its own."""
    min_frequency: int = 0
    """How often a word, a merged pair or a piece, and a character of kinds that have characters, must occur."""
    train_documents: int = 20_000
    """Documents read to train it."""
    train_bytes: int = 50_000_000
    """UTF-8 bytes read to train it, at most."""

    def __post_init__(self) -> None:
        if self.sentinels < 0:
            raise ConfigError(f"data.tokenizer.sentinels must be at least 0, not {self.sentinels}")
        names = [*special(self), *self.extra_tokens]
        if len(set(names)) < len(names) or any(not name or SENTINEL.fullmatch(name) for name in names):
            raise ConfigError("data.tokenizer.extra_tokens must be names that are not there yet, and no sentinels")
        least = LEAST.get(self.kind, 0) + len(names) + self.sentinels
        if self.kind in LEAST and self.path is None and self.vocab_size < least:
            raise ConfigError(
                f"data.tokenizer.vocab_size must be at least {least} for {self.kind}, not {self.vocab_size}"
            )
        if self.kind in WORDS and self.path is None and not self.special_tokens:
            raise ConfigError(f"data.tokenizer.special_tokens: {self.kind} cannot do without <unk>")
        if self.path is not None and not Path(self.path).is_file():
            raise ConfigError(f"data.tokenizer.path '{self.path}' does not exist")
        if self.train_documents < 1 or self.train_bytes < 1:
            raise ConfigError("data.tokenizer.train_documents and train_bytes must be at least 1")
        if self.min_frequency < 0:
            raise ConfigError(f"data.tokenizer.min_frequency must be at least 0, not {self.min_frequency}")


def special(config: TokenizerConfig) -> list[str]:
    """Names of the special tokens to train with, in the order of their ids."""
    wanted = {"bos": config.bos, "eos": config.eos}
    names = [name for role, name in SPECIAL.items() if wanted.get(role, True)] if config.special_tokens else []
    return names + ([MASK] if config.mask_token else [])
