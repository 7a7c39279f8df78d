package fstest

func umask(mask int) (restore func()) { return func() {} }
