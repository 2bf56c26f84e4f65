"""The adapter loader: keeps an engine's adapters equal to what the Rollout declares, and proves what it loaded."""


def main() -> None:
    """Entry point of `tuningfork-loader`."""
    from tuningfork_serving.loader.app import run

    run()
