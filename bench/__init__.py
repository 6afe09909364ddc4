"""Programs that print ratios against peers run beside us: `python -m bench`, `make bench`."""
