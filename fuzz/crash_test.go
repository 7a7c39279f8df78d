package fuzz

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

var (
	crashSeed    = flag.Uint64("crash.seed", 1, "seed of the crash enumeration")
	crashOnly    = flag.String("crash.only", "", `run these steps only, for example "put rotate compact"; before them may stand a policy (always, every, never) and where writes tear (512, 4096)`)
	crashAll     = flag.Int("crash.all", 5, "up to how many pending effects all subsets of them are tried")
	crashRandom  = flag.Int("crash.random", 1, "random subsets of pending effects at each crash point")
	crashLengths = flag.Int("crash.lengths", 12, "at how many bytes of its text, about, a write is cut short")
	crashLong    = flag.Int("crash.long", 4, "random sequences of length 30")
	crashDeep    = flag.Int("crash.deep", 100, "of how many crash states one has its recovery crashed too")
	crashBoth    = flag.Bool("crash.both", false, "tear the writes of every sequence at 512 and then at 4096 bytes, and try every fill")
	crashStates  = flag.Int("crash.states", 30000, "the number of crash states that a run must judge")
	crashWorkers = flag.Int("crash.workers", runtime.GOMAXPROCS(0), "how many sequences run at a time")
)

// The steps whose sequences of length 1 to shortest are all run, and those that are
// combined with them in pairs.
var (
	shortSteps = []string{"put", "delete", "batch", "big", "rotate", "compact", "reopen", "expire"}
	moreSteps  = []string{"append", "update", "ttl", "burst", "idle", "tidy", "checkpoint"}

	// What takes more steps to get to: a compaction of some segments only, which
	// must keep a tombstone, or an expired record, as long as an older segment holds
	// the key; compactions of compacted segments; several commits behind them.
	longerSteps = []string{
		"put rotate put put delete reopen tidy put",
		"put rotate ttl expire reopen tidy put",
		"put rotate put put delete burst tidy burst reopen",
		"batch big delete big update compact ttl reopen tidy expire compact",
		"put checkpoint put delete compact reopen put",
		"put delete big checkpoint rotate put compact reopen",
		"batch checkpoint expire ttl checkpoint reopen compact checkpoint put",
		"append checkpoint append rotate append compact reopen checkpoint append",
	}
)

const shortest = 3

var policies = map[string]annals.SyncPolicy{
	"always": annals.SyncAlways,
	"every":  annals.SyncEvery(time.Second),
	"never":  annals.SyncNever,
}

// sequence is one workload.
type sequence struct {
	policy string
	tear   int64
	steps  []string
}

func (s sequence) String() string {
	return fmt.Sprintf("%s %d %s", s.policy, s.tear, strings.Join(s.steps, " "))
}

func (s sequence) hash() uint64 {
	h := fnv.New64a()
	h.Write([]byte(s.String()))
	return h.Sum64()
}

// named returns the sequences that -crash.only names.
func named(only string) []sequence {
	words := strings.Fields(only)
	policy := "always"
	if _, ok := policies[words[0]]; ok {
		policy, words = words[0], words[1:]
	}
	if tear, err := strconv.ParseInt(words[0], 10, 64); err == nil {
		return []sequence{{policy, tear, words[1:]}}
	}
	return []sequence{{policy, faultfs.Piece, words}, {policy, faultfs.Page, words}}
}

// replay is the command that judges the same states again.
func replay(name string) string {
	command := fmt.Sprintf("to replay: go test ./fuzz -count=1 -run CrashAnywhere -crash.only=%q", name)
	flag.Visit(func(f *flag.Flag) {
		if strings.HasPrefix(f.Name, "crash.") && f.Name != "crash.only" && f.Name != "crash.states" && f.Name != "crash.seed" {
			command += fmt.Sprintf(" -%s=%v", f.Name, f.Value)
		}
	})
	return command + fmt.Sprintf(" -crash.seed=%d", *crashSeed)
}

// TestCrashAnywhere runs workloads: all sequences of up to three operations, and
// random ones of thirty. Before every change of the file system it makes what a
// crash may leave there, opens it, and holds it against a model.
func TestCrashAnywhere(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	profile := runtime.MemProfileRate
	runtime.MemProfileRate = 0 // the hooks' stacks are deep, and many
	defer func() { runtime.MemProfileRate = profile }()

	todo := make(chan sequence)
	var failed atomic.Bool // one failure is enough
	var mu sync.Mutex
	total := &sums{}
	t.Run("sequences", func(t *testing.T) {
		for w := range *crashWorkers {
			t.Run(fmt.Sprint(w), func(t *testing.T) {
				t.Parallel()
				sum := &sums{}
				defer func() {
					mu.Lock()
					defer mu.Unlock()
					total.add(sum)
				}()
				for s := range todo {
					if !failed.Load() {
						synctest.Test(t, func(t *testing.T) {
							defer func() { failed.Store(failed.Load() || t.Failed()) }()
							newMachine(t, s, sum).run(s.steps)
						})
					}
				}
			})
		}
		go func() {
			defer close(todo)
			for _, s := range sequences() {
				todo <- s
			}
		}()
	})
	for _, c := range total.columns() {
		t.Logf("%9d %s", *c.n, c.name)
	}
	if t.Failed() {
		return
	}
	if *crashOnly != "" || underRace {
		require.NotZero(t, total.judged)
		return
	}
	require.GreaterOrEqual(t, total.judged, *crashStates)
	for _, c := range total.columns() {
		require.NotZero(t, *c.n, "the run has met no state %s", c.name)
	}
}

func (s *sums) add(o *sums) {
	from := o.columns()
	for i, c := range s.columns() {
		*c.n += *from[i].n
	}
}

// sequences returns the workloads of this run.
func sequences() (list []sequence) {
	if *crashOnly != "" {
		return named(*crashOnly)
	}
	for _, steps := range longerSteps {
		list = append(list, both("always", strings.Fields(steps))...)
	}
	for _, steps := range workloads(shortSteps, shortest) {
		list = append(list, both("always", steps)...)
	}
	for _, a := range moreSteps {
		list = append(list, both("always", []string{a})...)
		for _, b := range slices.Concat(shortSteps, moreSteps) {
			list = append(list, both("always", []string{a, b})...)
			if !slices.Contains(moreSteps, b) {
				list = append(list, both("always", []string{b, a})...)
			}
		}
	}
	for _, steps := range workloads([]string{"put", "big", "rotate", "compact", "reopen", "burst", "idle", "sync"}, 2) {
		list = append(list, both("every", steps)...)
		list = append(list, both("never", steps)...)
	}
	rnd := rand.New(rand.NewPCG(*crashSeed, 1))
	for i := range *crashLong {
		policy := []string{"always", "always", "every", "never"}[i%4]
		list = append(list, both(policy, randomSteps(rnd, policy))...)
	}
	if underRace { // a sample of them: races hide in the code, not in the states
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:len(list)/12]
	}
	return list
}

// both returns a workload with writes that are torn at 512 bytes and at 4,096; or
// one of the two, by its name, where there is no time for both.
func both(policy string, steps []string) []sequence {
	a, b := sequence{policy, faultfs.Piece, steps}, sequence{policy, faultfs.Page, steps}
	switch {
	case *crashBoth && len(steps) < 30:
		return []sequence{a, b}
	case a.hash()%2 > 0:
		return []sequence{a}
	}
	return []sequence{b}
}

// workloads returns all sequences of one to n of these steps.
func workloads(of []string, n int) (list [][]string) {
	if n == 0 {
		return nil
	}
	shorter := workloads(of, n-1)
	for _, step := range of {
		list = append(list, []string{step})
		for _, rest := range shorter {
			list = append(list, append([]string{step}, rest...))
		}
	}
	return list
}

func randomSteps(rnd *rand.Rand, policy string) (list []string) {
	of := slices.Concat(shortSteps, moreSteps)
	if policy != "always" {
		of = append(of, "sync", "sync")
	}
	for range 30 {
		list = append(list, of[rnd.IntN(len(of))])
	}
	return list
}
