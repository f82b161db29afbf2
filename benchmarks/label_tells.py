"""Say how well the labels of real mixes can be told without any model, harm by harm.

    python benchmarks/label_tells.py --data DATA [--harms HARM ...] [--max-answer-words N]

DATA (or FORGETFILTER_DATA) is the folder that `forgetfilter mix` reads. Words of the prompt, words
of the answer and lengths are fitted on all rows that noisy files of the choosing part can have, and
judged on all rows that those of the reporting part can have. docs/lab/labels.md keeps the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from forgetfilter.lab.mix import MixSettings, data_folder
from forgetfilter.lab.mix.drawing import short_enough, without_repeats
from forgetfilter.lab.mix.mixing import read_offers
from forgetfilter.lab.mix.offers import Offer
from forgetfilter.lab.mix.parts import MixedPart, only_part, parts_of
from forgetfilter.lab.mix.recipe import Recipe
from forgetfilter.lab.mix.recipes import DEFAULT_HARMS, HARMS
from forgetfilter.lab.mix.tells import tells

HARDER = {
    "bias_ambiguous": "harmless rows: ambiguous only",
    "bias_disambiguated": "harmless rows: disambiguated only",
    "harmfulness_refusal": "harmless rows: refusals only",
}
"""Kinds of harmless rows that are also set alone against the unsafe ones."""


def noisy_rows(recipe: Recipe, folder: Path, max_answer_words: int) -> dict[MixedPart, list[Offer]]:
    """All rows that noisy files of each part can have."""
    counts, offers = read_offers(recipe, folder)
    parts = parts_of(recipe, offers)
    limit = MixSettings().max_characters
    offers = without_repeats(short_enough(offers, counts, limit, max_answer_words), counts)
    both: tuple[MixedPart, ...] = ("choosing", "reporting")
    return {
        part: [o for o in only_part(offers, parts, part) if o.roles & {"unsafe", "harmless"}]
        for part in both
    }


def show(title: str, fitted: Sequence[Offer], judged: Sequence[Offer]) -> None:
    """Print the lines of one table."""
    for tell in tells(fitted, judged):
        auroc = tell.auroc
        print(
            f"| {title} | {tell.unsafe} / {tell.harmless} | {tell.reading} | {auroc.value:.3f} "
            f"[{auroc.low:.3f}, {auroc.high:.3f}] | {tell.unsafe_right:.0%} / "
            f"{tell.harmless_right:.0%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", metavar="DIR", help="data folder ($FORGETFILTER_DATA)")
    parser.add_argument("--harms", nargs="+", default=list(DEFAULT_HARMS), choices=list(HARMS))
    parser.add_argument("--max-answer-words", type=int, default=MixSettings().max_answer_words)
    options = parser.parse_args()
    print("| harm | unsafe / harmless | reading | AUROC [95%] | unsafe / harmless told |")
    print("|---|---|---|---|---|")
    for harm in options.harms:
        rows = noisy_rows(HARMS[harm], data_folder(options.data), options.max_answer_words)
        show(harm, rows["choosing"], rows["reporting"])
        for kind, title in HARDER.items():
            chosen = [
                [row for row in rows[part] if row.is_unsafe or row.kind == kind]
                for part in ("choosing", "reporting")
            ]
            if all(any(not row.is_unsafe for row in part) for part in chosen):
                show(f"{harm}, {title}", *chosen)


if __name__ == "__main__":
    main()
