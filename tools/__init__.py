"""What the Makefile calls: set-up, the browser, serving, the lock file."""
