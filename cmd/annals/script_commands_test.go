package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptCommands are the commands that the scripts have beside testscript's own.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"exits":     scriptExits,
	"head":      scriptHead,
	"deaf":      scriptDeaf,
	"until":     scriptUntil,
	"manifest":  scriptManifest,
	"replace":   scriptReplace,
	"glue":      scriptGlue,
	"generate":  scriptGenerate,
	"writer":    scriptWriter,
	"interrupt": scriptInterrupt,
	"finish":    scriptFinish,
	"follow":    scriptFollow,
}

// exits STATUS COMMAND ARGS... runs a command that must end with that status.
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits status command [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	if got := exitStatus(ts, err); strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status is %d, must be %s", got, args[0])
	}
}

func exitStatus(ts *testscript.TestScript, err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	ts.Fatalf("%v", err)
	return -1
}

// head N COMMAND ARGS... reads N lines of a command's output and closes the pipe.
// The command must then end with status 0 and without a word.
func scriptHead(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: head count command [args...]")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	if status, stderr := readSome(ts, n, args[1:]); status != 0 || stderr != "" {
		ts.Fatalf("exit status %d, standard error:\n%s", status, stderr)
	}
}

// deaf COMMAND ARGS... reads one acknowledgement and closes the pipe. The command
// must then end with status 2 and say why.
func scriptDeaf(ts *testscript.TestScript, neg bool, args []string) {
	const want = "annals: nobody reads the acknowledgements any more; the "
	if status, stderr := readSome(ts, 1, args); status != 2 || !strings.HasPrefix(stderr, want) {
		ts.Fatalf("exit status %d, standard error:\n%s", status, stderr)
	}
}

// readSome runs a command, reads n lines of its output and closes the pipe.
func readSome(ts *testscript.TestScript, n int, args []string) (status int, stderr string) {
	cmd := command(ts, args[0], args[1:]...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	r := bufio.NewReaderSize(stdout, 16)
	for range n {
		_, err := r.ReadString('\n')
		ts.Check(err)
	}
	ts.Check(stdout.Close())
	status = exitStatus(ts, cmd.Wait())
	return status, complaint.String()
}

// until COMMAND ARGS... runs a command again and again until it succeeds.
func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	for end := time.Now().Add(30 * time.Second); ts.Exec(args[0], args[1:]...) != nil; {
		if time.Now().After(end) {
			ts.Fatalf("%v does not come true", args)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// manifest FILE OLD NEW replaces OLD in the first line of a MANIFEST, and its
// checksum with the right one.
func scriptManifest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: manifest file old new")
	}
	first, rest, _ := strings.Cut(ts.ReadFile(args[0]), "\n")
	object := first[:strings.LastIndexByte(first, ' ')]
	if !strings.Contains(object, args[1]) {
		ts.Fatalf("%s begins with %s", args[0], first)
	}
	object = strings.Replace(object, args[1], args[2], 1)
	content := fmt.Sprintf("%s %08x\n%s", object, crc32.ChecksumIEEE([]byte(object)), rest)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(content), 0o600))
}

// replace FILE OLD NEW replaces the first OLD in a file, which must be there.
func scriptReplace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace file old new")
	}
	content := ts.ReadFile(args[0])
	if !strings.Contains(content, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(content, args[1], args[2], 1)), 0o600))
}

// glue FILE TEXT takes the newline behind the first line that holds TEXT away.
func scriptGlue(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: glue file text")
	}
	before, after, found := strings.Cut(ts.ReadFile(args[0]), args[1])
	rest, next, whole := strings.Cut(after, "\n")
	if !found || !whole {
		ts.Fatalf("%s has no line with %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(before+args[1]+rest+next), 0o600))
}

// generate FILE COUNT FORMAT writes lines with the numbers from 1 on.
func scriptGenerate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: generate file count format")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, args[2]+"\n", i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o600))
}

// A writer is a process that writes to a store and is still there.
type writer struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	acks   *bufio.Reader
	stderr *bytes.Buffer
}

type writerKey struct{}

// writer DIR [FLAGS...] starts `annals load --ack` and leaves it running, with one
// key, "first", written and acknowledged. $WRITER is its process id.
func scriptWriter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: writer dir [flags...]")
	}
	w := ts.Value(writerKey{}).(*writer)
	w.cmd = command(ts, "annals", append([]string{"load", "--ack"}, args...)...)
	w.stderr = new(bytes.Buffer)
	w.cmd.Stderr = w.stderr
	var err error
	w.stdin, err = w.cmd.StdinPipe()
	ts.Check(err)
	stdout, err := w.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(w.cmd.Start())
	ts.Defer(func() { w.cmd.Process.Kill(); w.cmd.Wait() }) // if the script fails before finish
	timer := time.AfterFunc(30*time.Second, func() { w.cmd.Process.Kill() })
	defer timer.Stop() // it never waits for more input before it acknowledges
	w.acks = bufio.NewReader(stdout)
	fmt.Fprintln(w.stdin, `{"key":"first","val":1}`)
	if _, err := w.acks.ReadString('\n'); err != nil {
		ts.Fatalf("no acknowledgement: %v: %s", err, w.stderr)
	}
	ts.Setenv("WRITER", strconv.Itoa(w.cmd.Process.Pid))
}

// finish [kill] ends the writer: by the end of its input, which must give status 0,
// or by SIGKILL.
func scriptFinish(ts *testscript.TestScript, neg bool, args []string) {
	w := ts.Value(writerKey{}).(*writer)
	if len(args) > 0 && args[0] == "kill" {
		ts.Check(w.cmd.Process.Kill())
		w.cmd.Wait()
		return
	}
	ts.Check(w.stdin.Close())
	if status := exitStatus(ts, w.cmd.Wait()); status != 0 {
		ts.Fatalf("exit status %d: %s", status, w.stderr)
	}
}

// interrupt SIGNAL sends the writer a signal in the middle of a stream of ops that
// does not end. It must end with status 2 and say how many ops are durable, and
// must have acknowledged all of these; $ACKED is how many.
func scriptInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"SIGINT": os.Interrupt, "SIGTERM": syscall.SIGTERM}
	if neg || len(args) != 1 || signals[args[0]] == nil {
		ts.Fatalf("usage: interrupt SIGINT|SIGTERM")
	}
	w := ts.Value(writerKey{}).(*writer)
	go func() {
		out := bufio.NewWriter(w.stdin)
		for n := 0; ; n++ {
			if _, err := fmt.Fprintf(out, `{"key":"k%08d","val":%d}`+"\n", n, n); err != nil {
				return // it has ended
			}
		}
	}()
	timer := time.AfterFunc(30*time.Second, func() { w.cmd.Process.Kill() })
	defer timer.Stop()
	acked := 1 // "first"
	for {
		if _, err := w.acks.ReadString('\n'); err != nil {
			break
		}
		if acked++; acked == 100 {
			ts.Check(w.cmd.Process.Signal(signals[args[0]]))
		}
	}
	status := exitStatus(ts, w.cmd.Wait())
	want := fmt.Sprintf("annals: interrupted; the %d ops before that are durable\n", acked)
	if status != 2 || w.stderr.String() != want || acked < 100 {
		ts.Fatalf("exit status %d after %d acknowledgements, standard error:\n%s", status, acked, w.stderr)
	}
	ts.Setenv("ACKED", strconv.Itoa(acked))
}

// follow COUNT DIR COMMAND ARGS... starts `annals tail --follow` on DIR, then runs
// the command, and ends the tail with Ctrl-C once it has shown COUNT lines; it must
// end with status 0. Its output is what stdout checks afterwards.
func scriptFollow(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: follow count dir command [args...]")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	tail := command(ts, "annals", "tail", "--follow", args[1])
	var stderr bytes.Buffer
	tail.Stderr = &stderr
	stdout, err := tail.StdoutPipe()
	ts.Check(err)
	ts.Check(tail.Start())
	timer := time.AfterFunc(30*time.Second, func() { tail.Process.Kill() })
	defer timer.Stop()
	r := bufio.NewReader(stdout)
	var shown strings.Builder
	read := func() {
		line, err := r.ReadString('\n')
		if err != nil {
			ts.Fatalf("tail ended: %v: %s\nafter:\n%s", tail.Wait(), stderr.String(), shown.String())
		}
		shown.WriteString(line)
	}
	read() // the tail is up
	if status := exitStatus(ts, command(ts, args[2], args[3:]...).Run()); status != 0 {
		ts.Fatalf("exit status %d", status)
	}
	for range n - 1 {
		read()
	}
	ts.Check(tail.Process.Signal(os.Interrupt))
	rest, err := io.ReadAll(r)
	ts.Check(err)
	if status := exitStatus(ts, tail.Wait()); status != 0 || stderr.Len() > 0 {
		ts.Fatalf("exit status %d, standard error:\n%s", status, stderr.String())
	}
	fmt.Fprintf(ts.Stdout(), "%s%s", shown.String(), rest)
}

// command is a command in the script's directory and environment.
func command(ts *testscript.TestScript, name string, args ...string) *exec.Cmd {
	path, err := exec.LookPath(name) // testscript.Main has put its commands on the path
	ts.Check(err)
	cmd := exec.Command(path, args...)
	cmd.Dir = ts.MkAbs(".")
	return cmd
}
