"""Tables of experiments: pretraining runs, their transfer scores, and a table of these."""

from virtex.study.study import study
from virtex.study.study_config import Row, Score, StudyConfig, Tuning

__all__ = ["Row", "Score", "StudyConfig", "Tuning", "study"]
