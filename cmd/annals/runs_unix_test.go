//go:build unix

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// S14 of security_test.go: names and labels of benchmarks are anybody's, too.
func TestSecurityRunsShowTerminalsNoControlCharacters(t *testing.T) {
	dir := t.TempDir()
	store, file := filepath.Join(dir, "d"), filepath.Join(dir, "lines")
	var lines strings.Builder
	for range 2 {
		name, err := json.Marshal(hostile)
		if err != nil {
			t.Fatal(err)
		}
		lines.WriteString(`{"name":` + string(name) + `,` + string(name) + `:1,"label":` + string(name) + "}\n")
	}
	lines.WriteString(hostile + "\n")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	name := strings.ToValidUTF8(hostile, "")
	config, err := json.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	if shown := onTerminal(t, os.DevNull, false, "runs", "add", store, name, file, "--config", string(config)); strings.ContainsFunc(strings.ReplaceAll(shown, "\r\n", ""), acts) {
		t.Errorf("runs add: the terminal gets %q", shown)
	}
	onTerminal(t, os.DevNull, false, "runs", "add", store, "other", file)
	for _, args := range [][]string{
		{"runs", "list", store}, {"runs", "list", store, "--json"}, {"runs", "show", store, name}, {"runs", "show", store, name, "--json"},
		{"runs", "show", store, name, "--bench"}, {"runs", "compare", store, name, "other"}, {"runs", "compare", store, name, "other", "--json"},
		{"runs", "plot", store},
	} {
		shown := strings.ReplaceAll(onTerminal(t, os.DevNull, true, args...), "\r\n", "\n")
		if strings.ContainsFunc(shown, acts) {
			t.Errorf("%v: the terminal gets %q", args, shown)
		}
	}
}
