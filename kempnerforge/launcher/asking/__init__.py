"""What Slurm is asked: of the job, of the cluster, and whether a preemption has begun."""
