"""Every task, a module per family, each found by being here; `from pipeline.config.tasks import Copy` names one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.catalogue import collect, pages, union_of
from pipeline.config.tasks.base import *  # noqa: F403
from pipeline.config.tasks.base import Task
from pipeline.config.tasks.control import *  # noqa: F403
from pipeline.config.tasks.memory import *  # noqa: F403
from pipeline.config.tasks.puzzles import *  # noqa: F403
from pipeline.config.tasks.retrieval import *  # noqa: F403
from pipeline.config.tasks.symbols import *  # noqa: F403

TASKS = collect(pages(__name__), Task, "recurlab.tasks")
if TYPE_CHECKING:
    AnyTask = Task
else:
    AnyTask = union_of(TASKS)
