package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// root is the module's directory, seen from here.
const root = "../.."

func all(t *testing.T) []mutant {
	t.Helper()
	mutants, err := parse(listText)
	require.NoError(t, err)
	return mutants
}

// A mutant whose lines are gone would be run no more, and nobody would know.
func TestEveryMutantFitsTheSource(t *testing.T) {
	for _, m := range all(t) {
		changed, err := m.apply(root)
		assert.NoError(t, err)
		for file, text := range changed {
			_, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
			require.NoError(t, err, m.name)
		}
	}
}

func TestEveryMutantNamesATest(t *testing.T) {
	tests := map[string]bool{}
	for _, m := range all(t) {
		files, err := filepath.Glob(filepath.Join(root, m.test.dir, "*_test.go"))
		require.NoError(t, err)
		for _, path := range files {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok {
					tests[m.test.dir+" "+f.Name.Name] = true
				}
			}
		}
		name, _, _ := strings.Cut(m.test.name, "/")
		require.True(t, tests[m.test.dir+" "+name], "mutant %q: there is no test %s in %s", m.name, name, m.test.dir)
	}
}

func TestTableIsInStep(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, readme))
	require.NoError(t, err)
	want, err := replaceTable(string(page), all(t))
	require.NoError(t, err)
	require.Equal(t, want, string(page), "go run ./fuzz/mutants -write brings the table up to date")
}

// Every promise, and every mutant of the reliability rules' first list is
// there.
func TestEveryPromiseHasAMutant(t *testing.T) {
	rules := map[string]bool{}
	for _, m := range all(t) {
		for _, rule := range strings.Fields(m.rules) {
			require.Regexp(t, regexp.MustCompile(`^([RPSm])[1-9][0-9]?$`), rule, m.name)
			rules[rule] = true
		}
	}
	for n := range 16 {
		require.True(t, rules[fmt.Sprint("P", n+1)], "promise %d", n+1)
	}
	for n := range 30 {
		require.True(t, rules[fmt.Sprint("m", n+1)], "m%d", n+1)
	}
}

func TestParseRefusesWhatIsNoList(t *testing.T) {
	const head = "mutant a\nbug b\nrules R1\ntest . TestA\n"
	for text, want := range map[string]string{
		"bug b\n":                 "no mutant has begun",
		head:                      "lacks",
		head + "-x\n":             "no file was named",
		head + "file f\n":         "changes nothing",
		head + "file f\n-x\n+x\n": "changes nothing",
		head + "file f\n-x\n" + head + "file f\n-x\n": "twice",
		head + "file f\nwhat\n":                       "unknown key",
		head + "end badly\nfile f\n-x\n":              `ends by "badly"`,
		"mutant a\nbug b\ntest . TestA\nfile f\n-x\n": "lacks",
	} {
		_, err := parse(text)
		require.ErrorContains(t, err, want, "%q", text)
	}
	mutants, err := parse("# comment\n" + head + "file f\n-x\n+y\n z\n@@\n-w\nfile g\n+new\n old\n")
	require.NoError(t, err)
	require.Equal(t, []edit{{"f", "x\nz\n", "y\nz\n"}, {"f", "w\n", ""}, {"g", "old\n", "new\nold\n"}}, mutants[0].edits)
}

func TestStaleMutantIsNoticed(t *testing.T) {
	dir := t.TempDir()
	m := mutant{name: "m", edits: []edit{{file: "f", old: "x\n", new: "y\n"}}}
	for text, fits := range map[string]bool{"a\nx\nb\n": true, "x\n": true, "ax\n": false, "x\nx\n": false, "": false} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o600))
		changed, err := m.apply(dir)
		if !fits {
			require.ErrorContains(t, err, "stale")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, strings.Replace(text, "x", "y", 1), changed["f"])
	}
}

// A test that was not run, that is not there or that does not build kills nothing.
func TestJudgeTellsHowATestEnded(t *testing.T) {
	event := func(action, test, output string) string {
		return fmt.Sprintf(`{"Action":%q,"Test":%q,"Output":%q}`+"\n", action, test, output)
	}
	for _, c := range []struct {
		events string
		want   outcome
	}{
		{"", notRun},
		{event("skip", "TestA", ""), notRun},
		{event("pass", "TestB", "") + event("pass", "", ""), notRun},
		{event("pass", "TestA", ""), passed},
		{event("fail", "TestA/b", "") + event("fail", "TestA", ""), failed},
		{event("fail", "TestB", ""), notRun},
		{event("build-fail", "", ""), notBuilt},
		{"# not JSON\n", notBuilt},
		{event("output", "TestA", "panic: oh\n") + event("fail", "TestA", ""), panicked},
		{event("output", "TestA", "panic: test timed out after 10m\n") + event("fail", "TestA", ""), hung},
		{event("output", "TestA", "fatal error: all goroutines are asleep\n") + event("fail", "TestA", ""), panicked},
	} {
		got, _ := judge([]byte(c.events), "TestA", "")
		require.Equal(t, c.want, got, c.events)
	}
}

// Every change of a sweep is made where its switch is on, and nowhere else.
func TestSweepChangesOneThingAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.go")
	require.NoError(t, os.WriteFile(path, []byte(`package p

func f(a, b int) error {
	if a < b && b >= 1 {
		b = min(a, b+1)
	}
	return g(b)
}
`), 0o600))
	s := &sweeper{fset: token.NewFileSet(), file: "f.go"}
	text, pkg, err := s.changeFile(path)
	require.NoError(t, err)
	require.Equal(t, "p", pkg)
	require.Equal(t, `package p

func f(a, b int) error {
	if ((((((sweepLess(5, a , b)) || sweepOn(3)) && ((!sweepLess(6, b , 1)) || sweepOn(4))) && !sweepOn(2))) || sweepOn(1)) {
		if !sweepOn(7) { b = sweepMin(8, a, sweepAdd(9, b+1)) }
	}
	return func() error { if sweepOn(10) { return nil }; return g(b) }()
}
`, string(text))
	require.Len(t, s.changes, 10)
	require.Equal(t, "   9 f.go:5: one less: b+1", s.changes[8].show(9))
}
