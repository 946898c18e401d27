"""`python -m eo_batch.cli`, which torchrun starts as a module."""

from eo_batch.cli.app import main

if __name__ == "__main__":
    main()
