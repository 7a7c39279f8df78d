package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// hostile is what may stand in a key, a value or a file's name to fool whoever looks
// at it: it colours, clears and renames the terminal, forges a line, and hides text.
const hostile = "x\x1b[31mred\x1b]0;title\x07\rforged\u009b2J\u202egpj.exe\x7f"

// acts reports whether a terminal acts upon the character.
func acts(r rune) bool {
	return r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}

// harmless runs the command as a process of its own and returns what it printed. Its
// standard error must be harmless whatever it is told.
func harmless(t *testing.T, stdin string, args ...string) (stdout string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Args = append([]string{"annals"}, args...) // by which TestMain knows what to be
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Run()
	text := complaint.String()
	if strings.ContainsFunc(text, acts) || !utf8.ValidString(text) {
		t.Errorf("annals %q: %v: standard error holds what a terminal acts upon: %q", args, err, text)
	}
	if strings.Contains(text, "\nforged") {
		t.Errorf("annals %q: standard error has a forged line: %q", args, text)
	}
	if err != nil && text == "" {
		t.Errorf("annals %q: %v, and not a word", args, err)
	}
	return out.String()
}

// S14: whatever keys, file names, damaged lines and ops hold, standard error gets it
// quoted, and so do reports.
func TestSecurityStandardErrorIsHarmless(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, hostile)
	good := filepath.Join(dir, "good")
	file := filepath.Join(dir, hostile+"\nforged.csv")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, hostile+",b\n1,2\n"+hostile+"\n")
	harmless(t, hostile, "put", store, hostile)
	harmless(t, hostile, "put", good, "k")
	for _, args := range [][]string{
		{"put", store, hostile, "v", "--if-absent", "--verbose"}, {"put", store, hostile, "v", "--if-seq", "99"},
		{"get", store, hostile + "?"}, {"get", store, "--k64", hostile}, {"delete", store, hostile + "?"},
		{"get", filepath.Join(dir, "no", hostile), "k"}, {"verify", filepath.Join(dir, hostile+"?")},
		{"scan", file}, {"put", file, "k", "v"}, {"put", filepath.Join(file, "below"), "k", "v"},
		{"backup", store, store}, {"repair", store, store}, {"load", good, filepath.Join(dir, hostile+"?")}, {"load", good, store},
		{"import", good, file, "--format", "csv", "--series", hostile}, {"import", good, file, "--format", "article"},
		{"import", good, file, "--format", "jsonl"}, {"import", good, file, "--format", hostile},
		{hostile}, {"--" + hostile}, {"-" + hostile}, {"get", store, "k", hostile}, {"samples", store, "s", "--since", hostile},
		{"put", store, "k", "v", "--sync=" + hostile}, {"load", good, "--segment-size", hostile}, {"tail", store, "--from", hostile},
		{"completion", hostile}, {"help", hostile},
	} {
		harmless(t, "", args...)
	}
	for _, op := range []string{
		hostile, `{"` + hostile + `":1}`, `{"key":"a","` + "\u009b\x7f" + `":1}`, `{"key":"a","val":1,"exp":"` + "\u009b" + `"}`,
		`{"key":"a","b64":"` + "\u202e" + `"}`, `{"ser":"` + strings.Repeat("\u009b", 200) + `","val":1}`, `{"key":"a","val":` + hostile + `}`,
	} {
		harmless(t, op+"\n", "load", good)
		harmless(t, op+"\n", "import", good, "-", "--format", "jsonl")
	}

	// Reports are text too; the store's own name stands in them.
	for _, damage := range []func(){
		func() {},
		func() { write(filepath.Join(store, "LOCK"), hostile+"\n") },
		func() { write(filepath.Join(store, "00000000000000000077.log"), hostile) },
		func() { write(filepath.Join(store, "00000000000000000001.log"), hostile+"\n"+hostile) },
		func() { write(filepath.Join(store, "MANIFEST"), hostile) },
		func() { write(filepath.Join(store, "quarantine"), hostile) },
	} {
		damage()
		for _, verb := range []string{"verify", "stats", "scan", "compact", "export"} {
			out := harmless(t, "", verb, store)
			if verb != "scan" && verb != "export" && strings.ContainsFunc(out, acts) {
				t.Errorf("%s prints %q", verb, out)
			}
		}
		harmless(t, "", "repair", store, filepath.Join(dir, hostile, "repaired"))
	}
}

// S14: a program that reads the output gets every byte; a line is one line.
func TestSecurityOutputForProgramsIsExact(t *testing.T) {
	store := filepath.Join(t.TempDir(), "d")
	harmless(t, hostile, "put", store, hostile)
	if got := harmless(t, "", "get", store, hostile, "--raw"); got != hostile {
		t.Errorf("get gives %q", got)
	}
	out := harmless(t, "", "scan", store)
	if strings.ContainsFunc(out, func(r rune) bool { return r < 0x20 && r != '\n' }) || strings.Count(out, "\n") != 1 {
		t.Errorf("scan prints %q", out)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	harmless(t, out, "load", copied)
	if got := harmless(t, "", "get", copied, hostile, "--raw"); got != hostile {
		t.Errorf("the copy holds %q", got)
	}
}

// A character may come in two pieces.
func TestTerminalGetsNothingToActUpon(t *testing.T) {
	text := hostile + "\n\tÄ €  \U0001f600 \xff\x9b" + `{"a":"b"}`
	want := `x\u001b[31mred\u001b]0;title\u0007\u000dforged\u009b2J\u202egpj.exe\u007f` + "\n\tÄ €  \U0001f600 " + `\xff\x9b{"a":"b"}`
	for size := 1; size < 10; size++ {
		var got bytes.Buffer
		w := &terminalWriter{w: &got}
		for rest := []byte(text); len(rest) > 0; {
			n := min(size, len(rest))
			if written, err := w.Write(rest[:n]); written != n || err != nil {
				t.Fatal(written, err)
			}
			rest = rest[n:]
		}
		if got.String() != want {
			t.Errorf("in pieces of %d bytes: %q, want %q", size, got.String(), want)
		}
	}
}
