//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A program that writes the next op only once the last one is acknowledged hears
// of a write that fails: load and append end at once, and don't wait for input
// that never comes.
func TestFailureEndsALoadThatWaitsForInput(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	annals := filepath.Join(t.TempDir(), "annals")
	if err := os.Symlink(exe, annals); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"load DIR --ack", "load DIR --ack --sync 1ms", "load DIR", "append DIR s --ack"} {
		t.Run(verb, func(t *testing.T) {
			verb = strings.Replace(verb, "DIR", filepath.Join(t.TempDir(), "d"), 1)
			cmd := exec.Command("sh", "-c", "ulimit -f 8; exec "+annals+" "+verb) // no file above 8 KiB
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(stdin, `{"key":"k","txt":"`+strings.Repeat("x", 20<<10)+`"}`+"\n"); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { cmd.Wait(); close(ended) }()
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				cmd.Process.Kill()
				t.Fatal("it waits for more input")
			}
			if cmd.ProcessState.ExitCode() != exitError || !strings.Contains(stderr.String(), "file too large") {
				t.Errorf("%v: %s", cmd.ProcessState, &stderr)
			}
		})
	}
}
