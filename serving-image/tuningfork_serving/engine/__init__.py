"""A CPU engine that speaks vLLM's protocol, for development clusters without a GPU: real model, real adapters, shared batches."""


def main() -> None:
    """Entry point of `tuningfork-engine`; imports torch only when run."""
    from tuningfork_serving.engine.app import run

    run()
