package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed list.txt
var listText string

// mutant is one known bug.
type mutant struct {
	name  string
	bug   string // in one line
	rules string // what it breaks: R and m as in the reliability rules, P a promise of DURABILITY.md
	test  test   // which must fail
	end   string // how the test fails: "" by saying so, or "panic" or "hang"
	edits []edit
}

// test is a test with its flags.
type test struct {
	dir   string // of its package, as ./wal
	name  string
	flags string
}

func (t test) String() string { return strings.TrimSpace(t.dir + " " + t.name + " " + t.flags) }

// edit is a change of one file. old stands there exactly once, as whole lines.
type edit struct {
	file     string
	old, new string
}

// parse reads the text of list.txt. An entry is lines of "KEY VALUE" and, behind
// each "file", the change as diff shows it: "-" for a line that goes, "+" for one
// that comes, a space for one that stays, "@@" between two places of a file.
// Lines that begin with # are comments.
func parse(text string) (mutants []mutant, err error) {
	var m *mutant
	var e *edit
	for i, line := range strings.Split(text, "\n") {
		fail := func(why string) ([]mutant, error) {
			return nil, fmt.Errorf("list.txt:%d: %s: %q", i+1, why, line)
		}
		key, value, _ := strings.Cut(line, " ")
		value = strings.TrimSpace(value)
		switch {
		case line == "" || line[0] == '#':
			continue
		case key == "mutant":
			mutants = append(mutants, mutant{name: value})
			m, e = &mutants[len(mutants)-1], nil
			continue
		case m == nil:
			return fail("no mutant has begun")
		case strings.ContainsRune("+- ", rune(line[0])):
			if e == nil {
				return fail("no file was named")
			}
			e.add(line)
			continue
		}
		switch key {
		case "bug":
			m.bug = value
		case "rules":
			m.rules = value
		case "test":
			dir, rest, _ := strings.Cut(value, " ")
			name, flags, _ := strings.Cut(rest, " ")
			m.test = test{dir, name, flags}
		case "end":
			m.end = value
		case "file":
			m.edits = append(m.edits, edit{file: value})
			e = &m.edits[len(m.edits)-1]
		case "@@":
			m.edits = append(m.edits, edit{file: e.file})
			e = &m.edits[len(m.edits)-1]
		default:
			return fail("unknown key")
		}
	}
	return mutants, check(mutants)
}

// add takes one line of a diff.
func (e *edit) add(line string) {
	if line[0] != '+' {
		e.old += line[1:] + "\n"
	}
	if line[0] != '-' {
		e.new += line[1:] + "\n"
	}
}

func check(mutants []mutant) error {
	var names []string
	for _, m := range mutants {
		switch {
		case slices.Contains(names, m.name):
			return fmt.Errorf("mutant %q is there twice", m.name)
		case m.bug == "" || m.rules == "" || m.test.name == "" || len(m.edits) == 0:
			return fmt.Errorf("mutant %q lacks its bug, rules, test or change", m.name)
		case m.end != "" && m.end != "panic" && m.end != "hang":
			return fmt.Errorf("mutant %q ends by %q", m.name, m.end)
		}
		for _, e := range m.edits {
			if e.old == "" || e.old == e.new {
				return fmt.Errorf("mutant %q changes nothing in %s", m.name, e.file)
			}
		}
		names = append(names, m.name)
	}
	return nil
}

// apply returns the files that the mutant changes, by path below root.
func (m *mutant) apply(root string) (map[string]string, error) {
	changed := map[string]string{}
	for _, e := range m.edits {
		text, ok := changed[e.file]
		if !ok {
			raw, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, err
			}
			text = string(raw)
		}
		text, old := "\n"+text, "\n"+e.old // whole lines only
		at := strings.Index(text, old)
		if at < 0 || at != strings.LastIndex(text, old) {
			return nil, fmt.Errorf("mutant %q is stale: these lines must stand once in %s:\n%s", m.name, e.file, e.old)
		}
		changed[e.file] = (text[:at] + "\n" + e.new + text[at+len(old):])[1:]
	}
	return changed, nil
}
