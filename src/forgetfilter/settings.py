"""What all settings have in common, and their groups: reading, adapter, phases, generation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Settings(BaseModel):
    """Base of all settings: frozen, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReadingSettings(Settings):
    """How the rows of ``noisy_data`` are read."""

    format: str = Field(
        default="auto", description="a row format's name, or auto: whichever fits each row"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="a column's usual name and the file's own, such as prompt: frage; with an "
        "empty name the column is not read",
    )
    dataset_info: str | None = Field(
        default=None, description="FILE:NAME, an entry of LLaMA-Factory's dataset_info.json"
    )
    axolotl: str | None = Field(
        default=None, description="FILE or FILE:NUMBER, an entry of an axolotl file's datasets"
    )
    max_malformed: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of rows that may be broken JSON, no UTF-8 or have lost fields; more "
        "stop the screen before a model is loaded",
    )


class LoraSettings(Settings):
    """The adapter that the learn, forget and retrain phases train."""

    r: int = Field(default=16, ge=1, description="rank of the LoRA matrices")
    alpha: int = Field(
        default=32, ge=1, description="LoRA scale; updates are multiplied by alpha / r"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: Literal["all_linear", "attention_qv"] = Field(
        default="all_linear",
        description="all_linear: every linear layer but the output layer; attention_qv: query and "
        "value projections, or the fused projection where an architecture has one",
    )


class PhaseSettings(Settings):
    """How one phase (learn, forget or retrain) is trained."""

    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="peak learning rate; null = 2e-4 * (4096 / hidden_size)^0.25, or ^0.75 for a "
        "model less than 512 wide",
    )
    num_train_epochs: float | None = Field(
        default=None,
        gt=0,
        description="passes over the rows, at most with stop: learned; null: 3, 12 below 512 wide",
    )
    stop: Literal["learned", "epochs"] = Field(
        default="learned",
        description="learned: once neither the learned share nor the share learned to the letter "
        "rises by a point over an epoch (from the second on), half as many epochs again bring the "
        "learning rate to zero; epochs: after num_train_epochs",
    )
    max_steps: int | None = Field(
        default=None, ge=1, description="optimizer steps; where given it overrides num_train_epochs"
    )
    batch_size: int = Field(default=16, ge=1, description="rows per optimizer step (effective)")
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = Field(
        default="linear",
        description="course of the learning rate after the warm-up; not used with stop: learned, "
        "where it stays level until the share of learned rows no longer rises",
    )
    warmup_ratio: float = Field(
        default=0.03,
        ge=0,
        lt=1,
        description="share of the steps spent warming up; of the first epoch's with stop: learned",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW weight decay")
    max_grad_norm: float = Field(default=1.0, ge=0, description="gradient clipping; 0 = off")
    loss_on: Literal["assistant", "all"] = Field(
        default="assistant", description="tokens that carry loss: assistant turns, or all tokens"
    )

    @property
    def ends_on_evidence(self) -> bool:
        """Whether the number of steps is found out in training."""
        return self.stop == "learned" and self.max_steps is None


class LearnSettings(PhaseSettings):
    """How the learn phase is trained; retraining takes the same settings, on all that is kept."""

    early_epochs: float = Field(
        default=2,
        gt=0,
        description="the adapter is also kept after so many passes (half way, where the phase may "
        "be shorter than twice that); signals that restore start there",
    )
    max_rows: int | None = Field(
        default=None,
        ge=16,
        description="learn at most so many rows, drawn by the seed, and score all; null = learn "
        "all. Retraining takes all kept rows. Fewer rows cost less and find less: "
        "docs/benchmarks.md",
    )

    keep_losses: bool = Field(
        default=False,
        description="take what the learn phase sees of each row in its first and in its last pass "
        "for the row's loss in the base and in the learned model, and read neither: two readings "
        "of all rows are saved, and scores differ a little (docs/benchmarks.md)",
    )

    @property
    def keeps_losses(self) -> bool:
        """Whether the losses of rows need not be read; of a sample alone they would not do."""
        return self.keep_losses and self.max_rows is None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Stages and runs are named as they were before these could be asked for."""
        added = ("max_rows", "keep_losses")
        plain = handler(self)
        return {name: value for name, value in plain.items() if name not in added or value}


class LoadSettings(Settings):
    """How the base model is held in memory; its weights never change."""

    bits: Literal[4, 8] | None = Field(
        default=None,
        description="hold the base model's linear layers in 4 (NF4) or 8 bits (bitsandbytes); "
        "null = whole. Scores are those of the model that this makes",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="make layers again in the backward pass instead of keeping what they gave: a "
        "third more time, much less memory",
    )
    device_map: str | None = Field(
        default=None,
        description="auto, balanced or sequential: spread the base model over several GPUs, and "
        "what they don't hold over the CPU's memory; null = one device",
    )

    @property
    def stays_put(self) -> bool:
        """Whether the model lies where it was loaded and can't be moved as a whole."""
        return self.bits is not None or self.device_map is not None


class RestoreSettings(Settings):
    """How safe behaviour is restored, for signals that look at what this undoes."""

    steps: int = Field(default=16, ge=1, description="gradient steps, each a Polyak step")
    early_steps: int = Field(
        default=8, ge=1, description="the same from the early model, which has less to undo"
    )
    batch_size: int = Field(default=4, ge=1, description="safe rows per step")
    set_aside: bool = Field(
        default=True,
        description="restore once more without the safe rows that restoring undoes, as it does "
        "unsafe rows",
    )

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Stages and runs are named as they were before rows could be set aside."""
        plain = handler(self)
        return {name: value for name, value in plain.items() if name != "set_aside" or not value}


class GenerationSettings(Settings):
    """Greedy generation for signals that compare texts, and for the report's evidence."""

    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="null = the row's own target length plus a quarter, at least 16",
    )
