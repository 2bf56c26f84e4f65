"""The serving side: router, adapter loader, and a CPU engine that speaks vLLM's protocol."""
