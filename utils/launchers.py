"""Whether something has started this process as one of several."""

import os


def is_launched() -> bool:
    """Whether this is one of several processes that torch's elastic agent (torchrun) or srun has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ or slurm_step("NUM_TASKS") > 1


def slurm_step(name: str, default: int = 0) -> int:
    """What srun tells the tasks of a step; a job's own script runs in no step."""
    return int(os.environ.get(f"SLURM_STEP_{name}", default))
