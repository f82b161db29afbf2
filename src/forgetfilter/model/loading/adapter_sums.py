"""Stored LoRA adapters as updates of weights that can be scaled, added and reduced in rank.

An adapter stands for one update ``scale * B @ A`` for each weight that it changes; A is (r, in), B
(out, r), and scale is alpha / r.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetfilter.errors import ModelError

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class StoredAdapter:
    """The updates of a stored adapter, in float32, by the name of the weight."""

    folder: Path
    """Where its configuration comes from."""
    scale: float
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    """A (r, in) and B (out, r)."""

    @classmethod
    def read(cls, folder: str | Path) -> StoredAdapter:
        """The adapter in ``folder``.

        Raises:
            ModelError: it changes the experts of a mixture, whose updates are no plain products.
        """
        from safetensors.torch import load_file

        config = _config(Path(folder))
        if config.get("target_parameters"):
            raise ModelError(
                f"The adapter in {folder} changes experts of a mixture, which can't be added up "
                "here. Expected an adapter on linear layers. Use --set lora.targets=attention_qv."
            )
        found = {name: value.float() for name, value in load_file(Path(folder, _WEIGHTS)).items()}
        names = [name.removesuffix(_A) for name in found if name.endswith(_A)]
        pairs = {name: (found[name + _A], found[name + _B]) for name in names}
        return cls(Path(folder), config["lora_alpha"] / config["r"], pairs)

    def write(self, folder: Path) -> None:
        """Store it as PEFT reads it, in a folder that is not there or empty."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.is_file() and path.name != _WEIGHTS:
                shutil.copy(path, folder / path.name)
        rank = next(iter(self.pairs.values()))[0].shape[0]
        config = {**_config(self.folder), "r": rank, "lora_alpha": self.scale * rank}
        (folder / _CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        tensors = {
            name + end: value.contiguous()
            for name, pair in self.pairs.items()
            for end, value in zip((_A, _B), pair, strict=True)
        }
        save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})

    def updates(self) -> dict[str, Tensor]:
        """What each weight is changed by, (out, in)."""
        return {name: self.scale * b @ a for name, (a, b) in self.pairs.items()}

    def scaled(self, weight: float) -> StoredAdapter:
        """``weight`` times the updates."""
        return self._with(lambda _, a, b: (a, weight * b))

    def plus(self, other: StoredAdapter) -> StoredAdapter:
        """The sum of the updates of two adapters of the same weights; its rank is their sum."""
        ratio = other.scale / self.scale

        def join(name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            other_a, other_b = other.pairs[name]
            return torch.cat([a, other_a]), torch.cat([b, ratio * other_b], dim=1)

        return self._with(join)

    def reduced(self, rank: int) -> StoredAdapter:
        """Each update projected on its first ``rank`` left singular directions."""

        def project(name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            # Of the product through its thin factors: the update itself may be large.
            q_b, r_b = torch.linalg.qr(b.double())
            _, r_a = torch.linalg.qr(a.double().T)
            u, _, _ = torch.linalg.svd(r_b @ r_a.T)
            directions = q_b @ u[:, :rank]  # (out, rank)
            return a, (directions @ (directions.T @ b.double())).float()

        return self._with(project)

    def _with(
        self, change: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> StoredAdapter:
        pairs = {name: change(name, a, b) for name, (a, b) in self.pairs.items()}
        return StoredAdapter(self.folder, self.scale, pairs)


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
