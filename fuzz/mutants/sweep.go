package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A sweep makes every small change to some files, one at a time, and lists those
// that no test notices. All changes are compiled at once, each behind a switch, so
// that one build serves hundreds of runs:
//
//	if a < b && ok {              if (sweepLess(1, a, b) || sweepOn(2)) && (ok || sweepOn(3)) {
//		f(x + 1)          becomes     if !sweepOn(4) { f(sweepAdd(5, x + 1)) }
//	}                             }
//
// The changes are: a condition, or an operand of one, that is always or never true;
// a comparison that takes in its bound, or no longer does; a statement left out; a
// sum that is off by one; min for max; a call whose error is not returned. A
// survivor is not always a gap: a change can make no difference, such as a lock
// that is taken too early. Each has to be looked at.

// switchName is the environment variable that says which change is made.
const switchName = "ANNALS_MUTANT"

// switches is the file that is compiled along with the changed ones.
const switches = `package %s

import (
	"cmp"
	"os"
	"strconv"
)

var sweepNumber, _ = strconv.Atoi(os.Getenv("` + switchName + `"))

func sweepOn(n int) bool { return sweepNumber == n }

func sweepLess[T cmp.Ordered](n int, a, b T) bool { return a < b || sweepOn(n) && a == b }

func sweepLessEqual[T cmp.Ordered](n int, a, b T) bool { return a < b || !sweepOn(n) && a == b }

func sweepAdd[T ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64](n int, v T) T {
	if sweepOn(n) {
		return v - 1
	}
	return v
}

func sweepMin[T cmp.Ordered](n int, all ...T) T { return sweepChoose(all, sweepOn(n)) }

func sweepMax[T cmp.Ordered](n int, all ...T) T { return sweepChoose(all, !sweepOn(n)) }

func sweepChoose[T cmp.Ordered](all []T, greatest bool) T {
	best := all[0]
	for _, v := range all[1:] {
		if greatest == (v > best) {
			best = v
		}
	}
	return best
}
`

// change is one small change.
type change struct {
	where string // file and line
	what  string
	code  string // what it is made to
}

// sweeper gathers the changes to a package's files.
type sweeper struct {
	fset    *token.FileSet
	file    string
	src     []byte
	inserts []insert // of the present file
	changes []change
}

// insert is text to put in, in the place of the next skip bytes. Of those at one
// place the ones that end something come first, the innermost before the others.
type insert struct {
	at, skip int
	text     string
	ends     bool
	order    int
}

func sweepFiles(ctx context.Context, root string, files []string) (ok bool, err error) {
	tmp, err := os.MkdirTemp("", "annals-sweep-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	s := &sweeper{fset: token.NewFileSet()}
	replaced := map[string]string{}
	name := ""
	for _, file := range files {
		s.file = file
		text, pkg, err := s.changeFile(filepath.Join(root, file))
		if err != nil {
			return false, err
		}
		name = pkg
		to := filepath.Join(tmp, filepath.Base(file))
		replaced[filepath.Join(root, file)] = to
		if err := writeFile(to, text); err != nil {
			return false, err
		}
	}
	dir := path.Dir(files[0])
	added := filepath.Join(tmp, "switches.go")
	replaced[filepath.Join(root, dir, "sweep_switches.go")] = added
	if err := writeFile(added, fmt.Appendf(nil, switches, name)); err != nil {
		return false, err
	}
	overlay, err := writeOverlay(tmp, replaced)
	if err != nil {
		return false, err
	}
	if *list {
		for i, c := range s.changes {
			fmt.Println(c.show(i + 1))
		}
		return true, nil
	}
	return s.run(ctx, root, dir, tmp, overlay)
}

func (c change) show(n int) string { return fmt.Sprintf("%4d %s: %s: %s", n, c.where, c.what, c.code) }

// changeFile returns the text of a file with all changes in it.
func (s *sweeper) changeFile(name string) (text []byte, pkg string, err error) {
	if s.src, err = os.ReadFile(name); err != nil {
		return nil, "", err
	}
	file, err := parser.ParseFile(s.fset, name, s.src, parser.SkipObjectResolution)
	if err != nil {
		return nil, "", err
	}
	s.inserts = nil
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
			s.function(f.Type, f.Body)
		}
	}
	slices.SortStableFunc(s.inserts, func(a, b insert) int {
		if a.at != b.at || a.ends != b.ends {
			return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(boolInt(b.ends), boolInt(a.ends)))
		}
		if a.ends {
			return cmp.Compare(b.order, a.order)
		}
		return cmp.Compare(a.order, b.order)
	})
	at := 0
	for _, in := range s.inserts {
		text = append(text, s.src[at:in.at]...)
		text = append(text, in.text...)
		at = in.at + in.skip
	}
	return append(text, s.src[at:]...), file.Name.Name, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *sweeper) offset(p token.Pos) int { return s.fset.Position(p).Offset }

// around puts text before and behind a node, with a %d for the number of the
// change.
func (s *sweeper) around(n ast.Node, what, before, behind string) {
	s.changes = append(s.changes, change{
		where: fmt.Sprintf("%s:%d", s.file, s.fset.Position(n.Pos()).Line), what: what,
		code: strings.Join(strings.Fields(string(s.src[s.offset(n.Pos()):s.offset(n.End())])), " "),
	})
	number := strconv.Itoa(len(s.changes))
	s.insert(n.Pos(), 0, strings.ReplaceAll(before, "%d", number), false)
	s.insert(n.End(), 0, strings.ReplaceAll(behind, "%d", number), true)
}

func (s *sweeper) insert(p token.Pos, skip int, text string, ends bool) {
	s.inserts = append(s.inserts, insert{s.offset(p), skip, text, ends, len(s.inserts)})
}

// function makes the changes in a function. results tells whether it returns an
// error alone.
func (s *sweeper) function(typ *ast.FuncType, body *ast.BlockStmt) {
	errorAlone := false
	if r := typ.Results; r != nil && len(r.List) == 1 && len(r.List[0].Names) <= 1 {
		id, ok := r.List[0].Type.(*ast.Ident)
		errorAlone = ok && id.Name == "error"
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			s.function(n.Type, n.Body)
			return false
		case *ast.GenDecl:
			return n.Tok != token.CONST
		case *ast.BlockStmt:
			s.statements(n.List)
		case *ast.CommClause:
			s.statements(n.Body)
		case *ast.CaseClause:
			s.statements(n.Body)
		case *ast.SwitchStmt:
			s.cases(n)
		case *ast.IfStmt:
			s.condition(n.Cond)
		case *ast.ForStmt:
			if n.Cond != nil {
				s.around(n.Cond, "never", "((", ") && !sweepOn(%d))")
			}
		case *ast.ReturnStmt:
			s.returned(n, errorAlone)
		case *ast.BinaryExpr:
			s.binary(n)
		case *ast.CallExpr:
			s.call(n)
		}
		return true
	})
}

func (s *sweeper) condition(e ast.Expr) {
	s.around(e, "always", "((", ") || sweepOn(%d))")
	s.around(e, "never", "((", ") && !sweepOn(%d))")
}

func (s *sweeper) cases(n *ast.SwitchStmt) {
	if n.Tag != nil {
		return
	}
	for _, c := range n.Body.List {
		for _, e := range c.(*ast.CaseClause).List {
			s.condition(e)
		}
	}
}

// statements leaves out what stands for itself.
func (s *sweeper) statements(list []ast.Stmt) {
	for _, stmt := range list {
		switch n := stmt.(type) {
		case *ast.ExprStmt:
			if call, ok := n.X.(*ast.CallExpr); ok {
				if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" {
					continue
				}
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				continue
			}
		case *ast.BranchStmt:
			if n.Tok != token.CONTINUE {
				continue
			}
		case *ast.IncDecStmt, *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt:
		default:
			continue
		}
		s.around(stmt, "left out", "if !sweepOn(%d) { ", " }")
	}
}

// returned drops the error of a call that is returned.
func (s *sweeper) returned(n *ast.ReturnStmt, errorAlone bool) {
	if len(n.Results) != 1 || !errorAlone {
		return
	}
	if _, ok := n.Results[0].(*ast.CallExpr); ok {
		s.around(n.Results[0], "not done", "func() error { if sweepOn(%d) { return nil }; return ", " }()")
	}
}

func (s *sweeper) binary(n *ast.BinaryExpr) {
	switch n.Op {
	case token.LAND, token.LOR:
		for _, e := range []ast.Expr{n.X, n.Y} {
			if b, ok := e.(*ast.BinaryExpr); ok && b.Op == n.Op {
				continue
			}
			if n.Op == token.LAND {
				s.around(e, "always", "((", ") || sweepOn(%d))")
			} else {
				s.around(e, "never", "((", ") && !sweepOn(%d))")
			}
		}
	case token.LSS:
		s.compare(n, "<=", "sweepLess(%d, ", ")")
	case token.LEQ:
		s.compare(n, "<", "sweepLessEqual(%d, ", ")")
	case token.GTR:
		s.compare(n, ">=", "!sweepLessEqual(-%d, ", ")")
	case token.GEQ:
		s.compare(n, ">", "!sweepLess(-%d, ", ")")
	case token.ADD, token.SUB:
		if lit, ok := n.Y.(*ast.BasicLit); ok && lit.Kind == token.INT && !isLiteral(n.X) {
			s.around(n, "one less", "sweepAdd(%d, ", ")")
		}
	}
}

func isLiteral(e ast.Expr) bool {
	_, ok := e.(*ast.BasicLit)
	return ok
}

// compare replaces a comparison by a function of its operands.
func (s *sweeper) compare(n *ast.BinaryExpr, what, before, behind string) {
	before = strings.Replace(before, "-%d", "%d", 1)
	s.around(n, what, before, behind)
	s.insert(n.OpPos, len(n.Op.String()), ",", false)
}

func (s *sweeper) call(n *ast.CallExpr) {
	id, ok := n.Fun.(*ast.Ident)
	if !ok || id.Name != "min" && id.Name != "max" {
		return
	}
	other, fn := "max", "sweepMin"
	if id.Name == "max" {
		other, fn = "min", "sweepMax"
	}
	s.around(n, other, "", "")
	s.insert(id.Pos(), len("min("), fmt.Sprintf("%s(%d, ", fn, len(s.changes)), false)
}

// binaryOf is a compiled test.
type binaryOf struct {
	path string
	dir  string
	args []string
	took time.Duration // without a change
}

// run compiles the tests and runs them with one change after the other.
func (s *sweeper) run(ctx context.Context, root, dir, tmp, overlay string) (ok bool, err error) {
	own := test{dir: "./" + dir, name: cmp.Or(*sweepRun, "."), flags: ""}
	tests := []test{own}
	if *with != "" {
		where, rest, _ := strings.Cut(*with, " ")
		name, flags, _ := strings.Cut(rest, " ")
		tests = append(tests, test{dir: where, name: name, flags: flags})
	}
	var binaries []*binaryOf
	for i, t := range tests {
		b := &binaryOf{path: filepath.Join(tmp, fmt.Sprint("test", i)), dir: filepath.Join(root, t.dir)}
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", overlay, "-o", b.path, t.dir)
		cmd.Dir, cmd.Stderr = root, os.Stderr
		if err := cmd.Run(); err != nil {
			return false, fmt.Errorf("compiling %s: %w", t.dir, err)
		}
		b.args = append([]string{"-test.failfast", "-test.run", t.name}, strings.Fields(t.flags)...)
		if i == 0 && *skip != "" {
			b.args = append(b.args, "-test.skip", *skip)
		}
		begun := time.Now()
		if err := b.run(ctx, 0, 10*time.Minute); err != nil {
			return false, fmt.Errorf("%v without a change: %w", t, err)
		}
		b.took = time.Since(begun)
		fmt.Printf("%v takes %.1f s\n", t, b.took.Seconds())
		binaries = append(binaries, b)
	}
	return s.each(ctx, binaries)
}

func (s *sweeper) each(ctx context.Context, binaries []*binaryOf) (ok bool, err error) {
	chosen, err := s.chosen()
	if err != nil {
		return false, err
	}
	var mu sync.Mutex
	survivors := 0
	next := make(chan int)
	var all sync.WaitGroup
	for range *parallel {
		all.Go(func() {
			for n := range next {
				killed := slices.ContainsFunc(binaries, func(b *binaryOf) bool {
					return b.run(ctx, n, 5*time.Second+4*b.took) != nil
				})
				mu.Lock()
				if !killed {
					survivors++
					fmt.Println(s.changes[n-1].show(n))
				}
				mu.Unlock()
			}
		})
	}
	for _, n := range chosen {
		next <- n
	}
	close(next)
	all.Wait()
	fmt.Printf("%d of %d survived\n", survivors, len(chosen))
	return survivors == 0, ctx.Err()
}

// chosen returns the numbers of the changes to run.
func (s *sweeper) chosen() (numbers []int, err error) {
	if *changes == "" {
		for i := range s.changes {
			numbers = append(numbers, i+1)
		}
		return numbers, nil
	}
	for text := range strings.SplitSeq(*changes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > len(s.changes) {
			return nil, fmt.Errorf("there is no change %q", text)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

var errHung = errors.New("it hung")

// run runs the test with change n, none if that is 0.
func (b *binaryOf) run(ctx context.Context, n int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.path, b.args...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), switchName+"="+strconv.Itoa(n))
	cmd.WaitDelay = time.Second
	if n == 0 {
		cmd.Stdout = os.Stderr
	}
	err := cmd.Run()
	if ctx.Err() != nil {
		return errHung
	}
	return err
}
