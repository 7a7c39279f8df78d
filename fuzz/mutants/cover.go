package main

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// decisive are the files that decide what is data and what is damage, and what may
// be thrown away: no branch of them goes untested without a word in fuzz/README.md.
var decisive = []string{
	"segment/check.go", "segment/examine.go", "segment/json.go", "segment/meta.go", "segment/record.go", "segment/scan.go",
	"segment/text.go", "segment/view.go",
	"recover.go", "checkpoint.go", "manifest.go", "manifeststate.go",
	"index/builder.go", "index/checkpoint.go", "index/cursor.go", "index/levels.go", "index/live.go", "index/moves.go", "index/order.go", "index/overlay.go",
	"index/page.go", "index/state.go", "index/table.go", "index/tablewriter.go",
	"compaction.go", "compact/gather.go", "compact/merge.go", "compact/output.go", "compact/pick.go", "compact/run.go", "compact/writer.go",
}

// block is a run of statements that go test -coverprofile counts: where a branch
// leads.
type block struct {
	file                     string
	line, col, toLine, toCol int
}

// missedBlocks prints what a profile says was never run in the decisive files, and
// reports whether that is all explained in fuzz/README.md.
func missedBlocks(root, profile string) (ok bool, err error) {
	counts, err := readProfile(profile)
	if err != nil {
		return false, err
	}
	page, err := os.ReadFile(filepath.Join(root, readme))
	if err != nil {
		return false, err
	}
	var missed []block
	total := 0
	for b, n := range counts {
		if slices.Contains(decisive, b.file) {
			total++
			if n == 0 {
				missed = append(missed, b)
			}
		}
	}
	slices.SortFunc(missed, func(a, b block) int {
		return slices.Compare([]int{slices.Index(decisive, a.file), a.line, a.col}, []int{slices.Index(decisive, b.file), b.line, b.col})
	})
	unexplained := 0
	for _, b := range missed {
		name, code, err := b.show(root)
		if err != nil {
			return false, err
		}
		note := ""
		if !strings.Contains(string(page), "`"+b.file+" "+name+"`") {
			unexplained++
			note = "  NOT EXPLAINED"
		}
		fmt.Printf("%s:%d %s: %s%s\n", b.file, b.line, name, code, note)
	}
	fmt.Printf("%d of %d blocks of the decisive files are never run, %d of them in functions that %s says nothing of\n", len(missed), total, unexplained, readme)
	return unexplained == 0, nil
}

// readProfile returns how often each block was run by any package's tests.
func readProfile(path string) (counts map[block]int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	counts = map[block]int{}
	for scan := bufio.NewScanner(file); scan.Scan(); {
		name, rest, ok := strings.Cut(scan.Text(), ".go:")
		if !ok {
			continue // the mode
		}
		b := block{file: strings.TrimPrefix(name, module+"/") + ".go"}
		var statements, n int
		if _, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &b.line, &b.col, &b.toLine, &b.toCol, &statements, &n); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, scan.Text(), err)
		}
		counts[b] += n
	}
	return counts, nil
}

// show returns the function that a block is in, and the block's code.
func (b block) show(root string) (name, code string, err error) {
	fset := token.NewFileSet()
	path := filepath.Join(root, b.file)
	src, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	file, err := parser.ParseFile(fset, path, src, parser.SkipObjectResolution)
	if err != nil {
		return "", "", err
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && fset.Position(f.Pos()).Line <= b.line && b.line <= fset.Position(f.End()).Line {
			name = f.Name.Name
		}
	}
	lines := strings.Split(string(src), "\n")[b.line-1 : b.toLine]
	return name, strings.Join(strings.Fields(strings.Join(lines, " ")), " "), nil
}
