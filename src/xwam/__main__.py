"""`python -m xwam` is `xwam`."""

from xwam.cli import main

if __name__ == "__main__":
    main()
