"""Memory, time and cost of a run. Pure, no torch."""
