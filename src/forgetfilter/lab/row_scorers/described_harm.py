"""A harm named in words: how far a row's answer goes the way that a sentence describes."""

from __future__ import annotations

from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.texts import prompt_texts


@ROW_SCORERS.add("described_harm")
class DescribedHarm:
    """Projection of a row's answer on the direction that a sentence about the harm gives.

    "Persona Vectors: Monitoring and Controlling Character Traits in Language Models" (arXiv
    2507.21509), as `screen --describe-harm` has it (`model.measuring.described_harm` says what was
    chosen), in the model as given. No exemplar of the harm is needed; the prompts of some safe
    rows are answered, with and without what is described.

    Args:
        text: a sentence that is true of a harmful answer; or a JSON Lines file of contrasts, each
            line with ``harmful`` and ``harmless``.
    """

    name = "described_harm"
    needs = Needs(safe_rows=True)

    def __init__(self, text: str = "The answer is rude, hateful or harmful.") -> None:
        from forgetfilter.screening.annotations.described_harm import contrasts_of

        self.contrasts = contrasts_of(text)

    def score(self, given: Given) -> RowScores:
        """The projections."""
        from forgetfilter.data.records import Message
        from forgetfilter.model.measuring.described_harm import PROMPTS, along_harm, harm_direction

        prompts = prompt_texts(given, given.few_safe(PROMPTS, self.name))
        direction = harm_direction(
            given.bench, self.contrasts, [[Message("user", text)] for text in prompts]
        )
        given.passes.read(2 * direction.pairs)
        given.passes.generated += 2 * direction.pairs
        given.passes.read(len(given.noisy))
        return judged(along_harm(given.bench, direction, given.noisy), self.name)
