package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the command itself, under several names, a program that the
// scripts can run.
func TestMain(m *testing.M) {
	// Under the race detector every process would wait a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	testscript.Main(m, map[string]func(){
		"annals":              main,
		"annals-unprivileged": func() { dropPrivileges(); main() },
		"journal-harness":     harnessMain,
	})
}

// TestScripts runs testdata/script: every verb, and wrong use of every verb. The
// commands that only these scripts have are in script_commands_test.go.
func TestScripts(t *testing.T) {
	fixtures, err := filepath.Abs("testdata/article")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                scriptCommands,
		Setup: func(env *testscript.Env) error {
			env.Setenv("ARTICLE", fixtures)
			env.Setenv("RUNS", filepath.Join(filepath.Dir(fixtures), "runs"))
			env.Setenv("GORACE", os.Getenv("GORACE"))
			env.Values[writerKey{}] = &writer{}
			// So that a process without privileges fails where the script says.
			return os.Chmod(filepath.Dir(env.WorkDir), 0o755)
		},
	})
}
