"""Every mixer a network can be made of, one module per kind of state, all importable from here: `from pipeline.config.mixers import Lstm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.catalogue import collect, union_of
from pipeline.config.mixers.base import *  # noqa: F403
from pipeline.config.mixers.base import Mixer
from pipeline.config.mixers.causal import AnyCausalMixer as AnyCausalMixer
from pipeline.config.mixers.cells import *  # noqa: F403
from pipeline.config.mixers.grids import *  # noqa: F403
from pipeline.config.mixers.matrices import *  # noqa: F403
from pipeline.config.mixers.vectors import *  # noqa: F403
from pipeline.config.mixers.windows import *  # noqa: F403

MIXERS = collect(globals(), Mixer, "recurlab.mixers")
if TYPE_CHECKING:
    AnyMixer = Mixer
else:
    AnyMixer = union_of(MIXERS)
