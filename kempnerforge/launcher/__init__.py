"""The parent side: what stands between Slurm and the training process."""
