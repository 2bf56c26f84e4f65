"""The runtime: watch, store, queue, reconcile, apply; leader election, intake, health, metrics."""
