package main

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"

	_ "github.com/mattn/go-sqlite3" // the driver
)

// sqliteStore keeps statements prepared, as its documentation advises. Writers
// share one connection: SQLite has one writer, and waiting for it in Go is
// cheaper than its busy handler. Readers have connections of their own.
type sqliteStore struct {
	write, read              *sql.DB
	put, get, scan, keys, at *sql.Stmt
}

func openSQLite(dir string, s setup) (_ store, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	mode := "FULL"
	if s.durability == lazy {
		mode = "NORMAL" // in WAL mode: no sync at commit
	}
	dsn := "file:" + filepath.Join(dir, "db") + "?_journal_mode=WAL&_busy_timeout=10000&_synchronous=" + mode + "&_cache_size=-131072"
	var b sqliteStore
	if b.write, err = sql.Open("sqlite3", dsn); err != nil {
		return nil, err
	}
	b.write.SetMaxOpenConns(1)
	if _, err := b.write.Exec(`CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID`); err != nil {
		return nil, err
	}
	if b.read, err = sql.Open("sqlite3", dsn); err != nil {
		return nil, err
	}
	b.read.SetMaxOpenConns(4)
	prepare := func(db *sql.DB, query string) *sql.Stmt {
		stmt, e := db.Prepare(query)
		err = errors.Join(err, e)
		return stmt
	}
	b.put = prepare(b.write, `INSERT INTO kv VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v`)
	b.get = prepare(b.read, `SELECT v FROM kv WHERE k = ?`)
	b.scan = prepare(b.read, `SELECT k, v FROM kv ORDER BY k`)
	b.at = prepare(b.read, `SELECT k, v FROM kv WHERE k >= ? ORDER BY k LIMIT ?`)
	b.keys = prepare(b.read, `SELECT k FROM kv ORDER BY k`)
	return b, err
}

func (s sqliteStore) Put(key, value []byte) error {
	_, err := s.put.Exec(key, value)
	return err
}

func (s sqliteStore) Get(key []byte) (v []byte, err error) {
	err = s.get.QueryRow(key).Scan(&v)
	return v, err
}

func (s sqliteStore) Load(keys, values [][]byte) error {
	tx, err := s.write.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	put := tx.Stmt(s.put)
	for i := range keys {
		if _, err := put.Exec(keys[i], values[i]); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func (s sqliteStore) Scan(from []byte, limit int, fn func(key, value []byte)) error {
	stmt, args := s.scan, []any{}
	if from != nil || limit > 0 {
		stmt, args = s.at, []any{from, limit}
	}
	rows, err := stmt.Query(args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var k, v sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&k, &v); err != nil {
			return err
		}
		fn(k, v)
	}
	return rows.Err()
}

func (s sqliteStore) Keys(fn func(key []byte)) error {
	rows, err := s.keys.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	var k sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&k); err != nil {
			return err
		}
		fn(k)
	}
	return rows.Err()
}

func (s sqliteStore) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }
