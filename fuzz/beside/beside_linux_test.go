package beside

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
)

var besideFor = flag.Duration("beside.for", 3*time.Second, "how long TestReadersBesideAWriter runs for each policy")

// childEnv makes a run of the test binary one of the processes.
const childEnv = "ANNALS_BESIDE"

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(childEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	go func() { // a test that is killed can't end us
		for parent := os.Getppid(); os.Getppid() == parent; {
			time.Sleep(time.Second)
		}
		os.Exit(1)
	}()
	w, err := openWitness(os.Args[2])
	if err == nil {
		err = role(os.Args[1], w, os.Args[3:])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Getenv(childEnv), err)
		os.Exit(1)
	}
}

// roles are what processes do. A reader goes on until it is told the last step, and
// has seen it.
var roles = map[string]func(dir string, w *witness, args []string) error{
	"writer":   write,
	"watcher":  reading(watch),
	"follower": reading(follow),
	"copier":   reading(copies),
	"opener":   reading(opens),
}

var policies = map[string]annals.SyncPolicy{
	"always": annals.SyncAlways,
	"every":  annals.SyncEvery(30 * time.Millisecond),
	"never":  annals.SyncNever,
}

// history is how many records are left for the watcher: what comes in a second, or so.
const history = 6_000

// write counts on from where the store is, by one step or more, and says how far it is,
// until its input ends.
func write(dir string, w *witness, args []string) error {
	pause, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	w.never = args[0] == "never"
	opts := &annals.Options{FS: w, Sync: policies[args[0]], SegmentSize: 16 << 10, History: history, Checkpoint: 5_000}
	db, err := annals.Open(dir, opts)
	if err != nil {
		return err
	}
	var ended atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		ended.Store(true)
	}()
	n, err := counted(db)
	for more := true; more && err == nil; more = !ended.Load() {
		n++
		if _, err = db.Apply(step(n)); err == nil {
			fmt.Println(n)
		}
		time.Sleep(pause)
	}
	return errors.Join(err, db.Close())
}

// reader is a process that reads.
type reader struct {
	dir     string
	w       *witness
	last    atomic.Uint64 // the step that the writer ended with, once it has
	reached uint64        // the latest step that was seen
	looks   int
}

// reading makes a role of what a reader does again and again.
func reading(do func(*reader) error) func(dir string, w *witness, _ []string) error {
	return func(dir string, w *witness, _ []string) error {
		r := &reader{dir: dir, w: w}
		go func() {
			var last uint64
			fmt.Fscan(os.Stdin, &last)
			r.last.Store(last)
		}()
		for !r.done() {
			if err := do(r); err != nil {
				return fmt.Errorf("after %d looks, at step %d: %w", r.looks, r.reached, err)
			}
		}
		fmt.Println(r.looks)
		return nil
	}
}

func (r *reader) done() bool { return r.last.Load() != 0 && r.reached >= r.last.Load() }

// seen makes sure that a record may be seen.
func (r *reader) seen(seq uint64) error {
	durable, err := r.w.durable()
	if err == nil && seq > durable {
		err = fmt.Errorf("record %d is shown, and %d is the last durable one", seq, durable)
	}
	return err
}

// at takes notice of a step: what was seen once does not disappear.
func (r *reader) at(n uint64) error {
	if n < r.reached {
		return fmt.Errorf("step %d comes after step %d", n, r.reached)
	}
	r.reached = n
	r.looks++
	return nil
}

// look looks at a state.
func (r *reader) look(s state, samples int) error {
	n, err := look(s, samples, r.seen)
	if err != nil {
		return err
	}
	return r.at(n)
}

// open opens a reader for fn.
func (r *reader) open(opts annals.ReaderOptions, fn func(*annals.Reader) error) error {
	opts.FS = r.w
	db, err := annals.OpenReader(r.dir, &opts)
	if errors.Is(err, annals.ErrNotStore) && r.reached == 0 {
		time.Sleep(time.Millisecond) // not yet
		return nil
	}
	if err != nil {
		return fmt.Errorf("OpenReader: %w", err)
	}
	err = fn(db)
	return errors.Join(err, db.Close())
}

// follow has a reader that follows by itself, and two snapshots that stay what they
// are.
func follow(r *reader) error {
	return r.open(annals.ReaderOptions{Follow: true}, func(db *annals.Reader) error {
		for until := time.Now().Add(time.Second); time.Now().Before(until) && !r.done(); time.Sleep(2 * time.Millisecond) {
			kept := db.Snapshot()
			defer kept.Close()
			was, err := counted(kept)
			if err == nil {
				err = db.View(func(s *annals.Snapshot) error { return r.look(s, 20) })
			}
			if err != nil {
				return fmt.Errorf("%w (%s)", err, db.Stats().Failed)
			}
			if r.looks%5 != 0 {
				kept.Close()
				continue
			}
			time.Sleep(10 * time.Millisecond)
			if n, err := look(kept, 20, r.seen); err != nil || n != was {
				return fmt.Errorf("a snapshot of step %d is of step %d (%v)", was, n, err)
			}
		}
		if failed := db.Stats().Failed; failed != "" {
			return errors.New(failed)
		}
		return nil
	})
}

// copies refreshes by hand, makes backups and looks into them.
func copies(r *reader) error {
	return r.open(annals.ReaderOptions{}, func(db *annals.Reader) error {
		for range 10 {
			time.Sleep(5 * time.Millisecond)
			if err := db.Refresh(); err != nil {
				return fmt.Errorf("Refresh: %w", err)
			}
			if err := db.View(func(s *annals.Snapshot) error { return r.look(s, 20) }); err != nil {
				return err
			}
		}
		dir, err := os.MkdirTemp("", "backup")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := db.Backup(context.Background(), dir); err != nil {
			return fmt.Errorf("Backup: %w", err)
		}
		copied, err := annals.OpenReader(dir, nil)
		if err != nil {
			return fmt.Errorf("OpenReader of a backup: %w", err)
		}
		n, err := look(copied, 0, r.seen)
		if n != r.reached {
			err = errors.Join(err, fmt.Errorf("a backup of step %d is of step %d", r.reached, n))
		}
		return errors.Join(err, copied.Close())
	})
}

// opens opens anew each time, and verifies.
func opens(r *reader) error {
	for range 5 {
		if err := r.open(annals.ReaderOptions{}, func(db *annals.Reader) error { return r.look(db, 20) }); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	report, err := annals.VerifyFS(context.Background(), r.w, r.dir, nil)
	if errors.Is(err, annals.ErrNotStore) && r.reached == 0 {
		return nil
	}
	if err == nil && !report.OK() {
		err = fmt.Errorf("Verify: %w", report.Problems[0])
	}
	return err
}

// watch sees every record once, in order, over restarts of its own.
func watch(r *reader) error {
	from := uint64(1)
	place := 0 // in the commit
	for !r.done() {
		if err := r.open(annals.ReaderOptions{}, func(db *annals.Reader) error { return watchOn(r, db, &from, &place) }); err != nil {
			return fmt.Errorf("from %d: %w", from, err)
		}
	}
	return nil
}

func watchOn(r *reader, db *annals.Reader, from *uint64, place *int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	for rec, err := range db.Watch(ctx, *from) {
		var gone *annals.CompactedError
		switch {
		case errors.As(err, &gone):
			// The writer was faster by more than History: what is left begins there.
			fmt.Fprintf(os.Stderr, "watcher: from %d: %v\n", *from, err)
			*from, r.reached, *place = gone.First, 0, -1
			return nil
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if err := r.seen(rec.Seq); err != nil {
			return err
		}
		if rec.Seq < *from {
			return fmt.Errorf("record %d comes after record %d", rec.Seq, *from-1)
		}
		*from = rec.Seq + 1
		if err := inStep(r, &rec, place); err != nil {
			return fmt.Errorf("record %d: %w", rec.Seq, err)
		}
		if r.done() {
			return nil
		}
	}
	return nil
}

// inStep makes sure that a record is the one that comes next by the count.
func inStep(r *reader, rec *annals.Record, place *int) error {
	if *place < 0 { // history begins anywhere
		if rec.Key == "z" {
			n, err := number(rec.Value)
			r.reached, *place = n, 0
			return err
		}
		return nil
	}
	n := r.reached + 1
	keys := [inCommit]string{"a", fmt.Sprint("r", n%ringKeys), fmt.Sprint("h", n), fmt.Sprint("h", int64(n)-heldKeys), "", "z"}
	if rec.Key != keys[*place] || rec.More != (*place < inCommit-1) {
		return fmt.Errorf("%q (more: %v) in the place of %q, number %d of step %d", rec.Key, rec.More, keys[*place], *place, n)
	}
	if rec.Kind != annals.KindDelete {
		if have, err := number(rec.Value); err != nil || have != n {
			return fmt.Errorf("step %d in the place of %d (%v)", have, n, err)
		}
	}
	if *place++; *place == inCommit {
		*place = 0
		return r.at(n)
	}
	return nil
}

// process is one of the processes.
type process struct {
	*exec.Cmd
	name string
	in   io.WriteCloser
	out  *bufio.Scanner
}

func startAs(t testing.TB, name string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	cmd.Stderr = os.Stderr
	p := &process{Cmd: cmd, name: name}
	var err error
	p.in, err = cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewScanner(out)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	return p
}

// printed returns the last number that the process has printed before its end.
func (p *process) printed() (last uint64) {
	for p.out.Scan() {
		if n, err := strconv.ParseUint(strings.TrimSpace(p.out.Text()), 10, 64); err == nil {
			last = n
		}
	}
	return last
}

// One writer, four readers, each a process of its own; small segments, so that the log
// rotates and is compacted all the time. The writer is killed again and again.
func TestReadersBesideAWriter(t *testing.T) {
	for policy := range policies {
		t.Run(policy, func(t *testing.T) {
			home := t.TempDir()
			dir, noted := filepath.Join(home, "store"), filepath.Join(home, "durable")
			require.NoError(t, os.WriteFile(noted, make([]byte, 8*wordCount), 0o600))
			var readers []*process
			for _, name := range []string{"watcher", "follower", "copier", "opener"} {
				readers = append(readers, startAs(t, name, dir, noted))
			}
			begun := time.Now()
			kills, last := 0, uint64(0)
			for time.Since(begun) < *besideFor {
				writer := startAs(t, "writer", dir, noted, policy, "0")
				time.AfterFunc(*besideFor/4, func() { writer.Process.Kill() })
				acknowledged := writer.printed()
				writer.Wait()
				if acknowledged != 0 { // it had the time for a step
					require.True(t, policy != "always" || acknowledged > last, "%d, then %d", last, acknowledged)
					last = acknowledged
				}
				kills++
				if kills%3 == 0 {
					time.Sleep(50 * time.Millisecond) // so that readers meet a store without a writer
				}
			}
			writer := startAs(t, "writer", dir, noted, policy, "0")
			time.Sleep(100 * time.Millisecond)
			require.NoError(t, writer.in.Close())
			last = writer.printed()
			require.NoError(t, writer.Wait())
			require.NotZero(t, last)
			for _, r := range readers {
				fmt.Fprintln(r.in, last)
				time.AfterFunc(time.Minute, func() { r.Process.Signal(syscall.SIGQUIT) }) // it says where it hangs
			}
			for _, r := range readers {
				looks := r.printed()
				require.NoError(t, r.Wait(), r.name)
				require.NotZero(t, looks)
				t.Logf("%s: %d looks", r.name, looks)
			}
			t.Logf("%d steps, %d kills", last, kills)
			report, err := annals.Verify(t.Context(), dir, nil)
			require.NoError(t, err)
			require.Empty(t, report.Problems)
			db, err := annals.OpenReader(dir, nil)
			require.NoError(t, err)
			defer db.Close()
			if last*inCommit > 3*history { // else the disk was too slow for that
				require.Greater(t, db.Stats().History, uint64(1), "nothing was compacted")
			}
		})
	}
}
