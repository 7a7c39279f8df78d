// Command annals works with annals stores from the command line: it writes and
// reads keys and series, follows what another process writes, checks, copies and
// repairs stores, takes logs in from elsewhere, and records the machine it runs on.
//
// Data goes to standard output, one JSON object a line; everything else goes to
// standard error. The exit status is 0 for done, 1 for an answer that is no (no
// such key, damage found), 2 for wrong use and for errors. `annals help` lists the
// verbs; each has a file of its own here.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	// The first signal asks the verb to end cleanly. From then on signals have
	// their usual effect, so that a second one kills.
	context.AfterFunc(ctx, stop)
	catchBrokenPipe()
	os.Exit(run(ctx, os.Args[1:]))
}

// run does what the arguments say and returns the exit status.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	return report(os.Stderr, root.ExecuteContext(ctx))
}
