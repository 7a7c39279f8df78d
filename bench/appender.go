package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/tidwall/wal"

	"github.com/annalsdb/annals"
)

// appender is what a contestant for samples can do: add one at the end.
type appender interface {
	Append(value []byte) error
	Close() error
}

// appenders are the contestants for samples, by name.
var appenders = []struct {
	name string
	open func(dir string, s setup) (appender, error)
	lazy bool // it can append without waiting for a sync
}{
	{"annals", openAnnalsSeries, true},
	{"tidwall/wal", openTidwall, true},
	{"raft-wal", openRaftWAL, false},
	{"slog file", openSlog, true},
}

func openAppender(name, dir string, s setup) (appender, error) {
	for _, a := range appenders {
		if a.name == name {
			return a.open(dir, s)
		}
	}
	return nil, fmt.Errorf("no contestant is called %q", name)
}

type annalsSeries struct{ *annals.Store }

func openAnnalsSeries(dir string, s setup) (appender, error) {
	db, err := annals.Open(dir, annalsOptions(s))
	return annalsSeries{db}, err
}

func (s annalsSeries) Append(value []byte) error {
	_, err := s.Store.Append("s", value)
	return err
}

type tidwallLog struct {
	*wal.Log
	mu   sync.Mutex
	next uint64
}

func openTidwall(dir string, s setup) (appender, error) {
	log, err := wal.Open(dir, &wal.Options{NoSync: s.durability == lazy, SegmentSize: 16 << 20, LogFormat: wal.Binary, SegmentCacheSize: 2})
	if err != nil {
		return nil, err
	}
	last, err := log.LastIndex()
	return &tidwallLog{Log: log, next: last + 1}, err
}

// Append takes the next index under a lock: the log wants them in order.
func (l *tidwallLog) Append(value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.Write(l.next, value)
	if err == nil {
		l.next++
	}
	return err
}

type raftLog struct {
	*raftwal.WAL
	mu   sync.Mutex
	next uint64
}

func openRaftWAL(dir string, s setup) (appender, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := raftwal.Open(dir)
	if err != nil {
		return nil, err
	}
	last, err := log.LastIndex()
	return &raftLog{WAL: log, next: last + 1}, err
}

func (l *raftLog) Append(value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.StoreLog(&raft.Log{Index: l.next, Term: 1, Data: value})
	if err == nil {
		l.next++
	}
	return err
}

// slogFile is what many programs do instead of using a store.
type slogFile struct {
	*os.File
	log  *slog.Logger
	sync bool
	mu   sync.Mutex
}

func openSlog(dir string, s setup) (appender, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &slogFile{File: file, log: slog.New(slog.NewJSONHandler(file, nil)), sync: s.durability == durable}, nil
}

func (f *slogFile) Append(value []byte) error {
	f.log.Info("sample", "value", string(value))
	if !f.sync {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Sync()
}
