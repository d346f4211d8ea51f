"""`python -m mae_cli.cli`: the same as the command `mae`."""

from mae_cli.cli import main

if __name__ == "__main__":
    main()
