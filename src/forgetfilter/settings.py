"""What all settings have in common, and the settings on how rows are read and texts generated."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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


class GenerationSettings(Settings):
    """Greedy generation for signals that compare texts, and for the report's evidence."""

    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="null = the row's own target length plus a quarter, at least 16",
    )
