package annals

import (
	"sync"
	"time"

	"github.com/annalsdb/annals/segment"
)

// clock is the store's time T, in microseconds since 1970, which decides what has
// expired. It starts at the greatest of now and every time that the store has
// recorded, runs on with the monotonic clock, is never behind the wall clock and
// never goes back: a clock that is set back does not bring expired keys back.
type clock struct {
	wall   func() time.Time
	begun  time.Time
	before int64 // the latest time that earlier sessions recorded

	mu   sync.Mutex
	base int64     // T ...
	at   time.Time // ... at this moment
	last int64     // the latest T that was given out
}

func newClock(wall func() time.Time, recorded int64) *clock {
	c := &clock{wall: wall, begun: wall(), before: recorded}
	c.at, c.base = c.begun, max(c.begun.UnixMicro(), recorded)
	return c
}

// maxClock is the latest T: a wall clock beyond it must not make us write a time
// that nobody can read.
const maxClock = segment.MaxTime - 1

// now returns T.
func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.wall()
	t := c.base + max(wall.Sub(c.at), 0).Microseconds()
	if micros := wall.UnixMicro(); micros > t {
		c.base, c.at, t = micros, wall, micros
	}
	c.last = min(max(c.last, t), maxClock)
	return c.last
}

// raise takes in a time that the store has recorded meanwhile.
func (c *clock) raise(recorded int64) {
	t := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if recorded > t {
		c.base, c.at = recorded, c.wall()
	}
}

// trusted returns the time by which expired bytes may be destroyed. T alone will
// not do: it is wrong for as long as the wall clock is far ahead. What earlier
// sessions recorded, and the time since by the monotonic clock, does; the wall
// clock itself only after it has been so for the length of grace.
func (c *clock) trusted(grace time.Duration) int64 {
	wall := c.wall()
	since := max(wall.Sub(c.begun), 0)
	if since > grace {
		return min(c.now(), wall.UnixMicro())
	}
	return min(c.now(), wall.UnixMicro(), c.before+since.Microseconds())
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
