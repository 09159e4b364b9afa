"""What the command answers to the shell. 3: what an init script says of a service that is not running (LSB)."""

OK, FAILED, USAGE, NOT_RUNNING = 0, 1, 2, 3
