package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// storeFlags are the flags of all verbs that open a store for writing.
type storeFlags struct {
	networkFS  bool
	sharedDir  bool
	resetClock bool
}

func (f *storeFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.networkFS, "network-fs", false, "also on NFS, SMB and FUSE, where locks and syncs may not mean what they should")
	cmd.Flags().BoolVar(&f.sharedDir, "shared-dir", false, "also in a directory that others may write to or that belongs to another user, who can replace the store's files")
	cmd.Flags().BoolVar(&f.resetClock, "reset-clock", false, "start the store's time, which decides what has expired, at the present: the way back after a run under a clock far ahead")
}

func (f *storeFlags) options(cmd *cobra.Command) *annals.Options {
	return &annals.Options{AllowNetworkFS: f.networkFS, AllowSharedDir: f.sharedDir, ResetClock: f.resetClock, Logger: logger(cmd)}
}

// writeFlags are the flags of all verbs that write much: how safe, in how large
// files, and which samples stay.
type writeFlags struct {
	storeFlags
	sync    syncFlag
	segment sizeFlag
	keep    keepFlag
}

func (f *writeFlags) register(cmd *cobra.Command) {
	f.storeFlags.register(cmd)
	cmd.Flags().Var(&f.sync, "sync", "when data is synced to the disk: always, never, or at the latest after a time such as 100ms")
	cmd.Flags().Var(&f.segment, "segment-size", "size at which the log goes on in a new file, such as 64KiB (default 16MiB)")
	f.keep.register(cmd)
}

func (f *writeFlags) options(cmd *cobra.Command) *annals.Options {
	opts := f.storeFlags.options(cmd)
	opts.Sync = annals.SyncPolicy(f.sync)
	opts.SegmentSize = int64(f.segment)
	opts.Retention = f.keep.retention()
	return opts
}

// inputFlags are the flags of all verbs that write what somebody else made: how
// large a value may be, too.
type inputFlags struct {
	writeFlags
	maxValue sizeFlag
}

func (f *inputFlags) register(cmd *cobra.Command) {
	f.writeFlags.register(cmd)
	f.maxValue = 16 << 20
	cmd.Flags().Var(&f.maxValue, "max-value", "the largest value that is taken, up to 128MiB")
}

func (f *inputFlags) options(cmd *cobra.Command) *annals.Options {
	opts := f.writeFlags.options(cmd)
	opts.MaxValue = int(f.maxValue)
	return opts
}

// syncFlag is an annals.SyncPolicy on the command line.
type syncFlag annals.SyncPolicy

func (f *syncFlag) String() string { return annals.SyncPolicy(*f).String() }
func (f *syncFlag) Type() string   { return "when" }

func (f *syncFlag) Set(s string) error {
	switch s {
	case "always":
		*f = syncFlag(annals.SyncAlways)
		return nil
	case "never":
		*f = syncFlag(annals.SyncNever)
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("must be always, never, or a time such as 100ms")
	}
	*f = syncFlag(annals.SyncEvery(d))
	return nil
}

// sizeFlag is a number of bytes on the command line: 65536, 64KiB, 16MiB, 1GiB.
type sizeFlag int64

func (f *sizeFlag) Type() string { return "size" }

func (f *sizeFlag) String() string {
	n := int64(*f)
	switch {
	case n == 0:
		return ""
	case n%(1<<30) == 0:
		return fmt.Sprintf("%dGiB", n>>30)
	case n%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return strconv.FormatInt(n, 10)
}

func (f *sizeFlag) Set(s string) error {
	number, shift := s, 0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if cut, ok := strings.CutSuffix(s, unit); ok {
			number, shift = cut, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n <= 0 || n > 1<<40>>shift {
		return fmt.Errorf("must be a number of bytes such as 65536, 64KiB, 16MiB or 1GiB")
	}
	*f = sizeFlag(n << shift)
	return nil
}

// timeFlag is a point in time on the command line: RFC 3339, Unix seconds, or
// how long ago.
type timeFlag time.Time

func (f *timeFlag) Type() string { return "time" }

func (f *timeFlag) String() string {
	if time.Time(*f).IsZero() {
		return ""
	}
	return time.Time(*f).Format(time.RFC3339Nano)
}

func (f *timeFlag) Set(s string) error {
	t, err := pointInTime(s)
	if err != nil {
		d, err := parseDuration(s)
		if err != nil || d < 0 {
			return errors.New("must be a time like 2024-11-22T14:00:00Z, Unix seconds like 1732284000.5, or how long ago, like 10m or 7d")
		}
		t = time.Now().Add(-d)
	}
	*f = timeFlag(t)
	return nil
}

// pointInTime reads a time in RFC 3339 or Unix seconds.
func pointInTime(s string) (time.Time, error) {
	t, err := parseTime([]byte(s), false)
	if err == nil {
		return t, nil
	}
	t, parseErr := time.Parse(time.RFC3339Nano, s)
	switch {
	case parseErr != nil:
		return time.Time{}, err
	case t.Unix() < -maxSeconds || t.Unix() > maxSeconds:
		return time.Time{}, errors.New("no time from 1684 to 2255")
	}
	return t, nil
}

// checkSpan refuses a span of time in which nothing can lie.
func checkSpan(since, until timeFlag) error {
	from, to := time.Time(since), time.Time(until)
	if !from.IsZero() && !to.IsZero() && !to.After(from) {
		return errors.New("--until is not after --since")
	}
	return nil
}

// keyFlag lets keys that no shell can pass be given in base64.
type keyFlag bool

func (f *keyFlag) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar((*bool)(f), "k64", false, "KEY is given in base64")
}

func (f keyFlag) key(arg string) (string, error) {
	if !f {
		return arg, nil
	}
	key, err := base64.StdEncoding.DecodeString(arg)
	if err != nil {
		return "", fmt.Errorf("KEY %q is not base64", arg)
	}
	return string(key), nil
}
