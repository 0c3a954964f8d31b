"""The stand-in answers any prompt, the same each time, and never passes for a model."""

import pytest

from agentos.core.llm import Completion, stand_in_completion
from agentos.store.canonical import canonical


def test_it_is_one_line_about_the_prompt_and_says_what_it_is() -> None:
    result = stand_in_completion("Summarise the package\n  rich 13.9")
    assert result == Completion(
        "[stand-in model] Summarise the package rich 13.9 (5 words, 821e3706)", "stand-in", 5, 10, "stop"
    )


def test_the_same_prompt_gives_the_same_answer_and_another_prompt_another() -> None:
    long = "word " * 1000
    assert stand_in_completion(long) == stand_in_completion(long)
    assert stand_in_completion(long).text != stand_in_completion(long + "more").text
    assert len(stand_in_completion(long).text) < 140


@pytest.mark.parametrize("prompt", ["", " \n ", "NUL \x00", "lone \ud800 surrogate"])
def test_any_prompt_gives_a_line_that_can_be_stored(prompt: str) -> None:
    result = stand_in_completion(prompt)
    assert canonical(result.as_dict())
    assert result.text.isprintable()
