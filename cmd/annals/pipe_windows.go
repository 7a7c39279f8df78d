package main

import (
	"errors"
	"syscall"
)

// catchBrokenPipe does nothing: Windows has no signal for it.
func catchBrokenPipe() {}

func isBrokenPipe(err error) bool {
	const errorNoData = syscall.Errno(232) // "the pipe is being closed"
	return errors.Is(err, syscall.ERROR_BROKEN_PIPE) || errors.Is(err, errorNoData)
}
