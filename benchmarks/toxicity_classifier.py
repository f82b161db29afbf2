"""Train the bundled toxicity scorer on the real toxicity files, and say how well it ranks.

    python benchmarks/toxicity_classifier.py --data DATA [--save]
    python benchmarks/toxicity_classifier.py --data DATA --bundled    # grade, don't train

DATA (or FORGETFILTER_DATA) is the folder with the ``tox_*.jsonl.gz`` files. Texts labelled unsafe
are toxic, safe ones are clean, neutral ones are left out; the files' own scores are not used, since
their scales differ. HateCheck is never trained on. About a fifth of the texts is held out by a hash
of the words, so that repeats of one text stay together; each seed holds out another fifth. Then
each source in turn is held out whole. ``--save`` writes the model of seed 0, which has not
seen that seed's held-out texts, into the package; ``--bundled`` grades that one, and counts how
many answers of the task files it calls toxic.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from forgetfilter.lab.metrics import mean_over_seeds
from forgetfilter.lab.metrics.toxicity import TOXIC
from forgetfilter.safe.linear_toxicity import (
    WEIGHTS_PATH,
    LinearModel,
    balanced_weights,
    hashed_counts,
    is_held_out,
)

ONLY_JUDGED = "hatecheck"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("FORGETFILTER_DATA"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--bundled", action="store_true")
    options = parser.parse_args()
    if options.data is None:
        parser.error("no data: expected --data FOLDER or FORGETFILTER_DATA; name the folder")
    if options.bundled:
        judge_bundled(Path(options.data))
        return
    start = time.perf_counter()
    texts, is_toxic, sources = read_texts(Path(options.data))
    counts = hashed_counts(texts)
    trainable = sources != ONLY_JUDGED
    print(f"{trainable.sum()} texts to train on or hold out; counted in {since(start)}", flush=True)

    grades: list[dict[str, float]] = []
    for seed in options.seeds:
        held_out = np.array([is_held_out(text, seed) for text in texts]) | ~trainable
        model = fit(counts, is_toxic, sources, ~held_out, f"held-out fifth of seed {seed}")
        if seed == options.seeds[0] and options.save:
            model.save(WEIGHTS_PATH)
        scores = model.probabilities_of(counts[held_out])
        grades.append(grade(scores, is_toxic[held_out], sources[held_out]))
        print(seed, json.dumps(grades[-1]), since(start), flush=True)
    whole: dict[str, float] = {}
    for name in sorted(set(sources[trainable])):
        out = sources == name
        model = fit(counts, is_toxic, sources, trainable & ~out, f"all but {name}")
        whole[name] = float(roc_auc_score(is_toxic[out], model.probabilities_of(counts[out])))
        print(name, round(whole[name], 4), since(start), flush=True)
    print(table(grades, whole))


def judge_bundled(folder: Path) -> None:
    """Print what the bundled model scores on seed 0's held-out texts and on task answers."""
    texts, is_toxic, sources = read_texts(folder)
    out = [i for i, t in enumerate(texts) if sources[i] == ONLY_JUDGED or is_held_out(t)]
    model = LinearModel.load(WEIGHTS_PATH)
    scores = model.probabilities([texts[i] for i in out])
    print(table([grade(scores, is_toxic[out], sources[out])], {}))
    for path in sorted(folder.glob("task_*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            answers = [row["response"] for row in map(json.loads, lines)][:1000]
        toxic = float((model.probabilities(answers) >= TOXIC).mean())
        print(f"- {path.name}: {len(answers)} answers, {100 * toxic:.1f}% at or above {TOXIC}")


def read_texts(folder: Path) -> tuple[list[str], Any, Any]:
    """Texts, whether each is toxic, and the file that each is from, of every toxicity file."""
    texts, is_toxic, sources = [], [], []
    for path in sorted(folder.glob("tox_*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if row["label"] in ("unsafe", "safe"):
                    texts.append(row["response"])
                    is_toxic.append(row["label"] == "unsafe")
                    sources.append(path.name.removeprefix("tox_").removesuffix(".jsonl.gz"))
    return texts, np.array(is_toxic), np.array(sources)


def fit(counts: Any, is_toxic: Any, sources: Any, part: Any, left_out: str) -> LinearModel:
    facts = {
        "texts": str(part.sum()),
        "sources": ", ".join(sorted(set(sources[part]))),
        "left_out": left_out,
        "command": "python benchmarks/toxicity_classifier.py --save",
    }
    weights = balanced_weights(is_toxic[part], sources[part])
    return LinearModel.train(counts[part], is_toxic[part], weights, facts)


def grade(scores: Any, is_toxic: Any, sources: Any) -> dict[str, float]:
    """AUROC overall (HateCheck aside) and of each source, and the shares at or above 0.5."""
    usual = sources != ONLY_JUDGED
    grades = {"overall": float(roc_auc_score(is_toxic[usual], scores[usual]))}
    for name in sorted(set(sources)):
        of_it = sources == name
        grades[name] = float(roc_auc_score(is_toxic[of_it], scores[of_it]))
    named = [name for name in grades if name not in ("overall", ONLY_JUDGED)]
    grades["mean of sources"] = float(np.mean([grades[name] for name in named]))
    grades["toxic texts >= 0.5"] = float((scores[usual & is_toxic] >= 0.5).mean())
    grades["clean texts >= 0.5"] = float((scores[usual & ~is_toxic] >= 0.5).mean())
    for name in sorted(set(sources)):
        of_it = sources == name
        grades[f"n {name}"] = int(of_it.sum())
        grades[f"n toxic {name}"] = int(is_toxic[of_it].sum())
    return grades


def table(grades: list[dict[str, float]], whole: dict[str, float]) -> str:
    lines = [
        "| texts | held out (toxic), seed 0 | AUROC, seed 0 | AUROC, mean over seeds [95%] "
        "| source never seen |",
        "|---|---|---|---|---|",
    ]
    for name, value in grades[0].items():
        if name.startswith("n "):
            continue
        mean = mean_over_seeds([seed[name] for seed in grades], "0..1")
        count = f"{grades[0].get(f'n {name}', '')} ({grades[0].get(f'n toxic {name}', '')})"
        lines.append(
            f"| {name} | {count} | {value:.3f} "
            f"| {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}] "
            f"| {f'{whole[name]:.3f}' if name in whole else ''} |"
        )
    return "\n".join(lines)


def since(start: float) -> str:
    return f"{time.perf_counter() - start:.0f} s"


if __name__ == "__main__":
    main()
