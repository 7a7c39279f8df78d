package system

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// feedText runs annals with text as its standard input.
func feedText(t testing.TB, text string, args ...string) outcome {
	t.Helper()
	cmd := prepareCommand(t.Context(), append([]string{binary}, args...), nil)
	cmd.Stdin = strings.NewReader(text)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return ended(t, cmd, err, stdout.String(), stderr.String())
}

// A line that can't be taken ends the load and is named by its number. All before
// it is there and acknowledged, nothing of it or behind it is.
func TestBadLineLosesNothing(t *testing.T) {
	rnd := seeded(t)
	for what, bad := range map[string]string{
		"no JSON":        "garbage\n",
		"cut short":      `{"key":"a","va`,
		"NUL":            "{\"key\":\"a\",\"val\":1}\x00\n",
		"no object":      "[1,2]\n",
		"twice":          `{"key":"a","key":"b","val":1}` + "\n",
		"unknown field":  `{"key":"a","val":1,"ttl":5}` + "\n",
		"no value":       `{"key":"a"}` + "\n",
		"bad base64":     `{"key":"a","b64":"*"}` + "\n",
		"long key":       `{"key":"` + strings.Repeat("k", 65<<10) + `","val":1}` + "\n",
		"huge value":     `{"key":"a","txt":"` + strings.Repeat("v", 17<<20) + `"}` + "\n",
		"long series":    `{"ser":"` + strings.Repeat("s", 256) + `","val":1}` + "\n",
		"deep nonsense":  `{"key":"a","val":` + strings.Repeat("[", 1<<20) + "\n",
		"a time too far": `{"key":"a","val":1,"exp":1e300}` + "\n",
	} {
		t.Run(what, func(t *testing.T) {
			dir, h := filepath.Join(t.TempDir(), "store"), newHistory(rnd)
			var input strings.Builder
			for range 20 {
				input.WriteString(h.next().input())
			}
			input.WriteString(bad + `{"key":"behind","val":1}` + "\n")
			o := feedText(t, input.String(), "load", dir, "--ack")
			o.failed(t, fmt.Sprintf("line %d: ", h.ops()+1))
			require.Less(t, len(o.stderr), 4<<10, "the message is as long as the line")
			require.Equal(t, h.ops(), strings.Count(o.stdout, "\n"))
			h.complete(t, dir)
			h.goesOn(t, dir)
		})
	}
}

// Ctrl-C and SIGTERM end a load cleanly at any moment: everything acknowledged is
// there, and the store is closed, with nothing to recover.
func TestInterruptedLoadIsClosed(t *testing.T) {
	rnd := seeded(t)
	dir, h := filepath.Join(t.TempDir(), "store"), newHistory(rnd)
	for i := range 6 {
		l := load{dir: dir, args: []string{"--segment-size", "64KiB", "--sync", []string{"always", "2ms", "never"}[i%3]}}
		after := time.Duration(rnd.IntN(30)) * time.Millisecond
		l.onAck = func(acked int, p *os.Process) {
			if acked == 1 {
				time.AfterFunc(after, func() { p.Signal([]os.Signal{os.Interrupt, syscall.SIGTERM}[i%2]) })
			}
		}
		o, _ := l.run(t, h)
		o.failed(t, "interrupted")
		h.check(t, dir)
		require.Contains(t, must(t, "stats", dir, "--json"), `"recovery":{"clean":true`)
	}
	h.goesOn(t, dir)
}

// A load whose acknowledgements nobody reads any more ends by itself.
func TestLoadWithoutAReaderEnds(t *testing.T) {
	dir, h := filepath.Join(t.TempDir(), "store"), newHistory(seeded(t))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := prepareCommand(ctx, []string{binary, "load", dir, "--ack"}, nil)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	for i := 0; ; i++ {
		if _, err := io.WriteString(stdin, h.next().input()); err != nil {
			break
		}
		if i == 20 {
			_, err := io.ReadFull(stdout, make([]byte, 2))
			require.NoError(t, err)
			h.known = 1
			require.NoError(t, stdout.Close())
		}
	}
	err = cmd.Wait()
	require.NoError(t, ctx.Err(), "it hangs")
	o := ended(t, cmd, err, "", stderr.String())
	o.failed(t, "nobody reads the acknowledgements")
	h.goesOn(t, dir)
}

// Who may read a store but not write it reads everything and changes nothing; who
// may not read it is told so.
func TestPermissionsAreRespected(t *testing.T) {
	if os.Getuid() != 0 {
		unchecked(t, false, "only root can become somebody else")
	}
	dir, h := filepath.Join(t.TempDir(), "store"), newHistory(seeded(t))
	makeTorn(t, dir, h)
	command(t, "chmod", "-R", "a+rX", filepath.Dir(filepath.Dir(dir)))
	as := func(args ...string) outcome {
		cmd := exec.Command(binary, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		return ended(t, cmd, err, stdout.String(), stderr.String())
	}
	before := command(t, "sh", "-c", `cd "$1" && ls -lnR --time-style=full-iso && find . -type f | sort | xargs sha256sum`, "sh", dir)
	export := must(t, "export", dir)
	o := as("export", dir)
	require.Zero(t, o.code, o.stderr)
	require.Equal(t, export, o.stdout)
	for _, verb := range [][]string{{"verify", dir}, {"stats", dir}, {"scan", dir}, {"tail", dir}} {
		require.Zero(t, as(verb...).code, verb)
	}
	for _, verb := range [][]string{{"put", "--shared-dir", dir, "k", "v"}, {"load", "--shared-dir", dir}, {"compact", "--shared-dir", dir},
		{"append", "--shared-dir", dir, "s"}, {"backup", dir, dir + "/x"}} {
		as(verb...).failed(t, "permission denied")
	}
	require.Equal(t, before, command(t, "sh", "-c", `cd "$1" && ls -lnR --time-style=full-iso && find . -type f | sort | xargs sha256sum`, "sh", dir))
	require.NoError(t, os.Chmod(dir, 0o700))
	for _, verb := range [][]string{{"get", dir, "key-1"}, {"verify", dir}, {"export", dir}, {"put", dir, "k", "v"}} {
		as(verb...).failed(t, "permission denied")
	}
	h.goesOn(t, dir)
}
