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
	input := `{"key":"k","txt":"` + strings.Repeat("x", 20<<10) + `"}` + "\n"
	for _, verb := range []string{"load DIR --ack", "load DIR --ack --sync 1ms", "load DIR", "append DIR s --ack"} {
		t.Run(verb, func(t *testing.T) { endsWithoutRoom(t, verb, input) })
	}
}

// A failure ends all ops that are under way, and not one after the other: with
// --sync 1s each of them waited a second for a sync that could not come.
func TestFailureEndsAllOpsUnderWay(t *testing.T) {
	input := strings.Repeat(`{"key":"k","txt":"some words that are written again and again"}`+"\n", 2000)
	for _, verb := range []string{"load DIR --ack --sync 1s", "load DIR --ack --sync never", "append DIR s --ack --sync 1s"} {
		t.Run(verb, func(t *testing.T) { endsWithoutRoom(t, verb, input) })
	}
}

// endsWithoutRoom runs annals where no file can be larger than 8 KiB and gives it
// input whose end does not come. It must end with a message.
func endsWithoutRoom(t *testing.T, verb, input string) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	annals := filepath.Join(t.TempDir(), "annals")
	if err := os.Symlink(exe, annals); err != nil {
		t.Fatal(err)
	}
	verb = strings.Replace(verb, "DIR", filepath.Join(t.TempDir(), "d"), 1)
	cmd := exec.Command("sh", "-c", "ulimit -f 8; exec "+annals+" "+verb)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go io.WriteString(stdin, input)
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		cmd.Process.Kill()
		t.Fatal("it does not end")
	}
	if cmd.ProcessState.ExitCode() != exitError || !strings.Contains(stderr.String(), "file too large") {
		t.Errorf("%v: %s", cmd.ProcessState, &stderr)
	}
}
