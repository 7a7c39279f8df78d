package system

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A load that is killed at any moment loses nothing that it acknowledged, and
// leaves the state after some prefix of what it was given. Some rounds also kill a
// compaction, which must change nothing, whatever it got to. The page cache
// survives a SIGKILL, so this proves atomicity and recovery, not that syncs are made.
func TestKilledLoadLosesNothing(t *testing.T) {
	rnd := seeded(t)
	const roundsPerStore = 15 // enough to recover what was recovered, and to compact
	var acked, compactions atomic.Int64
	inParallel(t, rnd, (*rounds+roundsPerStore-1)/roundsPerStore, func(t *testing.T, _ int, rnd *rand.Rand) {
		dir, h := filepath.Join(t.TempDir(), "store"), newHistory(rnd)
		for range roundsPerStore {
			acked.Add(int64(killLoad(t, dir, h)))
			h.check(t, dir)
			if rnd.IntN(3) == 0 && killCompaction(t, dir, rnd) {
				compactions.Add(1)
			}
			h.check(t, dir)
		}
		h.goesOn(t, dir)
	})
	t.Logf("%d loads and %d compactions killed, %d ops acknowledged", *rounds, compactions.Load(), acked.Load())
	require.Greater(t, acked.Load(), int64(20**rounds), "the loads hardly got to write")
	require.Greater(t, compactions.Load(), int64(*rounds/20), "hardly a compaction was killed")
}

// killLoad runs a load and kills it a while after its first acknowledgement, or,
// now and then, at a moment when it may not even have begun.
func killLoad(t *testing.T, dir string, h *history) (acked int) {
	policies := []string{"always", "always", "2ms", "never"}
	l := load{dir: dir, args: []string{"--segment-size", "64KiB", "--sync", policies[h.rnd.IntN(len(policies))]}}
	after := time.Duration(h.rnd.IntN(60)) * time.Millisecond
	kill := func(p *os.Process) { time.AfterFunc(after, func() { p.Kill() }) }
	if h.rnd.IntN(6) == 0 {
		l.onStart = kill
	} else {
		l.onAck = func(acked int, p *os.Process) {
			if acked == 1 {
				kill(p)
			}
		}
	}
	o, acked := l.run(t, h)
	require.Equal(t, syscall.SIGKILL, o.signal, "it ended by itself, with status %d: %s", o.code, o.stderr)
	return acked
}

// killCompaction compacts and kills it. It may be done before that.
func killCompaction(t *testing.T, dir string, rnd *rand.Rand) (killed bool) {
	if _, err := os.Stat(filepath.Join(dir, "MANIFEST")); err != nil {
		return false
	}
	cmd := exec.Command(binary, "compact", dir)
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(time.Duration(rnd.IntN(25_000))*time.Microsecond, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	o := ended(t, cmd, err, "", "")
	require.True(t, o.code == 0 || o.signal == syscall.SIGKILL, "it ended with %v", err)
	return o.signal == syscall.SIGKILL
}
