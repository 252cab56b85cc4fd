"""Command line of tfscale. If a request cannot be carried out, the functions of this package raise UserFault with all
faults, and `tfscale.cli.streams` prints the faults."""
