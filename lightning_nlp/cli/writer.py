"""A trained model that writes to standard output: tokens as they come, or the n best texts with their scores."""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
from typing import Any

from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.cli.decoding_flags import changed, spellings
from lightning_nlp.data.tokenizers.added_tokens import decode_named, encode_named, named_ids
from lightning_nlp.data.tokenizers.streaming import TextStream
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.decoding.beam import Hypothesis
from lightning_nlp.errors import ConfigError
from lightning_nlp.loading import load
from lightning_nlp.tasks.base import TaskModule
from lightning_nlp.tasks.continuing import ContinuingHead
from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequenceHead

LINE_BREAKS = str.maketrans("\r\n", "  ")
NEEDED = {
    "generate": "a model that writes text",
    "translate": "a model of translation",
    "summarise": "a model of summaries",
    "chat": "a model of conversations",
}
"""What the run of a command has to be."""
ANSWERS = {"Translation": ["translate"], "Summarization": ["summarise"], "SpanDenoising": []}
"""Commands for tasks that write one kind of text; others may write any."""


def commands_for(task: TaskModule) -> list[str]:
    """The commands of this module that can be used with a model, the one made for it first."""
    head = task.head
    if not isinstance(head, (SequenceToSequenceHead, ContinuingHead)):
        return []
    if head.prompt.converses:
        return ["chat", "generate"]
    if isinstance(head, ContinuingHead) and not head.prompt.answers:
        return ["generate"]
    return [*ANSWERS.get(type(task).__name__, ["translate", "summarise"]), "generate"]


class Writer:
    """The model of a run.

    Args:
        options: of the command line; see :func:`~lightning_nlp.cli.decoding_flags.arguments`.
        verb: the command.
        one_line: line breaks become spaces, so that every text is a line.

    Raises:
        ConfigError: the run's model writes nothing, or something else, or has no tokenizer.
    """

    def __init__(self, options: argparse.Namespace, verb: str, *, one_line: bool = False) -> None:
        task = load(options.run, options.checkpoint)
        commands = commands_for(task)
        if verb not in commands:
            hint = f"; try `lightning-nlp {commands[0]}`" if commands else ""
            raise ConfigError(f"run '{options.run}' is a {type(task).__name__}: {verb} needs {NEEDED[verb]}{hint}")
        head = task.head
        assert isinstance(head, (SequenceToSequenceHead, ContinuingHead))
        if task.backbone is None or not isinstance(head.tokenizer, Tokenizer):
            raise ConfigError(f"run '{options.run}' has no tokenizer.json: it cannot read a text")
        self.head, self.one_line = head, one_line
        self.continues = isinstance(head, ContinuingHead) and not head.prompt.answers
        self.backbone: Transformer = task.backbone
        self.tokenizer: Tokenizer = head.tokenizer
        self.names = named_ids(self.tokenizer)
        words = [ids for word in options.bad_word or [] for ids in spellings(self.tokenizer, word)]
        self.generation = changed(head.generation, options, words or None)
        self.prefix = None if options.prefix is None else encode_named(self.tokenizer, options.prefix, self.names)
        self.scores: bool = getattr(options, "scores", False)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a character that a terminal does not know is no reason to stop

    def read(self, text: str, *, named: bool = False) -> list[int]:
        """Token ids that the model is given for a text.

        Args:
            named: names of special tokens (masks, sentinels) in it stand for these tokens.

        Raises:
            ConfigError: an empty text, or one that is too long to be answered.
        """
        ids = self.head.prompt_of(encode_named(self.tokenizer, text, self.names if named else {}))
        room = self.backbone.config.max_length - isinstance(self.head, ContinuingHead)  # of one new token
        if len(ids) > room:
            if not self.continues:
                raise ConfigError(f"the text has {len(ids)} tokens, the model reads {room} at most: give a shorter one")
            print(f"note: of the {len(ids)} tokens of the prompt, the model reads the last {room}", file=sys.stderr)
        return ids

    def shown_before(self, prompt: str) -> str:
        """What stands before the new text: a prompt that goes on in it, or, in a line of its own, one that is answered.

        The source of a translation is not repeated.
        """
        if isinstance(self.head, SequenceToSequenceHead):
            return ""
        return prompt if self.continues else f"{prompt}\n"

    def write(self, ids: list[int], before: str = "") -> Hypothesis:
        """Print what the model makes of ``ids``, after ``before``; return the best of it."""
        if self.scores or self.generation.beams > 1 or self.generation.n_best > 1:
            found = self._hypotheses(ids)
            for hypothesis in found:
                scores = f"{hypothesis.score:.4f}\t{hypothesis.log_probability:.4f}\t" if self.scores else ""
                print(f"{scores}{before}{self._plain(self._decoded(hypothesis.tokens))}", flush=True)
            return found[0]
        stream, waiting = TextStream(self.tokenizer, self._decoded), [before]

        def show(tokens: list[int | None]) -> None:
            if tokens[0] is not None:
                print(*waiting, self._plain(stream(tokens[0])), sep="", end="", flush=True)
                waiting.clear()

        try:
            found = self._hypotheses(ids, on_token=show, scored=False)
        except KeyboardInterrupt:
            if not waiting:
                print(flush=True)  # the shell's prompt begins a line
            raise
        print(*waiting, self._plain(stream.end()), sep="", flush=True)
        return found[0]

    def best_only(self) -> None:
        """Write one text, whatever the run's settings say."""
        self.generation = dataclasses.replace(self.generation, n_best=1)

    def _hypotheses(self, ids: list[int], **options: Any) -> list[Hypothesis]:
        if self.prefix is not None:
            options["prefixes"] = [self.prefix]
        return self.head.hypotheses(self.backbone, [ids], self.generation, **options)[0]

    def _decoded(self, ids: list[int]) -> str:
        """Sentinels are written: without them nobody knows what belongs where."""
        return decode_named(self.tokenizer, ids, self.names)

    def _plain(self, text: str) -> str:
        return text.translate(LINE_BREAKS) if self.one_line else text
