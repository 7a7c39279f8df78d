package annals

import (
	"sync"
	"time"
)

// clock is the store's time T, in microseconds since 1970, which decides what has
// expired. It starts at the greatest of now and every time that the store has
// recorded, runs on with the monotonic clock, is never behind the wall clock and
// never goes back: a clock that is set back does not bring expired keys back.
type clock struct {
	wall func() time.Time

	mu   sync.Mutex
	base int64     // T ...
	at   time.Time // ... at this moment
	last int64     // the latest T that was given out
}

func newClock(wall func() time.Time, recorded int64) *clock {
	c := &clock{wall: wall, at: wall()}
	c.base = max(c.at.UnixMicro(), recorded)
	return c
}

// now returns T.
func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.wall()
	t := c.base + max(wall.Sub(c.at), 0).Microseconds()
	if micros := wall.UnixMicro(); micros > t {
		c.base, c.at, t = micros, wall, micros
	}
	c.last = max(c.last, t)
	return c.last
}

// expired tells whether a record with this expiry is hidden.
func (c *clock) expired(expires int64) bool { return expires != 0 && c.now() >= expires }

// timeOf is a recorded time for users; the zero time for 0, never.
func timeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros)
}
