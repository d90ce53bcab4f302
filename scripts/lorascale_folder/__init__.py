"""A folder of pictures and a configuration of another trainer's style: what to prepare, and whether that is done."""
