"""Entry point of `tfscale` and `python -m tfscale.cli`."""

from tfscale.import_path import leave_working_folder

leave_working_folder()  # before imports that a file in the working folder could replace

from tfscale.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
