"""python -m tfscale.cli: the same as `tfscale`."""

from tfscale.cli.main import main

main()
