package main

import (
	"errors"
	"slices"

	"github.com/annalsdb/annals"
)

// isFull reports whether a write failed only for want of room: nothing of it was
// made, and the same write succeeds once there is room.
func isFull(err error) bool {
	return err != nil && !errors.Is(err, annals.ErrFailed) &&
		slices.ContainsFunc(fullErrors, func(full error) bool { return errors.Is(err, full) })
}
