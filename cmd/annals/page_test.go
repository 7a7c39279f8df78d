package main

import (
	"os"
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
