package system

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// execLimited becomes the command args[1:] that can't make a file larger than
// args[0] bytes. A write across that limit is cut off there, to the byte, and the
// next one fails.
func execLimited(args []string) error {
	limit, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	os.Unsetenv(roleEnv)
	return syscall.Exec(args[1], args[1:], os.Environ())
}

// Writes that are cut short after every number of bytes: what was acknowledged is
// there, no fragment of a batch is, and the next run goes on.
func TestShortWritesLeaveNoFragment(t *testing.T) {
	rnd := seeded(t)
	const first, last = 480, 1800 // LOCK alone needs 528 bytes
	list := sample(rnd, *limits, last-first)
	self, err := os.Executable()
	require.NoError(t, err)
	var cut, short, whole atomic.Int64
	inParallel(t, rnd, len(list), func(t *testing.T, i int, rnd *rand.Rand) {
		limit, h := first+list[i]-1, newHistory(rnd)
		defer func() {
			if t.Failed() {
				t.Logf("with a limit of %d bytes", limit)
			}
		}()
		dir := filepath.Join(t.TempDir(), "store")
		o, _ := load{dir: dir, binary: plain, commits: 1, small: true}.run(t, h) // a store that is there
		require.Zero(t, o.code, o.stderr)
		policy := []string{"always", "always", "5ms", "never"}[rnd.IntN(4)]
		l := load{dir: dir, args: []string{"--sync", policy}, wrap: []string{self, strconv.Itoa(limit)}, env: []string{roleEnv + "=limited"}, commits: 8, small: true, window: 5}
		o, acked := l.run(t, h)
		switch {
		case o.code == 0:
			whole.Add(1)
			require.Equal(t, h.known, h.ops())
		default:
			o.failed(t, "file too large")
			cut.Add(1)
			if acked > 0 {
				short.Add(1)
			}
		}
		h.goesOn(t, dir)
		require.NoError(t, os.RemoveAll(filepath.Dir(dir)))
	})
	t.Logf("%d limits: %d stopped the load, %d of them after something was acknowledged; %d did not matter", len(list), cut.Load(), short.Load(), whole.Load())
	require.Positive(t, short.Load())
}
