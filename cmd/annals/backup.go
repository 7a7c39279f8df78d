package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/replace"
	"github.com/spf13/cobra"
)

func newBackup() *cobra.Command {
	var keep int
	cmd := verb("backup DIR DEST", "Copy a store, also while it is being written", func(cmd *cobra.Command, args []string) error {
		rotate := cmd.Flags().Changed("keep")
		if rotate && keep < 1 {
			return usageError(cmd, errors.New("--keep must be at least 1"))
		}
		return withReader(args[0], func(reader *annals.Reader) error {
			bar := newProgress(cmd, "copying")
			bar.update(0, 0)
			defer bar.end()
			if rotate {
				return backupGeneration(cmd.Context(), reader, args[1], keep)
			}
			return reader.Backup(cmd.Context(), args[1])
		})
	})
	cmd.Long = `Backup makes DEST a store with everything that is durable. Files that do not change any
more are linked, not copied, where DEST is on the same disk, so that this costs little.

With --keep N, DEST is a directory of backups: each call adds one, whole or not at all,
points the symbolic link DEST/current to it and keeps the newest N. The store of the
newest is DEST/current/data.`
	cmd.Example = `  annals backup data /mnt/backup/data
  annals backup data backups --keep 7 && annals verify backups/current/data`
	cmd.Flags().IntVar(&keep, "keep", 0, "make DEST a directory of backups and keep the newest so many")
	return cmd
}

// backupGeneration adds a backup to a directory of them. The store is a directory
// inside the generation, whose own files would be leftovers to a store.
func backupGeneration(ctx context.Context, reader *annals.Reader, dest string, keep int) (err error) {
	if _, err := os.Lstat(filepath.Join(dest, "MANIFEST")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%q is a store, not a directory of backups", dest)
	}
	generations, err := replace.OpenGenerations(dest, replace.Keep(keep-1))
	if err != nil {
		return err
	}
	next, err := generations.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, next.Discard()) }()
	if err := reader.Backup(ctx, filepath.Join(next.Dir(), "data")); err != nil {
		return err
	}
	return next.Commit()
}
