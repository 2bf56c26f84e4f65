"""The router: who gets which version, where it is answered, and how it ended. It keeps serving when all else is gone."""


def main() -> None:
    """Entry point of `tuningfork-router`."""
    from tuningfork_serving.router.app import run

    run()
