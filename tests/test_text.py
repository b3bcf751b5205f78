"""The small text encoder: words by their hash, places, padding of zeros."""

import subprocess
import sys

import pytest
import torch

from xwam.model.text import SmallTextEncoder, SmallTextEncoderConfig, TextEncoder
from xwam.sim.metaworld import INSTRUCTIONS


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return SmallTextEncoder(SmallTextEncoderConfig(width=16, tokens=6)).requires_grad_(False)


def test_it_keeps_the_protocol_of_text_encoders(encoder):
    assert isinstance(encoder, TextEncoder)
    assert encoder.encode(["open the drawer", "push"]).shape == (2, encoder.tokens, encoder.width)


@pytest.mark.parametrize("other", ["Open the DRAWER", "open the drawer!", "  open, the\ndrawer. "])
def test_case_and_punctuation_do_not_matter(encoder, other):
    assert torch.equal(encoder.encode([other]), encoder.encode(["open the drawer"]))


def test_what_follows_the_last_word_is_zero(encoder):
    embedded = encoder.encode(["open the drawer", ""])
    assert embedded[0, :3].abs().amax(-1).min() > 0
    assert not embedded[0, 3:].any() and not embedded[1].any()


def test_a_text_does_not_depend_on_those_beside_it(encoder):
    assert torch.equal(encoder.encode(["push", "open the drawer"])[1:], encoder.encode(["open the drawer"]))


def test_words_beyond_the_last_token_are_cut_off(encoder):
    words = "one two three four five six seven eight"
    assert torch.equal(encoder.encode([words]), encoder.encode(["one two three four five six"]))
    assert encoder.encode([words])[0].abs().amax(-1).min() > 0


@pytest.mark.parametrize("one, other", [("open the drawer", "close the drawer"), ("push puck", "puck push")])
def test_other_words_and_another_order_differ(encoder, one, other):
    assert not torch.allclose(encoder.encode([one]), encoder.encode([other]))


def test_the_same_word_elsewhere_differs_by_its_place_only(encoder):
    row = encoder.encode(["red red"])[0]
    torch.testing.assert_close(row[1] - row[0], encoder.places.weight[1] - encoder.places.weight[0])


def test_instructions_of_the_simulated_tasks_fit_and_none_is_another_tasks():
    encoder = SmallTextEncoder(SmallTextEncoderConfig())
    texts = [text for task in INSTRUCTIONS.values() for text in task]
    assert max(len(text.split()) for text in texts) <= encoder.tokens
    assert len({tuple(ids) for ids in encoder.tokenize(texts).tolist()}) == len(texts)


def test_ids_are_the_same_in_another_process(encoder):
    code = (
        "from xwam.model.text import *; "
        "encoder = SmallTextEncoder(SmallTextEncoderConfig(width=16, tokens=6)); "
        "print(encoder.tokenize(['open the drawer']).tolist())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(encoder.tokenize(["open the drawer"]).tolist())
