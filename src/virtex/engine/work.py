"""What the processes of a run share, by its options."""

from virtex.engine.run import RunConfig
from virtex.processes import LEAST_SHARE, Work


def work_of_run(run: RunConfig, *, began_with: int | None = None) -> Work:
    """Return what the processes of a training share.

    Args:
        began_with: Number of processes of the run that is resumed.
    """
    return Work(
        device=run.device,
        batch_size=run.batch_size,
        num_pieces=run.accumulation_steps,
        least_share=1 if run.sync_batch_norm else LEAST_SHARE,
        began_with=began_with,
    )
