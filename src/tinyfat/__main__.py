"""`python -m tinyfat` is the command `tinyfat`."""

from tinyfat.cli.main import main

if __name__ == "__main__":
    main()
