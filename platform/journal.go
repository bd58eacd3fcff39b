package platform

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// JournalSocket is where systemd-journald accepts entries with custom fields.
const JournalSocket = "/run/systemd/journal/socket"

// LogsToJournal reports whether f, usually standard error, goes to systemd's journal:
// JOURNAL_STREAM has f's device and inode (systemd.exec(5)). A program that inherits the
// variable but writes elsewhere does not log to the journal.
func LogsToJournal(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// Journal speaks journald's native protocol: one datagram per entry
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
type Journal struct {
	conn *net.UnixConn
}

// OpenJournal connects to a socket such as JournalSocket. The connection survives a
// restart of journald, because systemd keeps the socket.
func OpenJournal(socket string) (*Journal, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return &Journal{conn}, nil
}

// Close closes the connection.
func (j *Journal) Close() error { return j.conn.Close() }

// journalPatience is how long an entry waits for a journald that does not read.
const journalPatience = time.Second

// Field is one field of an entry. journald accepts names of upper case letters, digits
// and "_" (not first); it drops others.
type Field struct{ Name, Value string }

// Send writes one entry. It fails with EMSGSIZE if the entry is longer than a datagram
// may be (net.core.wmem_default, 208 KiB by default), and after a second if journald
// hangs.
func (j *Journal) Send(fields []Field) error {
	var b bytes.Buffer
	for _, f := range fields {
		b.WriteString(f.Name)
		if strings.Contains(f.Value, "\n") {
			b.WriteByte('\n')
			_ = binary.Write(&b, binary.LittleEndian, uint64(len(f.Value))) // a Buffer takes everything
		} else {
			b.WriteByte('=')
		}
		b.WriteString(f.Value)
		b.WriteByte('\n')
	}
	_ = j.conn.SetWriteDeadline(time.Now().Add(journalPatience)) // fails only on a closed connection, as Write then does too
	if _, err := j.conn.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write to the journal: %w", err)
	}
	return nil
}
