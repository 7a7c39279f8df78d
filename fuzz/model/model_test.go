package model

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestMain gives rapid's flags values that suit a store. Each of them can be given on
// the command line; a failure prints the seed to give.
func TestMain(m *testing.M) {
	flag.Parse()
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": defaultChecks, "rapid.steps": "50", "rapid.nofailfile": "true"} {
		if !given[name] {
			if err := flag.Set(name, value); err != nil {
				panic(err)
			}
		}
	}
	os.Exit(m.Run())
}

// sums count what a run has met, so that one that meets nothing fails.
type sums struct {
	steps, collisions, conflicts, aborts, queued     int
	compacts, compactsThatDropped, background        int
	expiries, expiredGone, setBack, buried           int
	snapshotsOverCompaction, watched, copies         int
	reopens, crashes, lateCrashes, recoveriesCrashed int
	dropped /* commits, by a crash */, tails         int
}

// requireAll fails if one of the counts of a struct is 0.
func requireAll(t *testing.T, sums any) {
	t.Logf("%+v", sums)
	v := reflect.ValueOf(sums)
	for i := range v.NumField() {
		require.NotZero(t, v.Field(i).Int(), "the run has not met what it is made for: %s", v.Type().Field(i).Name)
	}
}

// TestModel runs random operations on a store and on a map and a few lists, which
// must agree after each of them, whatever crashes.
func TestModel(t *testing.T) {
	sum := &sums{}
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t, sum)
		defer m.end()
		actions := map[string]func(*rapid.T){"": m.check}
		for _, a := range []struct {
			name   string
			weight int
			do     func(*rapid.T)
		}{
			{"write", 6, m.one}, {"batch", 3, m.batch}, {"rotate", 2, m.rotate}, {"tx", 2, m.tx}, {"queue", 2, m.queue},
			{"look", 2, m.look}, {"tick", 3, m.tick}, {"snapshot", 3, m.snapshot}, {"watch", 1, m.watch},
			{"compact", 2, m.compact}, {"reopen", 1, m.reopen}, {"crash", 2, m.crash}, {"others", 1, m.others}, {"bury", 1, m.bury},
		} {
			for i := range a.weight {
				actions[fmt.Sprintf("%s %d", a.name, i)] = a.do
			}
		}
		t.Repeat(actions)
		m.close(m.db)
		m.fs.Hook(nil)
		require.Zero(t, m.fs.OpenFiles(), "files are left open")
	})
	if !t.Failed() {
		requireAll(t, *sum)
	}
}
