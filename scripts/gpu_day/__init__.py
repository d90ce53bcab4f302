"""What a machine with one GPU is asked on the day there is one: scripts/gpu_day.sh --help."""
