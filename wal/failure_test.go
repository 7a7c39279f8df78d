package wal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A write that stops after any number of bytes leaves nothing: the file is cut
// back, durably, the numbers are given back, and the next commit stands where the
// failed one would have.
func TestFailedWriteLeavesNothing(t *testing.T) {
	for name, before := range map[string][]string{"into padding": {"a"}, "at the end": nil} {
		t.Run(name, func(t *testing.T) {
			attempt := "write 1, truncate 1, fsync 1"
			writes := 1
			if before == nil {
				attempt += ", " + attempt // with padding, then without
				writes = 2
			}
			for short, size := 0, 1; short <= size; short++ {
				h := start(t, 0, large)
				for _, name := range before {
					require.NoError(t, h.do(put(name)))
				}
				from := 1
				if before == nil {
					from = 2 // behind the header
				}
				h.did()
				h.on(rule{op: "write", from: from, count: writes, err: syscall.ENOSPC, short: short})
				c := put("b", "c")
				err := h.do(c)
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.NotErrorIs(t, err, ErrFailed)
				ops := strings.Join(h.did(), ", ")
				require.True(t, strings.HasSuffix(ops, attempt), ops)
				require.Equal(t, []*Commit{c}, h.dropped)
				h.noTail(1, len(before))
				data, kept := h.contents(1)
				require.Equal(t, data, kept)
				size = c.Records[0].Len + c.Records[1].Len

				d := put("d", "e")
				require.NoError(t, h.do(d))
				require.EqualValues(t, c.Records[0].Seq, d.Records[0].Seq)
				h.clean(append(before, "d", "e")...)
			}
		})
	}
}

// Padding that fails half-way is left out, wherever it fails.
func TestFailedPaddingIsLeftOut(t *testing.T) {
	for short := 0; short <= padUnit; short += 977 {
		h := start(t, 0, large)
		h.on(rule{op: "write", from: 2, err: syscall.ENOSPC, short: short})
		require.NoError(t, h.do(put("a")))
		data, kept := h.contents(1)
		require.Equal(t, data, kept)
		require.NotContains(t, string(data), "\n\n")
		require.NoError(t, h.do(put("b")))
		h.clean("a", "b")
	}
}

// The same for padding further ahead, of which each piece is a write.
func TestFailedPaddingAheadIsLeftOut(t *testing.T) {
	name := strings.Repeat("x", 1000)
	for piece := 1; piece <= 3; piece++ {
		for short := 0; short <= padUnit; short += 9770 {
			h := start(t, 0, large)
			h.log.batches.Store(growOnce) // as after so many
			h.on(rule{op: "write", from: 2 + piece, err: syscall.ENOSPC, short: short})
			require.NoError(t, h.do(put(name)))
			data, kept := h.contents(1)
			require.Equal(t, data, kept)
			require.Len(t, data, piece*padUnit)
			h.noTail(1, 1)
			require.NoError(t, h.do(put("b")))
			h.clean(name, "b")
		}
	}
}

// held submits a commit whose operation is held by a rule, and two more that queue
// behind it.
func (h *host) held(r *rule) (first, second, third *Commit) {
	first = h.submit(put("first"))
	<-r.reached
	return first, h.submit(put("second")), h.submit(put("third"))
}

// over checks that the log takes no more writes, says why, and does nothing any
// more, whatever it is asked for and however long one waits.
func (h *host) over(cause error) {
	h.Helper()
	h.did()
	ctx := h.Context()
	err := h.do(put("late"))
	require.False(h, failure(h.T, err).Unknown)
	require.ErrorIs(h, err, cause)
	require.False(h, failure(h.T, h.log.Rotate(ctx)).Unknown)
	if last, _, _ := h.log.Next(); h.log.Durable() < last-1 {
		_, err = h.log.Sync(ctx)
		require.ErrorIs(h, failure(h.T, err), cause)
	}
	require.ErrorIs(h, h.log.Failure(), cause)
	require.Len(h, h.failed, 1)
	require.ErrorIs(h, h.failed[0], cause)
	sleep(time.Hour)
	require.ErrorIs(h, failure(h.T, h.close()), cause)
	sleep(time.Hour)
	require.Empty(h, h.did())
}

// If the fragment can't be taken off durably, it is not known what the next Open
// finds.
func TestFailedCutBackEndsAllWriting(t *testing.T) {
	for _, op := range []string{"truncate", "fsync"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, 0, large)
				a := put("a")
				require.NoError(t, h.do(a))
				write := h.on(rule{op: "write", err: syscall.ENOSPC, short: 20, hold: make(chan struct{})})
				h.fail(op, errDisk)
				first, second, third := h.held(write)
				close(write.hold)
				err := wait(first)
				require.True(t, failure(t, err).Unknown)
				require.ErrorIs(t, err, errDisk)
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.False(t, failure(t, wait(second)).Unknown)
				require.False(t, failure(t, wait(third)).Unknown)
				require.Equal(t, []*Commit{first, second, third}, h.dropped)
				h.readable(a)
				h.over(errDisk)
				require.Equal(t, map[uint64]string{1: "a"}, h.records(true))
			})
		})
	}
}

// The same where it is padding that found no room: what follows without padding
// would stand behind a fragment.
func TestFailedCutBackOfPaddingEndsAllWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		h.on(rule{op: "write", from: 2, err: syscall.ENOSPC, short: 20})
		h.fail("truncate", errDisk)
		err := h.do(put("a"))
		require.True(t, failure(t, err).Unknown)
		require.ErrorIs(t, err, errDisk)
		h.over(errDisk)
	})
}

// And where it is padding further ahead: the file's length is not what the log thinks.
func TestFailedCutBackOfPaddingAheadEndsAllWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		a := put("a")
		require.NoError(t, h.do(a))
		h.log.batches.Store(growOnce) // as after so many
		h.on(rule{op: "write", from: 2, err: syscall.ENOSPC, short: 20})
		h.fail("truncate", errDisk)
		err := h.do(put(strings.Repeat("x", padUnit-100)))
		require.True(t, failure(t, err).Unknown)
		require.ErrorIs(t, err, errDisk)
		require.ErrorIs(t, err, syscall.ENOSPC)
		h.readable(a)
		h.over(errDisk)
	})
}

// A failed sync is never tried again: the kernel would say that all is well. In
// its first version the log did try, on behalf of a Rotate that came while the
// sync was in flight.
func TestFailedSyncEndsAllWriting(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			h := start(t, policy, large)
			a := put("a")
			require.NoError(t, h.do(a))
			_, err := h.log.Sync(t.Context())
			require.NoError(t, err)
			sync := h.on(rule{op: "fdatasync", err: errDisk, hold: make(chan struct{})})
			syncs := make(chan error, 2)
			var first, second, third *Commit
			if policy == 0 {
				first, second, third = h.held(sync)
			} else {
				first = h.submit(put("first"))
				go func() {
					_, err := h.log.Sync(t.Context())
					syncs <- err
				}()
				<-sync.reached
				second, third = h.submit(put("second")), h.submit(put("third"))
			}
			rotated := make(chan error)
			go func() { rotated <- h.log.Rotate(t.Context()) }()
			go func() {
				_, err := h.log.Sync(t.Context())
				syncs <- err
			}()
			synctest.Wait()
			h.did()
			close(sync.hold)
			require.ErrorIs(t, failure(t, <-rotated), errDisk)
			require.ErrorIs(t, failure(t, <-syncs), errDisk)
			if policy == 0 {
				err = wait(first)
				require.True(t, failure(t, err).Unknown)
				require.ErrorIs(t, err, errDisk)
				require.False(t, failure(t, wait(second)).Unknown)
				require.False(t, failure(t, wait(third)).Unknown)
			} else {
				require.True(t, failure(t, <-syncs).Unknown)
				require.NoError(t, wait(first), "it was buffered before")
			}
			sleep(time.Hour)
			require.Empty(t, h.did())
			require.EqualValues(t, 1, h.log.Durable())
			h.readable(h.visible...)
			h.over(errDisk)
		})
	})
}

// Whoever else writes to the file makes all positions wrong.
func TestForeignWriterEndsAllWriting(t *testing.T) {
	for _, what := range []string{"batch", "rotation", "close"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, 0, large)
				require.NoError(t, h.do(put("a")))
				h.scribble(1, "x")
				h.did()
				var err error
				switch what {
				case "batch":
					err = h.do(put("b"))
				case "rotation":
					err = h.log.Rotate(t.Context())
				case "close":
					err = h.log.Close()
				}
				require.False(t, failure(t, err).Unknown, "nothing of it was written")
				require.Contains(t, err.Error(), "somebody else")
				require.Empty(t, h.did())
				require.Len(t, h.failed, 1)
				if what != "close" {
					h.over(h.failed[0])
				}
			})
		})
	}
}

// A rotation that finds no room, whichever step it is, fails the write, and is
// made as soon as there is room.
func TestRotationThatFindsNoRoomIsTriedAgain(t *testing.T) {
	for _, step := range []string{"truncate 1", "write 1", "create 2", "write 2", "install"} {
		for _, remove := range []bool{false, true} {
			t.Run(fmt.Sprint(step, " ", remove), func(t *testing.T) {
				policies(t, func(t *testing.T, policy time.Duration) {
					h := start(t, policy, small)
					a := put("a")
					require.NoError(t, h.do(a))
					h.settle()
					fault := h.on(rule{op: step, count: always, err: syscall.ENOSPC, short: 11})
					if remove { // nor can the unfinished file be removed, at first
						h.fail("remove", errDisk)
					}
					names := []string{"a"}
					if policy != 0 {
						names = append(names, "buffered")
						require.NoError(t, h.do(put("buffered")))
						h.settle()
					}
					for range 3 {
						err := h.do(put("b"))
						require.ErrorIs(t, err, syscall.ENOSPC)
						require.NotErrorIs(t, err, ErrFailed)
						require.ErrorIs(t, h.log.Rotate(t.Context()), syscall.ENOSPC)
						h.settle()
					}
					require.Greater(t, fault.hit, 3)
					require.NotContains(t, h.listed, uint64(2))
					h.readable(h.visible...)
					h.heal()
					require.NoError(t, h.do(put("c")))
					h.settle()
					h.readable(h.visible...)
					h.clean(append(names, "c")...)
				})
			})
		}
	}
}

// So is one by Rotate alone.
func TestRotateThatFailedIsMadeTheNextTime(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		require.NoError(t, h.do(put("a")))
		h.settle()
		h.fail("install", syscall.ENOSPC)
		require.ErrorIs(t, h.log.Rotate(t.Context()), syscall.ENOSPC)
		require.Nil(t, h.listed[1])
		require.NoError(t, h.log.Rotate(t.Context()))
		require.NotNil(t, h.listed[1], "it must be sealed now")
		require.NoError(t, h.do(put("b")))
		h.clean("a", "b")
	})
}

// A sync that fails in a rotation ends all writing, and what was to be written is
// certainly not there.
func TestRotationWhoseSyncFailsEndsAllWriting(t *testing.T) {
	for _, step := range []string{"fsync 1", "fsync 2", "syncdir", "install"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, 0, small)
				require.NoError(t, h.do(put("a")))
				fault := h.on(rule{op: step, err: unsynced(errDisk), hold: make(chan struct{})})
				first, second, third := h.held(fault)
				close(fault.hold)
				for _, c := range []*Commit{first, second, third} {
					require.False(t, failure(t, wait(c)).Unknown)
				}
				h.over(errDisk)
				require.Equal(t, map[uint64]string{1: "a"}, h.records(true))
				if step == "install" {
					require.Len(t, h.files, 2, "MANIFEST may list the new segment, so it stays")
				}
			})
		})
	}
}

// What was decided by a commit that came to nothing comes to nothing too.
func TestCommitDecidedByADroppedOneFails(t *testing.T) {
	h := start(t, 0, large)
	require.NoError(t, h.do(put("a")))
	_, _, before := h.log.Next()
	write := h.on(rule{op: "write", err: syscall.ENOSPC, hold: make(chan struct{})})
	first, second, third := h.held(write)
	_, last, seen := h.log.Next()
	require.Same(t, third, last)
	close(write.hold)
	require.ErrorIs(t, wait(first), syscall.ENOSPC)
	require.ErrorIs(t, wait(second), syscall.ENOSPC)
	require.ErrorIs(t, wait(third), syscall.ENOSPC)
	require.Equal(t, []*Commit{first, second, third}, h.dropped)
	h.settle()
	h.did()

	decided := put("decided")
	require.False(t, h.log.Submit(decided, seen))
	require.ErrorIs(t, wait(decided), syscall.ENOSPC)
	require.Empty(t, h.did())
	next, last, now := h.log.Next()
	require.EqualValues(t, 2, next)
	require.Nil(t, last)
	require.Equal(t, before, seen)
	require.NotEqual(t, seen, now)
	free := put("free")
	require.True(t, h.log.Submit(free, now))
	h.log.Lead()
	require.NoError(t, wait(free))
	h.clean("a", "free")
}

// A commit may name one without which it must not be made.
func TestCommitBehindAFailedOneFails(t *testing.T) {
	h := start(t, 0, large)
	after := func(before *Commit, name string) error {
		c := put(name)
		c.After = before
		return h.do(c)
	}
	a := put("a")
	require.NoError(t, h.do(a))
	require.NoError(t, after(a, "b"))
	h.fail("write", syscall.ENOSPC)
	lost := put("lost")
	require.ErrorIs(t, h.do(lost), syscall.ENOSPC)
	h.did()
	require.ErrorIs(t, after(lost, "c"), syscall.ENOSPC)
	require.Empty(t, h.did())
	sync := h.hold("fdatasync")
	first, second, _ := h.held(sync)
	behind := put("behind")
	behind.After = second
	h.submit(behind)
	close(sync.hold)
	require.NoError(t, wait(first))
	require.NoError(t, wait(behind), "one that is on its way will do")
	h.clean("a", "b", "first", "second", "third", "behind")
}

// A sync that failed elsewhere ends all writing too. Commits that were queued at
// that moment waited for ever once, since nobody was left to tell them.
func TestFailureFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		require.NoError(t, h.do(put("a")))
		sync := h.hold("fdatasync")
		first, second, third := h.held(sync)
		h.did()
		h.log.Fail(errDisk)
		close(sync.hold)
		require.NoError(t, wait(first), "its own sync has not failed")
		require.False(t, failure(t, wait(second)).Unknown)
		require.False(t, failure(t, wait(third)).Unknown)
		require.Empty(t, h.did())
		h.over(errDisk)
		require.Equal(t, map[uint64]string{1: "a", 2: "first"}, h.records(true))
	})
}

// The same where the owner is not a writer but the mark of a log at rest.
func TestFailedMarkTellsThoseWhoQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		require.NoError(t, h.do(put("a")))
		sync := h.on(rule{op: "fdatasync", err: errDisk, hold: make(chan struct{})})
		<-sync.reached
		b := h.submit(put("b"))
		close(sync.hold)
		require.False(t, failure(t, wait(b)).Unknown)
		h.over(errDisk)
	})
}

// The first failure is the one that every later error names.
func TestFirstFailureIsTheOneThatIsTold(t *testing.T) {
	h := start(t, 0, large)
	require.NoError(t, h.do(put("a")))
	sync := h.on(rule{op: "fdatasync", err: syscall.EIO, hold: make(chan struct{})})
	first, second, _ := h.held(sync)
	h.log.Fail(errDisk)
	close(sync.hold)
	require.Same(t, errDisk, failure(t, wait(first)).Err)
	require.True(t, failure(t, wait(first)).Unknown)
	require.Same(t, errDisk, failure(t, wait(second)).Err)
	require.Len(t, h.failed, 1)
	require.Error(t, h.close())
}

func TestFailedErrorSaysWhatIsKnown(t *testing.T) {
	require.Contains(t, (&FailedError{Unknown: true, Err: errDisk}).Error(), "unknown")
	require.Contains(t, (&FailedError{Err: errDisk}).Error(), "was not made")
	require.ErrorIs(t, &FailedError{Err: errDisk}, errDisk)
}

// Every operation fails, one after the other, once or from then on, with nothing
// or a part of it done. Whatever the writers were told holds after a power cut.
func TestEveryOperationFails(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		for _, count := range []int{1, always} {
			for _, short := range []int{0, 30} {
				for k := 1; ; k++ {
					synctest.Test(t, func(t *testing.T) {
						s := &sweep{host: start(t, policy, 500), outcomes: map[string]error{}}
						s.fault = s.on(rule{from: k, count: count, err: syscall.ENOSPC, short: short})
						s.run(count == 1)
					})
					if t.Failed() {
						t.Fatalf("operation %d, %d times, %d bytes written", k, count, short)
					}
					if sweepDone {
						require.Greater(t, k, 25)
						break
					}
				}
			}
		}
	})
}

// sweepDone is set once an operation was to fail that did not come.
var sweepDone bool

// sweep is one run of TestEveryOperationFails.
type sweep struct {
	*host
	fault    *rule
	outcomes map[string]error // by the name of the commit's first record
	synced   uint64           // what Sync has promised
}

func (s *sweep) run(once bool) {
	for i := range 12 {
		c := put(fmt.Sprint(i), fmt.Sprint(i, "b"))
		s.outcomes[c.Records[0].Name] = s.do(c)
		switch i {
		case 4:
			_ = s.log.Rotate(s.Context())
		case 8:
			if seq, err := s.log.Sync(s.Context()); err == nil {
				s.synced = seq
			}
		}
		synctest.Wait()
	}
	failed := s.log.Failure()
	op := s.fault.first
	sweepDone = s.fault.hit == 0
	isSync := strings.HasPrefix(op, "fsync") || strings.HasPrefix(op, "fdatasync") || strings.HasPrefix(op, "syncdir")
	if once && s.fault.hit > 0 && (failed != nil) != isSync {
		s.Errorf("%s failed, and the log says %v", op, failed)
	}
	s.readable(s.visible...)
	if err := s.close(); err == nil {
		s.synced = s.log.Durable()
	}
	s.judge()
}

// judge holds what writers were told against what a power cut leaves.
func (s *sweep) judge() {
	left := s.records(true)
	names := slices.Collect(maps.Values(left))
	for seq := range left {
		if seq > 1 && left[seq-1] == "" {
			s.Errorf("%d is there and %d is not", seq, seq-1)
		}
	}
	for seq := uint64(1); seq <= max(s.synced, s.log.Durable()); seq++ {
		if left[seq] == "" {
			s.Errorf("%d was durable and is lost", seq)
		}
	}
	for name, err := range s.outcomes {
		here, whole := slices.Contains(names, name), slices.Contains(names, name+"b")
		var failed *FailedError
		switch {
		case here != whole:
			s.Errorf("commit %s is there in part", name)
		case err == nil && s.sync == 0 && !here:
			s.Errorf("commit %s was acknowledged and is lost", name)
		case err != nil && here && !(errors.As(err, &failed) && failed.Unknown):
			s.Errorf("commit %s was said to have failed (%v) and is there", name, err)
		}
	}
}
