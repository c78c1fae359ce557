#!/bin/sh
#SBATCH --job-name=cxr-trt
#SBATCH --array=1-100
#SBATCH --cpus-per-task=4
#SBATCH --requeue
# Scores a hundredth of a list in each task of a job array: sbatch slurm.sh
# A task that is started again scores only the shards that it had not finished.
cxr-trt score run/list -e mine.cxr -o run/parts --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --progress lines
