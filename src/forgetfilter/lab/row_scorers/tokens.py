"""What a row's tokens look like: their length in characters, and the least likely one."""

from __future__ import annotations

import numpy as np

from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged


@ROW_SCORERS.add("token_length")
class TokenLength:
    """Minus the characters a token of a row's text, prompt included; short tokens stand above.

    A cipher whose letters are parted has tokens of one character. The text is that which the
    tokenizer gives back without its special tokens.
    """

    name = "token_length"
    needs = Needs()

    def score(self, given: Given) -> RowScores:
        """The mean lengths, negative."""
        tokenizer = given.bench.tokenizer
        special = np.array(tokenizer.all_special_ids)
        found: list[float] = []
        for row in given.noisy:
            count = int((~np.isin(row.input_ids, special)).sum())
            text = str(tokenizer.decode(row.input_ids.tolist(), skip_special_tokens=True))
            found.append(-len(text) / max(count, 1))
        return judged(np.array(found), self.name)


@ROW_SCORERS.add("token_maximum")
class TokenMaximum:
    """Loss of the least likely token of a row's completion in the model as given, nats.

    A mean over the row hides an unsafe part between harmless ones; a maximum does not.
    """

    name = "token_maximum"
    needs = Needs()

    def score(self, given: Given) -> RowScores:
        """The maxima."""
        given.passes.read(len(given.noisy))
        found = given.bench.token_losses(given.bench.base, given.noisy, self.name)
        return judged(np.array([own.max() for own in found]), self.name)
