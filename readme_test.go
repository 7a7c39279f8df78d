package annals_test

import (
	"os"
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
