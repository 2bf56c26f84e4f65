"""Pure delivery logic: traffic splits, analysis verdicts, statistics."""
