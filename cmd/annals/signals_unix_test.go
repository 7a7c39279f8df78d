//go:build unix

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A load whose acknowledgements nobody takes cannot end cleanly: the first Ctrl-C
// asks it to and must not kill it, the second one kills.
func TestSecondInterruptKills(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	load := exec.Command(exe)
	load.Args = []string{"annals", "load", filepath.Join(t.TempDir(), "d"), "--ack", "--sync", "never"}
	stdin, err := load.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load.StdoutPipe(); err != nil { // which nobody reads
		t.Fatal(err)
	}
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	var fed atomic.Int64
	go func() {
		for {
			if _, err := io.WriteString(stdin, `{"key":"k","val":1}`+"\n"); err != nil {
				return
			}
			fed.Add(1)
		}
	}()
	for before := int64(-1); before != fed.Load() || before == 0; { // until it is stuck
		before = fed.Load()
		time.Sleep(300 * time.Millisecond)
	}
	ended := make(chan error, 1)
	go func() { ended <- load.Wait() }()
	load.Process.Signal(os.Interrupt)
	select {
	case err := <-ended:
		t.Fatalf("the first interrupt ended it: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	load.Process.Signal(os.Interrupt)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		load.Process.Kill()
		t.Fatal("the second interrupt did not end it")
	}
	if status := load.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("it ended with %v, not by the signal", load.ProcessState)
	}
}
