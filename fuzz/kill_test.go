package fuzz

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
)

var (
	killSeed   = flag.Uint64("kill.seed", 0, "seed of TestKillLosesNothingAcknowledged; 0 takes a new one")
	killRounds = flag.Int("kill.rounds", 200, "rounds of TestKillLosesNothingAcknowledged")
)

// The child is this test binary, run again with this variable set to the store's
// directory.
const childEnv = "ANNALS_KILL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		work := writeUntilKilled
		if os.Getenv(journalEnv) != "" {
			work = recordUntilKilled
		}
		if err := work(dir, os.Getenv("ANNALS_KILL_POLICY")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	killWriters = 8
	keptKeys    = 10 // of each writer's numbered keys the latest ones are there
)

// writeUntilKilled has several writers make one step after the other and prints
// "writer step" for each that was acknowledged, while compaction runs.
func writeUntilKilled(dir, policy string) error {
	opts := &annals.Options{SegmentSize: 32 << 10}
	if policy == "lazy" {
		opts.Sync = annals.SyncEvery(2 * time.Millisecond)
	}
	db, err := annals.Open(dir, opts)
	if err != nil {
		return err
	}
	var out sync.Mutex
	var failed error
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for w := range killWriters {
		all.Go(func() {
			err := writeSteps(db, w, policy == "lazy", func(n int) {
				out.Lock()
				defer out.Unlock()
				fmt.Println(w, n)
			})
			out.Lock()
			defer out.Unlock()
			failed = errors.Join(failed, err)
			cancel()
		})
	}
	all.Go(func() {
		for {
			time.Sleep(20 * time.Millisecond)
			if _, err := db.Compact(ctx, nil); err != nil {
				out.Lock()
				defer out.Unlock()
				failed = errors.Join(failed, err)
				return
			}
		}
	})
	all.Wait()
	return failed
}

// writeSteps makes step n = last+1, last+2, …: one commit that counts in two keys
// and in a series, adds a key and takes one away.
func writeSteps(db *annals.Store, w int, lazy bool, acked func(n int)) error {
	n, err := count(db, key(w, "a"))
	if err != nil {
		return err
	}
	for {
		n++
		var b annals.Batch
		b.Put(key(w, "a"), []byte(strconv.Itoa(n)))
		b.Put(key(w, strconv.Itoa(n)), []byte(fmt.Sprintf(`{"step":%d,"filler":"0123456789012345678901234567890123456789"}`, n)))
		b.Delete(key(w, strconv.Itoa(n-keptKeys)))
		b.Append(series(w), []byte(strconv.Itoa(n)))
		b.Put(key(w, "z"), []byte(strconv.Itoa(n)))
		if _, err := db.Apply(&b); err != nil {
			return err
		}
		if lazy {
			if n%8 != 0 {
				continue
			}
			if _, err := db.Sync(context.Background()); err != nil {
				return err
			}
		}
		acked(n)
	}
}

func key(w int, name string) string { return fmt.Sprintf("%d/%s", w, name) }
func series(w int) string           { return fmt.Sprintf("series-%d", w) }

func count(db annals.Getter, key string) (int, error) {
	v, err := db.Get(key)
	if errors.Is(err, annals.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(v))
}

// TestKillLosesNothingAcknowledged kills a writing process with SIGKILL at a
// random moment, again and again, and after each kill looks whether the state is
// exactly that after some step of each writer, at or behind the last one that was
// acknowledged. The page cache survives a SIGKILL, so this proves atomicity and
// recovery, not that syncs are made; the crash simulation is for that.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with: go test ./fuzz -run %s -kill.seed=%d", t.Name(), seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var dir string
	var acked, tails int
	for round := range *killRounds {
		if round%25 == 0 { // long enough to recover what was recovered, short enough to stay small
			dir = filepath.Join(t.TempDir(), "store")
		}
		policy := []string{"always", "always", "lazy"}[rnd.IntN(3)]
		last, lines := killOnce(t, dir, policy, time.Duration(rnd.IntN(120))*time.Millisecond)
		clean := checkAfterKill(t, dir, last, rnd.IntN(3) == 0)
		acked += lines
		if !clean {
			tails++
		}
	}
	t.Logf("%d rounds, %d acknowledgements, %d recoveries", *killRounds, acked, tails)
	require.Greater(t, acked, 20**killRounds, "the writers hardly got to write")
	require.Greater(t, tails, *killRounds/2, "hardly a kill hit a store that was being written")
}

// killOnce runs a child for a while, kills it, and returns the last acknowledged
// step of each writer and how many acknowledgements came.
func killOnce(t *testing.T, dir, policy string, after time.Duration) (last [killWriters]int, lines int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, "ANNALS_KILL_POLICY="+policy)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	in := bufio.NewReader(out)
	killed := false
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		var w, n int
		if _, err := fmt.Sscanf(line, "%d %d\n", &w, &n); err != nil {
			t.Fatalf("the child printed %q", line)
		}
		last[w] = n
		lines++
		if !killed { // from the first acknowledgement on, so that there is something to lose
			killed = true
			time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
	}
	err = cmd.Wait()
	require.True(t, killed && err != nil && cmd.ProcessState.ExitCode() == -1, "the child ended by itself: %v", err)
	return last, lines
}

// checkAfterKill opens the store and compares its state with what the writers
// did. It reports whether the store had been closed cleanly.
func checkAfterKill(t *testing.T, dir string, last [killWriters]int, byReader bool) (clean bool) {
	report, err := annals.Verify(t.Context(), dir, nil)
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	if byReader {
		r, err := annals.OpenReader(dir, nil)
		require.NoError(t, err)
		checkState(t, r.Snapshot(), last)
		require.NoError(t, r.Close())
	}
	db, err := annals.Open(dir, nil)
	require.NoError(t, err)
	checkState(t, db.Snapshot(), last)
	clean = db.Recovery().Clean
	require.NoError(t, db.Close())
	return clean
}

func checkState(t *testing.T, s *annals.Snapshot, last [killWriters]int) {
	defer s.Close()
	for w := range killWriters {
		n, err := count(s, key(w, "a"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, last[w], "writer %d: an acknowledged step is lost", w)
		want := map[string]bool{}
		for i := max(n-keptKeys+1, 1); i <= n; i++ {
			want[key(w, strconv.Itoa(i))] = true
		}
		if n > 0 {
			want[key(w, "a")], want[key(w, "z")] = true, true
		}
		got := map[string]bool{}
		for e, err := range s.Scan(annals.Prefix(key(w, ""))) {
			require.NoError(t, err)
			got[e.Key] = true
		}
		require.Equal(t, want, got, "writer %d: a commit is half there, or a deleted key came back", w)
		z, err := count(s, key(w, "z"))
		require.NoError(t, err)
		require.Equal(t, n, z, "writer %d: a commit is half there", w)
		i := 0
		for sample, err := range s.Samples(series(w), annals.Window{}) {
			require.NoError(t, err)
			i++
			require.Equal(t, strconv.Itoa(i), string(sample.Value), "writer %d: a sample is missing or twice", w)
		}
		require.Equal(t, n, i, "writer %d: a commit is half there", w)
	}
}
