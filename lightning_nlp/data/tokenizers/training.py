"""Tokenizers out of texts, one function a kind. The same texts give the same tokenizer, in any process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from lightning_nlp.data.tokenizers.config import SPECIAL, TokenizerConfig, special
from lightning_nlp.data.tokenizers.spelling import byte_letters
from lightning_nlp.data.tokenizers.unigram import learn_pieces
from lightning_nlp.errors import ConfigError, DataError

PREFIX = "##"
"""Of pieces inside a word (WordPiece)."""
LONGEST_WORD = 100
"""Letters of a word that is cut into pieces; a longer one is unknown (BERT)."""


def non_empty(texts: Iterable[str]) -> Iterator[str]:
    """Pass texts on; complain when there was none at all."""
    seen = False
    for text in texts:
        seen = seen or bool(text)
        yield text
    if not seen:
        raise DataError("there is no text to train a tokenizer on")


def normalizer(config: TokenizerConfig) -> Any:
    """What is done to a text first; None for nothing."""
    forms = {"nfc": normalizers.NFC, "nfkc": normalizers.NFKC}
    found = [forms[config.unicode]()] if config.unicode != "none" else []
    if config.strip_accents:
        found += [normalizers.NFD(), normalizers.StripAccents()]
    if config.lowercase:
        found.append(normalizers.Lowercase())
    return normalizers.Sequence(found) if found else None


def byte_level(model: Any, config: TokenizerConfig, *, split_words: bool) -> tokenizers.Tokenizer:
    """A tokenizer over bytes: any text comes back exactly, as far as it was not normalised."""
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizer(config)
    cutter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split_words)
    split = config.split_digits and split_words
    backend.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), cutter]) if split else cutter
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def word_level(model: Any, config: TokenizerConfig) -> tokenizers.Tokenizer:
    """A tokenizer over words: marks of punctuation and Chinese characters are words, spaces between words are lost."""
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizer(config)
    cutters = [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated")]
    if config.split_digits:
        cutters.append(pre_tokenizers.Digits(individual_digits=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(cutters)
    backend.decoder = decoders.WordPiece(prefix=PREFIX)
    return backend


def with_special(backend: tokenizers.Tokenizer, config: TokenizerConfig) -> tokenizers.Tokenizer:
    """The vocabulary's special tokens, known as such."""
    if names := special(config):
        backend.add_special_tokens(names)
    return backend


def train_bpe(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Byte-pair encoding over bytes (Sennrich et al. 2016; Radford et al. 2019)."""
    backend = byte_level(models.BPE(), config, split_words=True)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special(config),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def train_unigram(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Pieces under which the texts are likeliest (Kudo 2018), over bytes as in :func:`train_bpe`.

    The library reads these models; its own trainer is passed over, because it gives another one each time.
    """
    names = special(config)
    words = count_words(byte_level(models.BPE(), config, split_words=True), texts)
    pieces = learn_pieces(words, byte_letters(), config.vocab_size - len(names), config.min_frequency)
    # Texts are cut before pieces are looked for, and never into the name of a special token.
    model = models.Unigram([(name, 0.0) for name in names] + pieces, None, False)
    return with_special(byte_level(model, config, split_words=True), config)


def train_wordpiece(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Pieces of words, from merged pairs, the longest first (Schuster and Nakajima 2012; BERT).

    The library numbers letters as it meets words, in an order that differs from process to process, and breaks ties by
    number. So letters are numbered here, before it begins.

    Raises:
        ConfigError: the letters alone are more than the vocabulary holds.
    """
    words = count_words(word_level(models.BPE(), config), texts)
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in set(word):
            letters[letter] += count
    known = {letter for letter, count in letters.items() if count >= config.min_frequency}
    words = {word: count for word, count in words.items() if known.issuperset(word) and len(word) <= LONGEST_WORD}
    alphabet = sorted({letter for word in words for letter in word})
    inside = sorted({f"{PREFIX}{letter}" for word in words for letter in word[1:]})
    least = len(special(config)) + len(alphabet) + len(inside)
    if config.vocab_size < least:
        raise ConfigError(
            f"data.tokenizer.vocab_size must be at least {least} for wordpiece and the {len(alphabet)} characters of "
            f"these texts, not {config.vocab_size} (data.tokenizer.min_frequency leaves out rare ones)"
        )
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[*special(config), *inside],
        initial_alphabet=alphabet,
        continuing_subword_prefix=PREFIX,
        show_progress=False,
    )
    learner.train_from_iterator((f"{word} " * count for word, count in words.items()), trainer)
    model = models.WordPiece(
        learner.get_vocab(),
        unk_token=SPECIAL["unk"],
        max_input_chars_per_word=LONGEST_WORD,
        continuing_subword_prefix=PREFIX,
    )
    return with_special(word_level(model, config), config)


def train_word(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """The most frequent words and marks of punctuation; all others are <unk>."""
    backend = word_level(models.WordLevel(unk_token=SPECIAL["unk"]), config)
    trainer = trainers.WordLevelTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special(config),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def make_byte(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """The 256 bytes, no merges; ids 0-255 are the bytes when there are no special tokens. No text is read."""
    vocabulary = {name: number for number, name in enumerate([*special(config), *byte_letters()])}
    return with_special(byte_level(models.BPE(vocab=vocabulary, merges=[]), config, split_words=False), config)


def train_char(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """One token for every character seen; without special tokens an unseen character cannot be encoded."""
    change = normalizer(config)
    letters: Counter[str] = Counter()
    for text in texts:
        letters.update(text if change is None else change.normalize_str(text))
    alphabet = sorted(letter for letter, count in letters.items() if count >= config.min_frequency)
    vocabulary = {name: number for number, name in enumerate([*special(config), *alphabet])}
    unknown = {"unk_token": SPECIAL["unk"]} if config.special_tokens else {}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab=vocabulary, **unknown))
    backend.normalizer = change
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return with_special(backend, config)


def count_words(backend: tokenizers.Tokenizer, texts: Iterable[str]) -> dict[str, int]:
    """How often every piece occurs that a tokenizer cuts texts into, in alphabetical order."""
    change, cutter = backend.normalizer, backend.pre_tokenizer
    found: Counter[str] = Counter()
    for text in texts:
        changed = text if change is None else change.normalize_str(text)
        found.update(word for word, _ in cutter.pre_tokenize_str(changed))
    return dict(sorted(found.items()))


TRAINERS = {
    "bpe": train_bpe,
    "unigram": train_unigram,
    "wordpiece": train_wordpiece,
    "word": train_word,
    "byte": make_byte,
    "char": train_char,
}
