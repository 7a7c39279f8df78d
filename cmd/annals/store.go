package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// withStore opens the store in dir for writing, making it if it is missing, and
// closes it after fn.
func withStore(dir string, opts *annals.Options, fn func(*annals.Store) error) error {
	store, err := annals.Open(dir, opts)
	if err != nil {
		return err
	}
	err = fn(store)
	closeErr := store.Close()
	var no *noError
	switch {
	case closeErr == nil:
		return err
	case err == nil || errors.As(err, &no):
		return closeErr
	}
	return errors.Join(err, closeErr)
}

// withExisting is withStore for verbs that make no sense on a new store: it
// makes nothing where there is none.
func withExisting(dir string, opts *annals.Options, fn func(*annals.Store) error) error {
	switch _, err := os.Stat(filepath.Join(dir, "MANIFEST")); {
	case errors.Is(err, fs.ErrNotExist):
		// Opening to read gives the right error, or none if this is a store that
		// somebody is making just now.
		if err := withReader(dir, func(*annals.Reader) error { return nil }); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	return withStore(dir, opts, fn)
}

// withReader opens the store in dir for reading, which takes no lock, needs no
// write permission and makes nothing, and closes it after fn.
func withReader(dir string, fn func(*annals.Reader) error) error {
	reader, err := annals.OpenReader(dir, nil)
	if err != nil {
		return err
	}
	err = fn(reader)
	if closeErr := reader.Close(); err == nil {
		err = closeErr
	}
	return err
}

// logger passes the store's warnings to standard error, and with --verbose all
// its events.
func logger(cmd *cobra.Command) *slog.Logger {
	level := slog.LevelWarn
	if verbose(cmd) {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
}
