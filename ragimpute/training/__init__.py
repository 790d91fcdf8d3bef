"""The training loop, losses, schedules, validation and checkpoints."""
