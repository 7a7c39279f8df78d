package system

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// load is a run of `annals load --ack`.
type load struct {
	dir     string
	args    []string // more of them
	wrap    []string // what to run it under, strace for example
	env     []string
	binary  string // if it is not the usual one
	commits int    // how many to submit; 0 for as many as it takes
	small   bool   // commits of a few hundred bytes only
	window  int    // how many ops may be under way; 0 for any number
	onStart func(p *os.Process)
	onAck   func(acked int, p *os.Process)
}

// run feeds the process commits of the history and collects what it acknowledges,
// until the process has ended. The history then knows what must be there.
func (l load) run(t testing.TB, h *history) (o outcome, acked int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	program := binary
	if l.binary != "" {
		program = l.binary
	}
	args := append(append(append([]string{}, l.wrap...), program, "load", l.dir, "--ack"), l.args...)
	cmd := prepareCommand(ctx, args, l.env)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	if l.onStart != nil {
		l.onStart(cmd.Process)
	}

	base := h.ops()
	f := &feed{base: base}
	f.moved.L = &f.mu
	var feeding sync.WaitGroup
	feeding.Go(func() {
		defer stdin.Close()
		f.submit(stdin, h, l)
	})
	seqs := f.collect(stdout, func(acked int) {
		if l.onAck != nil {
			l.onAck(acked, cmd.Process)
		}
	})
	err = cmd.Wait()
	feeding.Wait()
	require.NoError(t, ctx.Err(), "%q hangs", args)
	o = ended(t, cmd, err, "", stderr.String())
	for _, text := range seqs {
		seq, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "it acknowledged %q", text)
		require.Greater(t, seq, h.lastSeq, "a sequence number was given twice")
		h.lastSeq = seq
	}
	require.LessOrEqual(t, base+len(seqs), h.ops(), "more was acknowledged than submitted")
	if len(seqs) > 0 {
		h.known = base + len(seqs)
	}
	return o, len(seqs)
}

// feed is what goes in and comes out of a running load.
type feed struct {
	base  int // ops in the history before
	mu    sync.Mutex
	moved sync.Cond
	acked int
	ended bool // nothing more comes out
}

// submit writes commits until there have been enough or nobody reads them.
func (f *feed) submit(w io.Writer, h *history, l load) {
	for n := 0; l.commits == 0 || n < l.commits; n++ {
		var c *commit
		if l.small {
			c = h.add(1+h.rnd.IntN(4), h.rnd.IntN(100))
		} else {
			c = h.next()
		}
		if _, err := io.WriteString(w, c.input()); err != nil {
			return
		}
		f.mu.Lock()
		for l.window > 0 && c.upTo-f.base-f.acked >= l.window && !f.ended {
			f.moved.Wait()
		}
		gone := f.ended
		f.mu.Unlock()
		if gone {
			return
		}
	}
}

// collect reads what is acknowledged, one sequence number a line. The last line
// of a process that was killed may lack its end, and then is no acknowledgement.
func (f *feed) collect(r io.Reader, onAck func(acked int)) (seqs []string) {
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadString('\n')
		f.mu.Lock()
		if err == nil {
			f.acked++
		}
		f.ended = err != nil
		f.moved.Broadcast()
		f.mu.Unlock()
		if err != nil {
			return seqs
		}
		seqs = append(seqs, strings.TrimSuffix(line, "\n"))
		onAck(len(seqs))
	}
}

// goesOn makes sure that the store takes writes again, keeps them, and is whole.
func (h *history) goesOn(t testing.TB, dir string) {
	t.Helper()
	h.check(t, dir)
	o, _ := load{dir: dir, binary: plain, commits: 3}.run(t, h)
	require.Zero(t, o.code, "the store takes no more writes: %s", o.stderr)
	h.complete(t, dir)
}
