"""Check that training works correctly on a device, which `tfscale doctor --device` runs."""
