"""Every pretext task. A config or a weights file names its task's class, which is one of these."""

from virtex.tasks.base import TaskConfig
from virtex.tasks.cappa import CapPaConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.classification import LabelClassificationConfig, TokenClassificationConfig
from virtex.tasks.contrastive import ContrastiveConfig
from virtex.tasks.detection import InstanceSegmentationConfig
from virtex.tasks.masked_lm import MaskedLmConfig
from virtex.tasks.moco import MocoConfig
from virtex.tasks.pirl import PirlConfig

TASKS: tuple[type[TaskConfig], ...] = (
    CaptioningConfig,
    MaskedLmConfig,
    CapPaConfig,
    TokenClassificationConfig,
    LabelClassificationConfig,
    ContrastiveConfig,
    InstanceSegmentationConfig,
    MocoConfig,
    PirlConfig,
)
