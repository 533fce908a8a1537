"""generate, translate, summarise, chat: what they print for what they read, and how they end."""

from __future__ import annotations

import functools
import io
import sys

import pytest
import torch

import lightning_nlp
from lightning_nlp.__main__ import main
from lightning_nlp.cli import writer as module
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.decoding import generate as decoding
from lightning_nlp.tasks.prompting import PromptConfig

ROLES = ("<system>", "<user>", "<assistant>")
SHAPE = {"n_layers": 1, "d_model": 32, "n_heads": 2, "init_std": 0.4}
ENCODER_DECODERS = {name: name for name in ("Translation", "Summarization", "SpanDenoising")}
ENCODER_DECODERS |= {"pairs": "SequenceToSequence", "listener": "Dialogue"}
VERBS = ("generate", "translate", "summarise", "chat")


@functools.cache
def tokenizer():
    return Tokenizer.train([], TokenizerConfig(kind="byte", mask_token=True, sentinels=2, extra_tokens=ROLES))


def id_of(name):
    return tokenizer().backend.token_to_id(name)


def make(kind, max_length=48, **generation):
    """A small random model that writes letters of any length, after markers where it has been trained with them."""
    known = tokenizer()
    torch.manual_seed(13)
    shape = {**SHAPE, "vocab_size": known.vocab_size, "max_length": max_length}
    settings = lightning_nlp.GenerationConfig(**{"max_new_tokens": 6, **generation})
    end, user, assistant = known.eos_id, id_of("<user>"), id_of("<assistant>")
    spoken = PromptConfig(before=(user,), after=(end, assistant), end_id=end, system=(id_of("<system>"),))
    if kind in ENCODER_DECODERS:
        backbone = lightning_nlp.TransformerConfig(**shape, arrangement="encoder_decoder", decoder_start_id=1)
        more = {"prompt": spoken} if kind == "listener" else {}
        task = getattr(lightning_nlp, ENCODER_DECODERS[kind])(backbone, generation=settings, **more)
    elif kind == "classes":
        backbone = lightning_nlp.TransformerConfig(**shape, arrangement="encoder")
        task = lightning_nlp.TextClassification(backbone, labels=["a", "b"])
    else:
        prefix = PromptConfig(after=(end,), bidirectional=True)
        prompt = {"text": PromptConfig(), "prefix": prefix, "talk": spoken}[kind]
        backbone = lightning_nlp.TransformerConfig(**shape, arrangement="decoder")
        task = lightning_nlp.CausalLM(backbone, generation=settings, prompt=prompt)
    task.configure_model()
    task.head.tokenizer = known
    return task.eval()


class Keyboard(io.TextIOWrapper):
    """Standard input: of a pipe, or of a person."""

    def __init__(self, data: bytes, person: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.person = person

    def isatty(self) -> bool:
        return self.person


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command with a model and an input; ``(exit code, standard output, lines of standard error)``."""

    def run(verb, kind, data=b"", *flags, person=False, task=None, **generation):
        task = task or make(kind, **generation)
        monkeypatch.setattr(module, "load", lambda run, checkpoint: task)
        monkeypatch.setattr(sys, "stdin", Keyboard(data if isinstance(data, bytes) else data.encode(), person))
        code = main([verb, "--run", "a_run", *flags])
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    return run


def answer_to(task, text):
    """What the head itself answers."""
    head, backbone = task.head, task.backbone
    if isinstance(task, lightning_nlp.SequenceToSequence):
        return head.write(backbone, [head.encode_source(text)], head.generation)[0]
    (new,) = head.continuations(backbone, [head.encode_prompt(text)], head.generation)
    return head.tokenizer.decode(new)


def said_by(monkeypatch, *texts):
    """Models say these texts in turn, token by token; returns what they were given."""
    given, coming = [], iter(texts)
    plain = decoding.hypotheses

    def scripted(backbone, logits, prompts, config, **options):
        given.append(prompts[0] if options.get("memory") is None else [])
        tokens = tokenizer().encode(next(coming))
        settings = lightning_nlp.GenerationConfig(max_new_tokens=max(len(tokens), 1))
        return plain(backbone, logits, prompts, settings, **{**options, "prefixes": [tokens]})

    for name in ("continuing", "sequence_to_sequence"):
        monkeypatch.setattr(f"lightning_nlp.tasks.{name}.hypotheses", scripted)
    return given


@pytest.mark.parametrize("verb", ["translate", "summarise"])
@pytest.mark.parametrize("kind", ["pairs", "prefix"])
def test_a_line_for_every_line(command, verb, kind):
    task = make(kind)
    code, out, err = command(verb, kind, "one\n\ntwo\r\nthree", task=task)
    lines = [answer_to(task, text) if text else "" for text in ("one", "", "two", "three")]
    breaks = {number: " " for number in b"\r\n"}
    assert (code, err) == (0, [])
    assert out == "".join(f"{line.translate(breaks)}\n" for line in lines)
    assert len(set(lines)) > 2


def test_lines_that_cannot_be_used_are_named_and_do_not_end_it(command):
    data = b"one\n" + b"x" * 60 + b"\n\xff\xfe\nthree\n"
    task = make("pairs")
    code, out, err = command("translate", "pairs", data, task=task)
    assert code == 0
    assert out.split("\n") == [*(answer_to(task, text) if text else "" for text in ("one", "", "", "three")), ""]
    assert err == [
        "lightning-nlp: error: line 2: the text has 61 tokens, the model reads 48 at most: give a shorter one",
        "lightning-nlp: error: line 3: this is not UTF-8 text",
    ]
    code, out, err = command("generate", "prefix", b"x" * 60 + b"\none\n")
    assert (code, out.split("\n")[0], len(err)) == (0, "one", 1)
    assert "line 1: the text has 62 tokens, the model reads 47 at most" in err[0]


def test_a_person_is_invited_and_a_pipe_is_not(command):
    code, out, err = command("translate", "pairs", "one\n\n", person=True)
    assert (code, err) == (0, ["a text a line; end with Ctrl-D", "> > > "])
    assert out.count("\n") == 1
    assert command("translate", "pairs", "")[1:] == ("", [])


@pytest.mark.parametrize(
    ("verb", "kind", "message"),
    [
        ("translate", "classes", "is a TextClassification: translate needs a model of translation"),
        ("generate", "classes", "is a TextClassification: generate needs a model that writes text"),
        ("chat", "classes", "is a TextClassification: chat needs a model of conversations"),
        ("translate", "text", "is a CausalLM: translate needs a model of translation; try `lightning-nlp generate`"),
        ("summarise", "talk", "is a CausalLM: summarise needs a model of summaries; try `lightning-nlp chat`"),
        ("chat", "text", "is a CausalLM: chat needs a model of conversations; try `lightning-nlp generate`"),
        ("chat", "prefix", "is a CausalLM: chat needs a model of conversations; try `lightning-nlp translate`"),
        ("chat", "pairs", "is a SequenceToSequence: chat needs a model of conversations; try `lightning-nlp translate`"),
        ("summarise", "Translation", "is a Translation: summarise needs a model of summaries; try `lightning-nlp translate`"),
        ("translate", "Summarization", "is a Summarization: translate needs a model of translation; try `lightning-nlp summarise`"),
        ("translate", "SpanDenoising", "is a SpanDenoising: translate needs a model of translation; try `lightning-nlp generate`"),
        ("translate", "listener", "is a Dialogue: translate needs a model of translation; try `lightning-nlp chat`"),
    ],
)  # fmt: skip
def test_a_run_of_another_kind_is_refused(command, verb, kind, message):
    code, out, (line,) = command(verb, kind, "one\n")
    assert (code, out, line) == (2, "", f"lightning-nlp: error: run 'a_run' {message}")


@pytest.mark.parametrize("verb", VERBS)
def test_mistakes_on_the_command_line(verb, capsys):
    for flags, message in (
        ([], "the following arguments are required: --run"),
        (["--run", "x", "--beam", "2"], "unrecognized arguments: --beam 2"),
        (["--run", "absent"], "there is no run at 'absent'"),
    ):
        assert main([verb, *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("lightning-nlp: error: ") and message in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beams", "2", "--n_best", "3"], "n_best 3 is more than beams 2"),
        (["--min_new_tokens", "9", "--max_new_tokens", "4"], "min_new_tokens 9 is more than max_new_tokens 4"),
        (["--beams", "999"], "beams 999 is more than the vocabulary of"),
        (["--max_new_tokens", "0"], "max_new_tokens must be at least 1, not 0"),
        (["--prefix", "long prefix"], "the forced prefix of prompt 0 has 11 tokens, more than the 6 new ones"),
        (["--bad_word", ""], "--bad_word is empty"),
        (["--no_repeat_ngram_size", "2", "--no_repeat_ngram_scope", "sorce"], "did you mean 'source'"),
    ],
)
def test_settings_that_cannot_be(command, flags, message):
    code, out, (line,) = command("generate", "pairs", b"", "--prompt", "one", *flags)
    assert (code, out) == (2, "") and message in line


def test_several_texts_with_scores(command):
    flags = ["--prompt", "one", "--beams", "3", "--n_best", "3"]
    code, out, _ = command("generate", "pairs", b"", *flags, "--scores", "--length_norm", "none")
    rows = [line.split("\t", 2) for line in out.splitlines()]
    assert code == 0
    assert [(row[0], float(row[0])) for row in rows] == [(row[1], float(row[1])) for row in rows]  # no norm
    assert sorted((float(row[0]) for row in rows), reverse=True) == [float(row[0]) for row in rows]
    assert len({row[2] for row in rows}) == 3
    code, plain, _ = command("generate", "pairs", b"", *flags, "--length_norm", "none")
    assert plain.splitlines() == [row[2] for row in rows]
    (code, greedy, _), (_, streamed, _) = (
        command("generate", "text", b"", "--prompt", "one", *more) for more in (["--scores"], [])
    )
    assert greedy.split("\t", 2)[2] == streamed and streamed.startswith("one")


def test_a_forced_prefix_and_banned_words(command):
    code, out, _ = command("translate", "pairs", "one\n", "--prefix", "ab")
    assert code == 0 and out.startswith("ab")
    task = make("pairs")
    letter = answer_to(task, "one")[0]
    assert letter not in command("translate", "pairs", "one\n", "--bad_word", letter, task=task)[1]


def test_ngrams_of_the_source_can_be_blocked(command):
    """Every letter of the alphabet is in the source; so is its end token, which texts need."""
    flags = ["--no_repeat_ngram_size", "1", "--no_repeat_ngram_scope", "source", "--max_new_tokens", "20"]
    free = command("translate", "pairs", "abc\n", "--max_new_tokens", "20")[1]
    source = "".join(sorted(set(free.strip())))[:30]
    blocked = command("translate", "pairs", f"{source}\n", *flags)[1].strip()
    letters = set(source) - {"\ufffd"}  # which stands for any byte that is no letter
    assert blocked and not set(blocked) & letters
    assert set(command("translate", "pairs", f"{source}\n", *flags[:2], *flags[4:])[1]) & letters


def test_names_of_masks_and_sentinels(command, monkeypatch):
    task, seen = make("pairs"), []
    plain = task.head.hypotheses
    monkeypatch.setattr(
        task.head, "hypotheses", lambda backbone, rows, *more, **options: seen.extend(rows) or plain(backbone, rows, *more, **options)
    )  # fmt: skip
    command("generate", "pairs", b"", "--prompt", "a <extra_id_0><mask>", task=task)
    command("translate", "pairs", "<mask>\n", task=task)
    space, end = 32, task.head.tokenizer.eos_id
    letters = task.head.tokenizer.encode
    assert seen[0] == [*letters("a "), id_of("<extra_id_0>"), id_of("<mask>"), end] and letters(" ") != [space]
    assert seen[1] == [*letters("<mask>"), end]  # the text of a stranger is text
    code, out, _ = command(
        "generate", "pairs", b"", "--prompt", "a", "--prefix", "<extra_id_0>x<extra_id_1>", task=task
    )
    assert code == 0 and out.startswith("<extra_id_0>x<extra_id_1>")
    code, out, _ = command("generate", "text", b"", "--prompt", "<mask>")
    assert code == 0 and out.startswith("<mask>")


def test_text_comes_as_it_is_made_and_no_character_in_halves(command, monkeypatch):
    said_by(monkeypatch, "né日")
    pieces, write = [], sys.stdout.write
    monkeypatch.setattr(sys.stdout, "write", lambda text: pieces.append(text) or write(text))
    code, out, _ = command("generate", "text", b"", "--prompt", "a")
    assert (code, out) == (0, "ané日\n")
    assert [piece for piece in pieces if piece] == ["a", "n", "é", "日", "\n"]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_text_that_ends_at_once_is_an_empty_line(command, monkeypatch, beams):
    task = make("pairs", beams=beams)
    only_end = torch.zeros(1, tokenizer().vocab_size).index_fill(1, torch.tensor([2]), 20.0)
    monkeypatch.setattr(task.head, "written", lambda backbone, hidden: only_end.expand(len(hidden), -1))
    assert command("translate", "pairs", "one\ntwo\n", task=task) == (0, "\n\n", [])
    banned = make("pairs", beams=beams, bad_words=[[token] for token in range(tokenizer().vocab_size)])
    assert command("translate", "pairs", "one\ntwo\n", task=banned) == (0, "\n\n", [])


@pytest.mark.parametrize(("kind", "what"), [("pairs", "source"), ("prefix", "prompt"), ("talk", "prompt")])
def test_there_is_no_answer_to_nothing(command, kind, what):
    line = f"lightning-nlp: error: the {what} is empty: give some text"
    assert command("generate", kind, b"", "--prompt", "") == (2, "", [line])


def test_a_terminal_that_does_not_know_a_character(command, monkeypatch):
    said_by(monkeypatch, "né日")
    shown = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", shown)
    assert command("generate", "text", b"", "--prompt", "a")[0] == 0
    assert shown.buffer.getvalue() == "ané?\n".encode("latin-1")


def test_a_continuation_of_a_long_prompt_says_what_was_read(command):
    code, out, err = command("generate", "text", b"", "--prompt", "x" * 50)
    assert code == 0 and out.startswith("x" * 50)
    assert err == ["note: of the 51 tokens of the prompt, the model reads the last 47"]
    code, out, err = command("generate", "text", "\n")  # an empty prompt starts from <bos>
    assert code == 0 and err == [] and out.endswith("\n")


def test_a_conversation_has_a_history_until_it_is_reset(command, monkeypatch):
    given = said_by(monkeypatch, "b", "d", "f")
    code, out, err = command("chat", "talk", "a\n\nc\n/reset\ne\n/quit\nnever\n")
    assert (code, out, err) == (0, "b\nd\nf\n", [])
    encode, bos, end = tokenizer().encode, 1, 2
    first = [id_of("<user>"), *encode("a"), end, id_of("<assistant>")]
    assert given[0] == [bos, *first]
    assert given[1] == [bos, *first, *encode("b"), end, id_of("<user>"), *encode("c"), end, id_of("<assistant>")]
    assert given[2] == [bos, id_of("<user>"), *encode("e"), end, id_of("<assistant>")]


def test_a_conversation_with_an_instruction(command, monkeypatch):
    given = said_by(monkeypatch, "b", "d")
    assert command("chat", "talk", "a\n/reset\nc\n", "--system", "s")[:2] == (0, "b\nd\n")
    opening = [1, id_of("<system>"), *tokenizer().encode("s"), 2]
    assert all(prompt[: len(opening)] == opening for prompt in given)
    assert len(given[1]) == len(given[0])


def test_an_encoder_that_listens(command, monkeypatch):
    task, seen = make("listener"), []
    plain = task.head.hypotheses
    said_by(monkeypatch, "b", "d")
    monkeypatch.setattr(task.head, "hypotheses", lambda backbone, rows, *more, **o: seen.extend(rows) or plain(backbone, rows, *more, **o))  # fmt: skip
    assert command("chat", "listener", "a\nc\n", task=task)[:2] == (0, "b\nd\n")
    encode, end, user, assistant = tokenizer().encode, 2, id_of("<user>"), id_of("<assistant>")
    first = [user, *encode("a"), end, assistant]
    assert seen == [[*first, end], [*first, *encode("b"), end, user, *encode("c"), end, assistant, end]]


def test_what_a_conversation_cannot_use_is_said_and_it_goes_on(command, monkeypatch):
    given = said_by(monkeypatch, "b")
    code, out, err = command("chat", "talk", f"/rest\n{'x' * 60}\na\n", n_best=2, temperature=0.5)
    assert (code, out, len(given)) == (0, "b\n", 1)
    assert err[0].endswith("line 1: unknown command '/rest'; did you mean '/reset'? (known: /reset, /quit)")
    assert err[1].endswith("line 2: the message has 60 tokens, the model takes 43: say it shorter")
    assert "unrecognized arguments: --scores" in command("chat", "talk", "", "--scores")[2][0]


def test_an_interrupt_ends_the_line_and_the_command(command, monkeypatch):
    task, shown = make("text", max_new_tokens=40), []

    def interrupted(hidden):
        shown.append(hidden)
        if len(shown) == 4:
            raise KeyboardInterrupt
        return task.head.scores(task.backbone, hidden)

    monkeypatch.setattr(task.head, "written", lambda backbone, hidden: interrupted(hidden))
    code, out, err = command("generate", "text", "ab\nnever\n", task=task)
    assert (code, err) == (130, [])
    assert out.startswith("ab") and out.endswith("\n") and "never" not in out and len(shown) == 4


def test_an_interrupt_while_waiting(command, monkeypatch):
    def interrupted(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Keyboard, "readline", interrupted)
    assert command("translate", "pairs", "one\n", person=True) == (130, "", ["a text a line; end with Ctrl-D", "> "])
    assert command("chat", "talk", "one\n") == (130, "", [])
