"""What would lose a run: what the cluster does to a job, and what is in its script. Only `cluster` asks Slurm."""
