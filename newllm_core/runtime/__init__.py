"""What every long command needs: a device, a precision, progress, a log, a way to stop."""
