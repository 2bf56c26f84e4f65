"""TuningFork: from data to a better model in production, and never a worse one."""
