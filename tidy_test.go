package annals

import (
	"encoding/json"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/annalsdb/annals"

// listed is what go list tells of a package.
type listed struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func packages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	all := map[string]listed{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := decoder.Decode(&p); err == io.EOF {
			return all
		} else {
			require.NoError(t, err)
		}
		all[strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")] = p
	}
}

// The picture in the design: who may import whom.
func TestImportsGoDownwardsOnly(t *testing.T) {
	allowed := map[string][]string{ // of this module
		"":               {"compact", "index", "replace", "segment", "wal"},
		"compact":        {"replace", "segment"},
		"wal":            {"replace", "segment"},
		"index":          {},
		"segment":        {},
		"replace":        {},
		"replace/fstest": {"replace"},
	}
	owner := map[string]string{ // of the other modules
		"golang.org/x/sys":            "replace",
		"github.com/klauspost/crc32":  "segment",
		"github.com/google/btree":     "index",
		"github.com/stretchr/testify": "only tests",
	}
	all := packages(t)
	for name := range allowed {
		require.Contains(t, all, name)
	}
	for name, p := range all {
		for _, path := range p.Imports {
			if own, ok := strings.CutPrefix(path, module); ok {
				own = strings.TrimPrefix(own, "/")
				if rule, ok := allowed[name]; ok {
					require.Contains(t, rule, own, "package %q imports %q", name, own)
				} else {
					require.True(t, strings.HasPrefix(name, "fuzz") || strings.HasPrefix(name, "replace/"), "package %q has no rule", name)
				}
				continue
			}
			if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
				continue
			}
			known := false
			for other, by := range owner {
				if strings.HasPrefix(path+"/", other+"/") {
					known = true
					require.True(t, name == by || strings.HasPrefix(name, by+"/"), "package %q imports %s, which is for %s", name, path, by)
				}
			}
			require.True(t, known, "package %q imports %s", name, path)
		}
	}
}

func TestModuleHasFourDirectDependencies(t *testing.T) {
	out, err := exec.Command("go", "mod", "edit", "-json").Output()
	require.NoError(t, err)
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []any
	}
	require.NoError(t, json.Unmarshal(out, &mod))
	var direct []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	slices.Sort(direct)
	require.Equal(t, []string{"github.com/google/btree", "github.com/klauspost/crc32", "github.com/stretchr/testify", "golang.org/x/sys"}, direct)
	require.Empty(t, mod.Replace)
}

// sources parses the files of a directory that are not tests, for all systems.
func sources(t *testing.T, dir string) (*token.FileSet, []*ast.File) {
	t.Helper()
	fset := token.NewFileSet()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, file)
	}
	return fset, files
}

func TestEveryPackageTellsItsStory(t *testing.T) {
	for name, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		_, files := sources(t, p.Dir)
		story := ""
		for _, file := range files {
			story += file.Doc.Text()
		}
		require.NotEmpty(t, story, "package %q has no comment", name)
	}
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	all := packages(t)
	for _, name := range []string{"", "replace", "segment", "wal", "index", "compact"} {
		fset, files := sources(t, all[name].Dir)
		p, err := doc.NewFromFiles(fset, files, all[name].ImportPath)
		require.NoError(t, err)
		missing := func(what, text string) {
			if text == "" {
				t.Errorf("package %q: %s has no doc comment", name, what)
			}
		}
		values := func(list []*doc.Value) {
			for _, v := range list {
				for _, spec := range v.Decl.Specs {
					spec := spec.(*ast.ValueSpec)
					for _, id := range spec.Names {
						if id.IsExported() {
							missing(id.Name, v.Doc+spec.Doc.Text()+spec.Comment.Text())
						}
					}
				}
			}
		}
		functions := func(list []*doc.Func) {
			for _, f := range list {
				if f.Name != "String" && f.Name != "Error" && f.Name != "Unwrap" {
					missing(f.Name, f.Doc)
				}
			}
		}
		values(p.Consts)
		values(p.Vars)
		functions(p.Funcs)
		for _, typ := range p.Types {
			missing(typ.Name, typ.Doc)
			values(typ.Consts)
			values(typ.Vars)
			functions(typ.Funcs)
			functions(typ.Methods)
		}
	}
}

func TestNoFunctionIsLongerThanAScreen(t *testing.T) {
	const screen = 70
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if path != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		fset, files := sources(t, path)
		for _, file := range files {
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok {
					if lines := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1; lines > screen {
						t.Errorf("%s: %s is %d lines long, %d at the most", fset.Position(f.Pos()), f.Name.Name, lines, screen)
					}
				}
			}
		}
		return nil
	}))
}
