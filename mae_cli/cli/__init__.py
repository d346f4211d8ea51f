"""Command line: parses, calls one function of a lower package, prints one line."""


def main() -> None:
    """Entry point of the `mae` command; see `app.py`."""
    from mae_cli.cli.app import main as run_command_line

    run_command_line()
