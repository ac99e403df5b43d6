#!/bin/bash
# Pretraining on several machines without a scheduler. Start it on every machine
# with the same values; a machine that died may be replaced by another one at
# any time, which starts the same line:
#
#     NNODES=2 RENDEZVOUS=login:29400 ./torchrun.sh RUN --config base --data.root /data/coco
#
# The rendezvous should outlive the machines that train. Serve it on another
# machine, such as a login node, with
#
#     ./torchrun.sh --serve 29400
#
# or name one of the machines: its death then ends torchrun on all of them, and
# this script starts it again when that machine is back.

set -u
if [ "${1:-}" = --serve ]; then
    exec python -c 'import sys, time
from torch.distributed import TCPStore
store = TCPStore("0.0.0.0", int(sys.argv[1]), is_master=True, wait_for_workers=False)
time.sleep(1e9)' "${2:-29400}"
fi
RUN=${1:?give the run folder, on storage that all machines share, and options of virtex pretrain}
shift
NNODES=${NNODES:-2}                  # or 1:2, together with --run.elastic
PROCESSES=${PROCESSES:-gpu}          # of each machine
RENDEZVOUS=${RENDEZVOUS:?give HOST:PORT, alike on all machines}
RESTARTS=${RESTARTS:-5}              # by one torchrun, after failures of its own processes
IDLE=${IDLE:-3}                      # torchruns in a row that bring no new checkpoint
JOB=${JOB:-$(basename "$RUN")}       # another name after you mended an error
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Else torchrun goes on naming the first machine that it saw, though another one
# may have taken its place.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

agent=
stopping=
# shellcheck disable=SC2329  # the trap calls it
stop() {
    stopping=1
    if [ -n "$agent" ]; then kill -TERM "$agent" 2>/dev/null; fi
}
trap stop TERM INT

newest() {
    find "$RUN/checkpoints" -maxdepth 1 -name 'step_*.pt' 2>/dev/null | sort | tail -n 1
}

idle=0
while [ "$idle" -lt "$IDLE" ]; do
    # A torchrun that gives up closes its meeting for all: each start has a new name.
    before=$(newest)
    torchrun --nnodes "$NNODES" --nproc_per_node "$PROCESSES" --max-restarts "$RESTARTS" \
        --rdzv_backend c10d --rdzv_endpoint "$RENDEZVOUS" --rdzv_conf join_timeout=7200 \
        --rdzv_id "$JOB-$(basename "$before" .pt)" -m virtex.cli pretrain --out "$RUN" "$@" &
    agent=$!
    wait "$agent"
    code=$?
    while kill -0 "$agent" 2>/dev/null; do # the signal ended `wait`, not torchrun
        wait "$agent"
        code=$?
    done
    if [ "$code" -eq 0 ] || [ -n "$stopping" ]; then exit "$code"; fi
    if [ "$(newest)" = "$before" ]; then idle=$((idle + 1)); else idle=0; fi
    echo "torchrun.sh: torchrun ended with exit code $code"
    sleep "${PAUSE:-10}"
done
echo "torchrun.sh: $IDLE torchruns brought no new checkpoint: the error is above"
exit "$code"
