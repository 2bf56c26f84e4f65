"""The demo: from an empty cluster to a bad model rolled back, on a real model and real data."""
