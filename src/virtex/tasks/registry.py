"""Every pretext task. A config or a weights file names its task's class, which is one of these."""

from virtex.tasks.base import TaskConfig
from virtex.tasks.captioning import CaptioningConfig

TASKS: tuple[type[TaskConfig], ...] = (CaptioningConfig,)
