"""The `pipeline` command, also as `python -m pipeline`."""

from __future__ import annotations

from pipeline.environment_variables import clean_environment


def main() -> None:
    """Clean the environment, before anything heavy is imported, and run the command line."""
    clean_environment()
    from pipeline.cli import main as run

    run()


if __name__ == "__main__":
    main()
