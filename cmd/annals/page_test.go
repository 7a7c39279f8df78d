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

// A block is a piece of code in a page, behind a comment that names it:
// <!-- test: NAME -->.
type block struct {
	name     string
	language string
	text     string
}

var blockPattern = regexp.MustCompile("(?s)<!-- test: ([^\n]*?) -->\n+```(\\w+)\n(.*?)```")

// blocks finds the named blocks of a page of this repository.
func blocks(t *testing.T, page string) (list []block) {
	t.Helper()
	text, err := os.ReadFile("../../" + page)
	must(t, err)
	for _, m := range blockPattern.FindAllStringSubmatch(string(text), -1) {
		list = append(list, block{name: m[1], language: m[2], text: m[3]})
	}
	return list
}

// pageBlock is one block of docs/recorder.md.
func pageBlock(t *testing.T, language, name string) string {
	t.Helper()
	for _, b := range blocks(t, "docs/recorder.md") {
		if b.language == language && strings.HasPrefix(b.name, name) {
			return b.text
		}
	}
	t.Fatalf("docs/recorder.md has no block %q in %s", name, language)
	return ""
}

// TestRecorderPageWorks runs the shell blocks of docs/recorder.md as a newcomer does,
// one after the other in one directory.
func TestRecorderPageWorks(t *testing.T) {
	for _, name := range []string{"sh", "jq", "python3", "grep"} {
		tool(t, name)
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "producer.py"), []byte(pageBlock(t, "python", "producer")), 0o600))
	ran := 0
	for _, b := range blocks(t, "docs/recorder.md") {
		if b.name != "sh" {
			continue
		}
		for command := range strings.Lines(b.text) {
			stdout, stderr, err := runShell(t, dir, command)
			switch {
			case err != nil:
				t.Errorf("%s%v: %s", command, err, stderr)
			case stdout == "" && !strings.Contains(command, ">") && !regexp.MustCompile(`^(annals (record|ingest)|mkdir|python3|seq)|--svg`).MatchString(command):
				t.Errorf("%sprints nothing", command)
			default:
				ran++
			}
		}
	}
	if ran < 10 {
		t.Errorf("only %d commands were run", ran)
	}
}

// runShell runs a command line in a directory, with annals on the path.
func runShell(t *testing.T, dir, line string) (stdout, stderr string, err error) {
	t.Helper()
	bin := filepath.Join(dir, ".bin")
	if err := os.Mkdir(bin, 0o700); err == nil {
		exe, err := os.Executable()
		must(t, err)
		must(t, os.Symlink(exe, filepath.Join(bin, "annals"))) // by which TestMain knows what to be
	}
	cmd := exec.Command("sh", "-e", "-c", line)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "TZ=UTC")
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Run()
	return out.String(), complaint.String(), err
}

// The command in the unit file works, and so does the unit file.
func TestUnitFileWorks(t *testing.T) {
	unit := pageBlock(t, "ini", "unit")
	line := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/(annals record) (\S+) (.*)$`).FindStringSubmatch(unit)
	if line == nil {
		t.Fatalf("no ExecStart in\n%s", unit)
	}
	dir := t.TempDir()
	if _, stderr, err := runShell(t, dir, line[1]+" machine "+line[3]+" --for 1100ms"); err != nil || stderr != "" {
		t.Errorf("%v: %s", err, stderr)
	}
	if stdout, _, err := runShell(t, dir, "annals samples machine load"); err != nil || stdout == "" {
		t.Errorf("it has recorded nothing: %v", err)
	}
	analyze := tool(t, "systemd-analyze")
	path := filepath.Join(dir, "annals-recorder.service")
	must(t, os.WriteFile(path, []byte(strings.Replace(unit, "/usr/local/bin/annals", "/bin/sh", 1)), 0o600)) // which is there
	if out, err := exec.Command(analyze, "verify", path).CombinedOutput(); err != nil || strings.Contains(string(out), "annals-recorder.service:") {
		t.Errorf("%v: %s", err, out)
	}
}

// recipeStore is what the recipes of the README are run on.
const recipeStore = `{"key":"user:1","val":{"name":"Ann","age":41}}
{"key":"user:2","val":{"name":"Bob","age":7}}
{"key":"user:1","val":{"name":"Ann","age":42}}
{"ser":"cpu","at":1732284000,"val":{"busy_pct":12.5}}
{"ser":"cpu","at":1732284001,"val":{"busy_pct":97.5}}
{"ser":"cpu","at":1732284002,"val":{"busy_pct":40}}
{"ser":"text","at":1732284003,"txt":"no JSON"}
`

// recipes are the README's, by what they say they do, and what they must print.
var recipes = map[string]string{
	"the last lines of a series, as they lie on the disk": `{"seq":5,"ser":"cpu","at":1732284001.000000,"val":{"busy_pct":97.5}} 
{"seq":6,"ser":"cpu","at":1732284002.000000,"val":{"busy_pct":40}} 
`,
	"what a key was, and when": `1 {"name":"Ann","age":41}
3 {"name":"Ann","age":42}
`,
	"a series straight from the files": `[1732284000,12.5]
[1732284001,97.5]
[1732284002,40]
`,
	"when it was busy":         "2024-11-22T14:00:01Z\n",
	"the mean and the maximum": "[50,97.5]\n",
	"a table":                  "1732284000\t12.5\n1732284001\t97.5\n1732284002\t40\n",
	"the names of adults":      "Ann\n",
	"everybody a year older": `{"key":"user:1","val":{"name":"Ann","age":43}}
{"key":"user:2","val":{"name":"Bob","age":8}}
`,
}

// TestReadmeRecipesWork runs each recipe of the README on a store and compares what
// it prints.
func TestReadmeRecipesWork(t *testing.T) {
	for _, name := range []string{"sh", "jq", "grep", "sed"} {
		tool(t, name)
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "ops"), []byte(recipeStore), 0o600))
	if _, stderr, err := runShell(t, dir, "annals load data ops"); err != nil {
		t.Fatal(err, stderr)
	}
	seen := map[string]bool{}
	what := ""
	for _, b := range blocks(t, "README.md") {
		for line := range strings.Lines(b.text) {
			if comment, found := strings.CutPrefix(strings.TrimSpace(line), "# "); found {
				what = comment
				continue
			}
			want, known := recipes[what]
			if !known || seen[what] {
				t.Errorf("recipe without a test: %s", line)
				continue
			}
			seen[what] = true
			stdout, stderr, err := runShell(t, dir, line)
			// Whether a line tells what is durable before it is a matter of speed.
			stdout = regexp.MustCompile(`(?m)("dur":\d+,)|[0-9a-f]{8}$`).ReplaceAllString(stdout, "")
			if err != nil || stderr != "" || stdout != want {
				t.Errorf("%s\n%v: %s\ngot:\n%swant:\n%s", line, err, stderr, stdout, want)
			}
		}
	}
	for what := range recipes {
		if !seen[what] {
			t.Errorf("the README has no recipe for %q", what)
		}
	}
}
