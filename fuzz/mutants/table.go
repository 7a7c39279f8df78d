package main

import (
	"fmt"
	"os"
	"strings"
)

// readme is the page that shows the mutants, between two comments.
const (
	readme     = "fuzz/README.md"
	tableBegin = "<!-- mutants -->\n"
	tableEnd   = "<!-- /mutants -->\n"
)

// table shows the mutants as the page does.
func table(mutants []mutant) string {
	var b strings.Builder
	b.WriteString("| mutant | bug | rule | killed by | with |\n| --- | --- | --- | --- | --- |\n")
	for _, m := range mutants {
		with := ""
		if m.test.flags != "" {
			with = "`" + m.test.flags + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | `%s` in `%s` | %s |\n", m.name, m.bug, m.rules, m.test.name, m.test.dir, with)
	}
	return b.String()
}

// replaceTable puts the table into the text of the page.
func replaceTable(page string, mutants []mutant) (string, error) {
	before, rest, ok := strings.Cut(page, tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return "", fmt.Errorf("%s has no place for the table", readme)
	}
	return before + tableBegin + "\n" + table(mutants) + "\n" + tableEnd + after, nil
}

func writeTable(path string, mutants []mutant) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := replaceTable(string(page), mutants)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
