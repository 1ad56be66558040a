"""``python -m orlop``: the same as the command ``orlop``."""

from orlop.cli.main import main

if __name__ == "__main__":
    main(prog_name="orlop")
