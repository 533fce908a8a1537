"""What a token spells, in bytes, whatever the tokenizer: byte-level, SentencePiece's, WordPiece, words, characters."""

from __future__ import annotations

import json
import re
from typing import Any

import tokenizers

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_letters() -> list[str]:
    """The printable stand-in of each byte, in byte order, as the byte-level pre-tokenizer writes them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256))
    return [chr(byte) if byte in printable else chr(256 + next(others)) for byte in range(256)]


BYTE_OF = {letter: byte for byte, letter in enumerate(byte_letters())}


class Spelling:
    """Bytes of tokens, as the decoder of a tokenizer joins them.

    Special tokens, the one for the unknown included, spell nothing. A tokenizer that forgets something (spaces between
    words, capital letters) spells less than was in the text, or other letters.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        described: dict[str, Any] = json.loads(backend.to_str())
        model, found = described["model"], list(steps(described["decoder"]))
        kinds = {step["type"] for step in found}
        self.byte_level = "ByteLevel" in kinds
        self.byte_fallback = "ByteFallback" in kinds or bool(model.get("byte_fallback"))
        self.word_start = ""
        """The letter that stands for the space before a word, where the tokenizer has one."""
        for step in found:
            if step["type"] == "Metaspace":
                self.word_start = step["replacement"]
            elif step["type"] == "Replace" and step["content"] == " " and "String" in step["pattern"]:
                self.word_start = step["pattern"]["String"]
        self.prefix = str(model.get("continuing_subword_prefix") or "")
        self.suffix = str(model.get("end_of_word_suffix") or "")
        self._backend = backend
        self._added = backend.get_added_tokens_decoder()

    def __call__(self, token: int, *, first: bool = False) -> bytes:
        """The bytes of one token; a part of a character has less than a whole one.

        Args:
            token: id; one that no token has spells nothing.
            first: it begins a text, where SentencePiece's tokenizers put a space that was not there.
        """
        added = self._added.get(token)
        if added is not None:
            return b"" if added.special else added.content.encode()
        name = self._backend.id_to_token(token) or ""
        if self.byte_level:
            return bytes(BYTE_OF[letter] for letter in name if letter in BYTE_OF)
        if self.byte_fallback and (byte := BYTE.fullmatch(name)):
            return bytes([int(byte[1], 16)])
        if self.prefix:
            name = name.removeprefix(self.prefix)
        if self.suffix:
            name = name.removesuffix(self.suffix)
        if self.word_start:
            name = name.replace(self.word_start, " ")
            name = name.removeprefix(" ") if first else name
        return name.encode()


def steps(described: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A component of a tokenizer.json without sequences around it."""
    if described is None:
        return []
    inside = next((described[name] for name in ("decoders", "pretokenizers", "normalizers") if name in described), None)
    return [described] if inside is None else [step for each in inside for step in steps(each)]


def printable(spelled: bytes) -> str:
    """Bytes as a person can read them on a line: ▁ is a space, ``\\n`` a line's end, ``\\xe6`` part of a letter."""
    text = spelled.decode(errors="backslashreplace").replace(" ", "▁")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
