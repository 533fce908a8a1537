"""What a model reads before an answer is what it read in training; old turns go, instructions stay."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

import lightning_nlp
from lightning_nlp.data.objectives.dialogue import Turn, dialogue
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.tasks.conversation import Conversation
from lightning_nlp.tasks.prompting import PromptConfig

TOKENIZER = Tokenizer.train([], TokenizerConfig(kind="byte", extra_tokens=("<system>", "<user>", "<assistant>")))
SYSTEM, USER, ASSISTANT = (TOKENIZER.backend.token_to_id(f"<{name}>") for name in ("system", "user", "assistant"))
BOS, END = TOKENIZER.bos_id, TOKENIZER.eos_id
PROMPT = PromptConfig(before=(USER,), after=(END, ASSISTANT), end_id=END, system=(SYSTEM,))


def talk(max_length=99, answer_length=10, prompt=PROMPT, arrangement="decoder", **given):
    config = lightning_nlp.TransformerConfig(
        arrangement=arrangement, n_layers=1, d_model=8, n_heads=1, max_length=max_length
    )
    head = lightning_nlp.Dialogue(config, prompt=prompt).head
    head.tokenizer = TOKENIZER
    return Conversation(head, types.SimpleNamespace(config=config), answer_length, **given)


def said(conversation, *pairs):
    for question, answer in pairs:
        conversation.answered(question, TOKENIZER.encode(answer))
    return conversation


def shown(ids):
    """Readable: markers as letters."""
    names = {BOS: "^", END: "$", SYSTEM: "S", USER: "U", ASSISTANT: "A"}
    return "".join(names.get(token) or TOKENIZER.decode([token]) for token in ids)


@pytest.mark.parametrize("system", [None, "be brief"])
@pytest.mark.parametrize("pairs", [0, 1, 3])
def test_a_prompt_is_the_beginning_of_a_training_text(pairs, system):
    spoken = [(f"question {n}", f"answer {n}") for n in range(pairs)]
    turns = [] if system is None else [(SYSTEM, system)]
    turns += [(role, text) for pair in spoken for role, text in zip((USER, ASSISTANT), pair, strict=True)]
    turns += [(USER, "now"), (ASSISTANT, "yes")]
    made = [Turn(np.array([role]), np.array(TOKENIZER.encode(text)), role == ASSISTANT) for role, text in turns]
    trained = dialogue(made, "d", 999, BOS, END)
    prompt = said(talk(999, system=system), *spoken).ask("now")
    assert prompt == trained.tokens.tolist()[: len(prompt)]
    assert trained.labels.tolist()[len(prompt) - 1 :] == [*TOKENIZER.encode("yes"), END]


def test_an_encoder_reads_the_same_between_other_ends():
    """An answer is written elsewhere: nothing is dropped for it."""
    spoken = ("a", "b"), ("c", "d")
    assert shown(said(talk(22, 11, arrangement="encoder_decoder"), *spoken).ask("e")) == "Ua$Ab$Uc$Ad$Ue$A$"
    assert shown(said(talk(17, 11, arrangement="encoder_decoder"), *spoken).ask("e")) == "Ua$Ab$Uc$Ad$Ue$A$"
    assert shown(said(talk(16, 11, arrangement="encoder_decoder"), *spoken).ask("e")) == "Ab$Uc$Ad$Ue$A$"
    assert shown(talk(16, 11, arrangement="encoder_decoder").ask("x" * 12)) == f"U{'x' * 12}$A$"
    with pytest.raises(ConfigError, match="the message has 13 tokens, the model takes 12"):
        talk(16, 11, arrangement="encoder_decoder").ask("x" * 13)


def test_turns_are_kept_and_forgotten():
    conversation = talk()
    assert shown(conversation.ask("a")) == shown(conversation.ask("a")) == "^Ua$A"
    said(conversation, ("a", "b"))
    conversation.answered("c", [*TOKENIZER.encode("d"), USER, END])  # a marker in an answer is no turn
    assert shown(conversation.ask("e")) == "^Ua$Ab$Uc$Ad$Ue$A"
    conversation.forget()
    assert shown(conversation.ask("e")) == "^Ue$A"


@pytest.mark.parametrize(
    ("room", "system", "expected"),
    [
        (23, None, "^Ua$Ab$Uc$Ad$Ue$A"),
        (22, None, "^Ab$Uc$Ad$Ue$A"),  # turn by turn, as in training
        (14, None, "^Ad$Ue$A"),
        (12, None, "^Ue$A"),
        (26, "s", "^Ss$Ua$Ab$Uc$Ad$Ue$A"),
        (22, "s", "^Ss$Uc$Ad$Ue$A"),
        (14, "s", "^Ss$Ue$A"),
    ],
)
def test_old_turns_make_room_for_the_answer(room, system, expected):
    conversation = said(talk(room, 6, system=system), ("a", "b"), ("c", "d"))
    assert shown(conversation.ask("e")) == expected
    assert len(expected) <= room - 6


def test_so_many_turns_as_in_training():
    prompt = dataclasses.replace(PROMPT, history_turns=1)
    conversation = said(talk(prompt=prompt, system="s"), ("a", "b"), ("c", "d"))
    assert shown(conversation.ask("e")) == "^Ss$Ue$A"
    conversation = said(talk(prompt=dataclasses.replace(prompt, history_turns=3)), ("a", "b"), ("c", "d"))
    assert shown(conversation.ask("e")) == "^Uc$Ad$Ue$A"


def test_a_long_message_takes_the_room_of_the_answer_but_one_token():
    assert shown(talk(20, 15).ask("x" * 15)) == f"^U{'x' * 15}$A"
    with pytest.raises(ConfigError, match="the message has 16 tokens, the model takes 15: say it shorter"):
        talk(20, 15).ask("x" * 16)
    assert shown(said(talk(20, 15), ("a", "b")).ask("x" * 15)) == f"^U{'x' * 15}$A"
    with pytest.raises(ConfigError, match="the message is empty"):
        talk().ask("")


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        ({"before": ()}, {}, "not trained on conversations"),
        ({"after": ()}, {}, "not trained on conversations"),
        ({"bidirectional": True}, {}, "not trained on conversations"),
        ({"system": ()}, {"system": "x"}, "knows no marker of system"),
    ],
)
def test_models_that_do_not_converse(change, given, message):
    with pytest.raises(ConfigError, match=message):
        talk(prompt=dataclasses.replace(PROMPT, **change), **given)
