package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// An execSource is a command that the shell runs anew each time, and whose output is
// recorded.
type execSource struct {
	series string
	line   string
	every  time.Duration
}

// maxCommandOutput bounds what a command may print each time.
const maxCommandOutput = 1 << 20

// run runs the command once and returns its samples: all of its output if that is
// JSON, else its lines. It is killed, with all that it started, when its interval is
// over or ctx ends.
func (c *execSource) run(ctx context.Context) (values [][]byte, err error) {
	late := fmt.Errorf("it took longer than its interval of %s, and was killed", c.every)
	ctx, cancel := context.WithTimeoutCause(ctx, c.every, late)
	defer cancel()
	cmd := shell(ctx, c.line)
	out, complaint := limitedBuffer{limit: maxCommandOutput}, limitedBuffer{limit: 4 << 10}
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.WaitDelay = time.Second // for what it started and could not be killed
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &exit):
		return nil, fmt.Errorf("%v%s", exit, lastWords(complaint.text))
	case errors.Is(err, exec.ErrWaitDelay):
		return nil, errors.New("it ended, and left something running that holds its output")
	case err != nil:
		return nil, err
	case out.over:
		return nil, fmt.Errorf("it printed more than %d bytes", maxCommandOutput)
	}
	return outputValues(out.text), nil
}

// outputValues makes samples of what a command has printed.
func outputValues(out []byte) (values [][]byte) {
	if all := bytes.TrimSpace(out); json.Valid(all) {
		var compact bytes.Buffer
		if !bytes.Contains(all, []byte("\n")) {
			return [][]byte{all}
		}
		json.Compact(&compact, all) // which is valid
		return [][]byte{compact.Bytes()}
	}
	for line := range bytes.Lines(out) {
		if line = bytes.TrimRight(line, "\r\n"); len(bytes.TrimSpace(line)) > 0 {
			values = append(values, line)
		}
	}
	return values
}

// lastWords is the last line of a complaint.
func lastWords(complaint []byte) string {
	lines := strings.Split(strings.TrimSpace(string(complaint)), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return ": " + last
	}
	return ""
}

// limitedBuffer keeps the first bytes that are written to it. It takes all of them:
// a command that prints too much shall not fail with a broken pipe.
type limitedBuffer struct {
	text  []byte
	limit int
	over  bool // there was more
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	keep := min(len(p), b.limit-len(b.text))
	b.over = b.over || keep < len(p)
	b.text = append(b.text, p[:keep]...)
	return len(p), nil
}
