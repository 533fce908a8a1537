"""Data of the causal language model: any text, packed into rows without padding."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.objectives import Example, causal_lm
from lightning_nlp.data.prepared.encoded import token_ids, utf8_size


class CausalLMData(TextDataModule):
    """Documents for next-token prediction.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        text_column: the column that holds the text.
    """

    packed: ClassVar[bool] = True
    task: ClassVar[str] = "lm"
    tokenised: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(self, path: str | list[str] | None = None, *, text_column: str = "text", **kwargs: Any) -> None:
        super().__init__(path, columns={"text": text_column}, **kwargs)

    @property
    def one_text(self) -> bool:
        return type(self).prepare is CausalLMData.prepare

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None
        tokenizer = self.tokenizer
        texts = [row["text"] for row in rows]
        examples = []
        for ids, row, text in zip(token_ids(tokenizer, texts), rows, texts, strict=True):
            size = utf8_size(text)
            if tokenizer.bos_id is None and len(ids):  # the first token is then predicted from nothing: never
                size -= tokenizer.bytes_of(int(ids[0]), first=True)
            examples.append(causal_lm(ids, row["id"], size, tokenizer.bos_id, tokenizer.eos_id))
        return examples
