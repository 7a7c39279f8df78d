//go:build !windows

package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// catchBrokenPipe makes writing to a pipe that nobody reads an error instead of
// the end of the process, so that a store that is being written is closed first.
// The signal is caught, not ignored: child processes would inherit the latter.
func catchBrokenPipe() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
