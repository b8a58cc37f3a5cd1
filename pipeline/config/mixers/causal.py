"""The causal mixers by name, which `both_ways` is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.catalogue import collect, union_of
from pipeline.config.mixers.base import *  # noqa: F403
from pipeline.config.mixers.base import Mixer
from pipeline.config.mixers.cells import *  # noqa: F403
from pipeline.config.mixers.matrices import *  # noqa: F403
from pipeline.config.mixers.vectors import *  # noqa: F403
from pipeline.config.mixers.windows import *  # noqa: F403

CAUSAL = {name: kind for name, kind in collect(globals(), Mixer, "recurlab.mixers").items() if kind.causal}
if TYPE_CHECKING:
    AnyCausalMixer = Mixer
else:
    AnyCausalMixer = union_of(CAUSAL)
