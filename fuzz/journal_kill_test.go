package fuzz

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
)

// A child with this variable set, to a word that no other child has, is a harness.
const journalEnv = "ANNALS_KILL_JOURNAL"

const (
	journalKeys    = 200
	journalWorkers = 4
)

// recordUntilKilled is a harness whose workers all want to record the same keys, and
// which prints "key result" for each that it was told is recorded, while compaction
// runs. The word makes its results its own.
func recordUntilKilled(dir, policy string) error {
	opts := &annals.Options{SegmentSize: 8 << 10}
	if policy == "lazy" {
		opts.Sync = annals.SyncEvery(time.Hour) // a journal is durable nevertheless
	}
	db, err := annals.Open(dir, opts)
	if err != nil {
		return err
	}
	defer db.Close()
	j, err := annals.OpenJournal(db, "run", map[string]int{"keys": journalKeys})
	if err != nil {
		return err
	}
	keys := make([]string, journalKeys)
	for i := range keys {
		keys[i] = strconv.Itoa(i)
	}
	missing, err := j.Resume(keys)
	if err != nil {
		return err
	}
	fmt.Println("missing", len(missing))
	errs := make([]error, journalWorkers)
	var out sync.Mutex
	var all sync.WaitGroup
	for w := range journalWorkers {
		all.Go(func() {
			for _, key := range missing {
				result := fmt.Sprintf("%s-%d", os.Getenv(journalEnv), w)
				err := j.Record(key, result)
				if errors.Is(err, annals.ErrRecorded) {
					continue
				}
				if errs[w] = err; err != nil {
					return
				}
				out.Lock()
				fmt.Println(key, result)
				out.Unlock()
			}
		})
	}
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				db.Compact(context.Background(), nil) // its errors are told by the writes
			}
		}
	}()
	all.Wait()
	close(stop)
	return errors.Join(errs...)
}

// TestKilledJournalHasEachResultOnce kills a harness with SIGKILL at a random moment
// and starts it again until it is done, again and again. What it was told is recorded
// is there with that very result, told to one only, never changes, and is not missing
// in the next session.
func TestKilledJournalHasEachResultOnce(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with: go test ./fuzz -run %s -kill.seed=%d", t.Name(), seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	kills, runs := 0, 0
	var dir string
	var results map[string]string // of each key, as told or found
	rounds := max(*killRounds/4, 10)
	for round := 0; round <= rounds; round++ {
		if results == nil {
			dir, results = filepath.Join(t.TempDir(), "store"), map[string]string{}
		}
		policy := []string{"always", "lazy"}[rnd.IntN(2)]
		after := time.Duration(rnd.IntN(60)) * time.Millisecond
		if round == rounds {
			after = time.Hour // the last one comes to its end
		}
		done, err := harnessOnce(t, dir, policy, fmt.Sprint("round", round), after, results)
		require.NoError(t, err)
		checkJournal(t, dir, results)
		if done {
			require.Len(t, results, journalKeys)
			results = nil
			runs++
		} else {
			kills++
		}
	}
	t.Logf("%d kills, %d runs came to their end", kills, runs)
	require.NotZero(t, kills)
	require.NotZero(t, runs)
}

// harnessOnce runs the harness until it is done, or kills it, and adds the results
// that it was told are recorded.
func harnessOnce(t *testing.T, dir, policy, word string, after time.Duration, results map[string]string) (done bool, err error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, "ANNALS_KILL_POLICY="+policy, journalEnv+"="+word, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	first := true
	for lines := bufio.NewScanner(out); lines.Scan(); {
		key, result, _ := strings.Cut(lines.Text(), " ")
		if first {
			first = false
			require.Equal(t, "missing "+strconv.Itoa(journalKeys-len(results)), lines.Text())
			timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
			defer timer.Stop()
			continue
		}
		have, twice := results[key]
		require.False(t, twice, "key %s was recorded as %s and as %s", key, have, result)
		results[key] = result
	}
	if err := cmd.Wait(); err != nil {
		if cmd.ProcessState.ExitCode() == -1 {
			return false, nil // killed
		}
		return false, err
	}
	return true, nil
}

// checkJournal compares the journal with the results that are known, and adds those
// of which the kill kept the word back.
func checkJournal(t *testing.T, dir string, results map[string]string) {
	report, err := annals.Verify(t.Context(), dir, nil)
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	r, err := annals.OpenReader(dir, nil)
	require.NoError(t, err)
	defer r.Close()
	j, err := annals.ReadJournal(r, "run")
	require.NoError(t, err)
	found := map[string]bool{}
	for result, err := range j.Results() {
		require.NoError(t, err)
		text, err := strconv.Unquote(string(result.Value))
		require.NoError(t, err)
		require.False(t, found[result.Key])
		found[result.Key] = true
		if want, told := results[result.Key]; told {
			require.Equal(t, want, text, "key %s has another result than was told", result.Key)
		}
		results[result.Key] = text
	}
	require.Len(t, found, len(results), "a result that was told to be recorded is lost")
	info, err := j.Info()
	require.NoError(t, err)
	require.Equal(t, journalKeys, info.Expected)
	require.Equal(t, len(found), info.Done)
}
