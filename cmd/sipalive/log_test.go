package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sipalive/platform"
)

// journald is a socket that takes entries as systemd-journald does.
func journald(t *testing.T) (*net.UnixConn, *platform.Journal) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	server, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	j, err := platform.OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); j.Close() })
	return server, j
}

// received reads one entry in the form of the journal's protocol.
func received(t *testing.T, server *net.UnixConn) map[string]string {
	t.Helper()
	_ = server.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 1<<18)
	n, err := server.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for rest := buf[:n]; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		if !ended {
			t.Fatalf("%q does not end", rest)
		}
		if name, value, short := strings.Cut(string(line), "="); short {
			fields[name], rest = value, after
			continue
		}
		size := binary.LittleEndian.Uint64(after)
		fields[string(line)], rest = string(after[8:8+size]), after[8+size+1:]
	}
	return fields
}

func TestJournalFields(t *testing.T) {
	server, j := journald(t)
	var stderr bytes.Buffer
	log := slog.New(newJournalHandler(j, &stderr)).With("node", "pbx1")
	log.Warn("bind failed", "vip", "vip1", "epoch", uint64(7), "err", errors.New("two\nlines = bad"), "odd-Key", true)
	want := map[string]string{
		"MESSAGE":  `bind failed vip=vip1 epoch=7 err="two\nlines = bad" odd-Key=true node=pbx1`,
		"PRIORITY": "4", "SYSLOG_IDENTIFIER": "sipalive", "SIPALIVE_EVENT": "bind failed", "SIPALIVE_NODE": "pbx1", "SIPALIVE_VIP": "vip1",
		"SIPALIVE_EPOCH": "7", "SIPALIVE_ERR": "two\nlines = bad", "SIPALIVE_ODD_KEY": "true",
	}
	got := received(t, server)
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
	if len(got) != len(want) || stderr.Len() > 0 {
		t.Errorf("fields %q, stderr %q", got, stderr.String())
	}
	for level, want := range map[slog.Level]string{slog.LevelInfo: "6", slog.LevelError: "3"} {
		log.Log(t.Context(), level, "x")
		if got := received(t, server)["PRIORITY"]; got != want {
			t.Errorf("%v has priority %s, want %s", level, got, want)
		}
	}
	log.Debug("not worth an entry")
	log.Info("worth one")
	if got := received(t, server)["MESSAGE"]; got != "worth one node=pbx1" {
		t.Errorf("then came %q", got)
	}
}

// TestJournalRefuses: an entry that the journal refuses is not lost.
func TestJournalRefuses(t *testing.T) {
	server, j := journald(t)
	var stderr bytes.Buffer
	log := slog.New(newJournalHandler(j, &stderr))
	log.Info("long", "err", strings.Repeat("x", 1<<20))
	if got := stderr.String(); !strings.HasPrefix(got, "level=INFO msg=long err=xxx") {
		t.Errorf("an entry too long is %.80q on stderr", got)
	}
	stderr.Reset()
	server.Close()
	log.Error("gone", "vip", "vip1")
	if got := stderr.String(); got != "level=ERROR msg=gone vip=vip1\n" {
		t.Errorf("an entry without a journal is %q on stderr", got)
	}
}

// TestLogsToJournal: only a stderr that goes to the journal counts, not the variable
// alone.
func TestLogsToJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{"": false, "1:2": false, fmt.Sprintf("%d:%d", st.Dev, st.Ino): true} {
		t.Setenv("JOURNAL_STREAM", stream)
		if got := platform.LogsToJournal(f); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %v", stream, got)
		}
	}
}
