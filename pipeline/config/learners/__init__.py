"""Every learner: training algorithms, a module per kind of data, each found by being here; `from pipeline.config.learners import Ppo` names one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.catalogue import collect, pages, union_of
from pipeline.config.learners.acting import *  # noqa: F403
from pipeline.config.learners.base import *  # noqa: F403
from pipeline.config.learners.base import Learner
from pipeline.config.learners.rows import *  # noqa: F403

LEARNERS = collect(pages(__name__), Learner, "recurlab.learners")
if TYPE_CHECKING:
    AnyLearner = Learner
else:
    AnyLearner = union_of(LEARNERS)
