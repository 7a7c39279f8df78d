//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The commands of the README's section on runs do what it says, in a package with a
// benchmark, for which less time will do here.
func TestReadmeCommandsOfRunsWork(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(readme), "\n## A journal for benchmark runs\n")
	block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(section)
	if !found || block == nil {
		t.Fatal("README.md has no commands in that section")
	}
	script := block[1]
	_, err = exec.LookPath("jq")
	hasJQ := err == nil
	if !hasJQ { // the last line is for those who have it
		script = script[:strings.LastIndex(strings.TrimSpace(script), "\n")]
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.Symlink(exe, filepath.Join(bin, "annals")); err != nil {
		t.Fatal(err)
	}
	writeBenchPackage(t, dir)
	cmd := exec.Command("sh", "-e", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-benchtime=1ms", "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		`(?m)^v1\.3: 36 results$`, `(?m)^v1\.4: 36 results$`, `(?m)^A\S* .*p=[01]\.`, `(?m)^geomean `, `(?m)^RUN +RESULTS`, `(?m)^v1\.4 +36 `,
		`sec/op, medians by run`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("the commands print no %s:\n%s", want, out)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^\{"ns/op":[0-9.]+,"MB/s":[0-9.]+\}$`).FindAll(out, -1)); hasJQ && n != 36 {
		t.Errorf("jq shows %d results, want 36", n)
	}
	text, err := os.ReadFile(filepath.Join(dir, "v1.4.txt"))
	if err != nil || strings.Count(string(text), "\nBenchmark") != 36 {
		t.Errorf("v1.4.txt holds %q, %v", text, err)
	}
}
