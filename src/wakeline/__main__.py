"""`python -m wakeline` is `wakeline`."""

from wakeline.cli.main import main

if __name__ == "__main__":
    main()
