"""Batch scripts: the options of sbatch, the lines that say them, scripts made from templates. All of it is pure."""
