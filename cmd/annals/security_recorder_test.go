//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// S14: neither the names nor the contents of what other programs drop, nor what commands
// print, act upon the terminal that shows messages, or forge a line of them.
func TestSecurityMessagesOfIntakeAndRecorderAreHarmless(t *testing.T) {
	dir := t.TempDir()
	store, spool := filepath.Join(dir, "d"), filepath.Join(dir, hostile)
	must(t, os.Mkdir(spool, 0o700))
	must(t, os.WriteFile(filepath.Join(spool, hostile+"\nforged"), []byte(`{"`+hostile+`":1}`), 0o600))
	must(t, os.WriteFile(filepath.Join(spool, "text"), []byte(hostile), 0o600))
	harmless(t, "", "ingest", store, spool)
	reasons, err := filepath.Glob(filepath.Join(dir, "*", rejectedDir, "*.reason"))
	must(t, err)
	if len(reasons) != 2 {
		t.Errorf("reasons: %q", reasons)
	}
	for _, path := range reasons {
		text, err := os.ReadFile(path)
		must(t, err)
		if strings.ContainsFunc(string(text), acts) {
			t.Errorf("%q holds %q", path, text)
		}
	}
	harmless(t, "", "ingest", store, filepath.Join(spool, "missing"))
	fail := "printf '%b' 'x\\033[31m\\nlast \\033]0;title\\007' >&2; exit 1"
	for _, args := range [][]string{
		{"--exec", hostile + "=" + fail}, {"--exec", hostile + "=printf '\\033[31m'"}, {"--stdin", hostile}, {"--source", hostile}, {"--exec", hostile},
		{"--exec", "a=true", "--source", "a=" + hostile}, {"--spool", filepath.Join(dir, "no"+hostile)},
	} {
		harmless(t, hostile+"\nforged\n", append([]string{"record", store, "--for", "300ms", "--every", "100ms", "--verbose"}, args...)...)
	}
}

// What is planted in a spool does not lead the intake elsewhere: links and pipes are
// no items, and rejected/ is a directory or nothing is rejected.
func TestSecurityPlantedLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	store, spool, secret, elsewhere := filepath.Join(dir, "d"), filepath.Join(dir, "spool"), filepath.Join(dir, "secret"), filepath.Join(dir, "elsewhere")
	must(t, os.Mkdir(spool, 0o700))
	must(t, os.Mkdir(elsewhere, 0o700))
	must(t, os.WriteFile(secret, []byte(`{"key":"secret","val":1}`), 0o600))
	must(t, os.Symlink(secret, filepath.Join(spool, "item")))
	must(t, os.Symlink(elsewhere, filepath.Join(spool, rejectedDir)))
	must(t, os.WriteFile(filepath.Join(spool, "bad"), []byte("bad"), 0o600))
	if out, err := annalsCommand(t, "ingest", store, spool).CombinedOutput(); err == nil || !strings.Contains(string(out), `rejected" is no directory`) {
		t.Errorf("%v: %s", err, out)
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if out := harmless(t, "", "scan", store); strings.Contains(out, "secret") {
		t.Errorf("the store holds %s", out)
	}
}
