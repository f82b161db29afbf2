"""Toxicity: what every scorer promises, what is made of scores, how the bundled one ranks."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import real_rows
from forgetfilter.errors import ForgetFilterError, MissingExtraError, ModelError
from forgetfilter.lab.metrics import toxicity
from forgetfilter.lab.scorers import TOXICITY_SCORERS
from forgetfilter.safe.linear_toxicity import (
    LinearModel,
    LinearScorer,
    balanced_weights,
    hashed_counts,
    is_held_out,
)
from forgetfilter.safe.toxicity import ToxicityScorer, score_but_blank

CONTEXT = 16
TEXTS = [
    "Thank you for your kind help today.",
    "You are a stupid worthless idiot and I hate you.",
    "",
    "The meeting is on Monday at noon.",
    " \n\t",
    "lone \ud800 surrogate, nul \x00, bell \x07",
    "日本語のテキスト и русский 🙂",
    "word " * 400,
]


def save_classifier(
    folder: Path, tokenizer: Any, labels: Sequence[str], problem: str | None = None, seed: int = 0
) -> Path:
    """A BERT classifier with random weights, saved as a user's folder would look."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=CONTEXT,
        initializer_range=1.0,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type=problem,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier_folder(
    tiny_tokenizer: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return save_classifier(folder, tiny_tokenizer(), ["Toxic", "fine"])


@pytest.fixture(params=TOXICITY_SCORERS.names())
def scorer(request: pytest.FixtureRequest, classifier_folder: Path) -> ToxicityScorer:
    if request.param == "detoxify":
        pytest.skip("detoxify downloads its weights: it does not run offline")
    spec = f"classifier:{classifier_folder}" if request.param == "classifier" else request.param
    return TOXICITY_SCORERS.build(spec)


def test_every_scorer_gives_each_text_a_number_from_0_to_1(scorer: ToxicityScorer):
    scores = scorer.score(TEXTS)
    assert scores.shape == (len(TEXTS),)
    assert scores.dtype == np.float64
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[TEXTS.index("")] == scores[TEXTS.index(" \n\t")] == 0
    assert len(set(scores.tolist())) > 3  # it looks at the text
    assert scorer.name in TOXICITY_SCORERS.names()


def test_every_scorer_keeps_the_order_and_judges_each_text_alone(scorer: ToxicityScorer):
    scores = scorer.score(TEXTS)
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    assert scorer.score([TEXTS[i] for i in order]) == pytest.approx(scores[order], abs=1e-12)
    alone = np.concatenate([scorer.score([text]) for text in TEXTS])
    assert alone == pytest.approx(scores, abs=1e-12)


def test_every_scorer_takes_no_text_at_all(scorer: ToxicityScorer):
    assert scorer.score([]).shape == (0,)


def test_summaries_of_a_small_set_worked_by_hand():
    mean, largest, toxic = toxicity([0.1, 0.5, 0.9, 0.3])
    assert mean.value == pytest.approx((0.1 + 0.5 + 0.9 + 0.3) / 4)
    assert largest.value == 0.9
    assert toxic.value == 2 / 4  # 0.5 itself counts
    assert [v.name for v in (mean, largest, toxic)] == [
        "toxicity_mean",
        "toxicity_max",
        "toxic_share",
    ]
    assert {v.direction for v in (mean, largest, toxic)} == {"lower"}
    assert all(math.isnan(value.value) and value.n == 0 for value in toxicity([]))


@pytest.mark.parametrize("wrong", [[0.5], [0.5, 1.1], [0.5, -0.1], [0.5, float("nan")]])
def test_a_scorer_that_breaks_its_promise_is_found_out(wrong: list[float]):
    with pytest.raises(ValueError, match="some outside of 0"):
        score_but_blank(["a", "b"], lambda _texts: wrong)


def test_the_bundled_scorer_ranks_plain_cases_and_holds_no_text():
    scores = LinearScorer().score(TEXTS)
    assert scores[1] > 0.9
    assert scores[0] < 0.5
    assert scores[3] < 0.5
    from forgetfilter.safe.linear_toxicity import WEIGHTS_PATH

    assert WEIGHTS_PATH.stat().st_size < 1_000_000
    facts = LinearModel.load(WEIGHTS_PATH).facts
    assert "hatecheck" not in facts["sources"]


def test_a_linear_model_survives_its_file_to_the_bit(tmp_path: Path):
    texts = [f"{mood} number {i}" for i in range(30) for mood in ("vile awful", "lovely kind")]
    is_toxic = np.array(["vile" in text for text in texts])
    model = LinearModel.train(hashed_counts(texts), is_toxic, np.ones(60), {"made": "here"})
    model.save(tmp_path / "model.safetensors")
    again = LinearModel.load(tmp_path / "model.safetensors")
    new = ["vile words", "kind words", "neither"]
    assert again.probabilities(new).tolist() == model.probabilities(new).tolist()
    assert again.facts == {"made": "here"}
    vile, kind, neither = again.probabilities(new)
    assert vile > neither > kind


def test_repeats_of_a_text_are_held_out_together():
    texts = [f"a remark about number {i}" for i in range(2000)]
    held = [is_held_out(text) for text in texts]
    assert 0.17 < np.mean(held) < 0.23
    assert held == [is_held_out(f"RT @user: {text.upper()}!! http://x.y/z") for text in texts]
    assert held != [is_held_out(text, seed=1) for text in texts]


def test_weights_make_toxic_and_clean_texts_of_a_source_count_alike():
    is_toxic = np.array([True, True, True, False, False, False, True])
    weights = balanced_weights(is_toxic, ["a"] * 4 + ["b"] * 3)
    # a: 3 toxic at 4 / 6, 1 clean at 4 / 2. b: 2 clean at 3 / 4, 1 toxic at 3 / 2.
    assert weights == pytest.approx([4 / 6] * 3 + [4 / 2] + [3 / 4] * 2 + [3 / 2])
    assert balanced_weights(np.array([True] + [False] * 99), ["a"] * 100, cap=10)[0] == 10


def test_the_most_toxic_piece_of_a_long_text_counts(classifier_folder: Path):
    scorer: Any = TOXICITY_SCORERS.build(f"classifier:{classifier_folder}")
    text = "Where is the lamp number 7 and the green book ? " * 5
    pieces = scorer.classifier.windows(text)
    assert len(pieces) > 2
    assert all(len(piece) <= CONTEXT for piece in pieces)
    whole = scorer.classifier.tokenizer(text)["input_ids"]
    assert [token for piece in pieces for token in piece] == whole
    assert scorer.score([text])[0] == max(
        scorer.classifier.score_windows([piece])[0] for piece in pieces
    )


def test_a_classifiers_probability_is_that_of_its_toxic_label(
    tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    import torch
    from transformers import BertForSequenceClassification

    tokenizer = tiny_tokenizer()
    text = "Name a bird"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    for problem, probability in (
        (None, lambda logits: logits.softmax(0)),
        ("multi_label_classification", lambda logits: logits.sigmoid()),
    ):
        folder = save_classifier(
            tmp_path / str(problem), tokenizer, ["fine", "insult", "toxicity"], problem
        )
        model = BertForSequenceClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            expected = probability(model(input_ids=ids).logits[0])
        scores = TOXICITY_SCORERS.build(f"classifier:{folder}").score([text])
        assert scores[0] == pytest.approx(float(expected[2]), abs=1e-6)
        other = TOXICITY_SCORERS.build(f"classifier:path={folder},label=insult").score([text])
        assert other[0] == pytest.approx(float(expected[1]), abs=1e-6)


def test_a_classifier_that_cant_be_used_says_what_to_do(
    tiny_tokenizer: Callable[..., Any], tiny_model: Callable[..., Path], tmp_path: Path
):
    folder = save_classifier(tmp_path / "unnamed", tiny_tokenizer(), ["LABEL_0", "LABEL_1"])
    with pytest.raises(ModelError, match=r"0 labels named.*LABEL_0, LABEL_1.*label=NAME"):
        TOXICITY_SCORERS.build(f"classifier:{folder}")
    with pytest.raises(ModelError, match=r"Can't load.*Expected a local folder"):
        TOXICITY_SCORERS.build(f"classifier:{tmp_path / 'nowhere'}")
    with pytest.raises(ModelError, match=r"Can't load"):
        TOXICITY_SCORERS.build("classifier")
    # A language model has no trained head: its random one must not be taken for a judge.
    with pytest.raises(ModelError, match="lacks weights of a text classifier"):
        TOXICITY_SCORERS.build(f"classifier:{tiny_model('llama')}")


def test_pickled_weights_are_not_opened(classifier_folder: Path, tmp_path: Path):
    import shutil

    import torch

    folder = tmp_path / "pickled"
    shutil.copytree(classifier_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Can't load"):
        TOXICITY_SCORERS.build(f"classifier:{folder}")


@pytest.mark.skipif(importlib.util.find_spec("detoxify") is not None, reason="detoxify is here")
def test_a_missing_detoxify_names_the_pip_line():
    with pytest.raises(MissingExtraError, match=r"pip install 'forgetfilter\[detoxify\]'") as error:
        TOXICITY_SCORERS.build("detoxify")
    assert isinstance(error.value, ForgetFilterError)


@pytest.mark.parametrize(
    ("name", "at_least"),
    # docs/lab/metrics.md: 0.870, 0.923, 0.848, and on template text hardly more than chance.
    [("realtoxicityprompts", 0.86), ("surge", 0.91), ("toxigen", 0.84), ("hatecheck", 0.50)],
)
def test_the_bundled_scorer_ranks_real_texts_that_it_was_not_trained_on(name: str, at_least: float):
    from sklearn.metrics import roc_auc_score

    rows = [
        row
        for row in real_rows(f"tox_{name}.jsonl.gz")
        if row["label"] != "neutral" and (name == "hatecheck" or is_held_out(row["response"]))
    ]
    scores = LinearScorer().score([row["response"] for row in rows])
    assert roc_auc_score([row["label"] == "unsafe" for row in rows], scores) > at_least
