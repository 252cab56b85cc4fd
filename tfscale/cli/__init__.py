"""The command line. Any function here raises UserFault for a request that cannot be carried out, with all faults that
were found; `tfscale.cli.errors` prints them."""
