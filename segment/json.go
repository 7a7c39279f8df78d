package segment

import "bytes"

// maxDepth is how deep JSON may be nested to be kept under "val". Some readers
// of the log will have a limit; all known ones allow this.
const maxDepth = 128

// validJSON reports whether v is one JSON value between optional spaces. It
// checks grammar, not UTF-8, nor for bytes below 0x20 in strings. A scanner of its own because encoding/json takes
// three times as long, allows deeper nesting and lets raw line ends through
// between tokens.
func validJSON(v []byte) bool {
	var open [maxDepth]byte // the bracket that closes each level
	depth := 0
	i := skipSpaces(v, 0)
	for {
		// A value begins at i.
		if i >= len(v) {
			return false
		}
		switch c := v[i]; c {
		case '{', '[':
			if depth == maxDepth {
				return false
			}
			open[depth] = c + 2 // in ASCII } is { + 2 and ] is [ + 2
			depth++
			i = skipSpaces(v, i+1)
			if i < len(v) && v[i] == open[depth-1] {
				depth--
				i++
				break // an empty one is a complete value
			}
			if c == '{' {
				if i = scanName(v, i); i < 0 {
					return false
				}
			}
			continue
		default:
			if i = scanScalar(v, i); i < 0 {
				return false
			}
		}
		// A value ended before i: close what closes here, then go to the next.
		for {
			i = skipSpaces(v, i)
			if depth == 0 {
				return i == len(v)
			}
			if i >= len(v) {
				return false
			}
			if v[i] == ',' {
				break
			}
			if v[i] != open[depth-1] {
				return false
			}
			depth--
			i++
		}
		i = skipSpaces(v, i+1)
		if open[depth-1] == '}' {
			if i = scanName(v, i); i < 0 {
				return false
			}
		}
	}
}

func skipSpaces(v []byte, i int) int {
	for i < len(v) && v[i] == ' ' {
		i++
	}
	return i
}

// scanName scans `"name" :` at i and returns where the member's value begins, or -1.
func scanName(v []byte, i int) int {
	if i >= len(v) || v[i] != '"' {
		return -1
	}
	if i = scanJSONString(v, i); i < 0 {
		return -1
	}
	i = skipSpaces(v, i)
	if i >= len(v) || v[i] != ':' {
		return -1
	}
	return skipSpaces(v, i+1)
}

// scanScalar scans a string, number or literal at i and returns its end, or -1.
func scanScalar(v []byte, i int) int {
	switch v[i] {
	case '"':
		return scanJSONString(v, i)
	case 't':
		return scanLiteral(v, i, "true")
	case 'f':
		return scanLiteral(v, i, "false")
	case 'n':
		return scanLiteral(v, i, "null")
	}
	return scanNumber(v, i)
}

func scanLiteral(v []byte, i int, word string) int {
	if len(v)-i < len(word) || string(v[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

// near is how far a string is looked at byte by byte. Most end there; behind it a
// search for the next quote is faster.
const near = 12

// scanJSONString scans any JSON string, as users write them: all escapes, both
// cases of hex digits. Bytes below 0x20 pass.
func scanJSONString(v []byte, i int) int {
	i++
	quote := -1 // the next one from i on, if it is not below i
	for end := i + near; ; {
		for i < len(v) && i < end && v[i] != '"' && v[i] != '\\' {
			i++
		}
		if i == end {
			if quote < i {
				if quote = i + bytes.IndexByte(v[i:], '"'); quote < i {
					return -1
				}
			}
			n := bytes.IndexByte(v[i:quote], '\\')
			if n < 0 {
				return quote + 1
			}
			i += n
		}
		if i >= len(v) {
			return -1
		}
		if v[i] == '"' {
			return i + 1
		}
		n := escapeIn(v[i:])
		if n == 0 {
			return -1
		}
		i += n
		end = max(end, i)
	}
}

// escapeIn is the length of the escape that v begins with, 0 if it is none.
func escapeIn(v []byte) int {
	if len(v) < 2 {
		return 0
	}
	switch v[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(v) >= 6 && isHex(v[2]) && isHex(v[3]) && isHex(v[4]) && isHex(v[5]) {
			return 6
		}
	}
	return 0
}

func isHex(c byte) bool { return hexValue(c|0x20) >= 0 && (c >= '0' && c <= '9' || c >= 'A') }

// scanNumber scans -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?
func scanNumber(v []byte, i int) int {
	if v[i] == '-' {
		i++
	}
	if i < len(v) && v[i] == '0' {
		i++
	} else if i = scanDigits(v, i); i < 0 {
		return -1
	}
	if i < len(v) && v[i] == '.' {
		if i = scanDigits(v, i+1); i < 0 {
			return -1
		}
	}
	if i < len(v) && v[i]|0x20 == 'e' {
		i++
		if i < len(v) && (v[i] == '+' || v[i] == '-') {
			i++
		}
		return scanDigits(v, i)
	}
	return i
}

// scanDigits scans one digit or more at i and returns their end, or -1.
func scanDigits(v []byte, i int) int {
	start := i
	for i < len(v) && v[i]-'0' <= 9 {
		i++
	}
	if i == start {
		return -1
	}
	return i
}
