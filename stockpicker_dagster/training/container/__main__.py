"""`python -m stockpicker_dagster.training.container train|serve|compute`: what the image's entry point starts."""

import sys

from stockpicker_dagster.training.container.layout import Layout

USAGE = "usage: python -m stockpicker_dagster.training.container train|serve|compute"


def main(arguments: list[str]) -> int:
    """Runs the role that is named; the exit code is 2 for any other."""
    if arguments == ["train"]:
        from stockpicker_dagster.training.container.train import train

        return train(Layout.of_environment())
    if arguments == ["serve"]:
        from stockpicker_dagster.training.container.serve import serve

        return serve(Layout.of_environment())
    if arguments == ["compute"]:
        from stockpicker_dagster.training.container.compute import compute

        return compute(Layout.of_environment())
    sys.stderr.write(f"{USAGE}; given: {' '.join(arguments) or 'nothing'}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
