"""Base models in 4 or 8 bits, and spread over devices: what is asked of transformers for it."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError
from forgetfilter.settings import LoadSettings

if TYPE_CHECKING:
    from forgetfilter.model.loading.placement import Placement

WHOLE_HERE = LoadSettings()
"""The model whole and on one device."""


def check_loadable(settings: LoadSettings, *, is_gguf: bool) -> None:
    """See that a model can be loaded as ``settings`` say, before seconds go into trying.

    Raises:
        ConfigError: bitsandbytes isn't installed, or a GGUF file is to be loaded otherwise.
    """
    if is_gguf and settings.stays_put:
        raise ConfigError(
            "A GGUF file is loaded whole and on one device, and loading.bits or loading.device_map "
            "is set. Expected one or the other. Leave the setting out, or name a folder with "
            "*.safetensors."
        )
    if settings.bits is not None and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"loading.bits is {settings.bits}, and bitsandbytes is not installed. Expected the "
            "library that holds weights in fewer bits. pip install 'forgetfilter[bits]', or leave "
            "loading.bits out."
        )


def loaded_as(settings: LoadSettings, placement: Placement) -> dict[str, Any]:
    """What ``from_pretrained`` is asked for beside the format of numbers."""
    asked: dict[str, Any] = {}
    if settings.device_map is not None:
        asked["device_map"] = settings.device_map
    if settings.bits is None:
        return asked
    from transformers import BitsAndBytesConfig

    # At every product it says again that it is a product in 8 bits.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

    if settings.bits == 8:
        chosen = BitsAndBytesConfig(load_in_8bit=True)
    else:
        chosen = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=placement.dtype,
        )
    return {"device_map": {"": placement.device}, **asked, "quantization_config": chosen}
