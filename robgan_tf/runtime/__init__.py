"""What a run needs from the machine: devices, precision, files, logs."""
