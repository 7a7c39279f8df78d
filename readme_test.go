package annals_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/segment"
)

// TestReadmeExampleIsTheTestedOne holds the program in the README against the
// Example that compiles and runs.
func TestReadmeExampleIsTheTestedOne(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)```go\n(.*?)```").FindSubmatch(readme)
	require.NotNil(t, block, "README.md has no Go example")
	example, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	flat := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	code := regexp.MustCompile(` // \{Ann 41\} <nil>`).ReplaceAllString(string(block[1]), "") // the output, which the Example checks
	require.Contains(t, flat(string(example)), flat(code))
}

// TestReadmeLinesAreValid reads the lines that README.md shows as the store would.
func TestReadmeLinesAreValid(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	lines := regexp.MustCompile(`(?m)^\{"seq".*$`).FindAllString(string(readme), -1)
	require.Len(t, lines, 2)
	for _, line := range lines {
		_, err := segment.DecodeLine([]byte(line + "\n"))
		require.NoError(t, err, line)
	}
}

// TestDurabilityNamesTestsThatExist keeps the page's promises from naming a proof
// that is not there.
func TestDurabilityNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("DURABILITY.md")
	require.NoError(t, err)
	have := map[string]bool{}
	for _, pattern := range []string{"*_test.go", "*/*_test.go", "*/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(text, -1) {
				have[string(m[1])] = true
			}
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllSubmatch(page, -1)
	require.Greater(t, len(named), 40)
	for _, m := range named {
		require.True(t, have[string(m[1])], "DURABILITY.md names %s, which does not exist", m[1])
	}
}
