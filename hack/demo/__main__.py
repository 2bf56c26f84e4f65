"""`make demo`: everything from nothing, then the main job end to end, and what happened."""

import argparse
import subprocess
import sys
import time
from contextlib import ExitStack

from demo import scenario, summary
from demo.environment import ROOT, CommandError
from demo.story import Story


def main() -> int:
    """0 when all of it happened."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--images", choices=("thin", "real"), default="thin")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    args = parser.parse_args()
    story = Story()
    try:
        run(story, args.images)
    except (scenario.NotShown, CommandError, TimeoutError, subprocess.SubprocessError) as error:
        story.console.print(f"\n[bold red]The demo stopped:[/bold red] {error}", soft_wrap=True)
        story.console.print(
            "Everything is left running. Look with KUBECONFIG=.cluster/kubeconfig: kubectl get tuningfork,pods -n ml; "
            "kubectl logs -n tuningfork-system deploy/tuningfork. `make cluster-down` removes it."
        )
        return 1
    if args.keep:
        story.console.print("Everything is left running; `make cluster-down` removes it.")
    else:
        subprocess.run([sys.executable, ROOT / "hack" / "cluster", "down"], check=True)
    return 0


def run(story: Story, images: str) -> None:
    """The chapters in order."""
    shown = scenario.Shown()
    with ExitStack() as stack:
        env = scenario.start_cluster(story)
        scenario.bring_model_and_data(story, env)
        scenario.install_operator(story, env, images)
        scenario.first_version(story, env, shown, stack)
        scenario.better_version(story, env, shown)
        scenario.bad_version(story, env, shown)
        story.chapter("What is proven")
        summary.check_dashboard(story, env)
        summary.check_argo(story, shown, summary.model_versions(env))
    summary.check_users(story, shown)
    summary.print_tables(story, env, shown)
    story.console.print(f"The demo took {(time.monotonic() - story.started) / 60:.1f} minutes.")


if __name__ == "__main__":
    sys.exit(main())
