"""Narrow clients of what lies outside: Kubernetes, S3, Prometheus, the serving pods."""
