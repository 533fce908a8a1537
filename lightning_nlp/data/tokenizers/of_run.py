"""Which tokenizer a run uses: the one it has, that of its first weights, a named file, or one trained on its text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path

from lightning_nlp.data.progress_line import ProgressLine
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError


def settle_tokenizer(
    config: TokenizerConfig,
    documents: Callable[[], Iterable[list[str]]],
    *,
    kept: Path | None,
    initial: Path | None,
    save: bool,
    prepared: Callable[[], Path | None] = lambda: None,
) -> Tokenizer:
    """The tokenizer of a run.

    Args:
        config: what the configuration asks for.
        documents: the texts of every training document in turn; asked for only when a tokenizer must be trained.
        kept: where the run keeps its tokenizer, whether or not it is there yet; None without a run.
        initial: the tokenizer of the weights the run starts from.
        save: put it at ``kept`` where nothing is yet.
        prepared: the one trained when the data was prepared, if it was; asked for only when one must be trained.

    Raises:
        ConfigError: the run, its initial weights and the configuration name different tokenizers.
    """
    if kept is not None and kept.is_file():
        tokenizer = Tokenizer.load(kept)
        _check_same(tokenizer, initial, "--init_from has another tokenizer than the run")
    elif initial is not None:
        tokenizer = Tokenizer.load(initial)
    elif config.path is not None:
        tokenizer = Tokenizer.load(Path(config.path))
        if save and (names := of_training(config)):
            told = f"data.tokenizer.path is loaded as it is; {', '.join(names)} would be for training one"
            print(f"lightning-nlp: {told}", file=sys.stderr)
    elif (trained := prepared()) is not None:
        tokenizer = Tokenizer.load(trained)
    else:
        tokenizer = train_tokenizer(documents(), config)
    if config.path is not None:
        message = f"data.tokenizer.path '{config.path}' is not the run's tokenizer"
        _check_same(tokenizer, Path(config.path), message)
    if kept is not None and not kept.exists() and save:
        tokenizer.save(kept)
    return tokenizer


def of_training(config: TokenizerConfig) -> list[str]:
    """Settings that are not as they would be by themselves, and mean nothing to a tokenizer that is loaded."""
    set_by_data = ("path", "mask_token", "sentinels", "extra_tokens")
    own = [each for each in fields(config) if each.name not in set_by_data]
    return [each.name for each in own if getattr(config, each.name) != each.default]


def train_tokenizer(documents: Iterable[list[str]], config: TokenizerConfig) -> Tokenizer:
    """Train on the first documents, within the configured limits, with a line of progress on a terminal.

    Raises:
        DataError: there is no text.
        ConfigError: the texts need a larger vocabulary.
    """
    with ProgressLine() as line:
        return Tokenizer.train(first_texts(documents, config, line), config)


def first_texts(documents: Iterable[list[str]], config: TokenizerConfig, line: ProgressLine) -> Iterator[str]:
    """Texts of the first documents; the last one is cut where the budget of bytes ends."""
    left, number = config.train_bytes, 0
    for number, texts in enumerate(islice(documents, config.train_documents), 1):
        for text in texts:
            size = len(text.encode(errors="surrogatepass"))
            yield text if size <= left else text.encode(errors="surrogatepass")[:left].decode(errors="ignore")
            left -= size
            if left <= 0:
                break
        line.show(f"tokenizer: {number} documents, {(config.train_bytes - max(left, 0)) / 1e6:.1f} MB read")
        if left <= 0:
            break
    line.show(
        f"tokenizer: learning from {number} documents, {(config.train_bytes - max(left, 0)) / 1e6:.1f} MB", now=True
    )


def _check_same(tokenizer: Tokenizer, path: Path | None, message: str) -> None:
    if path is not None and Tokenizer.load(path).hash != tokenizer.hash:
        raise ConfigError(message)
