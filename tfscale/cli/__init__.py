"""Command line of tfscale. If the user's request is invalid, the functions of this package raise UserFault with all
faults, and `tfscale.cli.streams.in_words` prints each fault as an error."""
