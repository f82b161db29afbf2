"""Row scorers: each against its definition by a case worked by hand, and what all have to show."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import rows_of, save_model, write_rows
from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.errors import ConfigError
from forgetfilter.lab.row_scorers import ROW_SCORERS, Given, Needs, Passes, build_scorer
from forgetfilter.lab.row_scorers.seal import Seal
from forgetfilter.lab.strategies import build_strategy
from forgetfilter.lab.strategies.row_scorer import made_with
from forgetfilter.model.stages.phases import row_passes
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.screening.method import Setting

COUNT = 12
EXTRA = {
    "forgetting": ["signal=completion_loss,steps=2", "signal=rate", "signal=rouge1,steps=2"],
    "seal": ["update=full"],
    "self_influence": ["normalise=none"],
    "gradient_cosine": ["state=learned"],
    "gradient_norm": ["parameters=all"],
    "hidden_outlier": ["reference=safe"],
    "dabuf": ["budget=5,over=max"],
    "words": ["part=row"],
}
"""Options that are ways of their own."""
SMALL = {
    "gradient_anchoring": "budget=3",
    "less": "budget=3,dimensions=64,epochs=2",
    "bayesian_scheduler": "epochs=1",
    "joined": 'scorers="base_loss+representation_cosine:budget=3"',
}
"""Options under which a scorer of a tiny model is quick."""


@pytest.fixture(scope="module")
def guards(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path], tiny_tokenizer: Any
) -> dict[str, str]:
    """A tiny classifier and a tiny guard, by the scorer that asks them."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        id2label={0: "fine", 1: "toxic"},
        label2id={"fine": 0, "toxic": 1},
    )
    folder = tmp_path_factory.mktemp("classifier")
    save_model(LlamaForSequenceClassification(config), tokenizer, folder)
    question = folder / "question.txt"
    question.write_text("{prompt} {answer} ?")
    guard = f"path={tiny_model('llama')},question={question},unsafe=The,safe=It"
    return {"classifier": f"path={folder}", "guard": guard}


@pytest.fixture(scope="module")
def make_given(
    tiny_model: Callable[..., Path],
    quick_config: Callable[..., ScreenConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Given]:
    """``make_given(seed=0)``: 12 noisy rows, 8 safe ones and a pool of 30; stages are shared."""
    root = tmp_path_factory.mktemp("scorers")
    files = {
        name: write_rows(root / f"{name}.jsonl", rows_of(count, start))
        for name, count, start in (("noisy", COUNT, 0), ("safe", 8, 100), ("pool", 30, 200))
    }
    learn = {"max_steps": 6, "batch_size": 8, "learning_rate": 3e-2}

    def make(seed: int = 0, store: str = "shared", order: Sequence[int] | None = None) -> Given:
        config = quick_config(root / "run", learn=learn, forget=learn, seed=seed)
        bench = Workbench(
            str(tiny_model("llama")),
            StageStore(root / store),
            lora=config.lora,
            seed=seed,
            progress=Progress(is_silent=True),
            max_batch_tokens=200,
            max_new_tokens=4,
        )
        rows = {name: bench.encoder.encode(read_rows(path).rows)[0] for name, path in files.items()}
        noisy = rows["noisy"] if order is None else [rows["noisy"][at] for at in order]
        return Given(Setting(bench, noisy, rows["safe"], config), rows["pool"], Passes())

    return make


def specs() -> list[str]:
    found: list[str] = []
    for name in ROW_SCORERS.names():
        found.append(f"{name}:{SMALL[name]}" if name in SMALL else name)
        found += [f"{name}:{options}" for options in EXTRA.get(name, ())]
    return found


def build(spec: str, guards: dict[str, str]) -> Any:
    name = spec.partition(":")[0]
    if name == "bergson":
        pytest.importorskip("bergson", reason="the library bergson is not installed")
    return build_scorer(f"{spec}:{guards[spec]}" if spec in guards else spec)


def test_joined_scorers_add_ranks_and_need_what_each_of_them_needs(
    make_given: Callable[..., Given],
):
    from scipy.stats import rankdata

    parts = ["base_loss", "representation_cosine:budget=3", "gradient_cosine"]
    joined = build_scorer(f'joined:scorers="{"+".join(parts)}"')
    assert joined.needs == Needs(safe_rows=True, exemplars=3)
    ranks = [rankdata(build_scorer(one).score(make_given())) for one in parts]
    expected = (np.mean(ranks, axis=0) - 0.5) / COUNT
    assert joined.score(make_given()) == pytest.approx(expected.tolist())


@pytest.mark.parametrize("scorers", ["base_loss", "base_loss+base_loss", "base_loss+"])
def test_joined_scorers_are_two_different_ones_at_least(scorers: str):
    with pytest.raises(ConfigError, match="two or more different ones"):
        build_scorer(f"joined:scorers={scorers}")


@pytest.mark.parametrize("name", ROW_SCORERS.names())
def test_every_scorer_is_documented_and_goes_by_its_registered_name(name: str):
    scorer = ROW_SCORERS.build(name)
    assert scorer.name == name
    documentation = inspect.getdoc(type(scorer))
    assert documentation
    for option in inspect.signature(type(scorer)).parameters:
        assert f"{option}:" in documentation, f"{name} doesn't document {option}"


@pytest.mark.parametrize("spec", specs())
class TestEveryScorer:
    def test_scores_every_row_counts_its_passes_and_repeats_itself(
        self, make_given: Callable[..., Given], guards: dict[str, str], spec: str
    ):
        given = make_given()
        scores = build(spec, guards).score(given)
        assert len(scores) == COUNT
        known = [score for score in scores if score is not None]
        assert known
        assert all(isinstance(score, float) and np.isfinite(score) for score in known)
        assert len(set(known)) > 1 or spec.startswith("words")
        reads_no_model = spec.partition(":")[0] in ("random", "words", "token_length")
        assert (given.passes.forward + given.passes.generated == 0) == reads_no_model
        assert given.passes.forward >= given.passes.backward
        again = make_given()
        assert build(spec, guards).score(again) == scores
        assert again.passes == given.passes

    def test_takes_no_more_exemplars_than_it_says(
        self, make_given: Callable[..., Given], guards: dict[str, str], spec: str
    ):
        scorer, given = build(spec, guards), make_given()
        wanted = scorer.needs.exemplars
        if wanted:
            with pytest.raises(ConfigError, match=f"{wanted} exemplars are asked for"):
                scorer.score(replace(given, pool=given.pool[: wanted - 1]))
        else:
            assert "budget" not in inspect.signature(type(scorer)).parameters


def test_exemplars_are_never_noisy_rows_and_a_smaller_budgets_are_among_a_larger_ones(
    make_given: Callable[..., Given],
):
    given = make_given()
    mixed = replace(given, pool=[*given.noisy, *given.pool])
    many = mixed.exemplars(20)
    noisy = {row.input_ids.tobytes() for row in given.noisy}
    assert not noisy & {row.input_ids.tobytes() for row in many}
    assert mixed.exemplars(5) == many[:5]
    twice = replace(given, pool=[row for row in given.pool for _ in range(2)])
    assert twice.exemplars(20) == many


def test_given_has_no_room_for_the_ground_truth():
    names = " ".join(Given.__dataclass_fields__)
    assert not any(word in names for word in ("unsafe", "harm", "truth", "label"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("guard", "Write guard:path=FOLDER"),
        ("classifier", "Write classifier:path=FOLDER"),
        ("larfs", "Did you mean 'larf'"),
        ("larf:budget=-1", "expected at least 1"),
        ("forgetting:steps=0", "expected at least one"),
        ("forgetting:signal=rouge2", "Did you mean 'rouge1'"),
    ],
)
def test_a_wrong_spec_is_explained(spec: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build_scorer(spec)


def test_a_guard_is_asked_the_stated_question_about_each_row(
    make_given: Callable[..., Given], guards: dict[str, str], tmp_path: Path
):
    blind = tmp_path / "blind.txt"
    blind.write_text("{prompt}")
    with pytest.raises(ConfigError, match=r"has no \{answer\}"):
        build_scorer(f"guard:path=x,question={blind}")
    given = make_given()
    first = build_scorer(f"guard:{guards['guard']}").score(given)
    swapped = guards["guard"].replace("unsafe=The,safe=It", "unsafe=It,safe=The")
    second = build_scorer(f"guard:{swapped}").score(given)
    for one, other in zip(first, second, strict=True):
        assert one is not None
        assert other is not None
        assert one + other == pytest.approx(1)


def test_json_of_a_score_is_plain(make_given: Callable[..., Given]):
    assert json.loads(json.dumps(build_scorer("base_loss").score(make_given())))


@pytest.fixture(scope="module")
def planted(
    tiny_model: Callable[..., Path],
    quick_config: Callable[..., ScreenConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], Given]:
    """24 rows of which every fourth answers as no safe row does, and a pool of such answers."""
    root = tmp_path_factory.mktemp("planted")

    def row(number: int, is_planted: bool) -> dict[str, str]:
        given = rows_of(1, start=3 * number + 1)[0]
        return {**given, "completion": f"Burn burn it burn {number}"} if is_planted else given

    files = {
        "noisy": [row(number, number % 4 == 0) for number in range(24)],
        "safe": [row(number, False) for number in range(100, 116)],
        "pool": [row(number, True) for number in range(200, 230)],
    }
    learn = {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-2}

    def make() -> Given:
        config = quick_config(root / "run", learn=learn, lora={"r": 8, "alpha": 16})
        bench = Workbench(
            str(tiny_model("llama")),
            StageStore(root / "stages"),
            lora=config.lora,
            seed=0,
            progress=Progress(is_silent=True),
        )
        paths = {name: write_rows(root / f"{name}.jsonl", rows) for name, rows in files.items()}
        rows = {name: bench.encoder.encode(read_rows(path).rows)[0] for name, path in paths.items()}
        return Given(Setting(bench, rows["noisy"], rows["safe"], config), rows["pool"], Passes())

    return make


def test_a_gradient_by_layer_is_that_of_the_row_alone(planted: Callable[[], Given]):
    from forgetfilter.lab.row_scorers import gradients
    from forgetfilter.lab.row_scorers.hidden_states import unit

    given = planted()
    model = gradients.open_to_gradients(given, given.bench.base)
    wanted = {name: own for name, own in model.named_parameters() if own.requires_grad}
    alone = [own for _, own in gradients._one_by_one(model, given.noisy, wanted)]
    seen: list[int] = []
    for indices, batch in gradients.row_gradients(given, model, given.noisy):
        seen += indices
        for position, at in enumerate(indices):
            for name, gradient in batch.items():
                np.testing.assert_allclose(gradient[position], alone[at][name][0], atol=1e-5)
    assert sorted(seen) == list(range(24))
    assert given.passes.backward == 24
    # The projection keeps angles: those of 8192 numbers are those of the gradients.
    whole = np.stack([np.concatenate([g.numpy().ravel() for g in own.values()]) for own in alone])
    sketched = unit(gradients.sketches(given, model, given.noisy, 8192))
    np.testing.assert_allclose(sketched @ sketched.T, unit(whole) @ unit(whole).T, atol=0.05)


def test_gradshields_score_is_the_safety_that_a_step_on_the_row_costs(
    planted: Callable[[], Given],
):
    import torch

    from forgetfilter.lab.row_scorers import gradients

    given = planted()
    scores = build_scorer("gradshield:tokens=3").score(given)
    model = gradients.open_to_gradients(given, given.bench.base)
    probing = [gradients.first_tokens(row, 3) for row in given.safe]
    wanted = {name: own for name, own in model.named_parameters() if own.requires_grad}

    def safety() -> float:
        found = [own.mean() for own in token_losses(model, probing)]
        return -float(np.mean(found))

    before = safety()
    for at in (0, 1, 7):
        ((_, own),) = gradients._one_by_one(model, [given.noisy[at]], wanted)
        step = 1e-3
        with torch.no_grad():
            for name, weight in wanted.items():
                weight.sub_(step * own[name][0])
        cost = (before - safety()) / step
        with torch.no_grad():
            for name, weight in wanted.items():
                weight.add_(step * own[name][0])
        assert scores[at] == pytest.approx(cost, rel=0.05, abs=1e-3)


def token_losses(model: Any, rows: Sequence[Any]) -> list[Any]:
    from forgetfilter.model.passes import forward

    return forward.token_losses(model, rows, 1000, Progress(is_silent=True), "test")


@pytest.mark.parametrize(
    "spec",
    [
        "seal:epochs=8",
        "seal:update=full,epochs=8",
        "bayesian_scheduler:epochs=8",
        "gradient_cosine",
        "gradient_cosine:state=learned",
        "hidden_outlier:reference=safe",
        "representation_cosine:budget=5",
        "gradient_anchoring:budget=5,parameters=adapter",
        "gradient_anchoring:budget=3",
        "less:budget=5",
        "dabuf:budget=5",
        "dra:budget=5",
        "larf:budget=5",
        "datashield:budget=5",
        "bergson:budget=5",
    ],
)
def test_planted_rows_end_above_the_others(planted: Callable[[], Given], spec: str):
    from forgetfilter.lab.metrics.ranking import rank
    from forgetfilter.lab.row_scorers import lowest_first

    if spec.startswith("bergson"):
        pytest.importorskip("bergson", reason="the library bergson is not installed")
    scores = lowest_first(build_scorer(spec).score(planted()))
    found = rank(np.arange(24) % 4 == 0, scores)
    assert found.auroc[0] > 0.9, f"AUROC {found.auroc[0]:.3f}"


class TestAsAStrategy:
    def test_the_top_share_goes_and_what_is_not_judged_stays(
        self, planted: Callable[[], Given], tmp_path: Path
    ):
        given = planted()
        pool = write_rows(
            tmp_path / "pool.jsonl",
            [{"prompt": f"Say it {n} ?", "completion": f"Burn burn it burn {n}"} for n in range(9)],
        )
        options = f'scorer="representation_cosine:budget=5",share=0.25,exemplars={pool}'
        strategy = build_strategy(f"row_scorer:{options}")
        strategy.check(given.setting.config)
        selection = strategy.select(given.setting)
        assert selection is not None
        assert selection.is_removed.sum() == 6
        is_planted = np.arange(24) % 4 == 0
        assert (selection.is_removed & is_planted).sum() >= 5
        assert selection.scores is not None
        assert selection.scores[selection.is_removed].min() >= selection.cut.value

    def test_what_scoring_costs_is_counted_and_kept(
        self, planted: Callable[[], Given], monkeypatch: pytest.MonkeyPatch
    ):
        setting = planted().setting
        store = setting.bench.store
        spec = 'row_scorer:scorer="seal:epochs=2",share=0.25'
        first = build_strategy(spec).select(setting)
        assert first is not None
        # As many safe rows as noisy ones in each epoch; the noisy ones are only read in the first.
        assert row_passes(store.counted()) == (1 + 2) * len(setting.noisy)
        assert store.seconds()["row_scores"] > 0.05
        monkeypatch.setattr(Seal, "score", lambda *_: pytest.fail("scored twice"))
        again = build_strategy(spec).select(setting)
        assert again is not None
        assert np.array_equal(again.is_removed, first.is_removed)

    def test_a_scorer_is_another_once_a_file_that_it_reads_has_changed(self, tmp_path: Path):
        path = tmp_path / "contrasts.jsonl"
        spec = f"described_harm:text={path}"
        told: list[str] = []
        for harmful in ("Burn it.", "Burn it.", "Hit it."):
            path.write_text(json.dumps({"harmful": harmful, "harmless": "Leave it."}) + "\n")
            told.append(made_with(build_scorer(spec)))
        assert told[0] == told[1] != told[2]

    def test_a_scorer_is_another_once_its_guard_has_changed(
        self, guards: dict[str, str], tmp_path: Path
    ):
        folder = tmp_path / "guard"
        shutil.copytree(guards["classifier"].partition("=")[2], folder)
        before = made_with(build_scorer(f"classifier:path={folder}"))
        assert made_with(build_scorer(f"classifier:path={folder}")) == before
        weights = folder / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(bytes(data))
        assert made_with(build_scorer(f"classifier:path={folder}")) != before

    @pytest.mark.parametrize("name", sorted(ROW_SCORERS.names()))
    def test_what_a_scorer_was_made_with_is_the_same_each_time(
        self, guards: dict[str, str], name: str
    ):
        spec = f"{name}:{guards[name]}" if name in guards else name
        assert made_with(build_scorer(spec)) == made_with(build_scorer(spec))

    def test_phases_that_a_scorer_asks_for_count_once(self, planted: Callable[[], Given]):
        setting = planted().setting
        spec = 'row_scorer:scorer="gradient_cosine:state=learned",share=0.25'
        build_strategy(spec).select(setting)
        stages = setting.bench.store.counted()
        learned = row_passes([folder for folder in stages if folder.name.startswith("learn")])
        assert learned > 0
        rows = len(setting.noisy) + len(setting.safe)
        assert learned < row_passes(stages) <= learned + rows

    def test_the_bundled_world_gives_exemplars_too(self, planted: Callable[[], Given]):
        given = planted()
        strategy = build_strategy(
            'row_scorer:scorer="representation_cosine:budget=5",share=0.25,exemplars=testbed'
        )
        strategy.check(given.setting.config)
        selection = strategy.select(given.setting)
        assert selection is not None
        assert selection.is_removed.sum() == 6
        assert selection.scores is not None
        assert np.isfinite(selection.scores).all()

    def test_a_row_that_is_not_judged_is_kept(self, planted: Callable[[], Given]):
        given = planted()
        blank = [replace(row, target=" ") for row in given.noisy[:20]]
        setting = replace(given.setting, noisy=[*blank, *given.noisy[20:]])
        selection = build_strategy("row_scorer:scorer=words,share=0.5").select(setting)
        assert selection is not None
        assert selection.is_removed.tolist() == [False] * 20 + [True] * 4
        assert selection.reasons[0] == "not_judged"

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("row_scorer:share=1", "more than 0 and less than 1"),
            ("row_scorer:scorer=nothing", "Unknown row scorer 'nothing'"),
            ("row_scorer:scorer=guard", "Write guard:path=FOLDER"),
            ("row_scorer:scorer=less", "needs 20 exemplars"),
            ("row_scorer:scorer=less,exemplars=nowhere.jsonl", "no file 'nowhere.jsonl'"),
        ],
    )
    def test_what_is_missing_is_said_before_anything_is_loaded(
        self, planted: Callable[[], Given], spec: str, message: str
    ):
        with pytest.raises(ConfigError, match=message):
            build_strategy(spec).check(planted().setting.config)
