"""`python -m mae_cli.cli`: the same as the command `mae`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python looks into the working directory first: a user's queue.py or types.py must not stand for a library's.
        # Where it is last, the user's own plugins are still found there.
        sys.path.append(sys.path.pop(0))
    from mae_cli.cli import main

    main()
