#!/bin/bash
# Pretraining on several nodes of a SLURM cluster, which goes on by itself after
# a time limit, a preemption and the death of a process or a node. Copy it,
# change the lines marked <-- and submit it from a folder that all nodes share:
#
#     sbatch slurm.sh RUN --config base --data.root /data/coco
#     CACHE=/local/shards sbatch slurm.sh RUN --config base --data.source webdataset \
#         --data.root MANIFEST

#SBATCH --job-name=virtex
#SBATCH --nodes=2                   # <--
#SBATCH --ntasks-per-node=8         # <-- one for each GPU
#SBATCH --gpus-per-node=8           # <--
#SBATCH --cpus-per-task=8           # <-- the loader's workers, and one
#SBATCH --time=24:00:00             # <--
#SBATCH --requeue
#SBATCH --signal=B:TERM@120         # TERM to this script, 120 s before the limit
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -u
RUN=${1:?give the run folder, on storage that all nodes share, and options of virtex pretrain}
shift
VIRTEX=${VIRTEX:-virtex}            # <-- or its path within your environment
MAX_RESTARTS=${MAX_RESTARTS:-20}    # of the job, and of its step within one job
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# What each node keeps for itself belongs on its own disk, not into RUN.
export TMPDIR=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}
# Cache of shards that lie in a store, on each node's own disk; empty for data in files.
CACHE=${CACHE:-}                    # <-- such as $TMPDIR/shards, or better a disk that outlives a job
# export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0    # <-- if nodes have several networks

step=
stopping=
# shellcheck disable=SC2329  # the trap calls it
stop() {
    stopping=1
    echo "slurm.sh: SIGTERM: the run finishes its step and writes a checkpoint"
    if [ -n "$step" ]; then kill -TERM "$step" 2>/dev/null; fi
}
trap stop TERM

requeue() {
    state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T 2>/dev/null)
    if [ "${state:-RUNNING}" != RUNNING ]; then
        echo "slurm.sh: the job is $state: not back to the queue"
    elif [ "${SLURM_RESTART_COUNT:-0}" -ge "$MAX_RESTARTS" ]; then
        echo "slurm.sh: the job was started again $MAX_RESTARTS times: not once more"
    else
        echo "slurm.sh: back to the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}

for ((restart = 0; restart <= MAX_RESTARTS; restart++)); do
    srun --kill-on-bad-exit=0 --wait=60 "$VIRTEX" pretrain --out "$RUN" "$@" \
        ${CACHE:+--data.cache_dir "$CACHE"} &
    step=$!
    if [ -n "$stopping" ]; then kill -TERM "$step" 2>/dev/null; fi
    wait "$step"
    code=$?
    while kill -0 "$step" 2>/dev/null; do # the signal ended `wait`, not the step
        wait "$step"
        code=$?
    done
    echo "slurm.sh: the step ended with exit code $code"
    case $code in
        0) exit 0 ;;
        143) requeue ;;    # stopped by a signal, after a checkpoint
        75) ;;             # a process lost another one, or the store
        12[89] | 1[3-9]? | 2??) ;; # a process was killed, as the highest code of all says
        *) exit "$code" ;; # an error that a restart would meet again
    esac
    if [ -n "$stopping" ]; then requeue; fi
    echo "slurm.sh: the run goes on from its newest checkpoint"
    sleep "${PAUSE:-10}"
done
exit "$code"
