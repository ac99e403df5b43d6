"""Tables of experiments: pretraining runs, their transfer scores, and a table of these."""

from virtex.study.study import PAGE, study
from virtex.study.study_config import Row, Score, StudyConfig, Tuning

__all__ = ["PAGE", "Row", "Score", "StudyConfig", "Tuning", "study"]
