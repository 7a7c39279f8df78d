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

	"github.com/creack/pty"
)

// onTerminal runs annals with a file as standard input and with standard error, or
// standard output, on a terminal, and returns what the terminal got.
func onTerminal(t *testing.T, stdin string, stdout bool, args ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	control, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	input, err := os.Open(stdin)
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	cmd := exec.Command(exe)
	cmd.Stdin = input
	cmd.Args = append([]string{"annals"}, args...) // by which TestMain knows what to be
	var stderr bytes.Buffer
	if cmd.Stderr = terminal; stdout {
		cmd.Stdout, cmd.Stderr = terminal, &stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	shown, err := io.ReadAll(control)
	if len(shown) == 0 {
		t.Errorf("%v: the terminal shows nothing: %v", args, err) // the end of a terminal is an error
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v: %s%s", args, err, shown, stderr.Bytes())
	}
	return string(shown)
}

func TestProgressShowsOnTerminals(t *testing.T) {
	dir := t.TempDir()
	store, ops := filepath.Join(dir, "d"), filepath.Join(dir, "ops")
	if err := os.WriteFile(ops, []byte(strings.Repeat(`{"key":"k","txt":"`+strings.Repeat("x", 1000)+`"}`+"\n", 10_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what string
		args []string
	}{
		{"loading", []string{"load", store, ops, "--sync", "never"}},
		{"appending", []string{"append", store, "s", "--sync", "never"}},
		{"importing", []string{"import", store, ops, "--format", "jsonl", "--sync", "never"}},
		{"verifying", []string{"verify", store}},
		{"copying", []string{"backup", store, filepath.Join(dir, "copy")}},
		{"repairing", []string{"repair", store, filepath.Join(dir, "repaired")}},
		{"compacting", []string{"compact", store}},
	} {
		if shown := onTerminal(t, ops, false, test.args...); !strings.Contains(shown, test.what) {
			t.Errorf("%v: the terminal shows %q", test.args, shown)
		}
	}
}

func TestRecordShowsOneLiveLine(t *testing.T) {
	store := filepath.Join(t.TempDir(), "d")
	shown := onTerminal(t, os.DevNull, false, "record", store, "--every", "20ms", "--for", "200ms")
	if strings.Count(shown, "\r") < 3 || strings.Count(shown, "\n") != 1 || !strings.Contains(shown, "memory") {
		t.Errorf("the terminal shows %q", shown)
	}
}

func TestJSONIsIndentedOnTerminals(t *testing.T) {
	store := filepath.Join(t.TempDir(), "d")
	onTerminal(t, os.DevNull, false, "put", store, "k", "v", "--verbose")
	if shown := onTerminal(t, os.DevNull, true, "stats", store, "--json"); !strings.Contains(shown, "\n  \"keys\": 1") {
		t.Errorf("the terminal shows %q", shown)
	}
}

// S14: what is stored cannot act upon the terminal that shows it.
func TestSecurityTerminalsAreShownNoControlCharacters(t *testing.T) {
	store := filepath.Join(t.TempDir(), "d")
	harmless(t, hostile, "put", store, hostile)
	harmless(t, hostile+"\n", "append", store, "s")
	for _, args := range [][]string{
		{"get", store, hostile}, {"scan", store}, {"tail", store}, {"samples", store, "s"}, {"series", store}, {"export", store},
		{"stats", store}, {"stats", store, "--json"}, {"verify", store}, {"verify", store, "--json"},
	} {
		shown := strings.ReplaceAll(onTerminal(t, os.DevNull, true, args...), "\r\n", "\n") // as terminals end lines
		if strings.ContainsFunc(shown, acts) {
			t.Errorf("%v: the terminal gets %q", args, shown)
		}
	}
	if raw := onTerminal(t, os.DevNull, true, "get", store, hostile, "--raw"); !strings.Contains(raw, "\x1b[31m") {
		t.Errorf("get --raw gives the terminal %q", raw)
	}
}

func TestPlotsAreColouredOnTerminals(t *testing.T) {
	dir := t.TempDir()
	store, ops := filepath.Join(dir, "d"), filepath.Join(dir, "ops")
	if err := os.WriteFile(ops, []byte(`{"ser":"s","at":1,"val":{"a":1,"b":2}}`+"\n"+`{"ser":"s","at":9,"val":{"a":3,"b":4}}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	onTerminal(t, ops, false, "load", store, "--verbose")
	shown := onTerminal(t, os.DevNull, true, "plot", store, "s", "--field", "val.a", "--field", "val.b")
	if !strings.Contains(shown, "\x1b[38;5;") || !strings.Contains(shown, "──\x1b[0m a ") || strings.Contains(shown, "**") {
		t.Errorf("the terminal shows %q", shown)
	}
}
