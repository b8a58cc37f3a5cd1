"""Every task, one page per family; here they come together under one name: `from pipeline.config.tasks import Copy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.catalogue import collect, union_of
from pipeline.config.tasks.base import *  # noqa: F403
from pipeline.config.tasks.base import Task
from pipeline.config.tasks.control import *  # noqa: F403
from pipeline.config.tasks.memory import *  # noqa: F403
from pipeline.config.tasks.retrieval import *  # noqa: F403
from pipeline.config.tasks.symbols import *  # noqa: F403

TASKS = collect(globals(), Task, "recurlab.tasks")
if TYPE_CHECKING:
    AnyTask = Task
else:
    AnyTask = union_of(TASKS)
