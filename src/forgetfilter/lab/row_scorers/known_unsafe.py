"""Likeness to rows that are known to be unsafe, as a screen has it for a second opinion."""

from __future__ import annotations

from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged


@ROW_SCORERS.add("known_unsafe")
class KnownUnsafe:
    """A row's largest cosine with an exemplar, by the mean states of their answers.

    What `screen --second-opinion known_unsafe:FILE` measures, in the model as given; after "What is
    in Your Safe Data? Identifying Benign Data that Breaks Safety" (He, Xia and Henderson, COLM
    2024, arXiv 2404.01099), whose own choice is `representation_cosine`. Chosen here: the answer's
    mean state in two layers, standardised by the noisy rows, in place of the last token's.

    Args:
        budget: exemplars.
    """

    name = "known_unsafe"

    def __init__(self, budget: int = 20) -> None:
        self.needs = Needs(exemplars=budget)

    def score(self, given: Given) -> RowScores:
        """The cosines, those below 0 as 0."""
        from forgetfilter.scoring.records import Probe

        known, bench = given.exemplars(self.needs.exemplars), given.bench
        given.passes.read(len(given.noisy) + len(known))
        probe = Probe("unsafe_likeness", "base")
        found = bench.measure((probe,), {"base": bench.base}, given.noisy, known)
        return judged(found[probe.name], self.name)
