"""Speed and memory on this machine: `tfscale bench`."""
