"""Every pretext task by its name: the class of its options, and what the name fixes."""

from virtex.options.choices import Choice, register
from virtex.tasks.base import TaskConfig
from virtex.tasks.cappa import CapPaConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.classification import LabelClassificationConfig, TokenClassificationConfig
from virtex.tasks.contrastive import ContrastiveConfig
from virtex.tasks.detection import InstanceSegmentationConfig
from virtex.tasks.locca import LocCaConfig
from virtex.tasks.masked_lm import MaskedLmConfig
from virtex.tasks.moco import MocoConfig
from virtex.tasks.pirl import PirlConfig
from virtex.tasks.prefix_lm import PrefixLmConfig
from virtex.tasks.self_critical import SelfCriticalConfig

TASKS: dict[str, Choice] = {
    "bicaptioning": Choice(CaptioningConfig, {"bidirectional": True}),
    "captioning": Choice(CaptioningConfig, {"bidirectional": False}),
    "masked_lm": Choice(MaskedLmConfig, {"masked_words": "tokens"}),
    "icmlm": Choice(MaskedLmConfig, {"masked_words": "concepts"}),
    "cappa": Choice(CapPaConfig),
    "locca": Choice(LocCaConfig),
    "prefix_lm": Choice(PrefixLmConfig),
    "self_critical": Choice(SelfCriticalConfig),
    "token_classification": Choice(TokenClassificationConfig, {"idf": False}),
    "superclass": Choice(TokenClassificationConfig, {"idf": True}),
    "label_classification": Choice(LabelClassificationConfig),
    "clip": Choice(ContrastiveConfig, {"loss": "softmax"}),
    "superclip": Choice(
        ContrastiveConfig, {"loss": "softmax", "token_weight": 1.0, "token_idf": True}
    ),
    "siglip": Choice(ContrastiveConfig, {"loss": "sigmoid"}),
    "instance_segmentation": Choice(InstanceSegmentationConfig),
    "moco": Choice(MocoConfig),
    "pirl": Choice(PirlConfig),
}

SHARED = ("head", "text", "regions", "embedding_size", "original")
"""Options of a recipe that stay when another task is named."""

register(TaskConfig, TASKS, shared=SHARED)
