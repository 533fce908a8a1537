"""`lightning-nlp translate`, `summarise`, `chat`: a trained model answers what is typed, or piped in, line by line."""

from __future__ import annotations

import argparse

from lightning_nlp.cli import decoding_flags
from lightning_nlp.errors import ConfigError, nearest

TRANSLATE = "Translate standard input, a line for every line."
SUMMARISE = "Summarise standard input: every line is a text, and becomes a line."
CHAT = "Talk with a model that was trained on conversations; it knows what was said before."
COMMANDS = ("/reset", "/quit")


def translate_main(argv: list[str]) -> int:
    """One line out for every line in."""
    return line_for_line("translate", TRANSLATE, argv)


def summarise_main(argv: list[str]) -> int:
    """One line out for every line in."""
    return line_for_line("summarise", SUMMARISE, argv)


def line_for_line(verb: str, about: str, argv: list[str]) -> int:
    """Answer every line of standard input."""
    options = decoding_flags.arguments(verb, about).parse_args(argv)
    from lightning_nlp.cli.quiet import quieten

    quieten()
    from lightning_nlp.cli.lines import each_line
    from lightning_nlp.cli.writer import Writer

    writer = Writer(options, verb, one_line=True)

    def answer(text: str) -> None:
        writer.write(writer.read(text))

    return each_line(answer, "a text a line; end with Ctrl-D", aligned=True)


def chat_arguments() -> argparse.ArgumentParser:
    parser = decoding_flags.arguments("chat", CHAT, several=False)
    parser.add_argument("--system", help="an instruction at the beginning of the conversation")
    return parser


def chat_main(argv: list[str]) -> int:
    """An answer to every line, in view of those before."""
    options = chat_arguments().parse_args(argv)
    from lightning_nlp.cli.quiet import quieten

    quieten()
    from lightning_nlp.cli.lines import Over, each_line
    from lightning_nlp.cli.writer import Writer
    from lightning_nlp.tasks.conversation import Conversation

    writer = Writer(options, "chat")
    writer.best_only()
    conversation = Conversation(writer.head, writer.backbone, writer.generation.max_new_tokens, options.system)

    def answer(text: str) -> None:
        command = text.strip()
        if command == "/quit":
            raise Over
        if command == "/reset":
            conversation.forget()
        elif command.startswith("/") and command[1:].isalpha():
            raise ConfigError(f"unknown command '{command}'{nearest(command, COMMANDS)} (known: {', '.join(COMMANDS)})")
        elif command:
            conversation.answered(text, writer.write(conversation.ask(text)).tokens)

    return each_line(answer, "/reset begins a new conversation, /quit ends it")
