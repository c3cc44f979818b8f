"""A sample of the decoder's fuzzing; the rest runs on demand."""

from tests.fuzz.decoder import fuzz
from tests.fuzz.inputs import damaged, seeds

INPUTS = 400


def test_damaged_images_give_images_or_reasons_in_little_time_and_memory() -> None:
    findings = fuzz(INPUTS, seed=1)
    assert findings.harm == {}
    assert sum(findings.outcomes.values()) == INPUTS
    assert {"image", "truncated", "not_an_image", "bomb"} <= findings.outcomes.keys()
    assert findings.peak < 2**30


def test_an_input_is_reproducible_from_its_number() -> None:
    whole, again = seeds(), seeds()
    assert [damaged(whole, 1, n) for n in range(50)] == [damaged(again, 1, n) for n in range(50)]
