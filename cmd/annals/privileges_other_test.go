//go:build !unix

package main

// dropPrivileges has nothing to drop.
func dropPrivileges() {}
