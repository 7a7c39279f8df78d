package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Whoever asks for help gets an example that runs, also of the arguments.
func TestEveryVerbHasAnExample(t *testing.T) {
	verbs := newRoot().Commands()
	if len(verbs) < 19 {
		t.Fatalf("only %d verbs", len(verbs))
	}
	for _, verb := range verbs {
		if verb.Short == "" || verb.GroupID == "" {
			t.Errorf("%s: no short help, or no group", verb.Name())
		}
		if !strings.Contains(verb.Example, "  annals "+verb.Name()) && !strings.Contains(verb.Example, "| annals "+verb.Name()) {
			t.Errorf("%s: the example shows something else:\n%s", verb.Name(), verb.Example)
		}
	}
}

// Every flag of every verb, given what it does not take, is named, with what was given
// and what it takes, in words that say nothing of Go.
func TestMisusedFlagsAreNamed(t *testing.T) {
	refused := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		cmd.InheritedFlags() // adds those of the root
		cmd.Flags().VisitAll(func(flag *pflag.Flag) {
			for _, value := range []string{"-1", "x", "99999999999999999999", "("} {
				err := cmd.ParseFlags([]string{"--" + flag.Name + "=" + value})
				if err == nil {
					continue
				}
				refused++
				var message bytes.Buffer
				if status := report(&message, cmd.FlagErrorFunc()(cmd, err)); status != exitError {
					t.Errorf("%s: status %d", cmd.CommandPath(), status)
				}
				line, _, _ := strings.Cut(message.String(), "\n")
				if !strings.HasPrefix(line, "annals: --"+flag.Name+" ") || !strings.Contains(line, strconv.Quote(value)) || speaksGo(line) {
					t.Errorf("%s --%s=%s: %s", cmd.CommandPath(), flag.Name, value, line)
				}
			}
		})
	}
	walk(newRoot())
	if refused < 300 {
		t.Errorf("only %d flags were refused", refused)
	}
}

func speaksGo(message string) bool {
	for _, word := range []string{"strconv", "parsing", "invalid", "time: ", "Options", "Parse"} {
		if strings.Contains(message, word) {
			return true
		}
	}
	return false
}

// What the store says of its options is told in terms of the flags. Options that no flag
// sets can't be set wrongly.
func TestMessagesNameFlagsNotOptions(t *testing.T) {
	files, err := filepath.Glob("../../*.go")
	must(t, err)
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		must(t, err)
		ast.Inspect(tree, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING || !strings.Contains(literal.Value, "Options.") {
				return true
			}
			found++
			told := messageText(literal.Value)
			for _, unset := range []string{"Checkpoint", "History", "Sync is", "Compaction"} {
				told = strings.ReplaceAll(told, "Options."+unset, "")
			}
			if strings.Contains(told, "Options.") {
				t.Errorf("%s: %s", file, told)
			}
			return true
		})
	}
	if found < 8 {
		t.Errorf("only %d messages speak of options", found)
	}
}
