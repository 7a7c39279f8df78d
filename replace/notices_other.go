//go:build !linux

package replace

import "time"

// Nap sleeps for a short while.
func Nap(d time.Duration) { time.Sleep(d) }
