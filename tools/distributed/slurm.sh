#!/usr/bin/env bash
# sbatch --nodes=2 --gpus-per-node=8 tools/distributed/slurm.sh --gin_file=gin/imagenet128.gin --run_dir=/shared/runs/imagenet128
#SBATCH --job-name=robgan
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@300
# Five minutes before the time is up each worker gets SIGTERM; they stop with a checkpoint, and the job asks to be
# queued again.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | paste -sd, -)
srun --kill-on-bad-exit=0 bash -c 'exec bash tools/distributed/worker.sh "$0" "$SLURM_PROCID" "$@"' "$hosts" "$@"
status=$?
[ $status = 143 ] && scontrol requeue "$SLURM_JOB_ID"
exit $status
