"""Screen with what an ordinary training run has learned: a callback for TRL and transformers.

``SFTTrainer(..., callbacks=[record_training("recorded")])`` records a run; then ``forgetfilter
screen rows.jsonl --model MODEL --learned-from recorded --signal restoration`` restores, scores and
decides, and learns nothing again. See docs/integrations/trl.md.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.reading import read_sources
from forgetfilter.data.tokens.encoding import loss_labels
from forgetfilter.errors import ConfigError, RunExistsError
from forgetfilter.places import require_writable_folder
from forgetfilter.runs.recording import RECORD_FILE, UNFINISHED_FILE
from forgetfilter.screening.inputs.opening import (
    nothing_to_score,
    open_input,
    reading_of,
    with_data,
)
from forgetfilter.text import printable

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback

_EARLY_EPOCHS = 2.0


def record_training(
    output_dir: str | Path,
    *,
    model: str | Path | None = None,
    early_epochs: float = _EARLY_EPOCHS,
    overwrite: bool = False,
) -> TrainerCallback:
    """A callback that records a training run, so that a screen need not learn its rows again.

    It reads each row's loss from the training's own forward passes, keeps the adapter after the
    first passes and at the end, and changes nothing of the training. A trainer's events don't show
    it the batches, so it looks at the model's inputs and outputs by a forward hook.

    Args:
        output_dir: folder of the recording; ``learned_from`` of a screen.
        model: folder or hub id of the base model, where the model in training doesn't know it.
        early_epochs: the adapter is also kept after so many passes over the rows (half way, where
            training may be shorter than twice that), for signals that restore from there.
        overwrite: replace an earlier recording once training begins.

    Raises:
        ConfigError: ``early_epochs`` is not above 0.
        RunExistsError: the folder holds other files or a recording, or can't be written to.

    Training itself raises, before its first step:
        DataError: it goes on from a checkpoint.
        ModelError: it has no plain LoRA adapter on a base model in full precision, or no process
            has the whole model (FSDP, DeepSpeed).
    """
    from transformers.trainer_callback import TrainerCallback

    from forgetfilter.model.recorded.recorder import Recorder

    folder = Path(output_dir)
    if not early_epochs > 0:
        raise ConfigError(
            f"early_epochs is {early_epochs}; expected passes over the rows, above 0. Leave it out "
            f"for {_EARLY_EPOCHS:g}."
        )
    require_writable_folder(folder, "output_dir")
    _refuse_other_files(folder, overwrite=overwrite)
    recorder = Recorder(folder, None if model is None else str(model), early_epochs)

    class RecordTraining(TrainerCallback):
        """Reports a trainer's events to the recorder."""

        def on_train_begin(
            self,
            args: Any,
            state: Any,
            control: Any,
            model: Any = None,
            processing_class: Any = None,
            train_dataloader: Any = None,
            **_: Any,
        ) -> None:
            recorder.begin(model, args, state, train_dataloader, processing_class)

        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
        ) -> None:
            recorder.end_step(model, state.global_step)

        def on_train_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
        ) -> None:
            recorder.end(model, state.global_step)

    return RecordTraining()


def training_dataset(
    noisy_data: Any,
    model: str | Path,
    *,
    loss_on: Literal["assistant", "all"] = "assistant",
    **settings: Any,
) -> Dataset:
    """Rows of any readable format as ``input_ids`` and ``labels``, as a screen tokenises them.

    SFTTrainer trains on such a data set as it is; give it ``max_length=None``, or it cuts long
    rows. For rows in ``messages`` under a common chat template its own tokens are the same.

    Args:
        noisy_data: a file, a pattern, ``hub:owner/name``, a list of these, a `datasets.Dataset`, a
            DataFrame, or a list of dictionaries.
        model: folder or hub id of the model.
        loss_on: which tokens carry loss: those of the answers, or all.
        settings: other fields of `ScreenConfig` on which tokens depend, such as ``template``,
            ``reading`` or ``max_length_tokens``.

    Raises:
        ConfigError: an unknown setting, or a wrong value.
        DataError: the rows can't be read, or none of them can be learned.
        ModelError: the model or its tokenizer can't be used.
    """
    from datasets import Dataset

    from forgetfilter.data.tokens.template_process import stop_worker
    from forgetfilter.model.loading.base_model import load_tokenizer
    from forgetfilter.model.loading.encoders import open_encoder

    if loss_on not in ("assistant", "all"):
        raise ConfigError(f"loss_on is {loss_on!r}; expected assistant or all. Choose one of them.")
    paths, data = with_data({"model": str(model), "output_dir": ""}, noisy_data)
    config = resolve(ScreenConfig, settings, paths)
    file = read_sources(open_input(config, data), reading_of(config.reading))
    encoder = open_encoder(
        config.model,
        load_tokenizer(config.model, config.trust_remote_code),
        template=config.template,
        max_length_tokens=config.max_length_tokens,
        trust_remote_code=config.trust_remote_code,
        today=date.today(),
    )
    rows, unfit = encoder.encode(file.rows)
    stop_worker()
    if not rows:
        raise nothing_to_score(len(file), sorted((*file.rejected, *unfit), key=lambda row: row.row))
    return Dataset.from_dict(
        {
            "input_ids": [row.input_ids for row in rows],
            "labels": [loss_labels(row, loss_on) for row in rows],
        }
    )


def _refuse_other_files(folder: Path, *, overwrite: bool) -> None:
    """Raise unless the folder is empty, or a recording that may be replaced."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    shown = printable(str(folder), 300)
    is_whole = (folder / RECORD_FILE).exists()
    if not is_whole and not (folder / UNFINISHED_FILE).exists():
        raise RunExistsError(
            f"{shown!r} holds files that are no recording. Expected a new or empty folder, or that "
            "of an earlier recording. Choose another output_dir."
        )
    if is_whole and not overwrite:
        raise RunExistsError(
            f"{shown!r} holds a recorded training. Expected a new or empty folder. Choose another "
            "output_dir, or give overwrite=True to replace it once training begins."
        )
