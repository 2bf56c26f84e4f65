"""The trainer: fetch, prepare, train, evaluate, export. The same code in a pod and on a laptop."""
