"""What the command answers to the shell. 3 is what an init script's `status` says of a service that isn't running (LSB)."""

OK, FAILED, USAGE, NOT_RUNNING = 0, 1, 2, 3
