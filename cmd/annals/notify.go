package main

import (
	"context"
	"net"
	"os"
	"sync"
)

// serving tells the service manager that the work has begun, and that it ends once ctx
// is done. Call what it returns at the end.
func serving(ctx context.Context) (end func()) {
	notify("READY=1")
	stopping := sync.OnceFunc(func() { notify("STOPPING=1") })
	stop := context.AfterFunc(ctx, stopping)
	return func() {
		stop()
		stopping()
	}
}

// notify tells the service manager that started this process, if one did and wants
// to know, how it is: sd_notify(3), a datagram to the socket in NOTIFY_SOCKET. One
// that nobody takes is no error.
func notify(state string) {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return
	}
	defer conn.Close()
	conn.Write([]byte(state))
}
