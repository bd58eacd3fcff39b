package main

import (
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
)

// terminal returns the terminal that w is; nil if w is not a terminal.
func terminal(w io.Writer) *os.File {
	f, is := w.(*os.File)
	if !is {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return f
}

// lookOn returns how a status is shown to people. It has colours only on a terminal,
// unless the user wants none (no-color.org) or the terminal knows none.
func lookOn(w io.Writer) control.Look {
	return control.Look{Location: time.Local, Now: time.Now(),
		Color: terminal(w) != nil && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// The control sequences of a full screen: xterm's alternate screen, which restores the
// old contents at the end; no cursor; no wrapping of long lines.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// redraw replaces the text on the screen without a flicker: it writes each line over the
// old one.
func redraw(f *os.File, text string) error {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Row > 0 {
		lines = lines[:min(len(lines), int(size.Row))]
	}
	_, err := f.WriteString("\x1b[H" + strings.Join(lines, "\x1b[K\r\n") + "\x1b[K\x1b[J")
	return err
}
