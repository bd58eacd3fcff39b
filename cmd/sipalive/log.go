package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"sipalive/platform"
)

// newLog returns a log that writes to stderr. If stderr goes to systemd's journal, it
// writes to the journal: the same lines, with their keys as fields to search by.
func newLog(w io.Writer) *slog.Logger {
	if f, is := w.(*os.File); is && platform.LogsToJournal(f) {
		if j, err := platform.OpenJournal(platform.JournalSocket); err == nil {
			return slog.New(newJournalHandler(j, f))
		}
		return slog.New(undated(w)) // the journal dates lines itself
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

func undated(w io.Writer) slog.Handler { return without(w, slog.TimeKey) }

// without returns a handler whose lines leave out some of slog's own keys.
func without(w io.Writer, keys ...string) slog.Handler {
	return slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		for _, k := range keys {
			if len(groups) == 0 && a.Key == k {
				return slog.Attr{}
			}
		}
		return a
	}})
}

// journalHandler writes entries with the fields SIPALIVE_NODE, SIPALIVE_VIP and so on,
// one per key of the line. If the journal refuses an entry, the line goes to stderr, and
// systemd passes it on to the same journal.
type journalHandler struct {
	journal *platform.Journal
	lines   slog.Handler
	attrs   []slog.Attr
}

func newJournalHandler(j *platform.Journal, stderr io.Writer) slog.Handler {
	return &journalHandler{journal: j, lines: undated(stderr)}
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.attrs = append(more.attrs[:len(more.attrs):len(more.attrs)], attrs...)
	return &more
}

// WithGroup ignores groups: the log's keys are few and flat.
func (h *journalHandler) WithGroup(string) slog.Handler { return h }

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	r = r.Clone()
	r.AddAttrs(h.attrs...)
	if err := h.journal.Send(entry(ctx, r)); err != nil {
		return h.lines.Handle(ctx, r)
	}
	return nil
}

// entry returns the journal's fields for a line. MESSAGE is the line as people read it.
func entry(ctx context.Context, r slog.Record) []platform.Field {
	var rest bytes.Buffer
	_ = without(&rest, slog.TimeKey, slog.LevelKey, slog.MessageKey).Handle(ctx, r) // a Buffer takes everything
	fields := []platform.Field{
		{Name: "MESSAGE", Value: strings.TrimSpace(r.Message + " " + rest.String())},
		{Name: "PRIORITY", Value: strconv.Itoa(priority(r.Level))},
		{Name: "SYSLOG_IDENTIFIER", Value: "sipalive"},
		{Name: "SIPALIVE_EVENT", Value: r.Message},
	}
	r.Attrs(func(a slog.Attr) bool {
		fields = append(fields, platform.Field{Name: "SIPALIVE_" + fieldName(a.Key), Value: a.Value.Resolve().String()})
		return true
	})
	return fields
}

// priority returns the level as a priority of syslog(3).
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	}
	return 6
}

func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}
