"""Text of tokens that come one by one: what is certain is given out at once, and never half a character."""

from __future__ import annotations

from collections.abc import Callable

from lightning_nlp.data.tokenizers.spelling import BYTE
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""What a part of a character is decoded to."""


class TextStream:
    """Pieces of a text whose tokens arrive in turn; joined, they are the text that all its tokens decode to.

    Args:
        tokenizer: whose tokens.
        decode: ids to text (default: the tokenizer's own, without special tokens).
    """

    def __init__(self, tokenizer: Tokenizer, decode: Callable[[list[int]], str] | None = None) -> None:
        self.tokenizer, self.decode = tokenizer, decode or tokenizer.decode
        self.ids: list[int] = []
        self.given = 0

    def __call__(self, token: int) -> str:
        """What has become certain with one more token; may be empty."""
        self.ids.append(token)
        if self._may_go_on(token):
            return ""
        return self._rest(self.decode(self.ids).rstrip(UNKNOWN))

    def end(self) -> str:
        """What was held back, when no token follows."""
        return self._rest(self.decode(self.ids))

    def _may_go_on(self, token: int) -> bool:
        """A byte of a SentencePiece tokenizer: a row of them is text, or not, as a whole."""
        if not self.tokenizer.spelling.byte_fallback:
            return False
        return BYTE.fullmatch(self.tokenizer.backend.id_to_token(token) or "") is not None

    def _rest(self, text: str) -> str:
        new, self.given = text[self.given :], max(self.given, len(text))
        return new
