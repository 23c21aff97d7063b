"""Random schedules of faults: what is done to runs of the command, and what must hold whatever is done to them."""
