"""`lightning-nlp generate`: what a trained model makes of a text: its continuation, or the answer to it."""

from __future__ import annotations

import argparse

from lightning_nlp.cli import decoding_flags

ABOUT = (
    "What a trained model makes of a text: its continuation, or the answer to it. Names of mask tokens and sentinels "
    "(<mask>, <extra_id_0>) in a prompt stand for these tokens, where the tokenizer has them."
)


def arguments() -> argparse.ArgumentParser:
    parser = decoding_flags.arguments("generate", ABOUT)
    parser.add_argument("--prompt", action="append", help="text to continue; may be repeated; without it, read stdin")
    return parser


def main(argv: list[str]) -> int:
    """Print what follows every prompt; a continuation stands after its prompt."""
    options = arguments().parse_args(argv)
    from lightning_nlp.cli.quiet import quieten

    quieten()
    from lightning_nlp.cli.lines import each_line
    from lightning_nlp.cli.writer import Writer

    writer = Writer(options, "generate")

    def answer(prompt: str) -> None:
        writer.write(writer.read(prompt, named=True), writer.shown_before(prompt))

    if not options.prompt:
        return each_line(answer, "a text a line; end with Ctrl-D")
    for prompt in options.prompt:
        answer(prompt)
    return 0
