"""Labelled noisy sets from real files: harms and tasks mixed at a known unsafe fraction.

`make_mix` draws, `write_mix` writes, `describe` says what was drawn and under which licences. The
rows hold offensive and harmful text on purpose: they serve to test filters.
"""

from forgetfilter.lab.mix.mixing import Mix, MixSettings, make_mix
from forgetfilter.lab.mix.outputs import describe, write_mix
from forgetfilter.lab.mix.sources import data_folder

__all__ = ["Mix", "MixSettings", "data_folder", "describe", "make_mix", "write_mix"]
