package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The exit statuses.
const (
	exitDone  = 0
	exitNo    = 1 // the answer is no
	exitError = 2
)

// noError is an answer, not a failure: the command was carried out and what was
// asked for is not so.
type noError struct{ message string }

func (e *noError) Error() string { return e.message }

func answerNo(format string, args ...any) error {
	return &noError{fmt.Sprintf(format, args...)}
}

// hintError adds to an error what one can do about it.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

func withHint(err error, format string, args ...any) error {
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// usageError is the answer to a command line that makes no sense.
func usageError(cmd *cobra.Command, err error) error {
	hint := fmt.Sprintf("usage: %s", cmd.UseLine())
	if strings.Contains(err.Error(), "unknown shorthand flag") {
		hint += "\nput -- before words that begin with a dash and are no flags"
	}
	return withHint(err, "%s\n%s --help says more", hint, cmd.CommandPath())
}

// flagError says what a flag takes. The flag library says what it failed to do, in words
// of its own.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	flag, cause := invalid.GetFlag(), invalid.Unwrap().Error()
	if strings.HasPrefix(cause, "must be ") { // it is a flag of ours
		return fmt.Errorf("--%s %s, not %q", flag.Name, cause, invalid.GetValue())
	}
	wants, ok := map[string]string{
		"bool":     "must be true or false",
		"uint64":   "must be a whole number from 0 to 18446744073709551615",
		"int":      "must be a whole number",
		"float64":  "must be a number",
		"duration": "must be a time such as 500ms, 10s or 2h",
	}[flag.Value.Type()]
	if !ok {
		return fmt.Errorf("--%s %q: %s", flag.Name, invalid.GetValue(), cause)
	}
	return fmt.Errorf("--%s %s, not %q", flag.Name, wants, invalid.GetValue())
}

// explain adds to an error of the store in dir what one can do about it.
func explain(err error, dir string) error {
	var hinted *hintError
	switch {
	case err == nil || errors.As(err, &hinted):
		return err
	case errors.Is(err, annals.ErrLocked):
		return withHint(err, "one process writes a store at a time; get, scan, samples, tail, stats, verify, export and backup work beside it")
	case errors.Is(err, annals.ErrCorrupt):
		return withHint(err, "%s", repairHint(dir))
	case errors.Is(err, annals.ErrSharedDir):
		return withHint(err, "reading needs no such permission")
	case errors.Is(err, annals.ErrNewerFormat):
		return withHint(err, "use the version of annals that wrote it, or a later one")
	case errors.Is(err, annals.ErrFailed):
		return withHint(err, "look at the disk; the next command that writes to the store recovers it")
	case errors.Is(err, annals.ErrCompacted):
		return withHint(err, "annals scan and annals samples give what is there now; annals tail goes on from the number above")
	case errors.Is(err, annals.ErrNotStore) && !isFree(dir):
		return withHint(err, "a new store needs a directory that is empty or not there yet")
	case errors.Is(err, annals.ErrNotStore):
		return withHint(err, "annals put %q KEY VALUE makes a new store there", dir)
	}
	return err
}

func repairHint(dir string) string {
	return fmt.Sprintf("annals verify %q lists all the damage; annals repair %q NEWDIR saves everything else", dir, dir)
}

// isFree reports whether a store could be made in dir: it is missing or empty.
func isFree(dir string) bool {
	entries, err := os.ReadDir(dir)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0
}

// messageText is an error's message as it may stand on standard error. The store's
// errors begin with its name, and wrap others that do. Errors of the system name files
// as they are, and several errors are joined by newlines: neither may write on the
// terminal by itself, or forge a line.
func messageText(message string) string {
	message = optionFlags.Replace(message)
	message = strings.TrimPrefix(strings.ReplaceAll(": "+message, ": annals: ", ": "), ": ")
	return plain(strings.ReplaceAll(message, "\n", "; "))
}

// optionFlags names the flags that set the store's options. What a value must not exceed
// is told before the store sees it by the verbs that have a flag for that.
var optionFlags = strings.NewReplacer(
	"Options.SegmentSize", "--segment-size",
	" (Options.MaxValue)", "",
	"Options.MaxValue", "--max-value",
	"Options.Retention.", "--keep ",
	"Options.AllowSharedDir", "--shared-dir",
	"Options.AllowNetworkFS", "--network-fs",
)

func failureText(err error) string { return messageText(err.Error()) }

// report prints the outcome of a command and returns its exit status. A reader
// that had enough, as in `annals scan data | head`, is no error.
func report(stderr io.Writer, err error) int {
	if err == nil || errors.Is(err, errReaderGone) {
		return exitDone
	}
	message, suggestions, _ := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	if errors.Is(err, context.Canceled) {
		message = strings.Replace(message, context.Canceled.Error(), "interrupted", 1)
	}
	fmt.Fprintf(stderr, "annals: %s\n", messageText(message))
	if names := strings.Fields(suggestions); len(names) > 0 {
		fmt.Fprintf(stderr, "  did you mean %s?\n", plain(strings.Join(names, ", or ")))
	}
	var hinted *hintError
	if errors.As(err, &hinted) {
		for line := range strings.Lines(hinted.hint) {
			fmt.Fprintf(stderr, "  %s\n", plain(strings.TrimSuffix(line, "\n")))
		}
	}
	var no *noError
	if errors.As(err, &no) {
		return exitNo
	}
	return exitError
}
